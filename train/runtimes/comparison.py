"""How far a graph is from its model: on rows of a task, or on sentences."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from efficientbert.train.metrics.intervals import interval
from efficientbert.train.runtimes.graph import CHOICES, EMBEDDING, Traced
from efficientbert.train.tasks.prediction import run_rows, score_draws
from efficientbert.train.tasks.task import Task, TaskData


BATCH_SIZE = 16
LENGTH = 128  # tokens of a sentence
DRAWS, SEED = 1000, 0  # of the rows, for the intervals
AGREEMENT, COSINE, LOSS = 0.99, 0.99, 0.005  # what int8 must keep: of predictions, of states, and of the score


@dataclass(frozen=True)
class Comparison:
    """A graph beside its model.

    Attributes:
        rows: Texts or rows compared.
        largest: The largest difference of any output.
        agreement: Share of equal predictions; None where none are made.
        cosine: Mean cosine of embeddings, or of the states of tokens; None where there are predictions.
        metric: Name of the score; None without labels.
        score: Of the graph.
        gain: The graph's score less the model's.
        gain_interval_95: Ends of its interval, on the same draws of rows.
    """

    rows: int
    largest: float
    agreement: float | None = None
    cosine: float | None = None
    metric: str | None = None
    score: float | None = None
    gain: float | None = None
    gain_interval_95: list[float] | None = None

    @property
    def faithful(self) -> bool:
        """Whether nothing that counts is lost."""
        kept = (self.agreement is None or self.agreement >= AGREEMENT) and (
            self.cosine is None or self.cosine >= COSINE
        )
        return kept and (self.gain is None or self.gain >= -LOSS)


class Probe(ABC):
    """What graphs are compared on."""

    @abstractmethod
    def compare(self, run: Callable[..., Any]) -> Comparison:
        """Compares what is called as the model is with the model."""


class RowProbe(Probe):
    """Rows of a task, with their labels.

    Args:
        task: The task.
        model: The model in PyTorch, on the CPU.
        data: The rows.
    """

    def __init__(self, task: Task, model: Callable[..., Any], data: TaskData):
        self.task, self.data = task, data
        with torch.inference_mode():
            self.expected = run_rows(model, task, data, BATCH_SIZE)
        self.predictions = task.predict(self.expected, data)
        self.scored = score_draws(task, self.expected, data, DRAWS, SEED)

    def compare(self, run: Callable[..., Any]) -> Comparison:
        """See [`Probe`]; predictions of numbers are not held against each other, but scored."""
        found = run_rows(run, self.task, self.data, BATCH_SIZE)
        largest = max(float(np.abs(one - other).max()) for one, other in zip(found, self.expected))
        scored = score_draws(self.task, found, self.data, DRAWS, SEED)
        theirs, mine = self.predictions, self.task.predict(found, self.data)
        continuous = all(isinstance(one, float) for one in theirs)
        return Comparison(
            rows=len(theirs),
            largest=largest,
            agreement=None if continuous else float(np.mean([one == other for one, other in zip(theirs, mine)])),
            metric=scored.name,
            score=scored.score,
            gain=scored.score - self.scored.score,
            gain_interval_95=list(interval(scored.draws - self.scored.draws)),
        )


class SentenceProbe(Probe):
    """Sentences without labels.

    Args:
        traced: The model.
        tokenizer: Its tokenizer.
        sentences: What it reads.
        longest: Tokens of a sentence at most.
    """

    def __init__(
        self, traced: Traced, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], longest: int = LENGTH
    ):
        self.batches = []
        for start in range(0, len(sentences), BATCH_SIZE):
            texts = list(sentences[start : start + BATCH_SIZE])
            batch = dict(tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"))
            if CHOICES in traced.axes:  # every text beside the one before it
                batch = {name: torch.stack((tensor, tensor.roll(1, 0)), 1) for name, tensor in batch.items()}
            self.batches.append({name: batch[name] for name in traced.inputs})
        self.outputs, self.count = traced.outputs, len(sentences)
        with torch.inference_mode():
            self.expected = [traced.module(*batch.values()) for batch in self.batches]

    def compare(self, run: Callable[..., Any]) -> Comparison:
        """See [`Probe`]: classes and places are predictions, states and embeddings have cosines; no padding counts."""
        largest, cosines, equal = 0.0, [], []
        for batch, theirs in zip(self.batches, self.expected):
            given, valid = run(**batch), batch["attention_mask"].bool()
            for name, wanted in zip(self.outputs, theirs):
                found = getattr(given, name)
                if name in ("start_logits", "end_logits"):
                    found, wanted = (scores.masked_fill(~valid, scores.min()) for scores in (found, wanted))
                elif name == "last_hidden_state" or found.dim() == 3:
                    found, wanted = found[valid], wanted[valid]
                largest = max(largest, (found - wanted).abs().max().item())
                if name == self.outputs[-1] and name in ("last_hidden_state", EMBEDDING):
                    cosines.append(torch.nn.functional.cosine_similarity(found, wanted, dim=-1))
                elif name.endswith("logits") and found.shape[-1] > 1:
                    equal.append((found.argmax(-1) == wanted.argmax(-1)).float().flatten())
        return Comparison(
            rows=self.count,
            largest=largest,
            agreement=torch.cat(equal).mean().item() if equal else None,
            cosine=torch.cat(cosines).mean().item() if cosines else None,
        )
