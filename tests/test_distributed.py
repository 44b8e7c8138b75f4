"""Two processes do what one does with the double batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn

from efficientbert.commands import job_of
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.loop import train


ROOT = Path(__file__).parents[1]


class Killed(Exception):
    """What ends a training in a step."""


class Seen:
    """An objective of one weight that writes down the rows it is given.

    Args:
        killed_at: Step in which it ends the training.
        nan_at: Step whose loss is not finite, in the second process alone.
    """

    def __init__(self, killed_at: int | None = None, nan_at: int | None = None):
        self.killed_at, self.nan_at, self.rows = killed_at, nan_at, []

    def count(self, batch):
        return {"rows": torch.tensor(float(len(batch["x"])))}

    def __call__(self, model, batch, counts, step):
        if step == self.killed_at:
            raise Killed
        self.rows.append(batch["x"][:, 0].int().tolist())
        loss = (model(batch["x"]) - 1).square().sum() / counts["rows"]
        if step == self.nan_at and torch.distributed.get_rank() == 1:
            loss = loss.detach() * float("nan") + 0 * loss  # the other process has nothing to complain of
        return loss, {}


def collate(rows):
    return {"x": torch.tensor([[float(row["x"])] for row in rows])}


def write_training(folder: Path, name: str, rows, objective: Seen, lengths=None, **changes) -> None:
    """Trains one weight for five steps, and writes down what this process saw and ended with."""
    args = LoopArguments(batch_size=4, learning_rate=0.1, checkpoint_steps=2, **changes)
    accelerator = make_accelerator(args, folder)
    torch.manual_seed(0)
    model, end = nn.Linear(1, 1), ""
    try:
        log = train(accelerator, model, objective, rows, collate, args, 5, folder / name, name, lengths=lengths)
    except (Killed, InputError) as error:
        end, log = str(error), []
    result = {"rows": objective.rows, "weight": model.weight.item(), "log": log, "end": end}
    path = folder / f"{name}-{accelerator.process_index}-{len(objective.rows)}.json"
    path.write_text(json.dumps(result), encoding="utf-8")


def write_trainings(folder: Path) -> None:
    """Trains on rows 1 to 40 in every way that the loop has."""
    rows = Dataset.from_dict({"x": list(range(1, 41))})
    for name, data, lengths in (
        ("cached", rows, None),
        ("like-lengths", rows, [1 + row * 7 % 11 for row in range(40)]),
        ("stream", rows.to_iterable_dataset(num_shards=3).shuffle(seed=1, buffer_size=9), None),
    ):
        write_training(folder, name, data, Seen(), lengths)
        write_training(folder, name + "-cut", data, Seen(killed_at=3), lengths)
        write_training(folder, name + "-cut", data, Seen(), lengths)
    write_training(folder, "skipped", rows, Seen(nan_at=1))
    write_training(folder, "too-many", rows, Seen(nan_at=2), max_skipped_steps=0)


def run(command: str, *words: str) -> None:
    run_command(*job_of(command), command, list(words))


def torchrun(script: str, *words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ended = subprocess.run([*line, str(ROOT / script), *words], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]


DISTIL = ("--max_steps", "5", "--losses")
SEARCH = ("--warmup_steps", "2", "--general_steps", "2", "--sampled_steps", "2", "--num_candidates", "2")


@pytest.mark.parametrize(
    ("command", "more", "launched"),
    [
        ("distill", (*DISTIL, "hidden_states", "attention_scores"), True),
        ("distill", (*DISTIL, "qkv_relations"), False),
        ("search", SEARCH, False),
    ],
)
def test_two_processes_give_the_weights_of_one_with_the_double_batch(
    command, more, launched, teacher_folder, corpus_file, student_file, ranks, tmp_path
):
    words = ["--teacher", teacher_folder(), "--corpus", corpus_file, "--student", student_file, "--max_length", "24"]
    words += ["--held_out", "8", "--init_sequences", "16", "--checkpoint_steps", "2", *more]
    run(command, *words, "--batch_size", "4", "--output_dir", str(tmp_path / "1"))
    words += ["--batch_size", "2", "--output_dir", str(tmp_path / "2")]
    if launched:
        torchrun("train/distill.py", *words)
    else:
        assert ranks(lambda: run(command, *words)) == [0, 0]
    found = "best/model.safetensors" if command == "search" else "model.safetensors"
    one, two = (load_file(tmp_path / name / found) for name in ("1", "2"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def two_processes(ranks, tmp_path_factory) -> Path:
    """Folder with what `write_trainings` wrote in two processes: files `NAME-PROCESS-BATCHES.json`."""
    folder = tmp_path_factory.mktemp("two")
    assert ranks(lambda: write_trainings(folder)) == [0, 0]
    return folder


def read(folder: Path, name: str, batches: int = 5) -> list[dict]:
    return [json.loads((folder / f"{name}-{rank}-{batches}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["cached", "like-lengths", "stream"])
def test_no_row_is_seen_twice_and_a_killed_run_goes_on(name, two_processes):
    whole = read(two_processes, name)
    assert sorted(row for seen in whole for batch in seen["rows"] for row in batch) == list(range(1, 41))
    resumed = read(two_processes, name + "-cut", 3)  # up to the kill in the fourth step
    assert [seen["rows"] for seen in resumed] == [seen["rows"][2:] for seen in whole]
    assert {seen["weight"] for seen in resumed} == {seen["weight"] for seen in whole}


def test_batches_of_both_processes_have_like_lengths(two_processes):
    first, second = read(two_processes, "like-lengths")
    batches = [[1 + (row - 1) * 7 % 11 for row in one + other] for one, other in zip(first["rows"], second["rows"])]
    assert all(batch == sorted(batch) for batch in batches)


def test_both_processes_skip_a_step_that_failed_in_one(two_processes):
    one, other = read(two_processes, "skipped")
    assert one["weight"] == other["weight"] == one["weight"]
    assert one["log"][0]["skipped"] == other["log"][0]["skipped"] == 1
    for seen in read(two_processes, "too-many", 3):
        assert "step 3: loss not finite" in seen["end"]
