"""Mutation, crossover and repair: neighbours and mixtures that stay in the space."""

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Flops, Parameters
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.space.expressions import GATED, PLAIN
from efficientbert.search.space.sizes import ATTENTION, LAYER_DIMENSIONS, Choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.space.variation import DIMENSIONS


BASE = EfficientBertConfig(
    vocab_size=60,
    embedding_size=8,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    max_position_embeddings=32,
)
COSTS = {cost.metric: cost for cost in (Parameters(BASE), Flops(BASE, 16))}
FREE = Choices(depths=(2, 3, 4), hidden_sizes=(16, 24), head_counts=(2, 4), head_dims=(6, 8), embedding_sizes=(5, 8))


def make_space(*budgets, choices=None, **kwargs) -> SearchSpace:
    return SearchSpace(BASE, choices or Choices(), budgets, COSTS, **kwargs)


TIGHT = make_space(Budget("parameters", 23_000, 24_000), Budget("flops", maximum=760_000))
FREE_TIGHT = make_space(Budget("parameters", 17_000, 18_500), choices=FREE)
ATTENTIVE = make_space(Budget("parameters", 14_000, 15_000), choices=Choices(head_counts=(0, 3, 4)))
WIDE = make_space(Budget("parameters", 23_000, 40_000), choices=Choices(base_width=40))


def differences(one, other):
    """How many layers differ, and in which dimensions the shapes do."""
    shape = {name for name in DIMENSIONS[1:] if getattr(one.shape, name) != getattr(other.shape, name)}
    shape |= {"num_layers"} if len(one.layers) != len(other.layers) else set()
    return sum(a != b for a, b in zip(one.layers, other.layers)), shape


@pytest.mark.parametrize("space", [TIGHT, FREE_TIGHT, ATTENTIVE, WIDE, make_space(choices=FREE)])
def test_mutants_are_new_functions_of_the_space(space):
    rng = random.Random(1)
    architecture = space.sample(rng)
    for _ in range(60):
        mutant = space.mutate(architecture, rng)
        assert space.contains(mutant) and space.key(mutant) != space.key(architecture)
        assert len(differences(architecture, mutant)[1]) <= 1
        architecture = mutant


def test_without_budgets_one_thing_changes_and_every_kind_of_change_occurs():
    space, rng = make_space(choices=FREE), random.Random(2)
    kinds: Counter = Counter()
    for _ in range(400):
        architecture = space.sample(rng)
        mutant = space.mutate(architecture, rng)
        layers, shape = differences(architecture, mutant)
        if shape:
            kinds.update(shape)
            continue
        assert layers == 1
        (changed,) = ((a, b) for a, b in zip(architecture.layers, mutant.layers) if a != b)
        names = {one.sizes for one in LAYER_DIMENSIONS if one.read(changed[0]) != one.read(changed[1])}
        names |= {"expression"} if changed[0].expression != changed[1].expression else set()
        assert len(names) == 1
        kinds.update(names)
    assert kinds.keys() == {"expression", *(one.sizes for one in LAYER_DIMENSIONS), *DIMENSIONS}
    assert min(kinds.values()) > 25


def test_layers_lose_their_attention_and_regain_it_but_never_all_of_them():
    space, rng = make_space(choices=Choices(depths=(2,), head_counts=(0, 3))), random.Random(2)
    found, seen = space.sample(rng), set()
    for _ in range(150):
        found = space.mutate(found, rng)
        assert space.contains(found)
        seen.add(tuple(layer.heads for layer in found.layers))
    assert seen == {(0, 3), (3, 0), (3, 3)}
    one, other = (
        replace(found, layers=(layer, other))
        for layer, other in itertools.permutations((LayerChoice(PLAIN, 1, 24, 0, 0), LayerChoice(PLAIN, 1, 24, 3, 8)))
    )
    assert all(space.crossover(one, other, rng).attentive for _ in range(20))


def test_a_space_of_one_architecture_has_no_neighbour():
    only = Choices(stacks=(2,), divisors=(2,))
    space = make_space(choices=only, expressions=(PLAIN, PLAIN, GATED))
    architecture = space.sample(random.Random(0))
    assert space.variation.mutate(architecture, random.Random(1)) is None
    assert space.mutate(architecture, random.Random(1)) == architecture


@pytest.mark.parametrize("space", [TIGHT, FREE_TIGHT, ATTENTIVE, WIDE])
def test_crossovers_are_of_the_space(space):
    rng = random.Random(3)
    for _ in range(40):
        one, other = space.sample(rng), space.sample(rng)
        child = space.crossover(one, other, rng)
        assert space.contains(child)
        assert (len(child.layers), child.shape) in [(len(p.layers), p.shape) for p in (one, other)]


