"""An architecture: one value that is drawn, priced, sliced, stored, and turned into a configuration in one place."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from efficientbert.configuration_efficientbert import EfficientBertConfig


FORMAT = 2  # of an architecture in a study: layers hold their attention


@dataclass(frozen=True)
class Shape:
    """What all layers share."""

    hidden_size: int
    embedding_size: int


class Sizes(NamedTuple):
    """The sizes of a layer, see `LayerChoice`."""

    stack: int
    intermediate_size: int
    heads: int
    head_dim: int


@dataclass(frozen=True)
class LayerChoice:
    """One layer: its feed-forward networks and its attention.

    Attributes:
        expression: What the networks compute, in canonical form.
        stack: Networks in a row.
        intermediate_size: Their inner width.
        heads: Attention heads; 0 of a layer without attention.
        head_dim: Width of a head; 0 without attention.
    """

    expression: str
    stack: int
    intermediate_size: int
    heads: int
    head_dim: int

    @property
    def sizes(self) -> Sizes:
        """All but the expression."""
        return Sizes(self.stack, self.intermediate_size, self.heads, self.head_dim)


@dataclass(frozen=True)
class Architecture:
    """One candidate: its shape and the choice of every layer, first to last."""

    shape: Shape
    layers: tuple[LayerChoice, ...]

    @property
    def attentive(self) -> tuple[int, ...]:
        """The layers that have attention, counted from 0."""
        return tuple(index for index, layer in enumerate(self.layers) if layer.heads)

    def to_config(self, base: EfficientBertConfig) -> EfficientBertConfig:
        """The configuration of this candidate; vocabulary, dropout and the like are those of `base`."""
        fields = base.to_dict() | asdict(self.shape) | common_attention(self.layers)
        fields |= {
            "num_hidden_layers": len(self.layers),
            "ffn_expressions": [layer.expression for layer in self.layers],
            "ffn_stacks": [layer.stack for layer in self.layers],
            "intermediate_sizes": [layer.intermediate_size for layer in self.layers],
        }
        return EfficientBertConfig(**fields)

    @classmethod
    def from_config(cls, config: EfficientBertConfig) -> "Architecture":
        """The architecture of a configuration."""
        shape = Shape(config.hidden_size, config.embedding_size)
        networks = zip(config.ffn_expressions, config.ffn_stacks, config.intermediate_sizes)
        layers = (LayerChoice(*network, *attention) for network, attention in zip(networks, config.attentions))
        return cls(shape, tuple(layers))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self.shape) | {"layers": [asdict(layer) for layer in self.layers]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Architecture":
        """Back from plain values."""
        shape = {name: size for name, size in value.items() if name != "layers"}
        return cls(Shape(**shape), tuple(LayerChoice(**layer) for layer in value["layers"]))


def common_attention(layers: Sequence[LayerChoice]) -> dict[str, Any]:
    """The attention of layers as fields of a configuration: once for all, or layer by layer where they differ."""
    attentions = [(layer.heads, layer.head_dim) for layer in layers]
    heads, head_dim = max(attentions)
    differ = len(set(attentions)) > 1 or heads == 0
    return {
        "num_attention_heads": max(heads, 1),
        "head_dim": max(head_dim, 1),
        "attention_heads": [count for count, _ in attentions] if differ else None,
        "head_dims": [size for _, size in attentions] if differ else None,
    }
