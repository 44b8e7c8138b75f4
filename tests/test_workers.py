"""Workers that share work: who is alive, who takes over, jobs that are done once."""

import dataclasses
import multiprocessing
import os
import time

import psutil
import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from efficientbert.search.study.storage import open_storage
from efficientbert.search.study.workers import Attempts, Worker, describe, once


FORK = multiprocessing.get_context("fork")
HERE = Worker.here()
AWAY = Worker("elsewhere", 1, 1.0)


def attempts(storage, worker=HERE, **options):
    made = Attempts(storage, "work", ("loss",), worker, **options)
    made.refresh()
    return made


def finished_process():
    """A worker of this host whose process has ended."""
    process = FORK.Process(target=time.time)
    process.start()
    started = psutil.Process(process.pid).create_time()
    process.join()
    return Worker(HERE.host, process.pid, started)


def test_a_study_whose_maker_was_killed_gets_its_names():
    storage = InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "work")
    attempts(storage)
    assert storage.get_study_system_attrs(study_id) == {"study:metric_names": ["loss"]}


def test_a_process_runs_or_not():
    assert HERE.runs()
    assert not finished_process().runs()
    assert not dataclasses.replace(HERE, started=HERE.started - 60).runs()  # the id of an earlier process


def test_a_killed_process_that_nobody_waited_for_does_not_run():
    process = FORK.Process(target=time.sleep, args=(1000,))
    process.start()
    worker = Worker(HERE.host, process.pid, psutil.Process(process.pid).create_time())
    assert worker.runs()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now, and stays one
    assert not worker.runs()
    process.join()


def test_the_candidate_of_a_dead_process_is_free_at_once():
    storage = InMemoryStorage()
    attempts(storage, finished_process()).begin(0, {"what": "a"}, {"size": 3})
    here = attempts(storage)
    assert here.abandoned() == [0]
    trial = here.take_over(0)
    assert (trial.user_attrs["attempt"], trial.user_attrs["what"], trial.params) == (1, "a", {"size": 3})
    assert here.abandoned() == [0]  # this very worker asks, so it does not work on it
    assert attempts(storage, AWAY).abandoned() == []
    lost = storage.get_all_trials(here.study_id)[0]
    assert lost.state == TrialState.FAIL
    assert lost.user_attrs["lost"].endswith("died")


def test_the_candidate_of_a_process_that_runs_is_not_free():
    storage = InMemoryStorage()
    parent = Worker(HERE.host, os.getppid(), psutil.Process(os.getppid()).create_time())
    attempts(storage, parent).begin(0, {}, {})
    assert attempts(storage).abandoned() == []
    assert attempts(storage).pending() == [0]


@pytest.mark.parametrize("age, free", [(100.0, []), (140.0, [0])])
def test_a_worker_elsewhere_is_dead_after_its_grace(age, free):
    storage = InMemoryStorage()
    trial = attempts(storage, AWAY).begin(0, {}, {})
    storage.set_trial_user_attr(trial._trial_id, "heartbeat", time.time() - age)
    assert attempts(storage, grace=120.0).abandoned() == free


def test_one_of_many_takes_over():
    """All have seen that the worker died before the first of them does anything about it."""
    storage = InMemoryStorage()
    attempts(storage, finished_process()).begin(0, {}, {})
    survivors = [attempts(storage, dataclasses.replace(AWAY, pid=pid)) for pid in range(5)]
    for survivor in survivors:
        survivor.grace = -1.0
        survivor.refresh()
    survivors[0].latest = dict(survivors[0].latest)
    taken = [survivor.take_over(0) for survivor in survivors]
    assert [trial is not None for trial in taken] == [True, False, False, False, False]
    states = [trial.state for trial in storage.get_all_trials(survivors[0].study_id)]
    assert states == [TrialState.FAIL, TrialState.RUNNING] + [TrialState.FAIL] * 4


