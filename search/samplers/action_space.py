"""The learned action space (paper, section 3.3, after LaNAS: Wang et al., 2019, "Sample-Efficient Neural Architecture
Search by Learning Action Space").

A binary tree of classifiers halves the space again and again into better and worse candidates. Of its leaves the one
with the highest upper confidence bound is searched next; the published program always takes the best.

A candidate is the better the fewer others dominate it: with one objective that is the order of the losses, with
several it leads to the whole Pareto front (LaMOO: Zhao et al., 2022, "Multi-objective Optimization by Learning Space
Partitions").
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import GradientBoostingClassifier

from efficientbert.search.samplers.sampler import C, Sampler, Space
from efficientbert.search.study.pareto import dominates


PARENTS = 16  # the best so far, of which candidates are mutations
MUTATIONS = 2  # in a row, at most, between a parent and a candidate
SMALLEST = 8  # candidates a region holds at least to be divided
GROWTH = 10  # a refit waits for a tenth more candidates at least, so that all of them cost time linear in the history


@dataclass(frozen=True)
class Leaf:
    """A region that is not divided.

    Attributes:
        number: From 0.
        path: The classifiers from the root, each with whether the region is what it takes for the better part.
    """

    number: int
    path: tuple[tuple[GradientBoostingClassifier, bool], ...]

    def chances(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether `(candidates, features)` fall into the region, and with what probability: both `(candidates,)`."""
        inside: np.ndarray = np.ones(len(features), dtype=bool)
        chances: np.ndarray = np.ones(len(features))
        for classifier, wanted in self.path:
            better = classifier.predict_proba(features)[:, 1]
            inside &= (better > 0.5) == wanted
            chances *= better if wanted else 1 - better
        return inside, chances


@dataclass(frozen=True)
class Split:
    """A region divided by a classifier of what lies above its median."""

    classifier: GradientBoostingClassifier
    better: Union["Split", Leaf]
    worse: Union["Split", Leaf]


class ActionTree:
    """A space divided by what was evaluated of it.

    Args:
        features: `(candidates, features)`.
        losses: `(candidates,)`.
        depth: Splits from the root to a leaf, at most.
        seed: Of the classifiers.

    Attributes:
        leaves: The regions.
    """

    def __init__(self, features: np.ndarray, losses: np.ndarray, depth: int, seed: int) -> None:
        self.leaves: list[Leaf] = []
        self._root = self._grow(features, losses, depth, seed, ())

    def fall(self, features: np.ndarray) -> np.ndarray:
        """`(candidates,)`: the number of the leaf that each of `(candidates, features)` falls into."""
        numbers: np.ndarray = np.empty(len(features), dtype=int)

        def descend(node: Split | Leaf, rows: np.ndarray) -> None:
            if isinstance(node, Leaf):
                numbers[rows] = node.number
            elif len(rows):
                better = node.classifier.predict_proba(features[rows])[:, 1] > 0.5
                descend(node.better, rows[better])
                descend(node.worse, rows[~better])

        descend(self._root, np.arange(len(features)))
        return numbers

    def _grow(self, features: np.ndarray, losses: np.ndarray, depth: int, seed: int, path: tuple) -> Split | Leaf:
        better = losses < np.median(losses)
        if depth and len(losses) >= SMALLEST and better.any():
            # Stochastic gradient boosting (Friedman, 2002): trees on parts of rows and features overfit less.
            classifier = GradientBoostingClassifier(
                n_estimators=30, max_depth=2, subsample=0.7, max_features="sqrt", random_state=seed
            ).fit(features, better)
            inside = classifier.predict_proba(features)[:, 1] > 0.5  # a region is what the classifier takes for it
            if inside.any() and not inside.all():
                parts = (
                    self._grow(features[part], losses[part], depth - 1, seed, (*path, (classifier, wanted)))
                    for part, wanted in ((inside, True), (~inside, False))
                )
                return Split(classifier, *parts)
        self.leaves.append(Leaf(len(self.leaves), path))
        return self.leaves[-1]


def upper_confidence_bounds(rewards: np.ndarray, leaves: np.ndarray, count: int, exploration: float) -> np.ndarray:
    """UCB1 of every leaf (Auer et al., 2002): mean reward + exploration * sqrt(2 ln(visits) / visits of the leaf).

    Args:
        rewards: `(candidates,)`, from 0 to 1.
        leaves: `(candidates,)`, the leaf of each.
        count: How many leaves there are.
        exploration: Weight of what is not known yet.

    Returns:
        `(count,)`, infinite for a leaf that was never visited.
    """
    visits = np.bincount(leaves, minlength=count)
    sums = np.bincount(leaves, weights=rewards, minlength=count)
    bounds = np.full(count, np.inf)
    seen = visits > 0
    bounds[seen] = sums[seen] / visits[seen] + exploration * np.sqrt(2 * math.log(len(rewards)) / visits[seen])
    return bounds


