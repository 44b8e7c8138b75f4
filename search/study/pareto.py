"""Which of several candidates no other one beats; all values are minimised."""

from collections.abc import Sequence

import numpy as np


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    return all(a <= b for a, b in zip(one, other)) and any(a < b for a, b in zip(one, other))


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
        members = table[front]
        worse = (members <= table[index]).all(axis=1) & (members < table[index]).any(axis=1)
        if not worse.any():
            front.append(int(index))
    return sorted(front)
