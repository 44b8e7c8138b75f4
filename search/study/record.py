"""A candidate that a study has evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from efficientbert.search.study.workers import Worker


@dataclass(frozen=True)
class Record:
    """A candidate that was evaluated.

    Args:
        number: In the order in which candidates were begun, from 0.
        candidate: As a JSON value.
        state: "COMPLETE", "FAIL" or "PRUNED" (given up half-way).
        losses: One an objective, all minimised; None if not complete.
        figures: Everything that was measured, by name.
        reason: Why it is not complete.
        seconds: Spent on it, by kind: `evaluation`, `sampler` (ask and tell) and `storage`.
        seed: For all that was random in its evaluation.
        worker: Who evaluated it.
    """

    number: int
    candidate: Any
    state: str
    losses: tuple[float, ...] | None
    figures: Mapping[str, float]
    reason: str | None
    seconds: Mapping[str, float]
    seed: int
    worker: str

    @classmethod
    def of(cls, trial: FrozenTrial) -> "Record":
        """From a settled attempt."""
        attributes, result = trial.user_attrs, trial.user_attrs["result"]
        return cls(
            number=attributes["item"],
            candidate=attributes["candidate"],
            state=result["state"],
            losses=None if result["losses"] is None else tuple(result["losses"]),
            figures=result.get("figures", {}),
            reason=result.get("reason"),
            seconds=result.get("seconds", {}),
            seed=attributes["seed"],
            worker=str(Worker(**attributes["worker"])),
        )
