"""A linear probe on a candidate's slice."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from efficientbert.search.scores.score import ReportRung, finite
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.student import Student
from efficientbert.train.engine.finite import NotFiniteError
from efficientbert.train.tasks.division import divide
from efficientbert.train.tasks.task import Task, TaskData, model_inputs


PART = 1 / 3  # of the rows, on which a probe is scored
FEWEST = 6  # rows


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

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `Score`."""
        return probe_error(self.extract(architecture), self.task, self.data)


def probe_error(student: Student, task: Task, data: TaskData) -> float:
    """The error of a linear model on mean-pooled hidden states, fitted to two thirds of the rows, on the others.

    Which rows it is fitted to is drawn at random, but the same for all students: files may be sorted by their labels.

    Args:
        student: Whose states.
        task: Classification or regression.
        data: The rows.

    Returns:
        Error rate, or of numbers and of several labels the part of their variance that is not explained.

    Raises:
        NotFiniteError: of broken weights.
    """
    features, labels = pooled_states(student, task, data), np.asarray(data.features["labels"])
    if not np.isfinite(features).all():
        raise NotFiniteError(f"task {task.args.title()!r}: the slice's hidden states are not finite")
    fitted, scored = divide(task.groups(data.rows), PART)
    model = Ridge() if labels.dtype.kind == "f" else LogisticRegression(max_iter=500, C=0.1)
    probe = make_pipeline(StandardScaler(), model).fit(features[fitted], labels[fitted])
    return finite(1.0 - probe.score(features[scored], labels[scored]), f"task {task.args.title()!r}")


def check_probe(task: Task, data: TaskData) -> None:
    """Checks that a probe can be fitted to rows.

    Raises:
        InputError: if they are too few, or of one class alone.
    """
    name, labels = task.args.title(), np.asarray(data.features["labels"])
    if len(labels) < FEWEST:
        raise InputError(f"task '{name}': has {len(labels)} rows; score probe needs at least {FEWEST}")
    fitted, _ = divide(task.groups(data.rows), PART)
    if task.label_names is not None and len(set(labels[fitted].tolist())) < 2:
        label = task.label_names[labels[fitted][0]]
        raise InputError(
            f"task '{name}': all {len(fitted)} rows that a probe is fitted to have the label '{label}'; score probe "
            "needs two labels"
        )


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
