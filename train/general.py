"""General distillation on unlabelled text (paper, section 3.3): text, objective, how near a student has come."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from efficientbert.train.capture import Captures
from efficientbert.train.corpus import PaddingCollator, batches, cut_documents, hold_out, load_documents
from efficientbert.train.folders import write_json
from efficientbert.train.losses import Scales, count_valid, distillation_terms, estimate_scales
from efficientbert.train.script import InputError
from efficientbert.train.teacher import Teacher


SCALES_FILE = "teacher_scales.json"


@dataclass(kw_only=True)
class CorpusArguments:
    """Where unlabelled text comes from and how it is cut."""

    corpus: str = field(metadata={"help": "Hub id, folder, or a .txt, .json, .jsonl, .csv or .parquet file."})
    corpus_name: str | None = field(default=None, metadata={"help": "Configuration of the corpus."})
    corpus_split: str = field(default="train", metadata={"help": "Split of the corpus, or a slice: train[:1000]."})
    text_column: str = field(default="text", metadata={"help": "Column with the documents."})
    streaming: bool = field(default=False, metadata={"help": "Read the corpus as it is needed; nothing is cached."})
    max_length: int = field(default=128, metadata={"help": "Tokens in a sequence."})
    held_out: int = field(default=64, metadata={"help": "Sequences kept for scoring, never trained on."})
    init_sequences: int = field(
        default=64, metadata={"help": "Sequences from which teacher statistics are taken at the start."}
    )


@dataclass(frozen=True)
class Text:
    """A corpus ready for one teacher: held-out and sample rows, and the sequences to train on."""

    held_out: list[dict[str, Any]]
    sample: list[dict[str, Any]]
    training: Any
    collator: PaddingCollator

    def sample_batch(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The sample as one batch."""
        return next(batches(self.sample, len(self.sample), self.collator, device))


def prepare_text(args: CorpusArguments, teacher: Teacher, batch_size: int, seed: int) -> Text:
    """Loads, cuts and divides the corpus.

    Raises:
        InputError: if it cannot be loaded, is too short, or its sequences are longer than the teacher takes.
    """
    if not 8 <= args.max_length <= teacher.max_positions:
        raise InputError(
            f"max_length: must be between 8 and the {teacher.max_positions} positions of teacher {teacher.name}, "
            f"not {args.max_length}"
        )
    documents = load_documents(args.corpus, args.corpus_name, args.corpus_split, args.text_column, args.streaming)
    sequences = cut_documents(documents, args.text_column, teacher.tokenizer, args.max_length)
    held_out, training = hold_out(sequences, args.held_out, max(batch_size, args.init_sequences), args.corpus)
    sample = list(training.take(args.init_sequences))
    if args.streaming:
        training = training.shuffle(seed=seed, buffer_size=10_000)
    return Text(held_out, sample, training, PaddingCollator(teacher.tokenizer.pad_token_id))


def teacher_scales(teacher: Teacher, text: Text, folder: Path, device: torch.device) -> Scales:
    """The teacher's variances, estimated once in a run and kept in `folder`."""
    path = folder / SCALES_FILE
    if not path.exists():
        sample = batches(text.sample, 16, text.collator, device)
        scales = estimate_scales((teacher(batch), batch["attention_mask"]) for batch in sample)
        write_json(path, dataclasses.asdict(scales))
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Scales(tuple(stored["hidden_states"]), tuple(stored["attention_scores"]))


class GeneralDistillation:
    """Hidden states and attention scores of all layers, each term over the teacher's own variance.

    Args:
        teacher: The teacher.
        scales: Its variances.
        layer_map: For every student layer, the teacher layer it learns from, counted from 0.
    """

    def __init__(self, teacher: Teacher, scales: Scales, layer_map: tuple[int, ...]):
        self.teacher = teacher
        self.scales = scales
        self.layer_map = layer_map

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Valid tokens and pairs of a batch."""
        return count_valid(batch["attention_mask"])

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The scaled sum of all terms, and the sums per kind."""
        return self.loss(model(**batch), self.teacher(batch), batch, counts)

    def loss(
        self,
        student: Captures,
        teacher: Captures,
        batch: Mapping[str, torch.Tensor],
        counts: Mapping[str, torch.Tensor],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As calling it, for captures that are there already."""
        return self.scale(distillation_terms(student, teacher, self.layer_map, batch["attention_mask"], counts))

    def scale(self, terms: Mapping[str, list[torch.Tensor]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Terms over the teacher's variances: their sum, and the sums per kind."""
        states = (0, *(layer + 1 for layer in self.layer_map))
        hidden = sum(t / self.scales.hidden_states[state] for t, state in zip(terms["hidden_states"], states))
        scores = sum(
            t / self.scales.attention_scores[layer] for t, layer in zip(terms["attention_scores"], self.layer_map)
        )
        return hidden + scores, {"hidden_states": hidden, "attention_scores": scores}


HeldOut = list[tuple[dict[str, torch.Tensor], Captures]]


def capture_held_out(text: Text, teacher: Teacher, device: torch.device) -> HeldOut:
    """The held-out batches with what the teacher makes of them."""
    return [(batch, teacher(batch)) for batch in batches(text.held_out, 16, text.collator, device)]


@torch.no_grad()
def score_student(student: nn.Module, objective: GeneralDistillation, held_out: HeldOut) -> dict[str, float]:
    """How near a student is to its teacher on held-out text.

    Returns:
        `loss` as trained, `hidden_state_mse` and `attention_score_mse` as raw sums over all terms, and `cosine` to the
        teacher's last hidden states, averaged over tokens.
    """
    student.eval()
    counted = [objective.count(batch) for batch, _ in held_out]
    counts = {name: sum(count[name] for count in counted) for name in counted[0]}
    totals = {"loss": 0.0, "hidden_state_mse": 0.0, "attention_score_mse": 0.0, "cosine": 0.0}
    for batch, theirs in held_out:
        mine = student(**batch)
        terms = distillation_terms(mine, theirs, objective.layer_map, batch["attention_mask"], counts)
        cosine = nn.functional.cosine_similarity(mine.hidden_states[-1], theirs.hidden_states[-1], dim=-1)
        totals["loss"] += objective.scale(terms)[0].item()
        totals["hidden_state_mse"] += sum(terms["hidden_states"]).item()
        totals["attention_score_mse"] += sum(terms["attention_scores"]).item()
        totals["cosine"] += ((cosine * batch["attention_mask"]).sum() / counts["tokens"]).item()
    student.train()
    return totals
