"""What general distillation minimises (paper, section 3.3)."""

from collections.abc import Mapping

import torch
from torch import nn

from efficientbert.train.distillation.capture import NOTHING, Captures, CapturingTeacher
from efficientbert.train.distillation.losses import LOSSES, LossRecipe, count_valid, total
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.text.batches import pair_mask


class GeneralDistillation:
    """The losses of a recipe; hidden states and attention scores are taken over the teacher's own variance.

    Where tokens are masked, student and teacher see the same masked text, and all losses compare what they make of it.

    Args:
        teacher: The teacher.
        scales: Its variances.
        recipe: Losses, weights and layers.
    """

    def __init__(self, teacher: CapturingTeacher, scales: Scales, recipe: LossRecipe):
        self.teacher = teacher
        self.scales = scales
        self.recipe = recipe
        self.losses = {name: LOSSES[name](recipe, scales) for name in recipe.weights}

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the losses of a batch are sums over: valid tokens, pairs of them and, if any, tokens to predict."""
        return count_valid(batch)

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum of all losses, and each of them without its weight."""
        teacher = self.teacher(batch) if self.recipe.needs_teacher else NOTHING
        return self.loss(model(**batch), teacher, batch, counts)

    def loss(
        self,
        student: Captures,
        teacher: Captures,
        batch: Mapping[str, torch.Tensor],
        counts: Mapping[str, torch.Tensor],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As calling it, for captures that are there already; `NOTHING` of the teacher if no loss looks at it."""
        pairs = pair_mask(batch)
        terms = {name: loss(student, teacher, batch, pairs, counts) for name, loss in self.losses.items()}
        loss = total([weight * terms[name] for name, weight in self.recipe.weights.items()])
        if torch.distributed.is_initialized():  # in a group of one, too
            loss = loss + 0 * _touch(student)
        return loss, terms


def _touch(captures: Captures) -> torch.Tensor:
    """A number that depends on everything captured.

    Processes of a group wait for the gradient of every weight that an output of the model depends on: a loss that
    looks at some outputs only would leave them waiting.
    """
    tensors = [*captures.hidden_states, *captures.queries, *captures.keys, *captures.values, captures.logits]
    # In float16 sums would overflow.
    return total([tensor.sum(dtype=torch.float32) for tensor in tensors if tensor is not None])
