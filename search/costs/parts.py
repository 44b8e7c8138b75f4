"""The parts of an architecture, each built as the model builds it: what costs count or time.

A model is its embeddings, the attention of every layer with its residual and LayerNorm, every linear and every
operator of its feed-forward expressions at its widths, and their residuals with LayerNorm. Parts have names, so that
what one costs can be kept in a table: `embeddings 540 128`, `attention 540 12 45`, `linear 540 180`, `gelu 180`.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import BINARY, UNARY, Binary, Input, Linear, Unary, evaluate, parse, walk, width
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape


def embeddings_part(shape: Shape) -> str:
    """The part that a model has once: `embeddings 540 128`."""
    return f"embeddings {shape.hidden_size} {shape.embedding_size}"


def attention_part(hidden_size: int, num_heads: int, head_dim: int) -> str:
    """The attention of one layer: `attention 540 12 45`."""
    return f"attention {hidden_size} {num_heads} {head_dim}"


@lru_cache(maxsize=65536)
def network_parts(expression: str, hidden_size: int, intermediate_size: int) -> tuple[str, ...]:
    """The parts of one feed-forward network: `linear 540 180`, `gelu 180` or, narrow operand first, `mul 180 540`."""
    parts = [f"residual {hidden_size}"]
    for node in walk(parse(expression)):
        if isinstance(node, Linear):
            sizes = (hidden_size, intermediate_size)
            parts.append("linear {} {}".format(*(sizes[::-1] if node.name == "linear2" else sizes)))
        elif isinstance(node, Unary):
            parts.append(f"{node.name} {width(node, hidden_size, intermediate_size)}")
        elif isinstance(node, Binary):
            operands = (width(operand, hidden_size, intermediate_size) for operand in (node.left, node.right))
            parts.append("{} {} {}".format(node.name, *sorted(operands)))
    return tuple(parts)


def all_network_parts(hidden_size: int, intermediate_size: int) -> list[str]:
    """Every part that a feed-forward network of these sizes may have; at equal ones some are named twice."""
    narrow, wide = sorted((hidden_size, intermediate_size))
    parts = [f"residual {hidden_size}"]
    parts += [f"linear {hidden_size} {intermediate_size}", f"linear {intermediate_size} {hidden_size}"]
    parts += [f"{name} {size}" for name in UNARY for size in (narrow, wide)]
    parts += [
        f"{name} {one} {other}" for name in BINARY for one, other in ((narrow, narrow), (narrow, wide), (wide, wide))
    ]
    return parts


def layer_parts(hidden_size: int, layer: LayerChoice) -> list[str]:
    """The parts of one layer, as often as they stand in it: its attention, if any, and those of its networks."""
    attention = [attention_part(hidden_size, layer.heads, layer.head_dim)] if layer.heads else []
    return attention + layer.stack * list(network_parts(layer.expression, hidden_size, layer.intermediate_size))


def build_part(
    part: str,
    base: EfficientBertConfig,
    batch_size: int,
    sequence_length: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[nn.Module, tuple]:
    """The module of a part, and what it is called with; all is drawn on the default device.

    Args:
        part: Its name.
        base: What no architecture decides.
        batch_size: Sequences of a call.
        sequence_length: Tokens of every sequence.
        device: Of weights and inputs.
        dtype: Of weights and states.
    """
    name, *numbers = part.split()
    sizes = tuple(map(int, numbers))
    place: dict[str, Any] = {"device": device, "dtype": dtype}

    def states(size: int) -> torch.Tensor:
        return torch.randn(batch_size, sequence_length, size).to(**place)

    def model(hidden: int, heads: int = 1, head_dim: int = 1, embedding: int = 1) -> EfficientBertModel:
        layer = LayerChoice("linear2(gelu(linear1(x)))", 1, 1, heads, head_dim)
        architecture = Architecture(Shape(hidden, embedding), (layer,))
        return EfficientBertModel(architecture.to_config(base)).eval().to(**place)

    if name == "embeddings":
        whole = model(sizes[0], embedding=sizes[1])
        del whole.layers[:]
        return whole, random_tokens(base.vocab_size, batch_size, sequence_length, device)
    if name == "attention":
        layer = model(*sizes).layers[0]
        del layer.ffns[:]
        return layer, (states(sizes[0]), None)
    if name == "residual":
        network = model(*sizes).layers[0].ffns[0]
        network.expression = Input()
        for linear in ("linear1", "linear2"):
            setattr(network, linear, nn.Identity())
        return network, (states(sizes[0]),)
    if name == "linear":
        return nn.Linear(sizes[0], sizes[1]).to(**place), (states(sizes[0]),)
    return _Operator(name, [states(size) for size in sizes]), ()


def random_tokens(
    vocab_size: int, batch_size: int, sequence_length: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random token ids and a mask of ones, both of shape `(batch_size, sequence_length)`."""
    input_ids = torch.randint(vocab_size, (batch_size, sequence_length)).to(device)
    return input_ids, torch.ones_like(input_ids)


class _Operator(nn.Module):
    """One elementwise operator as an expression evaluates it, crop included."""

    def __init__(self, name: str, operands: list[torch.Tensor]):
        super().__init__()
        other = Linear("linear1", Input())  # stands for the second operand
        self.node = Unary(name, Input()) if name in UNARY else Binary(name, Input(), other)
        self.operands = operands

    def forward(self) -> torch.Tensor:
        return evaluate(self.node, self.operands[0], {"linear1": lambda x: self.operands[1]})
