"""Mutation and crossover of architectures (paper, section 3.3), and the repair that keeps both within the budgets."""

import math
import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from efficientbert.search.space.architecture import Architecture, LayerChoice, Shape
from efficientbert.search.space.expressions import fits, mutate_expression
from efficientbert.slicing_efficientbert import nearest_layers


if TYPE_CHECKING:
    from efficientbert.search.space.space import SearchSpace


ATTEMPTS = 100  # changes tried before a mutation or crossover is given up
REPAIRS = 100  # stacks and widths changed to bring one architecture back into the budgets
SIZES = ("stack", "intermediate_size")
DIMENSIONS = ("num_layers", *(entry.name for entry in fields(Shape)))


def mutate(space: "SearchSpace", architecture: Architecture, rng: random.Random) -> Architecture | None:
    """Another function within the budgets: one expression, stack, width or searched dimension of the shape changed.

    All kinds of changes are equally likely. Where one leaves the budgets, further stacks and widths are changed until
    they are met again.

    Returns:
        The neighbour, or none if a hundred trials found none.
    """
    changes: list[Callable[[], Architecture | None]] = []
    if space.expressions is None:
        changes.append(lambda: change_expression(space, architecture, rng))
    if space.sizes is None:
        changes += [lambda name=name: change_size(space, architecture, name, rng) for name in SIZES]
    changes += [lambda name=name: change_shape(space, architecture, name, rng) for name in searched(space)]
    known = space.key(architecture)
    for _ in range(ATTEMPTS if changes else 0):
        changed = rng.choice(changes)()
        found = repair(space, changed, rng) if changed else None
        if found is not None and space.key(found) != known:
            return found
    return None


def crossover(space: "SearchSpace", one: Architecture, other: Architecture, rng: random.Random) -> Architecture | None:
    """A mixture within the budgets: the shape of one parent, every layer that of either.

    Of parents of different depths the layers at the same part of the depth correspond. Where the mixture leaves the
    budgets, stacks and widths are changed until they are met again.

    Returns:
        The mixture, or none if a hundred trials found none.
    """
    for _ in range(ATTEMPTS):
        shape, depth = rng.choice([(parent.shape, len(parent.layers)) for parent in (one, other)])
        parents = []
        for parent in (one, other):
            layers = tuple(parent.layers[index] for index in nearest_layers(depth, len(parent.layers)))
            parents.append(fit(space, Architecture(parent.shape, layers), shape))
        mixed = Architecture(shape, tuple(rng.choice(pair) for pair in zip(*(parent.layers for parent in parents))))
        found = repair(space, mixed, rng)
        if found is not None:
            return found
    return None


def change_expression(space: "SearchSpace", architecture: Architecture, rng: random.Random) -> Architecture:
    """One layer with a neighbour of its expression."""
    index = rng.randrange(len(architecture.layers))
    layer = architecture.layers[index]
    wide = layer.intermediate_size > architecture.shape.hidden_size
    text = mutate_expression(layer.expression, rng, space.choices.gate, wide)
    return with_layer(architecture, index, replace(layer, expression=text))


def change_size(
    space: "SearchSpace", architecture: Architecture, name: str, rng: random.Random
) -> Architecture | None:
    """One layer with another stack or width, if there is one that its expression fits."""
    moves = list_moves(space, architecture, name)
    return with_layer(architecture, *rng.choice(moves)) if moves else None


def list_moves(space: "SearchSpace", architecture: Architecture, name: str) -> list[tuple[int, LayerChoice]]:
    """All other stacks or widths that a layer may have, with the layer's number."""
    hidden = architecture.shape.hidden_size
    options = space.choices.stacks if name == "stack" else space.choices.widths(hidden)
    return [
        (index, replace(layer, **{name: option}))
        for index, layer in enumerate(architecture.layers)
        for option in options
        if option != getattr(layer, name) and (name == "stack" or fits(layer.expression, option > hidden))
    ]


def searched(space: "SearchSpace") -> list[str]:
    """The dimensions of the shape that are searched, the number of layers among them."""
    names = [name for name in DIMENSIONS if name != "head_dim" or space.choices.head_dims]
    return [name for name in names if len({dimension(shape, name) for shape in space.shapes}) > 1]


def dimension(shape: tuple[int, Shape], name: str) -> int:
    """One dimension of a number of layers and a shape."""
    return shape[0] if name == "num_layers" else getattr(shape[1], name)


def change_shape(
    space: "SearchSpace", architecture: Architecture, name: str, rng: random.Random
) -> Architecture | None:
    """One dimension of the shape with another value, if there is one, and the layers fitted to it.

    Layers that are too many are left out, layers that lack are copies of their neighbours, at random places.
    """
    own, names = (len(architecture.layers), architecture.shape), searched(space)
    others = [
        shape
        for shape in space.shapes
        if all((dimension(shape, other) == dimension(own, other)) == (other != name) for other in names)
    ]
    if not others:
        return None
    depth, shape = rng.choice(others)
    layers = list(architecture.layers)
    while len(layers) > depth:
        layers.pop(rng.randrange(len(layers)))
    while len(layers) < depth:
        index = rng.randrange(len(layers))
        layers.insert(index, layers[index])
    return fit(space, Architecture(architecture.shape, tuple(layers)), shape)


def fit(space: "SearchSpace", architecture: Architecture, shape: Shape) -> Architecture:
    """The same layers at another shape: widths keep their rank, and fixed expressions are those of their place."""
    old, new = (space.choices.widths(s.hidden_size) for s in (architecture.shape, shape))
    layers = []
    for index, layer in enumerate(architecture.layers):
        size = layer.intermediate_size
        if old != new:
            size = new[old.index(size) * len(new) // len(old)]
        expression = space.expression(len(architecture.layers), index) or layer.expression
        layers.append(LayerChoice(expression, layer.stack, size))
    return Architecture(shape, tuple(layers))


def repair(space: "SearchSpace", architecture: Architecture, rng: random.Random) -> Architecture | None:
    """Changes stacks and widths, one at a time and towards the budgets, until they are met, if they can be."""
    shape = architecture.shape
    if not all(fits(layer.expression, layer.intermediate_size > shape.hidden_size) for layer in architecture.layers):
        return None
    costs = [space.costs[budget.metric] for budget in space.budgets]
    for _ in range(REPAIRS):
        total = [cost(architecture) for cost in costs]
        excess = measure_excess(space, total)
        if not excess:
            return architecture
        if space.sizes is not None:
            return None
        parts = [[cost.layer(shape, layer) for cost in costs] for layer in architecture.layers]
        better = []
        for index, layer in [move for name in SIZES for move in list_moves(space, architecture, name)]:
            changed = [
                all_layers + cost.layer(shape, layer) - part
                for cost, all_layers, part in zip(costs, total, parts[index])
            ]
            if measure_excess(space, changed) < excess:
                better.append((index, layer))
        if not better:
            return None
        architecture = with_layer(architecture, *rng.choice(better))
    return None


def measure_excess(space: "SearchSpace", costs: list[float]) -> float:
    """How far costs are outside their budgets, relative to the nearer ends; zero if they are within."""
    excess = 0.0
    for budget, cost in zip(space.budgets, costs):
        if cost > budget.maximum:
            excess += cost / budget.maximum - 1 if budget.maximum else math.inf
        elif cost < budget.minimum:
            excess += 1 - cost / budget.minimum
    return excess


def with_layer(architecture: Architecture, index: int, layer: LayerChoice) -> Architecture:
    """A copy with one layer replaced."""
    layers = architecture.layers
    return replace(architecture, layers=(*layers[:index], layer, *layers[index + 1 :]))
