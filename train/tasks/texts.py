"""Classification and regression on one text or two: GLUE, and the user's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.script import InputError
from efficientbert.train.tasks.arguments import GLUE_COLUMNS
from efficientbert.train.tasks.task import Task, TaskData, pad_inputs, soft_cross_entropy


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
        if first is None:
            if self.args.task not in GLUE_COLUMNS:
                raise InputError("text_column: must name the column of the text in data of your own")
            first, second = GLUE_COLUMNS[self.args.task]
        return (first,) if second is None else (first, second)

    def read_label_names(self, rows: Dataset) -> tuple[str, ...] | None:
        """Sorted where the data does not order them; None for regression."""
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
        ids = {name: index for index, name in enumerate(self.label_names or ())}

        def label_of(value: Any, index: int) -> int | float:
            if self.regression:
                if not isinstance(value, int | float) or value != value:
                    raise InputError(f"data {source}: row {index}: label {value!r} is no number")
                return float(value)
            named = isinstance(feature, ClassLabel) and isinstance(value, int) and 0 <= value < feature.num_classes
            name = feature.int2str(value) if named else str(value)
            if name not in ids:
                raise InputError(
                    f"data {source}: row {index}: label {value!r} is not among "
                    f"{', '.join(map(repr, self.label_names))}"
                )
            return ids[name]

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

        return rows.map(
            encode_batch,
            batched=True,
            with_indices=True,
            remove_columns=rows.column_names,
            load_from_cache_file=False,
            desc="Tokenising",
        )

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
        return [int(row.argmax()) for row in logits]

    def references(self, data: TaskData) -> list[float] | list[int]:
        return data.features["labels"][:]
