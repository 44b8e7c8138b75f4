"""Initialisation from the teacher: exact where the student is large enough, near where it is not."""

import math

import pytest
import torch

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.train.distillation.held_out import nearness
from efficientbert.train.distillation.layer_map import uniform_layer_map
from efficientbert.train.distillation.losses import count_valid
from efficientbert.train.distillation.projection import fit_projection
from efficientbert.train.distillation.student import Student, fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.start.from_teacher import (
    _initialize_embeddings,
    initialize_from_teacher,
    principal_directions,
)


FAMILIES = ("bert", "roberta", "electra", "mpnet", "distilbert")


def make_sample(teacher: Teacher, rows: int = 48, length: int = 24, seed: int = 3) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 65, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[::3, 20:], mask[::3, 20:] = teacher.tokenizer.pad_token_id, 0
    return {"input_ids": ids, "attention_mask": mask}


def make_student(teacher: Teacher, **sizes) -> Student:
    fields = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 16, "head_dim": 8}
    torch.manual_seed(0)
    config = EfficientBertConfig(**(fields | sizes))
    return Student(EfficientBertModel(fit_config(config, teacher)), teacher.hidden_size).eval()


@torch.no_grad()
def total_terms(student: Student, teacher: Teacher, sample: dict[str, torch.Tensor]) -> tuple[float, float]:
    figures = nearness(student(**sample), teacher(sample), sample, count_valid(sample))
    return figures["hidden_state_mse"].item(), figures["attention_score_mse"].item()


def test_nothing_is_made_on_another_device_than_the_teachers(teacher_folder):
    teacher = Teacher.load(teacher_folder())
    student = make_student(teacher, hidden_size=18)
    sample = make_sample(teacher)
    # Any tensor made without a device would be one without data.
    with torch.device("meta"):
        initialize_from_teacher(student, teacher, (1, 3), sample)
        fit_projection(student, teacher, ((0, 0), (2, 4)), sample)
    assert all(parameter.isfinite().all() for parameter in student.parameters())


@pytest.mark.parametrize("states", [((0, 0), (1, 2), (2, 4)), ((2, 4),)])
@pytest.mark.parametrize("width", [18, 30])
@torch.no_grad()
def test_a_fitted_projection_is_the_least_squares_one(width, states, teacher_folder):
    teacher = Teacher.load(teacher_folder(), dtype=torch.float64)
    student = make_student(teacher, hidden_size=width).double()
    sample = make_sample(teacher)
    fit_projection(student, teacher, states, sample)
    valid = sample["attention_mask"].bool()
    inner = student.encoder(**sample, output_hidden_states=True).hidden_states
    mine = torch.cat([inner[index][valid] for index, _ in states])
    theirs = torch.cat([teacher(sample).hidden_states[index][valid] for _, index in states])
    source = torch.cat((mine, torch.ones(len(mine), 1, dtype=torch.float64)), dim=1)
    best = torch.linalg.lstsq(source, theirs, driver="gelsd").solution
    residual = (source @ best - theirs).square().sum()
    torch.testing.assert_close((student.projection(mine) - theirs).square().sum(), residual, rtol=1e-6, atol=0)


