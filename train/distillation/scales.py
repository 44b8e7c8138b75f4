"""The teacher's variances, which losses are divided by."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.files.writing import write_json
from efficientbert.train.text.batches import batches, pair_mask, pool_sequences, sequence_ids
from efficientbert.train.text.preparation import Text


@dataclass(frozen=True)
class Scales:
    """The teacher's own variance, one number a layer and kind, estimated once: it puts all terms on one scale.

    Attributes:
        hidden_states: Variance of the embedding output and of every layer's output.
        pooled_states: Variance of their means over a sequence's tokens, around the mean sequence.
        attention_scores: Variance of every layer's scores before softmax.
    """

    hidden_states: tuple[float, ...]
    pooled_states: tuple[float, ...]
    attention_scores: tuple[float, ...]


@torch.no_grad()
def estimate_scales(samples: Iterable[tuple[Captures, Mapping[str, torch.Tensor]]]) -> Scales:
    """The teacher's variances on a fixed sample, over all channels or heads together, padding excluded.

    Around the mean of each channel or head they would be smaller, most where a teacher's heads lie far apart, and the
    attention scores of such layers would outweigh the hidden states. Pooled states are another matter: most of them is
    one mean that all texts share, so theirs is taken around the mean of each channel.

    Args:
        samples: Captures of the teacher with their batches.
    """
    moments: dict[tuple[str, int], torch.Tensor] = {}

    def add(key: tuple[str, int], values: torch.Tensor) -> None:
        values = values.double()
        update = torch.stack([torch.ones_like(values).sum(), values.sum(), values.square().sum()])
        moments[key] = moments[key] + update if key in moments else update

    pooled: dict[int, list[torch.Tensor]] = {}
    for captures, batch in samples:
        valid, pairs, sequences = batch["attention_mask"].bool(), pair_mask(batch), sequence_ids(batch)
        for index, states in enumerate(captures.hidden_states):
            add(("hidden_states", index), states[valid])
            pooled.setdefault(index, []).append(pool_sequences(states, sequences).flatten(0, 1).double())
        for index in range(len(captures.queries)):
            add(("attention_scores", index), captures.attention_scores(index).permute(0, 2, 3, 1)[pairs])

    def variances(kind: str) -> tuple[float, ...]:
        found = sorted((key[1], value.tolist()) for key, value in moments.items() if key[0] == kind)
        return tuple(squares / n - (total / n) ** 2 for _, (n, total, squares) in found)

    spread = tuple(torch.cat(found).var(0, correction=0).mean().item() for _, found in sorted(pooled.items()))
    return Scales(variances("hidden_states"), spread, variances("attention_scores"))


SCALES_FILE = "teacher_scales.json"


def teacher_scales(teacher: Teacher, text: Text, folder: Path, device: torch.device) -> Scales:
    """The teacher's variances on the sample of a text."""
    sample = batches(text.sample, 16, text.padding, device)
    return stored_scales(folder, ((teacher(batch), batch) for batch in sample))


def stored_scales(folder: Path, samples: Iterable[tuple[Captures, Mapping[str, torch.Tensor]]]) -> Scales:
    """The teacher's variances, estimated once in a run and kept in `folder`.

    Args:
        folder: Of the run, and of the checkpoint when it is finished.
        samples: Captures of the teacher with their batches; not looked at where the variances are kept already.
    """
    path = folder / SCALES_FILE
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if stored.keys() != {entry.name for entry in dataclasses.fields(Scales)}:  # an earlier version kept fewer
        folder.mkdir(parents=True, exist_ok=True)
        stored = dataclasses.asdict(estimate_scales(samples))
        write_json(path, stored)
    return Scales(**{name: tuple(values) for name, values in stored.items()})
