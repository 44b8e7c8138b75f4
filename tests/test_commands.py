"""The commands end to end on tiny models: what they write, how they resume, and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from efficientbert.__main__ import SCRIPTS
from efficientbert.train import distill
from efficientbert.train.cli.command import run_command
from efficientbert.train.model_folder.record import read_provenance


ROOT = Path(__file__).parents[1]
TEXT = ["--max_length", "24", "--held_out", "8", "--init_sequences", "16", "--batch_size", "4"]


def call(module, arguments_class, *argv: str) -> None:
    run_command(module.main, arguments_class, "test", list(map(str, argv)))


def distill_arguments(teacher: str, corpus: str, student: str, output: Path, *more: str) -> list[str]:
    arguments = ["--teacher", teacher, "--corpus", corpus, "--student", student, "--output_dir", str(output)]
    steps = [] if "--max_steps" in more else ["--max_steps", "6"]
    return [*arguments, *TEXT, *steps, "--checkpoint_steps", "2", *more]


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "mpnet", "distilbert"])
def test_distill_from_every_family(family, teacher_folder, corpus_file, student_file, tmp_path):
    arguments = distill_arguments(teacher_folder(family), corpus_file, student_file, tmp_path / "out")
    call(distill, distill.DistillArguments, *arguments)
    model = AutoModel.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(["word1 word2", "word3 word4 word5"], padding=True, return_tensors="pt")
    assert model(**batch).last_hidden_state.isfinite().all()
    assert (
        tokenizer("word7")["input_ids"] == AutoTokenizer.from_pretrained(teacher_folder(family))("word7")["input_ids"]
    )
    assert not (tmp_path / "out.partial").exists()
    projection = load_file(tmp_path / "out" / "distillation_projection.safetensors")
    assert projection["weight"].shape == (24, 18)
    (step,) = read_provenance(tmp_path / "out")
    assert step["step"] == "distill" and 0 < step["result"]["loss"] < 100
    assert not {"losses", "layer_map"} & step["arguments"].keys() and step["arguments"]["corpus"] == "./corpus.txt"
    assert "How it was made" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_distillation_lowers_the_held_out_loss(teacher_folder, corpus_file, student_file, tmp_path):
    losses = []
    for steps in ("0", "60"):
        more = ("--max_steps", steps, "--learning_rate", "3e-3")
        arguments = distill_arguments(teacher_folder(), corpus_file, student_file, tmp_path / steps, *more)
        call(distill, distill.DistillArguments, *arguments)
        losses.append(read_provenance(tmp_path / steps)[0]["result"]["loss"])
    assert losses[1] < 0.8 * losses[0]


def test_distill_goes_on_from_a_checkpoint_with_its_projection(teacher_folder, corpus_file, student_file, tmp_path):
    call(
        distill,
        distill.DistillArguments,
        *distill_arguments(teacher_folder(), corpus_file, student_file, tmp_path / "a"),
    )
    arguments = distill_arguments(
        teacher_folder(), corpus_file, str(tmp_path / "a"), tmp_path / "b", "--max_steps", "0"
    )
    call(distill, distill.DistillArguments, *arguments)
    for name in ("model.safetensors", "distillation_projection.safetensors"):
        one, other = load_file(tmp_path / "a" / name), load_file(tmp_path / "b" / name)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert [step["step"] for step in read_provenance(tmp_path / "b")] == ["distill", "distill"]


def test_streaming_gives_the_same_starting_student(teacher_folder, corpus_file, student_file, tmp_path):
    for name, more in (("cached", []), ("streamed", ["--streaming", "true"])):
        more = [*more, "--max_steps", "0"]
        arguments = distill_arguments(teacher_folder(), corpus_file, student_file, tmp_path / name, *more)
        call(distill, distill.DistillArguments, *arguments)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("cached", "streamed"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    arguments = distill_arguments(teacher_folder(), corpus_file, student_file, tmp_path / "run", "--streaming", "true")
    call(distill, distill.DistillArguments, *arguments)


def test_killed_and_started_again_gives_the_same(teacher_folder, corpus_file, student_file, kill_behind, tmp_path):
    """kill -9 behind a checkpoint."""
    whole, cut = tmp_path / "whole" / "out", tmp_path / "cut" / "out"
    call(distill, distill.DistillArguments, *distill_arguments(teacher_folder(), corpus_file, student_file, whole))
    arguments = distill_arguments(teacher_folder(), corpus_file, student_file, cut)
    kill_behind(4, "distill", *arguments)
    assert not cut.exists() and (tmp_path / "cut" / "out.partial").exists()
    call(distill, distill.DistillArguments, *arguments)
    one, other = load_file(whole / "model.safetensors"), load_file(cut / "model.safetensors")
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.fixture(scope="module")
def distilled(teacher_folder, corpus_file, student_file, tmp_path_factory) -> str:
    """Folder of a tiny distilled student."""
    output = tmp_path_factory.mktemp("distilled") / "out"
    call(distill, distill.DistillArguments, *distill_arguments(teacher_folder(), corpus_file, student_file, output))
    return str(output)


def test_an_output_folder_in_use_is_left_alone(teacher_folder, corpus_file, student_file, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "precious.txt").write_text("mine", encoding="utf-8")
    arguments = distill_arguments(teacher_folder(), corpus_file, student_file, output)
    with pytest.raises(SystemExit) as ended:
        call(distill, distill.DistillArguments, *arguments)
    assert ended.value.code == 2 and "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (output / "precious.txt").read_text() == "mine"


def test_a_complete_folder_is_not_made_again_nor_overwritten(
    teacher_folder, corpus_file, student_file, tmp_path, capsys
):
    arguments = distill_arguments(teacher_folder(), corpus_file, student_file, tmp_path / "out")
    call(distill, distill.DistillArguments, *arguments)
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    call(distill, distill.DistillArguments, *arguments)
    assert "complete already" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        call(distill, distill.DistillArguments, *arguments, "--seed", "5")
    assert ended.value.code == 2 and "holds a run with seed=0, not 5" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_recipes(teacher_folder, corpus_file, student_file, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"teacher: {teacher_folder()}\ncorpus: {corpus_file}\nstudent: {student_file}\nlearning_rate: 1e-3\n"
        f"max_length: 24\nheld_out: 8\ninit_sequences: 16\nmax_steps: 9\noutput_dir: {tmp_path / 'out'}\n",
        encoding="utf-8",
    )
    call(distill, distill.DistillArguments, recipe, "--max_steps", "0")
    arguments = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert arguments["max_steps"] == 0 and arguments["learning_rate"] == 1e-3
    recipe.write_text("teecher: x\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        call(distill, distill.DistillArguments, recipe)
    assert ended.value.code == 2 and "unknown argument 'teecher'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing: --corpus, --output_dir, --teacher; see --help"),
        (
            ["--corpus", "a", "--teacher", "b", "--output_dir", "c", "--max_steps", "many"],
            "--max_steps: must be a whole number, not 'many'",
        ),
        (
            ["--corpus", "a", "--teacher", "b", "--output_dir", "c", "--teecher", "d"],
            "unknown argument 'teecher'; did you mean 'teacher'?",
        ),
    ],
)
def test_wrong_flags_get_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        call(distill, distill.DistillArguments, *arguments)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and message in line


@pytest.mark.parametrize("command", sorted(SCRIPTS))
def test_every_command_has_help(command):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "efficientbert", command, "--help"], capture_output=True, text=True, env=environment
    )
    assert shown.returncode == 0 and "--" in shown.stdout and f"efficientbert {command}" in shown.stdout


def test_scripts_run_by_path_and_as_modules():
    for words in ([str(ROOT / "train" / "distill.py")], ["-m", "efficientbert.train.distill"]):
        shown = subprocess.run([sys.executable, *words, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0 and "--teacher" in shown.stdout, shown.stderr
