"""Mutation and crossover of architectures (paper, section 3.3), and the repair that keeps both within the budgets."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, partial

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.costs.budget import Budget
from efficientbert.search.costs.cost import Cost
from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape, Sizes
from efficientbert.search.space.expressions import fits, function_key, mutate_expression, spread_expressions
from efficientbert.search.space.sizes import LAYER_DIMENSIONS, Choices, LayerDimension
from efficientbert.slicing_efficientbert import nearest_layers


ATTEMPTS = 100  # changes tried before a mutation or crossover is given up
REMEMBERED = 65536  # layers whose changes are known by heart
REPAIRS = 100  # stacks and widths changed to bring one architecture back into the budgets
DIMENSIONS = ("num_layers", *(entry.name for entry in fields(Shape)))


@dataclass(frozen=True)
class Variation:
    """Changes architectures of a space to others of it; what it holds is that of the space, see `SearchSpace`.

    Attributes:
        choices: What may be chosen.
        base: What is not chosen.
        shapes: All pairs of a number of layers and a shape.
        budgets: What an architecture may cost.
        costs: The costs by metric.
        sizes: If given, those of every layer.
        expressions: If given, the layers' expressions.
    """

    choices: Choices
    base: EfficientBertConfig
    shapes: Sequence[tuple[int, Shape]]
    budgets: Sequence[Budget]
    costs: Mapping[str, Cost]
    sizes: tuple[Sizes, ...] | None
    expressions: tuple[str, ...] | None

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture | None:
        """Another function within the budgets: one expression, size of a layer or dimension of the shape changed.

        All kinds of changes are equally likely. Where one leaves the budgets, further sizes of layers are changed
        until they are met again.

        Returns:
            The neighbour, or none if a hundred trials found none.
        """
        changes: list[Callable[[], Architecture | None]] = []
        if self.expressions is None:
            changes.append(partial(self.change_expression, architecture, rng))
        if self.sizes is None:
            changes += [partial(self.change_size, architecture, dim, rng) for dim in self.searched_of_layers]
        changes += [partial(self.change_shape, architecture, name, rng) for name in self.searched()]
        known = function_key(architecture)
        for _ in range(ATTEMPTS if changes else 0):
            changed = rng.choice(changes)()
            found = self.repair(changed, rng) if changed else None
            if found is not None and function_key(found) != known:
                return found
        return None

    def crossover(self, one: Architecture, other: Architecture, rng: random.Random) -> Architecture | None:
        """A mixture within the budgets: the shape of one parent, every layer that of either.

        Of parents of different depths the layers at the same part of the depth correspond. Where the mixture leaves
        the budgets, sizes of layers are changed until they are met again.

        Returns:
            The mixture, or none if a hundred trials found none.
        """
        for _ in range(ATTEMPTS):
            shape, depth = rng.choice([(parent.shape, len(parent.layers)) for parent in (one, other)])
            parents = []
            for parent in (one, other):
                layers = tuple(parent.layers[index] for index in nearest_layers(depth, len(parent.layers)))
                parents.append(self.fit(Architecture(parent.shape, layers), shape))
            layers = tuple(rng.choice(pair) for pair in zip(*(parent.layers for parent in parents)))
            found = self.repair(Architecture(shape, layers), rng)
            if found is not None:
                return found
        return None

    def change_expression(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """One layer with a neighbour of its expression."""
        index = rng.randrange(len(architecture.layers))
        layer = architecture.layers[index]
        wide = layer.intermediate_size > architecture.shape.hidden_size
        text = mutate_expression(layer.expression, rng, self.choices.gate, wide)
        return with_layer(architecture, index, replace(layer, expression=text))

    def change_size(
        self, architecture: Architecture, dimension: LayerDimension, rng: random.Random
    ) -> Architecture | None:
        """One layer changed in one dimension, if there is a change that its expression fits."""
        moves = self.list_moves(architecture, dimension)
        return with_layer(architecture, *rng.choice(moves)) if moves else None

    def list_moves(self, architecture: Architecture, dimension: LayerDimension) -> list[tuple[int, LayerChoice]]:
        """All that a layer changed in one dimension may be, with its number."""
        hidden = architecture.shape.hidden_size
        return [
            (index, changed)
            for index, layer in enumerate(architecture.layers)
            for changed in self._changed(layer, hidden, dimension)
        ]

    def options(self, dimension: LayerDimension, hidden_size: int) -> list[tuple[int, ...]]:
        """What a dimension of a layer may be at a hidden size."""
        return dimension.options(self.choices, self.base, hidden_size)

    @cached_property
    def searched_of_layers(self) -> list[LayerDimension]:
        """The dimensions of a layer that are searched."""
        hidden_sizes = {shape.hidden_size for _, shape in self.shapes}
        return [one for one in LAYER_DIMENSIONS if any(len(self.options(one, size)) > 1 for size in hidden_sizes)]

    @cached_property
    def _changed(self) -> Callable[[LayerChoice, int, LayerDimension], list[LayerChoice]]:
        """All that a layer changed in one dimension may be at a hidden size; what was asked for is remembered."""

        @lru_cache(maxsize=REMEMBERED)
        def changed(layer: LayerChoice, hidden: int, dimension: LayerDimension) -> list[LayerChoice]:
            found = (dimension.change(layer, value) for value in self.options(dimension, hidden))
            return [one for one in found if one != layer and fits(one.expression, one.intermediate_size > hidden)]

        return changed

    def searched(self) -> list[str]:
        """The dimensions of the shape that are searched, the number of layers among them."""
        return [name for name in DIMENSIONS if len({dimension(shape, name) for shape in self.shapes}) > 1]

    def change_shape(self, architecture: Architecture, name: str, rng: random.Random) -> Architecture:
        """One dimension of the shape, which is searched, with another value, and the layers fitted to it.

        A smaller depth drops layers at random places; a greater one repeats layers, each beside its copy.
        """
        own = (len(architecture.layers), architecture.shape)
        others = [
            shape
            for shape in self.shapes
            if all((dimension(shape, other) == dimension(own, other)) == (other != name) for other in DIMENSIONS)
        ]
        depth, shape = rng.choice(others)
        layers = list(architecture.layers)
        while len(layers) > depth:
            layers.pop(rng.randrange(len(layers)))
        while len(layers) < depth:
            index = rng.randrange(len(layers))
            layers.insert(index, layers[index])
        return self.fit(Architecture(architecture.shape, tuple(layers)), shape)

    def fit(self, architecture: Architecture, shape: Shape) -> Architecture:
        """The same layers at another shape.

        Sizes keep their rank among those that there are, and fixed expressions are those of their place.
        """
        hidden_sizes = (architecture.shape.hidden_size, shape.hidden_size)
        expressions = [layer.expression for layer in architecture.layers]
        if self.expressions is not None:
            expressions = spread_expressions(self.expressions, len(expressions))
        layers = [replace(layer, expression=text) for layer, text in zip(architecture.layers, expressions)]
        for dimension in LAYER_DIMENSIONS:
            old, new = (self.options(dimension, size) for size in hidden_sizes)
            layers = [dimension.change(layer, same_rank(dimension.read(layer), old, new)) for layer in layers]
        return Architecture(shape, tuple(layers))

    def repair(self, architecture: Architecture, rng: random.Random) -> Architecture | None:
        """Changes sizes of layers, one at a time and towards the budgets, until they are met, if they can be."""
        shape, layers = architecture.shape, architecture.layers
        if not all(fits(layer.expression, layer.intermediate_size > shape.hidden_size) for layer in layers):
            return None
        costs = [self.costs[budget.metric] for budget in self.budgets]
        for _ in range(REPAIRS):
            total = [cost(architecture) for cost in costs]
            excess = self.measure_excess(total)
            if not excess:
                return architecture if architecture.attentive else None
            if self.sizes is not None:
                return None
            parts = [[cost.layer(shape, layer) for cost in costs] for layer in architecture.layers]
            better = []
            moves = [move for dim in self.searched_of_layers for move in self.list_moves(architecture, dim)]
            for index, layer in moves:
                changed = [
                    all_layers + cost.layer(shape, layer) - part
                    for cost, all_layers, part in zip(costs, total, parts[index])
                ]
                if self.measure_excess(changed) < excess:
                    better.append((index, layer))
            if not better:
                return None
            architecture = with_layer(architecture, *rng.choice(better))
        return None

    def measure_excess(self, costs: list[float]) -> float:
        """How far costs are outside their budgets, relative to the nearer ends; zero if they are within."""
        excess = 0.0
        for budget, cost in zip(self.budgets, costs):
            if cost > budget.maximum:
                excess += cost / budget.maximum - 1 if budget.maximum else math.inf
            elif cost < budget.minimum:
                excess += 1 - cost / budget.minimum
        return excess


def same_rank(
    value: tuple[int, ...], old: Sequence[tuple[int, ...]], new: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    """The one of the new sizes whose rank is that of a value among the old ones."""
    return value if old == new else new[old.index(value) * len(new) // len(old)]


def dimension(shape: tuple[int, Shape], name: str) -> int:
    """One dimension of a number of layers and a shape."""
    return shape[0] if name == "num_layers" else getattr(shape[1], name)


def with_layer(architecture: Architecture, index: int, layer: LayerChoice) -> Architecture:
    """A copy with one layer replaced."""
    layers = architecture.layers
    return replace(architecture, layers=(*layers[:index], layer, *layers[index + 1 :]))
