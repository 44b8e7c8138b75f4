"""Commands as Python functions: the flags as keyword arguments, and what they return."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import efficientbert
from efficientbert import commands
from efficientbert.__main__ import SCRIPTS
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.tasks.arguments import EvaluateArguments


SIZES = {"max_length": 24, "held_out": 8, "init_sequences": 16, "batch_size": 4}


def test_every_command_is_a_function():
    assert set(SCRIPTS) <= set(commands.__all__)
    assert efficientbert.commands is commands
    assert efficientbert.search.__name__ == "efficientbert.search" and inspect.ismodule(efficientbert.search)
    for name in SCRIPTS:
        function = getattr(commands, name)
        assert (function.__name__, inspect.signature(function).return_annotation) == (name, commands.Outcome)
        assert "Args:" in function.__doc__


@pytest.mark.parametrize(
    ("function", "arguments_class"),
    [(commands.distill, DistillArguments), (commands.evaluate, EvaluateArguments)],
)
def test_names_and_defaults_are_those_of_the_flags(function, arguments_class):
    parameters = inspect.signature(function).parameters
    assert list(parameters) == [field.name for field in dataclasses.fields(arguments_class)]
    for field in dataclasses.fields(arguments_class):
        if field.default is not dataclasses.MISSING:
            assert parameters[field.name].default == field.default
        assert field.metadata["help"] in function.__doc__


def test_a_walk(teacher_folder, corpus_file, student_file, task_file, tmp_path, capfd):
    """From a teacher to a scored classifier, without bars; a folder that is complete gives the same figures again."""
    teacher_folder()
    capfd.readouterr()  # of making the teacher
    text = {"teacher": teacher_folder(), "corpus": corpus_file, "student": student_file, "max_steps": 2, **SIZES}
    made = commands.distill(output_dir=tmp_path / "student", **text)
    assert made.path == tmp_path / "student" and 0 < made.figures["cosine"] <= 1
    assert commands.distill(output_dir=str(tmp_path / "student"), **text) == made

    task = {"data": task_file, "text_column": "text", "num_epochs": 1, "max_length": 24, "eval_split": ["train[:10]"]}
    tuned = commands.finetune(model=str(made.path), output_dir=str(tmp_path / "tuned"), **task)
    assert tuned.path == tmp_path / "tuned" and set(tuned.figures) == {"train[:10]"}
    assert commands.finetune(model=str(made.path), output_dir=str(tmp_path / "tuned"), **task) == tuned

    split = {"split": "train[:10]", "data": task_file, "bootstrap": 0}
    scored = commands.evaluate(model=str(tuned.path), output_json=str(tmp_path / "scores.json"), **split)
    assert scored.path == tmp_path / "scores.json" and json.loads(scored.path.read_text()) == scored.figures
    assert scored.figures["results"][0]["metrics"] == pytest.approx(tuned.figures["train[:10]"])
    assert commands.evaluate(model=str(tuned.path), **split).path is None
    shown = capfd.readouterr().err
    assert "Fine-tuning on task: step" in shown and "%|" not in shown and "it/s" not in shown, shown


@pytest.mark.parametrize("name", SCRIPTS)
def test_arguments_are_named(name):
    with pytest.raises(TypeError, match=rf"^{name}\(\) takes keyword arguments alone, as in {name}\(\w+='a', …\)$"):
        getattr(commands, name)("a", "b")
    kinds = {parameter.kind for parameter in inspect.signature(getattr(commands, name)).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": float("inf")}, "learning_rate: must be a number, not inf"),
        ({"max_steps": "3"}, "max_steps: must be a whole number, not '3'"),
        ({"losses": "hidden_states"}, "losses: must be a list, not 'hidden_states'"),
        ({"batch_size": 0}, "batch_size: must be at least 1, not 0"),
        ({"teacher": ""}, "teacher: must be text, not ''"),
        ({"output_dir": ""}, "output_dir: must be text, not ''"),
        ({"losses": []}, "losses: must hold one value at least"),
        ({"layer_map": ()}, "layer_map: must hold one value at least"),
        ({"language": []}, "language: must hold one value at least"),
    ],
)
def test_bad_input_raises_what_the_command_would_print(changes, message, tmp_path):
    arguments = {"teacher": "t", "corpus": "c.txt", "output_dir": str(tmp_path / "out")}
    with pytest.raises(InputError, match=message):
        commands.distill(**arguments | changes)
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 3}, "unknown argument 'epochs'; did you mean 'num_epochs'?"),
        ({"model": "m", "zzzzzz": 1}, "unknown argument 'zzzzzz'; see help(efficientbert.commands.finetune)"),
        ({"model": "m"}, "missing: output_dir; see help(efficientbert.commands.finetune)"),
        ({"data": "d.csv"}, "missing: output_dir, model; see help(efficientbert.commands.finetune)"),
    ],
)
def test_unknown_and_missing_arguments_are_bad_input(arguments, message):
    with pytest.raises(InputError) as raised:
        commands.finetune(**arguments)
    assert str(raised.value) == message
