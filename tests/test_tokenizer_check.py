"""Tokenizers and models that do not suit each other, and models that do not tell the texts of a pair apart."""

import shutil

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2Model,
    pipeline,
)

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForSequenceClassification, EfficientBertModel
from efficientbert.train import finetune, scoring
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.model_folder.tokenizer_check import check_tokenizer, fit_segments, reads_segments
from efficientbert.train.tasks.arguments import EvaluateArguments, FinetuneArguments, TaskArguments
from efficientbert.train.tasks.kinds import task_of_data


SIZES = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
BERT = SIZES | {"intermediate_size": 32, "max_position_embeddings": 64, "initializer_range": 0.3}
DISTILBERT = {
    "vocab_size": 65,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 32,
    "max_position_embeddings": 64,
}
STUDENT = SIZES | {"hidden_size": 18, "embedding_size": 8, "max_position_embeddings": 64}
GPT2 = {"vocab_size": 65, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64}


@pytest.fixture
def tokenizer(teacher_folder):
    """It counts two segments."""
    return AutoTokenizer.from_pretrained(teacher_folder("bert"))


@pytest.fixture
def pairs(tmp_path):
    """Whether the second text repeats the first."""
    rows = [f"word{i % 7},word{i % 7 if i % 2 else 50},{('other', 'same')[i % 2]}" for i in range(32)]
    (tmp_path / "pairs.csv").write_text("\n".join(["one,two,label", *rows]), encoding="utf-8")
    return str(tmp_path / "pairs.csv")


def tune(model, data, output, **changes):
    settings = {"text_column": "one", "text_pair_column": "two", "eval_split": ["train"], "num_epochs": 1}
    settings |= {"batch_size": 8, "max_length": 32}
    return finetune.main(
        FinetuneArguments(model=str(model), data=data, output_dir=str(output), **settings | changes)
    ).figures


def save(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_without_padding_is_refused(tokenizer):
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="model 'x': its tokenizer has no padding token; set one"):
        check_tokenizer(tokenizer, BertForSequenceClassification(BertConfig(**BERT)), "model 'x'")


@pytest.mark.parametrize(("added", "special"), [("more", False), ("[MORE]", True)])
def test_ids_without_a_row_are_refused(added, special, tokenizer):
    model = BertForSequenceClassification(BertConfig(**BERT))
    check_tokenizer(tokenizer, model, "model 'x'")
    tokenizer.add_tokens([added], special_tokens=special)
    with pytest.raises(InputError, match=r"has 66 tokens but its vocabulary 65 rows: '(more|\[MORE\])' has the id 65"):
        check_tokenizer(tokenizer, model, "model 'x'")


@pytest.mark.parametrize(
    ("model", "reads"),
    [
        (BertForSequenceClassification(BertConfig(**BERT)), True),
        (BertForSequenceClassification(BertConfig(**BERT, type_vocab_size=1)), False),
        (DistilBertForSequenceClassification(DistilBertConfig(**DISTILBERT)), False),
        (EfficientBertForSequenceClassification(EfficientBertConfig(**STUDENT)), True),
        (EfficientBertForSequenceClassification(EfficientBertConfig(**STUDENT, type_vocab_size=1)), False),
    ],
    ids=["bert", "one segment", "distilbert", "student", "student of one segment"],
)
def test_only_models_with_segments_are_given_some(model, reads, tokenizer, tmp_path):
    assert reads_segments(model, tokenizer) == reads
    fit_segments(tokenizer, model)
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert ("token_type_ids" in one("word1", "word2")) == reads


def test_a_teacher_of_one_segment_has_a_tokenizer_of_one(teacher_folder, tokenizer):
    """It is saved with the student, so that any tool reads pairs with it."""
    assert "token_type_ids" in tokenizer.model_input_names
    assert "token_type_ids" not in Teacher.load(teacher_folder("distilbert")).tokenizer.model_input_names
    assert "token_type_ids" in Teacher.load(teacher_folder("bert")).tokenizer.model_input_names


@pytest.mark.parametrize("kind", ["student", "bert", "distilbert"])
def test_pairs_are_learned_and_scored_with_one_segment(kind, tokenizer, pairs, tmp_path):
    """Though the tokenizer in the folder counts two."""
    torch.manual_seed(0)
    model = {
        "student": lambda: EfficientBertModel(EfficientBertConfig(**STUDENT, type_vocab_size=1)),
        "bert": lambda: BertForSequenceClassification(BertConfig(**BERT, type_vocab_size=1)),
        "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTILBERT)),
    }[kind]()
    save(tmp_path / "model", model, tokenizer)
    figures = tune(tmp_path / "model", pairs, tmp_path / "tuned")
    arguments = EvaluateArguments(model=str(tmp_path / "tuned"), data=pairs, split="train", device="cpu", bootstrap=0)
    assert scoring.main(arguments).figures["results"][0]["metrics"] == pytest.approx(figures["train"])
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "tuned").model_input_names
    (found,) = pipeline("text-classification", str(tmp_path / "tuned"))([{"text": "word1", "text_pair": "word2"}])
    assert found["label"] in ("other", "same")
    tokenizer.save_pretrained(tmp_path / "tuned")  # as earlier versions left it
    assert scoring.main(arguments).figures["results"][0]["metrics"] == pytest.approx(figures["train"])


