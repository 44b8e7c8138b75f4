"""Arguments of a command, from flags and a YAML recipe into a dataclass.

A field of the dataclass is a flag of the same name; its `metadata["help"]` says what it is. Fields are words, numbers,
true or false, or lists of words or numbers, each possibly None. In the help, those that the class names in `first`
lead, with the required ones; the others stand in groups: `group` names that of the fields that a class defines.
"""

import argparse
import dataclasses
import inspect
import math
import re
import shutil
import textwrap
import types
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from efficientbert.train.cli.errors import InputError, did_you_mean


TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
NOTHING = ("", "~", "null", "Null", "NULL")  # what YAML reads as None where it stands without quotes
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
EMPTY_LIST = "must hold one value at least"
UNCUT: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}  # names stay whole
METAVARS = {str: "TEXT", int: "N", float: "X", bool: "{true,false}"}


def parse_arguments(arguments_class: type, argv: list[str], prog: str, description: str = "") -> Any:
    """Reads `[RECIPE.yaml] [--flag value ...]` into a dataclass; flags win over the recipe.

    Args:
        arguments_class: The dataclass.
        argv: Words of the command line.
        prog: The command, for the help.
        description: What the help says first; lines that begin with `efficientbert` are examples.

    Raises:
        InputError: if the recipe cannot be read, or an argument is unknown, missing or of the wrong kind.
    """
    recipe = {}
    if argv and argv[0].endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(argv[0]), arguments_class)
        argv = argv[1:]
    parser = make_parser(arguments_class, prog, description)
    names = [field.name for field in dataclasses.fields(arguments_class)]
    try:
        found, unknown = parser.parse_known_args([_underscored(word) for word in argv])
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name}: {error.message}; see --help") from None
    for word in unknown:
        raise InputError(_unknown(word, names))
    values = recipe | vars(found)
    missing = missing_fields(arguments_class, values)
    if missing:
        raise InputError(f"missing: {', '.join(f'--{name}' for name in missing)}; see --help")
    return arguments_class(**values)


def missing_fields(arguments_class: type, given: Container[str]) -> list[str]:
    """The fields of a dataclass that must be given and are not."""
    return [
        field.name for field in dataclasses.fields(arguments_class) if _required(field) and field.name not in given
    ]


def unknown_name(name: str, names: Iterable[str], otherwise: str) -> str:
    """What is said of an argument that is none of these names: the nearest one, or where all are told."""
    return f"unknown argument {name!r}" + (did_you_mean(name, names) or f"; see {otherwise}")


def default_of(field: dataclasses.Field) -> Any:
    """The default of a dataclass's field; `dataclasses.MISSING` where it has none."""
    return field.default_factory() if callable(field.default_factory) else field.default


def changed_arguments(args: Any) -> dict[str, Any]:
    """The fields of a dataclass whose values are not the defaults."""
    values = {field.name: (getattr(args, field.name), default_of(field)) for field in dataclasses.fields(args)}
    return {name: value for name, (value, default) in values.items() if value != default}


def make_parser(arguments_class: type, prog: str, description: str = "") -> argparse.ArgumentParser:
    """The parser of a dataclass's flags. Flags that are not given are not in its namespace."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [RECIPE.yaml] [--flag value ...]",
        description=_wrapped(description),
        formatter_class=_Formatter,
        allow_abbrev=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
        add_help=False,
    )
    kinds = field_kinds(arguments_class)
    groups: dict[str, Any] = {"first": parser.add_argument_group("the flags that matter first")}
    first = getattr(arguments_class, "first", ())
    fields = {field.name: field for field in dataclasses.fields(arguments_class)}
    for field in [fields[name] for name in first] + [field for field in fields.values() if field.name not in first]:
        leads = field.name in first or _required(field)
        title = "first" if leads else _group_title(arguments_class, field.name)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        kind, several, _ = kinds[field.name]
        options: dict[str, Any] = {"nargs": "+"} if several else {}
        if kind is bool:
            options = {"nargs": "?", "const": True}
        groups[title].add_argument(
            f"--{field.name}",
            type=_reader(kind),
            metavar=METAVARS[kind],
            help=_help(field),
            **options,
        )
    groups["first"].add_argument("-h", "--help", action="help", help="Show this and exit.")
    return parser


def field_kinds(arguments_class: type) -> dict[str, tuple[type, bool, bool]]:
    """Of every field of a dataclass: the kind of its values, whether it holds several, and whether it may be None."""
    kinds = {}
    hints = get_type_hints(arguments_class)
    for field in dataclasses.fields(arguments_class):
        hint = hints[field.name]
        several = optional = False
        if isinstance(hint, types.UnionType):
            optional = True
            (hint,) = (part for part in get_args(hint) if part is not type(None))
        if get_origin(hint) is list:
            several = True
            (hint,) = get_args(hint)
        kinds[field.name] = (hint, several, optional)
    return kinds


def check_kinds(arguments: Any) -> None:
    """Checks that every field of a dataclass holds what its type says, that numbers are finite, that no text is empty,
    and no list but one whose default is empty.

    Raises:
        InputError: naming the field.
    """
    defaults = {field.name: default_of(field) for field in dataclasses.fields(arguments)}
    for name, (kind, several, optional) in field_kinds(type(arguments)).items():
        value = getattr(arguments, name)
        if value is None and optional:
            continue
        if several and not isinstance(value, list | tuple):
            raise InputError(f"{name}: must be a list, not {value!r}")
        if several and not value and value != defaults[name]:
            raise InputError(f"{name}: {EMPTY_LIST}")
        for one in value if several else [value]:
            fits = isinstance(one, (int, float) if kind is float else kind) and (kind is bool or type(one) is not bool)
            if not fits or one == "" or (kind is float and not math.isfinite(one)):
                raise InputError(f"{name}: must be {KINDS[kind]}, not {one!r}")


def read_recipe(path: Path, arguments_class: type) -> dict[str, Any]:
    """The keys and values of a YAML recipe. Values are read as flags are: `no` is a word where words are wanted.

    Raises:
        InputError: if the file is missing, no YAML mapping, has a key twice, or one that is no field, or a value that
            is none of the field's kind.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fault = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise InputError(f"recipe '{path}': {fault}") from None
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"recipe '{path}': must hold one argument per line, as in 'seed: 1'")
    kinds = field_kinds(arguments_class)
    values: dict[str, Any] = {}
    for key, node in root.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        if name not in kinds:
            raise InputError(f"recipe '{path}': line {key.start_mark.line + 1}: {_unknown(f'--{name}', list(kinds))}")
        if name in values:
            raise InputError(f"recipe '{path}': line {key.start_mark.line + 1}: {name!r} stands twice")
        try:
            values[name] = _recipe_value(node, *kinds[name])
        except argparse.ArgumentTypeError as error:
            raise InputError(f"recipe '{path}': line {node.start_mark.line + 1}: {name}: {error}") from None
    return values


