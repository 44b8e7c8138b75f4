"""A candidate's slice on labelled tasks."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from efficientbert.search.scores.score import ReportRung, finite
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.distillation.task_objective import TaskStudent
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.tasks.prediction import main_score, predict, score
from efficientbert.train.tasks.task import Task, TaskData


@dataclass(frozen=True)
class TaskSlices:
    """The error of slices with the heads that the supernet learned for its tasks, averaged over the tasks (stage 3).

    Attributes:
        extract: The slice of an architecture with the head of a task, by the task's number.
        tasks: Tasks with the rows that are scored: of their train splits, and never trained on.
        batch_size: Rows at a time.
    """

    extract: Callable[[Architecture, int], TaskStudent]
    tasks: tuple[tuple[Task, TaskData], ...]
    batch_size: int = 64

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `Score`."""
        return statistics.fmean(
            task_error(self.extract(architecture, index).model, task, data, self.batch_size)
            for index, (task, data) in enumerate(self.tasks)
        )


def task_error(model: PreTrainedModel, task: Task, data: TaskData, batch_size: int) -> float:
    """1 minus a model's main figure on labelled rows, a fraction: error rate, 1 - F1, 1 - correlation.

    Raises:
        NotFiniteError: if an output of the model is no finite number, of which a metric would yet make one.
    """
    logits = predict(model, task, data, batch_size)
    if not all(np.isfinite(row).all() for row in logits):
        raise NotFiniteError(f"task {task.args.title()!r}: the outputs of the model are not finite")
    return finite(1.0 - main_score(score(task, logits, data), task.metric()), f"task {task.args.title()!r}")
