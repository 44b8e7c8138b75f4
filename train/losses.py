"""Distillation losses: pure functions of the captures of a student and a teacher.

All are sums divided by a count that the caller gives, the number of valid tokens or token pairs in the *whole* batch
over all accumulation steps and processes, so that the gradient does not depend on how the batch is cut. Padding never
counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from efficientbert.train.capture import Captures


@dataclass(frozen=True)
class Scales:
    """The teacher's own variance, one number a layer and kind, estimated once: it puts all terms on one scale.

    Attributes:
        hidden_states: Variance of the embedding output and of every layer's output.
        attention_scores: Variance of every layer's scores before softmax.
    """

    hidden_states: tuple[float, ...]
    attention_scores: tuple[float, ...]


def count_valid(attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Valid tokens, and valid (query, key) pairs, of a mask of shape `(B, L)`."""
    lengths = attention_mask.sum(-1)
    return {"tokens": lengths.sum(), "pairs": (lengths * lengths).sum()}


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
    error = (student.float() - teacher.float()).square().mean(-1)
    return (error * attention_mask).sum() / tokens


def attention_score_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    pair_mask: torch.Tensor,
    pairs: torch.Tensor | int,
) -> torch.Tensor:
    """Squared error of scores before softmax, averaged over heads and valid pairs (paper, section 3.3, L_attn).

    The difference of the two scores is one product of concatenated heads, so that only it, and neither of them, is
    made and rounded.

    Args:
        student: Queries and keys of shape `(B, H, L, d)`.
        teacher: Queries and keys with as many heads, of any size.
        pair_mask: Which key counts for which query, of shape `(B, L, L)`.
        pairs: Valid (query, key) pairs in the whole batch.
    """
    (query, key), (their_query, their_key) = student, teacher
    left = torch.cat((query * query.shape[-1] ** -0.5, their_query * -(their_query.shape[-1] ** -0.5)), dim=-1)
    right = torch.cat((key, their_key), dim=-1)
    error = torch.matmul(left, right.transpose(-1, -2)) * pair_mask[:, None].to(left.dtype)
    return error.float().square().sum() / (error.shape[1] * pairs)


def distillation_terms(
    student: Captures,
    teacher: Captures,
    layer_map: tuple[int, ...],
    attention_mask: torch.Tensor,
    counts: Mapping[str, torch.Tensor],
) -> dict[str, list[torch.Tensor]]:
    """All terms of general distillation, not yet scaled.

    Args:
        student: Captures with hidden states projected to the teacher's width.
        teacher: Captures of the teacher.
        layer_map: For every student layer, the teacher layer it learns from, counted from 0.
        attention_mask: 1 for valid tokens, of shape `(B, L)`.
        counts: As of `count_valid`, over the whole batch.

    Returns:
        `hidden_states`: one term for the embedding and one a layer; `attention_scores`: one term a layer.
    """
    states = (0, *(layer + 1 for layer in layer_map))
    pair_mask = attention_mask[:, :, None] * attention_mask[:, None, :]
    return {
        "hidden_states": [
            hidden_state_loss(
                student.hidden_states[index], teacher.hidden_states[state], attention_mask, counts["tokens"]
            )
            for index, state in enumerate(states)
        ],
        "attention_scores": [
            attention_score_loss(
                (student.queries[index], student.keys[index]),
                (teacher.queries[layer], teacher.keys[layer]),
                pair_mask,
                counts["pairs"],
            )
            for index, layer in enumerate(layer_map)
        ],
    }


@torch.no_grad()
def estimate_scales(samples: Iterable[tuple[Captures, torch.Tensor]]) -> Scales:
    """The teacher's variances on a fixed sample, over all channels or heads together, padding excluded.

    Around the mean of each channel or head they would be smaller, most where a teacher's heads lie far apart, and the
    attention scores of such layers would outweigh the hidden states.

    Args:
        samples: Captures of the teacher with their attention masks of shape `(B, L)`.
    """
    moments: dict[tuple[str, int], torch.Tensor] = {}

    def add(key: tuple[str, int], values: torch.Tensor) -> None:
        values = values.double()
        update = torch.stack([torch.ones_like(values).sum(), values.sum(), values.square().sum()])
        moments[key] = moments[key] + update if key in moments else update

    for captures, attention_mask in samples:
        valid = attention_mask.bool()
        pairs = valid[:, :, None] & valid[:, None, :]
        for index, states in enumerate(captures.hidden_states):
            add(("hidden_states", index), states[valid])
        for index in range(len(captures.queries)):
            add(("attention_scores", index), captures.attention_scores(index).permute(0, 2, 3, 1)[pairs])

    def variances(kind: str) -> tuple[float, ...]:
        found = sorted((key[1], value.tolist()) for key, value in moments.items() if key[0] == kind)
        return tuple(squares / n - (total / n) ** 2 for _, (n, total, squares) in found)

    return Scales(variances("hidden_states"), variances("attention_scores"))
