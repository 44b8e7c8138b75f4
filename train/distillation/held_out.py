"""How near a student has come to its teacher on held-out text."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.distillation.capture import Captures, Needs
from efficientbert.train.distillation.layer_map import even_states
from efficientbert.train.distillation.losses import LossRecipe, attention_score_losses, hidden_state_losses, total
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.student import Student
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.text.batches import batches, pair_mask
from efficientbert.train.text.masking import WholeWordMasking
from efficientbert.train.text.preparation import Text


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
    text: Text,
    teacher: Teacher,
    device: torch.device,
    students: Sequence[tuple[EfficientBertConfig, LossRecipe]],
    masking: WholeWordMasking | None = None,
) -> HeldOut:
    """The held-out text of a corpus; with `masking`, masked as in its first epoch too.

    Args:
        text: The corpus.
        teacher: The teacher.
        device: Where to.
        students: Who is scored on it, and what each learns: of the teacher's captures only what that reads is kept.
        masking: What hides words, if the students are trained so.
    """
    figures, losses = Needs(), Needs()
    for config, recipe in students:
        figures |= _figure_needs(config, teacher)
        losses |= recipe.needs

    def capture(collator: Callable[[list], dict[str, torch.Tensor]], needs: Needs) -> Captured:
        return [(batch, needs.of(teacher(batch))) for batch in batches(text.held_out, 16, collator, device)]

    if masking is None:
        return HeldOut(capture(text.padding, figures | losses))
    masking = copy.copy(masking)
    masking.collator = text.padding
    masking.set_epoch(0)
    return HeldOut(capture(text.padding, figures), capture(masking, losses))


def _figure_needs(config: EfficientBertConfig, teacher: Teacher) -> Needs:
    """What `nearness` reads of a teacher, for a student of a configuration."""
    states = frozenset(theirs for _, theirs in even_states(config.num_hidden_layers, teacher.num_layers))
    same_heads = {heads for heads, _ in config.attentions} == {teacher.num_heads}
    layers = frozenset(state - 1 for state in states - {0}) if same_heads else frozenset()
    return Needs(hidden_states=states | {teacher.num_layers}, queries=layers, keys=layers)


@torch.no_grad()
def score_student(student: Student, objective: GeneralDistillation, held_out: HeldOut) -> dict[str, float]:
    """How near a student is to its teacher on held-out text.

    Returns:
        `loss` as trained, and each of several losses under its name, with `_loss`. On unmasked text, and whatever was
        trained, `hidden_state_mse` and, with as many heads as the teacher's, `attention_score_mse`, the raw sums over
        embedding and layers, evenly mapped; `cosine` to the teacher's last hidden states, averaged over tokens.
    """
    student.eval()
    counts = [_whole_counts(objective, captured) for captured in (held_out.plain, held_out.masked or [])]
    totals: dict[str, float] = {}

    def add(figures: Mapping[str, torch.Tensor]) -> None:
        for name, value in figures.items():
            totals[name] = totals.get(name, 0.0) + value.item()

    def losses(mine: Captures, theirs: Captures, batch: Mapping[str, torch.Tensor], whole: Mapping) -> dict:
        loss, terms = objective.loss(mine, theirs, batch, whole)
        return {"loss": loss} | ({f"{name}_loss": term for name, term in terms.items()} if len(terms) > 1 else {})

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
    figures = {"hidden_state_mse": total(hidden_state_losses(student, teacher, states, batch, counts))}
    theirs = teacher.queries[layers[0][1]]  # not there where no student has as many heads
    if theirs is not None and all(mine is not None and mine.shape[1] == theirs.shape[1] for mine in student.queries):
        figures["attention_score_mse"] = total(
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
