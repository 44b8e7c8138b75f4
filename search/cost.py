"""What an architecture costs: exact parameters and FLOPs in closed form."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import parse, uses_gate
from efficientbert.train.script import InputError


METRICS = ("parameters", "flops", "latency")


@dataclass(frozen=True)
class Budget:
    """What an architecture may cost.

    Args:
        metric: `parameters` of the encoder, `flops` of one sequence, or `latency` in milliseconds.
        minimum: Least cost, itself allowed.
        maximum: Greatest cost, itself allowed.

    Raises:
        InputError: if the metric is unknown or no cost can lie within.
    """

    metric: str
    minimum: float
    maximum: float

    def __post_init__(self):
        if self.metric not in METRICS:
            raise InputError(f"budget: unknown metric {self.metric!r}; known are {', '.join(METRICS)}")
        if not 0 <= self.minimum <= self.maximum:
            raise InputError(
                f"budget: {self.metric} from {self.minimum:g} to {self.maximum:g} is empty; "
                "the minimum must be at least 0 and at most the maximum"
            )

    def contains(self, cost: float) -> bool:
        """Whether an architecture of this cost is allowed."""
        return self.minimum <= cost <= self.maximum


@lru_cache(maxsize=65536)
def linears_to_intermediate(expression: str) -> int:
    """How many linears of a feed-forward network map hidden to m: `linear1`, and `gate` where it is used."""
    return 2 if uses_gate(parse(expression)) else 1


def feed_forwards(config: EfficientBertConfig) -> Iterator[tuple[int, int, int]]:
    """For every layer: networks in a row, m, and how many linears map hidden to m."""
    for expression, stack, size in zip(config.ffn_expressions, config.ffn_stacks, config.intermediate_sizes):
        yield stack, size, linears_to_intermediate(expression)


def count_parameters(config: EfficientBertConfig) -> int:
    """Parameters of the encoder, as `EfficientBertModel(config).num_parameters()`, without building it."""
    hidden, inner = config.hidden_size, config.num_attention_heads * config.head_dim
    layer_norm = 2 * hidden
    embeddings = (
        config.vocab_size * config.embedding_size
        + (3 * config.embedding_size + 1) * hidden
        + (config.max_position_embeddings + config.type_vocab_size) * hidden
        + layer_norm
    )
    attention = (hidden + 1) * 3 * inner + (inner + 1) * hidden + layer_norm
    networks = sum(
        stack * (inward * (hidden + 1) * size + (size + 1) * hidden + layer_norm)
        for stack, size, inward in feed_forwards(config)
    )
    return embeddings + config.num_hidden_layers * attention + networks


def count_flops(config: EfficientBertConfig, sequence_length: int, batch_size: int = 1) -> int:
    """Floating-point operations of the encoder's matrix products, two for every multiply-add.

    The embedding projection, attention scores and contexts count; elementwise operations, softmax and LayerNorm do
    not.
    """
    hidden, inner = config.hidden_size, config.num_attention_heads * config.head_dim
    embeddings = 3 * config.embedding_size * hidden
    attention = hidden * 3 * inner + 2 * sequence_length * inner + inner * hidden
    networks = sum(stack * (inward + 1) * hidden * size for stack, size, inward in feed_forwards(config))
    per_token = embeddings + config.num_hidden_layers * attention + networks
    return 2 * batch_size * sequence_length * per_token
