"""Two processes do what one does with the double batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


ROOT = Path(__file__).parents[1]


# Trains one weight on rows 1 to 40 in every way the loop has, and writes down what each process saw and ended with.
WORKER = """
import json, os, sys
from pathlib import Path
import torch
from datasets import Dataset
from torch import nn
from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.loop import train

FOLDER = Path(sys.argv[1])
RANK = int(os.environ["RANK"])
LENGTHS = [1 + row * 7 % 11 for row in range(40)]


class Killed(Exception):
    pass


class Seen:
    def __init__(self, killed_at=None, nan_at=None):
        self.killed_at, self.nan_at, self.rows = killed_at, nan_at, []

    def count(self, batch):
        return {"rows": torch.tensor(float(len(batch["x"])))}

    def __call__(self, model, batch, counts, step):
        if step == self.killed_at:
            raise Killed
        self.rows.append(batch["x"][:, 0].int().tolist())
        loss = (model(batch["x"]) - 1).square().sum() / counts["rows"]
        if step == self.nan_at and RANK == 1:
            loss = loss.detach() * float("nan") + 0 * loss  # the other process has nothing to complain of
        return loss, {}


def run(name, rows, objective, steps=5, lengths=None, **changes):
    args = LoopArguments(batch_size=4, learning_rate=0.1, checkpoint_steps=2, **changes)
    accelerator = make_accelerator(args, FOLDER)
    torch.manual_seed(0)
    model = nn.Linear(1, 1)

    def collate(rows):
        return {"x": torch.tensor([[float(row["x"])] for row in rows])}

    checkpoints, end = FOLDER / name, ""
    try:
        log = train(accelerator, model, objective, rows, collate, args, steps, checkpoints, name, lengths=lengths)
    except (Killed, InputError) as error:
        end, log = str(error), []
    result = {"rows": objective.rows, "weight": model.weight.item(), "log": log, "end": end}
    (FOLDER / f"{name}-{RANK}-{len(objective.rows)}.json").write_text(json.dumps(result))


ROWS = Dataset.from_dict({"x": list(range(1, 41))})
for name, rows, lengths in (
    ("cached", ROWS, None),
    ("like-lengths", ROWS, LENGTHS),
    ("stream", ROWS.to_iterable_dataset(num_shards=3).shuffle(seed=1, buffer_size=9), None),
):
    run(name, rows, Seen(), lengths=lengths)
    run(name + "-cut", rows, Seen(killed_at=3), lengths=lengths)
    run(name + "-cut", rows, Seen(), lengths=lengths, steps=5)
run("skipped", ROWS, Seen(nan_at=1))
run("too-many", ROWS, Seen(nan_at=2), max_skipped_steps=0)
"""


def torchrun(processes: int, script: str | Path, arguments: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    ended = subprocess.run([*command, str(ROOT / script), *arguments], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.parametrize(
    ("command", "losses"),
    [("distill", ["hidden_states", "attention_scores"]), ("distill", ["qkv_relations"]), ("search", None)],
)
def test_two_processes_give_the_weights_of_one_with_the_double_batch(
    command, losses, teacher_folder, corpus_file, student_file, tmp_path
):
    common = ["--teacher", teacher_folder(), "--corpus", corpus_file, "--student", student_file, "--max_length", "24"]
    common += ["--held_out", "8", "--init_sequences", "16", "--checkpoint_steps", "2"]
    if command == "distill":
        script, more = "train/distill.py", ["--max_steps", "5", "--losses", *losses]
    else:
        script, more = "search/search.py", ["--warmup_steps", "2", "--general_steps", "2", "--sampled_steps", "2"]
        more += ["--num_candidates", "2"]
    for processes, batch_size in ((1, "4"), (2, "2")):
        output = tmp_path / str(processes)
        torchrun(processes, script, [*common, *more, "--batch_size", batch_size, "--output_dir", str(output)])
    found = "best/model.safetensors" if command == "search" else "model.safetensors"
    one, two = (load_file(tmp_path / name / found) for name in ("1", "2"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """Folder with what `WORKER` wrote in two processes: files `NAME-PROCESS-BATCHES.json`."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "worker.py").write_text(WORKER, encoding="utf-8")
    torchrun(2, folder / "worker.py", [str(folder)])
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
