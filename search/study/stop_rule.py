"""When a stage of a search ends."""

import math
from dataclasses import dataclass, field

from efficientbert.search.study.pareto import dominates
from efficientbert.train.cli.errors import InputError


@dataclass
class Progress:
    """How far a stage has come.

    Args:
        started: Candidates begun.
        finished: Of these, candidates that were evaluated, failed or were given up.
        seconds: Spent on them, by all workers together.
        unimproved: Candidates finished since the last that improved on all before.
        front: Losses that no other candidate's dominate: with one objective, the best loss.
    """

    started: int = 0
    finished: int = 0
    seconds: float = 0.0
    unimproved: int = 0
    front: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, losses: tuple[float, ...] | None, seconds: float) -> None:
        """Takes in a finished candidate with its losses, None if it has failed or was given up, and its seconds."""
        self.finished += 1
        self.seconds += seconds
        if losses is None or any(better == losses or dominates(better, losses) for better in self.front):
            self.unimproved += 1
        else:
            self.unimproved = 0
            self.front = [other for other in self.front if not dominates(losses, other)] + [losses]


@dataclass(frozen=True)
class StopRule:
    """When a stage ends: as soon as one of these is reached.

    Args:
        evaluations: Candidates.
        hours: Of work, of all workers together, over all starts.
        patience: Candidates in a row that did not improve the best loss, or the Pareto front.

    Raises:
        InputError: if none is given, or one is not positive.
    """

    evaluations: int | None = None
    hours: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            raise InputError("num_candidates, hours, patience: give at least one of them, so that a stage ends")
        for name, value in given.items():
            if not value > 0:
                flag = "num_candidates" if name == "evaluations" else name
                raise InputError(f"{flag}: must be above 0, not {value}")

    def reached(self, progress: Progress) -> bool:
        """Whether no candidate is to be begun any more."""
        return (
            (self.evaluations is not None and progress.started >= self.evaluations)
            or (self.hours is not None and progress.seconds >= self.hours * 3600)
            or (self.patience is not None and progress.unimproved >= self.patience)
        )

    def expected(self, progress: Progress) -> int | None:
        """How many candidates there will be in the end, as far as can be told; at least, where patience decides."""
        limits = []
        if self.evaluations is not None:
            limits.append(self.evaluations)
        if self.hours is not None and progress.seconds > 0:
            limits.append(math.ceil(self.hours * 3600 * progress.finished / progress.seconds))
        if self.patience is not None:
            limits.append(progress.finished - progress.unimproved + self.patience)
        return max(min(limits), progress.finished) if limits else None
