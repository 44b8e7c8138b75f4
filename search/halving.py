"""Successive halving: scores from cheap to expensive, and a pruner that gives up on the way what falls behind."""

from dataclasses import dataclass

import optuna

from efficientbert.search.architecture import Architecture
from efficientbert.search.scores import Report, Score


@dataclass(frozen=True)
class Ladder:
    """Scores from cheap to expensive, each a rung: what a study gives up on one costs no more than those below.

    Attributes:
        scores: The last one decides; its own rungs stand above those of the others.
    """

    scores: tuple[Score, ...]

    def __call__(self, architecture: Architecture, report: Report | None = None) -> float:
        """The loss of the last score; see `Score`. Without anyone to report to, the others are left out."""
        *cheap, last = self.scores
        if report is None:
            return last(architecture)
        for rung, rate in enumerate(cheap):
            report(rate(architecture), rung)
        return last(architecture, lambda loss, rung: report(loss, len(cheap) + rung))


def report_to(trial: optuna.Trial, reduction_factor: int) -> Report:
    """Leaves it to the pruner of an Optuna study which candidates are given up.

    Rung r is step `reduction_factor ** r`. With `SuccessiveHalvingPruner(min_resource=1, reduction_factor=...)` of the
    same factor every rung is then one of the pruner's, and of the candidates that reach it one in `reduction_factor`
    goes on. Optuna prunes in studies of one objective alone.

    Args:
        trial: Of the candidate.
        reduction_factor: The pruner's, at least 2.
    """

    def report(loss: float, rung: int) -> None:
        trial.report(loss, reduction_factor**rung)
        if trial.should_prune():
            raise optuna.TrialPruned(f"given up behind rung {rung} at a loss of {loss:.6g}")

    return report
