"""An architecture: one value that is drawn, priced, sliced, stored, and turned into a configuration in one place."""

from dataclasses import asdict, dataclass
from typing import Any

from efficientbert.configuration_efficientbert import EfficientBertConfig


@dataclass(frozen=True)
class Shape:
    """What all layers share."""

    hidden_size: int
    num_attention_heads: int
    head_dim: int
    embedding_size: int


@dataclass(frozen=True)
class LayerChoice:
    """The feed-forward networks of one layer: a canonical expression, how many in a row, and their inner width."""

    expression: str
    stack: int
    intermediate_size: int


@dataclass(frozen=True)
class Architecture:
    """One candidate: its shape and the choice of every layer, first to last."""

    shape: Shape
    layers: tuple[LayerChoice, ...]

    def to_config(self, base: EfficientBertConfig) -> EfficientBertConfig:
        """The configuration of this candidate; vocabulary, dropout and the like are those of `base`."""
        fields = base.to_dict() | asdict(self.shape)
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
        shape = Shape(config.hidden_size, config.num_attention_heads, config.head_dim, config.embedding_size)
        layers = zip(config.ffn_expressions, config.ffn_stacks, config.intermediate_sizes)
        return cls(shape, tuple(LayerChoice(*layer) for layer in layers))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self.shape) | {"layers": [asdict(layer) for layer in self.layers]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Architecture":
        """Back from plain values."""
        shape = {name: size for name, size in value.items() if name != "layers"}
        return cls(Shape(**shape), tuple(LayerChoice(**layer) for layer in value["layers"]))
