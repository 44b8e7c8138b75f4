"""Teachers of every family: what is captured is what the model computes."""

import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    CanineTokenizer,
    ConvBertConfig,
    EsmConfig,
    MegatronBertConfig,
    MobileBertConfig,
    RemBertConfig,
)

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.capture import CaptureError, Recorder
from efficientbert.train.distillation.teacher import Teacher


FAMILIES = ("bert", "roberta", "electra", "mpnet", "distilbert")


def make_batch(teacher: Teacher) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = teacher.tokenizer.pad_token_id, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", FAMILIES)
def test_captures_give_the_reported_attention_and_states(family, teacher_folder):
    teacher = Teacher.load(teacher_folder(family))
    batch = make_batch(teacher)
    captures = teacher(batch)
    teacher.model.set_attn_implementation("eager")
    outputs = teacher.model(**batch, output_hidden_states=True, output_attentions=True)
    assert len(captures.hidden_states) == 5 and len(captures.queries) == 4
    for mine, reported in zip(captures.hidden_states, outputs.hidden_states):
        torch.testing.assert_close(mine, reported, rtol=1e-4, atol=1e-5)
    bias = torch.zeros(1, 3, 9, 9)
    if family == "mpnet":
        bias = teacher.model.encoder.compute_position_bias(outputs.hidden_states[0])
    mask = torch.where(batch["attention_mask"].bool(), 0.0, -torch.inf)[:, None, None]
    for layer, reported in enumerate(outputs.attentions):
        expected = (captures.attention_scores(layer) + bias + mask).softmax(-1)
        torch.testing.assert_close(expected, reported, rtol=1e-4, atol=1e-5)
        value = captures.values[layer]
        linear = teacher.attention_linears(layer)[2]
        by_hand = linear(outputs.hidden_states[layer]).view(2, 9, 3, 8).transpose(1, 2)
        torch.testing.assert_close(value, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "positions", "offset", "segments"),
    [("bert", 64, 0, 2), ("roberta", 64, 2, 1), ("electra", 64, 0, 2), ("mpnet", 64, 2, 1), ("distilbert", 64, 0, 1)],
)
def test_table_sizes(family, positions, offset, segments, teacher_folder):
    teacher = Teacher.load(teacher_folder(family))
    assert (teacher.max_positions, teacher.position_offset, teacher.num_segments) == (positions, offset, segments)


def test_a_family_that_cannot_be_captured_is_refused_by_name(teacher_folder):
    with pytest.raises(InputError, match=r"deberta-v2.*BERT, RoBERTa, ELECTRA, MPNet, DistilBERT"):
        Teacher.load(teacher_folder("deberta"))


SIZES = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
SIZES |= {"intermediate_size": 40, "max_position_embeddings": 64}


@pytest.mark.parametrize(
    "config",
    [
        MobileBertConfig(**SIZES, embedding_size=12, true_hidden_size=12, intra_bottleneck_size=12),
        RemBertConfig(**SIZES, input_embedding_size=16, output_embedding_size=16),
        MegatronBertConfig(**SIZES),
        ConvBertConfig(**SIZES, embedding_size=24, head_ratio=1),
        ConvBertConfig(**SIZES | {"num_attention_heads": 4}, embedding_size=16, head_ratio=2),
        EsmConfig(**SIZES, pad_token_id=0, mask_token_id=4, position_embedding_type="absolute"),
        EsmConfig(**SIZES, pad_token_id=0, mask_token_id=4, position_embedding_type="rotary"),
    ],
    ids=lambda config: config.model_type,
)
def test_families_that_only_share_names_with_bert_are_refused(config, teacher_folder):
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder())
    with pytest.raises(InputError, match=rf"attention of model type '{config.model_type}' cannot be captured"):
        Teacher(AutoModel.from_config(config), tokenizer, "like BERT")