class ActionSpace(Sampler[C]):
    """Draws candidates at random and near the best, and takes one of the leaf with the highest confidence bound.

    In the leaf that candidate comes first of which the classifiers are surest; if none falls into it, the one that
    does with the highest probability. Failed candidates count as the worst.

    Args:
        space: Where candidates come from.
        seed: Of all random choices.
        first: Random candidates before the first tree (80 as published).
        interval: Candidates between two trees (10 as published), at least.
        depth: Splits from root to leaf in the first trees.
        growth: Sizes of the history at which trees get one split deeper (as published).
        exploration: Weight of UCB's second term; rewards are ranks from 0 to 1.
        pool: Candidates drawn for each that is taken.
    """

    def __init__(
        self,
        space: Space[C],
        seed: int,
        first: int = 80,
        interval: int = 10,
        depth: int = 3,
        growth: Sequence[int] = (400, 800, 1600, 3200),
        exploration: float = 0.1,
        pool: int = 64,
    ) -> None:
        super().__init__(space, seed)
        self.first = first
        self.interval = interval
        self.depth = depth
        self.growth = growth
        self.exploration = exploration
        self.pool = pool
        self._candidates: list[C] = []
        self._features: list[np.ndarray] = []
        self._losses = np.empty((0, 1))  # inf for those that failed
        self._dominators: np.ndarray = np.empty(0, dtype=int)  # how many dominate each
        self._next_fit = first
        self._tree: ActionTree  # from the first update on
        self._leaf_of: list[int] = []

    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        self._candidates.append(candidate)
        self._features.append(self.space.encode(candidate))
        row = np.array(losses or np.full(self._losses.shape[1], math.inf))
        if len(row) != self._losses.shape[1]:  # this is the first that did not fail
            self._losses = np.full((len(self._losses), len(row)), math.inf)
        self._dominators += dominates(row, self._losses)
        self._dominators = np.append(self._dominators, dominates(self._losses, row).sum())
        self._losses = np.append(self._losses, row[None], axis=0)

    def _propose(self, rng: random.Random) -> Iterator[C]:
        if self._tells < self.first or np.isinf(self._losses).all():
            while True:
                yield self.space.sample(rng)
        self._update()
        rewards = 1 - (rankdata(self._dominators) - 0.5) / len(self._dominators)
        leaves = self._tree.leaves
        bounds = upper_confidence_bounds(rewards, np.array(self._leaf_of), len(leaves), self.exploration)
        candidates = self._draw(rng)
        features = np.stack([self.space.encode(candidate) for candidate in candidates])
        inside, chances = leaves[int(bounds.argmax())].chances(features)
        for index in np.lexsort((-chances, ~inside)):
            yield candidates[index]

    def _update(self) -> None:
        """Brings the tree up to date: when it is fitted depends on how many were told, never on the asks between."""
        fit_at = None
        while self._next_fit <= self._tells:
            fit_at = self._next_fit
            self._next_fit += max(self.interval, self._next_fit // GROWTH)
        if fit_at is not None:
            depth = self.depth + sum(fit_at >= size for size in self.growth)
            features, losses = np.stack(self._features[:fit_at]), self._losses[:fit_at]
            counts = np.array([dominates(losses, row).sum() for row in losses])
            self._tree = ActionTree(features, counts, depth, self.seed + fit_at)
            self._leaf_of = []
        new = self._features[len(self._leaf_of) :]
        if new:
            self._leaf_of += self._tree.fall(np.stack(new)).tolist()

    def _draw(self, rng: random.Random) -> list[C]:
        """Half random candidates, half mutations of the best."""
        order = np.argsort(self._dominators, kind="stable")
        most = self._dominators[order[:PARENTS][-1]]  # all of a large front
        parents = [index for index in order if self._dominators[index] <= most and np.isfinite(self._losses[index][0])]
        candidates = [self.space.sample(rng) for _ in range(self.pool // 2)]
        while len(candidates) < self.pool:
            candidate = self._candidates[rng.choice(parents)]
            for _ in range(rng.randint(1, MUTATIONS)):
                candidate = self.space.mutate(candidate, rng)
            candidates.append(candidate)
        return candidates