def test_principal_directions_are_those_of_the_singular_value_decomposition():
    states = torch.randn(200, 5, dtype=torch.float64) * torch.tensor([1.0, 4.0, 2.0, 0.5, 3.0])
    directions = principal_directions(states, 3)
    _, _, right = torch.linalg.svd(states)
    overlap = (directions.T @ right[:3].T).abs()
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), atol=1e-8, rtol=0)
    padded = principal_directions(states, 7)
    assert padded.shape == (5, 7) and padded[:, 5:].abs().sum() == 0


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "electra"])
def test_first_layer_is_exact_when_nothing_has_to_be_cut(family, teacher_folder):
    """As wide as the teacher, the whole token table, all heads: embedding and first scores are the teacher's."""
    teacher = Teacher.load(teacher_folder(family))
    student = make_student(teacher, embedding_size=24, num_hidden_layers=4)
    sample = make_sample(teacher)
    initialize_from_teacher(student, teacher, (0, 1, 2, 3), sample)
    mine, theirs = student(**sample), teacher(sample)
    valid = sample["attention_mask"].bool()
    # What is lost: the student's LayerNorm removes the mean over channels of a rotated basis.
    error = (mine.hidden_states[0] - theirs.hidden_states[0])[valid].square().mean()
    assert error < 0.15 * theirs.hidden_states[0][valid].var()
    projected = theirs.hidden_states[0] @ student.projection.weight
    query, key, _ = student.encoder.layers[0].attention.qkv(projected).chunk(3, -1)
    query, key = (t.unflatten(-1, (3, 8)).transpose(1, 2) for t in (query, key))
    scores = query @ key.transpose(-1, -2) / 8**0.5
    pairs = (valid[:, None, :, None] & valid[:, None, None, :]).expand_as(scores)
    torch.testing.assert_close(scores[pairs], theirs.attention_scores(0)[pairs], rtol=1e-3, atol=1e-3)


def test_value_output_product_is_exact_when_nothing_has_to_be_cut(teacher_folder):
    teacher = Teacher.load(teacher_folder("bert"))
    student = make_student(teacher, num_hidden_layers=4)
    sample = make_sample(teacher)
    initialize_from_teacher(student, teacher, (0, 1, 2, 3), sample)
    basis = student.projection.weight.double()
    states = torch.randn(10, 24, dtype=torch.float64)
    _, _, value, output = teacher.attention_linears(1)
    attention = student.encoder.layers[1].attention
    for head in range(3):
        rows = slice(8 * head, 8 * head + 8)
        theirs = (states @ value.weight.double()[rows].T + value.bias.double()[rows]) @ output.weight.double()[
            :, rows
        ].T
        weight, bias = attention.qkv.weight.double()[48:][rows], attention.qkv.bias.double()[48:][rows]
        mine = (states @ basis @ weight.T + bias) @ attention.output.weight.double()[:, rows].T @ basis.T
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 18, "head_dim": 6},
        {"hidden_size": 36, "head_dim": 12},
        {"hidden_size": 20, "head_dim": 5, "num_hidden_layers": 4, "embedding_size": 40},
        {"ffn_expressions": "linear2(mul(swish(linear1(x)), gate(x)))", "intermediate_sizes": 16, "ffn_stacks": 2},
    ],
    ids=["narrower", "wider", "deep", "gated"],
)
def test_every_teacher_and_shape_starts_nearer_than_random(family, sizes, teacher_folder):
    teacher = Teacher.load(teacher_folder(family))
    student, sample = make_student(teacher, **sizes), make_sample(teacher)
    random_hidden, _ = total_terms(student, teacher, sample)
    layer_map = uniform_layer_map(student.encoder.config.num_hidden_layers, teacher)
    initialize_from_teacher(student, teacher, layer_map, sample)
    hidden, scores = total_terms(student, teacher, sample)
    # A random teacher's later scores hang on what its random FFNs made of the input: no student has those.
    assert hidden < 0.5 * random_hidden and math.isfinite(scores)
    assert all(parameter.isfinite().all() for parameter in student.parameters())


