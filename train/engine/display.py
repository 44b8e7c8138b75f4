"""How far a training is, shown: a bar on a terminal, and elsewhere a line now and then."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from tqdm.auto import tqdm


LINES = 20  # at most, about, in a training


class Display:
    """Shows the steps of a training on stderr.

    Args:
        description: What is trained.
        done: Steps that were done before.
        total: Steps in all.
        shown: Whether this process shows anything.
        lines: Whether it prints lines where there is no terminal.
    """

    def __init__(self, description: str, done: int, total: int, shown: bool = True, lines: bool = True):
        self.description = description
        self.first = self.printed = done
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
        self.lines = lines and shown and self.bar.disable

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
        if self.lines and (step == self.total or (step - self.printed) * LINES >= self.total):
            seconds = (time.monotonic() - self.started) / (step - self.first) * (self.total - step)
            loss = f"loss {row['loss']:.4f}" if "loss" in row else "all steps skipped"
            left = timedelta(seconds=round(seconds))
            print(f"{self.description}: step {step} of {self.total}, {loss}, {left} left", file=sys.stderr, flush=True)
            self.printed = step
