"""Interrupted runs whose data or models were changed behind the same path: refused in one line, nothing lost."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from efficientbert.search import search
from efficientbert.train import distill, embed, finetune, multitask
from efficientbert.train.cli.arguments import parse_arguments
from efficientbert.train.cli.errors import InputError
from efficientbert.train.engine import loop


COMMANDS = {
    "distill": (distill.main, distill.DistillArguments),
    "embed": (embed.main, embed.EmbedArguments),
    "finetune": (finetune.main, finetune.FinetuneArguments),
    "multitask": (multitask.main, multitask.MultitaskArguments),
    "search": (search.main, search.SearchArguments),
}
TEXT = ["--max_length", "24", "--held_out", "8", "--init_sequences", "16", "--batch_size", "4"]
STEPS = ["--max_steps", "4", "--checkpoint_steps", "2"]
COLUMNS = ["--text_column", "text", "--label_column", "label"]
SPLITS = ["--train_split", "train[:48]", "--eval_split", "train[48:]", "--batch_size", "8", "--max_length", "24"]
TASK = 'data: task.csv\ntext_column: text\nlabel_column: label\ntrain_split: train[:48]\neval_split: ["train[48:]"]\n'


class Killed(Exception):
    """Stands for the end of a process in the middle of a run."""


def call(command: str, *argv: str) -> None:
    main, arguments_class = COMMANDS[command]
    main(parse_arguments(arguments_class, list(map(str, argv)), command))


@pytest.fixture(scope="module")
def student(tmp_path_factory, teacher_folder, corpus_file, student_file) -> Path:
    """Folder of a tiny student as it begins."""
    folder = tmp_path_factory.mktemp("student") / "out"
    given = ["--teacher", teacher_folder(), "--corpus", corpus_file, "--student", student_file, "--output_dir", folder]
    call("distill", *given, *TEXT, "--max_steps", "0")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, teacher_folder, corpus_file, task_file, student_file, student) -> Path:
    """A current folder with `teacher`, `student` (a checkpoint), `corpus.txt`, `task.csv` and more of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(teacher_folder(), "teacher")
    shutil.copytree(student, "student")
    for source, name in ((corpus_file, "corpus.txt"), (task_file, "task.csv"), (student_file, "student.json")):
        shutil.copy(source, name)
    return tmp_path


def change_line(name: str) -> None:
    """Another word in one line in the middle of a file, which keeps its size."""
    lines = Path(name).read_text(encoding="utf-8").splitlines()
    for old, new in (("word3 ", "word4 "), ("word5 ", "word6 "), ("word7 ", "word8 ")):
        for index in range(20, len(lines)):
            if old in lines[index]:
                lines[index] = lines[index].replace(old, new, 1)
                Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
                return
    raise AssertionError("no such word")


def change_weights(name: str) -> None:
    path = Path(name) / "model.safetensors"
    tensors = load_file(path)
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).view(-1)[0] += 1e-3
    save_file(tensors, path, {"format": "pt"})


def change_projection(name: str) -> None:
    path = Path(name) / "distillation_projection.safetensors"
    save_file({key: tensor + 1e-3 for key, tensor in load_file(path).items()}, path)


def change_yaml(name: str) -> None:
    path = Path(name)
    path.write_text(path.read_text(encoding="utf-8") + "max_length: 23\n", encoding="utf-8")


DISTIL = "--teacher teacher --corpus corpus.txt --student student --output_dir out".split()
FRESH = "--teacher teacher --corpus corpus.txt --student student.json --output_dir out".split()
SOURCE = ["--initialization", "student"]
FINETUNE = "--model student --data task.csv --num_epochs 1 --checkpoint_steps 2 --output_dir out".split()
SEARCH = [*FRESH, *"--stages 1 --warmup_steps 2 --general_steps 2 --num_candidates 1 --initial 1".split()]


@pytest.mark.parametrize(
    ("command", "argv", "change", "name", "message"),
    [
        ("distill", [*DISTIL, *TEXT, *STEPS], change_line, "corpus.txt", "corpus 'corpus.txt'"),
        ("distill", [*DISTIL, *TEXT, *STEPS, "--packing"], change_line, "corpus.txt", "corpus 'corpus.txt'"),
        ("distill", [*DISTIL, *TEXT, *STEPS, "--streaming"], change_line, "corpus.txt", "corpus 'corpus.txt'"),
        ("distill", [*DISTIL, *TEXT, *STEPS], change_weights, "teacher", "teacher 'teacher'"),
        ("distill", [*DISTIL, *TEXT, *STEPS], change_weights, "student", "student 'student'"),
        ("distill", [*DISTIL, *TEXT, *STEPS], change_projection, "student", "student 'student'"),
        ("distill", [*FRESH, *TEXT, *STEPS, *SOURCE], change_weights, "student", "initialization 'student'"),
        ("embed", [*DISTIL, *TEXT, *STEPS], change_line, "corpus.txt", "corpus 'corpus.txt'"),
        ("embed", [*DISTIL, *TEXT, *STEPS], change_weights, "teacher", "teacher 'teacher'"),
        ("finetune", [*FINETUNE, *COLUMNS, *SPLITS], change_line, "task.csv", "data of task 'task'"),
        ("finetune", [*FINETUNE, *COLUMNS, *SPLITS], change_weights, "student", "model 'student'"),
        ("search", [*SEARCH, *TEXT], change_line, "corpus.txt", "corpus 'corpus.txt'"),
    ],
)  # fmt: skip
def test_what_was_changed_is_named(command, argv, change, name, message, place, monkeypatch):
    started(command, argv, monkeypatch)
    shutil.copytree(name, "kept") if Path(name).is_dir() else shutil.copy2(name, "kept")
    change(name)
    before = {
        path: path.stat().st_mtime_ns for path in Path("out.partial" if command != "search" else "out").rglob("*")
    }
    with pytest.raises(InputError) as told:
        call(command, *argv)
    work = "out" if command == "search" else "out.partial"
    assert str(told.value) == (
        f"{message}: has changed since the run began; delete {work} or give another --output_dir"
    )
    assert all(path.name == ".lock" or path.stat().st_mtime_ns == time for path, time in before.items())
    # As it was, it goes on.
    shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    shutil.move("kept", name)
    call(command, *argv)
    assert Path("out").is_dir()


