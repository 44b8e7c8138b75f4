"""The user's own rows: as text to learn from, and labelled by the teacher where they have no labels."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.files.writing import writing
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.division import scored_data, training_data
from efficientbert.train.tasks.kinds import TASK_CLASSES, task_of_data
from efficientbert.train.tasks.prediction import check_length, predict
from efficientbert.train.tasks.task import Task
from efficientbert.train.tasks.trained import load_trained
from efficientbert.train.text.corpus import SHORTEST


COLUMN = "text"  # of the file of texts
LEAST = 12  # texts to learn from
PREDICTED = "label"  # the column that a teacher's labels stand in


def make_task(args: TaskArguments, kind: str, tokenizer: PreTrainedTokenizerBase) -> Task:
    """The task of the arguments, with nothing taken from data yet."""
    return TASK_CLASSES[kind](replace(args.task_arguments(), kind=kind), tokenizer)


def own_documents(task: Task, rows: Dataset) -> list[str]:
    """The texts of a task as documents to learn from: every text once, short ones joined.

    A list of words is one text. What is shorter than a few words would be left out of a corpus.

    Args:
        task: The task.
        rows: Its rows.

    Raises:
        InputError: if there are too few.
    """
    texts: dict[str, None] = {}
    for row in rows.select_columns(list(task.text_columns())):
        for value in row.values():
            text = " ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(text, str) and text.strip():
                texts.setdefault(text)
    documents, joined = [], ""
    for text in texts:
        joined = f"{joined} {text}".lstrip()
        if len(joined.split()) >= SHORTEST:
            documents.append(joined)
            joined = ""
    if len(documents) < LEAST:
        raise InputError(
            f"data {task.args.source()!r}: has {len(documents)} texts to learn from, too few: at least {LEAST} are "
            "needed; give --corpus"
        )
    return documents


def write_documents(documents: Sequence[str], path: Path) -> None:
    """Writes a corpus as JSON lines with the column `COLUMN`."""
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for text in documents:
            file.write(json.dumps({COLUMN: text}) + "\n")


def check_labelled(args: CompressArguments, task: Task, labelled: bool) -> None:
    """Reads rows and labels as the jobs will, so that their faults show before anything is made.

    Args:
        args: Arguments of the run.
        task: Their task.
        labelled: Whether the data has labels.

    Raises:
        InputError: naming the fault, also where the teacher's labels are others.
    """
    if labelled:
        found = task_of_data(args, task.tokenizer, args.train_split)
        training_data(args, found, 0.0)
        scored_data(args, found)
        TaskTeacher.load(args.teacher, found, False, torch.device("cpu"))
    elif args.task_kind() != "text-classification":
        raise InputError(
            f"data {args.source()!r}: has no column {task.label_column!r}, and the teacher can stand in for labels of "
            "text-classification alone; give labels"
        )
    else:
        task.load(args.train_split, labelled=False)


def write_labelled(args: CompressArguments, path: Path, device: Any) -> CompressArguments:
    """Writes the rows to train on with what the teacher says of them, and returns arguments that name the file.

    Args:
        args: Arguments whose data has no labels.
        path: A JSON lines file to write.
        device: Where the teacher computes.

    Raises:
        InputError: if the teacher or the rows cannot be read.
    """
    task, teacher = load_trained(args.teacher, args.task_arguments(), device, args.train_split)
    data = task.load(args.train_split, labelled=False)
    check_length(teacher, data, f"teacher {args.teacher!r}")
    predicted = task.predict(predict(teacher, task, data, 64), data)
    columns = task.text_columns()
    with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row, value in zip(data.rows, predicted):
            label = value if task.label_names is None else named(value, task.label_names)
            file.write(json.dumps({column: row[column] for column in columns} | {PREDICTED: label}) + "\n")
    print(f"data {args.source()!r}: has no labels; those of the teacher stand in, also where models are scored")
    first, second = (*columns, None)[:2]
    labelled = replace(args, data=str(path), text_column=first, text_pair_column=second, label_column=PREDICTED)
    return replace(
        labelled, task=None, data_name=None, train_split="train", eval_split=None, problem=task.args.problem
    )


def named(value: Any, names: tuple[str, ...]) -> Any:
    """A predicted class by its name; of several labels, 0 or 1 of each, the names of those that are there."""
    if isinstance(value, int):
        return names[value]
    return [name for name, there in zip(names, value) if there]
