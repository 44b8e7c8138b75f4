"""Which architecture to try next: regularised evolution (Real et al., 2019) as a pure function of the history.

The draw depends on nothing but the seed and what was evaluated before, so a search that was killed goes on as if it
had not.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from efficientbert.search.architecture import Architecture
from efficientbert.search.space import SearchSpace


def rank(loss: float) -> float:
    """A loss to compare by: one that is no number is the worst."""
    return math.inf if math.isnan(loss) else loss


@dataclass(frozen=True)
class Evaluated:
    """A candidate with its loss (lower is better)."""

    architecture: Architecture
    loss: float


@dataclass(frozen=True)
class Evolution:
    """Settings of the search.

    Attributes:
        initial: Random candidates before the first mutation.
        population: The newest candidates that may have offspring.
        tournament: Candidates drawn from the population, of which the best has offspring.
    """

    initial: int = 16
    population: int = 32
    tournament: int = 8

    def propose(self, space: SearchSpace, history: Sequence[Evaluated], seed: int) -> Architecture:
        """The next candidate, different from all before as far as a few draws find one."""
        rng = random.Random(f"{seed} {len(history)}")
        # Of a loss that is no finite number nothing can be inherited.
        population = [e for e in history[-self.population :] if math.isfinite(e.loss)]
        known = {evaluated.architecture for evaluated in history}
        for _ in range(20):
            if len(history) < self.initial or not population:
                architecture = space.sample(rng)
            else:
                contestants = rng.sample(population, min(self.tournament, len(population)))
                architecture = space.mutate(min(contestants, key=lambda e: e.loss).architecture, rng)
            if architecture not in known:
                break
        return architecture
