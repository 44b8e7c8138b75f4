"""The search space: every architecture valid and within all budgets, drawn as often as is said."""

import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import parse, uses_gate
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Cost, Flops, Parameters, count_parameters
from efficientbert.search.costs.parts import embeddings_part, layer_parts
from efficientbert.search.space import space as module
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape, Sizes
from efficientbert.search.space.expressions import GATED, PLAIN, expression_pool
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.errors import InputError


BASE = EfficientBertConfig(
    vocab_size=60,
    embedding_size=8,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    max_position_embeddings=32,
)
FREE = Choices(depths=(2, 3, 4), hidden_sizes=(16, 24), head_counts=(2, 4), head_dims=(6, 8), embedding_sizes=(5, 8))
ELU = "elu(linear2(gelu(linear1(x))))"


class Operators(Cost):
    """A cost of the kind that is measured: every expression has its own, in fractions."""

    metric = "latency"

    def price(self, parts):
        return [0.1 for _ in parts]  # the embeddings alone are asked for

    def layer(self, shape, layer):
        attention = 0.01 * shape.hidden_size if layer.heads else 0
        networks = layer.stack * (0.1 + 0.003 * layer.intermediate_size + 0.01 * len(layer.expression))
        return attention + networks


COSTS = {cost.metric: cost for cost in (Parameters(BASE), Flops(BASE, 16), Operators())}


def make_space(*budgets, choices=None, **kwargs) -> SearchSpace:
    return SearchSpace(BASE, choices or Choices(), budgets, COSTS, **kwargs)


def sizes_of(architecture: Architecture) -> list[Sizes]:
    return [layer.sizes for layer in architecture.layers]


SPACES = {
    "parameters": make_space(Budget("parameters", 23_000, 25_000)),
    "no gate": make_space(Budget("parameters", 23_000, 25_000), choices=Choices(gate=False)),
    "flops": make_space(Budget("flops", 500_000, 600_000)),
    "all three": make_space(Budget("parameters", 16_000), Budget("flops", 0, 560_000), Budget("latency", 3, 5)),
    "free": make_space(Budget("parameters", 15_000, 25_000), Budget("flops", maximum=600_000), choices=FREE),
    "wide": make_space(Budget("parameters", 23_000, 40_000), choices=Choices(base_width=40, width_multiple=8)),
    "without attention": make_space(Budget("parameters", 14_000, 24_000), choices=Choices(head_counts=(0, 3, 4))),
    "one of each": make_space(choices=Choices(stacks=(2,), divisors=(3,))),
}


@pytest.mark.parametrize("name", SPACES)
def test_draws_are_valid_within_budgets_and_varied(name):
    space, rng = SPACES[name], random.Random(0)
    drawn = [space.sample(rng) for _ in range(60)]
    for architecture in drawn:
        config = architecture.to_config(BASE)
        config.validate()
        assert Architecture.from_config(config) == architecture
        assert all(budget.contains(COSTS[budget.metric](architecture)) for budget in space.budgets)
        assert space.contains(architecture)
        assert space.choices.gate or not any(uses_gate(parse(layer.expression)) for layer in architecture.layers)
    assert len(set(drawn)) > 55
    assert len({layer.expression for architecture in drawn for layer in architecture.layers}) > 40
    assert {(len(a.layers), a.shape) for a in drawn} <= set(space.shapes)


def test_a_budget_is_kept_by_the_model_that_is_built():
    space, rng = SPACES["free"], random.Random(1)
    for _ in range(8):
        assert 15_000 <= EfficientBertModel(space.sample(rng).to_config(BASE)).num_parameters() <= 25_000


