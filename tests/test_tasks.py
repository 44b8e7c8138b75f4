"""Labelled data: columns, the meaning of labels, and what is refused."""

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from efficientbert.train.script import InputError
from efficientbert.train.tasks import TaskArguments, TaskCollator, load_task
from efficientbert.train.teacher import Teacher


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return Teacher.load(teacher_folder("bert")).tokenizer


def load(path, tokenizer, label_names=None, **arguments):
    task_arguments = TaskArguments(data=str(path), **({"text_column": "text"} | arguments))
    return load_task(task_arguments, "train", tokenizer, label_names)


def save(tmp_path, labels, feature=None, name="task.parquet"):
    features = None if feature is None else Features({"text": Value("string"), "label": feature})
    rows = {"text": [f"word{index}" for index in range(len(labels))], "label": labels}
    path = tmp_path / name
    Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        (["spam", "ham", "spam"], ("ham", "spam"), [1, 0, 1]),
        ([7, 3, 7], ("3", "7"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([0.5, 2.0, 1.0], None, [0.5, 2.0, 1.0]),
    ],
)
def test_labels_of_every_kind(labels, names, ids, tmp_path, tokenizer):
    data = load(save(tmp_path, labels), tokenizer)
    assert data.label_names == names and data.rows["labels"][:] == ids


def test_class_labels_are_read_by_name_in_the_models_order(tmp_path, tokenizer):
    path = save(tmp_path, [0, 1, 2, 1], ClassLabel(names=["entailment", "neutral", "contradiction"]))
    assert load(path, tokenizer).rows["labels"][:] == [0, 1, 2, 1]
    model_order = ("contradiction", "entailment", "neutral")
    assert load(path, tokenizer, model_order).rows["labels"][:] == [1, 2, 0, 2]
    with pytest.raises(InputError, match=r"row 2: label 2 is not among 'entailment', 'neutral'"):
        load(path, tokenizer, ("entailment", "neutral"))


def test_pairs_get_segments_and_are_cut(tmp_path, tokenizer):
    path = tmp_path / "pairs.parquet"
    Dataset.from_dict({"a": ["word1 word2 word3"], "b": ["word4 word5"], "y": ["n"]}).to_parquet(path)
    arguments = {"text_column": "a", "text_pair_column": "b", "label_column": "y"}
    (row,) = load(path, tokenizer, **arguments).rows
    expected = tokenizer("word1 word2 word3", "word4 word5")
    assert row["input_ids"] == expected["input_ids"] and row["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1, 1]
    (row,) = load(path, tokenizer, **arguments, max_length=6).rows
    assert len(row["input_ids"]) == 6


def test_collator():
    rows = [
        {"input_ids": [2, 5, 3], "token_type_ids": [0, 0, 1], "labels": 1},
        {"input_ids": [2], "token_type_ids": [0], "labels": 0},
    ]
    batch = TaskCollator(9)(rows)
    assert torch.equal(batch["input_ids"], torch.tensor([[2, 5, 3], [2, 9, 9]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["token_type_ids"], torch.tensor([[0, 0, 1], [0, 0, 0]]))
    assert batch["labels"].tolist() == [1, 0] and batch["labels"].dtype == torch.int64


def test_what_cannot_be_read(tmp_path, tokenizer):
    with pytest.raises(InputError, match="row 1: label None is no number"):
        load(save(tmp_path, [0.5, None]), tokenizer)
    with pytest.raises(InputError, match="row 1: label None is not among 'a'"):
        load(save(tmp_path, ["a", None], name="names.parquet"), tokenizer)
    with pytest.raises(InputError, match=r"give --task .* or --data and --text_column"):
        load(save(tmp_path, [0.5], name="none.parquet"), tokenizer, text_column=None)


@pytest.mark.parametrize(("task", "names"), [("rte", ("entailment", "not_entailment")), ("stsb", None)])
def test_real_glue(task, names, shared, tokenizer):
    arguments = TaskArguments(task=task, data=str(shared / "data" / "glue"))
    data = load_task(arguments, "validation", tokenizer)
    assert data.label_names == names and len(data.rows) == {"rte": 277, "stsb": 1500}[task]
