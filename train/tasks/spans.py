"""Extractive question answering as in SQuAD v1.1 and v2.0: windows over long contexts, and the best span of all."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForQuestionAnswering, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import squad
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.task import Task, TaskData, map_rows, pad_inputs, soft_cross_entropy


ID_COLUMN = "id"
WINDOWS_AT_A_TIME = 1024
EVEN_ODDS = 0.5  # Threshold until another is chosen: no answer scores as high as the best one


class SpanTask(Task):
    """Answers that are spans of a context, or no answer where the data has such questions (v2.0).

    Every row becomes one or more windows: the question, cut to `max_query_length` tokens, and as much of the context
    as `max_length` leaves room for; neighbouring windows share `doc_stride` tokens. A window without the (whole)
    answer points to its first token, as do unanswerable questions.

    Whether a model knows "no answer" is settled by the rows that it is trained on, or by `squad` or `squad_v2` as task
    or metric, and travels in its configuration as `no_answer_threshold`: the chance of no answer above which it gives
    none (see `choose_threshold`), or None of a model that always answers. What rows are scored changes nothing: a
    model that knows "no answer" is scored by `squad_v2` on any, and one that does not by `squad`, which refuses
    questions without answers; `--metric squad_v2` counts them, all wrong.
    """

    auto_class = AutoModelForQuestionAnswering

    def __init__(
        self, args: TaskArguments, tokenizer: PreTrainedTokenizerBase, label_names: tuple[str, ...] | None = None
    ):
        super().__init__(args, tokenizer, label_names)
        if not tokenizer.is_fast:
            raise InputError(f"tokenizer {tokenizer.name_or_path!r}: gives no character offsets; a fast one is needed")
        self.no_answer_threshold = EVEN_ODDS if self._said_unanswerable() else None

    def _said_unanswerable(self) -> bool | None:
        """Whether task and metric say that questions may have no answer; None where they leave it open."""
        said = self.args.metric if self.args.metric in squad.METRICS else self.args.task
        return None if said is None else said == "squad_v2"

    @property
    def question_column(self) -> str:
        """Column with the question."""
        return self.text_columns()[0]

    @property
    def context_column(self) -> str:
        """Column with the text that answers are parts of."""
        return self.text_columns()[1]

    def read_label_names(self, rows: Dataset) -> None:
        """None: there are no classes."""
        return None

    def label_names_of(self, config: PreTrainedConfig) -> None:
        """None: there are no classes."""
        return None

    def read_rows(self, rows: Dataset) -> None:
        super().read_rows(rows)
        if self._said_unanswerable() is None:
            unanswerable = any(isinstance(gold, dict) and gold.get("text") == [] for gold in rows[self.label_column])
            self.no_answer_threshold = EVEN_ODDS if unanswerable else None

    def metric(self) -> str:
        return self.args.metric or ("squad" if self.no_answer_threshold is None else "squad_v2")

    def metric_options(self) -> dict[str, Any]:
        """The threshold, for the metric that withholds answers itself."""
        return {"no_answer_threshold": self.threshold()} if self.metric() == "squad_v2" else {}

    def threshold(self) -> float:
        """The probability of no answer above which no answer is given; 1.0 of a model that always answers."""
        return 1.0 if self.no_answer_threshold is None else self.no_answer_threshold

    def configure(self, config: PreTrainedConfig) -> None:
        super().configure(config)
        config.num_labels = 2  # start and end
        config.no_answer_threshold = self.no_answer_threshold

    def adopt(self, config: PreTrainedConfig) -> None:
        """Takes over the model's threshold, unless task or metric say that all questions have answers.

        A model without a word of it, which another program trained, has even odds where they say the contrary; so has
        one of `squad_v2` with None, as records of earlier versions have it where no threshold was chosen.
        """
        super().adopt(config)
        if self._said_unanswerable() is not False:
            threshold = getattr(config, "no_answer_threshold", self.no_answer_threshold)
            knows = getattr(config, "finetuning_task", None) == "squad_v2"
            self.no_answer_threshold = EVEN_ODDS if threshold is None and knows else threshold

    def groups(self, rows: Dataset) -> list[str]:
        """The contexts: questions about one text resemble each other."""
        return rows[self.context_column][:]

    def contents(self, rows: Dataset) -> list[str]:
        return self.groups(rows)

    def encode(self, rows: Dataset, labelled: bool) -> Dataset:
        """One feature a window.

        Beside the model's inputs: `row`, the index of the raw row; `context_start`, the index of the first token of
        the context; `char_starts` and `char_ends`, where in the context every token of it lies; and, where labelled,
        `start_positions` and `end_positions`, the first and last token of the first gold answer.

        Raises:
            InputError: naming the row of what cannot be read.
        """

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            for column in self.text_columns():
                for text, index in zip(batch[column], indices):
                    if not isinstance(text, str):
                        raise self._fault(index, f"{column!r} is {text!r}, not a text")
            answers: list[tuple[int, int] | None] = [None] * len(indices)
            if labelled:
                triples = zip(batch[self.label_column], batch[self.context_column], indices)
                answers = [self._first_answer(gold, context, index) for gold, context, index in triples]
            return self._windows(batch[self.question_column], batch[self.context_column], answers, indices, labelled)

        return map_rows(rows, encode_batch, self.fingerprint(rows, labelled))

    def _first_answer(self, gold: Any, context: str, index: int) -> tuple[int, int] | None:
        """Where the first gold answer of a row lies in the context, without space around it, as characters
        `[start, end)`; None where there is no answer. All answers are checked.

        Raises:
            InputError: if they are not of SQuAD's form, or not where they say, or there are none and the metric is
                `squad`, which knows no such question.
        """
        texts, starts = (gold.get("text"), gold.get("answer_start")) if isinstance(gold, dict) else (None, None)
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise self._fault(
                index,
                f"{self.label_column!r} is {str(gold)[:80]}; needed is {{'text': [...], 'answer_start': [...]}}, two "
                "lists of one length, both empty where there is no answer",
            )
        for text, start in zip(texts, starts):
            if not isinstance(text, str) or not text.strip() or not isinstance(start, int):
                raise self._fault(index, f"answer {text!r} at {start!r} is no text at a character of the context")
            if start < 0 or not context.startswith(text, start):
                found = context.find(text)
                where = f"there it stands at {found}" if found >= 0 else "which does not hold it"
                raise self._fault(index, f"answer {text!r} is not at character {start} of the context; {where}")
        if not texts:
            if self.metric() == "squad":
                raise self._fault(index, "has no answers; metric 'squad_v2' counts such questions, 'squad' does not")
            return None
        text, start = texts[0], starts[0]
        return start + len(text) - len(text.lstrip()), start + len(text.rstrip())

    def _cut_questions(self, questions: list[str], indices: list[int]) -> list[str]:
        """The questions as far as `max_query_length` tokens go.

        Raises:
            InputError: if one leaves no room to move a window over the context.
        """
        limit, stride = self.args.max_query_length, self.args.doc_stride
        room = self.args.max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        encoded = self.tokenizer(
            questions,
            add_special_tokens=False,
            truncation=True,
            max_length=limit,
            return_offsets_mapping=True,
        )
        cut = []
        for question, offsets, index in zip(questions, encoded["offset_mapping"], indices):
            if room - len(offsets) <= stride:
                raise self._fault(
                    index,
                    f"a question of {len(offsets)} tokens leaves {max(0, room - len(offsets))} of max_length "
                    f"{self.args.max_length} to the context, which must be more than doc_stride {stride}; raise "
                    "max_length, or lower max_query_length or doc_stride",
                )
            cut.append(question[: offsets[-1][1]] if len(offsets) == limit else question)
        return cut

    def _windows(
        self,
        questions: list[str],
        contexts: list[str],
        answers: list[tuple[int, int] | None],
        indices: list[int],
        labelled: bool,
    ) -> dict[str, list]:
        """The features of some rows, as columns."""
        encoded = self.tokenizer(
            self._cut_questions(questions, indices),
            contexts,
            truncation="only_second",
            max_length=self.args.max_length,
            stride=self.args.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        names = ("row", "context_start", "char_starts", "char_ends")
        columns |= {name: [] for name in (*names, *(("start_positions", "end_positions") if labelled else ()))}
        sources = encoded["overflow_to_sample_mapping"]
        for window, source in enumerate(sources):
            sides = encoded.sequence_ids(window)
            tokens = sides.count(1)
            first = sides.index(1) if tokens else len(sides)
            offsets = encoded["offset_mapping"][window][first : first + tokens]
            char_starts, char_ends = [start for start, _ in offsets], [end for _, end in offsets]
            for name, value in zip(names, (indices[source], first, char_starts, char_ends)):
                columns[name].append(value)
            if labelled:
                # The outermost windows also hold what the tokenizer drops at the ends of the context.
                opens = window == 0 or sources[window - 1] != source
                closes = window + 1 == len(sources) or sources[window + 1] != source
                span = answer_tokens(answers[source], char_starts, char_ends, opens, closes)
                columns["start_positions"].append(0 if span is None else first + span[0])
                columns["end_positions"].append(0 if span is None else first + span[1])
        return columns

    def collate(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`MODEL_INPUTS` of shape `(B, L)`; `start_positions` and `end_positions` of shape `(B,)`."""
        batch = pad_inputs(features, self.tokenizer.pad_token_id)
        for name in ("start_positions", "end_positions"):
            if name in features[0]:
                batch[name] = torch.tensor([feature[name] for feature in features])
        return batch

    def count(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Windows."""
        return torch.tensor(float(len(batch["input_ids"])), device=batch["input_ids"].device)

    def loss(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean of the cross-entropies of start and end over all tokens but padding."""
        start, end = (
            nn.functional.cross_entropy(logits, batch[name], reduction="sum")
            for logits, name in zip(unpadded(outputs, batch), ("start_positions", "end_positions"))
        )
        return (start + end) / 2

    def soft_loss(
        self, outputs: ModelOutput, teacher: ModelOutput, batch: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        """Mean of the soft cross-entropies of start and end over all tokens but padding."""
        start, end = (
            soft_cross_entropy(student, target, temperature)
            for student, target in zip(unpadded(outputs, batch), unpadded(teacher, batch))
        )
        return (start + end) / 2

    def logits(self, outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
        """Start and end logits of every window, each of shape `(tokens, 2)`."""
        both = torch.stack([outputs.start_logits, outputs.end_logits], -1).float().cpu().numpy()
        lengths = batch["attention_mask"].sum(1).tolist()
        return [window[:length] for window, length in zip(both, lengths)]

    def predict(self, logits: list[np.ndarray], data: TaskData) -> list[dict[str, Any]]:
        """The best answer of every question as a dict of `id` and `prediction_text`.

        For `squad_v2` that is so even where no answer is the better guess: `no_answer_probability` says how good a
        guess that is, and the metric compares it with the threshold of `metric_options`. For any other metric, texts
        are empty where no answer is the better guess.
        """
        texts, probabilities = self.answer(logits, data)
        ids = question_ids(data.rows)
        if self.metric() == "squad_v2":
            return [
                {"id": name, "prediction_text": text, "no_answer_probability": float(probability)}
                for name, text, probability in zip(ids, texts, probabilities)
            ]
        return [
            {"id": name, "prediction_text": "" if probability > self.threshold() else text}
            for name, text, probability in zip(ids, texts, probabilities)
        ]

    def references(self, data: TaskData) -> list[dict[str, Any]]:
        answers = data.rows[self.label_column][:]
        return [
            {"id": name, "answers": {key: gold[key] for key in ("text", "answer_start")}}
            for name, gold in zip(question_ids(data.rows), answers)
        ]

    def answer(self, logits: list[np.ndarray], data: TaskData) -> tuple[list[str], np.ndarray]:
        """The text of the best span of every row, over all its windows, and the probability that it has no answer.

        The score of a span is the sum of its start and end logits, that of no answer the smallest sum at the first
        token of any window (as in the original BERT program). The probability is the logistic function of their
        difference.

        Args:
            logits: As of `logits`, for all features in order.
            data: What was predicted.
        """
        names = ("row", "context_start", "char_starts", "char_ends")
        rows, firsts, char_starts, char_ends = (data.features[name][:] for name in names)
        contexts = [window[first : first + len(tokens)] for window, first, tokens in zip(logits, firsts, char_starts)]
        scores, starts, ends = best_spans(contexts, self.args.max_answer_length)
        rows = np.asarray(rows)
        order = np.lexsort((-np.arange(len(rows)), scores))  # the last one written wins: the best, of equal the first
        chosen: np.ndarray = np.zeros(len(data.rows), dtype=np.int64)
        chosen[rows[order]] = order
        null_scores = np.full(len(data.rows), np.inf)
        np.minimum.at(null_scores, rows, [window[0].sum(dtype=np.float64) for window in logits])
        texts = []
        for context, window in zip(data.rows[self.context_column], chosen):
            if char_starts[window]:
                text = context[char_starts[window][starts[window]] : char_ends[window][ends[window]]]
                texts.append(text.strip())  # some tokenizers count the space before a word to its token
            else:
                texts.append("")
        with np.errstate(over="ignore"):
            return texts, 1 / (1 + np.exp(scores[chosen] - null_scores))

    def choose_threshold(self, logits: list[np.ndarray], data: TaskData) -> float:
        """Settles on the no-answer threshold with the highest F1 on some data, of equal ones the lowest.

        All that make a difference are tried; the one taken lies in the middle between two probabilities.

        Args:
            logits: As of `logits`, for all features in order.
            data: Labelled rows that the model was not trained on.
        """
        texts, probabilities = self.answer(logits, data)
        predictions = [{"id": name, "prediction_text": text} for name, text in zip(question_ids(data.rows), texts)]
        values = squad.row_values("squad_v2", predictions, self.references(data))
        gains = values["f1"] - ~values["answerable"]  # what answering a question adds to the sum of F1
        order = np.argsort(probabilities)
        bounds = np.concatenate([[0.0], probabilities[order], [1.0]])
        totals = np.concatenate([[0.0], np.cumsum(gains[order])])
        totals[:-1][bounds[:-2] == bounds[1:-1]] = -np.inf  # no threshold parts equal ones
        answered = int(totals.argmax())
        low, high = bounds[answered : answered + 2]
        middle = (low + high) / 2
        self.no_answer_threshold = float(middle if middle < high else low)
        return self.no_answer_threshold

    def calibrate(self, model: PreTrainedModel, logits: list[np.ndarray], data: TaskData) -> None:
        if self.no_answer_threshold is not None:
            model.config.no_answer_threshold = self.choose_threshold(logits, data)


def answer_tokens(
    answer: tuple[int, int] | None, char_starts: list[int], char_ends: list[int], opens: bool, closes: bool
) -> tuple[int, int] | None:
    """First and last token of an answer, counted from the first token of the context in a window.

    Args:
        answer: Characters `[start, end)` of the context, or None.
        char_starts, char_ends: Where the tokens of the context in this window lie.
        opens: Whether it is the first window of its context.
        closes: Whether it is the last.

    Returns:
        None where the window does not hold the whole answer.
    """
    if answer is None or not char_starts:
        return None
    start, end = answer
    if (start < char_starts[0] and not opens) or (end > char_ends[-1] and not closes):
        return None
    first, last = bisect_right(char_ends, start), bisect_left(char_starts, end) - 1
    return (first, last) if first <= last else None


def best_spans(contexts: list[np.ndarray], max_answer_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best span of every window: its score, first and last token, each of shape `(windows,)`.

    Of equal spans the shortest wins, then the first. A window without context scores minus infinity.

    Args:
        contexts: Start and end logits of the context in every window, of shape `(tokens, 2)`.
        max_answer_length: Most tokens of a span.
    """
    scores = np.full(len(contexts), -np.inf)
    starts: np.ndarray = np.zeros(len(contexts), dtype=np.int64)
    ends: np.ndarray = np.zeros(len(contexts), dtype=np.int64)
    for offset in range(0, len(contexts), WINDOWS_AT_A_TIME):
        part = slice(offset, offset + WINDOWS_AT_A_TIME)
        best_score, best_start, best_end = scores[part], starts[part], ends[part]  # views
        width = max(map(len, contexts[part]))
        both = np.full((2, len(best_score), width), -np.inf)
        for index, context in enumerate(contexts[part]):
            both[:, index, : len(context)] = context.T
        for distance in range(min(max_answer_length, width)):
            spans = both[0, :, : width - distance] + both[1, :, distance:]
            start = spans.argmax(1)
            score = np.take_along_axis(spans, start[:, None], 1)[:, 0]
            better = score > best_score
            best_score[better] = score[better]
            best_start[better] = start[better]
            best_end[better] = start[better] + distance
    return scores, starts, ends


def unpadded(outputs: ModelOutput, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end logits of shape `(B, L)` in full precision, minus infinity at padding."""
    padding = batch["attention_mask"] == 0
    return tuple(
        logits.float().masked_fill(padding, -torch.inf) for logits in (outputs.start_logits, outputs.end_logits)
    )


def question_ids(rows: Dataset) -> list[str]:
    """The ids of the questions; their row numbers where there is no column of ids that tells them apart."""
    if ID_COLUMN in rows.column_names:
        ids = [str(name) for name in rows[ID_COLUMN]]
        if len(set(ids)) == len(ids):
            return ids
    return [str(index) for index in range(len(rows))]