@torch.no_grad()
def test_a_layer_without_attention_starts_near_all_the_same(teacher_folder):
    teacher = Teacher.load(teacher_folder())
    student = make_student(teacher, num_hidden_layers=4, attention_heads=[3, 0, 2, 5], head_dims=[8, 0, 4, 6])
    sample = make_sample(teacher)
    valid = sample["attention_mask"].bool()
    target = teacher(sample).hidden_states

    def errors() -> list[float]:
        mine = student(**sample).hidden_states
        return [(a - b)[valid].square().mean().item() for a, b in zip(mine, target, strict=True)]

    random_errors = errors()
    initialize_from_teacher(student, teacher, (0, 1, 2, 3), sample)
    assert all(parameter.isfinite().all() for parameter in student.parameters())
    assert all(one < 0.5 * other for one, other in zip(errors(), random_errors, strict=True))
    inner = student.encoder(**sample, output_hidden_states=True).hidden_states
    for mine, theirs in zip(inner, target, strict=True):  # the last norm of every layer has fitted its bias
        expected = (theirs[valid].double() @ student.projection.weight.double()).mean(0)
        torch.testing.assert_close(mine[valid].double().mean(0), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 7])
def test_unequal_head_counts(heads, teacher_folder):
    """More heads divide a teacher head's value-output product; together they still write what it wrote."""
    teacher = Teacher.load(teacher_folder("bert"))
    student = make_student(teacher, num_attention_heads=heads, head_dim=8, num_hidden_layers=4)
    sample = make_sample(teacher)
    initialize_from_teacher(student, teacher, (0, 1, 2, 3), sample)
    assert all(parameter.isfinite().all() for parameter in student.parameters())
    if heads % teacher.num_heads == 0:
        attention, basis = student.encoder.layers[0].attention, student.projection.weight.double()
        inner = heads * 8
        product = attention.output.weight.double() @ attention.qkv.weight.double()[2 * inner :]
        _, _, value, output = teacher.attention_linears(0)
        whole = basis.T @ output.weight.double() @ value.weight.double() @ basis
        torch.testing.assert_close(product, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [{"num_attention_heads": 2}, {"num_attention_heads": 6, "hidden_size": 36}])
def test_unequal_heads_start_nearer_on_other_text(family, sizes, teacher_folder):
    teacher = Teacher.load(teacher_folder(family))
    student, held_out = make_student(teacher, **sizes), make_sample(teacher, seed=4)

    @torch.no_grad()
    def error() -> float:
        mine, theirs = student(**held_out).hidden_states, teacher(held_out).hidden_states
        valid = held_out["attention_mask"].bool()
        return sum((one - other)[valid].square().mean().item() for one, other in zip(mine, theirs[::2], strict=True))

    random_error = error()
    initialize_from_teacher(student, teacher, (1, 3), make_sample(teacher))
    assert error() < 0.5 * random_error


@pytest.mark.parametrize(("family", "rows"), [("roberta", 2), ("mpnet", 2), ("bert", 0)])
def test_positions_begin_behind_the_offset(family, rows, teacher_folder):
    """Rows of the teacher's table in front of its first position decide nothing; the first position does."""

    @torch.no_grad()
    def positions(changed: int | None) -> torch.Tensor:
        teacher = Teacher.load(teacher_folder(family))
        student = make_student(teacher)
        if changed is not None:
            teacher.model.embeddings.position_embeddings.weight[changed] += 100.0
        basis = torch.eye(24, dtype=torch.float64)
        _initialize_embeddings(student, teacher, basis)
        return student.encoder.embeddings.position_embeddings.weight

    plain, table = positions(None), range(rows)
    assert len(plain) == 64
    assert all(torch.equal(positions(row), plain) for row in table)
    first = (positions(rows) != plain).any(-1)
    assert first[0] and not first[1:].any()


@pytest.mark.parametrize(
    ("family", "segments"), [("bert", 2), ("electra", 2), ("roberta", 1), ("mpnet", 1), ("distilbert", 1)]
)
def test_segments(family, segments, teacher_folder):
    teacher = Teacher.load(teacher_folder(family))
    student = make_student(teacher)
    initialize_from_teacher(student, teacher, (1, 3), make_sample(teacher))
    table = student.encoder.embeddings.token_type_embeddings.weight
    assert len(table) == segments
    assert bool(table.any()) == (family not in ("mpnet", "distilbert"))  # these have none
