"""Classification of words: named entities, parts of speech, and the user's own tags."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, LargeList, List
from torch import nn
from transformers import AutoModelForTokenClassification, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics.entities import SCHEMES, why_no_entities
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.task import Task, TaskData, map_rows, pad_inputs, soft_cross_entropy
from efficientbert.train.tasks.texts import sorted_names
from efficientbert.train.text.batches import pad


IGNORED = -100  # label of a token that no word is read off
NO_WORD = -1  # word of such a token


class TokenTask(Task):
    """A tag for every word of a list. Tags are found by name, whatever the order in the data.

    The words are joined by spaces and tokenised as any text, so that a model sees what it was trained on. A word is
    read off its first piece. Texts of more than `max_length` tokens become several windows, which share `doc_stride`
    tokens, or half a window where that is less; a word is read off the window that shows most on both of its sides.
    So every word counts once, in losses and in metrics, wherever it stands. The few that have no piece (empty ones,
    control characters) are in no loss, and predicted as outside of any entity, or as the first tag where there are no
    entities.
    """

    auto_class = AutoModelForTokenClassification

    def __init__(
        self, args: TaskArguments, tokenizer: PreTrainedTokenizerBase, label_names: tuple[str, ...] | None = None
    ):
        super().__init__(args, tokenizer, label_names)
        if not tokenizer.is_fast:
            raise InputError(f"tokenizer {tokenizer.name_or_path!r}: gives no character offsets; a fast one is needed")

    @property
    def words_column(self) -> str:
        """Column with the lists of words."""
        return self.text_columns()[0]

    def read_label_names(self, rows: Dataset) -> tuple[str, ...]:
        """Sorted where the data does not order them."""
        feature = rows.features[self.label_column]
        item = feature.feature if isinstance(feature, List | LargeList) else None
        if isinstance(item, ClassLabel):
            return tuple(item.names)
        kind = getattr(item, "dtype", "")
        if "int" not in kind and kind not in ("string", "large_string"):
            raise InputError(
                f"data {self.args.source()!r}: column {self.label_column!r} holds {feature}; lists of names or ids "
                "are needed"
            )
        found = {tag for tags in rows[self.label_column] for tag in tags or () if tag is not None}
        if not found:
            raise InputError(f"data {self.args.source()!r}: column {self.label_column!r} holds no tags")
        return sorted_names(found)

    def describe(self) -> str:
        return f"labels: {len(self.classes)} tags: {self.shown_classes(40)}"

    def read_rows(self, rows: Dataset) -> None:
        super().read_rows(rows)
        self._say_why_no_f1()

    def adopt(self, config: PreTrainedConfig) -> None:
        super().adopt(config)
        self._say_why_no_f1()

    def _say_why_no_f1(self) -> None:
        """Prints why the tags are scored by their accuracy alone, where the metric is left to the tags."""
        if self.metric() == "tags" and self.args.metric is None:
            print(
                f"data {self.args.source()!r}: scored by the accuracy of tags, without F1 of entities: "
                f"{why_no_entities(self.classes)}; known schemes are {', '.join(SCHEMES)}"
            )

    def metric(self) -> str:
        return self.args.metric or ("entities" if why_no_entities(self.classes) is None else "tags")

    def metric_options(self) -> dict[str, Any]:
        """All tags there are, which say what a tag means."""
        return {"tags": self.label_names} if self.metric() == "entities" else {}

    def encode(self, rows: Dataset, labelled: bool) -> Dataset:
        """One feature a window.

        Beside the model's inputs: `row`, the index of the raw row; `words`, for every token the index of the word
        that is read off it, or `NO_WORD`; and, where labelled, `labels`, for every token the tag of that word, or
        `IGNORED`.

        Raises:
            InputError: naming the row of what cannot be read.
        """
        feature = rows.features.get(self.label_column)
        classes: Any = getattr(feature, "feature", None)
        ids = {name: index for index, name in enumerate(self.classes)}

        def tag_id(value: Any, index: int, place: int) -> int:
            if value is None:
                raise self._fault(index, f"the tag of word {place} is missing")
            named = isinstance(classes, ClassLabel) and isinstance(value, int) and 0 <= value < classes.num_classes
            name = classes.int2str(value) if named else str(value)
            if name not in ids:
                known = ", ".join(map(repr, self.classes))
                raise self._fault(index, f"tag {value!r} is not among {known}")
            return ids[name]

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            texts, starts = [], []
            for words, index in zip(batch[self.words_column], indices):
                if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                    raise self._fault(index, f"{self.words_column!r} is {str(words)[:80]!r}, not a list of words")
                lengths = [len(word) + 1 for word in words]
                texts.append(" ".join(words))
                starts.append([0, *np.cumsum(lengths).tolist()])
            columns = self._windows(texts, starts, indices)
            if labelled:
                tags = {}
                for values, spans, index in zip(batch[self.label_column], starts, indices):
                    if not isinstance(values, list) or len(values) != len(spans) - 1:
                        count = len(values) if isinstance(values, list) else values
                        raise self._fault(index, f"has {len(spans) - 1} words but {count} tags")
                    tags[index] = [tag_id(value, index, place) for place, value in enumerate(values)]
                columns["labels"] = [
                    [IGNORED if word == NO_WORD else tags[row][word] for word in words]
                    for row, words in zip(columns["row"], columns["words"])
                ]
            return columns

        return map_rows(rows, encode_batch, self.fingerprint(rows, labelled))

    def _windows(self, texts: list[str], starts: list[list[int]], indices: list[int]) -> dict[str, list]:
        """The windows of texts.

        Args:
            texts: Words joined by spaces.
            starts: Where in the text every word starts, and where one behind the last would.
            indices: Of the raw rows.
        """
        room = self.args.max_length - self.tokenizer.num_special_tokens_to_add()
        encoded = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.args.max_length,
            stride=min(self.args.doc_stride, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        sources = encoded["overflow_to_sample_mapping"]
        pieces = [
            word_pieces(offsets, special, starts[source])
            for offsets, special, source in zip(encoded["offset_mapping"], encoded["special_tokens_mask"], sources)
        ]
        firsts: dict[tuple[int, int], int] = {}  # of a word: where in the text its first piece starts
        for source, window in zip(sources, pieces):
            for word, start, _ in window:
                firsts[source, word] = min(start, firsts.get((source, word), start))
        best: dict[tuple[int, int], tuple[int, int, int]] = {}  # of a word: tokens shown beside it, window, token
        for index, (source, window) in enumerate(zip(sources, pieces)):
            last = len(encoded["input_ids"][index]) - 1
            for word, start, token in window:
                shown = min(token, last - token)
                if start == firsts[source, word] and shown > best.get((source, word), (-1,))[0]:
                    best[source, word] = (shown, index, token)
        words = [[NO_WORD] * len(ids) for ids in encoded["input_ids"]]
        for (_, word), (_, index, token) in best.items():
            words[index][token] = word
        columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        return columns | {"row": [indices[source] for source in sources], "words": words}

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`MODEL_INPUTS`, `words` and `labels` of shape `(B, L)`."""
        batch = pad_inputs(features, self.tokenizer.pad_token_id)
        batch["words"] = pad([feature["words"] for feature in features], NO_WORD)
        if "labels" in features[0]:
            batch["labels"] = pad([feature["labels"] for feature in features], IGNORED)
        return batch

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Words."""
        return (batch["words"] != NO_WORD).sum().float()

    def loss(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits = outputs.logits.float().flatten(0, 1)
        return nn.functional.cross_entropy(logits, batch["labels"].flatten(), ignore_index=IGNORED, reduction="sum")

    def soft_loss(
        self, outputs: ModelOutput, teacher: ModelOutput, batch: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        chosen = batch["words"] != NO_WORD
        return soft_cross_entropy(outputs.logits[chosen], teacher.logits[chosen], temperature)

    def logits(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """Of the words of every window, in order; each of shape `(words, tags)`."""
        chosen = batch["words"] != NO_WORD
        return [row[mask].float().cpu().numpy() for row, mask in zip(outputs.logits, chosen)]

    def predict(self, logits: list[np.ndarray], data: TaskData) -> list[list[str]]:
        """The tags of every row by name, one of every word."""
        outside = next((name for name in self.classes if name.upper() == "O"), self.classes[0])
        tags = [[outside] * len(words) for words in data.rows[self.words_column]]
        for window, row, words in zip(logits, data.features["row"], data.features["words"]):
            chosen = [word for word in words if word != NO_WORD]
            for word, label in zip(chosen, window.argmax(-1).tolist()):
                tags[row][word] = self.classes[label]
        return tags

    def references(self, data: TaskData) -> list[list[str]]:
        """The true tags of every row by name."""
        classes = data.rows.features[self.label_column].feature
        name = classes.int2str if isinstance(classes, ClassLabel) else str
        return [[name(tag) for tag in tags] for tags in data.rows[self.label_column]]


def word_pieces(offsets: list[tuple[int, int]], special: list[int], starts: list[int]) -> list[tuple[int, int, int]]:
    """The pieces of words in a window, each as (word, where in the text it starts, token).

    Args:
        offsets: Characters `[start, end)` of every token. Some tokenizers count the space before a word to its token.
        special: 1 for tokens that are no part of the text.
        starts: Where in the text every word starts, and where one behind the last would.
    """
    pieces = []
    for token, ((start, end), added) in enumerate(zip(offsets, special)):
        word = bisect_right(starts, end - 1) - 1
        if not added and start < end and end < starts[word + 1]:  # else nothing, or the space behind a word
            pieces.append((word, start, token))
    return pieces
