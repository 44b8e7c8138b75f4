"""What every kind of labelled task can do; the kinds lie beside this file, one a file."""

import inspect
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import ModelOutput
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.loading import split_names
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.held_out import HELD_OUT, divide
from efficientbert.train.tasks.loading import load_split
from efficientbert.train.text.batches import pad


MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class TaskData:
    """One split of a task.

    Attributes:
        rows: The raw rows, as loaded.
        features: What models read, as token ids: one of every row, in order, or several where a text is cut in
            windows.
        split: Name of the split.
    """

    rows: Dataset
    features: Dataset
    split: str


class Task(ABC):
    """A kind of labelled task on one data set: how rows become features, the losses, and what outputs mean.

    Args:
        args: Which data and columns.
        tokenizer: Tokenizer of the model.
        label_names: Names of the classes in the order of the model's outputs; None where it predicts no classes.
    """

    auto_class: ClassVar[type[_BaseAutoModelClass]]  # Auto class of the models with the head that the task needs
    cuts: ClassVar[bool] = False  # whether texts are cut at `max_length`, rather than read in windows

    def __init__(
        self, args: TaskArguments, tokenizer: PreTrainedTokenizerBase, label_names: tuple[str, ...] | None = None
    ):
        self.args = args
        self.tokenizer = tokenizer
        self.label_names = label_names

    @property
    def classes(self) -> tuple[str, ...]:
        """`label_names` of a task that has some."""
        assert self.label_names is not None
        return self.label_names

    @property
    def label_column(self) -> str:
        """Column with what is to be predicted."""
        return self.args.target_column()

    def text_columns(self) -> tuple[str, ...]:
        """Columns that are read, without the label."""
        return self.args.text_columns()

    @abstractmethod
    def read_label_names(self, rows: Dataset) -> tuple[str, ...] | None:
        """Names of the classes in a split; None where the task has none.

        Raises:
            InputError: if the labels are of a kind that the task cannot use.
        """

    def describe(self) -> str | None:
        """What the labels were read as, in a line; None where nothing had to be decided."""
        return None

    def shown_classes(self, most: int) -> str:
        """The names of the classes, or as many of them, for a message."""
        return ", ".join(map(repr, self.classes[:most])) + (", …" * (len(self.classes) > most))

    def label_names_of(self, config: PreTrainedConfig) -> tuple[str, ...] | None:
        """As `read_label_names`, of a fine-tuned model."""
        return tuple(config.id2label[index] for index in range(config.num_labels))

    @abstractmethod
    def metric(self) -> str:
        """Name of the metric that scores it, for `load_metric`."""

    def metric_options(self) -> dict[str, Any]:
        """What the metric takes beside predictions and references."""
        return {}

    @abstractmethod
    def encode(self, rows: Dataset, labelled: bool) -> Dataset:
        """Features of raw rows; the columns that `collate` takes.

        Raises:
            InputError: naming the row and column of what cannot be read.
        """

    @abstractmethod
    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A padded batch: `MODEL_INPUTS`, and the labels where the features have them."""

    @abstractmethod
    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Targets in a batch, over which its losses are sums; a scalar."""

    @abstractmethod
    def loss(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Loss of the labels, summed over the targets of a batch."""

    @abstractmethod
    def soft_loss(
        self, outputs: ModelOutput, teacher: ModelOutput, batch: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        """Loss against a teacher's outputs, summed over the targets of a batch (paper, section 3.3)."""

    @abstractmethod
    def logits(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """A model's outputs for every feature of a batch, without padding."""

    @abstractmethod
    def predict(self, logits: list[np.ndarray], data: TaskData) -> list[Any]:
        """What the metric takes as predictions, one of every raw row in order.

        Args:
            logits: As of `logits`, for all features in order.
            data: What was predicted.
        """

    @abstractmethod
    def references(self, data: TaskData) -> list[Any]:
        """What the metric takes as references, one of every raw row in order."""

    def configure(self, config: PreTrainedConfig) -> None:
        """Makes a configuration one of a model for this task."""
        config.finetuning_task = self.args.task
        if self.label_names is not None:
            config.id2label = dict(enumerate(self.label_names))
            config.label2id = {label: index for index, label in enumerate(self.label_names)}

    def read_rows(self, rows: Dataset) -> None:
        """Takes from the rows to train on what belongs to the task, such as the names of its labels.

        Raises:
            InputError: if the labels are of a kind that the task cannot use.
        """
        self.label_names = self.read_label_names(rows)

    def adopt(self, config: PreTrainedConfig) -> None:
        """Takes from a fine-tuned model's configuration what belongs to the model, such as the order of its labels."""
        self.label_names = self.label_names_of(config)

    def groups(self, rows: Dataset) -> list[Any]:
        """What rows have in common, one value a row: rows of one group stay on one side when data is divided."""
        return list(range(len(rows)))

    def contents(self, rows: Dataset) -> list[str]:
        """What decides which rows are held out, one text a row."""
        columns = [rows[column][:] for column in self.text_columns()]
        return [json.dumps(texts) for texts in zip(*columns)]

    def strata(self, rows: Dataset) -> list[Any]:
        """What both sides shall have some of when data is divided, one value a row, such as its class."""
        return [0] * len(rows)

    def divide(self, rows: Dataset) -> tuple[Dataset, Dataset]:
        """The rows of data with one split that are left, and the tenth that is kept aside.

        Raises:
            InputError: if they are too few.
        """
        kept, aside = divide(self.contents(rows), self.strata(rows))
        if not kept or not aside:
            why = ", as all hold the same text" if len(rows) > 1 else ""
            raise InputError(
                f"data {self.args.source()!r}: of {len(rows)} rows none can be kept aside for scoring{why}; give "
                "--eval_split, such as 'none' to score nothing"
            )
        return rows.select(kept), rows.select(aside)

    def load_rows(self, split: str, labelled: bool = True) -> Dataset:
        """The raw rows of a split; of `HELD_OUT` those that are kept aside of data with one split.

        Args:
            split: Split or slice of it.
            labelled: Whether the label column is needed; the test splits of GLUE have no labels.

        Raises:
            InputError: if the data, the split, a column or a label is missing.
        """
        if split == HELD_OUT:
            names = split_names(self.args.source(), self.args.configuration(), "data")
            if len(names) == 1 and HELD_OUT not in names:
                return self.divide(self.load_rows(names[0]))[1]
        return load_split(self.args, split, self.text_columns(), self.label_column if labelled else None)

    def _fault(self, index: int, message: str) -> InputError:
        """The error of a raw row."""
        return InputError(f"data {self.args.source()!r}: row {index}: {message}")

    def data(self, rows: Dataset, split: str, labelled: bool = True) -> TaskData:
        """Raw rows with their features.

        Raises:
            InputError: if a row cannot be read.
        """
        return TaskData(rows, self.encode(rows, labelled), split)

    def load(self, split: str, labelled: bool = True) -> TaskData:
        """One split of the data, with its features; see `load_rows` and `data`."""
        return self.data(self.load_rows(split, labelled), split, labelled)

    def with_data(self, source: str) -> "Task":
        """The same task, with all that it took from its own data, on other data."""
        task = copy(self)
        task.args = replace(self.args, data=source, data_name=None)
        return task

    def calibrate(self, model: PreTrainedModel, logits: list[np.ndarray], data: TaskData) -> None:
        """Settles what is chosen on rows kept aside from training, such as a threshold, and notes it in the model.

        Args:
            model: Its configuration takes the note.
            logits: The model's outputs for `data`.
            data: Rows kept aside.
        """
        return  # most tasks have nothing to settle

    def fingerprint(self, rows: Dataset, labelled: bool) -> str | None:
        """What the features of rows depend on, as a digest by which `datasets` finds them again; see `map_rows`.

        The tokenizer counts without the truncation and padding of its last call. None where it cannot be told.
        """
        if not self.tokenizer.is_fast:
            return None
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        tokenizer |= {"truncation": None, "padding": None, "inputs": self.tokenizer.model_input_names}
        arguments = asdict(self.args.task_arguments())
        code = [inspect.getsource(sys.modules[module]) for module in (__name__, type(self).__module__)]
        parts = [rows._fingerprint, arguments, self.label_names, labelled, code, tokenizer]
        return Hasher.hash(json.dumps(parts))


def is_unnamed(names: tuple[str, ...] | None) -> bool:
    """Whether classes are called as transformers calls them where nothing names them: LABEL_0, LABEL_1 and so on."""
    return names is not None and names == tuple(f"LABEL_{index}" for index in range(len(names)))


def map_rows(
    rows: Dataset,
    encode: Callable[[dict[str, list], list[int]], dict[str, list]],
    fingerprint: str | None = None,
) -> Dataset:
    """The features that `encode` makes of batches of raw rows and their numbers; as many as it likes.

    Args:
        rows: Raw rows.
        encode: It must set nothing outside of what it returns, as features of the same fingerprint are not made again.
        fingerprint: As of `Task.fingerprint`; without one nothing is found again.
    """
    return rows.map(
        encode,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        load_from_cache_file=fingerprint is not None,
        new_fingerprint=fingerprint,
        desc="Tokenising",
    )


def pad_inputs(features: list[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """The model inputs of features, each of shape `(B, L)`, padded to the longest."""
    batch = {
        "input_ids": pad([feature["input_ids"] for feature in features], pad_token_id),
        "attention_mask": pad([[1] * len(feature["input_ids"]) for feature in features]),
    }
    if "token_type_ids" in features[0]:
        batch["token_type_ids"] = pad([feature["token_type_ids"] for feature in features])
    return batch


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a model takes of a batch; its head computes no loss of its own."""
    return {name: batch[name] for name in MODEL_INPUTS if name in batch}


def soft_cross_entropy(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Cross-entropy of a student's distribution against a teacher's, summed over all but the last axis.

    With a temperature T both are softened, and the sum is multiplied by T², which keeps the size of its gradient
    (Hinton et al. 2015, section 2). It is a sum over classes, as a cross-entropy is: the release divides by their
    number, which makes its weight depend on the task.

    Args:
        student, teacher: Logits of shape `(..., classes)`; classes of minus infinity in both count nothing.
        temperature: T.
    """
    target = (teacher.float() / temperature).softmax(-1)
    logs = (student.float() / temperature).log_softmax(-1)
    return -torch.where(target > 0, target * logs, 0.0).sum() * temperature**2
