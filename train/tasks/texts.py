"""Classification and regression on one text or two: GLUE, and the user's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks.arguments import GLUE_COLUMNS, GLUE_LABELS
from efficientbert.train.tasks.task import Task, TaskData, map_rows, pad_inputs, soft_cross_entropy


class TextTask(Task):
    """Classes or a number for one text or two. Labels are found by name, whatever the order in the data."""

    auto_class = AutoModelForSequenceClassification
    default_label_column = "label"

    @property
    def regression(self) -> bool:
        """Whether a number is predicted."""
        return self.label_names is None

    def text_columns(self) -> tuple[str, ...]:
        first, second = self.args.text_column, self.args.text_pair_column
        known = GLUE_COLUMNS.get(self.args.task)
        if first is None and (known is None or second is not None):
            raise InputError("text_column: must name the column of the text in data of your own")
        if first is None:
            first, second = known
        elif known is not None and (known[1] is None) != (second is None):
            columns = "--text_column alone" if second else "both --text_column and --text_pair_column"
            raise InputError(f"text_pair_column: {self.args.task} takes {columns}")
        return (first,) if second is None else (first, second)

    def read_label_names(self, rows: Dataset) -> tuple[str, ...] | None:
        """In GLUE's order, or the data's, or sorted where the data does not order them; None for regression."""
        names = self._find_label_names(rows)
        if names is not None and len(names) < 2:
            raise InputError(
                f"data {self.args.source()}: all rows have the label {', '.join(map(repr, names)) or 'None'}; at "
                "least two classes are needed"
            )
        official = GLUE_LABELS.get(self.args.task, ())
        if names is not None and {self.official_name(name) for name in names} == set(official):
            return official
        return names

    def official_name(self, name: str) -> str:
        """GLUE's name of a label, which may be written as its id there; any other name as it is."""
        official = GLUE_LABELS.get(self.args.task, ())
        return official[int(name)] if name.isdecimal() and int(name) < len(official) else name

    def _find_label_names(self, rows: Dataset) -> tuple[str, ...] | None:
        feature = rows.features[self.label_column]
        if isinstance(feature, ClassLabel):
            return tuple(feature.names)
        kind = getattr(feature, "dtype", "lists")
        if "float" in kind:
            return None
        if kind in ("string", "large_string"):
            return tuple(sorted(set(rows.unique(self.label_column)) - {None}))
        if "int" in kind or kind == "bool":
            return tuple(str(value) for value in sorted(set(rows.unique(self.label_column)) - {None}))
        raise InputError(
            f"data {self.args.source()}: labels in column {self.label_column!r} are {kind}; names, ids or numbers are "
            "needed"
        )

    def label_names_of(self, config: PreTrainedConfig) -> tuple[str, ...] | None:
        """None of a model with one output, which predicts a number."""
        return None if config.num_labels == 1 else super().label_names_of(config)

    def metric(self) -> str:
        return self.args.metric or self.args.task or ("stsb" if self.regression else "accuracy")

    def configure(self, config: PreTrainedConfig) -> None:
        super().configure(config)
        config.problem_type = "regression" if self.regression else "single_label_classification"
        if self.regression:
            config.num_labels = 1

    def encode(self, rows: Dataset, labelled: bool) -> Dataset:
        columns = self.text_columns()
        source = self.args.source()
        feature = rows.features.get(self.label_column)
        ids = {self.official_name(name): index for index, name in enumerate(self.label_names or ())}

        def label_of(value: Any, index: int) -> int | float:
            if self.regression:
                if not isinstance(value, int | float) or value != value:
                    raise InputError(f"data {source}: row {index}: label {value!r} is no number")
                return float(value)
            named = isinstance(feature, ClassLabel) and isinstance(value, int) and 0 <= value < feature.num_classes
            name = feature.int2str(value) if named else str(value)
            if self.official_name(name) not in ids:
                raise InputError(
                    f"data {source}: row {index}: label {name!r} is not among {', '.join(map(repr, self.label_names))}"
                )
            return ids[self.official_name(name)]

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            for column in columns:
                for text, index in zip(batch[column], indices):
                    if not isinstance(text, str):
                        raise InputError(f"data {source}: row {index}: {column!r} is {text!r}, not a text")
            encoded = self.tokenizer(
                *(batch[column] for column in columns), truncation=True, max_length=self.args.max_length
            )
            kept = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
            if labelled:
                labels = [label_of(value, index) for value, index in zip(batch[self.label_column], indices)]
                kept["labels"] = labels
            return kept

        return map_rows(rows, encode_batch)

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`MODEL_INPUTS` of shape `(B, L)`; `labels` of shape `(B,)`, class ids or numbers."""
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
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def soft_loss(
        self, outputs: ModelOutput, teacher: ModelOutput, batch: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        if self.regression:
            return nn.functional.mse_loss(outputs.logits.float(), teacher.logits.float(), reduction="sum")
        return soft_cross_entropy(outputs.logits, teacher.logits, temperature)

    def logits(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        return list(outputs.logits.float().cpu().numpy())

    def predict(self, logits: list[np.ndarray], data: TaskData) -> list[float] | list[int]:
        if self.regression:
            return [float(row[0]) for row in logits]
        ids = self._metric_ids()
        return [ids[int(row.argmax())] for row in logits]

    def references(self, data: TaskData) -> list[float] | list[int]:
        labels = data.features["labels"][:]
        if self.regression:
            return labels
        ids = self._metric_ids()
        return [ids[label] for label in labels]

    def metric_names(self) -> tuple[str, ...]:
        """The classes in the order of the ids in predictions and references: GLUE's, as F1 is that of its class 1."""
        official = GLUE_LABELS.get(self.args.task, ())
        same = {self.official_name(name) for name in self.label_names} == set(official)
        return official if same else self.label_names

    def _metric_ids(self) -> list[int]:
        """For each of the model's classes its place in `metric_names`."""
        names = self.metric_names()
        return [names.index(name if name in names else self.official_name(name)) for name in self.label_names]
