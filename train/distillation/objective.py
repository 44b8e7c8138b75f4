"""What general distillation minimises (paper, section 3.3)."""

from collections.abc import Mapping

import torch
from torch import nn

from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.loss_choice import LossRecipe
from efficientbert.train.distillation.losses import (
    attention_score_loss,
    count_valid,
    hidden_state_loss,
    logit_loss,
    masked_lm_loss,
    regroup_heads,
    relation_loss,
)
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.text.batches import pair_mask


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
