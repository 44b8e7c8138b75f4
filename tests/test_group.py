"""Processes that evaluate every candidate together: failures of all, and one that is killed."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from efficientbert.search.samplers import RandomSampler
from efficientbert.search.study.group import Group
from efficientbert.search.study.stop_rule import StopRule
from efficientbert.search.study.storage import open_storage
from efficientbert.search.study.study import StageStudy


class Numbers:
    """A space of numbers."""

    def sample(self, rng):
        return rng.randrange(1000)

    def key(self, number):
        return number


def work(folder: Path, kill_at: int, alone: bool, told) -> None:
    """One of two processes: a job, and eight candidates; the second is killed in one of them, or fails alone."""
    accelerator, seen = Accelerator(cpu=True), []
    rank = accelerator.process_index
    group = Group(accelerator)

    def evaluate(number, report):
        seen.append(number)
        if rank == 1 and len(seen) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        total = accelerator.reduce(torch.tensor(float(number)), "sum").item()
        if number % 3 == 0:
            raise ValueError("divisible by 3")
        if alone and rank == 1 and number % 2:
            raise ValueError("odd")
        return {"loss": total}

    storage, sampler = open_storage(folder), RandomSampler(Numbers(), 0)
    study = StageStudy(storage, "study/stage-1", sampler, to_json=int, from_json=int, objectives=("loss",), seed=0)
    made = group.once(storage, "study/job", lambda: accelerator.reduce(torch.ones(()), "sum").item())
    records = group.run(study, evaluate, StopRule(8))
    told.put((rank, made, [(record.candidate, record.losses, record.reason) for record in records]))


@pytest.fixture
def run(ranks):
    """Runs two processes; gives their exit codes and what they tell."""

    def run(folder: Path, kill_at: int = 0, alone: bool = False) -> tuple[list[int], list]:
        told = multiprocessing.get_context("fork").SimpleQueue()
        codes = ranks(lambda: work(folder, kill_at, alone, told))
        found = [] if kill_at else sorted(told.get() for _ in codes)
        return codes, [what for _, *what in found]

    return run


def test_a_killed_process_fails_no_candidate(run, tmp_path):
    assert run(tmp_path / "killed", kill_at=3)[0] == [1, -signal.SIGKILL]
    storage = open_storage(tmp_path / "killed")
    trials = storage.get_all_trials(storage.get_study_id_from_name("study/stage-1"))
    reasons = [trial.user_attrs.get("result", {"reason": "none"})["reason"] for trial in trials]
    assert len(reasons) == 3 and set(reasons[:2]) <= {None, "ValueError: divisible by 3"} and reasons[2] == "none"

    codes, (first, second) = run(tmp_path / "killed")
    assert codes == [0, 0] and first == second
    assert run(tmp_path / "whole")[1] == [first, second]
    made, rows = first
    assert made == 2 and len(rows) == 8
    for number, losses, reason in rows:
        if number % 3:
            assert losses == (2 * number,) and reason is None
        else:
            assert losses is None and reason == "ValueError: divisible by 3"
    assert {number % 3 == 0 for number, _, _ in rows} == {True, False}


def test_a_candidate_that_fails_in_one_process_alone_has_failed(run, tmp_path):
    codes, (first, second) = run(tmp_path, alone=True)
    assert codes == [0, 0] and first == second
    _, rows = first
    expected = {0: "ValueError: divisible by 3", 1: "RuntimeError: process 1: ValueError: odd", 2: None}
    for number, losses, reason in rows:
        assert reason == expected[0 if number % 3 == 0 else 1 if number % 2 else 2]
        assert (losses is None) == (reason is not None)
    assert set(expected.values()) <= {reason for *_, reason in rows}
