"""Which rows of data with one split are kept aside to be scored."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


HELD_OUT = "held_out"  # the split of these rows
PART = 10  # one group of so many is kept aside


def divide(groups: Sequence[Hashable], strata: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The numbers of the rows that are left, and of those that are kept aside: a tenth of every stratum.

    The same rows are always divided alike.

    Args:
        groups: Of every row; those of one group stay together.
        strata: Of every row, its class or its number: of numbers a tenth of every size is kept aside.
    """
    firsts: dict[Hashable, int] = {}  # of a group: its first row
    for index, group in enumerate(groups):
        firsts.setdefault(group, index)
    shuffled = np.random.RandomState(0).permutation(list(firsts.values())).tolist()
    ordered = sorted(shuffled, key=lambda index: strata[index])
    first = min(PART // 2, len(ordered) // 2)  # of few groups, one is kept aside
    chosen = {groups[index] for index in ordered[first::PART]}
    kept = [index for index, group in enumerate(groups) if group not in chosen]
    return kept, [index for index, group in enumerate(groups) if group in chosen]