def test_frequencies_are_those_of_drawing_anew_until_the_budgets_are_met(monkeypatch):
    pool = {PLAIN: 0.5, GATED: 0.3, ELU: 0.2}
    monkeypatch.setattr(module, "expression_pool", lambda gate, wide: pool)
    choices = Choices(depths=(1, 2), hidden_sizes=(12, 24), stacks=(1, 3), divisors=(1, 3), embedding_sizes=(8,))
    space = make_space(Budget("parameters", 6_000, 9_000), Budget("latency", maximum=1.9), choices=choices)
    expected: dict[Architecture, float] = {}
    for depth, hidden in itertools.product((1, 2), (12, 24)):
        shape, within = Shape(hidden, 8), {}
        options = list(itertools.product(pool, (1, 3), (hidden, hidden // 3)))
        for layers in itertools.product(options, repeat=depth):
            architecture = Architecture(shape, tuple(LayerChoice(*layer, 3, hidden // 3) for layer in layers))
            parameters = count_parameters(architecture.to_config(BASE))
            if 6_000 <= parameters <= 9_000 and COSTS["latency"](architecture) <= 1.9:
                within[architecture] = math.prod(pool[layer[0]] for layer in layers)
        expected |= {architecture: weight / sum(within.values()) for architecture, weight in within.items()}
    shapes = len({(len(architecture.layers), architecture.shape) for architecture in expected})
    assert shapes == 2 and len(expected) > 20  # both budgets and both expressions matter
    count, rng = 20_000, random.Random(0)
    seen = Counter(space.sample(rng) for _ in range(count))
    assert seen.keys() == expected.keys()
    for architecture, weight in expected.items():
        probability = weight / shapes
        assert abs(seen[architecture] - count * probability) < 4.5 * math.sqrt(count * probability * (1 - probability))


def test_every_layer_has_heads_of_its_own_and_one_at_least_has_some(monkeypatch):
    monkeypatch.setattr(module, "expression_pool", lambda gate, wide: {PLAIN: 1.0})
    choices = Choices(depths=(2,), head_counts=(0, 3), head_dims=(4, 8), stacks=(1,), divisors=(1,))
    space, rng = make_space(choices=choices), random.Random(0)
    pairs = [(0, 0), (3, 4), (3, 8)]
    expected = {both for both in itertools.product(pairs, repeat=2) if any(heads for heads, _ in both)}
    drawn = [space.sample(rng) for _ in range(4_000)]
    seen = Counter(tuple((layer.heads, layer.head_dim) for layer in architecture.layers) for architecture in drawn)
    assert seen.keys() == expected and min(seen.values()) > 400 and max(seen.values()) < 600
    none = Architecture(Shape(24, 8), (LayerChoice(PLAIN, 1, 24, 0, 0),) * 2)
    one = replace(none, layers=(none.layers[0], LayerChoice(PLAIN, 1, 24, 3, 4)))
    assert space.contains(one) and not space.contains(none)
    only_none = make_space(Budget("parameters", maximum=COSTS["parameters"](none)), choices=choices)
    assert not only_none.possible
    with pytest.raises(InputError, match="no architecture has parameters"):
        only_none.sample(rng)


def test_the_largest_has_the_most_heads_and_the_widest_in_every_layer():
    space = make_space(choices=Choices(hidden_sizes=(24, 36), head_counts=(0, 2, 4)))
    assert [(layer.heads, layer.head_dim) for layer in space.largest().layers] == [(4, 18)] * 3
    mixed = space.sample(random.Random(0))
    assert sizes_of(space.fix_sizes(mixed).largest()) == sizes_of(mixed)


@pytest.mark.parametrize("expressions", [None, (GATED, PLAIN)])
def test_the_parts_of_a_space_are_those_of_its_architectures(expressions):
    choices = Choices(depths=(1, 2), hidden_sizes=(24, 36), head_counts=(0, 3), divisors=(1, 2))
    space, rng = make_space(choices=choices, expressions=expressions), random.Random(0)
    listed, found = space.parts(), set()
    for _ in range(400):
        architecture = space.sample(rng)
        found.add(embeddings_part(architecture.shape))
        found |= {part for layer in architecture.layers for part in layer_parts(architecture.shape.hidden_size, layer)}
    assert len(set(listed)) == len(listed) and found <= set(listed)
    assert expressions is None or found == set(listed)


def test_a_draw_depends_on_its_generator_alone():
    space = make_space(*SPACES["free"].budgets, choices=FREE)
    expected = [space.sample(random.Random(f"{seed}")) for seed in range(20)]
    for seed in reversed(range(20)):
        assert space.sample(random.Random(f"{seed}")) == expected[seed]
    fresh = make_space(*SPACES["free"].budgets, choices=FREE)
    assert fresh.sample(random.Random("7")) == expected[7] != expected[8]


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1000), (10**9, 10**10), (23_001, 23_001.5)])
def test_an_impossible_budget_is_named_with_what_is_possible(minimum, maximum):
    space = make_space(Budget("parameters", minimum, maximum))
    largest = EfficientBertModel(space.largest().to_config(BASE)).num_parameters()
    least = Architecture(space.largest().shape, (LayerChoice(PLAIN, 1, 6, 3, 8),) * 3)
    with pytest.raises(InputError) as error:
        space.sample(random.Random(0))
    assert str(error.value) == (
        f"budget: no architecture has parameters between {minimum:,.6g} and {maximum:,.6g}; those of this space range "
        f"from {COSTS['parameters'](least):,.6g} to {largest:,.6g}"
    )


def test_budgets_that_exclude_each_other_are_all_named():
    space = make_space(Budget("parameters", 30_000, 40_000), Budget("flops", maximum=450_000), choices=FREE)
    with pytest.raises(InputError) as error:
        space.sample(random.Random(0))
    assert "parameters between 30,000 and 40,000 and flops between 0 and 450,000; those of" in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).count(" from ") == 2


def test_shapes_that_cannot_meet_the_budget_are_left_out():
    space = make_space(Budget("parameters", maximum=6000), choices=FREE)
    drawn = [space.sample(random.Random(seed)) for seed in range(300)]
    layer = LayerChoice(PLAIN, 1, 1, 2, 6)
    possible = {
        (depth, shape)
        for depth, shape in space.shapes
        if COSTS["parameters"](
            Architecture(shape, (replace(layer, intermediate_size=shape.hidden_size // 4),) * depth)
        )
        <= 6000
    }
    assert {(len(a.layers), a.shape) for a in drawn} == possible and 1 < len(possible) < len(space.shapes)


def test_a_space_without_a_shape_or_a_cost_is_refused():
    with pytest.raises(InputError, match="no hidden size is a multiple of a number of heads above 0; give head_dims"):
        make_space(choices=Choices(head_counts=(5, 7)))
    with pytest.raises(InputError, match="no hidden size is a multiple of a number of heads above 0"):
        make_space(choices=Choices(head_counts=(0, 5)))
    with pytest.raises(InputError, match="nothing measures latency; known are parameters"):
        SearchSpace(BASE, Choices(), (Budget("latency", 0, 9),), {"parameters": Parameters(BASE)})


@pytest.mark.parametrize("name", SPACES)
def test_the_largest_holds_every_architecture(name):
    space, rng = SPACES[name], random.Random(3)
    largest = space.largest()
    shapes = {n: p.shape for n, p in EfficientBertModel(largest.to_config(BASE)).named_parameters()}
    for _ in range(10):
        model = EfficientBertModel(space.sample(rng).to_config(BASE))
        for parameter_name, parameter in model.named_parameters():
            assert all(small <= large for small, large in zip(parameter.shape, shapes[parameter_name], strict=True))


@pytest.mark.parametrize(
    "name, texts", [("all three", [GATED, PLAIN]), ("no gate", [PLAIN]), ("free", [GATED, PLAIN])]
)
def test_familiar_networks_are_plain_and_gated_ones_of_the_space(name, texts):
    space = SPACES[name]
    found = space.familiar(0)
    expressions = [{layer.expression for layer in architecture.layers} for architecture in found]
    assert expressions == [{text} for text in texts]
    assert all(space.contains(architecture) for architecture in found)
    assert found == space.familiar(0)


def test_familiar_networks_are_alike_and_few_in_a_row():
    space = make_space(Budget("parameters", 15_000, 21_000), choices=Choices(depths=(2, 3, 4)))
    for text, architecture in zip((GATED, PLAIN), space.familiar(0), strict=True):
        alike = [
            Architecture(Shape(24, 8), (LayerChoice(text, stack, width, 3, 8),) * 3)
            for stack in (1, 2, 3, 4)
            for width in (24, 12, 8, 6)
        ]
        assert architecture == next(other for other in alike if 15_000 <= COSTS["parameters"](other) <= 21_000)


def test_familiar_networks_have_the_nearest_shape_that_is_affordable():
    """The base's 3 layers of hidden size 24 cost too much; so do 2, which would be next."""
    choices = Choices(depths=(1, 2, 3), hidden_sizes=(12, 24), head_dims=(8,), stacks=(1,), divisors=(1,))
    costs = {
        (depth, hidden): COSTS["parameters"](
            Architecture(Shape(hidden, 8), (LayerChoice(GATED, 1, hidden, 3, 8),) * depth)
        )
        for depth in (1, 2, 3)
        for hidden in (12, 24)
    }
    nearest = {(3, 24): 0, (2, 24): 0.41, (3, 12): 0.69, (2, 12): 1.10}
    for shape in sorted(nearest, key=nearest.get)[1:]:
        space = make_space(Budget("parameters", costs[shape] - 1, costs[shape] + 1), choices=choices)
        found = space.familiar(0)[0]
        assert (len(found.layers), found.shape.hidden_size) == shape
    above = make_space(Budget("parameters", 0, costs[3, 24] - 1), choices=choices).familiar(0)[0]
    assert (len(above.layers), above.shape.hidden_size) == (2, 24)


def test_where_none_alike_are_affordable_the_seed_decides_the_sizes():
    space = make_space(Budget("parameters", 18_000, 20_000))
    found = {space.familiar(seed) for seed in range(5)}
    assert len(found) > 1 and all(len(set(plain.layers)) > 1 for _, plain in found)


def test_familiar_networks_that_no_budget_allows_are_left_out():
    most = Architecture(Architecture.from_config(BASE).shape, (LayerChoice(PLAIN, 4, 24, 3, 8),) * 3)
    space = make_space(Budget("parameters", COSTS["parameters"](most) + 1))
    assert [architecture.layers[0].expression for architecture in space.familiar(0)] == [GATED]


def test_stage_two_leaves_the_expressions_free():
    space = SPACES["free"]
    best = space.sample(random.Random(4))
    stage = space.fix_sizes(best)
    assert stage.contains(best) and not stage.contains(space.sample(random.Random(5)))
    one, rng = best, random.Random(6)
    for candidate in [*(stage.sample(rng) for _ in range(20)), *(one := stage.mutate(one, rng) for _ in range(20))]:
        assert stage.contains(candidate) and space.contains(candidate) and candidate.shape == best.shape
        assert sizes_of(candidate) == sizes_of(best)
    assert sizes_of(stage.largest()) == sizes_of(best)
    assert len({layer.heads for layer in best.layers}) > 1
    assert len({stage.sample(rng) for _ in range(20)}) > 15


def test_stage_three_leaves_stacks_widths_and_shapes_free():
    space = SPACES["free"]
    best = next(a for a in (space.sample(random.Random(seed)) for seed in range(99)) if len(a.layers) == 2)
    stage, rng = space.fix_expressions(best), random.Random(6)
    first, second = (layer.expression for layer in best.layers)
    spread = {2: [first, second], 3: [first, first, second], 4: [first, first, second, second]}
    assert stage.contains(best)
    candidates = [stage.sample(rng) for _ in range(40)]
    candidates += [stage.mutate(candidate, rng) for candidate in candidates]
    candidates += [stage.crossover(*rng.sample(candidates, 2), rng) for _ in range(40)]
    for candidate in candidates:
        assert stage.contains(candidate)
        assert [layer.expression for layer in candidate.layers] == spread[len(candidate.layers)]
    assert {len(candidate.layers) for candidate in candidates} == {2, 3, 4}
    assert len({candidate.shape for candidate in candidates}) > 3


def test_what_is_not_of_the_space_is_not_contained():
    space = make_space(Budget("parameters", maximum=20_000), choices=Choices(gate=False))
    shape = Shape(24, 8)

    def contains(*layers, shape=shape):
        return space.contains(Architecture(shape, layers or (LayerChoice(PLAIN, 1, 24, 3, 8),) * 3))

    layer = LayerChoice(PLAIN, 1, 24, 3, 8)
    assert contains()
    assert not contains(layer, layer)
    assert not contains(shape=Shape(24, 7))
    assert not contains(layer, layer, replace(layer, heads=4, head_dim=6))
    assert not contains(layer, layer, replace(layer, head_dim=6))
    assert not contains(layer, layer, LayerChoice(PLAIN, 1, 13, 3, 8))
    assert not contains(layer, layer, LayerChoice(PLAIN, 5, 24, 3, 8))
    assert not contains(layer, layer, LayerChoice(GATED, 1, 24, 3, 8))
    assert not contains(
        layer, layer, LayerChoice("linear2(identity(gelu(linear1(x))))", 1, 24, 3, 8)
    )  # not as printed
    assert not contains(layer, layer, LayerChoice("gelu(linear1(x))", 1, 24, 3, 8))
    assert not contains(*[LayerChoice(PLAIN, 4, 24, 3, 8)] * 3)  # above the budget
    both = make_space(choices=Choices(base_width=48, divisors=(1, 4)))
    cropped = "linear2(relu(mul(linear1(x), x)))"  # to the hidden size of 24, where m is above it
    for width, valid in ((12, True), (48, False)):
        assert both.contains(Architecture(shape, (LayerChoice(cropped, 1, width, 3, 8),) * 3)) == valid


def test_plain_shape_is_the_largest_that_all_budgets_allow():
    space = make_space(Budget("parameters", 15_000, 24_000), Budget("flops", maximum=600_000), choices=FREE)
    found = space.plain()
    width = found.layers[0].intermediate_size
    assert found == Architecture(Shape(24, 8), (LayerChoice(PLAIN, 1, width, 3, 8),) * 3)  # the base's
    wider = Architecture(found.shape, (LayerChoice(PLAIN, 1, width + 1, 3, 8),) * 3)
    for cost, ceiling in (("parameters", 24_000), ("flops", 600_000)):
        assert COSTS[cost](found) <= ceiling
    assert COSTS["flops"](wider) > 600_000 or COSTS["parameters"](wider) > 24_000


def test_plain_shape_has_friendly_widths():
    choices = Choices(width_multiple=16)
    width = make_space(Budget("parameters", maximum=24_000), choices=choices).plain().layers[0].intermediate_size
    free = make_space(Budget("parameters", maximum=24_000)).plain().layers[0].intermediate_size
    assert width == free // 16 * 16


def test_a_plain_shape_that_no_budget_allows_is_refused():
    with pytest.raises(InputError, match="no architecture of the plain shape has parameters between 0 and 1,000; at"):
        make_space(Budget("parameters", maximum=1000)).plain()


def test_a_key_is_that_of_the_function():
    space, shape = SPACES["parameters"], Shape(24, 8)

    def key(*layers, shape=shape):
        return space.key(Architecture(shape, tuple(LayerChoice(*layer) for layer in layers)))

    layer = ("linear2(max(sigmoid(linear1(x)), x))", 2, 12, 3, 8)
    assert key(layer, layer) == key(layer, ("linear2(relu(max(x, sigmoid(linear1(x)))))", *layer[1:]))
    different = [
        key(layer, layer),
        key(layer),
        key(layer, layer, shape=replace(shape, embedding_size=9)),
        key(layer, (PLAIN, *layer[1:])),
        key((PLAIN, *layer[1:]), layer),
        key(layer, (layer[0], 1, 12, 3, 8)),
        key(layer, (layer[0], 2, 8, 3, 8)),
        key(layer, (layer[0], 2, 12, 4, 8)),
        key(layer, (layer[0], 2, 12, 3, 6)),
        key(layer, (layer[0], 2, 12, 0, 0)),
        key((layer[0], 2, 12, 0, 0), layer),
    ]
    assert len(set(different)) == len(different)


def test_the_encoding_is_what_its_columns_say():
    space = SPACES["free"]
    gated = LayerChoice("tanh(linear2(mul(gelu(linear1(x)), gelu(gate(x)))))", 3, 12, 2, 8)
    architecture = Architecture(Shape(24, 5), (LayerChoice(PLAIN, 1, 8, 4, 6), gated))
    vector = space.encode(architecture)
    assert vector.dtype == np.float64 and len(set(space.columns)) == len(space.columns) == len(vector)
    row = dict(zip(space.columns, vector.tolist()))
    expected = {"num_layers": 2, "hidden_size": 24, "embedding_size": 5}
    expected |= {name: cost(architecture) for name, cost in COSTS.items()}
    expected |= {"layer 0 heads": 4, "layer 0 head_dim": 6, "layer 1 heads": 2, "layer 1 head_dim": 8}
    expected |= {"layer 0 stack": 1, "layer 0 intermediate_size": 8, "layer 0 weights": 16, "layer 0 gelu": 1}
    expected |= {"layer 1 stack": 3, "layer 1 intermediate_size": 12, "layer 1 weights": 108, "layer 1 gate": 1}
    expected |= {"layer 1 tanh": 1, "layer 1 mul": 1, "layer 1 gelu": 2}
    assert {name: value for name, value in row.items() if value} == expected
    for seed in range(20):
        assert space.encode(space.sample(random.Random(seed))).shape == vector.shape


def test_expressions_are_drawn_from_the_pool_of_their_width():
    space = make_space(choices=Choices(base_width=48, divisors=(1, 4)))  # 48 above and 12 below the hidden size of 24
    seen = {True: set(), False: set()}
    for seed in range(150):
        for layer in space.sample(random.Random(seed)).layers:
            seen[layer.intermediate_size > 24].add(layer.expression)
    for wide, texts in seen.items():
        assert texts <= expression_pool(True, wide).keys() and len(texts) > 50


def test_at_a_smaller_depth_expressions_are_those_of_the_layers_whose_weights_a_slice_takes():
    space = SPACES["free"]
    best = next(
        a
        for a in (space.sample(random.Random(seed)) for seed in range(999))
        if len(a.layers) == 4 and len({layer.expression for layer in a.layers}) == 4
    )
    stage, rng = space.fix_expressions(best), random.Random(3)
    _, second, _, fourth = (layer.expression for layer in best.layers)
    shallow = next(a for a in iter(lambda: stage.sample(rng), None) if len(a.layers) == 2)
    assert [layer.expression for layer in shallow.layers] == [second, fourth]
