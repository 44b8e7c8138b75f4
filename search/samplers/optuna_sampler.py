"""Optuna's samplers over any space with an encoding."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState, create_trial

from efficientbert.search.samplers.sampler import C, Sampler, Space
from efficientbert.train.cli.errors import InputError


DRAWN = 256  # random candidates that show which features vary, and how far


class OptunaSampler(Sampler[C]):
    """One of Optuna's samplers, the tree-structured Parzen estimator by default.

    Optuna knows vectors, not architectures: every feature of the encoding that varies is one of its floats, from 0 to
    1 over the range seen in random candidates. It proposes a vector; the nearest of a pool of candidates, random ones
    and mutations of the best, is taken, and Optuna is told the encoding of that. This fits samplers that need nothing
    but finished trials (TPE, GP, random); not those that keep notes in the trials they asked for (CMA-ES, Optuna's
    NSGA-II). Failed candidates are told as pruned: TPE counts them as the worst.

    Args:
        space: Where candidates come from.
        seed: Of all random choices.
        make: Builds the sampler; called with `seed=` before every proposal.
        pool: Candidates drawn for each that is taken.

    Raises:
        InputError: if no feature of the encoding varies.
    """

    def __init__(
        self, space: Space[C], seed: int, make: Callable[..., BaseSampler] = TPESampler, pool: int = 100
    ) -> None:
        super().__init__(space, seed)
        self.make = make
        self.pool = pool
        rng = random.Random(f"{seed} encodings")
        drawn = np.stack([space.encode(space.sample(rng)) for _ in range(DRAWN)])
        low, high = drawn.min(0), drawn.max(0)
        self._varying = high > low
        if not self._varying.any():
            raise InputError("optuna sampler: all candidates of this space encode alike; take another sampler")
        self._low, self._range = low[self._varying], (high - low)[self._varying]
        self._distributions = {f"feature{index}": FloatDistribution(0, 1) for index in range(len(self._low))}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study()
        self._good: list[tuple[float, int, C]] = []

    def _propose(self, rng: random.Random) -> Iterator[C]:
        self._study.sampler = self.make(seed=rng.randrange(2**31))
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=TrialState.FAIL)  # Optuna ignores it; what is evaluated is added when told
        wanted = np.array([trial.params[name] for name in self._distributions])
        candidates = [self.space.sample(rng) for _ in range(self.pool if not self._good else self.pool // 2)]
        while len(candidates) < self.pool:
            candidates.append(self.space.mutate(rng.choice(self._good)[-1], rng))
        distances = [np.square(self._scaled(candidate) - wanted).sum() for candidate in candidates]
        for index in np.argsort(distances, kind="stable"):
            yield candidates[index]

    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        params = dict(zip(self._distributions, self._scaled(candidate).tolist()))
        state = TrialState.PRUNED if losses is None else TrialState.COMPLETE
        value = None if losses is None else losses[0]
        self._study.add_trial(create_trial(state=state, value=value, params=params, distributions=self._distributions))
        if losses is not None:
            self._good = sorted([*self._good, (losses[0], self._tells, candidate)], key=lambda entry: entry[:2])[:16]

    def _scaled(self, candidate: C) -> np.ndarray:
        """The varying features of a candidate as shares of their ranges."""
        return np.clip((self.space.encode(candidate)[self._varying] - self._low) / self._range, 0, 1)
