"""What scripts read, and how they end: bad input and full disks in one line, other faults with a traceback."""

import errno
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors import SafetensorError

from efficientbert.search.arguments import SearchArguments
from efficientbert.train.cli.arguments import parse_arguments, read_recipe
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import DistillArguments
from efficientbert.train.tasks.arguments import FinetuneArguments


@dataclass
class Arguments:
    """Does nothing."""

    size: int = 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("size: must be\nabove 0"), "size: must be above 0"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.json"),
            "disk full: [Errno 28] No space left on device: ",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full: [Errno 122] Disk quota exceeded; make room"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "disk full: I/O error: No space left"),
    ],
)
def test_bad_input_and_full_disks_end_in_one_line(error, line, capsys):
    def main(args):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main, Arguments, "test", [])
    assert ended.value.code == 2
    written = capsys.readouterr().err
    assert written.startswith(f"efficientbert test: error: {line}") and written.count("\n") == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), SafetensorError("header"), KeyError("x")]
)
def test_other_errors_are_not_hidden(error):
    def main(args):
        raise error

    with pytest.raises(type(error)):
        run_command(main, Arguments, "test", [])


@dataclass
class Lists:
    """Arguments of several kinds."""

    words: list[str] | None = None
    seeds: list[int] = field(default_factory=list)
    rate: float = 1.0
    name: str | None = None
    limit: int | None = 100


def parse_recipe(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return parse_arguments(Lists, [str(path)], "test", "")


def test_lists_in_recipes(tmp_path):
    assert parse_recipe("words: validation\nseeds: 3\nrate: 1e-4", tmp_path) == Lists(["validation"], [3], 1e-4)
    assert parse_recipe("words: [a, 2]\nseeds: [0, 1]\nname:", tmp_path) == Lists(["a", "2"], [0, 1])
    assert parse_recipe("words: a b\nname: x", tmp_path) == Lists(["a", "b"], name="x")


def test_nothing_in_a_recipe_switches_a_default_off(tmp_path):
    assert parse_recipe("limit: null", tmp_path).limit is None
    assert parse_recipe("limit: 7", tmp_path).limit == 7
    with pytest.raises(InputError, match="rate: must be plain words or numbers"):
        parse_recipe("rate: null", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words: {a: 1}", "words: must be plain words or numbers"),
        ("words: [{a: 1}]", "words: must be plain words or numbers"),
        ("seeds: [a]", "seeds: must be whole numbers"),
        ("rate:", "rate: must be plain words or numbers"),
        ("name: [a, b]", "name: must be one value"),
    ],
)
def test_values_that_do_not_suit_a_field(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        parse_recipe(text, tmp_path)


def test_the_recipes_of_the_repository():
    folder = Path(__file__).parents[1] / "recipes"
    classes = {"distill": DistillArguments, "search": SearchArguments, "task": FinetuneArguments}
    classes["squad"] = FinetuneArguments
    found = sorted(folder.glob("*.yaml"))
    assert found
    for path in found:
        read_recipe(path, classes[path.stem.split("-")[0]])
