"""Scores of slices: what they measure, against slow versions of it, and that nothing broken has a score."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.model_selection import GroupShuffleSplit

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForSequenceClassification, EfficientBertModel
from efficientbert.search.scores.held_out_text import HeldOutText
from efficientbert.search.scores.probe import TaskProbe, check_probe, pooled_states, probe_error
from efficientbert.search.scores.score import ParameterCount, finite, isolated_randomness, objectives
from efficientbert.search.scores.task_slices import TaskSlices, task_error
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.supernet.supernet import Supernet, TaskSupernet
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LOSS_NAMES, LossArguments
from efficientbert.train.distillation.held_out import capture_held_out
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.scales import Scales
from efficientbert.train.distillation.student import fit_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.text.arguments import CorpusArguments
from efficientbert.train.text.preparation import prepare_text


SHAPE = Shape(18, 8)
PLAIN = LayerChoice("linear2(gelu(linear1(x)))", 2, 20, 3, 6)
SMALL = LayerChoice("linear2(gelu(linear1(x)))", 1, 9, 3, 6)
LARGEST = Architecture(SHAPE, (PLAIN,) * 4)
SCALES = Scales((2.0, 3.0, 5.0, 7.0, 11.0), (0.2, 0.3, 0.5, 0.7, 0.9), (13.0, 17.0, 19.0, 23.0))


@pytest.fixture(scope="module")
def teacher(teacher_folder) -> Teacher:
    return Teacher.load(teacher_folder())


@pytest.fixture
def supernet(teacher) -> Supernet:
    torch.manual_seed(0)
    supernet = Supernet(fit_config(EfficientBertConfig(), teacher), LARGEST, 24)
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return supernet


@pytest.fixture
def held_out(teacher, corpus_file):
    """20 sequences in two batches."""
    args = CorpusArguments(corpus=corpus_file, max_length=24, held_out=20, init_sequences=4)
    everything = LossRecipe(
        dict.fromkeys(LOSS_NAMES[:5], 1.0), tuple((state, state) for state in range(5)), 1, (3, 3), frozenset(range(4))
    )
    students = [(LARGEST.to_config(EfficientBertConfig()), everything)]
    return capture_held_out(prepare_text(args, teacher, 4, 0), teacher, torch.device("cpu"), students)


@pytest.fixture
def task(task_file, teacher):
    args = TaskArguments(data=task_file, text_column="text")
    return task_of_data(args, teacher.tokenizer, "train")


def broken(supernet: Supernet):
    """Slices with one weight that is no number."""

    def extract(architecture):
        student = supernet.extract(architecture)
        student.encoder.layers[-1].ffns[-1].linear2.bias.data[4] = float("nan")
        return student

    return extract


def constant(task, chosen: int) -> EfficientBertForSequenceClassification:
    """A model that always gives one class."""
    config = EfficientBertConfig(vocab_size=65, embedding_size=8, hidden_size=12, num_attention_heads=3)
    task.configure(config)
    model = EfficientBertForSequenceClassification(config)
    last = model.classifier.output
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.nn.functional.one_hot(torch.tensor(chosen), 2).float()
    return model


def test_the_number_of_parameters_is_that_of_the_model(supernet):
    score = ParameterCount(lambda a: EfficientBertModel(a.to_config(supernet.base)).num_parameters())
    small = Architecture(SHAPE, (SMALL,) * 4)
    weights = 4 * (2 * (2 * 18 * 20 + 20 + 18 + 36) - (2 * 18 * 9 + 9 + 18 + 36))
    assert score(small) - score(LARGEST) == weights


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize(
    "losses, states",
    [
        (["hidden_states", "attention_scores=0.3"], True),
        (["hidden_states=2"], True),
        (["attention_scores=0.3"], False),
    ],
)
def test_the_loss_on_text_is_that_of_the_last_layer(losses, states, depth, supernet, teacher, held_out):
    """Over all tokens, or pairs of them, of all batches at once, in float64; whatever the depth."""
    architecture = Architecture(SHAPE, (SMALL,) * depth)
    student = supernet.extract(architecture)
    errors, products = [], []
    with torch.no_grad():
        for batch, theirs in held_out.plain:
            mine, valid = student(**batch), batch["attention_mask"].bool()
            pairs = (valid[:, None, :, None] & valid[:, None, None, :]).expand(-1, 3, -1, -1)
            difference = mine.hidden_states[-1][valid].double() - theirs.hidden_states[-1][valid].double()
            errors.append(difference.square() / SCALES.hidden_states[-1])
            difference = mine.attention_scores(depth - 1)[pairs].double() - theirs.attention_scores(3)[pairs]
            products.append(difference.square() / SCALES.attention_scores[-1])
    assert len(held_out.plain) == 2
    expected = torch.cat(errors).mean() if states else 0.3 * torch.cat(products).mean()
    objective = objectives(LossArguments(losses=losses), supernet.base, teacher, SCALES)
    assert HeldOutText(supernet.extract, objective, held_out)(architecture) == pytest.approx(expected.item(), rel=1e-5)


def test_nothing_broken_has_a_score(supernet, teacher, held_out, task):
    objective = objectives(LossArguments(), supernet.base, teacher, SCALES)
    data, small = task.load("train"), Architecture(SHAPE, (SMALL,) * 2)
    with pytest.raises(NotFiniteError, match="held-out text: the loss is nan"):
        HeldOutText(broken(supernet), objective, held_out)(small)
    with pytest.raises(NotFiniteError, match="task 'task': the slice's hidden states are not finite"):
        TaskProbe(broken(supernet), task, data)(small)
    model = constant(task, 0)
    model.classifier.output.bias.data[1] = float("nan")
    with pytest.raises(NotFiniteError, match="task 'task': the outputs of the model are not finite"):
        task_error(model, task, data, 8)
    for loss in (float("nan"), float("inf")):
        with pytest.raises(NotFiniteError, match=f"it: the loss is {loss}"):
            finite(loss, "it")


class OneHot(torch.nn.Module):
    """A student whose hidden states say which token stands there."""

    device = torch.device("cpu")

    @property
    def encoder(self):
        return self

    def forward(self, input_ids, attention_mask, **rest):
        return SimpleNamespace(last_hidden_state=torch.nn.functional.one_hot(input_ids, 65).float())


def test_states_are_pooled_over_the_tokens_of_a_row_alone(task):
    data = task.load("train")
    pooled = pooled_states(OneHot(), task, data)
    assert len({len(ids) for ids in data.features["input_ids"]}) > 3
    for ids, state in zip(data.features["input_ids"], pooled):
        np.testing.assert_allclose(state, np.bincount(ids, minlength=65) / len(ids), atol=1e-6)


def rows_of(task, classes: list[int], labels: list[int], path):
    """Rows whose text says a class, with labels that may say another."""
    text, names = [f"word{number} " * 4 for number in classes], ["yes", "no"]
    Dataset.from_dict({"text": text, "label": [names[number] for number in labels]}).to_parquet(path)
    return task.with_data(str(path)).load("train")


def test_a_probe_is_scored_on_a_third_of_the_rows_that_it_is_not_fitted_to(task, tmp_path):
    """The class stands in the text; of the rows held out, some have the label of the other."""
    classes = [number % 2 for number in range(60)]
    ((fitted, scored),) = GroupShuffleSplit(1, test_size=20, random_state=0).split(classes, groups=range(60))
    assert len(scored) == 20 and len(set(np.array(classes)[fitted])) == 2
    for exchanged, error in ((0, 0.0), (5, 0.25), (20, 1.0)):
        labels = [number ^ (index in scored[:exchanged]) for index, number in enumerate(classes)]
        data = rows_of(task, classes, labels, tmp_path / f"{exchanged}.parquet")
        assert probe_error(OneHot(), task, data) == pytest.approx(error)
        assert TaskProbe(lambda _: OneHot(), task, data)(LARGEST) == pytest.approx(error)


@pytest.mark.parametrize("first", [45, 40, 20, 15])
@pytest.mark.parametrize("label", [0, 1])
def test_a_file_that_is_sorted_by_label_can_be_probed(task, tmp_path, label, first):
    """In file order, two thirds of these rows may have one label alone."""
    labels = [label] * first + [1 - label] * (60 - first)
    data = rows_of(task, labels, labels, tmp_path / "sorted.parquet")
    check_probe(task, data)
    assert probe_error(OneHot(), task, data) == 0.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0] * 9, "task 'task': all 6 rows .* have the label 'yes'"), ([0, 1, 0, 1], "task 'task': has 4 rows")],
)
def test_rows_that_no_probe_can_be_fitted_to_are_refused(task, tmp_path, labels, message):
    with pytest.raises(InputError, match=message):
        check_probe(task, rows_of(task, labels, labels, tmp_path / "rows.parquet"))


def test_the_error_of_slices_is_a_mean_over_tasks(task, task_file):
    """Heads that always give one class err on the rows of the other."""
    rows = task.load_rows("train")
    labels = np.array(rows["label"])
    mostly = task.data(rows.select(np.concatenate([np.flatnonzero(labels == "yes")[:9], [1]])), "mostly")
    no, yes = (task.label_names.index(name) for name in ("no", "yes"))
    assert task_error(constant(task, yes), task, mostly, 4) == pytest.approx(0.1)
    assert task_error(constant(task, no), task, mostly, 4) == pytest.approx(0.9)
    heads, asked = {0: constant(task, yes), 1: constant(task, yes)}, []

    def extract(architecture, index):
        asked.append((architecture, index))
        return SimpleNamespace(model=heads[index])

    score = TaskSlices(extract, ((task, mostly), (task, task.data(rows, "all"))), 4)
    assert score(LARGEST) == pytest.approx((0.1 + 0.5) / 2)
    assert asked == [(LARGEST, 0), (LARGEST, 1)]


def test_slices_of_a_supernet_with_heads_are_scored_as_they_are(supernet, task):
    heads, small, data = TaskSupernet(supernet, [task, task]), Architecture(SHAPE, (SMALL,) * 2), task.load("train")
    score = TaskSlices(heads.extract, ((task, data), (task, data)), 16)
    found = score(small)
    models = [heads.extract(small, index).model for index in range(2)]
    wrong = []
    with torch.no_grad():
        for model in models:
            for features in data.features:
                ids = torch.tensor([features["input_ids"]])
                wrong.append(int(model(input_ids=ids).logits.argmax()) != features["labels"])
    assert found == pytest.approx(np.mean(wrong))
    assert found == score(small)


def test_percentages_count_as_fractions(task, monkeypatch):
    monkeypatch.setattr(type(task), "metric", lambda self: "squad")
    monkeypatch.setattr("efficientbert.search.scores.task_slices.score", lambda *_: {"exact_match": 20.0, "f1": 30.0})
    assert task_error(constant(task, 0), task, task.load("train"), 64) == pytest.approx(0.7)


def draws() -> list[float]:
    return [random.random(), np.random.random(), torch.rand(1).item()]


def test_randomness_is_isolated():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = [draws(), draws()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    first = draws()
    with isolated_randomness(5):
        inside = draws()
    with pytest.raises(KeyError), isolated_randomness(5):
        assert draws() == inside
        raise KeyError
    assert [first, draws()] == expected
    with isolated_randomness(6):
        assert draws() != inside
