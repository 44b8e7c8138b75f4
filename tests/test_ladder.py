"""Successive halving: scores in the order of their cost, and what Optuna's pruner makes of their losses."""

import optuna
import pytest

from efficientbert.search.scores.ladder import Ladder
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape


ARCHITECTURE = Architecture(Shape(12, 8), (LayerChoice("linear2(gelu(linear1(x)))", 1, 12, 3, 4),))


class Given:
    """A score with a known loss, and losses on its way."""

    def __init__(self, loss: float, on_the_way: tuple[float, ...] = ()):
        self.loss = loss
        self.on_the_way = on_the_way
        self.calls = 0

    def __call__(self, architecture, report=None):
        self.calls += 1
        for rung, loss in enumerate(self.on_the_way):
            if report is not None:
                report(loss, rung)
        return self.loss


class GivenUp(Exception):
    """What a pruner raises."""


def test_rungs_come_in_order_and_the_last_loss_is_returned():
    seen = []
    ladder = Ladder((Given(9.0), Given(8.0, (99.0,)), Given(3.0, (7.0, 5.0))))
    assert ladder(ARCHITECTURE, lambda loss, rung: seen.append((loss, rung))) == 3.0
    assert seen == [(9.0, 0), (8.0, 1), (7.0, 2), (5.0, 3)]


def test_ladders_stand_on_ladders():
    seen = []
    ladder = Ladder((Given(9.0), Ladder((Given(8.0), Given(3.0, (5.0,))))))
    assert ladder(ARCHITECTURE, lambda loss, rung: seen.append((loss, rung))) == 3.0
    assert seen == [(9.0, 0), (8.0, 1), (5.0, 2)]


def test_nothing_is_scored_for_nobody():
    scores = Given(9.0), Given(3.0)
    assert Ladder(scores)(ARCHITECTURE) == 3.0
    assert [score.calls for score in scores] == [0, 1]


def test_what_is_given_up_costs_no_more():
    scores = Given(9.0), Given(8.0), Given(3.0)

    def report(loss, rung):
        if rung == 1:
            raise GivenUp

    with pytest.raises(GivenUp):
        Ladder(scores)(ARCHITECTURE, report)
    assert [score.calls for score in scores] == [1, 1, 0]


def halve(losses: list[tuple[float, ...]], factor: int) -> list[optuna.trial.FrozenTrial]:
    """Trials of candidates whose losses on every rung are known, one after the other."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0), pruner=pruner)
    for *cheap, last in losses:
        ladder = Ladder((*map(Given, cheap), Given(last)))

        def evaluate(trial, ladder=ladder):
            def report(loss, rung):
                trial.report(loss, factor**rung)
                if trial.should_prune():
                    raise optuna.TrialPruned

            return ladder(ARCHITECTURE, report)

        study.optimize(evaluate, n_trials=1)
    return study.trials


@pytest.mark.parametrize("factor", [2, 3])
def test_every_rung_is_one_of_the_pruner(factor):
    """With rung r as step `factor ** r`, of those that reach a rung the best go on, the others no more."""
    better = halve([(9.0, 9.0, 9.0, 9.0), (8.0, 8.0, 8.0, 8.0), (7.0, 7.0, 7.0, 7.0)], factor)
    assert [trial.state.name for trial in better] == ["COMPLETE"] * 3
    assert [trial.value for trial in better] == [9.0, 8.0, 7.0]
    assert sorted(better[0].intermediate_values) == [1, factor, factor**2]
    worse = halve([(7.0, 7.0, 7.0), (8.0, 1.0, 1.0), (6.0, 8.0, 1.0), (5.0, 6.0, 2.0)], factor)
    assert [trial.state.name for trial in worse] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert [sorted(trial.intermediate_values.values()) for trial in worse] == [
        [7.0, 7.0],
        [8.0],
        [6.0, 8.0],
        [5.0, 6.0],
    ]
