"""What every sampler shares: the next candidate is asked for, its losses are told."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np


C = TypeVar("C", bound=Hashable)

TRIES = 64  # proposals looked through for one that is new
DRAWS = 1000  # random draws, at least, before a space counts as exhausted


class Space(Protocol[C]):
    """What samplers need of a space of hashable candidates."""

    def sample(self, rng: random.Random) -> C:
        """A random candidate."""

    def mutate(self, candidate: C, rng: random.Random) -> C:
        """A neighbour of a candidate."""

    def crossover(self, one: C, other: C, rng: random.Random) -> C:
        """A candidate that takes after both."""

    def encode(self, candidate: C) -> np.ndarray:
        """Features of a candidate, float64, of one length for the whole space."""

    def key(self, candidate: C) -> Hashable:
        """Equal for candidates that are the same function."""


class Exhausted(RuntimeError):
    """A space has no candidate left that was not told before and is not pending."""


class Sampler(ABC, Generic[C]):
    """Proposes candidates of a space.

    An ask is a pure function of the settings, everything told before in its order, and what is pending: a sampler
    that is told the same history again goes on exactly as the first.

    Args:
        space: Where candidates come from.
        seed: Of all random choices.
    """

    def __init__(self, space: Space[C], seed: int) -> None:
        self.space = space
        self.seed = seed
        self._told: set[Hashable] = set()
        self._tells = 0

    def ask(self, pending: Collection[C] = ()) -> C:
        """The next candidate: its key is neither told nor pending.

        Args:
            pending: Candidates that are being evaluated, in any order.

        Raises:
            Exhausted: if the space has none left.
        """
        taken = {self.space.key(candidate) for candidate in pending}
        rng = random.Random(f"{self.seed} {self._tells} {len(taken)}")
        for candidate in islice(self._propose(rng), TRIES):
            if not self._is_known(candidate, taken):
                return candidate
        # Everything near is known. A space with one candidate left among n shows it in 20 n draws but once in e^20.
        for _ in range(max(DRAWS, 20 * (len(self._told) + len(taken)))):
            candidate = self.space.sample(rng)
            if not self._is_known(candidate, taken):
                return candidate
        raise Exhausted(f"the space is exhausted: all {len(self._told) + len(taken)} candidates were tried")

    def tell(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        """Takes what a candidate came to.

        Args:
            candidate: Asked for, or from elsewhere.
            losses: All to be minimised; None, or any that is no finite number, if the candidate failed or was given
                up half-way: it is never a parent and never asked for again.
        """
        self._told.add(self.space.key(candidate))
        self._tells += 1
        failed = losses is None or not all(math.isfinite(loss) for loss in losses)
        self._learn(candidate, None if failed else losses)

    @abstractmethod
    def _propose(self, rng: random.Random) -> Iterator[C]:
        """Candidates to try next, the preferred first; known ones among them are passed over."""

    @abstractmethod
    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        """Takes the finite losses of a candidate, or None if it failed."""

    def _is_known(self, candidate: C, taken: set[Hashable]) -> bool:
        key = self.space.key(candidate)
        return key in self._told or key in taken


class RandomSampler(Sampler[C]):
    """Random candidates: the baseline of every search."""

    def _propose(self, rng: random.Random) -> Iterator[C]:
        while True:
            yield self.space.sample(rng)

    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        pass
