"""The weights of the best candidates that a search has trained."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from efficientbert.search.space.architecture import Architecture
from efficientbert.search.study.pareto import dominates
from efficientbert.search.supernet.weights import load_weights, read_note, save_weights
from efficientbert.train.distillation.student import Student


LOSSES = "losses"  # a note in every file


class TrainedCandidates:
    """The weights of the trained candidates that no other one in the folder is better than.

    A training of its own is the dearest score of a candidate; with its weights the best goes on from there. Every file
    holds the losses of its candidate, so that all workers, and those that are started later, compare the same.

    Args:
        folder: Of the weights; made when there are any.
        losses: All that is minimised, of an architecture and its loss.
    """

    def __init__(self, folder: Path, losses: Callable[[Architecture, float], tuple[float, ...]]):
        self.folder = folder
        self.losses = losses

    def keep(self, architecture: Architecture, loss: float, student: Student) -> None:
        """Keeps a trained candidate unless one before was better, in the place of those that it is better than."""
        losses, path = self.losses(architecture, loss), self._path(architecture)
        kept = {other: theirs for other, theirs in self._kept().items() if other != path}
        if any(dominates(theirs, losses) for theirs in kept.values()):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        save_weights(student, path, {LOSSES: json.dumps(losses)})
        for other, theirs in kept.items():
            if dominates(losses, theirs):
                other.unlink(missing_ok=True)

    def load(self, architecture: Architecture, student: Student) -> bool:
        """Gives a student of the architecture its trained weights, where they are kept; tells whether it did."""
        path = self._path(architecture)
        if path.exists():
            load_weights(student, path)
        return path.exists()

    def _kept(self) -> dict[Path, tuple[float, ...]]:
        """The losses of all that is kept, by file."""
        notes = {path: read_note(path, LOSSES) for path in sorted(self.folder.glob("*.safetensors"))}
        return {path: tuple(json.loads(note)) for path, note in notes.items() if note is not None}

    def _path(self, architecture: Architecture) -> Path:
        text = json.dumps(architecture.to_json(), sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.safetensors"
