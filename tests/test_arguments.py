"""What scripts read, and how they end: bad input and full disks in one line, other faults with a traceback."""

import dataclasses
import errno
import importlib
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors import SafetensorError

from efficientbert import configuration_efficientbert
from efficientbert.__main__ import SCRIPTS
from efficientbert.commands import job_of
from efficientbert.search.arguments import SearchArguments
from efficientbert.train.cli.arguments import check_kinds, make_parser, parse_arguments, read_recipe
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import PRESETS, DistillArguments
from efficientbert.train.tasks.arguments import (
    FinetuneArguments,
)


CLASSES = {name: job_of(name)[1] for name in SCRIPTS}
DISTILL = ["--teacher", "t", "--corpus", "c", "--output-dir", "o"]


@dataclass
class Arguments:
    """Does nothing."""

    size: int = field(default=1, metadata={"help": "A size."})


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

    words: list[str] | None = field(default=None, metadata={"help": "Words."})
    seeds: list[int] = field(default_factory=list, metadata={"help": "Seeds."})
    rate: float = field(default=1.0, metadata={"help": "A rate."})
    name: str | None = field(default=None, metadata={"help": "A name."})
    limit: int | None = field(default=100, metadata={"help": "A limit."})
    on: bool = field(default=False, metadata={"help": "Whether."})


def parse_recipe(text, tmp_path, *flags):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return parse_arguments(Lists, [str(path), *flags], "test")


def test_lists_in_recipes(tmp_path):
    assert parse_recipe("words: validation\nseeds: 3\nrate: 1e-4", tmp_path) == Lists(["validation"], [3], 1e-4)
    assert parse_recipe("words: [a, 2]\nseeds: [0, 1]\nname:", tmp_path) == Lists(["a", "2"], [0, 1])
    assert parse_recipe("words: a b\nname: x", tmp_path) == Lists(["a", "b"], name="x")


def test_list_items_and_quotes_keep_their_spaces(tmp_path):
    assert parse_recipe("words: ['choice a', choice b]", tmp_path).words == ["choice a", "choice b"]
    assert parse_recipe("words:\n- choice a\n- 'b'", tmp_path).words == ["choice a", "b"]
    assert parse_recipe("words: 'choice a'", tmp_path).words == ["choice a"]
    assert parse_recipe("name: two words", tmp_path).name == "two words"


@pytest.mark.parametrize("word", ["no", "yes", "off", "2024-01-01", "1_000", "0x10", "1e3", "12:30", "true", "1.0"])
def test_recipes_read_words_as_flags_do(word, tmp_path):
    by_flag = parse_arguments(Lists, ["--name", word, "--words", word], "test")
    assert parse_recipe(f"name: {word}\nwords: [{word}]", tmp_path) == by_flag
    assert by_flag.name == word and by_flag.words == [word]


@pytest.mark.parametrize(
    ("word", "value"), [("no", False), ("yes", True), ("False", False), ("on", True), ("1", True)]
)
def test_true_and_false(word, value, tmp_path):
    assert parse_recipe(f"on: {word}", tmp_path).on is value
    assert parse_arguments(Lists, ["--on", word], "test").on is value
    assert parse_arguments(Lists, ["--on"], "test").on is True


def test_flags_win_over_the_recipe(tmp_path):
    assert parse_recipe("seeds: [1, 2]\nrate: 2", tmp_path, "--seeds", "3") == Lists(seeds=[3], rate=2.0)


