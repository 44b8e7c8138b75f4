"""The rows to train on, and those kept aside to choose weights and thresholds on."""

from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks.arguments import LabelledData
from efficientbert.train.tasks.task import Task, TaskData


def divide(groups: Sequence[Hashable], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to fit to and of those kept aside: drawn at random, but always the same ones.

    Args:
        groups: One value a row; rows of one group stay on one side.
        share: Part of the groups to keep aside.
    """
    divided = GroupShuffleSplit(1, test_size=round(share * len(set(groups))), random_state=0)
    ((kept, aside),) = divided.split(groups, groups=groups)
    return kept, aside


def training_data(args: LabelledData, task: Task, selection: float) -> tuple[TaskData, TaskData | None]:
    """The rows to train on, or augmented ones in their place, and those kept aside for selection.

    What is kept aside does not depend on the seed of the run, so that runs with several seeds are compared on it.

    Raises:
        InputError: if anything cannot be read, or too few rows are left.
    """
    rows, kept_aside = task.load_rows(args.train_split), None
    if selection:
        groups = task.groups(rows)
        if not 0 < round(selection * len(set(groups))) < len(set(groups)):
            raise InputError(f"selection: {selection} of {len(rows)} training rows leaves no rows on one side")
        kept, aside = divide(groups, selection)
        rows, kept_aside = rows.select(kept), task.data(rows.select(aside), "selection")
    if args.augmented_data is None:
        return task.data(rows, args.train_split), kept_aside
    if selection:
        raise InputError(
            "augmented_data: may hold variants of the rows that --selection keeps aside; augment a slice of the train "
            "split and give --selection 0"
        )
    return task.with_data(args.augmented_data).load("train"), None