def test_of_two_that_begin_the_same_number_the_first_does_it():
    storage = InMemoryStorage()
    one, other = attempts(storage, AWAY), attempts(storage)
    assert one.begin(0, {"what": "a"}, {}) is not None
    assert other.begin(0, {"what": "b"}, {}) is None
    assert other.latest[0].user_attrs["what"] == "a"
    assert other.begin(1, {"what": "b"}, {}) is not None


def test_one_that_came_second_and_was_killed_is_closed():
    storage = InMemoryStorage()
    attempts(storage, AWAY).begin(0, {}, {})
    second = attempts(storage, finished_process())
    second._end = lambda *_: None
    second.begin(0, {}, {})
    here = attempts(storage)
    assert [trial.state for trial in storage.get_all_trials(here.study_id)] == [TrialState.RUNNING, TrialState.FAIL]


def test_a_result_that_stands_is_not_measured_again():
    """The worker died between writing it and saying that it was done."""
    storage = InMemoryStorage()
    dead = attempts(storage, finished_process())
    trial = dead.begin(0, {}, {})
    dead._end = lambda *_: None
    dead.finish(trial, {"state": "COMPLETE", "losses": [0.1]})
    here = attempts(storage)
    assert here.abandoned() == [0]
    assert here.take_over(0) is None
    here.refresh()
    (settled,) = here.news()
    assert (settled.state, settled.values) == (TrialState.COMPLETE, [0.1])
    assert here.news() == here.pending() == []


def test_the_result_of_one_taken_for_dead_is_dropped():
    storage = InMemoryStorage()
    slow = attempts(storage, AWAY)
    trial = slow.begin(0, {}, {})
    fast = attempts(storage, grace=-1.0)
    mine = fast.take_over(0)
    slow.finish(trial, {"state": "COMPLETE", "losses": [1.0]})
    slow.release(trial, "interrupted")
    fast.finish(mine, {"state": "COMPLETE", "losses": [2.0]})
    slow.refresh()
    assert [settled.values for settled in slow.news()] == [[2.0]]


def test_deaths_are_counted_and_interruptions_are_not():
    storage = InMemoryStorage()
    dead = finished_process()
    first = attempts(storage, dead)
    first.release(first.begin(0, {}, {}), "interrupted")
    for _ in range(3):
        again = attempts(storage, dead)
        assert again.take_over(0, most_deaths=3) is not None
    here = attempts(storage)
    assert here.take_over(0, most_deaths=3) is None
    here.refresh()
    (settled,) = here.news()
    assert settled.user_attrs["result"]["reason"] == "its worker died 3 times"


def test_the_heart_beats_while_the_work_goes_on(tmp_path):
    storage = open_storage(tmp_path)
    at_work = attempts(storage, interval=0.001)
    trial = at_work.begin(0, {}, {})
    first = trial.user_attrs["heartbeat"]
    with at_work.beating(trial):
        while storage.get_trial(trial._trial_id).user_attrs["heartbeat"] == first:
            pass
    last = storage.get_trial(trial._trial_id).user_attrs["heartbeat"]
    assert first < last <= time.time()


@pytest.mark.filterwarnings("always")
def test_a_storage_out_of_reach_costs_beats_and_is_told(tmp_path, monkeypatch):
    storage = open_storage(tmp_path)
    at_work = attempts(storage, interval=0.001)
    trial = at_work.begin(0, {}, {})
    first, write, failures = trial.user_attrs["heartbeat"], storage.set_trial_user_attr, iter([OSError("gone"), None])

    def fails_once(*arguments):
        if error := next(failures, None):
            raise error
        write(*arguments)

    monkeypatch.setattr(storage, "set_trial_user_attr", fails_once)
    with pytest.warns(UserWarning, match="no heartbeat, the next in 0.001 s: OSError: gone"), at_work.beating(trial):
        while storage.get_trial(trial._trial_id).user_attrs["heartbeat"] == first:
            pass


