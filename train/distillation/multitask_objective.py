"""Training on several tasks at once: whose batch comes when, one encoder for all, and what is minimised."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from efficientbert.train.distillation.task_objective import TaskObjective, TaskStudent
from efficientbert.train.tasks.task import Task


class TaskBatches(Dataset):
    """Batches of one task each; which task, and which of its rows, depends on the seed alone.

    Tasks are drawn in proportion to their rows to the power of `sampling`. The rows of a task come once a pass, in an
    order of their own each time.

    Args:
        features: Rows of every task.
        batch_size: Rows of a batch.
        size: Number of batches.
        sampling: The power.
        seed: Decides all draws.
    """

    def __init__(self, features: list[Any], batch_size: int, size: int, sampling: float, seed: int):
        self.features = features
        generator = torch.Generator().manual_seed(seed)
        weights = torch.tensor([float(len(rows)) for rows in features]) ** sampling
        self.tasks = torch.multinomial(weights, size, replacement=True, generator=generator).tolist()
        self.rows: list[list[int]] = []
        waiting: list[list[int]] = [[] for _ in features]
        for task in self.tasks:
            while len(waiting[task]) < batch_size:
                waiting[task] += torch.randperm(len(features[task]), generator=generator).tolist()
            self.rows.append(waiting[task][:batch_size])
            del waiting[task][:batch_size]

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> tuple[int, list[dict[str, Any]]]:
        task = self.tasks[index]
        return task, [self.features[task][row] for row in self.rows[index]]


class TaskCollator:
    """Makes a batch of one of `TaskBatches`: as the task collates it, with the task's number as `task`.

    Args:
        tasks: All tasks, in the order of their numbers.
    """

    def __init__(self, tasks: Sequence[Task]):
        self.tasks = tasks

    def __call__(self, items: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, torch.Tensor]:
        """The batch; `items` holds one."""
        ((task, features),) = items
        return self.tasks[task].collate(features) | {"task": torch.tensor([task])}


class MultitaskModel(nn.Module):
    """Models of several tasks that share one encoder and, under teachers of the same width, one projection.

    Args:
        students: A model or a `TaskStudent` for every task; the encoder of the first becomes that of all, and the
            projection of the first to each width that of all to this width.
    """

    def __init__(self, students: list[PreTrainedModel | TaskStudent]):
        super().__init__()
        models = [student.model if isinstance(student, TaskStudent) else student for student in students]
        for model in models[1:]:
            setattr(model, model.base_model_prefix, models[0].base_model)
        recorders = [student.recorder for student in students if isinstance(student, TaskStudent)]
        projections: dict[int, nn.Linear] = {}
        for student in students:
            if isinstance(student, TaskStudent):
                student.projection = projections.setdefault(student.projection.out_features, student.projection)
                student.recorder = recorders[0]
        self.students = nn.ModuleList(students)
        self.models = models

    def forward(self, task: int, **inputs: Any) -> Any:
        """What the student of a task yields."""
        return self.students[task](**inputs)


class MultitaskObjective:
    """The objective of whichever task a batch is of; the batches of a step weigh alike, whatever their targets are.

    Args:
        objectives: One for every task.
    """

    def __init__(self, objectives: list[TaskObjective]):
        self.objectives = objectives

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Batches: words of one task and rows of another are not to be added."""
        return {"batches": torch.ones((), device=batch["task"].device)}

    def __call__(
        self,
        model: Callable[..., Any],
        batch: Mapping[str, torch.Tensor],
        counts: Mapping[str, torch.Tensor],
        step: int,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch as a share of the whole step, and its parts."""
        task = int(batch["task"])
        objective = self.objectives[task]

        def call(**inputs: Any) -> Any:
            return model(task=task, **inputs)

        loss, terms = objective(call, batch, objective.count(batch), step)
        return loss / counts["batches"], {name: term / counts["batches"] for name, term in terms.items()}