def _recipe_value(node: yaml.Node, kind: type, several: bool, optional: bool) -> Any:
    """A value of a recipe as the flag would give it.

    Raises:
        argparse.ArgumentTypeError: if it is no value of the field's kind.
    """
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(one, yaml.ScalarNode) for one in nodes):
        raise argparse.ArgumentTypeError("must be plain words or numbers")
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and node.value in NOTHING:
        if optional:
            return None
        raise argparse.ArgumentTypeError(f"must be {KINDS[kind]}, not nothing")
    if isinstance(node, yaml.SequenceNode) and not several:
        raise argparse.ArgumentTypeError("must be one value, not a list")
    if not nodes:
        raise argparse.ArgumentTypeError(EMPTY_LIST)
    # Words behind one another are several, as on a command line; quotes and list items keep their spaces.
    words = node.value.split() if several and plain else [one.value for one in nodes]
    values = [_reader(kind)(word) for word in words]
    return values if several else values[0]


def _reader(kind: type) -> Any:
    """Reads one word as a value.

    Raises:
        argparse.ArgumentTypeError: if it is none of that kind.
    """

    def read(word: str) -> Any:
        if kind is bool:
            if word.lower() in (*TRUE, *FALSE):
                return word.lower() in TRUE
        else:
            try:
                value = kind(word)
            except ValueError:
                value = math.nan
            if word if kind is str else math.isfinite(value):
                return value
        raise argparse.ArgumentTypeError(f"must be {KINDS[kind]}, not {word!r}")

    return read


def _wrapped(description: str) -> str:
    """A description as wide as the help: paragraphs filled, examples cut before flags, as a shell takes them."""
    indents: dict[str, Any] = {"initial_indent": "    ", "subsequent_indent": " " * 8}
    blocks = []
    for block in description.strip().split("\n\n"):
        lines = [" ".join(line.split()) for line in block.splitlines()]
        if all(line.startswith("efficientbert") for line in lines):
            parts = [re.sub(r" (?!--)", "\0", line) for line in lines]  # a flag keeps its values
            cut = [textwrap.wrap(part, _width() - 2, **UNCUT, **indents) for part in parts]
            blocks.append("\n".join(" \\\n".join(part) for part in cut).replace("\0", " "))
        else:
            blocks.append(textwrap.fill(" ".join(lines), _width(), **UNCUT))
    return "\n\n".join(blocks)


def _width() -> int:
    """Characters in a line of the help: as many as the terminal has, up to 119."""
    return min(119, shutil.get_terminal_size().columns - 2)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help texts beside flags on terminals of any width."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, **UNCUT)


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _group_title(arguments_class: type, name: str) -> str:
    """The group of a flag in the help: that of the class that says it first."""
    owners = [owner for owner in arguments_class.__mro__ if name in inspect.get_annotations(owner)]
    return vars(owners[-1]).get("group", "other")


def _help(field: dataclasses.Field) -> str:
    """What a field is, and its default, unless the help says it."""
    text, default = field.metadata["help"].replace("%", "%%"), default_of(field)
    if default in (None, dataclasses.MISSING, []) or "by default" in text.lower():
        return text
    words = default if isinstance(default, list) else [default]
    return f"{text} (default: {' '.join(str(word).lower() if word in (True, False) else str(word) for word in words)})"


def _underscored(word: str) -> str:
    """A flag as it is known: `--max-steps` is `--max_steps`."""
    flag, equals, value = word.partition("=")
    return flag.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word


def _unknown(word: str, names: list[str]) -> str:
    """What is said of a word that is no flag."""
    if not word.startswith("--"):
        return f"unexpected word {word!r}; flags start with --, see --help"
    return unknown_name(word[2:].partition("=")[0], names, "--help")
