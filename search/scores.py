"""How good a candidate is without training it: its parameters, or its slice of the supernet on text and on tasks.

Every score takes an architecture and gives a loss, lower is better. From cheap to expensive: `ParameterCount`,
`efficientbert.search.wpca.WPca`, `HeldOutText`, `TaskProbe`, `TaskSlices`, and
`efficientbert.search.short_training.ShortTraining`, which trains a slice.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from accelerate.utils import set_seed
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedModel

from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.search.architecture import Architecture
from efficientbert.train.general import GeneralDistillation, HeldOut, score_student
from efficientbert.train.loop import NotFiniteError
from efficientbert.train.losses import Scales
from efficientbert.train.prediction import main_score, predict, score
from efficientbert.train.recipe import LossArguments, make_recipe
from efficientbert.train.student import Student
from efficientbert.train.task_distillation import TaskStudent
from efficientbert.train.tasks.task import Task, TaskData, model_inputs
from efficientbert.train.teacher import Teacher


Report = Callable[[float, int], None]
"""Told the loss behind a rung, and the rung's number from 0, before an evaluation is at its end; what it raises ends
the evaluation, and goes through to whoever asked for it. The last loss of all is returned, not reported. Losses of one
rung are comparable between candidates, those of two rungs are not. Every process of a group calls it, with one and the
same loss: it must raise in all of them or in none."""


class Score(Protocol):
    """Rates an architecture."""

    def __call__(self, architecture: Architecture, report: Report | None = None) -> float:
        """The loss of an architecture; scores in a single step have nothing to report.

        Raises:
            NotFiniteError: if it is no finite number: the candidate has failed.
        """


def finite(loss: float, what: str) -> float:
    """The loss itself.

    Raises:
        NotFiniteError: if it is no finite number, naming `what` it was measured on.
    """
    if not math.isfinite(loss):
        raise NotFiniteError(f"{what}: the loss is {loss}, not a finite number")
    return loss


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seeds all global random generators, and gives them back as they were.

    Args:
        seed: What is drawn within depends on it alone, not on what was drawn before.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            set_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@dataclass(frozen=True)
class ParameterCount:
    """Minus the parameters: what every other score must beat.

    Attributes:
        parameters: Exact number of an architecture's parameters.
    """

    parameters: Callable[[Architecture], float]

    def __call__(self, architecture: Architecture, report: Report | None = None) -> float:
        """The loss; see `Score`."""
        return -self.parameters(architecture)


def objectives(
    args: LossArguments, base: EfficientBertConfig, teacher: Teacher, scales: Scales
) -> Callable[[Architecture], GeneralDistillation]:
    """The general distillation of every architecture: which layers are compared depends on its depth.

    Args:
        args: The losses.
        base: What no architecture decides.
        teacher: The teacher.
        scales: Its variances.
    """

    def objective(architecture: Architecture) -> GeneralDistillation:
        return GeneralDistillation(teacher, scales, make_recipe(args, architecture.to_config(base), teacher))

    return objective


@dataclass(frozen=True)
class HeldOutText:
    """How far the last hidden states of a slice are from the teacher's on held-out text; see `held_out_loss`.

    Attributes:
        extract: The slice of an architecture.
        objective: What it distils; see `objectives`.
        held_out: What is scored.
    """

    extract: Callable[[Architecture], Student]
    objective: Callable[[Architecture], GeneralDistillation]
    held_out: HeldOut

    def __call__(self, architecture: Architecture, report: Report | None = None) -> float:
        """The loss; see `Score`."""
        return held_out_loss(self.extract(architecture), self.objective(architecture), self.held_out)


def held_out_loss(student: Student, objective: GeneralDistillation, held_out: HeldOut) -> float:
    """How far a student's last hidden states are from its teacher's on held-out text, over their variance.

    That is what a student is used for; inner states and attention are learned as a means. They are easier to match for
    flat students and for wide token tables, so that a sum of all losses, or a mean, ranks depths and shapes wrongly.
    Where hidden states are not among the losses, it is the losses, of attention scores those of the last layer.

    Args:
        student: The student.
        objective: What it distils.
        held_out: What is scored.

    Raises:
        NotFiniteError: if it is no finite number.
    """
    recipe = objective.recipe
    weights = {"hidden_states": 1.0} if "hidden_states" in recipe.weights else recipe.weights
    last = replace(recipe, weights=weights, states=recipe.states[-1:])
    figures = score_student(student, GeneralDistillation(objective.teacher, objective.scales, last), held_out)
    return finite(figures["loss"], "held-out text")


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

    def __call__(self, architecture: Architecture, report: Report | None = None) -> float:
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
        raise NotFiniteError(f"task {task.args.title()}: the outputs of the model are not finite")
    figure = main_score(score(task, logits, data))
    return finite(1.0 - (figure / 100 if task.metric().startswith("squad") else figure), f"task {task.args.title()}")
