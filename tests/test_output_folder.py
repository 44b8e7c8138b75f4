"""Output folders: complete or absent, never shared, never overwritten."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.output_folder import OutputFolder, run_arguments
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import write_json, write_text, writing


def test_a_folder_appears_only_when_finished(tmp_path):
    folder = OutputFolder(tmp_path / "a" / "out", {"seed": 1}).open()
    (folder.work / "checkpoints").mkdir()
    (folder.work / "model.txt").write_text("weights", encoding="utf-8")
    assert not folder.path.exists() and folder.work.name == "out.partial"
    assert folder.finish() == tmp_path / "a" / "out"
    assert sorted(path.name for path in folder.path.iterdir()) == ["model.txt", "run.json"]
    assert not folder.work.exists()
    assert OutputFolder(tmp_path / "a" / "out", {"seed": 1}).complete


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    OutputFolder(tmp_path / "out", {}).open().finish()
    assert (tmp_path / "out" / "run.json").exists()


def test_a_killed_run_is_taken_up_by_the_same_arguments_alone(tmp_path):
    begun = OutputFolder(tmp_path / "out", {"seed": 1, "rate": 0.5}).open()
    (begun.work / "scales.json").write_text("{}", encoding="utf-8")
    begun.lock.close()
    resumed = OutputFolder(tmp_path / "out", {"seed": 1, "rate": 0.5})
    assert not resumed.complete
    with pytest.raises(InputError, match=r"holds a run with rate=0\.5, not 0\.7"):
        OutputFolder(tmp_path / "out", {"seed": 1, "rate": 0.7})


def test_a_run_that_made_nothing_yet_does_not_stand_in_the_way(tmp_path):
    begun = OutputFolder(tmp_path / "out", {"seed": 1}).open()
    with pytest.raises(InputError, match="another process is working on it"):
        OutputFolder(tmp_path / "out", {"seed": 2}).open()
    begun.lock.close()
    OutputFolder(tmp_path / "out", {"seed": 2}).open().finish()
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8")) == {
        "seed": 2,
        "inputs": {},
        "files": {},
    }


def test_a_kill_while_finishing_loses_nothing(tmp_path, monkeypatch):
    folder = OutputFolder(tmp_path / "out", {"seed": 1}).open()
    (folder.work / "checkpoints" / "step-1").mkdir(parents=True)

    class Killed(Exception):
        pass

    def kill(path, *args, **kwargs):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", kill)
        with pytest.raises(Killed):
            folder.finish()
    assert (folder.work / "checkpoints" / "step-1").exists()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", kill)
        with pytest.raises(Killed):
            folder.finish()
    assert OutputFolder(tmp_path / "out", {"seed": 1}).complete
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


def test_what_does_not_decide_the_result_is_not_compared():
    @dataclass
    class Arguments:
        output_dir: str
        seed: int = 0
        losses: list[str] = field(default_factory=lambda: ["a"])
        log_steps: int = 10
        max_skipped_steps: int = 10
        tracker: str | None = None
        license: str | None = None
        language: list[str] | None = None

    assert run_arguments(Arguments("far/away/out")) == {"output_dir": "out", "seed": 0, "losses": ["a"]}


def test_two_processes_do_not_work_on_one_folder(tmp_path):
    first = OutputFolder(tmp_path / "out", {}).open()
    with pytest.raises(InputError, match="another process is working on it"):
        OutputFolder(tmp_path / "out", {}).open()
    first.lock.close()
    OutputFolder(tmp_path / "out", {}).open()


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_strange_folders_are_left_alone(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}': is not empty"):
        OutputFolder(tmp_path / "out", {})


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"b": [1, 2]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"b": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"b": [1, 2]}


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first\r\nline\n")
    assert path.read_bytes() == b"first\r\nline\n"

    class Killed(Exception):
        pass

    with pytest.raises(Killed), writing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert temporary.parent == tmp_path and temporary.name.endswith(".partial")
        raise Killed
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_bytes() == b"first\r\nline\n"
    with writing(path) as temporary:
        temporary.write_text("second", encoding="utf-8")
        assert path.read_bytes() == b"first\r\nline\n"
    assert path.read_text() == "second" and not temporary.exists()


def test_tables_are_markdown():
    rows = [("a|b", 1.234567, None), ("two\nlines", 10, "x")]
    plain = "| name \\| n | value | note |\n| --- | --- | --- |\n| a\\|b | 1.2346 | None |\n| two lines | 10 | x |"
    assert table(("name | n", "value", "note"), rows) == plain
    lines = table(("name", "value"), [("a", 1.5), ("longer", 100)], aligned=True).splitlines()
    assert lines == ["| name   | value |", "| ------ | ----: |", "| a      |   1.5 |", "| longer |   100 |"]


def begin(path: Path, inputs: dict[str, str]) -> None:
    """A run that has made something and was killed."""
    begun = OutputFolder(path, {"seed": 1}).open(inputs)
    (begun.work / "scales.json").write_text("{}", encoding="utf-8")
    begun.lock.close()


def test_a_killed_run_goes_on_only_with_what_it_read(tmp_path):
    read = {"corpus './c.txt'": "1", "teacher 't'": "2"}
    begin(tmp_path / "out", read)
    OutputFolder(tmp_path / "out", {"seed": 1}).open(read).lock.close()
    for name in read:
        with pytest.raises(InputError) as told:
            OutputFolder(tmp_path / "out", {"seed": 1}).open(read | {name: "3"})
        assert str(told.value) == (
            f"{name}: has changed since the run began; delete out.partial or give another --output_dir"
        )
    finished = OutputFolder(tmp_path / "out", {"seed": 1}).open(read)
    finished.finish()
    assert OutputFolder(tmp_path / "out", {"seed": 1}).complete  # the data may be gone by then
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8")) == {
        "seed": 1,
        "inputs": read,
        "files": {},
    }


def test_a_run_that_made_nothing_yet_may_read_something_else(tmp_path):
    OutputFolder(tmp_path / "out", {"seed": 1}).open({"corpus 'c'": "1"}).lock.close()
    OutputFolder(tmp_path / "out", {"seed": 1}).open({"corpus 'c'": "2"}).finish()


def test_a_finished_folder_is_that_of_its_models_and_data(tmp_path):
    models, data = {"model 'm'": "1"}, {"data 'd'": "2"}

    def folder(models: dict[str, str], data: dict[str, str]) -> OutputFolder:
        return OutputFolder(tmp_path / "out", {"seed": 1}, lambda: models, lambda: data)

    folder(models, data).open({"rows": "3"}).finish()
    assert folder(models, data).complete and folder({}, {}).complete  # what is gone is not asked for
    for changed, name in (
        ((models | {"model 'm'": "4"}, data), "model 'm'"),
        ((models, {"data 'd'": "5"}), "data 'd'"),
    ):
        with pytest.raises(InputError) as told:
            folder(*changed)
        assert str(told.value) == f"{name}: has changed since the run began; delete out or give another --output_dir"


def test_the_same_rows_in_other_files_go_on(tmp_path):
    begun = OutputFolder(tmp_path / "out", {"seed": 1}, data=lambda: {"data 'd'": "1"}).open({"rows": "3"})
    (begun.work / "made.txt").write_text("x", encoding="utf-8")
    begun.lock.close()
    begun = OutputFolder(tmp_path / "out", {"seed": 1}, data=lambda: {"data 'd'": "2"})
    begun.open({"rows": "3"}).finish()
    assert OutputFolder(tmp_path / "out", {"seed": 1}, data=lambda: {"data 'd'": "2"}).complete
