"""A model as an ONNX graph, with an operator each for attention, LayerNorm and gelu.

The graph takes int64 `input_ids`, `attention_mask` and, of a model that tells texts of a pair apart, `token_type_ids`,
of any batch size and length. Inputs and outputs have the names that loaders of such graphs look for.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.cli.quiet import quiet_logs
from efficientbert.train.model_folder.tokenizer_check import SEGMENTS, reads_segments


OPSET = 23  # the first with an operator for attention
BATCH, CHOICES, LENGTH = "batch_size", "num_choices", "sequence_length"  # axes of any size
SIZES = {BATCH: 2, CHOICES: 3, LENGTH: 5}  # of the example that a graph is drawn from
OUTPUTS = ("logits", "start_logits", "end_logits", "last_hidden_state")  # of models
EMBEDDING = "sentence_embedding"


@dataclass(frozen=True)
class Traced:
    """What becomes a graph.

    Attributes:
        module: Takes tensors in the order of `inputs`, and returns those of `outputs`.
        inputs: Their names.
        outputs: Their names.
        axes: What the axes of every input are.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: tuple[str, ...]


class TensorModel(nn.Module):
    """A model that takes and returns tensors alone.

    Args:
        model: The model.
        inputs: Names of what it takes.
        outputs: Names of what it returns.
    """

    def __init__(self, model: PreTrainedModel, inputs: tuple[str, ...], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(self.inputs, tensors)))
        return tuple(found[name] for name in self.outputs)


class _Embedder(nn.Module):
    """An embedder of sentence-transformers: its encoder, pooling and what stands behind it.

    Args:
        modules: As of `SentenceTransformer`.
        inputs: Names of what the encoder takes.
    """

    def __init__(self, modules: list[nn.Module], inputs: tuple[str, ...]):
        super().__init__()
        self.encoder: Any = modules[0].auto_model
        self.rest = nn.ModuleList(modules[1:])
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = dict(zip(self.inputs, tensors))
        states = self.encoder(**named).last_hidden_state
        features = {"token_embeddings": states, "attention_mask": named["attention_mask"]}
        for module in self.rest:
            features = module(features)
        return states, features[EMBEDDING]


def input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """What a graph of a model takes."""
    return ("input_ids", "attention_mask", *([SEGMENTS] if reads_segments(model, tokenizer) else []))


def trace_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Traced:
    """A model with any head, or none."""
    inputs = input_names(model, tokenizer)
    choices = type(model).__name__.endswith("ForMultipleChoice")
    axes = (BATCH, CHOICES, LENGTH) if choices else (BATCH, LENGTH)
    with torch.inference_mode():
        given = model.eval()(**dict(zip(inputs, example(inputs, axes, model.config.vocab_size))))
    outputs = tuple(name for name in OUTPUTS if name in given)
    return Traced(TensorModel(model, inputs, outputs), inputs, outputs, axes)


def trace_embedder(embedder: Any) -> Traced:
    """A `SentenceTransformer`; its embeddings come second, behind the states of all tokens."""
    modules = list(embedder)
    inputs = input_names(modules[0].auto_model, embedder.tokenizer)
    module = _Embedder(modules, inputs).eval()
    return Traced(module, inputs, ("last_hidden_state", EMBEDDING), (BATCH, LENGTH))


def example(inputs: tuple[str, ...], axes: tuple[str, ...], vocab_size: int) -> tuple[torch.Tensor, ...]:
    """Inputs of which one has padding, so that no mask is left out."""
    shape = [SIZES[axis] for axis in axes]
    ids = torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, ..., -2:] = 0
    made = {"input_ids": ids, "attention_mask": mask, SEGMENTS: torch.zeros_like(ids)}
    return tuple(made[name] for name in inputs)


def write_graph(traced: Traced, vocab_size: int, path: Path) -> None:
    """Writes the graph of a model.

    Args:
        traced: The model.
        vocab_size: Of it.
        path: Of the file.

    Raises:
        InputError: if it cannot be drawn.
    """
    shapes = tuple(dict(enumerate(map(torch.export.Dim, traced.axes))) for _ in traced.inputs)
    with quiet_logs():
        try:
            program = torch.onnx.export(
                traced.module,
                example(traced.inputs, traced.axes, vocab_size),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(traced.inputs),
                output_names=list(traced.outputs),
                dynamic_shapes=(shapes,),
                verbose=False,
            )
        except Exception as error:  # whatever the exporter's many parts raise
            raise InputError(f"model: cannot be drawn as a graph: {one_line(error)}") from None
    assert program is not None
    program.save(path)


def count_operators(path: Path) -> dict[str, int]:
    """How often every operator stands in a graph, most often first."""
    graph = onnx.load(path, load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node).most_common())


def module_of(node: onnx.NodeProto) -> str:
    """The module of the model that an operator comes from, such as `layers.0.attention.qkv`."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "[]")
    names = [name.strip("' ") for name in scopes.strip("[]").split(",")]
    return names[-2] if len(names) > 1 else ""
