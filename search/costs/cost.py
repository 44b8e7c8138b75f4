"""What an architecture costs: a sum over its parts, and exact counts of parameters and FLOPs of the built parts."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import parse, uses_gate
from efficientbert.modeling_efficientbert import EfficientBertModel
from efficientbert.search.costs.parts import build_part, embeddings_part, layer_parts
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape


REMEMBERED = 65536  # layers whose costs a cost knows by heart


class Cost(ABC):
    """What an architecture costs in one metric: the sum of what its parts cost, see `parts.py`."""

    metric: ClassVar[str]

    def __init__(self) -> None:
        self._layer = lru_cache(maxsize=REMEMBERED)(self._sum_layer)

    @abstractmethod
    def price(self, parts: Sequence[str]) -> Sequence[float]:
        """What each of some parts costs."""

    def embeddings(self, shape: Shape) -> float:
        """What the embeddings cost, which a model has once."""
        return self.price([embeddings_part(shape)])[0]

    def layer(self, shape: Shape, layer: LayerChoice) -> float:
        """What one layer costs: its attention, if any, and its networks, with residuals and LayerNorms."""
        return self._layer(shape.hidden_size, layer)

    def kind(self, expression: str) -> Hashable:
        """Equal for expressions that cost the same in layers of equal sizes; by default each is a kind of its own."""
        return expression

    def __call__(self, architecture: Architecture) -> float:
        """What an architecture costs."""
        shape = architecture.shape
        return self.embeddings(shape) + sum(self.layer(shape, layer) for layer in architecture.layers)

    def _sum_layer(self, hidden_size: int, layer: LayerChoice) -> float:
        return sum(self.price(layer_parts(hidden_size, layer)))


@lru_cache(maxsize=65536)
def linears_to_intermediate(expression: str) -> int:
    """How many linears of a feed-forward network map hidden to m: `linear1`, and `gate` where it is used."""
    return 2 if uses_gate(parse(expression)) else 1


class Counted(Cost):
    """A cost that is counted on the built parts, which have shapes but no weights, and depends on linears alone.

    Args:
        base: What no architecture decides.
        sequence_length: Tokens of the one sequence that a part is called with.
    """

    def __init__(self, base: EfficientBertConfig, sequence_length: int = 1):
        super().__init__()
        self.base, self.sequence_length = base, sequence_length
        self._counts: dict[str, int] = {}

    @abstractmethod
    def count(self, module: nn.Module, inputs: tuple) -> int:
        """What the module of a part costs, called with some inputs."""

    def price(self, parts: Sequence[str]) -> list[int]:
        """See [`Cost`]."""
        for part in parts:
            if part not in self._counts:
                with torch.device("meta"):
                    built = build_part(part, self.base, 1, self.sequence_length, "meta")
                self._counts[part] = self.count(*built)
        return [self._counts[part] for part in parts]

    def kind(self, expression: str) -> int:
        """See [`Cost`]."""
        return linears_to_intermediate(expression)


class Parameters(Counted):
    """Parameters of the encoder, as `EfficientBertModel(config).num_parameters()`, without building it."""

    metric = "parameters"

    def __init__(self, base: EfficientBertConfig):
        super().__init__(base)

    def count(self, module: nn.Module, inputs: tuple) -> int:
        """See [`Counted`]."""
        return sum(parameter.numel() for parameter in module.parameters())


class Flops(Counted):
    """Floating-point operations of the encoder's matrix products on one sequence, two for every multiply-add.

    The embedding projection, attention scores and contexts count; elementwise operations, softmax and LayerNorm do
    not.
    """

    metric = "flops"

    @torch.no_grad()
    def count(self, module: nn.Module, inputs: tuple) -> int:
        """See [`Counted`]."""
        if isinstance(module, EfficientBertModel):
            inputs = inputs[:1]  # without a mask, whose values the model looks at
        with FlopCounterMode(display=False) as counter:
            module(*inputs)
        return counter.get_total_flops()


def count_parameters(config: EfficientBertConfig) -> int:
    """Parameters of the encoder of a configuration."""
    return int(Parameters(config)(Architecture.from_config(config)))


def count_flops(config: EfficientBertConfig, sequence_length: int, batch_size: int = 1) -> int:
    """Floating-point operations of the encoder of a configuration on a batch, counted as in [`Flops`]."""
    return batch_size * int(Flops(config, sequence_length)(Architecture.from_config(config)))
