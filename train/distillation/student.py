"""A student in training: the encoder, and the projection to the teacher's width that is not shipped with it."""

import dataclasses
import json
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.modeling_efficientbert import (
    EfficientBertAttention,
    EfficientBertForMaskedLM,
    EfficientBertLMHead,
    EfficientBertModel,
    EfficientBertPreTrainedModel,
)
from efficientbert.train.cli.errors import LOAD_ERRORS, InputError, bad_input_errors, did_you_mean, one_line
from efficientbert.train.distillation.capture import Captures, student_recorder
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.text.batches import encoder_inputs


# Fields of a configuration that no class declares: those of transformers, and what fine-tuning notes in a model.
UNDECLARED = {"_name_or_path", "auto_map", "model_type", "output_attentions", "num_labels", "torch_dtype"}
UNDECLARED |= {"finetuning_task", "no_answer_threshold", "label_indicators"}


class Student(nn.Module):
    """An encoder with its distillation projection; calling it yields captures in the teacher's width.

    It trains without dropout, which only blurs targets that a teacher gives for every token; the encoder's
    configuration keeps it for fine-tuning.

    Args:
        encoder: The encoder to train.
        teacher_size: Hidden size of the teacher.
        head: Masked-LM head around the encoder, where one is trained.
    """

    def __init__(self, encoder: EfficientBertModel, teacher_size: int, head: EfficientBertLMHead | None = None):
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Linear(encoder.config.hidden_size, teacher_size)
        self.head = head
        self.recorder = student_recorder(encoder)
        disable_dropout(encoder)

    def forward(self, labels: torch.Tensor | None = None, **batch: torch.Tensor) -> Captures:
        """Captures of a batch as of `packing.encoder_inputs`.

        Hidden states come projected, of shape `(B, L, teacher_size)`; with a head and `labels` of shape `(B, L)` there
        are logits of every token whose label is not -100.
        """
        inputs = encoder_inputs(batch, self.encoder.dtype)
        captures = self.recorder.record(lambda: self.encoder(**inputs, output_hidden_states=True))
        logits = None
        if self.head is not None and labels is not None:
            logits = self.head(captures.hidden_states[-1][labels != -100])
        projected = tuple(self.projection(states) for states in captures.hidden_states)
        return Captures(projected, captures.queries, captures.keys, captures.values, logits)

    def shipped(self) -> EfficientBertPreTrainedModel:
        """What is saved: the encoder, within a masked-LM model where its head was trained."""
        if self.head is None:
            return self.encoder
        model = EfficientBertForMaskedLM(self.encoder.config)
        model.efficientbert, model.lm_head = self.encoder, self.head
        return model


def disable_dropout(model: nn.Module) -> None:
    """Switches dropout off in training; the configuration keeps it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, EfficientBertAttention):
            module.attention_dropout = 0.0


def choose_attention(model: PreTrainedModel) -> None:
    """Makes a model train with the faster implementation of attention on its device.

    On the CPU the backward pass of torch's fused attention takes several times as long in bfloat16.
    """
    if model.device.type == "cpu":
        model.set_attn_implementation("eager")


def fit_config(config: EfficientBertConfig, teacher: Teacher) -> EfficientBertConfig:
    """A copy of `config` with the vocabulary, positions, segments and special tokens of a teacher."""
    fields = config.to_dict() | {
        "vocab_size": teacher.vocab_size,
        "max_position_embeddings": teacher.max_positions,
        "type_vocab_size": teacher.num_segments,
        "pad_token_id": teacher.tokenizer.pad_token_id,
        "bos_token_id": teacher.tokenizer.bos_token_id,
        "eos_token_id": teacher.tokenizer.eos_token_id,
    }
    return EfficientBertConfig(**fields)


def read_config(path: Path) -> EfficientBertConfig:
    """A configuration from a JSON file.

    Raises:
        InputError: if it cannot be read or is invalid.
    """
    try:
        config, found = EfficientBertConfig.from_json_file(path), json.loads(path.read_text(encoding="utf-8"))
    except LOAD_ERRORS + bad_input_errors() as error:
        raise InputError(f"config {str(path)!r}: {one_line(error)}") from None
    if found.get("model_type", EfficientBertConfig.model_type) != EfficientBertConfig.model_type:
        raise InputError(
            f"config {str(path)!r}: is of model type {found['model_type']!r}, not {EfficientBertConfig.model_type!r}"
        )
    known = {entry.name for entry in dataclasses.fields(config)} | UNDECLARED
    for name in found:
        if name not in known:
            raise InputError(f"config {str(path)!r}: unknown field {name!r}{did_you_mean(name, sorted(known))}")
    return config
