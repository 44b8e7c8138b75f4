"""Students in training: projection, masked-LM head, what is saved of them, and layers of unequal number."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import EfficientBertForMaskedLM, EfficientBertModel
from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.layer_map import uniform_layer_map
from efficientbert.train.distillation.projection import load_projection, save_projection
from efficientbert.train.distillation.student import Student, choose_attention, read_config
from efficientbert.train.distillation.teacher import Teacher


def make_config() -> EfficientBertConfig:
    return EfficientBertConfig(
        vocab_size=65, hidden_size=18, num_hidden_layers=2, num_attention_heads=3, embedding_size=8
    )


def make_student() -> Student:
    torch.manual_seed(0)
    model = EfficientBertForMaskedLM(make_config())
    return Student(model.efficientbert, 24, model.lm_head)


def make_batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 65, (3, 7), generator=torch.Generator().manual_seed(1))
    labels = torch.full_like(ids, -100)
    labels[0, 2], labels[2, 6], labels[2, 1] = 7, 8, 9
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"intermediate_size": 96}, "unknown field 'intermediate_size'; did you mean 'intermediate_sizes'?"),
        ({"num_hidden_layer": 2}, "unknown field 'num_hidden_layer'; did you mean 'num_hidden_layers'?"),
        ({"spam": 2}, "unknown field 'spam'"),
        ({"model_type": "bert", "hidden_act": "gelu"}, "is of model type 'bert', not 'efficientbert'"),
    ],
)
def test_fields_that_no_configuration_has_are_refused(fields, message, tmp_path):
    path = tmp_path / "student.json"
    path.write_text(json.dumps({"hidden_size": 48, "num_attention_heads": 4} | fields), encoding="utf-8")
    with pytest.raises(InputError) as told:
        read_config(path)
    assert str(told.value) == f"config {str(path)!r}: {message}"


def test_what_a_model_saves_of_its_configuration_is_read(tmp_path):
    config = EfficientBertConfig(hidden_size=48, num_attention_heads=4, num_labels=3, problem_type="regression")
    config.no_answer_threshold, config.finetuning_task, config.label_indicators = 0.3, "squad_v2", True
    EfficientBertModel(config).save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json").hidden_size == 48


def test_captures_are_projected_and_without_dropout():
    student, batch = make_student().train(), make_batch()
    first, second = student(**batch), student(**batch)
    states = student.encoder(batch["input_ids"], batch["attention_mask"], output_hidden_states=True).hidden_states
    assert len(states) == len(first.hidden_states) == 3
    for captured, again, state in zip(first.hidden_states, second.hidden_states, states):
        assert torch.equal(captured, again)
        torch.testing.assert_close(captured, student.projection(state))


def test_logits_are_of_the_tokens_to_predict_in_order():
    student, batch = make_student(), make_batch()
    states = student.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    expected = student.head(states)[[0, 2, 2], [2, 1, 6]]
    torch.testing.assert_close(student(**batch).logits, expected)
    labels = batch.pop("labels")
    assert student(**batch).logits is None
    assert Student(student.encoder, 24)(labels=labels, **batch).logits is None


def test_a_trained_head_is_saved_with_its_encoder(tmp_path):
    student, batch = make_student(), make_batch()
    with torch.no_grad():
        student.encoder.embeddings.word_embeddings.weight.mul_(3)  # tied: the head follows
        student.head.dense.bias.fill_(0.5)
    expected = student(**batch).logits
    student.shipped().save_pretrained(tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path)
    found = model(batch["input_ids"], batch["attention_mask"]).logits[batch["labels"] != -100]
    torch.testing.assert_close(found, expected)
    encoder = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(
        encoder(batch["input_ids"]).last_hidden_state, student.encoder(batch["input_ids"]).last_hidden_state
    )
    assert Student(student.encoder, 24).shipped() is student.encoder


def test_eager_attention_on_the_cpu():
    model = EfficientBertModel(make_config())
    assert model.config._attn_implementation == "sdpa"
    choose_attention(model)
    assert model.config._attn_implementation == "eager"


def test_projections_are_kept_beside_the_encoder(tmp_path):
    one, other = make_student(), Student(EfficientBertModel(make_config()), 24)
    save_projection(one.projection, tmp_path)
    assert set(load_file(tmp_path / "distillation_projection.safetensors")) == {"weight", "bias"}
    assert load_projection(other.projection, tmp_path)
    assert torch.equal(one.projection.weight, other.projection.weight)
    assert not load_projection(torch.nn.Linear(18, 25), tmp_path)
    assert not load_projection(other.projection, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("student_layers", "teacher_layers", "layers"),
    [
        (6, 12, (1, 3, 5, 7, 9, 11)),
        (4, 6, (0, 2, 3, 5)),
        (3, 3, (0, 1, 2)),
        (1, 12, (11,)),
        (6, 3, (0, 0, 1, 1, 2, 2)),
        (5, 4, (0, 0, 1, 2, 3)),
    ],
)
def test_nearest_layers(student_layers, teacher_layers, layers):
    assert nearest_layers(student_layers, teacher_layers) == layers


def test_a_uniform_map_is_not_for_deeper_students(teacher_folder):
    teacher = Teacher.load(teacher_folder())
    assert uniform_layer_map(2, teacher) == (1, 3)
    with pytest.raises(InputError, match="has 4 layers, fewer than the student's 5"):
        uniform_layer_map(5, teacher)
