"""Labelled data: columns, the meaning of labels, and what is refused."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data, task_of_model
from efficientbert.train.tasks.prediction import score
from efficientbert.train.tasks.task import soft_cross_entropy


@dataclass
class Outputs:
    """Stands for the outputs of a model."""

    logits: torch.Tensor


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return Teacher.load(teacher_folder("bert")).tokenizer


def load(path, tokenizer, label_names=None, **arguments):
    task_arguments = TaskArguments(data=str(path), **({"text_column": "text"} | arguments))
    task = task_of_data(task_arguments, tokenizer, "train")
    if label_names is not None:
        task.label_names = label_names
    return task, task.load("train")


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
    task, data = load(save(tmp_path, labels), tokenizer)
    assert task.label_names == names and data.features["labels"][:] == ids
    assert task.references(data) == ids


def test_class_labels_are_read_by_name_in_the_models_order(tmp_path, tokenizer):
    path = save(tmp_path, [0, 1, 2, 1], ClassLabel(names=["entailment", "neutral", "contradiction"]))
    assert load(path, tokenizer)[1].features["labels"][:] == [0, 1, 2, 1]
    model_order = ("contradiction", "entailment", "neutral")
    assert load(path, tokenizer, model_order)[1].features["labels"][:] == [1, 2, 0, 2]
    with pytest.raises(InputError, match=r"row 2: label 'contradiction' is not among 'entailment', 'neutral'"):
        load(path, tokenizer, ("entailment", "neutral"))


def test_pairs_get_segments_and_are_cut(tmp_path, tokenizer):
    path = tmp_path / "pairs.parquet"
    Dataset.from_dict({"a": ["word1 word2 word3 word6"], "b": ["word4 word5"], "y": [0.5]}).to_parquet(path)
    arguments = {"text_column": "a", "text_pair_column": "b", "label_column": "y"}
    (row,) = load(path, tokenizer, **arguments)[1].features
    expected = tokenizer("word1 word2 word3 word6", "word4 word5")
    assert row["input_ids"] == expected["input_ids"] and row["token_type_ids"] == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    (row,) = load(path, tokenizer, **arguments, max_length=8)[1].features
    assert len(row["input_ids"]) == 8


def test_batches_are_padded(tmp_path, tokenizer):
    task, _ = load(save(tmp_path, ["a", "b"]), tokenizer)
    features = [
        {"input_ids": [2, 5, 3], "token_type_ids": [0, 0, 1], "labels": 1},
        {"input_ids": [2], "token_type_ids": [0], "labels": 0},
    ]
    batch = task.collate(features)
    pad = tokenizer.pad_token_id
    assert torch.equal(batch["input_ids"], torch.tensor([[2, 5, 3], [2, pad, pad]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert torch.equal(batch["token_type_ids"], torch.tensor([[0, 0, 1], [0, 0, 0]]))
    assert batch["labels"].tolist() == [1, 0] and batch["labels"].dtype == torch.int64
    assert task.count(batch) == 2
    assert "labels" not in task.collate([{"input_ids": [2, 5]}])


def test_losses_and_predictions_of_classes(tmp_path, tokenizer):
    task, data = load(save(tmp_path, ["a", "b", "b"]), tokenizer)
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.25], [0.0, 3.0]], dtype=torch.float64)
    theirs = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]], dtype=torch.float64)
    batch = task.collate(list(data.features))
    expected = -sum(logits[row].log_softmax(-1)[label].item() for row, label in enumerate((0, 1, 1)))
    assert task.loss(Outputs(logits), batch).item() == pytest.approx(expected, rel=1e-6)
    for temperature in (1.0, 2.0):
        expected = 0.0
        for mine, other in zip(logits / temperature, theirs / temperature):
            target = [math.exp(x) / sum(math.exp(y) for y in other) for x in other]
            logs = [x - math.log(sum(math.exp(y) for y in mine)) for x in mine]
            expected -= sum(p * q for p, q in zip(target, logs)) * temperature**2
        found = task.soft_loss(Outputs(logits), Outputs(theirs), batch, temperature)
        assert found.item() == pytest.approx(float(expected), rel=1e-6)
    rows = task.logits(Outputs(logits), batch)
    assert task.predict(rows, data) == [0, 0, 1]


def test_losses_and_predictions_of_numbers(tmp_path, tokenizer):
    task, data = load(save(tmp_path, [0.5, 2.0]), tokenizer)
    batch, logits, theirs = (
        task.collate(list(data.features)),
        torch.tensor([[1.0], [0.0]]),
        torch.tensor([[3.0], [1.0]]),
    )
    assert task.loss(Outputs(logits), batch).item() == pytest.approx(0.25 + 4.0)
    assert task.soft_loss(Outputs(logits), Outputs(theirs), batch, 2.0).item() == pytest.approx(4.0 + 1.0)
    assert task.predict(task.logits(Outputs(logits), batch), data) == [1.0, 0.0] and task.metric() == "stsb"


def test_soft_cross_entropy_keeps_its_gradient_where_classes_are_out_of_reach():
    logits = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    soft_cross_entropy(logits, torch.tensor([[0.0, 1.0, -torch.inf]])).backward()
    expected = torch.tensor([1.0, 2.0]).softmax(-1) - torch.tensor([0.0, 1.0]).softmax(-1)
    torch.testing.assert_close(logits.grad[0, :2], expected)
    assert logits.grad[0, 2] == 0


@pytest.mark.parametrize("names", [("equivalent", "not_equivalent"), ("not_equivalent", "equivalent"), ("1", "0")])
def test_f1_is_of_the_official_class_whatever_the_models_order(names, tmp_path, tokenizer):
    labels = ["equivalent", "not_equivalent", "equivalent", "equivalent"]
    rows = {"sentence1": ["word1"] * 4, "sentence2": ["word2"] * 4, "label": labels}
    Dataset.from_dict(rows).to_parquet(tmp_path / "mrpc.parquet")
    task = task_of_data(TaskArguments(task="mrpc", data=str(tmp_path / "mrpc.parquet")), tokenizer, "train")
    assert task.label_names == ("not_equivalent", "equivalent")
    task.label_names = names
    data = task.load("train")
    always = np.array([float(name in ("1", "equivalent")) for name in names])
    found = score(task, [always] * 4, data)
    assert found == pytest.approx({"accuracy": 3 / 4, "f1": 6 / 7})
    positive = names.index("1" if "1" in names else "equivalent")
    assert data.features["labels"][:] == [positive, 1 - positive, positive, positive]


def test_official_ids_are_understood(tmp_path, tokenizer):
    rows = {"sentence1": ["word1"] * 3, "sentence2": ["word2"] * 3, "label": [0, 1, 1]}
    Dataset.from_dict(rows).to_parquet(tmp_path / "rte.parquet")
    arguments = TaskArguments(task="rte", data=str(tmp_path / "rte.parquet"))
    task = task_of_data(arguments, tokenizer, "train")
    assert task.label_names == ("entailment", "not_entailment") and task.load("train").features["labels"][:] == [
        0,
        1,
        1,
    ]
    task.label_names = ("not_entailment", "entailment")
    assert task.load("train").features["labels"][:] == [1, 0, 0]


def test_what_labels_are_is_read_off_them(tmp_path, tokenizer):
    for labels, problem, names in (
        (["1.0", "0.0", "1.0"], "single_label", ("0.0", "1.0")),
        (["1E5", "2E7", "1E5"], "single_label", ("1E5", "2E7")),
        (["01", "1", "10", "9"], "single_label", ("01", "1", "9", "10")),  # by size, not by the alphabet
        (["1.5", "2", "3"], "regression", None),
        (["0", "10", "-1", "9", "-10"], "single_label", ("-10", "-1", "0", "9", "10")),
        ([["10"], ["-2", "9"]], "multi_label", ("-2", "9", "10")),
        (["1.5", "a", "b", "2"], "single_label", ("1.5", "2", "a", "b")),  # half of them only are numbers
        ([1.0, 0.0], "regression", None),
        ([1, 0], "single_label", ("0", "1")),
        ([["b"], [], ["a", "b"]], "multi_label", ("a", "b")),
        ([[7, 3], [3]], "multi_label", ("3", "7")),
        ([[0, 1, 1], [0, 0, 0]], "multi_label", ("0", "1", "2")),
        ([[True, False], [True, True]], "multi_label", ("0", "1")),
        ([[0.0, 1.0], [1.0, 1.0]], "multi_label", ("0", "1")),
        ([[0], [1], [0, 1]], "multi_label", ("0", "1")),
    ):
        task, _ = load(save(tmp_path, labels), tokenizer)
        assert (task.args.problem, task.label_names) == (problem, names), labels
    for labels, problem, names in (
        (["1.0", "0.0"], "regression", None),
        ([1, 0], "regression", None),
        (["1.5", "2.5"], "single_label", ("1.5", "2.5")),
        ([1.0, 0.5], "single_label", ("0.5", "1.0")),
    ):
        task, _ = load(save(tmp_path, labels), tokenizer, problem=problem)
        assert (task.args.problem, task.label_names) == (problem, names), labels


@pytest.mark.parametrize(
    ("trained", "scored", "expected"),
    [
        # Ids of labels: what would be 0 and 1 of each of two in itself is not.
        ([[0], [1], [0, 1]], [[0, 1], [1, 0]], [[1, 1], [1, 1]]),
        ([[0], [1], [0, 1]], [[1], []], [[0, 1], [0, 0]]),
        # 0 and 1 of each of two, although all could be ids.
        ([[0, 1], [1, 1], [0, 0]], [[1, 0], [0, 1]], [[1, 0], [0, 1]]),
        # Names that no 0 and 1 can be.
        ([["a"], ["b"]], [[1, 0], [1, 1]], [[1, 0], [1, 1]]),
    ],
)
def test_several_labels_are_read_as_those_of_training(trained, scored, expected, tmp_path, tokenizer):
    task, _ = load(save(tmp_path, trained), tokenizer)
    config = EfficientBertConfig()
    task.configure(config)
    adopted = type(task)(
        TaskArguments(data=str(save(tmp_path, scored, name="new.parquet")), text_column="text"), tokenizer
    )
    adopted.adopt(EfficientBertConfig.from_dict(config.to_dict()))
    for one in (task.with_data(adopted.args.data), adopted):
        assert one.load("train").features["labels"][:] == expected


def test_labels_that_are_not_as_those_of_training_are_refused(tmp_path, tokenizer):
    task, _ = load(save(tmp_path, [[0, 1], [1, 1], [0, 0]]), tokenizer)
    other = task.with_data(str(save(tmp_path, [[0, 1], [1]], name="new.parquet")))
    with pytest.raises(InputError, match=r"row 1: labels \[1\] are not 0 or 1 of each of 2, as in the training rows"):
        other.load("train")


@pytest.mark.parametrize(
    ("labels", "problem", "message"),
    [
        (["1.5", "2.5", "NA"], None, "row 2: label 'NA' is no finite number; with --problem single_label labels are"),
        (["1.5", "inf", "2"], None, "row 1: label 'inf' is no finite number"),
        (["1", "1_0"], "regression", "row 1: label '1_0' is no finite number"),
        ([0.5, math.inf], None, "row 1: label inf is no finite number$"),
        ([0.5, math.nan], None, "row 1: 'label' is missing"),
        ([True, False], "regression", "row 0: label True is no finite number"),
        (["a", "b"], "multi_label", r"labels .* are no lists, but what is predicted is several labels a row"),
        ([["a"], ["b"]], "regression", "labels .* are lists, but what is predicted is a number"),
        ([["a"], [None]], None, "row 1: 'label' is missing"),
        ([[0.5, 1.0], [1.0, 0.0]], None, "row 0: label 0.5 is no name or id, nor 0 or 1"),
        ([[0, 0, 1], [1, 0, 0], [1, 0]], None, "row 2: has 2 labels, but row 0 3"),
    ],
)
def test_labels_that_are_not_what_is_predicted(labels, problem, message, tmp_path, tokenizer):
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, labels), tokenizer, problem=problem)


def test_losses_and_predictions_of_several_labels(tmp_path, tokenizer):
    task, data = load(save(tmp_path, [["a", "c"], [], ["b"]]), tokenizer)
    assert task.references(data) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.25, -3.0], [1.0, 3.0, 0.1]], dtype=torch.float64)
    theirs = torch.tensor([[1.0, 0.0, 2.0], [0.5, 2.0, -1.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    batch = task.collate(list(data.features))
    assert batch["labels"].dtype == torch.float32 and batch["labels"].shape == (3, 3)

    def cross_entropy(logit, target):
        probability = 1 / (1 + math.exp(-logit))
        return -target * math.log(probability) - (1 - target) * math.log(1 - probability)

    pairs = list(zip(logits.flatten().tolist(), batch["labels"].flatten().tolist()))
    expected = sum(cross_entropy(*pair) for pair in pairs) / 3  # the mean over labels, the sum over rows
    assert task.loss(Outputs(logits), batch).item() == pytest.approx(expected, rel=1e-6)
    for temperature in (1.0, 2.0):
        targets = [1 / (1 + math.exp(-logit / temperature)) for logit in theirs.flatten().tolist()]
        scaled = [logit / temperature for logit in logits.flatten().tolist()]
        expected = temperature**2 * sum(map(cross_entropy, scaled, targets)) / 3
        found = task.soft_loss(Outputs(logits), Outputs(theirs), batch, temperature)
        assert found.item() == pytest.approx(expected, rel=1e-6)
    predictions = task.predict(task.logits(Outputs(logits), batch), data)
    assert predictions[0] == pytest.approx([1 / (1 + math.exp(-logit)) for logit in (2.0, -1.0, 0.5)])
    # Predicted are a, c; a, b; a, b, c: of 7 labels 3 are right, of 3 true ones all are found.
    found = score(task, task.logits(Outputs(logits), batch), data)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (7 + 3))
    assert found["macro_f1"] == pytest.approx((2 / 4 + 2 / 3 + 2 / 3) / 3)
    # By probability the true ones are in the places 1 (3.0), 2 (2.0) and 4 (0.5).
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 2 + 3 / 4) / 3)


def test_several_labels_are_read_by_name_in_the_models_order(tmp_path, tokenizer):
    path = save(tmp_path, [["a", "c"], ["b"]])
    config = EfficientBertConfig(id2label={0: "c", 1: "b", 2: "a"}, problem_type="multi_label_classification")
    arguments = TaskArguments(data=str(path), text_column="text")
    task = task_of_model(arguments, tokenizer, config)
    assert task.load("train").features["labels"][:] == [[1, 0, 1], [0, 1, 0]]
    feature = List(ClassLabel(names=["a", "b", "c"]))
    task = task_of_model(
        TaskArguments(data=str(save(tmp_path, [[0, 2], [1]], feature, "ids.parquet")), text_column="text"),
        tokenizer,
        config,
    )
    assert task.load("train").features["labels"][:] == [[1, 0, 1], [0, 1, 0]]
    task.configure(config)
    assert config.problem_type == "multi_label_classification"
    for task_name, wanted in (("sst2", "one class a row"), ("stsb", "a number")):
        with pytest.raises(InputError, match=f"{task_name} has {wanted} .* but the model predicts several labels"):
            task_of_model(TaskArguments(task=task_name, data=str(path)), tokenizer, config)


def test_features_are_found_again(tmp_path, tokenizer, monkeypatch):
    path = save(tmp_path, ["a", "b"])
    calls = []
    monkeypatch.setattr(type(tokenizer), "_encode_plus", counted(type(tokenizer)._encode_plus, calls))
    first = load(path, tokenizer)[1]
    assert calls
    calls.clear()
    tokenizer("word1", truncation=True, max_length=8)  # leaves a state behind
    calls.clear()
    again = load(path, tokenizer)[1]
    assert not calls and again.features[:] == first.features[:]
    load(path, tokenizer, max_length=8)
    assert calls
    calls.clear()
    assert load(path, tokenizer, label_names=("b", "a"))[1].features["labels"][:] == [1, 0]


def counted(function, calls):
    def count(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return count


def test_words_that_look_like_missing_values(tmp_path, tokenizer):
    (tmp_path / "task.csv").write_text("text,label\nNA,None\nnull,joy\n", encoding="utf-8")
    task, data = load(tmp_path / "task.csv", tokenizer)
    assert task.label_names == ("None", "joy") and data.features["labels"][:] == [0, 1]


def test_a_single_class_is_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="all rows have the label 'a'; two classes at least must be there"):
        load(save(tmp_path, ["a", "a"]), tokenizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "mrpc", "text_column": "a"}, "'mrpc' takes both --text_column and --text_pair_column"),
        ({"task": "cola", "text_column": "a", "text_pair_column": "b"}, "'cola' takes --text_column alone"),
        ({"task": "mrpc", "text_pair_column": "b"}, "text_column: must name the column"),
    ],
)
def test_columns_that_do_not_suit_a_task(arguments, message, tokenizer):
    with pytest.raises(InputError, match=message):
        task_of_data(TaskArguments(**arguments), tokenizer, "train")


def test_a_models_labels(tmp_path, tokenizer):
    path = save(tmp_path, ["a", "b"])
    arguments = TaskArguments(data=str(path), text_column="text")
    config = EfficientBertConfig(id2label={0: "b", 1: "a"})
    task = task_of_model(arguments, tokenizer, config)
    assert task.load("train").features["labels"][:] == [1, 0]
    assert task_of_model(arguments, tokenizer, EfficientBertConfig(num_labels=1)).label_names is None


def test_configure(tmp_path, tokenizer):
    config = EfficientBertConfig()
    load(save(tmp_path, ["x", "y", "z"]), tokenizer)[0].configure(config)
    assert config.id2label == {0: "x", 1: "y", 2: "z"} and config.problem_type == "single_label_classification"
    load(save(tmp_path, [0.5]), tokenizer)[0].configure(config)
    assert config.num_labels == 1 and config.problem_type == "regression"


def test_unlabelled_rows(tmp_path, tokenizer):
    task, _ = load(save(tmp_path, ["a", "b"]), tokenizer)
    Dataset.from_dict({"text": ["word1"]}).to_parquet(tmp_path / "bare.parquet")
    bare = task.with_data(str(tmp_path / "bare.parquet"))
    assert "labels" not in bare.load("train", labelled=False).features.column_names
    with pytest.raises(InputError, match="no column 'label'"):
        bare.load("train")


def test_what_cannot_be_read(tmp_path, tokenizer):
    with pytest.raises(InputError, match="row 1: 'label' is missing, as in 1 of 2 rows"):
        load(save(tmp_path, [0.5, None]), tokenizer)
    with pytest.raises(InputError, match="row 1: 'label' is missing, as in 2 of 4 rows"):
        load(save(tmp_path, ["a", None, "b", None], name="names.parquet"), tokenizer)
    with pytest.raises(InputError, match=r"text_column: must name the column"):
        load(save(tmp_path, [0.5], name="none.parquet"), tokenizer, text_column=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "nli"}, "task 'nli': unknown; known are cola"),
        ({"kind": "ner", "data": "x.csv"}, "kind 'ner': unknown; known are text-classification"),
        ({}, "give --task for a known task, or --data"),
        ({"task": "rte", "max_length": 4}, "max_length: must be at least 8, not 4"),
        ({"data": "x.csv", "problem": "binary"}, "problem 'binary': unknown; known are single_label, multi_label"),
        ({"data": "x.csv", "kind": "multiple-choice", "problem": "regression"}, "problem: is for text-classification"),
        ({"task": "sst2", "problem": "multi_label"}, "problem: of 'sst2' is 'single_label', not 'multi_label'"),
        ({"data": "x.csv", "text_column": "text"}, "data 'x.csv': does not exist"),
    ],
)
def test_arguments_that_no_task_can_work_with(arguments, message, tokenizer):
    with pytest.raises(InputError, match=message):
        task_of_data(TaskArguments(**arguments), tokenizer, "train")


@pytest.mark.parametrize(("name", "names"), [("rte", ("entailment", "not_entailment")), ("stsb", None)])
def test_real_glue(name, names, shared, tokenizer):
    task = task_of_data(TaskArguments(task=name, data=str(shared / "data" / "glue")), tokenizer, "validation")
    assert task.label_names == names
    assert len(task.load("validation").features) == {"rte": 277, "stsb": 1500}[name]
    assert len(task.load("test", labelled=False).features) == {"rte": 3000, "stsb": 1379}[name]
