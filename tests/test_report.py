"""The report of a study: tables, pictures, reasons; the Pareto front against the plain definition."""

import itertools
import random

import optuna
import pytest
from matplotlib import image
from optuna.storages import InMemoryStorage

from efficientbert.search.study.pareto import dominates, pareto_front
from efficientbert.search.study.report import Stage, read_study, write_report
from efficientbert.search.study.stop_rule import StopRule
from efficientbert.search.study.study import StageStudy
from efficientbert.search.study.workers import once


class Counter:
    """0, 1, 2, …"""

    def __init__(self):
        self.told = []

    def ask(self, pending=()):
        return len(self.told)

    def tell(self, candidate, losses):
        self.told.append(candidate)


def search(storage, name, objectives, evaluate, evaluations):
    study = StageStudy(storage, name, Counter(), to_json=int, from_json=int, objectives=objectives, seed=0)
    return study.run(evaluate, StopRule(evaluations=evaluations))


@pytest.fixture(scope="module")
def storage():
    """Two stages and a job: every third candidate of the first fails, the fifth is given up; a front of three."""
    storage = InMemoryStorage()
    once(storage, "toy/supernet", lambda: None)

    def evaluate(candidate, number, report):
        if number % 3 == 2:
            raise ValueError("bad | worse")
        if number == 4:
            raise optuna.TrialPruned("too slow")
        return {"loss": 10.0 - number, "parameters": 100.0 + number}

    search(storage, "toy/stage-1", ("loss",), evaluate, 7)
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (3.0, 3.0)]
    search(storage, "toy/stage-2", ("loss", "latency"), lambda c, n, r: dict(zip(("loss", "latency"), points[n])), 4)
    search(storage, "other/stage-1", ("loss",), lambda c, n, r: {"loss": 1.0}, 2)
    return storage


def test_a_study_is_read_back(storage):
    (first, second), (job,) = read_study(storage, "toy")
    assert (first.name, first.objectives, first.running) == ("toy/stage-1", ("loss",), 0)
    states = ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert [record.state for record in first.records] == states
    assert [record.number for record in first.best()] == [6]
    assert [record.number for record in second.best()] == [1, 2, 0]
    assert (job.name, job.state, job.attempts) == ("toy/supernet", "COMPLETE", 1)


def test_the_report_tells_it_all(storage, tmp_path):
    text = write_report(storage, "toy", tmp_path, cost="parameters").read_text(encoding="utf-8")
    assert "| toy/stage-1 | 7 | 4 | 2 | 1 | 0 | loss 4 |" in text
    assert "| toy/stage-2 | 4 | 4 | 0 | 0 | 0 | loss 1 |" in text
    assert "| candidate | loss | parameters |\n| --- | --- | --- |\n| 6 | 4 | 106 |" in text
    assert "| 1 | 1 | 3 |\n| 2 | 2 | 2 |\n| 0 | 3 | 1 |" in text
    assert "| 2 | ValueError: bad \\| worse |" in text
    assert "```json\n6\n```" in text
    assert "other" not in text
    pictures = ["stage-1-history.png", "stage-1-front.png", "stage-2-history.png", "stage-2-front.png"]
    for picture in pictures:
        assert f"]({picture})" in text
        assert image.imread(tmp_path / picture).std() > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*pictures, "report.md"])


def test_shares_of_time(storage):
    (first, _), _ = read_study(storage, "toy")
    seconds = first.seconds()
    assert seconds.keys() == {"evaluation", "sampler", "storage"}
    assert all(spent > 0 for spent in seconds.values())


def test_a_study_in_which_nothing_is_complete_has_a_report(tmp_path):
    storage = InMemoryStorage()
    search(storage, "toy/stage-1", ("loss",), lambda c, n, r: {"loss": float("nan")}, 3)
    text = write_report(storage, "toy", tmp_path).read_text(encoding="utf-8")
    assert "| toy/stage-1 | 3 | 0 | 3 |" in text
    assert "FloatingPointError: loss is nan" in text


def test_a_stage_without_candidates_has_no_best():
    assert Stage("toy/stage-1", ("loss",), [], 0).best() == []


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_front_is_what_nothing_dominates(objectives):
    rng = random.Random(0)
    for size in (0, 1, 2, 5, 40):
        for _ in range(20):
            values = [tuple(rng.randint(0, 6) for _ in range(objectives)) for _ in range(size)]
            plain = [
                index
                for index, one in enumerate(values)
                if not any(all(b <= a for a, b in zip(one, other)) and other != one for other in values)
            ]
            assert pareto_front(values) == plain


def test_dominance_is_better_somewhere_and_worse_nowhere():
    for one, other in itertools.product(itertools.product(range(3), repeat=2), repeat=2):
        worse = one[0] > other[0] or one[1] > other[1]
        assert dominates(one, other) == (not worse and one != other)
