"""How good a candidate is before it is trained on its own: from its slice of the supernet, lower is better."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from efficientbert.train.general import GeneralDistillation, HeldOut, score_student
from efficientbert.train.student import Student
from efficientbert.train.tasks.task import Task, TaskData, model_inputs


class Score(Protocol):
    """Rates a stand-alone slice."""

    def __call__(self, student: Student) -> float:
        """The loss of the slice."""


@dataclass(frozen=True)
class HeldOutText:
    """The distillation loss on held-out text, as it is trained.

    Attributes:
        objective: Teacher, scales and layer map.
        held_out: What is scored.
    """

    objective: GeneralDistillation
    held_out: HeldOut

    def __call__(self, student: Student) -> float:
        """The loss of the slice."""
        return score_student(student, self.objective, self.held_out)["loss"]


@dataclass(frozen=True)
class TaskProbe:
    """The error of a linear model on the slice's mean-pooled hidden states, trained on part of a task's train split.

    Attributes:
        task: Classification or regression.
        data: Its train split; the last third is scored.
    """

    task: Task
    data: TaskData

    def __call__(self, student: Student) -> float:
        """Error rate, or for regression the part of the variance that is not explained; NaN of broken weights."""
        features, labels = self._features(student), np.asarray(self.data.features["labels"])
        if not np.isfinite(features).all():
            return math.nan
        split = len(labels) * 2 // 3
        if self.task.label_names is None:
            probe = make_pipeline(StandardScaler(), Ridge())
        else:
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.1))
        probe.fit(features[:split], labels[:split])
        return 1.0 - probe.score(features[split:], labels[split:])

    @torch.no_grad()
    def _features(self, student: Student) -> np.ndarray:
        student.eval()
        pooled = []
        for rows in self.data.features.iter(batch_size=64):
            batch = self.task.collate([dict(zip(rows, values)) for values in zip(*rows.values())])
            inputs = {name: tensor.to(student.encoder.device) for name, tensor in model_inputs(batch).items()}
            states = student.encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None].float()
            pooled.append(((states * mask).sum(1) / mask.sum(1)).cpu().numpy())
        return np.concatenate(pooled)
