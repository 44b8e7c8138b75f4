"""The search space: every draw valid and within its budget."""

import json
import math
import random

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import BINARY, UNARY, Input, Unary, check_widths, parse, uses_gate, walk
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.cost import Budget, count_flops, count_parameters
from efficientbert.search.space import (
    Architecture,
    SearchSpace,
    mutate_expression,
    random_expression,
    replace_part,
)
from efficientbert.train.script import InputError


SIZES = {"vocab_size": 60, "embedding_size": 8, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}


def make_space(minimum=0.0, maximum=math.inf, gate=True, metric="parameters") -> SearchSpace:
    cost = count_parameters if metric == "parameters" else lambda config: count_flops(config, 16)
    return SearchSpace(EfficientBertConfig(**SIZES), 24, gate, Budget(metric, minimum, maximum), cost)


def test_random_expressions_are_valid_canonical_and_varied():
    rng = random.Random(0)
    drawn = [random_expression(rng, gate=True) for _ in range(500)]
    assert all(str(parse(text)) == text for text in drawn)
    assert len(set(drawn)) > 150
    assert 50 < sum(uses_gate(parse(text)) for text in drawn) < 450
    assert not any(uses_gate(parse(random_expression(rng, gate=False))) for _ in range(200))


def test_mutations_reach_every_operator_and_stay_valid():
    rng = random.Random(1)
    text, names = "linear2(gelu(linear1(x)))", set()
    for _ in range(600):
        mutant = mutate_expression(text, rng, gate=True)
        assert mutant != text and str(parse(mutant)) == mutant
        text = mutant
        names |= {part.name for part in walk(parse(text)) if not isinstance(part, Input)}
    assert names == {*UNARY, *BINARY, "linear1", "linear2", "gate"}


def test_only_the_named_part_is_replaced():
    expression = parse("add(linear2(gelu(linear1(x))), gelu(x))")
    changed = replace_part(expression, expression.right, Input())
    assert str(changed) == "add(linear2(gelu(linear1(x))), x)"
    inner = expression.left.operand
    assert str(replace_part(expression, inner, Unary("tanh", inner.operand))) == (
        "add(linear2(tanh(linear1(x))), gelu(x))"
    )


def test_expressions_for_wide_networks_fit_them():
    rng = random.Random(5)
    for _ in range(200):
        expression = parse(random_expression(rng, gate=True, wide=True))
        check_widths(expression, 4, 9)
        check_widths(expression, 9, 4)


def test_draws_and_mutations_stay_within_an_exact_budget():
    space = make_space(23_000, 25_000)
    rng = random.Random(1)
    architecture = space.sample(rng)
    for _ in range(60):
        counted = EfficientBertModel(architecture.to_config(space.base)).num_parameters()
        assert 23_000 <= counted <= 25_000 and counted == space.cost_of(architecture)
        mutant = space.mutate(architecture, rng)
        assert mutant != architecture
        architecture = mutant if rng.random() < 0.8 else space.sample(rng)


def test_draws_stay_within_a_flops_budget():
    space = make_space(500_000, 600_000, metric="flops")
    rng = random.Random(2)
    assert all(500_000 <= space.cost_of(space.sample(rng)) <= 600_000 for _ in range(20))


def test_a_draw_depends_on_its_generator_alone():
    space = make_space()
    assert space.sample(random.Random("a")) == space.sample(random.Random("a"))
    assert space.sample(random.Random("a")) != space.sample(random.Random("b"))


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1000), (10**9, 10**10), (23_001, 23_001.5)])
def test_an_impossible_budget_is_named_with_what_is_possible(minimum, maximum):
    space = make_space(minimum, maximum)
    largest = EfficientBertModel(space.largest().to_config(space.base)).num_parameters()
    with pytest.raises(InputError, match=r"no architecture has parameters between .*range from") as error:
        space.sample(random.Random(0))
    assert f"{largest:,.6g}" in str(error.value)


def test_architectures_come_back_from_config_and_json():
    space = make_space()
    architecture = space.sample(random.Random(3))
    config = architecture.to_config(space.base)
    assert Architecture.from_config(config) == architecture
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    assert hash(Architecture.from_config(config)) == hash(architecture)
    assert config.hidden_size == 24 and config.embedding_size == 8


def test_plain_shape_is_the_largest_that_fits():
    space = make_space(0, 24_000)
    config = space.plain()
    assert config.ffn_expressions == ["linear2(gelu(linear1(x)))"] * 3 and config.ffn_stacks == [1] * 3
    width = config.intermediate_sizes[0]
    assert config.intermediate_sizes == [width] * 3
    wider = EfficientBertConfig(**(config.to_dict() | {"intermediate_sizes": width + 1}))
    assert count_parameters(config) <= 24_000 < count_parameters(wider)
    with pytest.raises(InputError, match="no architecture"):
        make_space(0, 1000).plain()
