"""Distillation losses: pure functions of tensors, whichever models they come from.

All are sums divided by a count that the caller gives, the number of valid tokens, token pairs or tokens to predict in
the *whole* batch over all accumulation steps and processes, so that the gradient does not depend on how the batch is
cut. Padding never counts, and in packed batches no sequence sees another.
"""

from collections.abc import Mapping

import torch
from torch import nn

from efficientbert.train.text.batches import pair_mask


def count_valid(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the losses of a batch are averages over.

    Args:
        batch: As of `packing.pair_mask`, and `labels` where tokens were masked: -100 where nothing is to predict.

    Returns:
        `tokens`, (query, key) `pairs` within a sequence and, with labels, tokens to predict, `predicted`.
    """
    counts = {"tokens": batch["attention_mask"].sum(), "pairs": pair_mask(batch).sum()}
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
            if mask is not None:
                wide = wide.clone() if wide is scores else wide
                wide.masked_fill_(hidden, torch.finfo(wide.dtype).min)
            rows.append(torch.log_softmax(wide, dim=-1))
        mine, theirs = rows
        target = theirs.exp()
        divergence = theirs.sub_(mine).mul_(target).sum(-1)
        ctx.save_for_backward(mine.exp_().sub_(target).to(student.dtype))
        return divergence

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The difference of the two distributions."""
        (difference,) = ctx.saved_tensors
        return difference * gradient[..., None].to(difference.dtype), None, None


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
