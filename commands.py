"""Every command as a Python function: its flags are keyword arguments of the same names and defaults.

    from efficientbert.commands import distill

    made = distill(teacher="thenlper/gte-small", corpus="corpus.txt", max_steps=2000, output_dir="my-student")
    made.path, made.figures["cosine"]

Each returns an `Outcome`: the folder or file that was written, and what was measured. Bad input raises `InputError`,
whose message is the line that the command would print. Torch is imported when a function is called.
"""

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any, get_type_hints

from efficientbert.__main__ import SCRIPTS
from efficientbert.train.cli.arguments import check_kinds, missing_fields, unknown_name
from efficientbert.train.cli.errors import InputError
from efficientbert.train.cli.outcome import Outcome
from efficientbert.train.cli.quiet import quiet_bars


__all__ = [*SCRIPTS, "InputError", "Outcome"]


def _plain(value: Any) -> Any:
    """A value as a flag gives it: paths are texts, several values a list."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def job_of(name: str) -> tuple[Callable[[Any], Outcome], type]:
    """The job of a command, from arguments to what it writes, and the class of its arguments."""
    main = importlib.import_module(SCRIPTS[name][0]).main
    return main, get_type_hints(main)["args"]


def _as_function(name: str) -> Callable[..., Outcome]:
    """The function of a command, with the signature that its arguments have."""
    main, arguments_class = job_of(name)
    fields = dataclasses.fields(arguments_class)
    names = [field.name for field in fields]

    def run(*positional: Any, **arguments: Any) -> Outcome:
        if positional:
            named = f"{arguments_class.first[0]}={positional[0]!r:.50}"  # type: ignore[attr-defined]  # all have it
            raise TypeError(f"{name}() takes keyword arguments alone, as in {name}({named}, …)")
        shown = f"help(efficientbert.commands.{name})"
        for argument in arguments:
            if argument not in names:
                raise InputError(unknown_name(argument, names, shown))
        missing = missing_fields(arguments_class, arguments)
        if missing:
            raise InputError(f"missing: {', '.join(missing)}; see {shown}")
        args = arguments_class(**{argument: _plain(value) for argument, value in arguments.items()})
        check_kinds(args)
        with quiet_bars():
            return main(args)

    said = [f"    {field.name}: {field.metadata['help']}" for field in fields]
    run.__name__ = run.__qualname__ = name
    run.__doc__ = "\n".join([f"{arguments_class.__doc__}\n\nArgs:", *said])
    signature = inspect.signature(arguments_class)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # functions may have one
        parameters=[
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()
        ],
        return_annotation=Outcome,
    )
    return run


(compress, search, distill, embed, augment, finetune, multitask, evaluate, convert, export, trim, push, benchmark) = (
    map(
        _as_function,
        (
            "compress",
            "search",
            "distill",
            "embed",
            "augment",
            "finetune",
            "multitask",
            "evaluate",
            "convert",
            "export",
            "trim",
            "push",
            "benchmark",
        ),
    )
)
