"""Arguments of a command, from flags and a YAML recipe into a dataclass."""

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser

from efficientbert.train.cli.errors import InputError


def parse_arguments(arguments_class: type, argv: list[str], prog: str, description: str) -> Any:
    """Reads `[RECIPE.yaml] [--flag value ...]` into a dataclass; flags win over the recipe.

    Raises:
        InputError: if the recipe cannot be read, or an argument is unknown, missing or of the wrong type.
    """
    parser = HfArgumentParser(arguments_class, prog=f"{prog} [RECIPE.yaml]", description=description)

    def fail(message: str) -> None:
        raise InputError(f"{message}; see --help")

    parser.error = fail
    if argv and argv[0].endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(argv[0]), arguments_class)
        argv = argv[1:]
        for action in parser._actions:
            action.required = action.required and action.dest not in recipe
        parser.set_defaults(**recipe)
    arguments, unknown = parser.parse_args_into_dataclasses(
        argv, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        fail(f"unknown arguments: {' '.join(unknown)}")
    return arguments


def read_recipe(path: Path, arguments_class: type) -> dict[str, Any]:
    """The keys and values of a YAML recipe, checked against the fields of a dataclass.

    Raises:
        InputError: if the file is missing, no YAML mapping, or has a key that is no field.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"recipe {path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"recipe {path}: must hold one argument per line, as in 'seed: 1'")
    known = {field.name: field for field in dataclasses.fields(arguments_class)}
    for key in recipe:
        if key not in known:
            raise InputError(f"recipe {path}: unknown argument {key!r}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(arguments_class)  # the parser takes "or None" out of the fields
    nothing = {key for key, value in recipe.items() if value is None and type(None) in get_args(hints[key])}
    return {key: None if key in nothing else _recipe_value(path, known[key], value) for key, value in recipe.items()}


def _recipe_value(path: Path, field: dataclasses.Field, value: Any) -> Any:
    """A value as argparse takes it for a default.

    Raises:
        InputError: if it is no value of the field's kind.
    """
    kind = str(field.type)
    several = value if isinstance(value, list) else [value]
    if any(isinstance(one, (dict, list)) or one is None for one in several):
        raise InputError(f"recipe {path}: {field.name}: must be plain words or numbers, not {value!r}")
    if "list[" in kind:
        words = [word for one in several for word in str(one).split()]
        try:
            return [int(word) for word in words] if "list[int]" in kind else words
        except ValueError:
            raise InputError(f"recipe {path}: {field.name}: must be whole numbers, not {value!r}") from None
    if isinstance(value, list):
        raise InputError(f"recipe {path}: {field.name}: must be one value, not {value!r}")
    # argparse converts text only: YAML reads 1e-4 as text, but a whole number where a float belongs as an int.
    return str(value) if type(value) in (int, float) else value
