"""How far a training is, shown: a bar on a terminal, and elsewhere a line now and then."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from tqdm.auto import tqdm


LINES = 20  # at most, about, in a training
SILENCE = 60.0  # seconds after which a line is due all the same


class Lines:
    """Says when a line is due where there is no bar: so many in a job, and one when a while has passed without.

    Args:
        done: What was done before.
        most: Lines in a job, about; with 0 there are those behind a silence alone.
    """

    def __init__(self, done: int, most: int = LINES):
        self.done, self.most = done, most
        self.told = time.monotonic()

    def due(self, done: int, total: int | None) -> bool:
        """Whether to print one now; its caller then does.

        Args:
            done: Steps that are done now.
            total: Steps in all, where it is known.
        """
        share = total is not None and self.most > 0 and (done == total or (done - self.done) * self.most >= total)
        if done == self.done or not (share or time.monotonic() - self.told >= SILENCE):
            return False
        self.done, self.told = done, time.monotonic()
        return True


class Display:
    """Shows the steps of a training on stderr.

    Args:
        description: What is trained.
        done: Steps that were done before.
        total: Steps in all.
        shown: Whether this process shows anything.
        lines: Whether it prints lines where there is no terminal; of a training within another job those behind a
            silence alone.
    """

    def __init__(self, description: str, done: int, total: int, shown: bool = True, lines: bool = True):
        self.description = description
        self.first = done
        self.total = total
        self.started = time.monotonic()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=description,
            unit="step",
            leave=None,  # within another bar it vanishes when it is full
            disable=None if shown else True,  # None: wherever stderr is no terminal
        )
        self.lines = Lines(done, LINES if lines else 0) if shown and self.bar.disable else None

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.close()

    def step(self) -> None:
        """One more step is done."""
        self.bar.update()

    def row(self, row: Mapping[str, float]) -> None:
        """Shows a row of the log: `step` and, where any of its steps was taken, `loss`."""
        step = int(row["step"])
        self.bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss",) if name in row})
        if self.lines is not None and self.lines.due(step, self.total):
            seconds = (time.monotonic() - self.started) / (step - self.first) * (self.total - step)
            loss = f"loss {row['loss']:.4f}" if "loss" in row else "all steps skipped"
            left = timedelta(seconds=round(seconds))
            print(f"{self.description}: step {step} of {self.total}, {loss}, {left} left", file=sys.stderr, flush=True)
