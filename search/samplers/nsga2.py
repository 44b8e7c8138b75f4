"""NSGA-II for several objectives (Deb et al., 2002), one candidate at a time.

Steady state (Durillo et al., 2009, "On the Effect of the Steady-State Selection Scheme in Multi-Objective Genetic
Algorithms"): every candidate enters the population at once and the worst of it leaves, so that the cost of a step does
not grow with the history.
"""

import random
from collections.abc import Iterator

import numpy as np

from efficientbert.search.samplers.sampler import C, Sampler, Space
from efficientbert.search.study.pareto import dominates


def front_numbers(losses: np.ndarray) -> np.ndarray:
    """Fast non-dominated sorting (Deb et al., 2002, section III-A).

    Args:
        losses: `(candidates, objectives)`, to be minimised.

    Returns:
        `(candidates,)`: 0 for those that nothing dominates, 1 for those that only the former dominate, and so on.
    """
    table = dominates(losses[:, None], losses[None])  # [i, j]: i dominates j
    dominators = table.sum(0)
    numbers = np.full(len(losses), -1)
    number = 0
    while (numbers < 0).any():
        front = (dominators == 0) & (numbers < 0)
        numbers[front] = number
        dominators -= table[front].sum(0)
        number += 1
    return numbers


def crowding_distances(losses: np.ndarray, fronts: np.ndarray) -> np.ndarray:
    """How much room every candidate has in its front (Deb et al., 2002, section III-B).

    Args:
        losses: `(candidates, objectives)`.
        fronts: `(candidates,)`, of [`front_numbers`].

    Returns:
        `(candidates,)`: the sum over objectives of the gap between both neighbours, as a share of the front's range;
        infinite at the ends of a front.
    """
    distances = np.zeros(len(losses))
    for number in np.unique(fronts):
        front = np.flatnonzero(fronts == number)
        for values in losses[front].T:
            order = np.argsort(values, kind="stable")
            ordered = values[order]
            gaps = np.full(len(front), np.inf)
            gaps[1:-1] = (ordered[2:] - ordered[:-2]) / max(ordered[-1] - ordered[0], np.finfo(float).tiny)
            distances[front[order]] += gaps
    return distances


class Nsga2(Sampler[C]):
    """Evolution towards the whole Pareto front.

    Args:
        space: Where candidates come from.
        seed: Of all random choices.
        initial: Random candidates before the first offspring.
        population: Survivors: by front, then by crowding distance.
        crossover_rate: Share of offspring with two parents; all offspring are mutated.
    """

    def __init__(
        self, space: Space[C], seed: int, initial: int = 16, population: int = 32, crossover_rate: float = 0.5
    ) -> None:
        super().__init__(space, seed)
        self.initial = initial
        self.population = population
        self.crossover_rate = crossover_rate
        self._survivors: list[C] = []
        self._losses: list[tuple[float, ...]] = []
        self._fitness: list[tuple[int, float]] = []  # front, then minus the crowding distance: lower is better

    def _propose(self, rng: random.Random) -> Iterator[C]:
        while True:
            if self._tells < self.initial or not self._survivors:
                yield self.space.sample(rng)
                continue
            parent = self._parent(rng)
            if rng.random() < self.crossover_rate:
                parent = self.space.crossover(parent, self._parent(rng), rng)
            yield self.space.mutate(parent, rng)

    def _parent(self, rng: random.Random) -> C:
        """The better of two drawn survivors."""
        one, other = rng.randrange(len(self._survivors)), rng.randrange(len(self._survivors))
        return self._survivors[min(one, other, key=lambda index: self._fitness[index])]

    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        if losses is None:
            return
        self._survivors.append(candidate)
        self._losses.append(losses)
        self._rank()
        if len(self._survivors) > self.population:
            worst = max(range(len(self._survivors)), key=lambda index: self._fitness[index])
            del self._survivors[worst], self._losses[worst]
            self._rank()

    def _rank(self) -> None:
        losses = np.array(self._losses, dtype=float)
        fronts = front_numbers(losses)
        self._fitness = list(zip(fronts.tolist(), (-crowding_distances(losses, fronts)).tolist()))
