"""The rows to train on, those kept aside to choose weights and thresholds on, and those to score."""

from collections.abc import Hashable, Sequence

import numpy as np
from datasets import Dataset
from sklearn.model_selection import GroupShuffleSplit

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.loading import split_names
from efficientbert.train.tasks.arguments import LabelledData, TaskArguments
from efficientbert.train.tasks.held_out import HELD_OUT
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

    What is kept aside does not depend on the seed of the run, so that runs with several seeds are compared on it. Nor
    do the rows of the split `HELD_OUT`, which are in neither.

    Raises:
        InputError: if anything cannot be read, or too few rows are left.
    """
    loaded = task.load_rows(args.train_split)
    rows, kept_aside = loaded, None
    held_out = holds_out(args)
    if held_out:
        rows = task.divide(rows)[0]
    if selection:
        groups = task.groups(rows)
        if not 0 < round(selection * len(set(groups))) < len(set(groups)):
            raise InputError(f"selection: {selection} of {len(rows)} training rows leaves no rows on one side")
        kept, aside = divide(groups, selection)
        rows, kept_aside = rows.select(kept), data_of_part(task, loaded, rows.select(aside), "selection")
    if args.augmented_data is None:
        return data_of_part(task, loaded, rows, args.train_split), kept_aside
    if selection or held_out:
        which = "--selection keeps aside" if selection else "are kept aside of data with one split"
        raise InputError(
            f"augmented_data: may hold variants of the rows that {which}; augment a slice of the train split, and "
            "give --selection 0 and --eval_split"
        )
    return task.with_data(args.augmented_data).load("train"), None


def data_of_part(task: Task, rows: Dataset, part: Dataset, split: str) -> TaskData:
    """As `Task.data` of some of the rows.

    Raises:
        InputError: if a row cannot be read, naming it by its number among all rows.
    """
    try:
        return task.data(part, split)
    except InputError:
        task.data(rows, split)  # raises the same, with the number that the row has in the file
        raise


def scored_data(args: LabelledData, task: Task) -> list[TaskData]:
    """The splits that the final weights are scored on.

    Raises:
        InputError: if one cannot be read.
    """
    if holds_out(args):
        rows = task.load_rows(args.train_split)
        return [data_of_part(task, rows, task.divide(rows)[1], HELD_OUT)]
    if args.eval_split is None and args.data is not None:
        names = split_names(args.source(), args.configuration(), "data")
        for split in args.eval_splits():
            if split not in names:
                raise InputError(
                    f"eval_split: {args.source()!r} has no split {split!r} to score; give --eval_split, one of "
                    f"{', '.join(map(repr, names))} or a slice such as '{names[0]}[90%:]', or 'none'"
                )
    return [task.load(split) for split in args.scored_splits()]


def holds_out(args: LabelledData) -> bool:
    """Whether a tenth of the rows is kept aside to score: where own data has one split, and nothing else is said."""
    if args.eval_split is not None or args.data is None:
        return False
    return split_names(args.source(), args.configuration(), "data") == [args.train_split]


def splits_to_score(args: TaskArguments) -> tuple[str, ...]:
    """The splits that score a model of a task where none is said.

    Raises:
        InputError: if own data has one split, and it is none of these: a model may be trained on it.
    """
    splits = args.eval_splits()
    if args.data is not None:
        names = split_names(args.source(), args.configuration(), "data")
        if len(names) == 1 and names[0] not in splits:
            raise InputError(
                f"split: {args.source()!r} has the split {names[0]!r} alone, as any one file has; give --split "
                f"{names[0]} for all rows, or --split {HELD_OUT} for those that `efficientbert finetune` keeps aside"
            )
    return splits
