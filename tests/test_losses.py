"""Distillation losses against slow, obvious float64 versions."""

import math

import pytest
import torch

from efficientbert.train.capture import Captures
from efficientbert.train.losses import (
    attention_score_loss,
    count_valid,
    distillation_terms,
    estimate_scales,
    hidden_state_loss,
)


LENGTHS = (5, 3, 7)


def make_captures(seed: int, layers: int, width: int = 6, heads: int = 2, head_dim: int = 4) -> Captures:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    states = tuple(draw(3, 7, width) for _ in range(layers + 1))
    return Captures(states, *(tuple(draw(3, heads, 7, head_dim) for _ in range(layers)) for _ in range(3)))


def mask() -> torch.Tensor:
    return torch.tensor([[1] * length + [0] * (7 - length) for length in LENGTHS])


def test_counts():
    counts = count_valid(mask())
    assert counts["tokens"] == sum(LENGTHS) and counts["pairs"] == sum(length**2 for length in LENGTHS)


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
    loss = attention_score_loss(*both, mask()[:, :, None] * mask()[:, None, :], pairs)
    assert loss.item() == pytest.approx(total / pairs, rel=1e-5)


def test_padding_never_counts():
    student, teacher = make_captures(5, 1), make_captures(6, 1)
    counts = count_valid(mask())
    before = distillation_terms(student, teacher, (0,), mask(), counts)
    for tensor in (*student.hidden_states, *teacher.hidden_states):
        tensor[~mask().bool()] = 1e3
    for tensor in (*student.queries, *teacher.keys):
        tensor.transpose(1, 2)[~mask().bool()] = 1e3
    after = distillation_terms(student, teacher, (0,), mask(), counts)
    for kind, terms in before.items():
        torch.testing.assert_close(torch.stack(terms), torch.stack(after[kind]))


def test_terms_of_parts_add_up_to_the_whole():
    student, teacher = make_captures(7, 2), make_captures(8, 4)
    whole = distillation_terms(student, teacher, (1, 3), mask(), count_valid(mask()))

    def part(captures: Captures, rows: slice) -> Captures:
        return Captures(
            *(tuple(t[rows] for t in getattr(captures, n)) for n in ("hidden_states", "queries", "keys", "values"))
        )

    counts = count_valid(mask())
    parts = [
        distillation_terms(part(student, rows), part(teacher, rows), (1, 3), mask()[rows], counts)
        for rows in (slice(0, 1), slice(1, 3))
    ]
    for kind, terms in whole.items():
        added = [a + b for a, b in zip(*(p[kind] for p in parts))]
        torch.testing.assert_close(torch.stack(terms), torch.stack(added))


def test_the_layer_map_chooses_teacher_layers():
    teacher = make_captures(9, 4)
    chosen = (1, 3)
    student = Captures(
        (teacher.hidden_states[0], teacher.hidden_states[2], teacher.hidden_states[4]),
        *(tuple(getattr(teacher, name)[layer] for layer in chosen) for name in ("queries", "keys", "values")),
    )
    terms = distillation_terms(student, teacher, chosen, mask(), count_valid(mask()))
    assert all(term.item() == 0 for kind in terms.values() for term in kind)
    other = distillation_terms(student, teacher, (0, 3), mask(), count_valid(mask()))
    assert other["hidden_states"][1] > 0.1 and other["attention_scores"][0] > 0.1


def test_scales_are_variances_over_everything_valid():
    first, second = make_captures(10, 2), make_captures(11, 2)
    scales = estimate_scales([(first, mask()), (second, torch.ones(3, 7, dtype=torch.long))])
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
    assert len(scales.hidden_states) == 3 and len(scales.attention_scores) == 2
