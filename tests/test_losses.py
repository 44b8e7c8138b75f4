"""Distillation losses against slow, obvious float64 versions."""

import dataclasses
import math

import pytest
import torch

from efficientbert.train.distillation.capture import Captures
from efficientbert.train.distillation.losses import (
    attention_score_loss,
    count_valid,
    hidden_state_loss,
    logit_loss,
    masked_lm_loss,
    pooled_state_loss,
    regroup_heads,
    relation_loss,
)
from efficientbert.train.distillation.scales import estimate_scales


LENGTHS = (5, 3, 7)


def make_captures(seed: int, layers: int, width: int = 6, heads: int = 2, head_dim: int = 4) -> Captures:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    states = tuple(draw(3, 7, width) for _ in range(layers + 1))
    return Captures(states, *(tuple(draw(3, heads, 7, head_dim) for _ in range(layers)) for _ in range(3)))


def mask() -> torch.Tensor:
    return torch.tensor([[1] * length + [0] * (7 - length) for length in LENGTHS])


def pairs_mask() -> torch.Tensor:
    return mask()[:, :, None].bool() & mask()[:, None, :].bool()


def test_counts():
    counts = count_valid({"attention_mask": mask()})
    assert counts["tokens"] == sum(LENGTHS) and counts["pairs"] == sum(length**2 for length in LENGTHS)
    assert "predicted" not in counts
    labels = torch.full((3, 7), -100)
    labels[0, 2], labels[2, 6] = 0, 5
    assert count_valid({"attention_mask": mask(), "labels": labels})["predicted"] == 2


def test_pairs_of_packed_sequences_are_those_of_each():
    ids = torch.tensor([[1, 1, 1, 2, 2, 0]])
    assert count_valid({"attention_mask": ids.clamp_max(1), "sequence_ids": ids})["pairs"] == 3**2 + 2**2


def test_attention_scores_are_scaled_products():
    captures = make_captures(0, 1)
    scores = captures.attention_scores(0)
    query, key = captures.queries[0], captures.keys[0]
    expected = sum(query[2, 1, 3, c] * key[2, 1, 5, c] for c in range(4)) / math.sqrt(4)
    assert scores[2, 1, 3, 5].item() == pytest.approx(expected.item())


def test_hidden_state_loss_by_hand():
    student, teacher = make_captures(1, 1).hidden_states[0], make_captures(2, 1).hidden_states[0]
    total = 0.0
    for row, length in enumerate(LENGTHS):
        for token in range(length):
            total += sum((student[row, token, c] - teacher[row, token, c]).item() ** 2 for c in range(6)) / 6
    loss = hidden_state_loss(student, teacher, mask(), sum(LENGTHS))
    assert loss.item() == pytest.approx(total / sum(LENGTHS), rel=1e-5)


def test_pooled_state_loss_by_hand():
    student, teacher = make_captures(1, 1).hidden_states[0], make_captures(2, 1).hidden_states[0]
    sequences = torch.tensor([[1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1, 2, 2, 3, 3, 3, 0]])
    members = [[(0, 1), (2, 3, 4)], [range(7)], [(0,), (1, 2), (3, 4, 5)]]
    total = 0.0
    for row, groups in enumerate(members):
        for group in groups:
            for c in range(6):
                mine, theirs = (sum(states[row, token, c].item() for token in group) for states in (student, teacher))
                total += ((mine - theirs) / len(group)) ** 2 / 6
    assert pooled_state_loss(student, teacher, sequences, 6).item() == pytest.approx(total / 6, rel=1e-12)


def test_attention_score_loss_by_hand():
    student, teacher = make_captures(3, 1), make_captures(4, 1, head_dim=6)
    mine, theirs = student.attention_scores(0), teacher.attention_scores(0)
    total = 0.0
    for row, length in enumerate(LENGTHS):
        for i in range(length):
            for j in range(length):
                total += sum((mine[row, h, i, j] - theirs[row, h, i, j]).item() ** 2 for h in range(2)) / 2
    pairs = sum(length**2 for length in LENGTHS)
    both = ((captures.queries[0], captures.keys[0]) for captures in (student, teacher))
    loss = attention_score_loss(*both, pairs_mask(), pairs)
    assert loss.item() == pytest.approx(total / pairs, rel=1e-5)


