"""Task distillation: what is learned from labels, a teacher's outputs and its inner states, and on one scale."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForSequenceClassification
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.task_objective import (
    TaskObjective,
    TaskStudent,
    fit_to_task,
    inner_distillation,
    inner_recipe,
)
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.tasks.prediction import check_length
from efficientbert.train.tasks.task import TaskData, model_inputs


SIZES = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return Teacher.load(teacher_folder("bert")).tokenizer


@pytest.fixture
def task(tmp_path, tokenizer):
    rows = {"text": [f"word{i} " * (1 + i % 5) for i in range(24)], "label": ["yes", "no", "maybe"] * 8}
    Dataset.from_dict(rows).to_parquet(tmp_path / "task.parquet")
    return task_of_data(TaskArguments(data=str(tmp_path / "task.parquet"), text_column="text"), tokenizer, "train")


def save_teacher(folder, task, tokenizer, **changes):
    torch.manual_seed(1)
    config = BertConfig(**SIZES, intermediate_size=32, max_position_embeddings=64, initializer_range=0.3)
    task.configure(config)
    for name, value in changes.items():
        setattr(config, name, value)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def make_student(task):
    torch.manual_seed(2)
    config = EfficientBertConfig(**(SIZES | {"hidden_size": 18}), embedding_size=8, max_position_embeddings=64)
    task.configure(config)
    return TaskStudent(EfficientBertForSequenceClassification(config), 24)


@pytest.fixture
def teacher(task, tokenizer, tmp_path):
    return TaskTeacher.load(save_teacher(tmp_path / "teacher", task, tokenizer), task, True, torch.device("cpu"))


def make_inner(task, student, teacher, folder, losses=("hidden_states", "attention_scores")):
    recipe = inner_recipe(LossArguments(losses=list(losses)), student.model, teacher)
    return inner_distillation(recipe, teacher, task, task.load("train"), folder)


def gradient(objective, student, parts):
    """Gradient and summed loss of a whole batch that comes in parts."""
    student.zero_grad()
    counts = {}
    for part in parts:
        for name, count in objective.count(part).items():
            counts[name] = counts.get(name, 0) + count
    total = 0.0
    for part in parts:
        loss, _ = objective(student, part, counts, 0)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def test_the_gradient_does_not_depend_on_how_a_batch_is_cut(task, teacher, tmp_path):
    student = make_student(task)
    features = list(task.load("train").features)
    inner = make_inner(task, student, teacher, tmp_path, ("hidden_states", "attention_scores", "qkv_relations"))
    objective = TaskObjective(task, teacher, 0.3, 2.0, inner)
    whole = gradient(objective, student, [task.collate(features)])
    parts = gradient(objective, student, [task.collate(features[:5]), task.collate(features[5:])])
    assert whole[0] == pytest.approx(parts[0], rel=1e-5)
    torch.testing.assert_close(whole[1], parts[1], rtol=1e-3, atol=1e-6)


def test_labels_and_outputs_are_mixed_by_weight(task, teacher):
    student = make_student(task)
    batch = task.collate(list(task.load("train").features))
    losses = {}
    for weight in (0.0, 0.25, 1.0):
        objective = TaskObjective(task, teacher, weight)
        losses[weight], terms = objective(student.model, batch, objective.count(batch), 0)
        assert set(terms) == {0.0: {"teacher"}, 0.25: {"teacher", "labels"}, 1.0: {"labels"}}[weight]
    assert losses[0.25].item() == pytest.approx((0.75 * losses[0.0] + 0.25 * losses[1.0]).item(), rel=1e-5)
    alone = TaskObjective(task)
    assert alone(student.model, batch, alone.count(batch), 0)[0].item() == pytest.approx(losses[1.0].item(), rel=1e-6)


def test_inner_states_together_and_in_sequence(task, teacher, tmp_path):
    student = make_student(task)
    batch = task.collate(list(task.load("train").features))
    inner = make_inner(task, student, teacher, tmp_path)
    seen = {}
    for inner_steps in (0, 3):
        objective = TaskObjective(task, teacher, inner=inner, inner_steps=inner_steps)
        for step in (2, 3):
            loss, terms = objective(student, batch, objective.count(batch), step)
            assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
            seen[inner_steps, step] = set(terms)
    both = {"teacher", "hidden_states", "attention_scores"}
    assert seen == {(0, 2): both, (0, 3): both, (3, 2): both - {"teacher"}, (3, 3): {"teacher"}}


def test_a_student_that_equals_its_teacher_has_no_inner_loss(task, teacher, tmp_path):
    """Captures of one forward with a head, on both sides, so the comparison must be of the same tokens and layers."""
    student = make_student(task)
    inner = make_inner(task, student, teacher, tmp_path)
    batch = task.collate(list(task.load("train").features))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    _, captures = teacher(inputs, capture=True)
    loss, _ = inner.loss(captures, captures, batch, inner.count(batch))
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


def test_a_teachers_outputs_are_those_of_its_model(task, teacher, tokenizer, tmp_path):
    batch = task.collate(list(task.load("train").features))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher").eval()
    with torch.no_grad():
        expected = model(**inputs, output_hidden_states=True)
    outputs, captures = teacher(inputs, capture=True)
    torch.testing.assert_close(outputs.logits, expected.logits)
    torch.testing.assert_close(captures.hidden_states[-1], expected.hidden_states[-1])
    plain = TaskTeacher.load(str(tmp_path / "teacher"), task, False, torch.device("cpu"))
    outputs, captures = plain(inputs)
    assert captures is None
    torch.testing.assert_close(outputs.logits, expected.logits)


def test_teachers_that_do_not_suit(task, tokenizer, teacher_folder, tmp_path):
    def load(name):
        return TaskTeacher.load(str(name), task, True, torch.device("cpu"))

    other = {0: "a", 1: "b", 2: "c"}
    with pytest.raises(InputError, match="has labels 'a', 'b', 'c'; the task's are 'maybe', 'no', 'yes'"):
        load(save_teacher(tmp_path / "labels", task, tokenizer, id2label=other))
    with pytest.raises(InputError, match="has no trained head"):
        load(teacher_folder("bert"))
    with pytest.raises(InputError, match="another tokenizer"):
        load(save_teacher(tmp_path / "tokens", task, Teacher.load(teacher_folder("roberta")).tokenizer))
    with pytest.raises(InputError, match="cannot be loaded"):
        load(tmp_path / "nothing")


def test_a_teachers_labels_may_stand_in_another_order(task, tokenizer, tmp_path):
    swapped = {0: "YES", 1: "Maybe", 2: "no"}
    name = save_teacher(tmp_path / "swapped", task, tokenizer, id2label=swapped)
    found = TaskTeacher.load(name, task, False, torch.device("cpu"))
    inputs = task.collate(list(task.load("train", labelled=False).features))
    with torch.no_grad():
        expected = AutoModelForSequenceClassification.from_pretrained(name)(**inputs).logits
        scored = found.model(**inputs).logits
    assert task.label_names == ("maybe", "no", "yes")
    torch.testing.assert_close(found(inputs)[0].logits, expected[:, [1, 2, 0]])
    torch.testing.assert_close(scored, expected[:, [1, 2, 0]])


def test_labels_that_differ_by_case_alone_are_told_apart(task, tokenizer, tmp_path):
    task.label_names = ("IT", "it", "maybe")
    name = save_teacher(tmp_path / "teacher", task, tokenizer)
    inputs = task.collate(list(task.load("train", labelled=False).features))
    with torch.no_grad():
        expected = AutoModelForSequenceClassification.from_pretrained(name)(**inputs).logits
    task.label_names = ("it", "maybe", "IT")
    found = TaskTeacher.load(name, task, False, torch.device("cpu"))
    torch.testing.assert_close(found(inputs)[0].logits, expected[:, [1, 2, 0]])
    task.label_names = ("It", "maybe", "IT")
    with pytest.raises(InputError, match="has labels 'IT', 'it', 'maybe'; the task's are 'It', 'maybe', 'IT'"):
        TaskTeacher.load(name, task, False, torch.device("cpu"))


def test_sequences_longer_than_a_model(task):
    model, data = make_student(task).model, task.load("train")
    for tokens in (64, 65):
        features = Dataset.from_dict({"input_ids": [[5] * 3, [5] * tokens]})
        if tokens == 64:
            check_length(model, TaskData(data.rows, features, "train"), "model x")
    with pytest.raises(InputError, match="model x has 64 positions, but split 'train' a sequence of 65 tokens"):
        check_length(model, TaskData(data.rows, features, "train"), "model x")


def test_inner_states_of_other_models_are_refused(task, teacher):
    with pytest.raises(InputError, match="inner states of model type 'bert' are not learned"):
        inner_recipe(LossArguments(), teacher.model, teacher)


def test_losses_that_need_masked_text_are_refused(task, teacher, tmp_path):
    with pytest.raises(InputError, match="masked_lm and logits need masked text"):
        make_inner(task, make_student(task), teacher, tmp_path, ("masked_lm",))
    assert not (tmp_path / "teacher_scales.json").exists()


@pytest.mark.parametrize("losses", [("hidden_states",), ("attention_scores",)])
@torch.no_grad()
def test_a_projection_is_fitted_to_the_tasks_rows(losses, task, teacher, tmp_path):
    """Against numpy's least squares over all tokens of all compared layers."""
    student, data = make_student(task), task.load("train")
    fit_to_task(student, teacher, task, data, inner_recipe(LossArguments(losses=list(losses)), student.model, teacher))
    mine, theirs = [], []
    for feature in data.features:
        inputs = model_inputs(task.collate([feature]))
        states = [model(**inputs, output_hidden_states=True).hidden_states for model in (student.model, teacher.model)]
        mine += [state[0].double() for state in states[0]]
        theirs += [state[0].double() for state in states[1]]
    mine, theirs = torch.cat(mine).numpy(), torch.cat(theirs).numpy()
    source = np.concatenate((mine, np.ones((len(mine), 1))), axis=1)
    best = np.linalg.lstsq(source, theirs, rcond=1e-6)[0]  # states in float32: channels that sum to 0 do so nearly
    found = student.projection(torch.tensor(mine).float()).double().numpy()
    assert ((found - theirs) ** 2).sum() == pytest.approx(((source @ best - theirs) ** 2).sum(), rel=1e-4)


