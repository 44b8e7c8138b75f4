"""Runs a command: arguments in, one line and exit code 2 for bad input."""

import sys
from collections.abc import Callable
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from efficientbert.ffn_efficientbert import ExpressionError
from efficientbert.train.cli.arguments import parse_arguments
from efficientbert.train.cli.errors import InputError, disk_full


def run_script(main: Callable[[Any], Any], arguments_class: type, name: str, argv: list[str] | None = None) -> None:
    """Runs `main(arguments)`; bad input ends the process with one line on stderr and exit code 2.

    Args:
        main: The job.
        arguments_class: Dataclass of its arguments; its docstring is the `--help` text.
        name: The command's name, as in `efficientbert NAME`.
        argv: Arguments after the command's name; those of this process by default.
    """
    try:
        argv = sys.argv[1:] if argv is None else argv
        main(parse_arguments(arguments_class, argv, f"efficientbert {name}", arguments_class.__doc__))
    except (InputError, ExpressionError, StrictDataclassError) as error:
        fault = str(error)
    except (OSError, SafetensorError) as error:
        if not disk_full(error):
            raise
        fault = f"disk full: {error}; make room and start it again: it goes on from its last checkpoint"
    else:
        return
    print(f"efficientbert {name}: error: {' '.join(fault.split())}", file=sys.stderr)
    sys.exit(2)
