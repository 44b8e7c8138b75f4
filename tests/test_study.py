"""Stages of a search: the same result after kill -9 at any point, one evaluation a candidate, failures, stop rules."""

import math
import multiprocessing
import os
import random
import signal

import numpy as np
import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from efficientbert.search.samplers.sampler import Exhausted
from efficientbert.search.study.stop_rule import Progress, StopRule
from efficientbert.search.study.storage import open_storage
from efficientbert.search.study.study import StageStudy
from efficientbert.search.study.workers import Worker
from efficientbert.train.cli.errors import InputError


FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True, scope="module")
def quick_disk():
    """Nothing waits for the disk: that matters when the power fails, not when a process is killed."""

    def relax(connection, _):
        connection.execute("PRAGMA synchronous=OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        event.listen(Engine, "connect", relax)
        yield
        event.remove(Engine, "connect", relax)


class Climber:
    """Steps from the best number told to a new one nearby: what it asks depends on all it was told."""

    def __init__(self, seed=0, size=1000):
        self.seed, self.size = seed, size
        self.told = []

    def ask(self, pending=()):
        taken = {candidate for candidate, _ in self.told} | set(pending)
        rng = random.Random(f"{self.seed} {self.told} {sorted(pending)}")
        good = [(losses, candidate) for candidate, losses in self.told if losses is not None]
        start = min(good)[1] if good else self.size // 2
        free = [number for number in range(self.size) if number not in taken]
        if not free:
            raise Exhausted
        return rng.choice(sorted(free, key=lambda number: abs(number - start))[:9])

    def tell(self, candidate, losses):
        self.told.append((candidate, losses))


def stage(location, sampler=None, name="toy/stage-1", **settings):
    settings = {"objectives": ("loss",), "seed": 3, "interval": 1000.0} | settings
    return StageStudy(
        open_storage(location), name, sampler or Climber(), to_json=lambda n: {"n": n}, from_json=lambda v: v["n"],
        numbers=lambda n: {"n": n}, **settings,
    )  # fmt: skip


def halved(location, **settings):
    return stage(location, pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=2), **settings)


def toy(study):
    """Noise from the seed, a failure for every seventh number, three intermediate losses."""

    def evaluate(candidate, number, report):
        if candidate % 7 == 0:
            raise MemoryError(f"no room\nfor {candidate}")
        noise = float(np.random.default_rng(study.seed_of(number)).normal())
        for step in (1, 2, 4):
            report((candidate - 480) ** 2 / step + noise, step)
        return {"loss": (candidate - 480) ** 2 / 4 + noise, "noise": noise}

    return evaluate


def outcome(records):
    """All of a study that is not time."""
    return [(r.number, r.candidate, r.state, r.losses, r.figures, r.reason, r.seed) for r in records]


def test_some_candidates_come_first(tmp_path):
    study = stage(tmp_path, first=(7, 900, 3))
    study.run(toy(study), StopRule(evaluations=2))
    study = stage(tmp_path, first=(7, 900, 3))  # goes on where it was
    records = study.run(toy(study), StopRule(evaluations=5))
    assert [record.candidate["n"] for record in records[:3]] == [7, 900, 3]
    assert [record.state for record in records[:3]] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert 0 < abs(records[3].candidate["n"] - 900) < 9  # the sampler was told of them: 900 was best


def in_child(function, *arguments):
    """Runs a function in a process of its own; gives the exit code, negative for a signal."""
    process = FORK.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(location, append, when):
    """Runs the toy study and dies at an append to the journal: behind it, or in the middle of the line."""
    plain, count = JournalFileBackend.append_logs, 0

    def append_logs(self, logs):
        nonlocal count
        if count == append and when == "torn":
            self._lock.acquire()
            with open(self._file_path, "ab") as file:
                file.write(b'{"op_code": 4, "worker')
            die()
        plain(self, logs)
        if count == append:
            die()
        count += 1

    JournalFileBackend.append_logs = append_logs
    study = halved(location)
    study.run(toy(study), StopRule(evaluations=6))