def divergence(target: list[float], other: list[float]) -> float:
    """Of the softmax of `other` from the softmax of `target`, in plain Python."""
    p, q = ([math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in (target, other))
    return sum(a * math.log(a / b) for a, b in zip(p, q))


def slow_relation_loss(mine, theirs, lengths) -> float:
    """Row by row: mean over heads, sum over queries, over the number of tokens."""
    heads, total = mine[0].shape[1], 0.0
    for row, length in enumerate(lengths):
        for head in range(heads):
            for i in range(length):
                scores = [
                    [(a[row, head, i] @ b[row, head, j]).item() / math.sqrt(a.shape[-1]) for j in range(length)]
                    for a, b in (theirs, mine)
                ]
                total += divergence(*scores) / heads
    return total / sum(lengths)


def test_relation_loss_by_hand_with_its_gradient():
    student, teacher = make_captures(12, 1), make_captures(13, 1, head_dim=6)
    mine, theirs = ((captures.queries[0], captures.keys[0]) for captures in (student, teacher))
    for tensor in mine:
        tensor.requires_grad_()
    loss = relation_loss(mine, theirs, pairs_mask(), sum(LENGTHS))
    assert loss.item() == pytest.approx(slow_relation_loss(mine, theirs, LENGTHS), rel=1e-9)
    assert torch.autograd.gradcheck(lambda *both: relation_loss(both, theirs, pairs_mask(), 15), mine)


def test_equal_relations_lose_nothing_and_large_scores_stay_finite():
    captures = make_captures(14, 1)
    both = (captures.values[0], captures.values[0])
    assert relation_loss(both, both, pairs_mask(), 15).item() == pytest.approx(0, abs=1e-12)
    large = tuple((tensor.float() * 100).bfloat16() for tensor in both)
    assert relation_loss(large, tuple(-1.0 * tensor for tensor in large), pairs_mask(), 15).isfinite()


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_regrouped_heads_lay_channels_side_by_side(heads):
    vectors = make_captures(15, 1).queries[0]
    regrouped = regroup_heads(vectors, heads)
    assert regrouped.shape == (3, heads, 7, 8 // heads)
    for channel in range(8):
        mine = regrouped[:, channel // (8 // heads), :, channel % (8 // heads)]
        assert torch.equal(mine, vectors[:, channel // 4, :, channel % 4])


def test_masked_lm_and_logit_loss_by_hand():
    generator = torch.Generator().manual_seed(16)
    student, teacher = (torch.randn(4, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    labels = torch.tensor([3, 0, 8, 3])
    probabilities = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in student.tolist()]
    expected = sum(-math.log(row[label]) for row, label in zip(probabilities, labels.tolist())) / 6
    assert masked_lm_loss(student, labels, 6).item() == pytest.approx(expected)
    expected = sum(divergence(t, s) for t, s in zip(teacher.tolist(), student.tolist())) / 6
    assert logit_loss(student, teacher, 6).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda scores: logit_loss(scores, teacher, 6), (student,))
    soft = -(teacher.softmax(-1) * student.log_softmax(-1)).sum() / 6
    mine, theirs = (torch.autograd.grad(loss, student)[0] for loss in (logit_loss(student, teacher, 6), soft))
    torch.testing.assert_close(mine, theirs)


def test_nothing_to_predict_is_no_loss():
    nothing = torch.zeros(0, 9, requires_grad=True)
    loss = masked_lm_loss(nothing, torch.zeros(0, dtype=torch.long), 1) + logit_loss(nothing, nothing.detach(), 1)
    loss.backward()
    assert loss.item() == 0


def test_padding_never_counts():
    student, teacher = make_captures(5, 1), make_captures(6, 1)

    def losses() -> torch.Tensor:
        mine, theirs = ((captures.queries[0], captures.keys[0]) for captures in (student, teacher))
        return torch.stack(
            [
                hidden_state_loss(student.hidden_states[0], teacher.hidden_states[0], mask(), 15),
                attention_score_loss(mine, theirs, pairs_mask(), 83),
                relation_loss(mine, theirs, pairs_mask(), 15),
            ]
        )

    before = losses()
    for tensor in (*student.hidden_states, *teacher.hidden_states):
        tensor[~mask().bool()] = 1e3
    for tensor in (*student.queries, *teacher.keys):
        tensor.transpose(1, 2)[~mask().bool()] = 1e3
    torch.testing.assert_close(losses(), before)


def test_scales_are_variances_over_everything_valid():
    first, second = make_captures(10, 2), make_captures(11, 2)
    scales = estimate_scales(
        [(first, {"attention_mask": mask()}), (second, {"attention_mask": torch.ones(3, 7, dtype=torch.long)})]
    )
    valid = torch.cat([first.hidden_states[1][mask().bool()], second.hidden_states[1].flatten(0, 1)])
    assert scales.hidden_states[1] == pytest.approx(valid.var(correction=0).item(), rel=1e-9)
    values = [
        captures.attention_scores(1)[row, head, i, j].item()
        for captures, lengths in ((first, LENGTHS), (second, (7, 7, 7)))
        for row, length in enumerate(lengths)
        for head in range(2)
        for i in range(length)
        for j in range(length)
    ]
    expected = torch.tensor(values, dtype=torch.float64).var(correction=0).item()
    assert scales.attention_scores[1] == pytest.approx(expected, rel=1e-9)
    means = torch.stack(
        [
            captures.hidden_states[2][row, :length].mean(0)
            for captures, lengths in ((first, LENGTHS), (second, (7, 7, 7)))
            for row, length in enumerate(lengths)
        ]
    )
    spread = [means[:, channel].var(correction=0).item() for channel in range(6)]
    assert scales.pooled_states[2] == pytest.approx(sum(spread) / 6, rel=1e-9)
    assert [len(values) for values in dataclasses.astuple(scales)] == [3, 3, 2]
