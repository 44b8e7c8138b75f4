"""What a search may choose: the sizes of the shape and of every layer, as a recipe names them."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import LayerChoice, Shape
from efficientbert.train.cli.errors import InputError


@dataclass(frozen=True)
class Choices:
    """What may be chosen. An empty tuple leaves what the base has; one entry decides it, more search it.

    Attributes:
        depths: Numbers of layers.
        hidden_sizes: Hidden sizes.
        embedding_sizes: Widths of the token table.
        head_counts: Numbers of attention heads, for every layer; 0 is a layer without attention.
        head_dims: Widths of a head, for every layer. If empty: the base's at the base's hidden size and heads,
            elsewhere hidden size over heads, where that is whole.
        stacks: Numbers of feed-forward networks in a row, for every layer.
        divisors: Inner widths as parts of the base width, for every layer: 2 is an expansion of 1/2.
        gate: Whether expressions may use the third linear.
        base_width: Inner width at expansion 1; by default the hidden size.
        width_multiple: Inner widths are rounded down to a multiple of it, but never to zero.

    Raises:
        InputError: if an entry is no whole number of at least 1 or stands twice, or there is no stack or divisor.
    """

    depths: tuple[int, ...] = ()
    hidden_sizes: tuple[int, ...] = ()
    embedding_sizes: tuple[int, ...] = ()
    head_counts: tuple[int, ...] = ()
    head_dims: tuple[int, ...] = ()
    stacks: tuple[int, ...] = (1, 2, 3, 4)
    divisors: tuple[int, ...] = (1, 2, 3, 4)
    gate: bool = True
    base_width: int | None = None
    width_multiple: int = 1

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            least = 0 if entry.name == "head_counts" else 1
            if entry.name != "gate" and not all(type(number) is int and number >= least for number in numbers):
                raise InputError(f"{entry.name}: must be whole numbers of at least {least}, not {value}")
            if len(set(numbers)) < len(numbers):
                raise InputError(f"{entry.name}: every number may stand in it once only, not {value}")
        for name in ("stacks", "divisors"):
            if not getattr(self, name):
                raise InputError(f"{name}: at least one is needed, such as 1")

    def widths(self, hidden_size: int) -> list[int]:
        """The inner widths that a layer may have at one hidden size, ascending."""
        base, multiple = self.base_width or hidden_size, self.width_multiple
        return sorted({max(multiple, base // divisor // multiple * multiple) for divisor in self.divisors})

    def attentions(self, hidden_size: int, base: EfficientBertConfig) -> list[tuple[int, ...]]:
        """The pairs of heads and width of a head that a layer may have at one hidden size, narrowest first.

        Args:
            hidden_size: Hidden size.
            base: What is not chosen.
        """
        found = set()
        for heads in self.head_counts or {heads for heads, _ in base.attentions}:
            sizes = set(self.head_dims)
            if heads == 0:
                sizes = {0}
            elif not sizes and hidden_size == base.hidden_size:
                sizes = {size for count, size in base.attentions if count == heads}
            if not sizes and hidden_size % heads == 0:
                sizes = {hidden_size // heads}
            found |= {(heads, size) for size in sizes}
        return sorted(found, key=lambda pair: (pair[0] * pair[1], pair))

    def shapes(self, base: EfficientBertConfig) -> list[tuple[int, Shape]]:
        """All pairs of a number of layers and a shape; those at which a layer can have attention.

        Args:
            base: What is not chosen.
        """
        depths = self.depths or (base.num_hidden_layers,)
        hidden_sizes = [
            size
            for size in self.hidden_sizes or (base.hidden_size,)
            if any(heads for heads, _ in self.attentions(size, base))
        ]
        embedding_sizes = self.embedding_sizes or (base.embedding_size,)
        return [(depth, Shape(*sizes)) for depth, *sizes in itertools.product(depths, hidden_sizes, embedding_sizes)]


@dataclass(frozen=True)
class LayerDimension:
    """A dimension of a layer: one or more of its sizes that are chosen together, in every layer anew.

    Attributes:
        sizes: Which of `Sizes` it decides.
        options: What they may be by choices, base and hidden size.
    """

    sizes: tuple[str, ...]
    options: Callable[[Choices, EfficientBertConfig, int], list[tuple[int, ...]]]

    def read(self, layer: LayerChoice) -> tuple[int, ...]:
        """Its sizes of a layer."""
        return tuple(getattr(layer, name) for name in self.sizes)

    def change(self, layer: LayerChoice, value: tuple[int, ...]) -> LayerChoice:
        """A layer with its sizes replaced."""
        changes: dict[str, Any] = dict(zip(self.sizes, value))
        return replace(layer, **changes)


STACK = LayerDimension(("stack",), lambda choices, base, hidden: [(stack,) for stack in choices.stacks])
WIDTH = LayerDimension(("intermediate_size",), lambda choices, base, hidden: [(w,) for w in choices.widths(hidden)])
ATTENTION = LayerDimension(("heads", "head_dim"), lambda choices, base, hidden: choices.attentions(hidden, base))
LAYER_DIMENSIONS = (STACK, WIDTH, ATTENTION)  # which decide all of `Sizes`, in its order
