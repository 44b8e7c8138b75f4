"""An architecture in numbers that mean something whatever the teacher: capacities in the teacher's own sizes."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from efficientbert.ffn_efficientbert import Linear, parse
from efficientbert.search.costs.cost import linears_to_intermediate
from efficientbert.search.space.architecture import Architecture, LayerChoice


@dataclass(frozen=True)
class TeacherSizes:
    """What capacities are measured in."""

    hidden_size: int
    num_layers: int
    num_heads: int


NAMES = (
    "hidden size",
    "embedding size",
    "layers",
    "weights of networks",
    "weights of attention",
    "least weights of a layer",
    "layers with attention",
    "share of layers with attention",
    "place of the first attention",
    "place of the last attention",
    "share of gated layers",
    "share of layers that do not end in a linear",
    "networks in a row",
    "width of a network over the hidden size",
)


def describe(architecture: Architecture, teacher: TeacherSizes) -> np.ndarray:
    """Float64 vector of an architecture, see `NAMES`; sizes and weights as logarithms of parts of the teacher's."""
    layers, hidden = architecture.layers, architecture.shape.hidden_size
    unit = teacher.hidden_size**2
    networks = [_network_weights(layer, hidden) / unit for layer in layers]
    attention = [4 * layer.heads * layer.head_dim * hidden / unit for layer in layers]
    attentive, depth = architecture.attentive, len(layers)
    values = (
        math.log2(hidden / teacher.hidden_size),
        math.log2(architecture.shape.embedding_size / teacher.hidden_size),
        math.log2(depth / teacher.num_layers),
        math.log2(sum(networks)),
        math.log2(sum(attention)),
        math.log2(min(one + other for one, other in zip(networks, attention))),
        math.log2(len(attentive)),
        len(attentive) / depth,
        attentive[0] / depth,
        (depth - 1 - attentive[-1]) / depth,
        sum(linears_to_intermediate(layer.expression) > 1 for layer in layers) / depth,
        sum(not _ends_in_linear(layer.expression) for layer in layers) / depth,
        math.log2(sum(layer.stack for layer in layers) / depth),
        math.log2(sum(layer.intermediate_size for layer in layers) / depth / hidden),
    )
    return np.array(values, dtype=np.float64)


def _network_weights(layer: LayerChoice, hidden_size: int) -> int:
    """Weights of the linears of a layer's networks."""
    linears = linears_to_intermediate(layer.expression) + 1
    return layer.stack * linears * layer.intermediate_size * hidden_size


@lru_cache(maxsize=65536)
def _ends_in_linear(expression: str) -> bool:
    """Whether the output of a network is that of its last linear, which can be any number."""
    return isinstance(parse(expression), Linear)
