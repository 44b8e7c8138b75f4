"""Bounds on what a candidate may cost."""

import math
from dataclasses import dataclass

from efficientbert.train.cli.errors import InputError


METRICS = ("parameters", "flops", "latency")


@dataclass(frozen=True)
class Budget:
    """What an architecture may cost: a range or, with one end left out, a ceiling or a floor.

    Args:
        metric: `parameters` of the encoder, `flops` of one sequence, or `latency` in milliseconds.
        minimum: Least cost, itself allowed.
        maximum: Greatest cost, itself allowed.

    Raises:
        InputError: if the metric is unknown or no cost can lie within.
    """

    metric: str
    minimum: float = 0.0
    maximum: float = math.inf

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"budget: unknown metric {self.metric!r}; known are {', '.join(METRICS)}")
        if not 0 <= self.minimum <= self.maximum:
            raise InputError(
                f"budget: {self.metric} from {self.minimum:g} to {self.maximum:g} is empty; "
                "the minimum must be at least 0 and at most the maximum"
            )

    def contains(self, cost: float) -> bool:
        """Whether an architecture of this cost is allowed."""
        return self.minimum <= cost <= self.maximum
