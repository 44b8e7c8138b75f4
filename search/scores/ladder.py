"""Successive halving: scores from cheap to expensive, and a pruner that gives up on the way what falls behind."""

from dataclasses import dataclass

from efficientbert.search.scores.score import ReportRung, Score
from efficientbert.search.space.architecture import Architecture


@dataclass(frozen=True)
class Ladder:
    """Scores from cheap to expensive: a candidate that is given up after one costs nothing of the next.

    Each score is a rung. For Optuna's `SuccessiveHalvingPruner` with `min_resource=1`, rung r is step
    `reduction_factor ** r`: then every rung is one of the pruner's, and of the candidates that reach it about one in
    `reduction_factor` goes on.

    Attributes:
        scores: The last one decides; its own rungs stand above those of the others.
    """

    scores: tuple[Score, ...]

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss of the last score; see `Score`. Without anyone to report to, the others are left out."""
        *cheap, last = self.scores
        if report is None:
            return last(architecture)
        for rung, rate in enumerate(cheap):
            report(rate(architecture), rung)
        return last(architecture, lambda loss, rung: report(loss, len(cheap) + rung))
