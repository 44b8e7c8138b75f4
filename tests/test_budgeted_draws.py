"""Draws under budgets against enumeration: nothing possible is lost, nothing else drawn, frequencies as stated."""

import itertools
import math
import random
from collections import Counter

import pytest

from efficientbert.search.costs.budget import Budget
from efficientbert.search.space import budgeted_draws as module
from efficientbert.search.space.budgeted_draws import Draws, Options


ONE = Options("abcd", [1.0, 2.0, 3.0, 0.5], [(3, 10.0), (7, 4.5), (12, 9.0), (20, 1.25)])
OTHER = Options("xyz", [1.0, 1.0, 4.0], [(1, 2.0), (8, 2.5), (9, 30.0)])
POSITIONS = (ONE, OTHER, ONE)
FIXED = (100, 0.5)
BUDGETS = {
    "none": (),
    "loose": (Budget("parameters", 0, 1e6), Budget("latency", 0, 1e6)),
    "range": (Budget("parameters", 116, 124), Budget("latency")),
    "one value": (Budget("parameters", 122, 122), Budget("latency")),
    "ceiling": (Budget("parameters", maximum=112), Budget("latency")),
    "floor": (Budget("parameters", minimum=141), Budget("latency")),
    "both": (Budget("parameters", 115, 135), Budget("latency", 10, 20)),
    "both narrow": (Budget("parameters", 118, 119), Budget("latency", maximum=22)),
}


def cut(options, count):
    return Options(options.values, options.weights, [costs[:count] for costs in options.costs])


def make(budgets) -> Draws:
    count = len(budgets)
    made = {id(options): cut(options, count) for options in POSITIONS}
    return Draws([made[id(options)] for options in POSITIONS], FIXED[:count], budgets)


def enumerate_all(budgets) -> dict[tuple, float]:
    """Every combination within the budgets with its probability, the obvious way."""
    found = {}
    for picks in itertools.product(*(range(len(options.values)) for options in POSITIONS)):
        sums = [FIXED[k] + sum(o.costs[p][k] for o, p in zip(POSITIONS, picks)) for k in range(len(budgets))]
        if all(budget.minimum <= cost <= budget.maximum for budget, cost in zip(budgets, sums)):
            values = tuple(options.values[pick] for options, pick in zip(POSITIONS, picks))
            found[values] = math.prod(options.weights[pick] for options, pick in zip(POSITIONS, picks))
    total = sum(found.values())
    return {values: weight / total for values, weight in found.items()}


@pytest.mark.parametrize("cells", [module.CELLS, 9])
@pytest.mark.parametrize("name", BUDGETS)
def test_frequencies_are_those_of_enumeration(name, cells, monkeypatch):
    monkeypatch.setattr(module, "CELLS", cells)  # a coarse grid costs repetitions, and changes nothing else
    expected, draws, rng = enumerate_all(BUDGETS[name]), make(BUDGETS[name]), random.Random(0)
    assert draws.possible
    count = 6000
    seen = Counter(tuple(draws.draw(rng)) for _ in range(count))
    assert seen.keys() <= expected.keys()
    for values, probability in expected.items():
        deviation = math.sqrt(count * probability * (1 - probability))
        assert abs(seen[values] - count * probability) <= 4.5 * deviation + 1e-9


def test_what_is_not_accepted_is_drawn_anew():
    options = Options("ab", [1.0, 3.0], [(), ()])
    draws, rng = Draws([options] * 2, (), (), lambda values: "a" in values), random.Random(0)
    seen = Counter("".join(draws.draw(rng)) for _ in range(7000))  # 1 : 3 : 3 : 9 without the last
    assert seen.keys() == {"aa", "ab", "ba"} and 850 < seen["aa"] < 1150
    assert draws.possible and not Draws([options] * 2, (), (), lambda values: "c" in values).possible


def test_draws_are_seldom_repeated_where_the_budget_is_a_sliver_of_the_range():
    options = Options(
        range(16), [1.0] * 16, [(stack * width,) for stack in range(1, 5) for width in (45, 60, 90, 180)]
    )
    draws = Draws([options] * 12, (0,), (Budget("parameters", 1000, 1050),))  # the range is 540 to 8,640
    rng, attempts = random.Random(0), 500
    assert sum(draws._attempt(rng) is not None for _ in range(attempts)) > 0.7 * attempts


@pytest.mark.parametrize(
    "budgets",
    [
        (Budget("parameters", maximum=106), Budget("latency")),  # the least is 107
        (Budget("parameters", minimum=150), Budget("latency")),  # the greatest is 149
        (Budget("parameters", 107.2, 107.8), Budget("latency")),  # between two sums
        (Budget("parameters", maximum=112), Budget("latency", minimum=50)),  # each alone would do
    ],
)
def test_what_cannot_be_met_is_known(budgets):
    assert not enumerate_all(budgets)
    assert not make(budgets).possible


def test_a_position_without_options_is_impossible():
    assert not Draws([cut(ONE, 0), Options((), (), ())], (), ()).possible


def test_extremes_are_those_of_enumeration():
    sums = [[100 + sum(picks) for picks in itertools.product([3, 7, 12, 20], [1, 8, 9], [3, 7, 12, 20])]]
    sums += [[0.5 + sum(picks) for picks in itertools.product([10, 4.5, 9, 1.25], [2, 2.5, 30], [10, 4.5, 9, 1.25])]]
    draws = make(BUDGETS["loose"])
    assert draws.lowest == [min(s) for s in sums] and draws.highest == [max(s) for s in sums]


def test_what_is_remembered_changes_no_draw(monkeypatch):
    long = make(BUDGETS["both"])
    expected = [long.draw(random.Random(seed)) for seed in range(60)]
    monkeypatch.setattr(module, "REMEMBERED", 2)
    short = make(BUDGETS["both"])
    assert [short.draw(random.Random(seed)) for seed in range(60)] == expected
    assert len(short._remembered) <= 2
    fresh = [make(BUDGETS["both"]).draw(random.Random(seed)) for seed in range(20)]
    assert fresh == expected[:20]
