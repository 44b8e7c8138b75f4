"""Independent random choices whose costs must add up to something within budgets, drawn without trial and error.

Costs are rounded to a grid, on which the probability that the choices yet to make lead into all budgets is computed
backwards, last choice first. Every choice is then drawn with its own probability times that of what remains. The sums
of the true costs are checked at the end; as the grid allows for its rounding errors, nothing possible is lost, and few
draws have to be repeated.
"""

import itertools
import math
import random
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from efficientbert.search.costs.budget import Budget


T = TypeVar("T")
CELLS = 8192  # of the grid at most, over all budgets that bind
STEPS_IN_BUDGET = 4  # the rounding errors of all choices together are about this part of a budget's width
ATTEMPTS = 500  # draws without one success after which budgets count as out of reach
REMEMBERED = 1000  # cells of which a table keeps what to draw from


@dataclass(frozen=True)
class Options(Generic[T]):
    """What one choice may be.

    Attributes:
        values: All that it may be.
        weights: Their probabilities, up to a factor.
        costs: What they cost, in the metric of every budget.
    """

    values: Sequence[T]
    weights: Sequence[float]
    costs: Sequence[tuple[float, ...]]

    @cached_property
    def least(self) -> list[float]:
        """The least cost of any option, for every budget."""
        return [min(column) for column in zip(*self.costs)]

    @cached_property
    def greatest(self) -> list[float]:
        """The greatest cost of any option, for every budget."""
        return [max(column) for column in zip(*self.costs)]


@dataclass(frozen=True)
class Axis:
    """A budget on the grid: cells hold what costs are above the least possible, in units."""

    budget: int
    unit: float
    first: float
    size: int