@pytest.mark.parametrize("student", ["student", "distilbert"])
def test_each_of_student_and_teacher_reads_its_own_segments(student, tokenizer, pairs, tmp_path, monkeypatch):
    task = task_of_data(TaskArguments(data=pairs, text_column="one", text_pair_column="two"), tokenizer, "train")
    torch.manual_seed(0)
    two, one = BertConfig(**BERT), DistilBertConfig(**DISTILBERT)
    for config in (two, one):
        task.configure(config)
    save(tmp_path / "two", BertForSequenceClassification(two), tokenizer)
    if student == "student":
        model = EfficientBertModel(EfficientBertConfig(**STUDENT, type_vocab_size=1))
    else:
        model = DistilBertForSequenceClassification(one)
    save(tmp_path / "model", model, tokenizer)
    seen = []
    real = TaskTeacher.__call__

    def watch(self, inputs, capture=False):
        outputs, captures = real(self, inputs, capture)
        seen.append((inputs, outputs.logits))
        return outputs, captures

    monkeypatch.setattr(TaskTeacher, "__call__", watch)
    distillation = "together" if student == "student" else "outputs"
    tune(tmp_path / "model", pairs, tmp_path / "tuned", teacher=str(tmp_path / "two"), distillation=distillation)
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two").eval()
    inputs, logits = seen[-1]
    ids = inputs["input_ids"]
    behind = (ids == 3).cumsum(1) - (ids == 3).long()  # separators before a token; padding has had both
    expected = ((behind == 1) & (inputs["attention_mask"] == 1)).long()
    assert torch.equal(inputs["token_type_ids"], expected) and expected.any()
    with torch.no_grad():
        torch.testing.assert_close(logits, whole(**inputs).logits)
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tmp_path / "tuned").model_input_names


def test_a_teacher_of_one_segment_teaches_a_student_of_two(tokenizer, pairs, tmp_path):
    save(tmp_path / "model", EfficientBertModel(EfficientBertConfig(**STUDENT)), tokenizer)
    save(tmp_path / "base", BertForSequenceClassification(BertConfig(**BERT, type_vocab_size=1)), tokenizer)
    tune(tmp_path / "base", pairs, tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    tune(tmp_path / "model", pairs, tmp_path / "tuned", teacher=str(tmp_path / "teacher"))
    assert "token_type_ids" in AutoTokenizer.from_pretrained(tmp_path / "tuned").model_input_names


def test_a_student_of_one_segment_takes_no_notice_of_a_second():
    model = EfficientBertModel(EfficientBertConfig(**STUDENT, type_vocab_size=1)).eval()
    ids = torch.tensor([[2, 5, 3, 6, 3]])
    with torch.no_grad():
        expected = model(ids).last_hidden_state
        found = model(ids, token_type_ids=torch.tensor([[0, 0, 0, 1, 1]])).last_hidden_state
    assert torch.equal(found, expected)


def test_a_decoder_with_a_padding_token_is_fine_tuned(tokenizer, pairs, tmp_path):
    """Its head has no bias, and its configuration knows no padding."""
    tokenizer.padding_side = "right"
    torch.manual_seed(0)
    save(tmp_path / "model", GPT2Model(GPT2Config(**GPT2, bos_token_id=2, eos_token_id=3)), tokenizer)
    figures = tune(tmp_path / "model", pairs, tmp_path / "tuned", num_epochs=3)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert model.config.pad_token_id == tokenizer.pad_token_id and model.score.bias is None
    arguments = EvaluateArguments(model=str(tmp_path / "tuned"), data=pairs, split="train", device="cpu", bootstrap=0)
    assert scoring.main(arguments).figures["results"][0]["metrics"] == pytest.approx(figures["train"])


def test_what_cannot_be_padded_is_refused_and_nothing_is_written(tokenizer, pairs, tmp_path, monkeypatch):
    save(tmp_path / "model", GPT2Model(GPT2Config(**GPT2)), tokenizer)
    shutil.copytree(tmp_path / "model", tmp_path / "bare")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match=r"model '.*bare': its tokenizer has no padding token"):
        tune(tmp_path / "bare", pairs, tmp_path / "tuned")

    def refuse(self, *args, **kwargs):
        raise ValueError("no batches here")

    monkeypatch.setattr(GPT2Model, "forward", refuse)
    with pytest.raises(InputError, match=r"model '.*': model type 'gpt2' cannot read a padded batch .*: no batches"):
        tune(tmp_path / "model", pairs, tmp_path / "tuned", eval_split=["none"])
    assert not list(tmp_path.glob("tuned*"))
