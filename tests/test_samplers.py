"""Samplers: what they propose, what they never propose, and that a history told again goes on as before."""

import itertools
import math
import random

import numpy as np
import pytest

from efficientbert.search.samplers import ActionSpace, Evolution, Exhausted, Nsga2, OptunaSampler, RandomSampler
from efficientbert.search.samplers.action_space import ActionTree, Leaf, upper_confidence_bounds
from efficientbert.search.samplers.nsga2 import crowding_distances, front_numbers
from efficientbert.train.cli.errors import InputError


class Bits:
    """Tuples of bits; with `halves`, the first half alone decides the function."""

    def __init__(self, length: int, halves: bool = False) -> None:
        self.length = length
        self.halves = halves
        self.parents: list[tuple[int, ...]] = []

    def sample(self, rng: random.Random) -> tuple[int, ...]:
        return tuple(rng.randrange(2) for _ in range(self.length))

    def mutate(self, candidate: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
        self.parents.append(candidate)
        index = rng.randrange(self.length)
        return candidate[:index] + (1 - candidate[index],) + candidate[index + 1 :]

    def crossover(self, one: tuple[int, ...], other: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
        self.parents += [one, other]
        return tuple(rng.choice(pair) for pair in zip(one, other))

    def encode(self, candidate: tuple[int, ...]) -> np.ndarray:
        return np.array(candidate, dtype=float)

    def key(self, candidate: tuple[int, ...]) -> tuple[int, ...]:
        return candidate[: self.length // 2] if self.halves else candidate


MAKES = {
    "random": RandomSampler,
    "evolution": lambda space, seed: Evolution(space, seed, initial=6, population=8, tournament=3),
    "nsga2": lambda space, seed: Nsga2(space, seed, initial=6, population=8),
    "action space": lambda space, seed: ActionSpace(space, seed, first=8, interval=4, depth=2, growth=(20,), pool=16),
    "optuna": lambda space, seed: OptunaSampler(space, seed, pool=16),
}
LEARNING = [name for name in MAKES if name != "random"]
every_sampler = pytest.mark.parametrize("name", MAKES)


def zeros(candidate: tuple[int, ...]) -> tuple[float, ...]:
    return (float(candidate.count(0)),)


def search(sampler, evaluations, losses=zeros):
    """The history of a search."""
    history = []
    for _ in range(evaluations):
        candidate = sampler.ask()
        history.append((candidate, losses(candidate)))
        sampler.tell(*history[-1])
    return history


# Every sampler


@every_sampler
def test_a_history_told_again_goes_on_as_before(name):
    def losses(candidate):
        return None if candidate[:2] == (1, 0) else zeros(candidate)

    history = search(MAKES[name](Bits(10), 3), 32, losses)
    assert history != search(MAKES[name](Bits(10), 4), 32, losses)
    for told in (0, 5, 9, 21, 31):
        again = MAKES[name](Bits(10), 3)
        for entry in history[:told]:
            again.tell(*entry)
        assert again.ask() == history[told][0]
        assert again.ask() == history[told][0], "an ask leaves no trace"


@every_sampler
def test_pending_candidates_are_not_asked_for_again_whatever_their_order(name):
    sampler = MAKES[name](Bits(8), 0)
    search(sampler, 14)
    pending = []
    for _ in range(6):
        candidate = sampler.ask(pending)
        assert candidate == sampler.ask(pending[::-1])
        assert candidate not in pending
        pending.append(candidate)


@every_sampler
def test_no_function_is_asked_for_twice_until_the_space_is_exhausted(name):
    space = Bits(8, halves=True)
    sampler = MAKES[name](space, 1)
    history = search(sampler, 15)
    last = sampler.ask()
    assert {space.key(candidate) for candidate, _ in history} | {space.key(last)} == set(
        itertools.product((0, 1), repeat=4)
    )
    with pytest.raises(Exhausted, match="16"):
        sampler.ask([last])
    sampler.tell(last, None)
    with pytest.raises(Exhausted, match="16"):
        sampler.ask()


@pytest.mark.parametrize("failure", [None, (math.nan, 1.0), (math.inf, 1.0), (0.0, -math.inf)])
@pytest.mark.parametrize("name", LEARNING)
def test_failed_candidates_are_never_parents_nor_asked_for_again(name, failure):
    """Those fail that would otherwise be the best."""
    space = Bits(8)
    sampler = MAKES[name](space, 2)
    asked, good = set(), set()
    for _ in range(40):
        space.parents.clear()
        candidate = sampler.ask()
        if name in ("evolution", "optuna"):
            assert set(space.parents) <= good
        else:  # a chain of mutations or a child of two is changed again: the first of them is a known one
            assert not set(space.parents) & (asked - good) or name == "action space"
            assert not space.parents or space.parents[0] in good
        assert candidate not in asked
        asked.add(candidate)
        if candidate[0] == 1:
            sampler.tell(candidate, failure)
        else:
            good.add(candidate)
            sampler.tell(candidate, (*zeros(candidate), 0.0))


@every_sampler
def test_a_search_in_which_all_fail_goes_on(name):
    assert len(set(search(MAKES[name](Bits(8), 0), 30, lambda candidate: None))) == 30


@pytest.mark.parametrize("name", LEARNING)
def test_learning_finds_more_ones_than_chance(name):
    """OneMax, 16 bits: the best of 60 random draws has 12 or 13 ones, of 65,536."""

    def fewest_zeros(name):
        return [min(losses[0] for _, losses in search(MAKES[name](Bits(16), seed), 60)) for seed in range(4)]

    assert np.mean(fewest_zeros(name)) <= np.mean(fewest_zeros("random")) - 1


# Evolution


def test_age_alone_makes_room():
    space = Bits(8)
    sampler = Evolution(space, 0, initial=1, population=4, tournament=4)
    told = list(itertools.islice(itertools.product((0, 1), repeat=8), 10))
    for number, candidate in enumerate(told):
        sampler.tell(candidate, (number,))  # the oldest are the best
    space.parents.clear()
    sampler.ask()
    assert set(space.parents) == {told[6]}


# NSGA-II


def dominates(one, other):
    return all(a <= b for a, b in zip(one, other)) and any(a < b for a, b in zip(one, other))


def peeled(losses):
    """Fronts by their definition, one after the other."""
    numbers, number, left = {}, 0, set(range(len(losses)))
    while left:
        front = {i for i in left if not any(dominates(losses[j], losses[i]) for j in left)}
        numbers |= dict.fromkeys(front, number)
        left -= front
        number += 1
    return [numbers[index] for index in range(len(losses))]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_fronts_are_those_of_the_definition(objectives):
    rng = np.random.default_rng(objectives)
    for size in (1, 2, 30):
        losses = rng.integers(0, 6, (size, objectives)).astype(float)  # many ties
        assert front_numbers(losses).tolist() == peeled(losses.tolist())


def test_crowding_distances_are_shares_of_the_range_between_neighbours():
    losses = np.array([[0, 10], [1, 4], [4, 2], [10, 0], [5, 11], [11, 5]], dtype=float)
    expected = [math.inf, 4 / 10 + 8 / 10, 9 / 10 + 4 / 10, math.inf, math.inf, math.inf]
    assert crowding_distances(losses, front_numbers(losses)) == pytest.approx(expected)
    equal = np.ones((4, 2))
    assert not np.isnan(crowding_distances(equal, front_numbers(equal))).any()


def test_survivors_are_the_best_fronts():
    sampler = Nsga2(Bits(8), 0, population=5)
    told = list(itertools.islice(itertools.product((0, 1), repeat=8), 60))
    losses = np.random.default_rng(0).random((60, 2))
    for candidate, pair in zip(told, losses):
        sampler.tell(candidate, tuple(pair))
    best = [told[index] for index in np.flatnonzero(front_numbers(losses) == 0)]
    assert len(sampler._survivors) == 5
    assert len(set(best) & set(sampler._survivors)) == min(5, len(best))


def hypervolume(points, corner):
    """Area between points to be minimised and a corner, unit cell by unit cell."""
    cells = itertools.product(range(corner[0]), range(corner[1]))
    return sum(any(a <= x and b <= y for a, b in points) for x, y in cells)


FRONT_MAKES = {
    "nsga2": lambda space, seed: Nsga2(space, seed, initial=10, population=16),
    "action space": lambda space, seed: ActionSpace(space, seed, first=10, interval=5, growth=(), pool=16),
}


@pytest.mark.parametrize("name", FRONT_MAKES)
def test_the_hypervolume_grows_towards_the_known_front(name):
    """Ones of the first half against zeros of it, both made worse by every one in the second half."""

    def losses(candidate):
        spoilt = 2 * sum(candidate[8:])
        return (float(sum(candidate[:8]) + spoilt), float(8 - sum(candidate[:8]) + spoilt))

    def volume(history):
        return hypervolume([pair for _, pair in history], (25, 25))

    ideal = hypervolume([(ones, 8 - ones) for ones in range(9)], (25, 25))
    for seed in range(2):
        history = search(FRONT_MAKES[name](Bits(16), seed), 200, losses)
        chance = search(RandomSampler(Bits(16), seed), 200, losses)
        assert volume(history[:20]) < volume(history) <= ideal
        assert volume(chance) < volume(history)


# Learned action space


def test_confidence_bounds_by_hand():
    rewards, leaves = np.array([0.5, 0.7, 0.2, 0.4]), np.array([0, 0, 0, 2])
    bounds = upper_confidence_bounds(rewards, leaves, 3, exploration=0.5)
    explored = 1.4 / 3 + 0.5 * math.sqrt(2 * math.log(4) / 3)
    assert bounds == pytest.approx([explored, math.inf, 0.4 + 0.5 * math.sqrt(2 * math.log(4))])


def test_exploration_turns_to_a_leaf_of_few_visits():
    rewards = np.array([0.9] * 30 + [0.5])
    leaves = np.array([0] * 30 + [1])
    assert upper_confidence_bounds(rewards, leaves, 2, exploration=0.0).argmax() == 0
    assert upper_confidence_bounds(rewards, leaves, 2, exploration=1.0).argmax() == 1


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_trees_divide_by_how_many_dominate_a_candidate(objectives, monkeypatch):
    divided = []
    fit = ActionTree.__init__

    def record(self, features, losses, depth, seed):
        divided.append(losses.tolist())
        fit(self, features, losses, depth, seed)

    monkeypatch.setattr(ActionTree, "__init__", record)
    sampler = ActionSpace(Bits(10), 0, first=30, interval=5, depth=1, pool=8)
    rng = np.random.default_rng(objectives)
    told = [None, None, *(tuple(row) for row in rng.integers(0, 9, (28, objectives)).astype(float))]
    told[7] = told[20] = None
    for number, losses in enumerate(told):
        sampler.tell(tuple(int(bit) for bit in f"{number:010b}"), losses)
    sampler.ask()
    rows = [losses or (math.inf,) * objectives for losses in told]
    assert divided == [[sum(dominates(other, row) for other in rows) for row in rows]]
    assert sampler._dominators.tolist() == divided[0]  # what is kept up to date with every tell


def test_parents_are_the_least_dominated_that_did_not_fail():
    space = Bits(10)
    sampler = ActionSpace(space, 0, first=40, interval=100, depth=1, pool=200)
    front = [(0, 0, 0, *bits) for bits in itertools.product((0, 1), repeat=7)][:20]
    for number, candidate in enumerate(front):
        sampler.tell(candidate, (float(number), float(-number)))
    for number, candidate in enumerate([(1, 1, 1, *bits) for bits in itertools.product((0, 1), repeat=7)][:20]):
        sampler.tell(candidate, None if number % 2 else (50.0 + number, 50.0 + number))
    sampler.ask()
    first_steps = [parent for parent in space.parents if parent in front]
    assert set(first_steps) == set(front)  # more than sixteen: none of a front is left out
    assert not {(1, 1, 1, 0, 0, 0, 0, 0, 0, 0), (1, 1, 1, 0, 0, 0, 0, 0, 0, 1)} & set(space.parents)


def test_a_tree_divides_what_can_be_told_apart():
    """One feature decides the loss: the leaves are its quarters, in order."""
    values = np.arange(200) / 200
    features = np.stack([values, values], axis=1)
    tree = ActionTree(features, values, depth=2, seed=0)
    fallen = tree.fall(features)
    assert len(tree.leaves) == 4
    means = [values[fallen == leaf.number].mean() for leaf in tree.leaves]
    assert means == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.02)
    for leaf in tree.leaves:
        inside, chances = leaf.chances(features)
        assert (inside == (fallen == leaf.number)).all()
        assert chances[inside].min() > chances[~inside].max() - 0.5
    assert sum(leaf.chances(features)[1] for leaf in tree.leaves) == pytest.approx(np.ones(200))


def test_a_small_or_even_region_is_not_divided():
    features = np.random.default_rng(0).random((40, 3))
    assert ActionTree(features, np.ones(40), depth=3, seed=0).leaves == [Leaf(0, ())]
    assert len(ActionTree(features[:7], np.arange(7.0), depth=3, seed=0).leaves) == 1
    assert len(ActionTree(features, np.arange(40.0), depth=0, seed=0).leaves) == 1


def test_trees_are_fitted_after_the_first_sample_and_then_at_intervals(monkeypatch):
    fitted = []
    fit = ActionTree.__init__

    def record(self, features, losses, depth, seed):
        fitted.append((len(losses), depth))
        fit(self, features, losses, depth, seed)

    monkeypatch.setattr(ActionTree, "__init__", record)
    space = Bits(12)
    sampler = ActionSpace(space, 0, first=20, interval=5, depth=1, growth=(30, 60), pool=8)
    search(sampler, 90)
    # Every five, until a tenth of the history is more.
    assert fitted == [(n, 1 + (n >= 30) + (n >= 60)) for n in (*range(20, 60, 5), 60, 66, 72, 79, 86)]


def test_candidates_come_from_the_leaf_with_the_highest_bound():
    sampler = ActionSpace(Bits(12), 0, first=30, interval=10, depth=1, exploration=0.0)
    rng = random.Random(5)
    for _ in range(30):
        candidate = Bits(12).sample(rng)
        sampler.tell(candidate, (1.0 - candidate[3],))  # one bit decides
    assert sampler.ask()[3] == 1
    curious = ActionSpace(Bits(12), 0, first=30, interval=10**6, depth=1, exploration=50.0)
    rng = random.Random(5)
    for _ in range(30):
        candidate = Bits(12).sample(rng)
        curious.tell(candidate, (1.0 - candidate[3],))
    for _ in range(30):  # the better half is visited so often that the other one is asked for
        candidate = (*Bits(3).sample(rng), 1, *Bits(8).sample(rng))
        curious.tell(candidate, (0.0,))
    assert curious.ask()[3] == 0


# Optuna


def test_optuna_takes_the_candidate_nearest_to_what_it_is_told_to_want():
    """A sampler that always wants the middle of every range."""

    class Middle:
        def __init__(self, seed):
            pass

        def __getattr__(self, name):
            return lambda *args: None

        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, space):
            return {}

        def sample_independent(self, study, trial, name, distribution):
            return 0.5

    class Numbers(Bits):
        def sample(self, rng):
            return rng.randrange(1000)

        def mutate(self, candidate, rng):
            return candidate

        def encode(self, candidate):
            return np.array([candidate, 7.0])

        def key(self, candidate):
            return candidate

    sampler = OptunaSampler(Numbers(1), 0, make=Middle, pool=400)
    assert abs(sampler.ask() - 500) <= 10


def test_a_space_whose_candidates_encode_alike_is_refused():
    class Alike(Bits):
        def encode(self, candidate):
            return np.ones(3)

    with pytest.raises(InputError, match="encode alike"):
        OptunaSampler(Alike(4), 0)
