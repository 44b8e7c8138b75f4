"""The weights of the best candidates that a search has trained."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from efficientbert.search.space.architecture import Architecture
from efficientbert.search.study.pareto import dominates
from efficientbert.search.supernet.weights import load_weights, save_weights
from efficientbert.train.distillation.student import Student


class TrainedCandidates:
    """The weights of the best candidates that were trained, as far as one worker knows since its start.

    A training of its own is the dearest score of a candidate; with its weights the best goes on from there.

    Args:
        folder: Of the weights; made when there are any.
        losses: All that is minimised, of an architecture and its loss.
    """

    def __init__(self, folder: Path, losses: Callable[[Architecture, float], tuple[float, ...]]):
        self.folder = folder
        self.losses = losses
        self._front: dict[Path, tuple[float, ...]] = {}

    def keep(self, architecture: Architecture, loss: float, student: Student) -> None:
        """Keeps a trained candidate unless one before was better, in the place of those that it is better than."""
        losses, path = self.losses(architecture, loss), self._path(architecture)
        if any(dominates(other, losses) for other in self._front.values()):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        save_weights(student, path)
        for worse in [other for other, theirs in self._front.items() if dominates(losses, theirs)]:
            self._front.pop(worse)
            worse.unlink(missing_ok=True)
        self._front[path] = losses

    def load(self, architecture: Architecture, student: Student) -> bool:
        """Gives a student of the architecture its trained weights, where they are kept; tells whether it did."""
        path = self._path(architecture)
        if path.exists():
            load_weights(student, path)
        return path.exists()

    def _path(self, architecture: Architecture) -> Path:
        text = json.dumps(architecture.to_json(), sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.safetensors"
