"""Which of several candidates no other one beats; all values are minimised."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def dominates(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Whether `one` is nowhere worse than `other` and somewhere better.

    Args:
        one: Values of shape `(..., objectives)`.
        other: The same; the leading axes of both are broadcast.

    Returns:
        Booleans of the broadcast shape `(...)`.
    """
    one, other = np.asarray(one), np.asarray(other)
    return np.asarray((one <= other).all(axis=-1) & (one < other).any(axis=-1))


def pareto_front(values: Sequence[Sequence[float]]) -> list[int]:
    """The candidates that no other one dominates, in their order; of equal ones all or none.

    Args:
        values: Of every candidate, one number an objective.

    Returns:
        Indices into `values`.
    """
    if not values:
        return []
    table = np.asarray(values, dtype=np.float64)
    front: list[int] = []
    # In lexicographic order a candidate can only be dominated by an earlier one, and then by one of the front.
    for index in np.lexsort(table.T[::-1]):
        if not dominates(table[front], table[index]).any():
            front.append(int(index))
    return sorted(front)