def started(command: str, argv: list[str], monkeypatch) -> None:
    """Runs a command until it is killed behind its first checkpoint; a search to its end."""
    if command == "search":
        call(command, *argv)
        return
    real = loop.save_checkpoint

    def save(*given) -> None:
        real(*given)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_checkpoint", save)
        with pytest.raises(Killed):
            call(command, *argv)


@pytest.mark.parametrize(("change", "name"), [(change_line, "task.csv"), (change_yaml, "mine.yaml")])
def test_a_task_of_several_that_was_changed_is_named(change, name, place, monkeypatch):
    Path("mine.yaml").write_text(TASK, encoding="utf-8")
    argv = (
        "--model student --tasks mine.yaml --num_epochs 1 --batch_size 8 --checkpoint_steps 2 --output_dir out".split()
    )
    started("multitask", argv, monkeypatch)
    change(name)
    with pytest.raises(InputError, match=r"(data of task 'task'|tasks 'mine.yaml'): has changed since the run began"):
        call("multitask", *argv)


def test_a_finished_run_needs_no_data(place, capsys):
    argv = [*DISTIL, *TEXT, "--max_steps", "1"]
    call("distill", *argv)
    Path("corpus.txt").unlink()
    shutil.rmtree("teacher")
    call("distill", *argv)
    assert "is complete already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "change", "name", "what"),
    [
        ("distill", change_line, "corpus.txt", "corpus 'corpus.txt'"),
        ("distill", change_weights, "teacher", "teacher 'teacher'"),
        ("embed", change_weights, "student", "student 'student'"),
        ("finetune", change_line, "task.csv", "data 'task.csv'"),
        ("finetune", change_weights, "student", "model 'student'"),
    ],
)
def test_a_finished_folder_is_not_that_of_what_has_changed(command, change, name, what, place):
    argv = [*FINETUNE, *COLUMNS, *SPLITS] if command == "finetune" else [*DISTIL, *TEXT, "--max_steps", "1"]
    call(command, *argv)
    change(name)
    with pytest.raises(InputError) as told:
        call(command, *argv)
    assert str(told.value) == f"{what}: has changed since the run began; delete out or give another --output_dir"
    assert (Path("out") / "model.safetensors").exists()


@pytest.mark.parametrize("flag", ["--student", "--initialization"])
def test_a_checkpoint_of_another_tokenizer_is_refused(flag, place):
    path = Path("teacher") / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    swapped = text.replace('"word3": 8', '"word3": -1').replace('"word4": 9', '"word4": 8').replace(": -1", ": 9")
    assert swapped != text
    path.write_text(swapped, encoding="utf-8")
    argv = [*DISTIL, *TEXT] if flag == "--student" else [*FRESH, *TEXT, *SOURCE]
    with pytest.raises(InputError) as told:
        call("distill", *argv, "--max_steps", "1")
    assert str(told.value) == (
        f"{flag[2:]} 'student': its tokenizer is not that of teacher 'teacher': token 'word3' is 8 here and 9 there; "
        "distil a student from this teacher first"
    )
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["distill", "embed", "finetune"])
def test_no_weights_are_saved_that_are_not_finite(command, place, monkeypatch):
    """A rate that float32 cannot hold after one step makes them so, whatever the loss was before."""
    argv = [*FINETUNE, *COLUMNS, *SPLITS] if command == "finetune" else [*DISTIL, *TEXT, "--max_steps", "6"]
    for rate in ("1e39", "1e30"):
        with pytest.raises(InputError, match="not finite"):
            call(command, *argv, "--learning_rate", rate, "--warmup_ratio", "0", "--output_dir", rate)
        assert not Path(rate).exists()
        saved = [load_file(path) for path in Path(f"{rate}.partial").rglob("*.safetensors")]
        assert all(tensor.isfinite().all() for tensors in saved for tensor in tensors.values())
