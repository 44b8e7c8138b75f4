"""General distillation on unlabelled text (paper, section 3.3): text, objective, how near a student has come."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from efficientbert.train.capture import Captures
from efficientbert.train.corpus import PaddingCollator, batches, cut_documents, hold_out, load_documents
from efficientbert.train.folders import write_json
from efficientbert.train.loop import LoopArguments
from efficientbert.train.losses import (
    Scales,
    attention_score_loss,
    count_valid,
    estimate_scales,
    hidden_state_loss,
    logit_loss,
    masked_lm_loss,
    regroup_heads,
    relation_loss,
)
from efficientbert.train.masking import WholeWordMasking
from efficientbert.train.packing import PackingCollator, check_packing, pack_sequences, pair_mask
from efficientbert.train.recipe import LossArguments, LossRecipe, parse_losses
from efficientbert.train.script import InputError
from efficientbert.train.student import Student, nearest_layers
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
    packing: bool = field(
        default=False, metadata={"help": "Fill rows of max_length with several sequences that do not see each other."}
    )
    held_out: int = field(default=64, metadata={"help": "Sequences kept for scoring, never trained on."})
    init_sequences: int = field(
        default=64, metadata={"help": "Sequences from which teacher statistics are taken at the start."}
    )


@dataclass(kw_only=True)
class GeneralArguments(LoopArguments, CorpusArguments, LossArguments):
    """What all distillation on unlabelled text can be told."""

    least_held_out: ClassVar[int] = 0

    teacher: str = field(metadata={"help": "Hub id or folder of the teacher."})
    output_dir: str = field(metadata={"help": "Folder to write; an interrupted run into it is resumed."})
    learning_rate: float = field(default=1.5e-3, metadata={"help": "Peak learning rate of AdamW."})
    batch_size: int = field(default=16, metadata={"help": "Sequences, or packed rows, a process takes at a time."})

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        parse_losses(self.losses)
        for name, least in (("held_out", self.least_held_out), ("init_sequences", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Text:
    """A corpus ready for one teacher: held-out and sample rows, and the sequences to train on.

    `collator` makes batches of the latter, `padding` of the others.
    """

    held_out: list[dict[str, Any]]
    sample: list[dict[str, Any]]
    training: Any
    collator: Callable[[list], dict[str, torch.Tensor]]
    padding: PaddingCollator

    def sample_batch(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The sample as one batch."""
        return next(batches(self.sample, len(self.sample), self.padding, device))