def test_without_budgets_every_layer_comes_from_either_parent():
    space, rng = make_space(choices=FREE), random.Random(4)
    shape = Shape(24, 8)
    one = Architecture(shape, tuple(LayerChoice(PLAIN, stack, 24, 4, 6) for stack in (1, 2)))
    other = Architecture(shape, tuple(LayerChoice(GATED, stack, 12, 2, 8) for stack in (1, 2, 3, 4)))
    seen = Counter()
    for _ in range(300):
        child = space.crossover(one, other, rng)
        _, second, _, fourth = other.layers
        same_part = {2: [one.layers, (second, fourth)], 4: [one.layers[:1] * 2 + one.layers[1:] * 2, other.layers]}
        parents = same_part[len(child.layers)]
        assert all(layer in pair for layer, pair in zip(child.layers, zip(*parents)))
        seen.update((len(child.layers), parents[0][i] == layer) for i, layer in enumerate(child.layers))
    assert seen.keys() == {(2, False), (2, True), (4, False), (4, True)}
    assert all(0.4 < seen[depth, True] / (seen[depth, True] + seen[depth, False]) < 0.6 for depth in (2, 4))


def test_widths_keep_their_rank_at_another_hidden_size():
    space = make_space(choices=Choices(hidden_sizes=(24, 36)))
    layers = tuple(LayerChoice(PLAIN, 1, width, 3, 8) for width in (24, 12, 8, 6))
    found = space.variation.fit(Architecture(Shape(24, 8), layers), Shape(36, 8))
    assert found.layers == tuple(LayerChoice(PLAIN, 1, width, 3, 12) for width in (36, 18, 12, 9))


def test_heads_keep_their_rank_at_another_hidden_size():
    space = make_space(choices=Choices(hidden_sizes=(24, 20), head_counts=(0, 2, 3)))  # 3 do not divide 20
    layers = tuple(LayerChoice(PLAIN, 1, 24, *attention) for attention in ((0, 0), (2, 12), (3, 8)))
    narrow = space.variation.fit(Architecture(Shape(24, 8), layers), Shape(20, 8))
    assert [(layer.heads, layer.head_dim) for layer in narrow.layers] == [(0, 0), (0, 0), (2, 10)]
    back = space.variation.fit(narrow, Shape(24, 8))
    assert [(layer.heads, layer.head_dim) for layer in back.layers] == [(0, 0), (0, 0), (2, 12)]


def test_another_depth_leaves_out_or_repeats_layers_in_their_order():
    space, rng = make_space(choices=Choices(depths=(2, 5))), random.Random(5)
    two = Architecture(Shape(24, 8), (LayerChoice(PLAIN, 1, 24, 3, 8), LayerChoice(GATED, 2, 12, 3, 8)))
    for _ in range(20):
        five = space.variation.change_shape(two, "num_layers", rng)
        count = five.layers.count(two.layers[0])
        assert five.layers == two.layers[:1] * count + two.layers[1:] * (5 - count) and 0 < count < 5
        back = space.variation.change_shape(five, "num_layers", rng)
        assert len(back.layers) == 2 and set(back.layers) <= set(two.layers)


def test_heads_without_a_neighbour_at_a_hidden_size_stay():
    space, rng = make_space(choices=Choices(hidden_sizes=(24, 30), head_counts=(3, 4))), random.Random(5)
    thirty = Architecture(Shape(30, 8), (LayerChoice(PLAIN, 1, 30, 3, 10),) * 3)  # four heads do not divide it
    assert space.variation.change_size(thirty, ATTENTION, rng) is None
    found = space.variation.change_shape(thirty, "hidden_size", rng)
    assert found == Architecture(Shape(24, 8), (LayerChoice(PLAIN, 1, 24, 3, 8),) * 3)
    changed = space.variation.change_size(found, ATTENTION, rng)
    assert Counter((layer.heads, layer.head_dim) for layer in changed.layers) == {(3, 8): 2, (4, 6): 1}


def test_repair_goes_the_shortest_way_it_sees_and_leaves_what_fits():
    architecture = Architecture(Shape(24, 8), (LayerChoice(PLAIN, 4, 24, 3, 8),) * 3)
    space, rng = make_space(Budget("parameters", 20_000, 22_000)), random.Random(6)
    found = space.variation.repair(architecture, rng)
    assert space.contains(found) and all(layer.expression == PLAIN for layer in found.layers)
    assert space.variation.repair(found, rng) is found
    impossible = make_space(Budget("parameters", maximum=1000))
    assert impossible.variation.repair(architecture, rng) is None
    narrow_only = LayerChoice("linear2(relu(mul(linear1(x), x)))", 1, 40, 3, 8)
    assert WIDE.variation.repair(Architecture(architecture.shape, (narrow_only,) * 3), rng) is None
    fixed = space.fix_sizes(architecture)
    assert fixed.variation.repair(architecture, rng) is None


def test_excess_is_relative_to_the_nearer_end():
    budgets = (Budget("parameters", 100, 200), Budget("flops", maximum=10))
    space = make_space(*budgets)
    assert space.variation.measure_excess([150, 10]) == 0
    assert space.variation.measure_excess([300, 5]) == pytest.approx(0.5)
    assert space.variation.measure_excess([75, 15]) == pytest.approx(0.25 + 0.5)
    assert make_space(Budget("parameters", maximum=0)).variation.measure_excess([1]) == float("inf")


@pytest.mark.parametrize("space", [TIGHT, FREE_TIGHT])
def test_variation_depends_on_its_generator_alone(space):
    one, other = (space.sample(random.Random(seed)) for seed in (1, 2))
    for _ in range(2):
        assert space.mutate(one, random.Random(3)) == space.mutate(one, random.Random(3))
        assert space.crossover(one, other, random.Random(3)) == space.crossover(one, other, random.Random(3))
