"""Rows kept aside from training, and the weights that are chosen on them, so that dev sets stay tests."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.model_selection import GroupShuffleSplit
from torch import nn

from efficientbert.train.script import InputError
from efficientbert.train.tasks.arguments import LabelledData
from efficientbert.train.tasks.task import Task, TaskData


def training_data(args: LabelledData, task: Task, selection: float) -> tuple[TaskData, TaskData | None]:
    """The rows to train on, or augmented ones in their place, and those kept aside for selection.

    What is kept aside does not depend on the seed of the run, so that runs with several seeds are compared on it.

    Raises:
        InputError: if anything cannot be read, or too few rows are left.
    """
    rows, kept_aside = task.load_rows(args.train_split), None
    if selection:
        groups = task.groups(rows)
        if not 0 < round(selection * len(set(groups))) < len(set(groups)):
            raise InputError(f"selection: {selection} of {len(rows)} training rows leaves no rows on one side")
        divided = GroupShuffleSplit(1, test_size=round(selection * len(set(groups))), random_state=0)
        ((kept, aside),) = divided.split(groups, groups=groups)
        rows, kept_aside = rows.select(kept), task.data(rows.select(aside), "selection")
    if args.augmented_data is None:
        return task.data(rows, args.train_split), kept_aside
    if selection:
        raise InputError(
            "augmented_data: may hold variants of the rows that --selection keeps aside; augment a slice of the train "
            "split and give --selection 0"
        )
    return task.with_data(args.augmented_data).load("train"), None


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
        """Scores the model behind a step where it is time."""
        if not self.writes or (step % self.every and step != self.last):
            return
        score, best = self.score(), self.best()
        score = -math.inf if math.isnan(score) else score
        if best is not None and (score, -step) <= (best[1], -best[0]):
            return
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        temporary = self.path.with_suffix(".partial")
        save_file(tensors, temporary, {"step": str(step), "score": repr(score)})
        os.replace(temporary, self.path)

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
        with safe_open(self.path, "pt") as file:
            self.model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
        return best
