"""Labelled tasks on one or two texts: GLUE and the user's own data, read into rows of token ids with labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset
from transformers import PreTrainedTokenizerBase

from efficientbert.train.corpus import FILE_FORMATS, check_not_empty
from efficientbert.train.script import InputError


GLUE_COLUMNS: dict[str, tuple[str, str | None]] = {
    "cola": ("sentence", None),
    "sst2": ("sentence", None),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
    "ax": ("premise", "hypothesis"),
}


@dataclass(kw_only=True)
class TaskArguments:
    """Which labelled data, and which of its columns."""

    task: str | None = field(
        default=None, metadata={"help": f"GLUE task ({', '.join(GLUE_COLUMNS)}); leave it out for data of your own."}
    )
    data: str = field(
        default="nyu-mll/glue", metadata={"help": "Hub id, folder, or a .csv, .json, .jsonl or .parquet."}
    )
    data_name: str | None = field(default=None, metadata={"help": "Configuration of the data; by default the task."})
    text_column: str | None = field(default=None, metadata={"help": "Column with the text."})
    text_pair_column: str | None = field(default=None, metadata={"help": "Column with the second text, if any."})
    label_column: str = field(default="label", metadata={"help": "Column with the label: a name, an id or a number."})
    metric: str | None = field(
        default=None, metadata={"help": "`evaluate` metric; by default the task's, else accuracy or correlation."}
    )
    max_length: int = field(default=128, metadata={"help": "Tokens in a sequence; longer ones are cut."})

    def columns(self) -> tuple[str, str | None]:
        """The text columns.

        Raises:
            InputError: if neither a known task nor a column is named.
        """
        if self.task is not None and self.task not in GLUE_COLUMNS:
            raise InputError(f"task {self.task!r}: unknown; known are {', '.join(GLUE_COLUMNS)}")
        if self.text_column is not None:
            return self.text_column, self.text_pair_column
        if self.task is None:
            raise InputError("task: give --task for a GLUE task, or --data and --text_column for data of your own")
        return GLUE_COLUMNS[self.task]

    def metric_name(self, regression: bool) -> str:
        """The metric that scores it."""
        return self.metric or self.task or ("stsb" if regression else "accuracy")


@dataclass(frozen=True)
class TaskData:
    """Rows of one split, with what their labels mean.

    Attributes:
        rows: Each with `input_ids`, `labels` (class id, or a float for regression) and, where the tokenizer makes
        them,
            `token_type_ids`.
        label_names: Names of the classes, in the order of their ids; None for regression.
    """

    rows: Dataset
    label_names: tuple[str, ...] | None


def load_split(args: TaskArguments, split: str) -> Dataset:
    """The raw rows of a split.

    Raises:
        InputError: if the data, the split or a column is missing.
    """
    first, second = args.columns()
    try:
        if Path(args.data).is_file():
            check_not_empty(Path(args.data), "data")
            suffix = Path(args.data).suffix
            if suffix not in FILE_FORMATS:
                raise InputError(f"data {args.data}: unknown kind of file; known are {', '.join(FILE_FORMATS)}")
            rows = load_dataset(FILE_FORMATS[suffix], data_files=args.data, split=split)
        else:
            rows = load_dataset(args.data, args.data_name or args.task, split=split)
    except InputError:
        raise
    except Exception as error:  # datasets raises what its readers raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"data {args.data}: split {split!r} cannot be loaded: {reason}") from None
    if isinstance(rows, DatasetDict) or len(rows) == 0:
        raise InputError(f"data {args.data}: split {split!r} is empty")
    for column in (first, second, args.label_column):
        if column is not None and column not in rows.column_names:
            raise InputError(f"data {args.data}: no column {column!r}; it has {', '.join(rows.column_names)}")
    return rows


def read_label_names(rows: Dataset, column: str) -> tuple[str, ...] | None:
    """Names of the classes of a label column, sorted where the data does not order them; None for regression.

    Raises:
        InputError: if the labels are neither names, ids nor numbers.
    """
    feature = rows.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    if "float" in feature.dtype:
        return None
    values = set(rows.unique(column)) - {None}
    if feature.dtype == "string" or feature.dtype == "large_string":
        return tuple(sorted(values))
    if "int" in feature.dtype or feature.dtype == "bool":
        return tuple(str(value) for value in sorted(values))
    raise InputError(f"data: labels in column {column!r} are {feature.dtype}; names, ids or numbers are needed")


def encode(
    rows: Dataset, args: TaskArguments, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str] | None
) -> Dataset:
    """Token ids and labels of raw rows; labels are found by name in `label_names`.

    Raises:
        InputError: if a label is missing, no number, or not among the names.
    """
    first, second = args.columns()
    feature = rows.features[args.label_column]
    ids = {name: index for index, name in enumerate(label_names or ())}

    def label_of(value: Any, index: int) -> int | float:
        if label_names is None:
            if not isinstance(value, int | float):
                raise InputError(f"data {args.data}: row {index}: label {value!r} is no number")
            return float(value)
        named = isinstance(feature, ClassLabel) and isinstance(value, int) and 0 <= value < feature.num_classes
        name = feature.int2str(value) if named else str(value)
        if name not in ids:
            raise InputError(
                f"data {args.data}: row {index}: label {value!r} is not among {', '.join(map(repr, label_names))}"
            )
        return ids[name]

    def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        for column in (first, second):
            for text, index in zip(batch[column] if column else (), indices):
                if not isinstance(text, str):
                    raise InputError(f"data {args.data}: row {index}: {column!r} is {text!r}, not a text")
        encoded = tokenizer(
            batch[first], batch[second] if second else None, truncation=True, max_length=args.max_length
        )
        kept = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        labels = [label_of(value, index) for value, index in zip(batch[args.label_column], indices)]
        return kept | {"labels": labels}

    return rows.map(
        encode_batch,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        load_from_cache_file=False,
        desc="Tokenising",
    )


def load_task(
    args: TaskArguments, split: str, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str] | None = None
) -> TaskData:
    """One split, encoded. With `label_names` (a model's), labels get that model's ids whatever the data's order.

    Raises:
        InputError: if anything of it cannot be read; see `load_split` and `encode`.
    """
    rows = load_split(args, split)
    names = read_label_names(rows, args.label_column)
    if names is not None and label_names is not None:
        names = tuple(label_names)
    return TaskData(encode(rows, args, tokenizer, names), names)


class TaskCollator:
    """Pads rows to the longest of the batch, on the right.

    Args:
        pad_token_id: What to pad token ids with.
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and, where rows have them, `token_type_ids`, `(B, L)`; `labels`, `(B,)`."""

        def pad(values: list[list[int]], padding: int) -> torch.Tensor:
            tensors = [torch.as_tensor(value) for value in values]
            return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=padding)

        batch = {
            "input_ids": pad([row["input_ids"] for row in rows], self.pad_token_id),
            "attention_mask": pad([[1] * len(row["input_ids"]) for row in rows], 0),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = pad([row["token_type_ids"] for row in rows], 0)
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch
