"""Regularised evolution (Real et al., 2019, "Regularized Evolution for Image Classifier Architecture Search")."""

import random
from collections import deque
from collections.abc import Iterator

from efficientbert.search.samplers.sampler import C, Sampler, Space


class Evolution(Sampler[C]):
    """The best of a few drawn from the newest candidates has offspring; age alone makes room.

    Args:
        space: Where candidates come from.
        seed: Of all random choices.
        initial: Random candidates before the first mutation.
        population: The newest candidates, failed ones aside, that may have offspring.
        tournament: Candidates drawn from the population, of which the best has offspring.
    """

    def __init__(
        self, space: Space[C], seed: int, initial: int = 16, population: int = 32, tournament: int = 8
    ) -> None:
        super().__init__(space, seed)
        self.initial = initial
        self.tournament = tournament
        self._population: deque[tuple[float, C]] = deque(maxlen=population)

    def _propose(self, rng: random.Random) -> Iterator[C]:
        while True:
            if self._tells < self.initial or not self._population:
                yield self.space.sample(rng)
            else:
                contestants = rng.sample(self._population, min(self.tournament, len(self._population)))
                yield self.space.mutate(min(contestants, key=lambda entry: entry[0])[1], rng)

    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        if losses is not None:
            self._population.append((losses[0], candidate))
