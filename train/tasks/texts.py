"""Classification and regression on one text or two: GLUE, and the user's own."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, LargeList, List
from datasets.fingerprint import Hasher
from scipy.special import expit
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks.arguments import GLUE_LABELS
from efficientbert.train.tasks.task import Task, TaskData, map_rows, pad_inputs, soft_cross_entropy


PROBLEM_TYPES = {  # as configurations of models say it
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
PREDICTS = {"single_label": "one class a row", "multi_label": "several labels a row", "regression": "a number"}
TEXTS = ("string", "large_string")  # of columns


class TextTask(Task):
    """One class, several labels or a number for one text or two: `args.problem` says which, once it is settled.

    Labels are found by name, whatever the order in the data.
    """

    auto_class = AutoModelForSequenceClassification
    cuts = True
    # Whether several labels are given as 0 or 1 of each, rather than by names or ids; None where nothing has told yet.
    indicators: bool | None = None

    @property
    def problem(self) -> str:
        """What a label is, once it is settled."""
        assert self.args.problem is not None
        return self.args.problem

    @property
    def regression(self) -> bool:
        """Whether a number is predicted."""
        return self.args.problem == "regression"

    @property
    def multi_label(self) -> bool:
        """Whether several labels are predicted, each by itself."""
        return self.args.problem == "multi_label"

    def read_rows(self, rows: Dataset) -> None:
        self.args = replace(self.args, problem=self.find_problem(rows))
        super().read_rows(rows)

    def find_problem(self, rows: Dataset) -> str:
        """What the labels are, one of `PROBLEMS`: as it is said, as the task has it, or else by the labels.

        Lists are several labels; floats, and texts that are numbers with fractions in more than half of the rows, a
        regression; anything else is a class.

        Raises:
            InputError: if the labels are of no such kind.
        """
        feature = rows.features[self.label_column]
        kind = getattr(feature, "dtype", "objects")
        problem = self.args.known_problem()
        if is_list(feature):
            problem = problem or "multi_label"
        elif problem is None and "float" in kind:
            problem = "regression"
        elif problem is None and kind in TEXTS:
            numbers = [number(label) for label in rows[self.label_column][:]]
            found = [value for value in numbers if value is not None]
            fractions = any(not value.is_integer() for value in found)
            problem = "regression" if fractions and 2 * len(found) > len(numbers) else "single_label"
        elif not (isinstance(feature, ClassLabel) or "float" in kind or "int" in kind or kind in (*TEXTS, "bool")):
            raise InputError(
                f"data {self.args.source()!r}: labels in column {self.label_column!r} are {kind}; names, ids or "
                "numbers, or lists of them, are needed"
            )
        problem = problem or "single_label"
        self.check_form(rows, problem)
        return problem

    def check_form(self, rows: Dataset, problem: str) -> None:
        """Holds the labels of rows against what is predicted.

        Raises:
            InputError: if they are lists and only one label is predicted, or classes and a number is, or the reverse.
        """
        feature = rows.features[self.label_column]
        if is_list(feature) != (problem == "multi_label"):
            form = "lists" if is_list(feature) else "no lists"
        elif isinstance(feature, ClassLabel) and problem == "regression":
            form = "classes"
        else:
            return
        raise InputError(
            f"data {self.args.source()!r}: labels in column {self.label_column!r} are {form}, but what is predicted "
            f"is {PREDICTS[problem]} ({problem})"
        )

    def read_label_names(self, rows: Dataset) -> tuple[str, ...] | None:
        """In GLUE's order, or the data's, or sorted where the data does not order them; None for regression."""
        if self.regression:
            return None
        names = self._find_label_names(rows)
        least = 1 if self.multi_label else 2
        if len(names) < least:
            found = f"all rows have the label {names[0]!r}" if names else "no row has a label"
            needed = "one label" if self.multi_label else "two classes"
            raise InputError(f"data {self.args.source()!r}: {found}; {needed} at least must be there")
        official = GLUE_LABELS.get(self.args.task or "", ())
        if {self.official_name(name) for name in names} == set(official):
            return official
        return names

    def describe(self) -> str:
        if self.regression:
            hint = "" if self.args.task else "; --problem single_label reads them as classes"
            return f"labels: numbers (regression){hint}"
        shown = self.shown_classes(5)
        if self.multi_label:
            return f"labels: {len(self.classes)}, several a row (multi_label): {shown}"
        numbers = self.args.task is None and all(number(name) is not None for name in self.classes)
        hint = "; --problem regression reads them as numbers" if numbers else ""
        return f"labels: {len(self.classes)} classes (single_label): {shown}{hint}"

    def official_name(self, name: str) -> str:
        """GLUE's name of a label, which may be written as its id there; any other name as it is."""
        official = GLUE_LABELS.get(self.args.task or "", ())
        return official[int(name)] if name.isdecimal() and int(name) < len(official) else name

    def _find_label_names(self, rows: Dataset) -> tuple[str, ...]:
        feature = rows.features[self.label_column]
        item = feature.feature if self.multi_label else feature
        if isinstance(item, ClassLabel):
            self.indicators = False
            return tuple(item.names)
        if not self.multi_label:
            return sorted_names(set(rows.unique(self.label_column)))
        lists = rows[self.label_column][:]
        width = self._indicator_width(lists)
        self.indicators = width is not None
        if width is not None:
            return tuple(map(str, range(width)))
        return sorted_names({label for labels in lists for label in labels})

    def _indicator_width(self, lists: list[list[Any]]) -> int | None:
        """Of lists that say with 1 and 0 of every label whether a row has it their length; None of lists of labels.

        Raises:
            InputError: naming the row of one that is neither.
        """
        for index, labels in enumerate(lists):
            for label in labels:
                if isinstance(label, list | dict) or (isinstance(label, float) and label not in (0.0, 1.0)):
                    raise self._fault(index, f"label {label!r} is no name or id, nor 0 or 1")
        if not all(label in (0, 1) for labels in lists for label in labels):
            return None
        lengths = [len(labels) for labels in lists]
        if min(lengths) == max(lengths) > 0:
            return lengths[0]
        for index, labels in enumerate(lists):
            if lengths[index] != lengths[0] and any(len(set(labels)) < len(labels) for labels in lists):
                raise self._fault(index, f"has {lengths[index]} labels, but row 0 {lengths[0]}")
        return None

    def label_names_of(self, config: PreTrainedConfig) -> tuple[str, ...] | None:
        """None of a model that predicts a number, or one class a row where the task has several, or the reverse."""
        found = problem_of(config)
        if found == "regression" or {found, self.args.problem} == {"single_label", "multi_label"}:
            return None
        return super().label_names_of(config)

    def adopt(self, config: PreTrainedConfig) -> None:
        """See `Task.adopt`.

        Raises:
            InputError: if the model predicts something else than the task or the arguments want.
        """
        wanted, found = self.args.known_problem(), problem_of(config)
        if wanted not in (None, found):
            raise InputError(
                f"problem: {self.args.task or 'what is asked for'} has {PREDICTS[wanted]} ({wanted}), but the model "
                f"predicts {PREDICTS[found]} ({found})"
            )
        self.args = replace(self.args, problem=found)
        self.indicators = getattr(config, "label_indicators", None)
        super().adopt(config)

    def strata(self, rows: Dataset) -> list[Any]:
        labels = rows[self.label_column][:]
        return [number(label) or 0.0 for label in labels] if self.regression else list(map(str, labels))

    def metric(self) -> str:
        default = {"regression": "stsb", "multi_label": "multi_label"}.get(self.args.problem or "", "accuracy")
        return self.args.metric or self.args.task or default

    def configure(self, config: PreTrainedConfig) -> None:
        super().configure(config)
        config.problem_type = PROBLEM_TYPES[self.problem]
        if self.multi_label:
            config.label_indicators = self.indicators
        if self.regression:
            config.num_labels = 1

    def encode(self, rows: Dataset, labelled: bool) -> Dataset:
        columns = self.text_columns()
        if labelled:
            self.check_form(rows, self.problem)
        read_label = self._label_reader(rows) if labelled else None

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            for column in columns:
                for text, index in zip(batch[column], indices):
                    if not isinstance(text, str):
                        raise self._fault(index, f"{column!r} is {text!r}, not a text")
            encoded = self.tokenizer(
                *(batch[column] for column in columns), truncation=True, max_length=self.args.max_length
            )
            kept = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
            if read_label is not None:
                kept["labels"] = list(map(read_label, batch[self.label_column], indices))
            return kept

        return map_rows(rows, encode_batch, self.fingerprint(rows, labelled))

    def fingerprint(self, rows: Dataset, labelled: bool) -> str | None:
        found = super().fingerprint(rows, labelled)
        return None if found is None else Hasher.hash([found, self.indicators])

    def _label_reader(self, rows: Dataset) -> Callable[[Any, int], int | float | list[float]]:
        """What reads the label of a row, given with the row's number: a class id, a number, or 0 or 1 of every label.

        It raises InputError, naming the row of a label that is none.
        """
        feature = rows.features[self.label_column]
        item = feature.feature if self.multi_label else feature
        ids = {self.official_name(name): index for index, name in enumerate(self.label_names or ())}

        def number_of(value: Any, index: int) -> float:
            found = number(value)
            if found is None:
                written = isinstance(value, str) and self.args.task is None
                hint = "; with --problem single_label labels are classes" if written else ""
                raise self._fault(index, f"label {value!r} is no finite number{hint}")
            return found

        def id_of(value: Any, index: int) -> int:
            named = isinstance(item, ClassLabel) and isinstance(value, int) and 0 <= value < item.num_classes
            name = item.int2str(value) if named else str(value)
            if self.official_name(name) not in ids:
                known = ", ".join(map(repr, self.classes))
                raise self._fault(index, f"label {name!r} is not among {known}")
            return ids[self.official_name(name)]

        def indicators_of(values: list[Any], index: int) -> list[float]:
            present = {id_of(value, index) for value in values}
            return [float(label in present) for label in range(len(self.classes))]

        def zeros_and_ones(values: list[Any], index: int) -> list[float]:
            if len(values) != len(self.classes) or not all(value in (0, 1) for value in values):
                count = len(self.classes)
                raise self._fault(index, f"labels {values} are not 0 or 1 of each of {count}, as in the training rows")
            return list(map(float, values))

        if not self.multi_label:
            return number_of if self.regression else id_of
        indicators = self.indicators
        if indicators is None or not {"0", "1"} & set(self.classes):  # of such names no 0 and 1 can be ids
            lists = not isinstance(item, ClassLabel)
            indicators = lists and self._indicator_width(rows[self.label_column][:]) == len(self.classes)
        return zeros_and_ones if indicators else indicators_of

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`MODEL_INPUTS` of shape `(B, L)`; `labels` of shape `(B,)`, class ids or numbers, or of shape `(B, labels)`,
        0 and 1 of each of several.
        """
        batch = pad_inputs(features, self.tokenizer.pad_token_id)
        if "labels" in features[0]:
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
        return batch

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Rows."""
        return torch.tensor(float(len(batch["input_ids"])), device=batch["input_ids"].device)

    def loss(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits, labels = outputs.logits.float(), batch["labels"]
        if self.regression:
            return nn.functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")
        if self.multi_label:
            return binary_cross_entropy(logits, labels)
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def soft_loss(
        self, outputs: ModelOutput, teacher: ModelOutput, batch: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        if self.regression:
            return nn.functional.mse_loss(outputs.logits.float(), teacher.logits.float(), reduction="sum")
        if self.multi_label:
            targets = (teacher.logits.float() / temperature).sigmoid()
            return binary_cross_entropy(outputs.logits.float() / temperature, targets) * temperature**2
        return soft_cross_entropy(outputs.logits, teacher.logits, temperature)

    def logits(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        return list(outputs.logits.float().cpu().numpy())

    def predict(self, logits: list[np.ndarray], data: TaskData) -> list[float] | list[int] | list[list[float]]:
        """Numbers, class ids, or of several labels the probability of each."""
        if self.regression:
            return [float(row[0]) for row in logits]
        if self.multi_label:
            return [expit(row.astype(float)).tolist() for row in logits]
        ids = self._metric_ids()
        return [ids[int(row.argmax())] for row in logits]

    def references(self, data: TaskData) -> list[float] | list[int] | list[list[float]]:
        labels = data.features["labels"][:]
        if self.regression or self.multi_label:
            return labels
        ids = self._metric_ids()
        return [ids[label] for label in labels]

    def metric_names(self) -> tuple[str, ...]:
        """The classes in the order of the ids in predictions and references: GLUE's, as F1 is that of its class 1."""
        official = GLUE_LABELS.get(self.args.task or "", ())
        same = {self.official_name(name) for name in self.classes} == set(official)
        return official if same else self.classes

    def _metric_ids(self) -> list[int]:
        """For each of the model's classes its place in `metric_names`."""
        names = self.metric_names()
        return [names.index(name if name in names else self.official_name(name)) for name in self.classes]


def is_list(feature: Any) -> bool:
    """Whether a column holds lists."""
    return isinstance(feature, List | LargeList)


def number(value: Any) -> float | None:
    """The finite number that a label is or reads as; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or "_" in str(value):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def sorted_names(labels: set[Any]) -> tuple[str, ...]:
    """Labels as names: whole numbers by size, below 0 too and where they are texts, anything else by the alphabet."""
    if all(re.fullmatch(r"[+-]?\d+", str(label)) for label in labels):
        return tuple(map(str, sorted(labels, key=lambda label: (int(label), str(label)))))
    return tuple(map(str, sorted(labels)))


def problem_of(config: PreTrainedConfig) -> str:
    """What a model predicts, one of `PROBLEMS`: as transformers has it, a number where it has one output."""
    if config.problem_type == PROBLEM_TYPES["multi_label"]:
        return "multi_label"
    return "regression" if config.num_labels == 1 else "single_label"


def binary_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of every label by itself, averaged over the labels of a row and summed over rows.

    Args:
        logits: Shape `(B, labels)`.
        targets: Probabilities, of the same shape.
    """
    return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / logits.shape[-1]