@pytest.fixture(scope="module")
def uninterrupted(quick_disk, tmp_path_factory):
    """What the toy study comes to, and its folder."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    study = halved(folder)
    return outcome(study.run(toy(study), StopRule(evaluations=6))), folder


@pytest.mark.parametrize("when, step", [("behind", 1), ("torn", 6)])
def test_killed_at_every_write_it_comes_to_the_same_result(tmp_path, uninterrupted, when, step):
    expected, folder = uninterrupted
    assert {state for _, _, state, *_ in expected} == {"COMPLETE", "FAIL", "PRUNED"}
    appends = len((folder / "study.journal").read_bytes().splitlines())
    for append in range(0, appends, step):
        location = tmp_path / str(append)
        assert in_child(run_and_die, location, append, when) == -signal.SIGKILL
        study = halved(location)
        assert outcome(study.run(toy(study), StopRule(evaluations=6))) == expected, append


def run_and_die_in_evaluation(location, number):
    study = halved(location)
    evaluate = toy(study)

    def deadly(candidate, at, report):
        figures = evaluate(candidate, at, report)
        if at == number:
            die()
        return figures

    study.run(deadly, StopRule(evaluations=6))


@pytest.mark.parametrize("database", [False, True])
def test_killed_again_and_again_it_comes_to_the_same_result(tmp_path, uninterrupted, database):
    expected, _ = uninterrupted
    location = f"sqlite:///{tmp_path}/study.db" if database else tmp_path
    survivors = [number for number, _, state, *_ in expected if state == "COMPLETE"]
    for number in survivors[:1] if database else survivors + survivors[-1:]:
        assert in_child(run_and_die_in_evaluation, location, number) == -signal.SIGKILL
    study = halved(location)
    assert outcome(study.run(toy(study), StopRule(evaluations=6))) == expected


def test_a_candidate_that_kills_every_worker_has_failed(tmp_path):
    def deadly(location):
        study = stage(location)
        study.run(lambda candidate, number, report: die(), StopRule(evaluations=1))

    for _ in range(5):
        assert in_child(deadly, tmp_path) == -signal.SIGKILL
    study = stage(tmp_path)
    (record,) = study.run(lambda *_: pytest.fail("evaluated"), StopRule(evaluations=1))
    assert (record.state, record.reason) == ("FAIL", "its worker died 5 times")


def evaluate_and_note(location, path, barrier):
    """A worker of two, which notes in a file what it evaluates; both begin at once and get one at least."""
    study, begun = stage(location), False
    barrier.wait()

    def evaluate(candidate, number, report):
        nonlocal begun
        if not begun:
            barrier.wait()
            begun = True
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{number} {candidate}\n")
        if candidate % 7 == 0:
            raise ValueError("seventh")
        return {"loss": abs(candidate - 480)}

    study.run(evaluate, StopRule(evaluations=8), poll=0.01)


@pytest.mark.parametrize("database", [False, True])
def test_two_workers_evaluate_each_candidate_once(tmp_path, database):
    location = f"sqlite:///{tmp_path}/study.db" if database else tmp_path
    open_storage(location)
    barrier, paths = FORK.Barrier(2, timeout=60), [tmp_path / "one", tmp_path / "two"]
    workers = [FORK.Process(target=evaluate_and_note, args=(location, path, barrier)) for path in paths]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    noted = [line.split() for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(int(number) for number, _ in noted) == list(range(8))
    assert len({candidate for _, candidate in noted}) == 8
    records = stage(location).records()
    assert [(r.number, r.candidate["n"]) for r in records] == sorted((int(n), int(c)) for n, c in noted)


def test_no_worker_leaves_before_the_last_candidate_is_finished(tmp_path, monkeypatch):
    """The candidate of a worker elsewhere is waited for, and taken over when its heartbeat stops."""
    away = Worker("elsewhere", 1, 1.0)
    there = stage(tmp_path, worker=away)
    trial = there._begin(there._ask())
    here, waits = stage(tmp_path), []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            there.attempts.storage.set_trial_user_attr(trial._trial_id, "heartbeat", 0.0)

    monkeypatch.setattr("efficientbert.search.study.study.time.sleep", sleep)
    records = here.run(lambda candidate, number, report: {"loss": candidate}, StopRule(evaluations=3), poll=0.5)
    assert waits == [0.5, 0.5]
    assert [record.number for record in records] == [0, 1, 2]
    assert records[0].candidate == trial.user_attrs["candidate"]
    assert records[0].seed == there.seed_of(0)
    assert {record.worker for record in records} == {str(Worker.here())}


def test_a_worker_taken_for_dead_does_not_count(tmp_path):
    """It finds its candidate taken over, drops what it measured, and goes on with another."""
    slow = stage(tmp_path, worker=Worker("elsewhere", 1, 1.0), grace=math.inf)

    def evaluate(candidate, number, report):
        if number == 0:
            fast = stage(tmp_path, grace=-1.0)
            fast.run(lambda candidate, number, report: {"loss": 1.0}, StopRule(evaluations=1))
        return {"loss": 2.0}

    records = slow.run(evaluate, StopRule(evaluations=2))
    assert [(record.number, record.losses) for record in records] == [(0, (1.0,)), (1, (2.0,))]


def test_an_interrupted_candidate_is_free_at_once(tmp_path):
    def interrupted(candidate, number, report):
        raise KeyboardInterrupt

    study = stage(tmp_path, worker=Worker("elsewhere", 1, 1.0))
    with pytest.raises(KeyboardInterrupt):
        study.run(interrupted, StopRule(evaluations=1))
    (record,) = stage(tmp_path).run(lambda candidate, number, report: {"loss": 1.0}, StopRule(evaluations=1))
    assert record.losses == (1.0,)


def test_a_full_disk_is_no_fault_of_the_candidate(tmp_path):
    def full(candidate, number, report):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        stage(tmp_path).run(full, StopRule(evaluations=1))
    (record,) = stage(tmp_path).run(lambda candidate, number, report: {"loss": 1.0}, StopRule(evaluations=1))
    assert record.state == "COMPLETE"


def test_failures_are_recorded_with_their_reason(tmp_path):
    faults = {
        1: lambda: {"loss": math.nan, "accuracy": 0.5},
        2: lambda: {"loss": -math.inf},
        3: lambda: {"accuracy": 1.0},
        4: lambda: (_ for _ in ()).throw(MemoryError("CUDA out of memory.\nTried to allocate 2 GiB")),
        5: lambda: (_ for _ in ()).throw(ZeroDivisionError),
    }
    sampler = Climber()
    study = stage(tmp_path, sampler)
    records = study.run(lambda c, number, report: faults.get(number, lambda: {"loss": 1.0})(), StopRule(evaluations=7))
    assert [record.reason for record in records] == [
        None,
        "FloatingPointError: loss is nan",
        "FloatingPointError: loss is -inf",
        "KeyError: 'loss'",
        "MemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "ZeroDivisionError",
        None,
    ]
    assert records[1].figures == {"accuracy": 0.5}
    assert [losses for _, losses in sampler.told] == [(1.0,), None, None, None, None, None, (1.0,)]
    trials = optuna.load_study(study_name="toy/stage-1", storage=study.attempts.storage).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] + [TrialState.FAIL] * 5 + [TrialState.COMPLETE]


def test_a_broken_setup_stops_the_search(tmp_path):
    def broken(candidate, number, report):
        raise RuntimeError(f"no device for {number}")

    for failures in (5, 10):  # started again it tries as many others
        with pytest.raises(InputError, match=f"all {failures} candidates failed, .* no device for {failures - 1}; "):
            stage(tmp_path).run(broken, StopRule(evaluations=100))
    records = stage(tmp_path).run(lambda candidate, number, report: {"loss": 1.0}, StopRule(evaluations=12))
    assert [record.state for record in records] == ["FAIL"] * 10 + ["COMPLETE"] * 2


def test_a_pruner_gives_candidates_up(tmp_path):
    """By halving, as in its paper: after the first step only what is in the better half goes on."""
    losses = [4.0, 3.0, 5.0, 2.0, 6.0, 1.0]
    study = halved(tmp_path)

    def evaluate(candidate, number, report):
        report(losses[number], 1)
        report(losses[number], 2)
        return {"loss": losses[number]}

    records = study.run(evaluate, StopRule(evaluations=6))
    kept = [loss <= sorted(losses[: number + 1])[max((number + 1) // 2 - 1, 0)] for number, loss in enumerate(losses)]
    assert [record.state == "COMPLETE" for record in records] == kept
    assert records[2].reason == "given up at step 1 with loss 5"
    assert study.attempts.latest[2].intermediate_values == {1: 5.0}


def test_a_pruner_does_not_count_lost_attempts(tmp_path):
    """Of 3, 2, 2.5 the last is not in the better half; of 3 four times, 2, 2.5 it would be."""
    losses, interruptions = [3.0, 2.0, 2.5], [1, 2, 3]

    def evaluate(candidate, number, report):
        report(losses[number], 1)
        if number == 0 and interruptions:
            interruptions.pop()
            raise KeyboardInterrupt
        return {"loss": losses[number]}

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            halved(tmp_path).run(evaluate, StopRule(evaluations=3))
    records = halved(tmp_path).run(evaluate, StopRule(evaluations=3))
    assert [record.state for record in records] == ["COMPLETE", "COMPLETE", "PRUNED"]


def test_a_pruner_counts_what_others_do_meanwhile(tmp_path):
    def evaluate(candidate, number, report):
        there = halved(tmp_path, worker=Worker("elsewhere", 1, 1.0))
        there.records()
        theirs = there._begin(there._ask())
        there._reporter(theirs)(1.0, 1)
        there.attempts.finish(theirs, {"state": "COMPLETE", "losses": [1.0]})
        report(5.0, 1)
        return {"loss": 5.0}

    records = halved(tmp_path).run(evaluate, StopRule(evaluations=2))
    assert [record.state for record in records] == ["PRUNED", "COMPLETE"]


def test_a_pruner_needs_one_objective(tmp_path):
    with pytest.raises(InputError, match="one objective"):
        halved(tmp_path, objectives=("loss", "latency"))


def test_several_objectives(tmp_path):
    study = stage(tmp_path, objectives=("loss", "latency"))
    records = study.run(lambda n, number, report: {"latency": -n, "loss": n, "size": 1}, StopRule(evaluations=3))
    assert [record.losses for record in records] == [(r.candidate["n"], -r.candidate["n"]) for r in records]
    kept = optuna.load_study(study_name="toy/stage-1", storage=study.attempts.storage)
    assert kept.metric_names == ["loss", "latency"]
    assert [trial.values for trial in kept.trials] == [list(record.losses) for record in records]
    assert [trial.params["n"] for trial in kept.trials] == [record.candidate["n"] for record in records]


def test_an_exhausted_space_ends_the_stage(tmp_path):
    records = stage(tmp_path, Climber(size=4)).run(lambda n, number, report: {"loss": n}, StopRule(hours=1.0))
    assert sorted(record.candidate["n"] for record in records) == [0, 1, 2, 3]


def test_patience_counts_candidates_that_did_not_improve(tmp_path):
    losses = [5.0, 4.0, 4.0, 4.5, 3.0, 3.0, 3.0, 3.0, 1.0]
    study = stage(tmp_path)
    assert len(study.run(lambda n, number, report: {"loss": losses[number]}, StopRule(patience=3))) == 8


def test_the_front_is_what_improves_with_several_objectives():
    progress = Progress()
    unimproved = []
    for losses in [(2.0, 2.0), (3.0, 1.0), (2.0, 2.0), None, (1.0, 3.0), (2.0, 3.0), (1.0, 1.0)]:
        progress.add(losses, 1.5)
        unimproved.append(progress.unimproved)
    assert unimproved == [0, 0, 1, 2, 0, 1, 0]
    assert progress.front == [(1.0, 1.0)]
    assert (progress.finished, progress.seconds) == (7, 10.5)


def test_stop_rules():
    progress = Progress(started=10, finished=8, seconds=7200.0, unimproved=3)
    assert StopRule(evaluations=10).reached(progress)
    assert not StopRule(evaluations=11).reached(progress)
    assert StopRule(hours=2.0).reached(progress)
    assert not StopRule(hours=2.01).reached(progress)
    assert StopRule(patience=3, evaluations=100).reached(progress)
    assert not StopRule(patience=4, evaluations=100, hours=3.0).reached(progress)
    assert StopRule(evaluations=20).expected(progress) == 20
    assert StopRule(evaluations=20, hours=3.0).expected(progress) == 12
    assert StopRule(patience=4, hours=3.0).expected(progress) == 9
    assert StopRule(hours=1.0).expected(Progress()) is None


@pytest.mark.parametrize("wrong", [{}, {"evaluations": 0}, {"hours": -1.0}, {"patience": 0}, {"hours": math.nan}])
def test_a_stop_rule_needs_positive_limits(wrong):
    with pytest.raises(InputError, match=r"^(num_candidates|hours|patience)\b.*: (must be above 0|give at least one)"):
        StopRule(**wrong)


def test_hours_count_over_all_starts(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("efficientbert.search.study.study.time.perf_counter", lambda: clock[0])

    def evaluate(candidate, number, report):
        clock[0] += 1000.0
        return {"loss": 1.0}

    assert len(stage(tmp_path).run(evaluate, StopRule(evaluations=2))) == 2
    records = stage(tmp_path).run(evaluate, StopRule(hours=1.0))
    assert len(records) == 4  # 3000 seconds are less than an hour
    assert [record.seconds["evaluation"] for record in records] == [1000.0] * 4


def test_other_settings_are_another_study(tmp_path):
    stage(tmp_path, settings={"corpus": "a"})
    stage(tmp_path, settings={"corpus": "a"})
    with pytest.raises(InputError, match="begun with corpus='a', not 'b'"):
        stage(tmp_path, settings={"corpus": "b"})
    with pytest.raises(InputError, match="begun with seed=3, not 4"):
        stage(tmp_path, settings={"corpus": "a"}, seed=4)
