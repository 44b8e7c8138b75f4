"""Trackers of accelerate, which draw the curves of a training."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.arguments import LoopArguments


def check_tracker(name: str | None) -> None:
    """Refuses a tracker that is not here.

    Raises:
        InputError: naming those that are.
    """
    known, here = [str(one) for one in LoggerType], [str(one) for one in get_available_trackers()]
    if name is None or name in here or (name == "all" and here):
        return
    fault = "is not installed" if name in known else f"is unknown; known are {', '.join(known)}"
    raise InputError(f"tracker: {name!r} {fault}; installed are {', '.join(here) or 'none'}")


@contextmanager
def tracking(accelerator: Accelerator, args: LoopArguments, description: str) -> Iterator[None]:
    """Within its body `accelerator.log` writes to a run of the tracker's that is named after the training.

    The run ends with the body: an accelerator may train several models in turn, each of which counts steps from 1.
    """
    if args.tracker:
        name = re.sub(r"[^a-z0-9]+", "-", description.lower()).strip("-")
        accelerator.init_trackers(name, config=_plain(args))
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


def _plain(args: LoopArguments) -> dict[str, int | float | bool | str]:
    """Arguments as trackers take them: TensorBoard knows no lists and no None."""
    fields = asdict(args).items()
    return {name: value if isinstance(value, int | float | bool | str) else str(value) for name, value in fields}
