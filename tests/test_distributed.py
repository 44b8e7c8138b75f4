"""Two processes do what one does with the double batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


ROOT = Path(__file__).parents[1]


def torchrun(processes: int, script: str, arguments: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    ended = subprocess.run([*command, str(ROOT / script), *arguments], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.parametrize("command", ["distill", "search"])
def test_two_processes_give_the_weights_of_one_with_the_double_batch(
    command, teacher_folder, corpus_file, student_file, tmp_path
):
    common = ["--teacher", teacher_folder(), "--corpus", corpus_file, "--student", student_file, "--max_length", "24"]
    common += ["--held_out", "8", "--init_sequences", "16", "--checkpoint_steps", "2"]
    if command == "distill":
        script, more = "train/distill.py", ["--max_steps", "5"]
    else:
        script, more = "search/search.py", ["--warmup_steps", "2", "--sampled_steps", "3", "--num_candidates", "2"]
    for processes, batch_size in ((1, "4"), (2, "2")):
        output = tmp_path / str(processes)
        torchrun(processes, script, [*common, *more, "--batch_size", batch_size, "--output_dir", str(output)])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
