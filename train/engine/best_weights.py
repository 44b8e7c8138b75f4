"""The best weights of a training, chosen on rows kept aside, so that dev sets stay tests."""

import math
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from efficientbert.train.engine.finite import check_finite
from efficientbert.train.files.writing import writing


class Selection:
    """Scores a model at regular steps and keeps the best weights on disk; of equal scores the earliest.

    What is kept depends on the scores alone, not on when a run was interrupted: a step that is done again after a
    restart is scored and compared again.

    Args:
        model: The model in training.
        score: Its score on rows kept aside, higher is better; leaves the model as it was.
        path: File of the best weights, with their step and score.
        every: Steps between scores.
        last: The last step, scored whatever `every` is.
        writes: Whether this process scores and writes.
    """

    def __init__(
        self, model: nn.Module, score: Callable[[], float], path: Path, every: int, last: int, writes: bool = True
    ):
        self.model = model
        self.score = score
        self.path = path
        self.every = every
        self.last = last
        self.writes = writes

    def __call__(self, step: int) -> None:
        """Scores the model behind a step where it is time.

        Raises:
            NotFiniteError: if its weights are not finite.
        """
        if not self.writes or (step % self.every and step != self.last):
            return
        score, best = self.score(), self.best()
        score = -math.inf if math.isnan(score) else score
        if best is not None and (score, -step) <= (best[1], -best[0]):
            return
        check_finite(self.model.state_dict(), f"training: step {step}")
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        with writing(self.path) as temporary:
            save_file(tensors, temporary, {"step": str(step), "score": repr(score)})

    def best(self) -> tuple[int, float] | None:
        """Step and score of the best weights so far."""
        if not self.path.exists():
            return None
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
        return int(metadata["step"]), float(metadata["score"])

    def restore(self) -> tuple[int, float]:
        """Gives the model its best weights; returns their step and score."""
        best = self.best()
        assert best is not None  # the last step is always scored
        with safe_open(self.path, "pt") as file:
            self.model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
        return best
