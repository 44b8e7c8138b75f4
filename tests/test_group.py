"""Processes that evaluate every candidate together: failures of all, and one that is killed."""

import multiprocessing
import os
import signal
import socket
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from efficientbert.search.samplers import RandomSampler
from efficientbert.search.study.group import Group
from efficientbert.search.study.stop_rule import StopRule
from efficientbert.search.study.storage import open_storage
from efficientbert.search.study.study import StageStudy


FORK = multiprocessing.get_context("fork")


class Numbers:
    """A space of numbers."""

    def sample(self, rng):
        return rng.randrange(1000)

    def key(self, number):
        return number


def work(rank: int, port: int, folder: Path, kill_at: int, alone: bool, told) -> None:
    """One of two processes: a job, and eight candidates; the second is killed in one of them, or fails alone."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    AcceleratorState._reset_state(True)  # of a test before
    accelerator, seen = Accelerator(cpu=True), []
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


def run(folder: Path, kill_at: int = 0, alone: bool = False) -> tuple[list[int], list]:
    """Two processes without a launcher that would end one for the other; their exit codes and what they tell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = FORK.Queue()
    workers = [FORK.Process(target=work, args=(rank, port, folder, kill_at, alone, told)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    found = [] if kill_at else sorted(told.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers], [what for _, *what in found]


def test_a_killed_process_fails_no_candidate(tmp_path):
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


def test_a_candidate_that_fails_in_one_process_alone_has_failed(tmp_path):
    codes, (first, second) = run(tmp_path, alone=True)
    assert codes == [0, 0] and first == second
    _, rows = first
    expected = {0: "ValueError: divisible by 3", 1: "RuntimeError: process 1: ValueError: odd", 2: None}
    for number, losses, reason in rows:
        assert reason == expected[0 if number % 3 == 0 else 1 if number % 2 else 2]
        assert (losses is None) == (reason is not None)
    assert set(expected.values()) <= {reason for *_, reason in rows}
