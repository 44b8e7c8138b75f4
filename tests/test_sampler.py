"""Regularised evolution as a function of the history."""

import math
from dataclasses import replace

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.architecture import Architecture
from efficientbert.search.cost import Budget, count_parameters
from efficientbert.search.sampler import Evaluated, Evolution, rank
from efficientbert.search.space import SearchSpace


SIZES = {"vocab_size": 60, "embedding_size": 8, "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3}
SPACE = SearchSpace(EfficientBertConfig(**SIZES), 24, True, Budget("parameters", 0, 10**9), count_parameters)


def differing_layers(one: Architecture, other: Architecture) -> int:
    return sum(a != b for a, b in zip(one.layers, other.layers))


def run(evolution: Evolution, steps: int, seed: int = 0) -> list[Evaluated]:
    """Minimises the parameters; of two alike the later one counts as worse."""
    history: list[Evaluated] = []
    for _ in range(steps):
        architecture = evolution.propose(SPACE, history, seed)
        history.append(Evaluated(architecture, SPACE.cost_of(architecture) + 1e-3 * len(history)))
    return history


def test_a_proposal_depends_on_seed_and_history_alone():
    assert run(Evolution(initial=4), 12) == run(Evolution(initial=4), 12)
    assert run(Evolution(initial=4), 4) != run(Evolution(initial=4), 4, seed=1)
    history = run(Evolution(initial=4), 12)
    assert Evolution(initial=4).propose(SPACE, history[:8], 0) == history[8].architecture


def test_after_the_random_start_candidates_are_neighbours_of_good_ones():
    evolution = Evolution(initial=6, population=8, tournament=8)
    history = run(evolution, 30)
    for index in range(6, 30):
        parent = min(history[max(0, index - 8) : index], key=lambda evaluated: evaluated.loss)
        assert differing_layers(parent.architecture, history[index].architecture) == 1


def test_no_candidate_twice_and_the_loss_falls():
    history = run(Evolution(initial=10), 60)
    assert len({evaluated.architecture for evaluated in history}) == 60
    assert min(e.loss for e in history[30:]) < min(e.loss for e in history[:10])


def test_a_loss_that_is_no_number_never_wins_nor_has_offspring():
    assert min([math.nan, 3.0, math.inf], key=rank) == min([3.0, math.nan], key=rank) == 3.0
    evolution = Evolution(initial=6, population=8, tournament=8)
    history = run(evolution, 6)
    broken = [replace(e, loss=math.nan if index != 3 else e.loss) for index, e in enumerate(history)]
    for seed in range(5):
        assert differing_layers(evolution.propose(SPACE, broken, seed), history[3].architecture) == 1
    evolution.propose(SPACE, [replace(e, loss=math.nan) for e in history], 0)