def test_reported_attention_of_another_shape_is_refused(teacher_folder, monkeypatch):
    teacher = Teacher.load(teacher_folder("bert"))
    forward = teacher.model.forward

    def with_fewer_heads(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.attentions = tuple(attention[:, :2] for attention in outputs.attentions)
        return outputs

    monkeypatch.setattr(teacher.model, "forward", with_fewer_heads)
    with pytest.raises(InputError, match="layer 0 do not give the attention"):
        Teacher(teacher.model, teacher.tokenizer, "changed")


def test_a_slow_tokenizer_is_refused(teacher_folder):
    teacher = Teacher.load(teacher_folder("bert"))
    with pytest.raises(InputError, match="its tokenizer CanineTokenizer is a slow one"):
        Teacher(teacher.model, CanineTokenizer(), "slow")


def test_attention_that_is_not_queries_times_keys_is_refused(teacher_folder):
    teacher = Teacher.load(teacher_folder("bert"))
    attention = teacher.model.encoder.layer[2].attention.self
    attention.scaling *= 2
    with pytest.raises(InputError, match="layer 2 do not give the attention"):
        Teacher(teacher.model, teacher.tokenizer, "changed")


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(teacher_folder):
    teacher = Teacher.load(teacher_folder("bert"))
    teacher.tokenizer.add_tokens(["more"])
    with pytest.raises(InputError, match="66 tokens but its vocabulary 65 rows"):
        Teacher(teacher.model, teacher.tokenizer, "changed")


def test_a_teacher_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        Teacher.load(str(tmp_path / "nothing"))


def test_a_missing_capture_is_an_error_not_a_zero():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self):
            class Outputs:
                hidden_states = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))

            return Outputs()

    silent = Silent()
    recorder = Recorder(silent, [list(silent.unused)], [2])
    with pytest.raises(CaptureError, match="layer 0"):
        recorder.record(silent)
    two_layers = Recorder(silent, [list(silent.unused)] * 2, [2, 2])
    with pytest.raises(CaptureError, match="2 hidden states of an encoder with 2 layers"):
        two_layers.record(silent)


def test_a_recorder_keeps_nothing_that_runs_outside_of_it(teacher_folder):
    """As layers do that gradient checkpointing runs again."""
    teacher = Teacher.load(teacher_folder("bert"))
    batch = make_batch(teacher)
    captures = teacher(batch)
    linear = teacher.attention_linears(0)[0]
    outputs = []
    handle = linear.register_forward_hook(lambda module, inputs, output: outputs.append(weakref.ref(output)))
    teacher.model(**batch)
    handle.remove()
    assert len(outputs) == 1 and outputs[0]() is None
    torch.testing.assert_close(teacher(batch).queries[0], captures.queries[0])


class Scaled(BertForMaskedLM):
    """Its logits are not what its head alone computes."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits * 2 + 1
        return outputs


def test_masked_lm_logits_are_those_of_the_whole_model_or_refused(teacher_folder):
    plain = Teacher.load(teacher_folder("bert"))
    config = BertConfig(**plain.model.config.to_diff_dict())
    model = BertForMaskedLM(config).eval()
    teacher = Teacher(model.base_model, plain.tokenizer, "whole", model)
    batch = make_batch(teacher) | {"labels": torch.full((2, 9), -100)}
    assert teacher(batch).logits.shape == (0, 65)
    batch["labels"][1, 3] = 7
    expected = model(batch["input_ids"], batch["attention_mask"]).logits[1, 3]
    torch.testing.assert_close(teacher(batch).logits[0], expected, rtol=1e-4, atol=1e-5)
    assert plain(batch).logits is None
    scaled = Scaled(config)
    with pytest.raises(InputError, match="masked-LM head of model type 'bert' cannot be captured"):
        Teacher(scaled.base_model, plain.tokenizer, "scaled", scaled)


def test_missing_weights_are_told_in_one_line_but_not_a_missing_pooler(teacher_folder, tmp_path):
    plain = Teacher.load(teacher_folder("bert"))
    plain.tokenizer.save_pretrained(tmp_path)
    plain.model.save_pretrained(tmp_path)  # was made without a pooler
    Teacher.load(str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, such as encoder\.layer\.1\.output\.dense\.bias$"):
        Teacher.load(str(tmp_path))
    with pytest.raises(InputError, match="has no masked-LM head"):
        Teacher.load(str(tmp_path), masked_lm=True)
