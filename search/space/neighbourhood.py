"""A space seen from one architecture: stage 2 mutates the expressions of stage 1's winner (paper, section 3.3)."""

import random
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.space import SearchSpace


MUTATIONS = (1, 2, 3)


@dataclass(frozen=True)
class Neighbourhood:
    """A `Space` whose random candidates are one to three mutations away from a centre; all else is as in the space.

    Attributes:
        space: The space.
        centre: An architecture of it.
    """

    space: SearchSpace
    centre: Architecture

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture near the centre."""
        candidate = self.centre
        for _ in range(rng.choice(MUTATIONS)):
            candidate = self.space.mutate(candidate, rng)
        return candidate

    def mutate(self, candidate: Architecture, rng: random.Random) -> Architecture:
        """See `SearchSpace.mutate`."""
        return self.space.mutate(candidate, rng)

    def crossover(self, one: Architecture, other: Architecture, rng: random.Random) -> Architecture:
        """See `SearchSpace.crossover`."""
        return self.space.crossover(one, other, rng)

    def encode(self, candidate: Architecture) -> np.ndarray:
        """See `SearchSpace.encode`."""
        return self.space.encode(candidate)

    def key(self, candidate: Architecture) -> Hashable:
        """See `SearchSpace.key`."""
        return self.space.key(candidate)