class Draws(Generic[T]):
    """Draws one option for every position, as if all were drawn anew until their costs are within all budgets.

    Args:
        positions: The options of every position; where they are alike, preferably the same object.
        fixed: What is added to the sum of the costs, for every budget.
        budgets: What the sums must be within.
        accepts: What else options for all positions must be; most draws should.

    Attributes:
        lowest: Least possible costs, for every budget.
        highest: Greatest possible costs, for every budget.
    """

    def __init__(
        self,
        positions: Sequence[Options[T]],
        fixed: Sequence[float],
        budgets: Sequence[Budget],
        accepts: Callable[[list[T]], bool] = lambda values: True,
    ):
        self.positions = positions
        self.accepts = accepts
        self.fixed = fixed
        self.budgets = budgets
        self.lowest = [start + sum(costs) for start, *costs in zip(fixed, *(options.least for options in positions))]
        self.highest = [
            start + sum(costs) for start, *costs in zip(fixed, *(options.greatest for options in positions))
        ]
        self._remembered: dict[tuple[int, int], np.ndarray] = {}

    @cached_property
    def possible(self) -> bool:
        """Whether the budgets can be met, as far as some draws, always the same ones, tell."""
        if not all(options.values for options in self.positions):
            return False
        if any(b.maximum < low or b.minimum > high for b, low, high in zip(self.budgets, self.lowest, self.highest)):
            return False
        rng = random.Random(0)
        return self._chances[0][0] > 0 and any(self._attempt(rng) is not None for _ in range(ATTEMPTS))

    def draw(self, rng: random.Random) -> list[T]:
        """One option for every position; only where it is `possible`."""
        while True:
            values = self._attempt(rng)
            if values is not None:
                return values

    def _attempt(self, rng: random.Random) -> list[T] | None:
        """A draw on the grid, or none if the true costs are outside a budget or it is not accepted."""
        values, picked, cell = [], [], 0
        for position, (_, offsets, _, groups) in enumerate(self._groups):
            cumulative = self._remembered.get((position, cell))
            if cumulative is None:
                cumulative = self._remember(position, cell)
            group = bisect(cumulative, rng.random() * cumulative[-1], 0, len(cumulative) - 1)
            cell += offsets[group]
            cumulative, options = groups[group]
            option = bisect(cumulative, rng.random() * cumulative[-1], 0, len(cumulative) - 1)
            value, costs = options[option]
            values.append(value)
            picked.append(costs)
        for budget, start, *costs in zip(self.budgets, self.fixed, *picked):
            if not budget.contains(start + sum(costs)):
                return None
        return values if self.accepts(values) else None

    def _remember(self, position: int, cell: int) -> np.ndarray:
        """Cumulative weights of one position's groups from one cell."""
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        _, offsets, probabilities, _ = self._groups[position]
        cumulative = np.cumsum(probabilities * self._chances[position + 1][np.add(offsets, cell)])
        self._remembered[position, cell] = cumulative
        return cumulative

    @cached_property
    def _axes(self) -> list[Axis]:
        """The grid: one axis for every budget that some draws would leave, or a single cell."""
        count = len(self.positions)
        binding = [
            number
            for number, (budget, low, high) in enumerate(zip(self.budgets, self.lowest, self.highest))
            if budget.minimum > low or budget.maximum < high
        ]
        axes = []
        for number in binding:
            low = max(self.budgets[number].minimum - self.lowest[number], 0)
            high = min(self.budgets[number].maximum, self.highest[number]) - self.lowest[number]
            finest = high / CELLS ** (1 / len(binding))
            unit = max((high - low) / STEPS_IN_BUDGET / count, finest) or 1.0
            # Every option is at most half a unit off, so all together are half a unit for each.
            axes.append(Axis(number, unit, low / unit - count / 2, math.floor(high / unit + count / 2) + 1))
        return axes

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self._axes) or (1,)

    @cached_property
    def _padded(self) -> tuple[int, ...]:
        """Twice the grid: no step from a cell within leads out of it."""
        return tuple(2 * size for size in self._sizes)

    @cached_property
    def _groups(self) -> list[tuple[np.ndarray, list[int], np.ndarray, list]]:
        """For every position its options by their step on the grid.

        Steps of shape `(groups, axes)`, the same as offsets on the flat grid, probabilities, and for every group the
        cumulative weights of its options and the options with their costs.
        """
        made: dict[int, tuple] = {}
        for options in self.positions:
            if id(options) not in made:
                made[id(options)] = self._group(options)
        return [made[id(options)] for options in self.positions]

    def _group(self, options: Options[T]) -> tuple[np.ndarray, list[int], np.ndarray, list[tuple[list[float], list]]]:
        sizes, columns = self._sizes, [axis.budget for axis in self._axes]
        steps: np.ndarray = np.zeros((len(options.values), len(sizes)), dtype=np.int64)
        if columns:
            above = np.array(options.costs, dtype=np.float64)[:, columns] - np.array(options.least)[columns]
            steps = np.rint(above / [axis.unit for axis in self._axes]).astype(np.int64)
        members: dict[tuple[int, ...], list[int]] = {}
        for option in np.flatnonzero((steps < sizes).all(axis=1)).tolist():
            members.setdefault(tuple(steps[option].tolist()), []).append(option)
        choices = [
            (
                list(itertools.accumulate(options.weights[option] for option in group)),
                [(options.values[option], options.costs[option]) for option in group],
            )
            for group in members.values()
        ]
        unique = np.array(list(members))
        cells: tuple[list[int], ...] = tuple(unique.T.tolist())
        offsets = np.ravel_multi_index(cells, self._padded).tolist()
        probabilities = np.array([cumulative[-1] for cumulative, _ in choices]) / math.fsum(options.weights)
        return unique, offsets, probabilities, choices

    @cached_property
    def _chances(self) -> list[np.ndarray]:
        """Before every position, and after the last: the probability of ending in the budgets, from every cell."""
        within = tuple(slice(size) for size in self._sizes)
        chance = np.zeros(self._padded)
        chance[within] = 1
        for number, axis in enumerate(self._axes):
            np.moveaxis(chance, number, 0)[: max(0, math.ceil(axis.first))] = 0
        chances = [chance]
        for steps, _, probabilities, _ in reversed(self._groups):
            chance = np.zeros(self._padded)
            for step, probability in zip(steps.tolist(), probabilities.tolist()):
                after = tuple(slice(s, s + size) for s, size in zip(step, self._sizes))
                chance[within] += probability * chances[-1][after]
            chances.append(chance)
        return [chance.reshape(-1) for chance in reversed(chances)]
