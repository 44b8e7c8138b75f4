"""A linear probe on a candidate's slice."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from efficientbert.search.scores.score import Report, finite
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.distillation.student import Student
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.tasks.task import Task, TaskData, model_inputs


@dataclass(frozen=True)
class TaskProbe:
    """The error of a linear model on a slice's hidden states; see `probe_error`.

    Attributes:
        extract: The slice of an architecture.
        task: Classification or regression.
        data: Part of its train split.
    """

    extract: Callable[[Architecture], Student]
    task: Task
    data: TaskData

    def __call__(self, architecture: Architecture, report: Report | None = None) -> float:
        """The loss; see `Score`."""
        return probe_error(self.extract(architecture), self.task, self.data)


def probe_error(student: Student, task: Task, data: TaskData) -> float:
    """The error of a linear model on mean-pooled hidden states, fitted to two thirds of the rows, on the last third.

    Args:
        student: Whose states.
        task: Classification or regression.
        data: The rows.

    Returns:
        Error rate, or for regression the part of the variance that is not explained.

    Raises:
        NotFiniteError: of broken weights.
    """
    features, labels = pooled_states(student, task, data), np.asarray(data.features["labels"])
    if not np.isfinite(features).all():
        raise NotFiniteError(f"task {task.args.title()}: the slice's hidden states are not finite")
    split = len(labels) * 2 // 3
    model = Ridge() if task.label_names is None else LogisticRegression(max_iter=500, C=0.1)
    probe = make_pipeline(StandardScaler(), model).fit(features[:split], labels[:split])
    return finite(1.0 - probe.score(features[split:], labels[split:]), f"task {task.args.title()}")


@torch.no_grad()
def pooled_states(student: Student, task: Task, data: TaskData) -> np.ndarray:
    """Means of the last hidden states over the tokens of every feature, of shape `(N, D)`."""
    student.eval()
    pooled = []
    for rows in data.features.iter(batch_size=64):
        batch = task.collate([dict(zip(rows, values)) for values in zip(*rows.values())])
        inputs = {name: tensor.to(student.encoder.device) for name, tensor in model_inputs(batch).items()}
        states = student.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].float()
        pooled.append(((states * mask).sum(1) / mask.sum(1)).cpu().numpy())
    return np.concatenate(pooled)