def divide_corpus(
    args: CorpusArguments,
    cut: Callable[..., Any],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    teacher: str,
    batch_size: int,
    seed: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Loads a corpus, cuts it, and divides it: held-out rows, a sample of the training rows, and the training rows.

    Args:
        args: Where it comes from.
        cut: `cut_documents`, or another function that takes and gives the same.
        tokenizer: The teacher's.
        longest: Tokens that the teacher takes.
        teacher: Its name, for messages.
        batch_size: Rows of a whole batch; at least one is needed.
        seed: Of the order in which a stream is read.

    Raises:
        InputError: if it cannot be loaded, is too short, or its sequences are longer than the teacher takes.
    """
    if not 8 <= args.max_length <= longest:
        raise InputError(
            f"max_length: must be between 8 and the {longest} tokens of teacher {teacher}, not {args.max_length}"
        )
    documents = load_documents(args.corpus, args.corpus_name, args.corpus_split, args.text_column, args.streaming)
    rows = cut(documents, args.text_column, tokenizer, args.max_length, args.corpus)
    held_out, training = hold_out(rows, args.held_out, max(batch_size, args.init_sequences), args.corpus)
    sample = list(training.take(args.init_sequences))
    if args.streaming:
        training = training.shuffle(seed=seed, buffer_size=10_000)
    return held_out, sample, training


def prepare_text(args: CorpusArguments, teacher: Teacher, batch_size: int, seed: int) -> Text:
    """The text that a teacher distils, packed if it is asked for; see `divide_corpus`.

    Raises:
        InputError: as `divide_corpus`, or if the teacher cannot keep packed sequences apart.
    """
    held_out, sample, training = divide_corpus(
        args, cut_documents, teacher.tokenizer, teacher.max_positions, teacher.name, batch_size, seed
    )
    collator = padding = PaddingCollator(teacher.tokenizer.pad_token_id)
    if args.packing:
        check_packing(teacher)
        training = pack_sequences(training, args.max_length)
        collator = PackingCollator(teacher.tokenizer.pad_token_id)
    return Text(held_out, sample, training, collator, padding)


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
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(estimate_scales(samples)))
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Scales(tuple(stored["hidden_states"]), tuple(stored["attention_scores"]))


class GeneralDistillation:
    """The losses of a recipe; hidden states and attention scores are taken over the teacher's own variance.

    Where tokens are masked, student and teacher see the same masked text, and all losses compare what they make of it.

    Args:
        teacher: The teacher.
        scales: Its variances.
        recipe: Losses, weights and layers.
    """

    def __init__(self, teacher: Teacher, scales: Scales, recipe: LossRecipe):
        self.teacher = teacher
        self.scales = scales
        self.recipe = recipe

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the losses of a batch are sums over: valid tokens, pairs of them and, if any, tokens to predict."""
        return count_valid(batch)

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum of all losses, and each of them without its weight."""
        teacher = self.teacher(batch) if self.recipe.needs_teacher else None
        return self.loss(model(**batch), teacher, batch, counts)

    def loss(
        self,
        student: Captures,
        teacher: Captures | None,
        batch: Mapping[str, torch.Tensor],
        counts: Mapping[str, torch.Tensor],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As calling it, for captures that are there already; without a teacher if no loss looks at it."""
        pairs = pair_mask(batch)
        terms = {name: self._term(name, student, teacher, batch, pairs, counts) for name in self.recipe.weights}
        total = sum(weight * terms[name] for name, weight in self.recipe.weights.items())
        if torch.distributed.is_initialized():  # in a group of one, too
            total = total + 0 * _touch(student)
        return total, terms

    def _term(
        self,
        name: str,
        student: Captures,
        teacher: Captures | None,
        batch: Mapping[str, torch.Tensor],
        pairs: torch.Tensor,
        counts: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """One loss."""
        if name == "hidden_states":
            losses = hidden_state_losses(student, teacher, self.recipe.states, batch, counts)
            return sum(loss / self.scales.hidden_states[state] for loss, (_, state) in zip(losses, self.recipe.states))
        if name == "attention_scores":
            losses = attention_score_losses(student, teacher, self.recipe.layers, pairs, counts)
            return sum(
                loss / self.scales.attention_scores[layer] for loss, (_, layer) in zip(losses, self.recipe.layers)
            )
        if name in ("masked_lm", "logits"):
            predicted = counts["predicted"].clamp_min(1)
            if name == "logits":
                return logit_loss(student.logits, teacher.logits, predicted)
            return masked_lm_loss(student.logits, batch["labels"][batch["labels"] != -100], predicted)
        mine = (student.queries[-1], student.keys[-1], student.values[-1])
        layer = self.recipe.relation_layer
        theirs = (teacher.queries[layer], teacher.keys[layer], teacher.values[layer])
        if name == "minilm_relations":
            compared = ((0, 1), (2, 2))
        else:
            compared = ((0, 0), (1, 1), (2, 2))
            mine, theirs = (
                tuple(regroup_heads(part, self.recipe.relation_heads) for part in parts) for parts in (mine, theirs)
            )
        return sum(
            relation_loss((mine[a], mine[b]), (theirs[a], theirs[b]), pairs, counts["tokens"]) for a, b in compared
        )


def _touch(captures: Captures) -> torch.Tensor:
    """A number that depends on everything captured.

    Processes of a group wait for the gradient of every weight that an output of the model depends on: a loss that
    looks at some outputs only would leave them waiting.
    """
    tensors = [*captures.hidden_states, *captures.queries, *captures.keys, *captures.values]
    tensors += [] if captures.logits is None else [captures.logits]
    return sum(tensor.sum(dtype=torch.float32) for tensor in tensors)  # in float16 sums would overflow


def hidden_state_losses(
    student: Captures,
    teacher: Captures,
    states: tuple[tuple[int, int], ...],
    batch: Mapping[str, torch.Tensor],
    counts: Mapping[str, torch.Tensor],
) -> list[torch.Tensor]:
    """One loss for every pair of student and teacher hidden states, not yet scaled."""
    return [
        hidden_state_loss(
            student.hidden_states[mine], teacher.hidden_states[theirs], batch["attention_mask"], counts["tokens"]
        )
        for mine, theirs in states
    ]


def attention_score_losses(
    student: Captures,
    teacher: Captures,
    layers: tuple[tuple[int, int], ...],
    pairs: torch.Tensor,
    counts: Mapping[str, torch.Tensor],
) -> list[torch.Tensor]:
    """One loss for every pair of student and teacher layers, not yet scaled."""
    return [
        attention_score_loss(
            (student.queries[mine], student.keys[mine]),
            (teacher.queries[theirs], teacher.keys[theirs]),
            pairs,
            counts["pairs"],
        )
        for mine, theirs in layers
    ]


def source_layers(recipe: LossRecipe, student_layers: int, teacher: Teacher) -> tuple[int, ...]:
    """For every student layer, the teacher layer it starts from: the one it is compared with, or the nearest."""
    return tuple((dict(enumerate(nearest_layers(student_layers, teacher.num_layers))) | dict(recipe.layers)).values())


def even_states(student_layers: int, teacher_layers: int) -> tuple[tuple[int, int], ...]:
    """Pairs of student and teacher hidden states: the embedding, and layers evenly mapped."""
    layers = enumerate(nearest_layers(student_layers, teacher_layers))
    return ((0, 0), *((mine + 1, theirs + 1) for mine, theirs in layers))


Captured = list[tuple[dict[str, torch.Tensor], Captures]]


@dataclass(frozen=True)
class HeldOut:
    """Held-out batches with what the teacher makes of them.

    Attributes:
        plain: The text as it is.
        masked: The same with masked words, always the same ones, if the student is trained so.
    """

    plain: Captured
    masked: Captured | None = None


def capture_held_out(
    text: Text, teacher: Teacher, device: torch.device, masking: WholeWordMasking | None = None
) -> HeldOut:
    """The held-out text of a corpus; with `masking`, masked as in its first epoch too."""

    def capture(collator: Callable[[list], dict[str, torch.Tensor]]) -> Captured:
        return [(batch, teacher(batch)) for batch in batches(text.held_out, 16, collator, device)]

    if masking is None:
        return HeldOut(capture(text.padding))
    masking = copy.copy(masking)
    masking.collator = text.padding
    masking.set_epoch(0)
    return HeldOut(capture(text.padding), capture(masking))


@torch.no_grad()
def score_student(student: Student, objective: GeneralDistillation, held_out: HeldOut) -> dict[str, float]:
    """How near a student is to its teacher on held-out text.

    Returns:
        `loss` as trained, and each of several losses under its name, with `_loss`. On unmasked text, and whatever was
        trained, `hidden_state_mse` and, with as many heads as the teacher's, `attention_score_mse`, the raw sums over
        embedding and layers, evenly mapped; `cosine` to the teacher's last hidden states, averaged over tokens.
    """
    student.eval()
    counts = [_whole_counts(objective, captured) for captured in (held_out.plain, held_out.masked or ())]
    totals: dict[str, float] = {}

    def add(figures: Mapping[str, torch.Tensor]) -> None:
        for name, value in figures.items():
            totals[name] = totals.get(name, 0.0) + value.item()

    def losses(mine: Captures, theirs: Captures, batch: Mapping[str, torch.Tensor], whole: Mapping) -> dict:
        total, terms = objective.loss(mine, theirs, batch, whole)
        return {"loss": total} | ({f"{name}_loss": term for name, term in terms.items()} if len(terms) > 1 else {})

    for batch, theirs in held_out.masked or ():
        add(losses(student(**batch), theirs, batch, counts[1]))
    for batch, theirs in held_out.plain:
        mine = student(**batch)
        if held_out.masked is None:
            add(losses(mine, theirs, batch, counts[0]))
        add(nearness(mine, theirs, batch, counts[0]))
    student.train()
    return totals


def nearness(
    student: Captures, teacher: Captures, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The figures of `score_student` that do not depend on what was trained, as a batch's share of the whole."""
    states = even_states(len(student.queries), len(teacher.queries))
    layers = tuple((mine - 1, theirs - 1) for mine, theirs in states[1:])
    figures = {"hidden_state_mse": sum(hidden_state_losses(student, teacher, states, batch, counts))}
    if student.queries[0].shape[1] == teacher.queries[0].shape[1]:
        figures["attention_score_mse"] = sum(
            attention_score_losses(student, teacher, layers, pair_mask(batch), counts)
        )
    cosine = nn.functional.cosine_similarity(student.hidden_states[-1], teacher.hidden_states[-1], dim=-1)
    return figures | {"cosine": (cosine * batch["attention_mask"]).sum() / counts["tokens"]}


def _whole_counts(objective: GeneralDistillation, captured: Captured) -> dict[str, torch.Tensor]:
    """Counts summed over all batches."""
    counts: dict[str, torch.Tensor] = {}
    for batch, _ in captured:
        for name, count in objective.count(batch).items():
            counts[name] = counts.get(name, 0) + count
    return counts
