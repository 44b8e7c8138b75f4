"""The user's own rows: read as the jobs will read them, labelled by the teacher where they have no labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.files.data_files import check_column
from efficientbert.train.files.loading import split_names
from efficientbert.train.metrics import load_metric
from efficientbert.train.metrics.multi_label import THRESHOLD
from efficientbert.train.model_folder.loading import load_config
from efficientbert.train.tasks.division import scored_data, training_data
from efficientbert.train.tasks.kinds import task_of_data, task_of_model
from efficientbert.train.tasks.prediction import check_length, predict, score
from efficientbert.train.tasks.preparation import REHEARSED, describe_cut, first_rows
from efficientbert.train.tasks.task import Task, TaskData
from efficientbert.train.tasks.texts import TextTask


LABEL = "label"  # the column that a teacher's labels stand in
BATCH_SIZE = 64  # rows at a time


@dataclass(frozen=True)
class OwnRows:
    """Rows of a task.

    Attributes:
        args: Arguments that name them with their labels.
        task: The task, with the labels of the rows.
        teacher: The teacher, with its outputs in the order of the task's.
        training: Rows to train on.
        scored: Rows to score on; None where nothing is to be scored.
    """

    args: CompressArguments
    task: Task
    teacher: TaskTeacher
    training: TaskData
    scored: TaskData | None

    def texts(self, length: int) -> float:
        """How many texts of a length have as many tokens as one pass over the rows to train on, with all choices."""
        found = self.training.features["input_ids"]
        return sum(sum(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids) for ids in found) / length


def read_own_rows(args: CompressArguments, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> OwnRows:
    """Reads rows and labels, and rehearses the scoring, so that faults show before anything is made.

    Args:
        args: Arguments whose data has labels.
        tokenizer: The teacher's.
        device: Where the teacher computes.

    Raises:
        InputError: naming the fault, also where the teacher's labels are others.
    """
    task = task_of_data(args, tokenizer, args.train_split)
    load_metric(task.metric())
    teacher = TaskTeacher.load(args.teacher, task, False, device)
    training, scored = training_data(args, task, 0.0)[0], scored_data(args, task)
    for part in (training, *scored):
        check_length(teacher.model, part, f"teacher {args.teacher!r}")
    for part in scored:
        few = first_rows(task, part)
        score(task, predict(teacher.model, task, few, REHEARSED), few)
    if told := describe_cut(task, training):
        print(told)
    return OwnRows(args, task, teacher, training, scored[0] if scored else None)


def has_labels(args: CompressArguments, rows: Dataset) -> bool:
    """Whether the rows to train on have labels; says so where they have none.

    Raises:
        InputError: if a column of labels is named and not there, or the teacher cannot stand in for it.
    """
    if args.target_column() in rows.column_names:
        return True
    what = f"data {args.source()!r}"
    if args.label_column is not None:
        check_column(args.label_column, rows.column_names, what)
    if args.task_kind() != "text-classification":
        raise InputError(
            f"{what}: has no column {args.target_column()!r}, and the teacher can stand in for labels of "
            "text-classification alone; give labels"
        )
    if args.augmented_data is not None:
        raise InputError(f"augmented_data: holds variants of rows with labels, but {what} has none")
    others = [column for column in rows.column_names if column not in args.text_columns()]
    named = f" (its other columns are {', '.join(map(repr, others))}; --label_column names one)" if others else ""
    print(f"{what}: has no column {args.target_column()!r}{named}; the teacher's labels stand in, also for scores")
    return False


def write_labelled(
    args: CompressArguments, tokenizer: PreTrainedTokenizerBase, device: torch.device, folder: Path
) -> None:
    """Writes the rows to train on, and those to score on if they are a split of their own, with the teacher's labels.

    Args:
        args: Arguments whose data has no labels.
        tokenizer: The teacher's.
        device: Where the teacher computes.
        folder: Takes `train.parquet` and, at most, `validation.parquet`.

    Raises:
        InputError: if a row cannot be read.
    """
    task = task_of_model(args.task_arguments(), tokenizer, load_config(args.teacher, "teacher"))
    teacher = TaskTeacher.load(args.teacher, task, False, device)
    splits = {"train": args.train_split}
    names = split_names(args.source(), args.configuration(), "data")
    scored = args.scored_splits()
    if scored and (args.eval_split is not None or scored[0] in names):
        splits["validation"] = scored[0]
    columns = task.text_columns()
    features = Features({column: Value("string") for column in columns} | {LABEL: label_feature(task)})
    folder.mkdir(parents=True)
    for name, split in splits.items():
        data = task.load(split, labelled=False)
        check_length(teacher.model, data, f"teacher {args.teacher!r}")
        predicted = task.predict(predict(teacher.model, task, data, BATCH_SIZE), data)
        labels = [several(value) if isinstance(value, list) else value for value in predicted]
        rows = {column: data.rows[column][:] for column in columns} | {LABEL: labels}
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}.parquet")


def label_feature(task: Task) -> Any:
    """The type of the labels that a model of a task predicts."""
    assert isinstance(task, TextTask)
    if task.regression:
        return Value("float64")
    one = ClassLabel(names=list(task.classes))
    return List(one) if task.multi_label else one


def several(probabilities: Sequence[float]) -> list[int]:
    """The labels that are predicted, by number, of the probabilities of all."""
    return [number for number, probability in enumerate(probabilities) if probability >= THRESHOLD]


def with_labels(args: CompressArguments, folder: Path) -> CompressArguments:
    """The arguments with the data of `write_labelled`, which lies in the folder."""
    first, second = (*args.text_columns(), None)[:2]
    columns = replace(args, text_column=first, text_pair_column=second, label_column=LABEL)
    nothing = ["none"] if args.eval_split == ["none"] else None
    return replace(columns, task=None, data=str(folder), data_name=None, train_split="train", eval_split=nothing)
