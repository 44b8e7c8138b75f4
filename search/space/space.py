"""The search space (paper, section 3.1, and shapes beyond it): architectures drawn and changed within budgets."""

import itertools
import math
import random
from bisect import bisect
from collections.abc import Hashable, Mapping
from dataclasses import astuple, dataclass, field, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.ffn_efficientbert import ExpressionError, parse, uses_gate
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Cost, linears_to_intermediate
from efficientbert.search.costs.parts import all_network_parts, attention_part, embeddings_part, network_parts
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape, Sizes
from efficientbert.search.space.budgeted_draws import Draws, Options
from efficientbert.search.space.expressions import (
    GATED,
    OPERATORS,
    PLAIN,
    expression_pool,
    fits,
    function_key,
    operator_counts,
    spread_expressions,
)
from efficientbert.search.space.sizes import LAYER_DIMENSIONS, Choices
from efficientbert.search.space.variation import Variation
from efficientbert.train.cli.errors import InputError


WIDEST_PLAIN = 64  # of the base width: more than any budget here is for


@dataclass(frozen=True)
class SearchSpace:
    """All architectures over a base configuration that the budgets allow, each with attention in one layer at least.

    Attributes:
        base: What no architecture decides, and the shape where it is not searched.
        choices: What may be chosen.
        budgets: What a candidate may cost; every one must be met.
        costs: The costs by metric, at least those of the budgets.
        sizes: If given, those of every layer (stage 2).
        expressions: If given, the layers' expressions are these, at any other depth those of
            the layers at the same part of the depth, as a supernet shares its weights (stage 3).

    Raises:
        InputError: if there is no valid shape, or a budget's cost is missing.
    """

    base: EfficientBertConfig
    choices: Choices = field(default_factory=Choices)
    budgets: tuple[Budget, ...] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    sizes: tuple[Sizes, ...] | None = None
    expressions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.shapes:
            raise InputError(
                "hidden_sizes, head_counts: no hidden size is a multiple of a number of heads above 0; give head_dims"
            )
        for budget in self.budgets:
            if budget.metric not in self.costs:
                raise InputError(f"budget: nothing measures {budget.metric}; known are {', '.join(self.costs)}")

    # What there is to choose from

    @cached_property
    def shapes(self) -> list[tuple[int, Shape]]:
        """All pairs of a number of layers and a shape, whether they can meet the budgets or not."""
        return self.choices.shapes(self.base)

    def largest(self) -> Architecture:
        """The supernet's architecture, at least as large as every one of this space in every dimension."""
        shapes = [shape for _, shape in self.shapes]
        shape = Shape(*(max(getattr(shape, entry.name) for shape in shapes) for entry in fields(Shape)))
        gate = self.choices.gate if self.expressions is None else any(map(_gated, self.expressions))
        every = [size for hidden_size in {shape.hidden_size for shape in shapes} for size in self._sizes(hidden_size)]
        depth = max(depth for depth, _ in self.shapes)
        sizes = self.sizes or (Sizes(*map(max, zip(*every))),) * depth
        return Architecture(shape, tuple(LayerChoice(GATED if gate else PLAIN, *size) for size in sizes))

    def plain(self, expression: str = PLAIN) -> Architecture:
        """The plain shape: the base's, one network a layer, all of one width, as large as the budgets allow.

        Args:
            expression: Of the networks.

        Raises:
            InputError: if no width meets the budgets.
        """
        base, multiple = Architecture.from_config(self.base), self.choices.width_multiple

        def plain(width: int) -> Architecture:
            layers = (
                LayerChoice(expression, 1, width * multiple, layer.heads, layer.head_dim) for layer in base.layers
            )
            return replace(base, layers=tuple(layers))

        def affordable(architecture: Architecture) -> bool:
            return all(self.costs[budget.metric](architecture) <= budget.maximum for budget in self.budgets)

        low, high = 1, WIDEST_PLAIN * (self.choices.base_width or self.base.hidden_size) // multiple + 1
        while low < high:  # costs rise with width: bisection for the largest that is allowed
            middle = (low + high + 1) // 2
            low, high = (middle, high) if affordable(plain(middle)) else (low, middle - 1)
        found = plain(low)
        if not self._affordable(found):
            costs = " and ".join(f"{b.metric} {self.costs[b.metric](found):,.6g}" for b in self.budgets)
            raise InputError(
                f"budget: no architecture of the plain shape has {self._ranges()}; "
                f"at inner width {low * multiple} it has {costs}"
            )
        return found

    def familiar(self, seed: int) -> tuple[Architecture, ...]:
        """Gated networks in all layers, where they are allowed, and plain ones.

        They are hard to beat (Shazeer, GLU Variants Improve Transformer, 2020), and a random draw seldom has them. All
        are alike, of the shape nearest to the base's that the budgets allow, and as few in a row as they allow; if
        they allow none, shape and sizes are random. An expression that they leave no room for is left out.
        """
        rng = random.Random(f"familiar {seed}")
        texts = (GATED, PLAIN) if self.choices.gate else (PLAIN,)
        spaces = [(text, replace(self, expressions=(text,))) for text in texts]
        return tuple(space._alike(text) or space.sample(rng) for text, space in spaces if space.possible)

    def _alike(self, text: str) -> Architecture | None:
        """The first architecture of equal networks, if any: of a shape near the base, with few of them, and wide."""
        own = (self.base.num_hidden_layers, self.base.hidden_size, self.base.embedding_size)

        def distance(depth: int, shape: Shape) -> float:
            return sum(abs(math.log(one / other)) for one, other in zip((depth, *astuple(shape)), own))

        found = (
            Architecture(shape, (LayerChoice(text, *size),) * depth)
            for depth, shape in sorted(self.shapes, key=lambda pair: distance(*pair))
            for size in sorted(self._sizes(shape.hidden_size), key=lambda size: (size[0], *(-n for n in size[1:])))
        )
        return next((one for one in found if self._affordable(one) and self.contains(one)), None)

    @property
    def possible(self) -> bool:
        """Whether the budgets can be met."""
        return any(self._draws(number).possible for number in range(len(self.shapes)))

    def least(self, metric: str) -> float:
        """What the cheapest architecture of plain networks costs, whatever the budgets."""
        cost, found = self.costs[metric], []
        for depth, shape in self.shapes:
            layers = [LayerChoice(PLAIN, *sizes) for sizes in self._sizes(shape.hidden_size)]
            costs = [(cost.layer(shape, layer), layer.heads) for layer in layers]
            attentive = min(value for value, heads in costs if heads)
            found.append(cost.embeddings(shape) + attentive + (depth - 1) * min(value for value, _ in costs))
        return min(found)

    def fix_sizes(self, architecture: Architecture) -> "SearchSpace":
        """The space of stage 2: the expressions alone are free, all else is as in an architecture."""
        shape, layers = architecture.shape, architecture.layers
        choices = replace(
            self.choices,
            depths=(len(layers),),
            hidden_sizes=(shape.hidden_size,),
            embedding_sizes=(shape.embedding_size,),
        )
        return replace(self, choices=choices, sizes=tuple(layer.sizes for layer in layers))

    def fix_expressions(self, architecture: Architecture) -> "SearchSpace":
        """The space of stage 3: stacks, widths and shapes are free, the expressions are those of an architecture."""
        return replace(self, expressions=tuple(layer.expression for layer in architecture.layers))

    def contains(self, architecture: Architecture) -> bool:
        """Whether an architecture is one of this space."""
        depth, hidden = len(architecture.layers), architecture.shape.hidden_size
        return (
            bool(architecture.attentive)
            and (depth, architecture.shape) in self.shapes
            and all(self._allows(hidden, depth, index, layer) for index, layer in enumerate(architecture.layers))
            and self._affordable(architecture)
        )

    # Drawing and changing

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture within the budgets.

        The depth and shape are uniform among those that can meet the budgets. Given these, the layers are distributed
        as if all were drawn anew until the budgets are met and a layer has attention: every stack, width and attention
        alike, every expression with its probability in [`expression_pool`] at that width.

        Raises:
            InputError: if the budgets cannot be met.
        """
        left = list(range(len(self.shapes)))
        while left:
            number = rng.choice(left)
            draws = self._draws(number)
            if draws.possible:
                layers = (family.pick(rng.random()) for family in draws.draw(rng))
                return Architecture(self.shapes[number][1], tuple(layers))
            left.remove(number)
        raise self._impossible()

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """A neighbour within the budgets, see `Variation.mutate`; if none is found, a random architecture.

        Raises:
            InputError: if the budgets cannot be met.
        """
        return self.variation.mutate(architecture, rng) or self.sample(rng)

    def crossover(self, one: Architecture, other: Architecture, rng: random.Random) -> Architecture:
        """A mixture within the budgets, see `Variation.crossover`; if none is found, `one`."""
        return self.variation.crossover(one, other, rng) or one

    @cached_property
    def variation(self) -> Variation:
        """What changes architectures of this space."""
        return Variation(self.choices, self.base, self.shapes, self.budgets, self.costs, self.sizes, self.expressions)

    # What samplers know of a candidate

    def key(self, architecture: Architecture) -> Hashable:
        """See `function_key`."""
        return function_key(architecture)

    @cached_property
    def columns(self) -> list[str]:
        """What the columns of [`encode`] hold. Layers that a shallower architecture lacks are zeros."""
        depth = max(depth for depth, _ in self.shapes)
        per_layer = (*Sizes._fields, "weights", "gate", *OPERATORS)
        return [
            "num_layers",
            *(entry.name for entry in fields(Shape)),
            *sorted(self.costs),
            *(f"layer {index} {name}" for index in range(depth) for name in per_layer),
        ]

    def encode(self, architecture: Architecture) -> np.ndarray:
        """Float64 vector of an architecture, see [`columns`].

        Shape and costs, then for every layer: its sizes, weights of the linears of its networks over the hidden size,
        whether it is gated, and how often every operator stands in its expression.
        """
        row = [len(architecture.layers), *(getattr(architecture.shape, entry.name) for entry in fields(Shape))]
        row += [self.costs[metric](architecture) for metric in sorted(self.costs)]
        for layer in architecture.layers:
            linears = linears_to_intermediate(layer.expression)
            weights = layer.stack * layer.intermediate_size * (linears + 1)
            row += [*layer.sizes, weights, linears - 1, *operator_counts(layer.expression)]
        return np.array(row + [0] * (len(self.columns) - len(row)), dtype=np.float64)

    # Parts

    @cached_property
    def _tables(self) -> dict[int, Draws["Family"]]:
        return {}

    def _draws(self, number: int) -> Draws["Family"]:
        """Draws of the layers at one of the shapes."""
        if number not in self._tables:
            depth, shape = self.shapes[number]
            made: dict[tuple, Options[Family]] = {}
            positions = []
            for index in range(depth):
                fixed = (self.sizes[index] if self.sizes else None, self.expression(depth, index))
                if fixed not in made:
                    made[fixed] = self._options(shape, *fixed)
                positions.append(made[fixed])
            start = [self.costs[budget.metric].embeddings(shape) for budget in self.budgets]
            self._tables[number] = Draws(positions, start, self.budgets, attentive)
        return self._tables[number]

    def _options(self, shape: Shape, size: Sizes | None, expression: str | None) -> Options["Family"]:
        """What a layer may be, with fixed sizes or a fixed expression, if any."""
        families = []
        for sizes in [size] if size else self._sizes(shape.hidden_size):
            wide = sizes.intermediate_size > shape.hidden_size
            if expression is None:
                families += [Family(sizes, *kind) for kind in self._kinds[wide]]
            elif fits(expression, wide):
                families.append(Family(sizes, [expression], [1.0]))
        metrics = [self.costs[budget.metric] for budget in self.budgets]
        costs = [tuple(cost.layer(shape, family.pick(0.0)) for cost in metrics) for family in families]
        return Options(families, [family.cumulative[-1] for family in families], costs)

    @cached_property
    def _kinds(self) -> dict[bool, list[tuple[list[str], list[float]]]]:
        """The pools below and above the hidden size: expressions that cost alike, with their cumulative weights."""
        kinds: dict[bool, list[tuple[list[str], list[float]]]] = {}
        hidden_sizes = {shape.hidden_size for _, shape in self.shapes}
        for wide in {width > hidden for hidden in hidden_sizes for width in self.choices.widths(hidden)}:
            pool = expression_pool(self.choices.gate, wide)
            alike: dict[tuple, list[str]] = {}
            for text in pool:
                alike.setdefault(tuple(self.costs[b.metric].kind(text) for b in self.budgets), []).append(text)
            kinds[wide] = [
                (texts, list(itertools.accumulate(map(pool.__getitem__, texts)))) for texts in alike.values()
            ]
        return kinds

    def expression(self, depth: int, index: int) -> str | None:
        """The expression that is fixed for a layer, if it is."""
        return None if self.expressions is None else spread_expressions(self.expressions, depth)[index]

    def attentions(self, hidden_size: int) -> list[tuple[int, ...]]:
        """See `Choices.attentions`."""
        return self.choices.attentions(hidden_size, self.base)

    def parts(self) -> list[str]:
        """All parts that its architectures may have whatever the budgets, see `parts.py`."""
        shapes = dict.fromkeys(shape for _, shape in self.shapes)
        found = [embeddings_part(shape) for shape in shapes]
        for hidden in dict.fromkeys(shape.hidden_size for shape in shapes):
            found += [attention_part(hidden, *pair) for pair in self.attentions(hidden) if pair[0]]
            for width in self.choices.widths(hidden):
                if self.expressions is None:
                    found += all_network_parts(hidden, width)
                fitting = (text for text in self.expressions or () if fits(text, width > hidden))
                found += [part for text in fitting for part in network_parts(text, hidden, width)]
        return list(dict.fromkeys(found))

    def _sizes(self, hidden_size: int) -> list[Sizes]:
        """The sizes that a layer may have, where they are not fixed."""
        options = (dimension.options(self.choices, self.base, hidden_size) for dimension in LAYER_DIMENSIONS)
        return [Sizes(*itertools.chain(*values)) for values in itertools.product(*options)]

    def _allows(self, hidden_size: int, depth: int, index: int, layer: LayerChoice) -> bool:
        """Whether a layer may be this at a hidden size, number of layers and position."""
        try:
            canonical = str(parse(layer.expression)) == layer.expression
        except ExpressionError:
            return False
        fixed = self.expression(depth, index)
        return (
            canonical
            and (self.choices.gate or not _gated(layer.expression))
            and fits(layer.expression, layer.intermediate_size > hidden_size)
            and layer.sizes in (self._sizes(hidden_size) if self.sizes is None else [self.sizes[index]])
            and (fixed is None or layer.expression == fixed)
        )

    def _affordable(self, architecture: Architecture) -> bool:
        return all(budget.contains(self.costs[budget.metric](architecture)) for budget in self.budgets)

    def _ranges(self) -> str:
        return " and ".join(f"{b.metric} between {b.minimum:,.6g} and {b.maximum:,.6g}" for b in self.budgets)

    def _impossible(self) -> InputError:
        tables = [self._draws(number) for number in range(len(self.shapes))]
        possible = [
            f"from {min(table.lowest[number] for table in tables):,.6g} "
            f"to {max(table.highest[number] for table in tables):,.6g}"
            for number in range(len(self.budgets))
        ]
        return InputError(
            f"budget: no architecture has {self._ranges()}; those of this space range {' and '.join(possible)}"
        )


class Family(NamedTuple):
    """Choices of a layer that cost the same: sizes, and expressions with their cumulative weights."""

    sizes: Sizes
    expressions: list[str]
    cumulative: list[float]

    def pick(self, part: float) -> LayerChoice:
        """The choice at a part of the weights between 0 and 1."""
        index = bisect(self.cumulative, part * self.cumulative[-1], 0, len(self.cumulative) - 1)
        return LayerChoice(self.expressions[index], *self.sizes)


def attentive(families: list[Family]) -> bool:
    """Whether any layer has attention."""
    return any(family.sizes.heads for family in families)


def _gated(expression: str) -> bool:
    return uses_gate(parse(expression))
