"""Multiple choice: which of several texts goes on from a first one, or answers it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForMultipleChoice, PreTrainedConfig
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.tasks.task import Task, TaskData, map_rows, pad_inputs, soft_cross_entropy


class ChoiceTask(Task):
    """The right one of several texts. Every choice is read as a pair of texts: the first one, and the start of every
    choice, where there is a column of it, with the choice.

    The choices stand in columns of their own, or in one column of lists, then with any number of choices a row. The
    label is the index of the right one, from 0. Without columns in the arguments, those of SWAG are taken.
    """

    auto_class = AutoModelForMultipleChoice
    cuts = True

    def read_label_names(self, rows: Dataset) -> None:
        """None: there are no classes."""
        kind = getattr(rows.features[self.label_column], "dtype", "lists")
        if "int" not in kind and kind not in ("string", "large_string"):
            raise InputError(
                f"data {self.args.source()!r}: labels in column {self.label_column!r} are {kind}; needed are indices "
                "of choices, from 0"
            )

    def label_names_of(self, config: PreTrainedConfig) -> None:
        """None: there are no classes."""
        return None

    def metric(self) -> str:
        return self.args.metric or "accuracy"

    def encode(self, rows: Dataset, labelled: bool) -> Dataset:
        """One feature a row, its `input_ids` a list of those of every choice.

        Raises:
            InputError: naming the row of what cannot be read.
        """
        first, start, choice_columns = self.args.choice_parts()

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            firsts, seconds, counts = [], [], []
            for place, index in enumerate(indices):
                row = {column: batch[column][place] for column in self.text_columns()}
                choices = self._choices(row, choice_columns, index)
                for column in (first,) if start is None else (first, start):
                    if not isinstance(row[column], str):
                        raise self._fault(index, f"{column!r} is {row[column]!r}, not a text")
                firsts += [row[first]] * len(choices)
                seconds += [choice if start is None else f"{row[start]} {choice}".strip() for choice in choices]
                counts.append(len(choices))
            encoded = self.tokenizer(firsts, seconds, truncation=True, max_length=self.args.max_length)
            ends = np.cumsum(counts).tolist()
            columns = {
                name: [encoded[name][end - count : end] for end, count in zip(ends, counts)]
                for name in ("input_ids", "token_type_ids")
                if name in encoded
            }
            if labelled:
                triples = zip(batch[self.label_column], counts, indices)
                columns["labels"] = [self._label(value, count, index) for value, count, index in triples]
            return columns

        return map_rows(rows, encode_batch, self.fingerprint(rows, labelled))

    def _choices(self, row: dict[str, Any], columns: tuple[str, ...], index: int) -> list[str]:
        """The choices of a row.

        Raises:
            InputError: if one is no text, or there are none.
        """
        choices = [row[column] for column in columns]
        if len(columns) == 1 and isinstance(choices[0], list):
            choices = choices[0]
        elif len(columns) == 1:
            raise self._fault(index, f"{columns[0]!r} is {choices[0]!r:.80}, not a list of choices")
        if not choices or not all(isinstance(choice, str) for choice in choices):
            raise self._fault(index, f"choices are {str(choices)[:80]}; texts are needed, one at least")
        return choices

    def _label(self, value: Any, count: int, index: int) -> int:
        """The index of the right choice.

        Raises:
            InputError: if it is no index of a choice.
        """
        label = int(value) if isinstance(value, str) and value.isdecimal() else value
        if type(label) is not int or not 0 <= label < count:
            raise self._fault(
                index, f"label {value!r} is no index of a choice; it has {count}, counted from 0 to {count - 1}"
            )
        return label

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`MODEL_INPUTS` of shape `(B, C, L)`; `choice_mask`, which choices there are, of shape `(B, C)`; `labels` of
        shape `(B,)`.

        Where a row has fewer than C choices the rest are sequences of one token, as no model reads an empty one.
        """
        counts = [len(feature["input_ids"]) for feature in features]
        width = max(counts)
        names = [name for name in ("input_ids", "token_type_ids") if name in features[0]]
        sequences: list[dict[str, Any]] = []
        for feature, count in zip(features, counts):
            sequences += [{name: feature[name][choice] for name in names} for choice in range(count)]
            sequences += [{name: feature[name][0][:1] for name in names}] * (width - count)
        flat = pad_inputs(sequences, self.tokenizer.pad_token_id)
        batch = {name: tensor.unflatten(0, (len(features), width)) for name, tensor in flat.items()}
        batch["choice_mask"] = torch.arange(width) < torch.tensor(counts)[:, None]
        if "labels" in features[0]:
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
        return batch

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Rows."""
        return torch.tensor(float(len(batch["input_ids"])), device=batch["input_ids"].device)

    def loss(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(choice_logits(outputs, batch), batch["labels"], reduction="sum")

    def soft_loss(
        self, outputs: ModelOutput, teacher: ModelOutput, batch: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        return soft_cross_entropy(choice_logits(outputs, batch), choice_logits(teacher, batch), temperature)

    def logits(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """One number a choice."""
        return [row[mask].float().cpu().numpy() for row, mask in zip(outputs.logits, batch["choice_mask"])]

    def predict(self, logits: list[np.ndarray], data: TaskData) -> list[int]:
        return [int(row.argmax()) for row in logits]

    def references(self, data: TaskData) -> list[int]:
        return data.features["labels"][:]


def choice_logits(outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits of shape `(B, C)` in full precision, minus infinity where a row has no such choice."""
    return outputs.logits.float().masked_fill(~batch["choice_mask"], -torch.inf)