def test_nothing_in_a_recipe_switches_a_default_off(tmp_path):
    assert parse_recipe("limit: null", tmp_path).limit is None
    assert parse_recipe("limit: ~", tmp_path).limit is None
    assert parse_recipe("name: 'null'", tmp_path).name == "null"
    assert parse_recipe("limit: 7", tmp_path).limit == 7
    with pytest.raises(InputError, match="rate: must be a number, not nothing"):
        parse_recipe("rate: null", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words: {a: 1}", "line 1: words: must be plain words or numbers"),
        ("words: [{a: 1}]", "words: must be plain words or numbers"),
        ("rate: 1\nseeds: [a]", "line 2: seeds: must be a whole number, not 'a'"),
        ("rate:", "rate: must be a number, not nothing"),
        ("rate: .inf", "rate: must be a number, not '.inf'"),
        ("rate: inf", "rate: must be a number, not 'inf'"),
        ("limit: 1.5", "limit: must be a whole number, not '1.5'"),
        ("on: perhaps", "on: must be true or false, not 'perhaps'"),
        ("name: [a, b]", "name: must be one value"),
        ("rate: 1\nwords: []", "line 2: words: must hold one value at least"),
        ("seeds: []", "line 1: seeds: must hold one value at least"),
        ("name: ''", "line 1: name: must be text, not ''"),
        ("words: [a, '']", "line 1: words: must be text, not ''"),
        ("rate: 1\nrate: 2", "line 2: 'rate' stands twice"),
        ("nmae: x", "line 1: unknown argument 'nmae'; did you mean 'name'"),
        ("- a", "must hold one argument per line"),
        ("", "must hold one argument per line"),
        ("a: [", "cannot be read"),
    ],
)
def test_values_that_do_not_suit_a_field(text, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_recipe(text, tmp_path)


def test_a_recipe_in_another_encoding(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes("name: Stra\xdfe".encode("latin-1"))
    with pytest.raises(InputError, match=r"recipe '.*recipe\.yaml': cannot be read"):
        parse_arguments(Lists, [str(tmp_path / "recipe.yaml")], "test")


@dataclass
class Needed:
    """Arguments that must be given."""

    first = ("size", "model")

    model: str = field(metadata={"help": "A model."})
    data: str = field(metadata={"help": "Data."})
    size: int = field(default=3, metadata={"help": "A size."})
    late: float = field(default=0.5, metadata={"help": "Later."})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "missing: --model, --data"),
        (["--model", "m"], "missing: --data"),
        (["--modle", "m"], "unknown argument 'modle'; did you mean 'model'?"),
        (["--zzzzzz=1"], "unknown argument 'zzzzzz'; see --help"),
        (["stray", "--model", "m"], "unexpected word 'stray'"),
        (["--size", "x"], "--size: must be a whole number, not 'x'"),
        (["--late", "nan"], "--late: must be a number, not 'nan'"),
        (["--model"], "--model: expected one argument"),
    ],
)
def test_mistakes_are_named_in_one_line(words, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        parse_arguments(Needed, words, "test")
    assert "\n" not in str(raised.value)


def test_dashes_are_underscores_in_flags_alone():
    assert parse_arguments(Lists, ["--name=a-b"], "test").name == "a-b"
    assert parse_arguments(DistillArguments, [*DISTILL, "--max-steps", "7"], "test").max_steps == 7


def test_values_of_python_calls_are_checked():
    with pytest.raises(InputError, match="rate: must be a number, not inf"):
        check_kinds(Lists(rate=float("inf")))
    with pytest.raises(InputError, match="rate: must be a number, not True"):
        check_kinds(Lists(rate=True))
    with pytest.raises(InputError, match="seeds: must be a list, not 3"):
        check_kinds(Lists(seeds=3))
    with pytest.raises(InputError, match=r"limit: must be a whole number, not 1\.5"):
        check_kinds(Lists(limit=1.5))
    with pytest.raises(InputError, match="name: must be text, not ''"):
        check_kinds(Lists(name=""))
    with pytest.raises(InputError, match="words: must be text, not ''"):
        check_kinds(Lists(words=["a", ""]))
    with pytest.raises(InputError, match="words: must hold one value at least"):
        check_kinds(Lists(words=[]))
    check_kinds(Lists(words=["a"], seeds=[], limit=None, rate=2))  # no seeds are the default


def test_help_has_what_matters_first_and_says_defaults():
    shown = make_parser(Needed, "test", "Does it.").format_help()
    assert shown.index("--size") < shown.index("--model") < shown.index("--data") < shown.index("--late")
    assert "(default: 3)" in shown and "(default: 0.5)" in shown


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_flag_has_a_help(command):
    arguments_class = CLASSES[command]
    for entry in dataclasses.fields(arguments_class):
        assert entry.metadata["help"].strip().endswith((".", "…", ")"))
    assert set(getattr(arguments_class, "first", ())) <= {entry.name for entry in dataclasses.fields(arguments_class)}
    make_parser(arguments_class, "test").format_help()


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_help_begins_with_an_example_that_parses(command, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])  # where recipes/ is
    description = importlib.import_module(SCRIPTS[command][0]).__doc__
    shown = make_parser(CLASSES[command], f"efficientbert {command}", description).format_help()
    summary, examples = shown.split("\n\n")[1:3]
    assert summary.endswith(".") and summary.splitlines() == [line.strip() for line in summary.splitlines()]
    lines = [shlex.split(line) for line in examples.replace("\\\n", " ").splitlines()]
    assert lines[0][:2] == ["efficientbert", command]
    for program, name, *argv in lines:
        assert program == "efficientbert"
        parse_arguments(CLASSES[name], argv, name)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", SCRIPTS)
def test_every_help_fits_the_terminal(command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    description = importlib.import_module(SCRIPTS[command][0]).__doc__
    shown = make_parser(CLASSES[command], f"efficientbert {command}", description).format_help()
    assert max(map(len, shown.splitlines())) <= columns and "\nother:" not in shown


def test_the_names_of_presets():
    assert PRESETS == tuple(configuration_efficientbert.PRESETS)


def test_the_recipes_of_the_repository():
    folder = Path(__file__).parents[1] / "recipes"
    classes = {"distill": DistillArguments, "search": SearchArguments, "task": FinetuneArguments}
    classes |= {"squad": FinetuneArguments, "checkpoint": DistillArguments}
    found = sorted(folder.glob("*.yaml"))
    assert found
    for path in found:
        read_recipe(path, classes[path.stem.split("-")[0]])
