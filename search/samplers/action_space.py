"""The learned action space (paper, section 3.3, after LaNAS: Wang et al., "Sample-Efficient Neural Architecture Search by
Learning Action Space").

A binary tree of classifiers halves the space again and again into better and worse candidates. Of its leaves the one
with the highest upper confidence bound is searched next; the published program always takes the best.
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


PARENTS = 16  # the best so far, of which candidates are mutations
MUTATIONS = 3  # in a row, at most, between a parent and a candidate
SMALLEST = 8  # candidates a region holds at least to be divided
GROWTH = 10  # a refit waits for a tenth more candidates at least, so that all of them cost time linear in the history


@dataclass(frozen=True)
class Leaf:
    """A region that is not divided: its number, from 0."""

    number: int


@dataclass(frozen=True)
class Split:
    """A region divided by a classifier of what lies above its median."""

    classifier: GradientBoostingClassifier
    better: Union["Split", Leaf]
    worse: Union["Split", Leaf]


Tree = Split | Leaf


def fit_tree(features: np.ndarray, losses: np.ndarray, depth: int, smallest: int, seed: int) -> tuple[Tree, int]:
    """Divides a space by what was evaluated of it.

    Args:
        features: `(candidates, features)`.
        losses: `(candidates,)`, inf for those that failed.
        depth: Splits from the root to a leaf, at most.
        smallest: Candidates a region must hold to become two.
        seed: Of the classifiers.

    Returns:
        The tree and how many leaves it has.
    """
    leaves = 0

    def grow(rows: np.ndarray, depth: int) -> Tree:
        nonlocal leaves
        better = losses[rows] < np.median(losses[rows])
        if depth and len(rows) >= smallest and better.any():
            # Stochastic gradient boosting (Friedman, 2002): trees on parts of rows and features overfit less.
            classifier = GradientBoostingClassifier(
                n_estimators=30, max_depth=2, subsample=0.7, max_features="sqrt", random_state=seed
            ).fit(features[rows], better)
            inside = classifier.predict(features[rows])  # a region is what the classifier takes for it
            if inside.any() and not inside.all():
                return Split(classifier, grow(rows[inside], depth - 1), grow(rows[~inside], depth - 1))
        leaves += 1
        return Leaf(leaves - 1)

    return grow(np.arange(len(losses)), depth), leaves


def leaf_chances(tree: Tree, features: np.ndarray, leaves: int) -> tuple[np.ndarray, np.ndarray]:
    """Where candidates fall.

    Args:
        tree: Of [`fit_tree`].
        features: `(candidates, features)`.
        leaves: How many the tree has.

    Returns:
        `(candidates,)`, the leaf every candidate falls into; `(candidates, leaves)`, the probability of each leaf if
        all classifiers are taken at their word.
    """
    chances = np.zeros((len(features), leaves))
    fallen = np.zeros(len(features), dtype=int)

    def descend(node: Tree, chance: np.ndarray, inside: np.ndarray) -> None:
        if isinstance(node, Leaf):
            chances[:, node.number] = chance
            fallen[inside] = node.number
            return
        better = node.classifier.predict_proba(features)[:, 1]
        descend(node.better, chance * better, inside & (better > 0.5))
        descend(node.worse, chance * (1 - better), inside & (better <= 0.5))

    descend(tree, np.ones(len(features)), np.ones(len(features), dtype=bool))
    return fallen, chances


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

    Inside the leaf the candidate comes first of which the classifiers together expect most: the mean of the leaves'
    bounds, weighted with the probability of each leaf. Failed candidates count as the worst.

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
        pool: int = 100,
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
        self._losses: list[float] = []
        self._next_fit = first
        self._tree: Tree | None = None
        self._leaves = 0
        self._leaf_of: list[int] = []

    def _learn(self, candidate: C, losses: tuple[float, ...] | None) -> None:
        self._candidates.append(candidate)
        self._features.append(self.space.encode(candidate))
        self._losses.append(math.inf if losses is None else losses[0])

    def _propose(self, rng: random.Random) -> Iterator[C]:
        losses = np.array(self._losses)
        if self._tells < self.first or np.isinf(losses).all():
            while True:
                yield self.space.sample(rng)
        self._update()
        candidates = self._draw(losses, rng)
        rewards = 1 - (rankdata(losses) - 0.5) / len(losses)
        bounds = upper_confidence_bounds(rewards, np.array(self._leaf_of), self._leaves, self.exploration)
        fallen, chances = leaf_chances(self._tree, np.stack([self.space.encode(c) for c in candidates]), self._leaves)
        for index in np.lexsort((-(chances @ bounds), -bounds[fallen])):
            yield candidates[index]

    def _update(self) -> None:
        """Brings the tree up to date: when it is fitted depends on the number told alone, never on the asks between."""
        fit_at = None
        while self._next_fit <= self._tells:
            fit_at = self._next_fit
            self._next_fit += max(self.interval, self._next_fit // GROWTH)
        if fit_at is not None:
            depth = self.depth + sum(fit_at >= size for size in self.growth)
            self._tree, self._leaves = fit_tree(
                np.stack(self._features[:fit_at]), np.array(self._losses[:fit_at]), depth, SMALLEST, self.seed + fit_at
            )
            self._leaf_of = []
        new = self._features[len(self._leaf_of) :]
        if new:
            self._leaf_of += leaf_chances(self._tree, np.stack(new), self._leaves)[0].tolist()

    def _draw(self, losses: np.ndarray, rng: random.Random) -> list[C]:
        """Half random candidates, half mutations of the best."""
        parents = [index for index in np.argsort(losses, kind="stable")[:PARENTS] if math.isfinite(losses[index])]
        candidates = [self.space.sample(rng) for _ in range(self.pool // 2)]
        while len(candidates) < self.pool:
            candidate = self._candidates[rng.choice(parents)]
            for _ in range(rng.randint(1, MUTATIONS)):
                candidate = self.space.mutate(candidate, rng)
            candidates.append(candidate)
        return candidates
