"""Digests: the same for the same rows and models however they are kept, another for any change."""

import copy
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from safetensors.torch import load_file, save_file

from efficientbert.train.files.digests import BLOCK, digest, digest_files, digest_model, digest_rows


FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "choices": List(List(Value("int64"))),
        "label": Value("float32"),
        "known": Value("bool"),
        "text": Value("string"),
        "answers": {"text": List(Value("string")), "start": List(Value("int32"))},
    }
)


def make_rows(size: int = 23) -> list[dict]:
    rng = random.Random(0)

    def ids() -> list[int]:
        return [rng.randrange(100) for _ in range(rng.randrange(6))]

    return [
        {
            "input_ids": ids(),
            "choices": [ids() for _ in range(rng.randrange(3))],
            "label": None if rng.random() < 0.2 else rng.random(),
            "known": rng.random() < 0.5,
            "text": None if rng.random() < 0.2 else f"täxt {rng.random()}",
            "answers": {"text": ["a"] * rng.randrange(2), "start": ids()},
        }
        for _ in range(size)
    ]


def dataset(rows: list[dict]) -> Dataset:
    return Dataset.from_list(rows, features=FEATURES)


def test_rows_are_the_same_however_they_are_kept(tmp_path):
    rows = make_rows(BLOCK + 23)
    plain = dataset(rows)
    plain.save_to_disk(tmp_path / "rows")
    shuffled = plain.select([*range(7, len(rows)), *range(7)])
    variants = [
        Dataset.load_from_disk(str(tmp_path / "rows")),
        concatenate_datasets([dataset(rows[:5]), dataset(rows[5:])]),
        dataset([*rows[-3:], *rows, *rows[:3]]).select(range(3, len(rows) + 3)),
        concatenate_datasets(
            [shuffled.select(range(len(rows) - 7, len(rows))), shuffled.select(range(len(rows) - 7))]
        ),
        plain.with_format("torch"),
    ]
    assert {digest_rows(variant) for variant in variants} == {digest_rows(plain)}


def test_any_change_of_rows_is_another_digest():
    rows = make_rows()
    variants = [rows[:-1], rows[1:], [rows[1], rows[0], *rows[2:]], [*rows, rows[-1]]]
    for index in (0, 11, 22):
        changes = {
            "input_ids": [*rows[index]["input_ids"], 0],
            "choices": [*rows[index]["choices"], []],
            "label": 0.0 if rows[index]["label"] is None else None,
            "known": not rows[index]["known"],
            "text": "" if rows[index]["text"] is None else None,
            "answers": {"text": rows[index]["answers"]["text"], "start": [*rows[index]["answers"]["start"], 0]},
        }
        for name, value in changes.items():
            changed = copy.deepcopy(rows)
            changed[index][name] = value
            variants.append(changed)
    # A boundary between lists moves, and nothing else.
    moved = copy.deepcopy(rows)
    moved[3]["input_ids"], moved[4]["input_ids"] = [1, 2], [3]
    again = copy.deepcopy(moved)
    again[3]["input_ids"], again[4]["input_ids"] = [1], [2, 3]
    variants += [moved, again]
    found = [digest_rows(dataset(variant)) for variant in [rows, *variants]]
    assert len(set(found)) == len(found)
    lists = [digest_rows(variant) for variant in [rows, *variants]]
    assert len(set(lists)) == len(lists)


def test_parts_do_not_run_into_each_other():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")


def change_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("word59", "other"), encoding="utf-8")


def change_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}), encoding="utf-8")


def add_projection(folder: Path) -> None:
    save_file({"weight": torch.ones(2)}, folder / "distillation_projection.safetensors")


def change_dense(folder: Path) -> None:
    (folder / "2_Dense").mkdir()
    save_file({"linear.weight": torch.ones(2)}, folder / "2_Dense" / "model.safetensors")


@pytest.mark.parametrize("change", [change_weight, change_token, change_config, add_projection, change_dense])
def test_a_model_that_was_changed_is_another(change, teacher_folder, tmp_path):
    shutil.copytree(teacher_folder(), tmp_path / "model")
    assert digest_model(str(tmp_path / "model")) == digest_model(teacher_folder())
    change(tmp_path / "model")
    assert digest_model(str(tmp_path / "model")) != digest_model(teacher_folder())


def test_what_is_not_loaded_of_a_model_does_not_count(teacher_folder, tmp_path):
    shutil.copytree(teacher_folder(), tmp_path / "model")
    (tmp_path / "model" / "results.json").write_text("{}", encoding="utf-8")
    shutil.copytree(teacher_folder(), tmp_path / "model" / "checkpoint-500")
    assert digest_model(str(tmp_path / "model")) == digest_model(teacher_folder())


def test_a_hub_id_is_the_commit_that_is_cached(monkeypatch, tmp_path):
    commits = iter(["aaaa", "bbbb"])
    monkeypatch.setattr(
        "efficientbert.train.files.digests.try_to_load_from_cache",
        lambda name, file: str(tmp_path / "snapshots" / next(commits) / file),
    )
    assert [digest_model("owner/model"), digest_model("owner/model")] == ["aaaa", "bbbb"]
    assert digest_model("efficientbert-tiny") is None


def test_files_of_another_size_or_time_are_others(tmp_path):
    file = tmp_path / "corpus" / "a.txt"
    file.parent.mkdir()
    file.write_text("one\n", encoding="utf-8")
    found = [digest_files(str(path)) for path in (file, file.parent)]
    assert found == [digest_files(str(path)) for path in (file, file.parent)]
    file.write_text("two\n", encoding="utf-8")
    assert all(one != digest_files(str(path)) for one, path in zip(found, (file, file.parent)))
