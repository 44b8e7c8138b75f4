"""What a search may choose: the sizes of the shape and of every layer, as a recipe names them."""

import itertools
from dataclasses import dataclass, fields

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.space.architecture import Shape
from efficientbert.train.cli.errors import InputError


@dataclass(frozen=True)
class Choices:
    """What may be chosen. Of the shape an empty tuple leaves what the base has; one entry decides it, more search it.

    Attributes:
        depths: Numbers of layers.
        hidden_sizes: Hidden sizes.
        head_counts: Numbers of attention heads.
        head_dims: Widths of a head. If empty: the base's at the base's hidden size and heads, elsewhere hidden size
            over heads, where that is whole.
        embedding_sizes: Widths of the token table.
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
    head_counts: tuple[int, ...] = ()
    head_dims: tuple[int, ...] = ()
    embedding_sizes: tuple[int, ...] = ()
    stacks: tuple[int, ...] = (1, 2, 3, 4)
    divisors: tuple[int, ...] = (1, 2, 3, 4)
    gate: bool = True
    base_width: int | None = None
    width_multiple: int = 1

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            numbers = value if isinstance(value, tuple) else () if value is None else (value,)
            if entry.name != "gate" and not all(type(number) is int and number >= 1 for number in numbers):
                raise InputError(f"{entry.name}: must be whole numbers of at least 1, not {value}")
            if len(set(numbers)) < len(numbers):
                raise InputError(f"{entry.name}: every number may stand in it once only, not {value}")
        for name in ("stacks", "divisors"):
            if not getattr(self, name):
                raise InputError(f"{name}: at least one is needed, such as 1")

    def widths(self, hidden_size: int) -> list[int]:
        """The inner widths that a layer may have at one hidden size, ascending."""
        base, multiple = self.base_width or hidden_size, self.width_multiple
        return sorted({max(multiple, base // divisor // multiple * multiple) for divisor in self.divisors})

    def shapes(self, base: EfficientBertConfig) -> list[tuple[int, Shape]]:
        """All pairs of a number of layers and a shape.

        Args:
            base: What is not chosen.
        """
        depths = self.depths or (base.num_hidden_layers,)
        hidden_sizes = self.hidden_sizes or (base.hidden_size,)
        head_counts = self.head_counts or (base.num_attention_heads,)
        embedding_sizes = self.embedding_sizes or (base.embedding_size,)
        found = []
        for depth, hidden, heads in itertools.product(depths, hidden_sizes, head_counts):
            head_dims = self.head_dims
            if not head_dims and (hidden, heads) == (base.hidden_size, base.num_attention_heads):
                head_dims = (base.head_dim,)
            elif not head_dims and hidden % heads == 0:
                head_dims = (hidden // heads,)
            found += [(depth, Shape(hidden, heads, *last)) for last in itertools.product(head_dims, embedding_sizes)]
        return found
