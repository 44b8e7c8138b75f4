"""Loading what users name: whole, quietly, or refused in one line and at once."""

import json

import pytest
from transformers import AutoModel, AutoModelForSequenceClassification

from efficientbert import EfficientBertConfig, EfficientBertModel
from efficientbert.train import finetune
from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder import loading
from efficientbert.train.model_folder.loading import load_config, load_model, load_tokenizer


@pytest.fixture
def no_hub(monkeypatch):
    """Nothing is looked for, neither here nor on the Hub."""

    def asked(*args, **kwargs):
        raise AssertionError("was asked for")

    for name in ("AutoConfig", "AutoTokenizer", "AutoModel"):
        monkeypatch.setattr(f"transformers.{name}.from_pretrained", asked)


def loaders(name):
    return [
        lambda: load_config(name, "model"),
        lambda: load_tokenizer(name),
        lambda: load_model(AutoModel, name, "model"),
    ]


@pytest.mark.parametrize(
    "name",
    ["./gone", "../gone", "/gone", "~/gone", "gone/", "gone.json", "me/gone.bin", "C:\\gone", "gone.safetensors"],
)
def test_a_path_that_is_not_there_is_refused_at_once(no_hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for load in loaders(name):
        with pytest.raises(InputError) as error:
            load()
        assert str(error.value).startswith(f"model {name!r}: ")
        assert str(error.value).endswith(": there is no such file or folder")


@pytest.mark.parametrize("name", ["me/model", "bert-base-uncased", "me/model-v1.5"])
def test_what_may_be_on_the_hub_is_asked_for(no_hub, name):
    for load in loaders(name):
        with pytest.raises(AssertionError, match="was asked for"):
            load()


def test_a_preset_is_no_trained_model(no_hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for load in loaders("efficientbert-tiny"):
        with pytest.raises(InputError, match="is a preset, which has no weights: distil it first with"):
            load()
    flags = ["--model", "efficientbert-tiny", "--task", "rte", "--output_dir", "out"]
    with pytest.raises(SystemExit):
        run_command(finetune.main, finetune.FinetuneArguments, "finetune", flags)
    expected = (
        "efficientbert finetune: error: model 'efficientbert-tiny': is a preset, which has no weights: distil it "
        "first with `efficientbert distill --student efficientbert-tiny`"
    )
    assert capsys.readouterr().err.splitlines()[-1] == expected


@pytest.fixture
def encoder(tmp_path, student_file, monkeypatch):
    """A folder with the encoder alone, named as a preset is."""
    monkeypatch.chdir(tmp_path)
    EfficientBertModel(EfficientBertConfig.from_json_file(student_file)).save_pretrained("efficientbert-tiny")
    return "efficientbert-tiny"


def test_the_report_is_returned_and_not_printed(encoder, capfd):
    model, report = load_model(AutoModelForSequenceClassification, encoder, "model", num_labels=3)
    assert model.config.num_labels == 3
    missing = {"classifier.output.weight", "classifier.output.bias"}
    assert missing <= set(report["missing_keys"])
    shown = capfd.readouterr()
    assert "classifier" not in shown.out + shown.err


def test_what_is_broken_is_one_line(encoder, tmp_path):
    with pytest.raises(InputError, match="teacher 'efficientbert-tiny': no tokenizer: ") as error:
        load_tokenizer(encoder, "teacher")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    path = tmp_path / encoder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 20}))
    with pytest.raises(InputError, match="student 'efficientbert-tiny': is bad: ") as error:
        load_model(AutoModel, encoder, "student", "is bad")
    assert "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(InputError, match="model 'efficientbert-tiny': cannot be loaded: "):
        load_config(encoder, "model")


def test_bad_input_that_a_loader_tells_keeps_its_words():
    with pytest.raises(InputError, match=r"^in its own words$"), loading.loading("me/model", "model"):
        raise InputError("in its own words")
