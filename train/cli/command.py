"""Runs a command: arguments in, one line and exit code 2 for bad input."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from safetensors import SafetensorError

from efficientbert.train.cli.arguments import parse_arguments
from efficientbert.train.cli.errors import InputError, bad_input_errors, disk_full
from efficientbert.train.cli.quiet import settle_output
from efficientbert.train.cli.threads import settle_threads


def run_command(main: Callable[[Any], Any], arguments_class: type, name: str, argv: list[str] | None = None) -> None:
    """Runs `main(arguments)`; bad input ends the process with one line on stderr and exit code 2.

    An interrupt ends it with one line and exit code 130, and a reader that closes its end of a pipe, such as `head`,
    without a word and with 141, as shells count these signals.

    Args:
        main: The job; the docstring of its module is what `--help` says first. It imports what it needs when it is
            called, so that help and mistakes are answered at once.
        arguments_class: Dataclass of its arguments.
        name: The command's name, as in `efficientbert NAME`.
        argv: Arguments after the command's name; those of this process by default.
    """
    settle_threads()
    settle_output()
    try:
        argv = sys.argv[1:] if argv is None else argv
        description = sys.modules[main.__module__].__doc__ or ""
        try:
            main(parse_arguments(arguments_class, argv, f"efficientbert {name}", description))
        finally:
            sys.stdout.flush()  # a closed pipe is to show here
    except KeyboardInterrupt:
        again = "start the same command again: a training goes on from its last checkpoint"
        print(f"\nefficientbert {name}: interrupted; {again}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be tried again at the end
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        if isinstance(error, InputError) or isinstance(error, bad_input_errors()):
            fault = str(error)
        elif isinstance(error, OSError | SafetensorError) and disk_full(error):
            fault = f"disk full: {error}; make room and start it again: it goes on from its last checkpoint"
        else:
            raise
    else:
        return
    print(f"efficientbert {name}: error: {' '.join(fault.split())}", file=sys.stderr)
    sys.exit(2)
