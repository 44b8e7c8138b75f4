"""Distillation losses: pure functions of tensors, and for every loss by name what of student and teacher it compares.

All are sums divided by a count that the caller gives, the number of valid tokens, token pairs, sequences or tokens to
predict in the *whole* batch over all accumulation steps and processes, so that the gradient does not depend on how the
batch is cut. Padding never counts, and in packed batches no sequence sees another.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import nn

from efficientbert.train.distillation.capture import Captures, Needs
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.text.batches import pair_mask, pool_sequences, sequence_ids


Tensors = Mapping[str, torch.Tensor]


def total(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of one loss or more."""
    return reduce(torch.add, losses)


def count_valid(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the losses of a batch are averages over.

    Args:
        batch: As of `sequence_ids`, and `labels` where tokens were masked: -100 where nothing is to predict.

    Returns:
        `tokens`, (query, key) `pairs` within a sequence, `sequences` and, with labels, tokens to predict, `predicted`.
    """
    counts = {
        "tokens": batch["attention_mask"].sum(),
        "pairs": pair_mask(batch).sum(),
        "sequences": sequence_ids(batch).amax(1).sum(),
    }
    if "labels" in batch:
        counts["predicted"] = (batch["labels"] != -100).sum()
    return counts


def hidden_state_loss(
    student: torch.Tensor, teacher: torch.Tensor, attention_mask: torch.Tensor, tokens: torch.Tensor | int
) -> torch.Tensor:
    """Squared error of hidden states, averaged over channels and valid tokens (paper, section 3.3, L_hidden).

    Args:
        student: Projected student states of shape `(B, L, W)`.
        teacher: Teacher states of shape `(B, L, W)`.
        attention_mask: 1 for valid tokens, of shape `(B, L)`.
        tokens: Valid tokens in the whole batch.
    """
    error = (_wide(student) - _wide(teacher)).square().mean(-1)
    return (error * attention_mask).sum() / tokens


def pooled_state_loss(
    student: torch.Tensor, teacher: torch.Tensor, sequences: torch.Tensor, count: torch.Tensor | int
) -> torch.Tensor:
    """Squared error of the mean hidden state of every sequence, averaged over channels and sequences.

    Args:
        student: Projected student states of shape `(B, L, W)`.
        teacher: Teacher states of shape `(B, L, W)`.
        sequences: As of `sequence_ids`, of shape `(B, L)`.
        count: Sequences in the whole batch.
    """
    # Pooling is linear, so the difference is pooled, once; in 16 bits it would be lost in the rounding of both.
    error = pool_sequences(_wide(student) - _wide(teacher), sequences)
    return error.square().mean(-1).sum() / count


def attention_score_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    pairs_mask: torch.Tensor,
    pairs: torch.Tensor | int,
) -> torch.Tensor:
    """Squared error of scores before softmax, averaged over heads and valid pairs (paper, section 3.3, L_attn).

    The difference of the two scores is one product of concatenated heads, so that only it, and neither of them, is
    made and rounded.

    Args:
        student: Queries and keys of shape `(B, H, L, d)`.
        teacher: Queries and keys with as many heads, of any size.
        pairs_mask: Which key counts for which query, of shape `(B, L, L)`.
        pairs: Valid (query, key) pairs in the whole batch.
    """
    (query, key), (their_query, their_key) = student, teacher
    left = torch.cat((query * query.shape[-1] ** -0.5, their_query * -(their_query.shape[-1] ** -0.5)), dim=-1)
    right = torch.cat((key, their_key), dim=-1)
    error = torch.matmul(left, right.transpose(-1, -2)) * pairs_mask[:, None].to(left.dtype)
    return _wide(error).square().sum() / (error.shape[1] * pairs)


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


def relation_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    pairs_mask: torch.Tensor,
    tokens: torch.Tensor | int,
) -> torch.Tensor:
    """Divergence of the student's from the teacher's relation distributions, averaged over heads and valid tokens.

    A relation is the softmax over all tokens of the scaled products of one token's vector with theirs: of queries with
    keys, the attention distribution, or of values with values (MiniLM, sections 3.1 and 3.2), or of queries, keys or
    values with themselves (MiniLMv2, section 3.1).

    Args:
        student: The two sides of the products, each of shape `(B, R, L, d)`.
        teacher: The same with as many relation heads `R`, of any size.
        pairs_mask: Which token counts for which, of shape `(B, L, L)`.
        tokens: Valid tokens in the whole batch.
    """
    mine, theirs = (torch.matmul(a * a.shape[-1] ** -0.5, b.transpose(-1, -2)) for a, b in (student, teacher))
    divergence = _Divergence.apply(mine, theirs, pairs_mask[:, None])
    return divergence.sum() / (mine.shape[1] * tokens)


def regroup_heads(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """Vectors of all attention heads, laid side by side and cut anew (MiniLMv2, section 3.1).

    Args:
        vectors: Shape `(B, H, L, d)`.
        heads: Relation heads R, a divisor of `H * d`.

    Returns:
        Shape `(B, R, L, H * d / R)`.
    """
    return vectors.transpose(1, 2).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2)


def masked_lm_loss(logits: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor | int) -> torch.Tensor:
    """Cross-entropy of the masked tokens.

    Args:
        logits: Shape `(M, V)`, a row for every token to predict of this batch.
        labels: Their ids, of shape `(M,)`.
        predicted: Tokens to predict in the whole batch.
    """
    return nn.functional.cross_entropy(_wide(logits), labels, reduction="sum") / predicted


def logit_loss(student: torch.Tensor, teacher: torch.Tensor, predicted: torch.Tensor | int) -> torch.Tensor:
    """Soft cross-entropy against the teacher's masked-LM logits, less their own entropy, which has no gradient.

    Args:
        student, teacher: Shape `(M, V)`, a row for every token to predict of this batch.
        predicted: Tokens to predict in the whole batch.
    """
    return _Divergence.apply(student, teacher, None).sum() / predicted


class _Divergence(torch.autograd.Function):
    """KL divergence of softmax(student) from softmax(teacher) in every row, keeping one tensor for the backward pass.

    Composed of torch's own functions it would keep several of them, and in float32.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        student: torch.Tensor,
        teacher: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """`(…, K)` scores, and True where a column counts, to `(…)`; a row without any column gives 0."""
        rows, hidden = [], None if mask is None else ~mask
        for scores in (student, teacher):
            wide = _wide(scores)
            if hidden is not None:
                wide = wide.clone() if wide is scores else wide
                wide.masked_fill_(hidden, torch.finfo(wide.dtype).min)
            rows.append(torch.log_softmax(wide, dim=-1))
        mine, theirs = rows
        target = theirs.exp()
        divergence = theirs.sub_(mine).mul_(target).sum(-1)
        ctx.save_for_backward(mine.exp_().sub_(target).to(student.dtype))
        return divergence

    @staticmethod
    def backward(
        ctx: torch.autograd.function.BackwardCFunction, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        """The difference of the two distributions."""
        (difference,) = ctx.saved_tensors
        return difference * gradient[..., None].to(difference.dtype), None, None


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True)
class LossRecipe:
    """Losses that fit a student and a teacher.

    Attributes:
        weights: By the name of the loss.
        states: Pairs of student and teacher hidden states that are compared; 0 is the embedding's output. The
            attention scores of the same layers are, where the student's has attention.
        relation_heads: Heads of the Q-Q, K-K and V-V relations.
        relation_layers: Student and teacher layer of all relations, counted from 0.
        attentive: Student layers that have attention, counted from 0.
    """

    weights: Mapping[str, float]
    states: tuple[tuple[int, int], ...]
    relation_heads: int
    relation_layers: tuple[int, int]
    attentive: frozenset[int]

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Pairs of student and teacher layers that are compared, counted from 0."""
        return tuple((mine - 1, theirs - 1) for mine, theirs in self.states if mine > 0)

    @property
    def attention_layers(self) -> tuple[tuple[int, int], ...]:
        """Those of which the student's has attention."""
        return tuple(pair for pair in self.layers if pair[0] in self.attentive)

    @property
    def masks(self) -> bool:
        """Whether tokens are masked to be predicted."""
        return any(LOSSES[name].masks for name in self.weights)

    @property
    def needs(self) -> Needs:
        """Which captures of the teacher the losses read."""
        needs = Needs()
        for name in self.weights:
            needs |= LOSSES[name].needs(self)
        return needs

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss looks at the teacher."""
        return self.needs != Needs()


@dataclass(frozen=True)
class Loss(ABC):
    """One loss of a recipe: what of student and teacher is compared.

    Attributes:
        recipe: The recipe.
        scales: The teacher's variances.
    """

    name: ClassVar[str]
    maps_layers: ClassVar[bool] = False  # whether it compares the layers of a `layer_map`
    of_attention: ClassVar[bool] = False  # whether it compares attention
    by_heads: ClassVar[bool] = False  # whether it does so head by head
    masks: ClassVar[bool] = False  # whether tokens are masked to be predicted

    recipe: LossRecipe
    scales: Scales

    @staticmethod
    @abstractmethod
    def needs(recipe: LossRecipe) -> Needs:
        """Which captures of the teacher it reads."""

    @abstractmethod
    def __call__(
        self,
        student: Captures,
        teacher: Captures,
        batch: Tensors,
        pairs: torch.Tensor,
        counts: Tensors,
    ) -> torch.Tensor:
        """The loss of a batch as a share of the whole one.

        Args:
            student: Its captures.
            teacher: What `needs` names of its captures.
            batch: As of `count_valid`.
            pairs: As of `pair_mask`.
            counts: As of `count_valid`, of the whole batch.
        """


class HiddenStates(Loss):
    """Squared error of the mapped hidden states over the teacher's variance."""

    name = "hidden_states"
    maps_layers = True

    @staticmethod
    def needs(recipe: LossRecipe) -> Needs:
        """See `Loss`."""
        return Needs(hidden_states=frozenset(theirs for _, theirs in recipe.states))

    def __call__(
        self, student: Captures, teacher: Captures, batch: Tensors, pairs: torch.Tensor, counts: Tensors
    ) -> torch.Tensor:
        """See `Loss`."""
        losses = hidden_state_losses(student, teacher, self.recipe.states, batch, counts)
        return total([loss / self.scales.hidden_states[state] for loss, (_, state) in zip(losses, self.recipe.states)])


class PooledStates(Loss):
    """Squared error of the mean of the last mapped hidden states over the teacher's variance of such means.

    It makes a student an embedder with mean pooling. That variance is taken around the mean text: the loss is the
    share of what tells texts apart that the student does not yet have.
    """

    name = "pooled_states"
    maps_layers = True

    @staticmethod
    def needs(recipe: LossRecipe) -> Needs:
        """See `Loss`."""
        return Needs(hidden_states=frozenset({recipe.states[-1][1]}))

    def __call__(
        self, student: Captures, teacher: Captures, batch: Tensors, pairs: torch.Tensor, counts: Tensors
    ) -> torch.Tensor:
        """See `Loss`."""
        mine, theirs = self.recipe.states[-1]
        states = student.hidden_states[mine], teacher.hidden_states[theirs]
        return pooled_state_loss(*states, sequence_ids(batch), counts["sequences"]) / self.scales.pooled_states[theirs]


class AttentionScores(Loss):
    """Squared error of scores before softmax over the teacher's variance, of mapped layers that have attention."""

    name = "attention_scores"
    maps_layers = of_attention = by_heads = True

    @staticmethod
    def needs(recipe: LossRecipe) -> Needs:
        """See `Loss`."""
        layers = frozenset(theirs for _, theirs in recipe.attention_layers)
        return Needs(queries=layers, keys=layers)

    def __call__(
        self, student: Captures, teacher: Captures, batch: Tensors, pairs: torch.Tensor, counts: Tensors
    ) -> torch.Tensor:
        """See `Loss`."""
        losses = attention_score_losses(student, teacher, self.recipe.attention_layers, pairs, counts)
        scales = [self.scales.attention_scores[layer] for _, layer in self.recipe.attention_layers]
        nothing = pairs.new_zeros((), dtype=torch.float32)  # where none of the mapped layers has attention
        return total([nothing, *(loss / scale for loss, scale in zip(losses, scales))])


class Relations(Loss):
    """Divergence of relation distributions of one student layer from those of one teacher layer."""

    of_attention = True
    compared: ClassVar[tuple[tuple[int, int], ...]]  # the two sides, each of queries, keys and values by number

    @staticmethod
    def needs(recipe: LossRecipe) -> Needs:
        """See `Loss`."""
        layer = frozenset(recipe.relation_layers[1:])
        return Needs(queries=layer, keys=layer, values=layer)

    def vectors(self, captures: Captures, layer: int) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of a layer, each of shape `(B, R, L, d)`."""
        return (captures.queries[layer], captures.keys[layer], captures.values[layer])

    def __call__(
        self, student: Captures, teacher: Captures, batch: Tensors, pairs: torch.Tensor, counts: Tensors
    ) -> torch.Tensor:
        """See `Loss`."""
        mine, theirs = map(self.vectors, (student, teacher), self.recipe.relation_layers)
        return total(
            [
                relation_loss((mine[a], mine[b]), (theirs[a], theirs[b]), pairs, counts["tokens"])
                for a, b in self.compared
            ]
        )


class MinilmRelations(Relations):
    """Attention distributions and value relations (MiniLM, sections 3.1 and 3.2)."""

    name = "minilm_relations"
    by_heads = True
    compared = ((0, 1), (2, 2))


class QkvRelations(Relations):
    """Relations of queries, keys and values, each with themselves (MiniLMv2, section 3.1)."""

    name = "qkv_relations"
    compared = ((0, 0), (1, 1), (2, 2))

    def vectors(self, captures: Captures, layer: int) -> tuple[torch.Tensor, ...]:
        """See `Relations`; of as many relation heads as the recipe says."""
        return tuple(regroup_heads(part, self.recipe.relation_heads) for part in super().vectors(captures, layer))


class MaskedLM(Loss):
    """Cross-entropy of the masked tokens; there need be no teacher."""

    name = "masked_lm"
    masks = True

    @staticmethod
    def needs(recipe: LossRecipe) -> Needs:
        """See `Loss`."""
        return Needs()

    def __call__(
        self, student: Captures, teacher: Captures, batch: Tensors, pairs: torch.Tensor, counts: Tensors
    ) -> torch.Tensor:
        """See `Loss`."""
        labels = batch["labels"][batch["labels"] != -100]
        return masked_lm_loss(student.predictions(), labels, counts["predicted"].clamp_min(1))


class Logits(Loss):
    """Divergence from the teacher's masked-LM distribution."""

    name = "logits"
    masks = True

    @staticmethod
    def needs(recipe: LossRecipe) -> Needs:
        """See `Loss`."""
        return Needs(logits=True)

    def __call__(
        self, student: Captures, teacher: Captures, batch: Tensors, pairs: torch.Tensor, counts: Tensors
    ) -> torch.Tensor:
        """See `Loss`."""
        return logit_loss(student.predictions(), teacher.predictions(), counts["predicted"].clamp_min(1))


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss
    for loss in (HiddenStates, PooledStates, AttentionScores, MinilmRelations, QkvRelations, MaskedLM, Logits)
}
