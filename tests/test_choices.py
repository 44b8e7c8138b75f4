"""Multiple choice: columns, padded choices, and losses against slow versions."""

import math
import random
from dataclasses import dataclass

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import AutoTokenizer, BertConfig, BertForMultipleChoice

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMultipleChoice
from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import compute_metric
from efficientbert.train.tasks.arguments import TaskArguments
from efficientbert.train.tasks.kinds import task_of_data, task_of_model
from efficientbert.train.tasks.task import model_inputs


LISTS = {"text_column": "context", "choice_columns": ["choices"]}
SIZES = {"vocab_size": 65, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@dataclass
class Outputs:
    """Stands for the outputs of a model."""

    logits: torch.Tensor


@pytest.fixture(scope="module")
def tokenizer(teacher_folder):
    return AutoTokenizer.from_pretrained(teacher_folder("bert"))


def save(tmp_path, columns, name="choices.parquet", **features):
    path = tmp_path / name
    rows = Dataset.from_dict(columns)
    rows.cast(Features(rows.features | features)).to_parquet(path)
    return path


def load(path, tokenizer, **arguments):
    task = task_of_data(TaskArguments(data=str(path), kind="multiple-choice", **arguments), tokenizer, "train")
    return task, task.load("train")


def random_lists(tmp_path, counts=(2, 4, 1, 3)):
    """A file of rows with these numbers of choices, and its columns."""
    rng = random.Random(0)

    def text():
        return " ".join(f"word{rng.randrange(60)}" for _ in range(rng.randint(1, 6)))

    columns = {
        "context": [text() for _ in counts],
        "choices": [[text() for _ in range(count)] for count in counts],
        "label": [rng.randrange(count) for count in counts],
    }
    return save(tmp_path, columns), columns


def test_every_choice_is_a_pair_with_the_context(tmp_path, tokenizer):
    path, columns = random_lists(tmp_path)
    task, data = load(path, tokenizer, **LISTS)
    assert task.label_names is None and task.auto_class.__name__ == "AutoModelForMultipleChoice"
    for feature, context, choices in zip(data.features, columns["context"], columns["choices"]):
        pairs = [tokenizer(context, choice) for choice in choices]
        assert feature["input_ids"] == [pair["input_ids"] for pair in pairs]
        assert feature["token_type_ids"] == [pair["token_type_ids"] for pair in pairs]
    assert task.references(data) == columns["label"]
    _, data = load(path, tokenizer, **LISTS, max_length=8)
    assert max(len(ids) for row in data.features["input_ids"] for ids in row) == 8


def test_columns_of_swag_and_of_ones_own(tmp_path, tokenizer):
    texts = {name: [f"word{index} word9"] for index, name in enumerate("abcd")}
    own = save(tmp_path, texts | {"answer": ["1"]}, "own.parquet")
    arguments = {"text_column": "a", "text_pair_column": "b", "choice_columns": ["c", "d"], "label_column": "answer"}
    _, data = load(own, tokenizer, **arguments)
    expected = [
        tokenizer("word0 word9", f"word1 word9 {choice}")["input_ids"] for choice in ("word2 word9", "word3 word9")
    ]
    assert data.features["input_ids"] == [expected] and data.features["labels"][:] == [1]
    names = ["sent1", "sent2", "ending0", "ending1", "ending2", "ending3"]
    columns = {name: [f"word{index}"] for index, name in enumerate(names)} | {"label": [3]}
    swag = save(tmp_path, columns, "swag.parquet", label=ClassLabel(names=["0", "1", "2", "3"]))
    _, data = load(swag, tokenizer)
    assert data.features["input_ids"][0] == [
        tokenizer("word0", f"word1 word{index}")["input_ids"] for index in (2, 3, 4, 5)
    ]
    assert data.features["labels"][:] == [3]


def test_padding_changes_no_choice_and_no_loss(tmp_path, tokenizer):
    path, columns = random_lists(tmp_path)
    task, data = load(path, tokenizer, **LISTS)
    batch = task.collate([data.features[index] for index in range(4)])
    assert batch["choice_mask"].tolist() == [[index < count for index in range(4)] for count in (2, 4, 1, 3)]
    torch.manual_seed(0)
    for model in (
        BertForMultipleChoice(BertConfig(**SIZES, intermediate_size=8, initializer_range=0.5)).eval(),
        EfficientBertForMultipleChoice(EfficientBertConfig(**SIZES, initializer_range=0.5)).eval(),
    ):
        outputs = model(**model_inputs(batch))
        hard = 0.0
        for row, (feature, logits) in enumerate(
            zip(data.features, task.logits(Outputs(outputs.logits.detach()), batch))
        ):
            alone = [
                model(**{name: torch.tensor([[feature[name][choice]]]) for name in ("input_ids", "token_type_ids")})
                for choice in range(len(feature["input_ids"]))
            ]
            alone = [output.logits.item() for output in alone]
            assert logits.tolist() == pytest.approx(alone, abs=1e-5)
            label = columns["label"][row]
            hard += math.log(sum(math.exp(value) for value in alone)) - alone[label]
        loss = task.loss(outputs, batch)
        assert task.count(batch) == 4 and loss.item() == pytest.approx(hard, rel=1e-4)
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_soft_loss_and_its_gradient(tmp_path, tokenizer):
    path, _ = random_lists(tmp_path)
    task, data = load(path, tokenizer, **LISTS)
    batch = task.collate([data.features[index] for index in range(4)])
    torch.manual_seed(1)
    student, teacher = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
    expected = 0.0
    gradient = torch.zeros(4, 4)
    for row, count in enumerate((2, 4, 1, 3)):
        target = (teacher[row, :count] / 3).softmax(0)
        logs = (student[row, :count] / 3).log_softmax(0)
        expected -= 9 * (target * logs).sum().item()
        gradient[row, :count] = 3 * (logs.exp() - target).detach()
    loss = task.soft_loss(Outputs(student), Outputs(teacher), batch, 3.0)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.allclose(student.grad, gradient, atol=1e-5)


def test_predictions_never_are_padding(tmp_path, tokenizer):
    path, columns = random_lists(tmp_path)
    task, data = load(path, tokenizer, **LISTS)
    batch = task.collate([data.features[index] for index in range(4)])
    rising = torch.arange(4.0).expand(4, 4)
    predictions = task.predict(task.logits(Outputs(rising), batch), data)
    assert predictions == [1, 3, 0, 2]
    result = compute_metric(task.metric(), predictions, task.references(data))
    assert result == {"accuracy": sum(p == r for p, r in zip(predictions, columns["label"])) / 4}


def test_models_have_no_labels_of_their_own(tmp_path, tokenizer):
    path, _ = random_lists(tmp_path)
    config = BertConfig(**SIZES, num_labels=3)
    task = task_of_model(TaskArguments(data=str(path), kind="multiple-choice", **LISTS), tokenizer, config)
    assert task.label_names is None
    assert "labels" not in task.load("train", labelled=False).features.column_names


def test_columns_of_a_csv_keep_their_spaces_and_their_numbers(tmp_path, tokenizer):
    path = tmp_path / "choices.csv"
    path.write_text("the question,choice a,choice b,label\nword1,07,1E5,1\nword2,None,NA,0\n", encoding="utf-8")
    arguments = {"text_column": "the question", "choice_columns": ["choice a", "choice b"]}
    _, data = load(path, tokenizer, **arguments)
    assert data.rows["choice a"][:] == ["07", "None"] and data.rows["choice b"][:] == ["1E5", "NA"]
    assert data.features["labels"][:] == [1, 0]


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        (
            {"context": ["a"], "choices": [["a", "b"]], "label": [2]},
            LISTS,
            "row 0: label 2 is no index .* from 0 to 1",
        ),
        ({"context": ["a"], "choices": [["a", "b"]], "label": ["B"]}, LISTS, "row 0: label 'B' is no index"),
        ({"context": ["a"], "choices": [["a", "b"]], "label": [None]}, LISTS, "row 0: 'label' is missing"),
        ({"context": ["a"], "choices": [["a", "b"]], "label": [0.5]}, LISTS, "float64; needed are indices"),
        ({"context": ["a"], "choices": ["a"], "label": [0]}, LISTS, "row 0: 'choices' is 'a', not a list of choices"),
        ({"context": [None, "a"], "choices": [["b"], ["b"]], "label": [0, 0]}, LISTS, "row 0: 'context' is None, not"),
        ({"context": ["a", "a"], "choices": [["b"], []], "label": [0, 0]}, LISTS, "row 1: choices are \\[\\]; texts"),
        ({"context": ["a"], "choices": [["b", None]], "label": [0]}, LISTS, "row 0: choices are .*None.*; texts are"),
        ({"context": ["a"], "label": [0]}, {}, "no column 'sent1'"),
        ({"context": ["a"], "label": [0]}, {"text_column": "context"}, "choice_columns: must name"),
        ({"context": ["a"], "label": [0]}, {"choice_columns": ["context"]}, "text_column: must name"),
    ],
)
def test_what_cannot_be_read(columns, arguments, message, tmp_path, tokenizer):
    features = {"choices": List(Value("string"))} if columns.get("choices") == [["b"], []] else {}
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, columns, **features), tokenizer, **arguments)
