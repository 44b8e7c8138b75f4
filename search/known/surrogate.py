"""What an architecture will come to, from what others came to: a Gaussian process over meaningful features.

The table of known architectures ships with the package, `gte-small.json`; `benchmarks/known.md` says how it was made
and how well the surrogate ranks what it has not seen.
"""

import json
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from efficientbert.search.known.features import NAMES, TeacherSizes, describe
from efficientbert.search.space.architecture import Architecture


SHIPPED = Path(__file__).with_name("gte-small.json")
FIGURE = "explained_texts"  # what is predicted, of those in the table; it ranks longer trainings best


class Surrogate:
    """Predicts the quality of architectures, with its uncertainty.

    Args:
        features: Of known architectures, of shape `(N, F)`; see `describe`.
        qualities: What they came to, of shape `(N,)`.
    """

    def __init__(self, features: np.ndarray, qualities: np.ndarray):
        self.center, self.scale = features.mean(0), features.std(0)
        self.scale[self.scale == 0] = 1.0
        kernel = ConstantKernel() * RBF(np.full(features.shape[1], 3.0), (0.3, 1e3)) + WhiteKernel(0.05)
        self.process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a feature that tells nothing has no length
            self.process.fit((features - self.center) / self.scale, qualities)

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> "Surrogate":
        """The surrogate of the table that ships with the package."""
        table = read_table(SHIPPED)
        return cls.of_rows(table["rows"], TeacherSizes(**table["teacher_sizes"]))

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, Any]], teacher: TeacherSizes, figure: str = FIGURE) -> "Surrogate":
        """The surrogate of known architectures, each with `architecture` and the figure, under one teacher."""
        features = [describe(Architecture.from_json(row["architecture"]), teacher) for row in rows]
        return cls(np.array(features), np.array([row[figure] for row in rows]))

    def predict(self, architectures: Sequence[Architecture], teacher: TeacherSizes) -> tuple[np.ndarray, np.ndarray]:
        """Expected qualities of architectures under a teacher, and their standard deviations, each of shape `(N,)`."""
        features = np.array([describe(architecture, teacher) for architecture in architectures])
        mean, deviation = self.process.predict((features - self.center) / self.scale, return_std=True)
        return mean, deviation

    def quality(self, architecture: Architecture, teacher: TeacherSizes) -> float:
        """The expected quality of one architecture."""
        features = (describe(architecture, teacher) - self.center) / self.scale
        return float(self.process.predict(features[None])[0])

    def lengths(self) -> dict[str, float]:
        """How far each feature must move, in its standard deviations, for the quality to change: short ones matter."""
        return dict(zip(NAMES, self.process.kernel_.k1.k2.length_scale.tolist()))


def read_table(path: Path) -> dict[str, Any]:
    """A table of known architectures."""
    return json.loads(path.read_text(encoding="utf-8"))
