"""Independent random choices whose costs must add up to something within budgets, drawn without trial and error.

Costs are rounded to a grid, on which the probability that the choices yet to make lead into all budgets is computed
backwards, last choice first. Every choice is then drawn with its own probability times that of what remains. The sum of
the true costs is checked at the end; as the grid allows for its rounding errors, nothing possible is lost, and few draws
have to be repeated.
"""

import itertools
import math
import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from efficientbert.search.cost import Budget


T = TypeVar("T")
CELLS = 8192  # of the grid, over all budgets that bind
STEPS_IN_BUDGET = 8  # a step of the grid is at most this part of a budget's width, divided by the number of choices
ATTEMPTS = 500  # draws without one success after which budgets count as out of reach


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


class Draws(Generic[T]):
    """Draws one option for every position, as if all were drawn anew until their costs are within all budgets.

    Args:
        positions: The options of every position; equal ones may be the same object.
        fixed: What is added to the sum of the costs, for every budget.
        budgets: What the sums must be within.

    Attributes:
        lowest: Least possible costs, for every budget.
        highest: Greatest possible costs, for every budget.
    """

    def __init__(self, positions: Sequence[Options[T]], fixed: Sequence[float], budgets: Sequence[Budget]):
        self.positions = positions
        self.fixed = fixed
        self.budgets = budgets
        extremes = {id(options): [(min(c), max(c)) for c in zip(*options.costs)] for options in positions}
        least, greatest = ([[e[side] for e in extremes[id(options)]] for options in positions] for side in (0, 1))
        self.lowest = [start + sum(costs) for start, *costs in zip(fixed, *least)]
        self.highest = [start + sum(costs) for start, *costs in zip(fixed, *greatest)]
        self._least = least
        self._steps: list[dict[int, tuple]] = [{} for _ in positions]

    @cached_property
    def possible(self) -> bool:
        """Whether the budgets can be met, as far as some draws, always the same ones, tell."""
        if any(b.maximum < low or b.minimum > high for b, low, high in zip(self.budgets, self.lowest, self.highest)):
            return False
        if not self._chances[0].flat[0] > 0:
            return False
        rng = random.Random(0)
        return any(self._attempt(rng) is not None for _ in range(ATTEMPTS))

    def draw(self, rng: random.Random) -> list[T]:
        """One option for every position; only where it is `possible`."""
        while True:
            values = self._attempt(rng)
            if values is not None:
                return values

    def _attempt(self, rng: random.Random) -> list[T] | None:
        """A draw on the grid, or none if the true costs are outside a budget."""
        picked, values, cell = [], [], 0
        for steps, position in zip(self._steps, range(len(self.positions))):
            step = steps.get(cell)
            if step is None:
                step = steps[cell] = self._step(position, cell)
            cumulative, groups = step
            at = bisect(cumulative, rng.random() * cumulative[-1], 0, len(cumulative) - 1)
            (cumulative, members), offset = groups[at]
            at = bisect(cumulative, rng.random() * cumulative[-1], 0, len(cumulative) - 1)
            value, costs = members[at]
            values.append(value)
            picked.append(costs)
            cell += offset
        for budget, start, *costs in zip(self.budgets, self.fixed, *picked):
            if not budget.contains(start + sum(costs)):
                return None
        return values

    @cached_property
    def _grid(self) -> list[tuple[int, float, float, float]]:
        """For every budget that binds: its number, the unit, and the ends above the lowest cost."""
        binding = [
            number
            for number, budget in enumerate(self.budgets)
            if budget.minimum > self.lowest[number] or budget.maximum < self.highest[number]
        ]
        grid = []
        for number in binding:
            low = max(self.budgets[number].minimum - self.lowest[number], 0.0)
            high = min(self.budgets[number].maximum, self.highest[number]) - self.lowest[number]
            finest = high / CELLS ** (1 / len(binding))
            unit = max((high - low) / (STEPS_IN_BUDGET * len(self.positions)), finest) or 1.0
            grid.append((number, unit, low, high))
        return grid

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        slack = len(self.positions) / 2
        return tuple(math.floor(high / unit + slack) + 1 for _, unit, _, high in self._grid) or (1,)

    @cached_property
    def _groups(self) -> list[tuple[np.ndarray, np.ndarray, list]]:
        """For every position: steps on the grid, their probabilities, and the options that take each of them."""
        made: dict[int, tuple] = {}
        for options, least in zip(self.positions, self._least):
            if id(options) not in made:
                made[id(options)] = self._group(options, least)
        return [made[id(options)] for options in self.positions]

    def _group(self, options: Options[T], least: Sequence[float]) -> tuple[np.ndarray, np.ndarray, list]:
        weights = np.asarray(options.weights, dtype=np.float64) / math.fsum(options.weights)
        costs = np.asarray(options.costs, dtype=np.float64).reshape(len(weights), len(self.budgets))
        steps = np.zeros((len(weights), len(self._sizes)), dtype=np.int64)
        for column, (number, unit, _, _) in enumerate(self._grid):
            steps[:, column] = np.rint((costs[:, number] - least[number]) / unit)
        within = np.flatnonzero((steps < np.array(self._sizes, dtype=np.int64)).all(axis=1))
        unique, inverse = np.unique(steps[within], axis=0, return_inverse=True)
        members: list[list[int]] = [[] for _ in unique]
        for option, group in zip(within.tolist(), inverse.reshape(-1).tolist()):
            members[group].append(option)
        choices = [
            (
                list(itertools.accumulate(weights[group].tolist())),
                [(options.values[option], options.costs[option]) for option in group],
            )
            for group in members
        ]
        return unique, np.array([cumulative[-1] for cumulative, _ in choices]), choices

    @cached_property
    def _chances(self) -> list[np.ndarray]:
        """Before every position, and after the last: the probability of ending in the budgets, from every cell."""
        slack = len(self.positions) / 2
        chance = np.ones(self._sizes)
        for axis, (size, (_, unit, low, _)) in enumerate(zip(self._sizes, self._grid)):
            shape = [-1 if other == axis else 1 for other in range(len(self._sizes))]
            chance = chance * (np.arange(size) >= low / unit - slack).reshape(shape)
        chances = [chance]
        for steps, probabilities, _ in reversed(self._groups):
            before = np.zeros(self._sizes)
            for step, probability in zip(steps.tolist(), probabilities.tolist()):
                target = tuple(slice(size - s) for size, s in zip(self._sizes, step))
                source = tuple(slice(s, None) for s in step)
                before[target] += probability * chance[source]
            chance = before
            chances.append(chance)
        return chances[::-1]

    def _step(self, position: int, cell: int) -> tuple[list[float], list]:
        """Cumulative weights of the groups of one position from one cell, and the groups with their offsets."""
        steps, probabilities, choices = self._groups[position]
        ends = np.array(np.unravel_index(cell, self._sizes)) + steps
        within = np.flatnonzero((ends < np.array(self._sizes, dtype=np.int64)).all(axis=1))
        after = self._chances[position + 1]
        cells = np.ravel_multi_index(tuple(ends[within].T), self._sizes)
        weights = probabilities[within] * after.flat[cells]
        kept = np.flatnonzero(weights)
        groups = [(choices[group], int(end) - cell) for group, end in zip(within[kept].tolist(), cells[kept])]
        return np.cumsum(weights[kept]).tolist(), groups
