"""What an architecture costs: exact parameters and FLOPs in closed form, each a sum over its layers."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from functools import lru_cache
from typing import ClassVar

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import parse, uses_gate
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape


class Cost(ABC):
    """What an architecture costs in one metric: its embeddings, and attention and networks of every layer."""

    metric: ClassVar[str]

    @abstractmethod
    def embeddings(self, shape: Shape) -> float:
        """What the embeddings cost, which a model has once."""

    @abstractmethod
    def attention(self, hidden_size: int, num_heads: int, head_dim: int) -> float:
        """What the attention of one layer costs, its residual and LayerNorm included.

        Args:
            hidden_size: Width of the hidden states.
            num_heads: Heads.
            head_dim: Width of a head.
        """

    @abstractmethod
    def networks(self, hidden_size: int, layer: LayerChoice) -> float:
        """What the feed-forward networks of one layer cost, their residuals and LayerNorms included."""

    def layer(self, shape: Shape, layer: LayerChoice) -> float:
        """What one layer costs: its attention, if any, and its networks."""
        attention = self.attention(shape.hidden_size, layer.heads, layer.head_dim) if layer.heads else 0
        return attention + self.networks(shape.hidden_size, layer)

    def kind(self, expression: str) -> Hashable:
        """Equal for expressions that cost the same in layers of equal sizes; by default each is a kind of its own."""
        return expression

    def __call__(self, architecture: Architecture) -> float:
        """What an architecture costs."""
        shape = architecture.shape
        return self.embeddings(shape) + sum(self.layer(shape, layer) for layer in architecture.layers)


@lru_cache(maxsize=65536)
def linears_to_intermediate(expression: str) -> int:
    """How many linears of a feed-forward network map hidden to m: `linear1`, and `gate` where it is used."""
    return 2 if uses_gate(parse(expression)) else 1


class Counted(Cost):
    """A cost that of an expression asks only whether it is gated."""

    def kind(self, expression: str) -> int:
        """See [`Cost`]."""
        return linears_to_intermediate(expression)


class Parameters(Counted):
    """Parameters of the encoder, as `EfficientBertModel(config).num_parameters()`, without building it.

    Args:
        base: Sizes that no architecture decides.
    """

    metric = "parameters"

    def __init__(self, base: EfficientBertConfig):
        self.vocab_size = base.vocab_size
        self.num_positions = base.max_position_embeddings + base.type_vocab_size

    def embeddings(self, shape: Shape) -> int:
        """See [`Cost`]."""
        tables = self.vocab_size * shape.embedding_size + self.num_positions * shape.hidden_size
        return tables + (3 * shape.embedding_size + 1) * shape.hidden_size + 2 * shape.hidden_size

    def attention(self, hidden_size: int, num_heads: int, head_dim: int) -> int:
        """See [`Cost`]."""
        inner = num_heads * head_dim
        return (hidden_size + 1) * 3 * inner + (inner + 1) * hidden_size + 2 * hidden_size

    def networks(self, hidden_size: int, layer: LayerChoice) -> int:
        """See [`Cost`]."""
        size = layer.intermediate_size
        inward = linears_to_intermediate(layer.expression) * (hidden_size + 1) * size
        return layer.stack * (inward + (size + 1) * hidden_size + 2 * hidden_size)


class Flops(Counted):
    """Floating-point operations of the encoder's matrix products on one sequence, two for every multiply-add.

    The embedding projection, attention scores and contexts count; elementwise operations, softmax and LayerNorm do
    not.

    Args:
        base: Sizes that no architecture decides; none of them matters here, all costs are made alike.
        sequence_length: Tokens of the sequence.
    """

    metric = "flops"

    def __init__(self, base: EfficientBertConfig, sequence_length: int):
        self.sequence_length = sequence_length

    def embeddings(self, shape: Shape) -> int:
        """See [`Cost`]."""
        return 2 * self.sequence_length * 3 * shape.embedding_size * shape.hidden_size

    def attention(self, hidden_size: int, num_heads: int, head_dim: int) -> int:
        """See [`Cost`]."""
        inner = num_heads * head_dim
        return 2 * self.sequence_length * (4 * hidden_size * inner + 2 * self.sequence_length * inner)

    def networks(self, hidden_size: int, layer: LayerChoice) -> int:
        """See [`Cost`]."""
        linears = linears_to_intermediate(layer.expression) + 1
        return 2 * self.sequence_length * layer.stack * linears * hidden_size * layer.intermediate_size


def count_parameters(config: EfficientBertConfig) -> int:
    """Parameters of the encoder of a configuration."""
    return int(Parameters(config)(Architecture.from_config(config)))


def count_flops(config: EfficientBertConfig, sequence_length: int, batch_size: int = 1) -> int:
    """Floating-point operations of the encoder of a configuration on a batch, counted as in [`Flops`]."""
    return batch_size * int(Flops(config, sequence_length)(Architecture.from_config(config)))