def test_a_job_is_done_once():
    storage, calls = InMemoryStorage(), []

    def job():
        calls.append(1)
        return {"winner": (1, 2)}

    assert once(storage, "study/winner", job) == {"winner": [1, 2]}
    assert once(storage, "study/winner", job, worker=AWAY) == {"winner": [1, 2]}
    assert len(calls) == 1


def do_slowly(location, path, barrier):
    barrier.wait()

    def job():
        with open(path, "a", encoding="utf-8") as file:
            file.write("x")
        time.sleep(0.05)  # while the others come
        return 7

    assert once(open_storage(location), "study/supernet", job, poll=0.01) == 7


def test_of_many_processes_one_does_a_job(tmp_path):
    barrier, path = FORK.Barrier(3), tmp_path / "calls"
    workers = [FORK.Process(target=do_slowly, args=(tmp_path, path, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert path.read_text(encoding="utf-8") == "x"


def test_a_job_of_a_dead_worker_is_taken_over():
    storage = InMemoryStorage()
    Attempts(storage, "study/supernet", ("seconds",), finished_process()).begin(0, {}, {})
    assert once(storage, "study/supernet", lambda: 7) == 7


def test_a_failed_job_raises_and_is_tried_again():
    storage = InMemoryStorage()
    with pytest.raises(ZeroDivisionError):
        once(storage, "study/supernet", lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        once(storage, "study/supernet", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert once(storage, "study/supernet", lambda: 7, worker=AWAY) == 7


def test_the_result_of_another_try_is_news():
    storage = InMemoryStorage()
    here = attempts(storage)
    here.finish(here.begin(0, {}, {}), {"state": "FAIL", "losses": None})
    here.refresh()
    assert [trial.state for trial in here.news()] == [TrialState.FAIL]
    here.finish(here.again(0), {"state": "COMPLETE", "losses": [1.0]})
    here.refresh()
    assert [trial.state for trial in here.news()] == [TrialState.COMPLETE]


def test_a_job_that_fails_elsewhere_raises_in_those_who_wait(monkeypatch):
    storage = InMemoryStorage()
    there = Attempts(storage, "study/supernet", ("seconds",), AWAY)
    trial = there.begin(0, {}, {})

    def fail(seconds):
        there.finish(trial, {"state": "FAIL", "losses": None, "reason": "ValueError: no text"})

    monkeypatch.setattr("efficientbert.search.study.workers.time.sleep", fail)
    with pytest.raises(RuntimeError, match="study/supernet failed at process 1 on elsewhere: ValueError: no text"):
        once(storage, "study/supernet", lambda: pytest.fail("done twice"))


def test_a_job_whose_product_is_gone_is_done_again_by_one_worker(tmp_path):
    storage, made = InMemoryStorage(), tmp_path / "made"

    def make() -> int:
        made.touch()
        return len(calls.append(1) or calls)

    calls: list[int] = []
    assert [once(storage, "study/result", make, lasts=made.exists) for _ in range(2)] == [1, 1]
    made.unlink()
    assert [once(storage, "study/result", make, lasts=made.exists) for _ in range(2)] == [2, 2]
    assert once(storage, "study/result", make) == 2  # without a look at what was made


def test_while_one_worker_does_a_job_again_the_others_wait(tmp_path, monkeypatch):
    storage, made = InMemoryStorage(), tmp_path / "made"
    once(storage, "study/result", lambda: 1)
    there = Attempts(storage, "study/result", ("seconds",), AWAY)
    there.refresh()
    trial = there.again(0)

    def finish(seconds):
        made.touch()
        there.finish(trial, {"state": "COMPLETE", "losses": [1.0], "value": 2})

    monkeypatch.setattr("efficientbert.search.study.workers.time.sleep", finish)
    assert once(storage, "study/result", lambda: pytest.fail("done twice"), lasts=made.exists) == 2


def test_errors_are_described_in_one_line():
    assert describe(ValueError("two\n  lines")) == "ValueError: two lines"
    assert describe(KeyboardInterrupt()) == "KeyboardInterrupt"