def test_a_teacher_is_asked_only_for_what_is_learned_from_it(task, teacher, tmp_path, monkeypatch):
    student = make_student(task)
    batch = task.collate(list(task.load("train").features))
    inner = make_inner(task, student, teacher, tmp_path)
    asked = []
    real = TaskTeacher.__call__

    def watch(self, inputs, capture=False):
        asked.append("captures" if capture else "outputs")
        return real(self, inputs, capture)

    monkeypatch.setattr(TaskTeacher, "__call__", watch)
    expected = {
        (1.0, None, 0): [],
        (0.5, None, 0): ["outputs"],
        (1.0, inner, 0): ["captures"],
        (0.5, inner, 0): ["captures"],
        (0.5, inner, 3): ["outputs"],
        (1.0, inner, 3): [],
    }
    for (weight, compared, inner_steps), wanted in expected.items():
        objective = TaskObjective(task, teacher, weight, inner=compared, inner_steps=inner_steps)
        loss, _ = objective(student if compared else student.model, batch, objective.count(batch), 3)
        assert (asked, loss.isfinite().item()) == (wanted, True), (weight, inner_steps)
        asked.clear()


def test_outputs_without_names_are_the_tasks_labels_in_order(task, tokenizer, tmp_path, capsys):
    unnamed = {index: f"LABEL_{index}" for index in range(3)}
    name = save_teacher(tmp_path / "unnamed", task, tokenizer, id2label=unnamed)
    assert TaskTeacher.load(name, task, False, torch.device("cpu"))
    assert (
        f"teacher '{name}': names no labels; its outputs are taken as 'maybe', 'no', 'yes'" in capsys.readouterr().out
    )
    fewer = save_teacher(tmp_path / "fewer", task, tokenizer, id2label={0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(InputError, match="has labels 'LABEL_0', 'LABEL_1'; the task's are 'maybe', 'no', 'yes'"):
        TaskTeacher.load(fewer, task, False, torch.device("cpu"))
