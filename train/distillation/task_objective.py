"""Distillation on a labelled task: a fine-tuned teacher's outputs, its inner states, and the labels (section 3.3)."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.capture import Captures, student_recorder
from efficientbert.train.distillation.layer_map import even_states
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.losses import LossRecipe, total
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.projection import fit_to_states
from efficientbert.train.distillation.scales import stored_scales
from efficientbert.train.distillation.student import disable_dropout
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.tasks.task import Task, TaskData, model_inputs


FIRST_ROWS = 128  # rows that the teacher's variances and a projection are taken from


class TaskStudent(nn.Module):
    """A model with its head in task distillation, and the projection to the teacher's width.

    Args:
        model: One of our models with a head.
        teacher_size: Hidden size of the teacher.
    """

    def __init__(self, model: PreTrainedModel, teacher_size: int):
        super().__init__()
        self.model = model
        self.projection = nn.Linear(model.config.hidden_size, teacher_size)
        self.recorder = student_recorder(model.base_model)
        disable_dropout(model)

    def forward(self, capture: bool, **inputs: torch.Tensor) -> tuple[ModelOutput, Captures | None]:
        """Outputs and, with `capture`, hidden states projected to the teacher's width, queries, keys and values."""
        if not capture:
            return self.model(**inputs), None
        outputs: list[ModelOutput] = []

        def forward() -> ModelOutput:
            outputs.append(self.model(**inputs, output_hidden_states=True))
            return outputs[0]

        captures = self.recorder.record(forward)
        projected = tuple(self.projection(states) for states in captures.hidden_states)
        return outputs[0], Captures(projected, captures.queries, captures.keys, captures.values)


class TaskObjective:
    """The labels of a task, or a teacher's outputs, or both by weight; and the teacher's inner states.

    Args:
        task: The task.
        teacher: A teacher of it, or None for the labels alone.
        label_weight: Share of the labels beside the teacher's outputs, from 0 to 1.
        temperature: Of both distributions of classes or positions.
        inner: Compares inner states; the model is then a `TaskStudent`, the teacher captures.
        inner_steps: With 0, inner states and outputs are learned together (as published); else inner states alone in
            the first steps, so many, and outputs alone behind them (TinyBERT, section 3).
    """

    def __init__(
        self,
        task: Task,
        teacher: TaskTeacher | None = None,
        label_weight: float = 0.0,
        temperature: float = 1.0,
        inner: GeneralDistillation | None = None,
        inner_steps: int = 0,
    ):
        self.task = task
        self.teacher = teacher
        self.label_weight = 1.0 if teacher is None else label_weight
        self.temperature = temperature
        self.inner = inner
        self.inner_steps = inner_steps

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Targets of the task, and what inner states are counted by."""
        counts = {"targets": self.task.count(batch)}
        return counts if self.inner is None else counts | self.inner.count(_flat(batch))

    def __call__(
        self,
        model: Callable[..., Any],
        batch: Mapping[str, torch.Tensor],
        counts: Mapping[str, torch.Tensor],
        step: int,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch as a share of the whole one, and its parts."""
        inputs = model_inputs(batch)
        inner = self.inner if self.inner_steps == 0 or step < self.inner_steps else None
        with_outputs = self.inner is None or self.inner_steps == 0 or step >= self.inner_steps
        if self.inner is None:
            outputs, captures = model(**inputs), None
        else:
            outputs, captures = model(capture=inner is not None, **inputs)
        with_soft = with_outputs and self.label_weight < 1
        targets = their_captures = None
        if self.teacher is not None and (with_soft or inner is not None):
            targets, their_captures = self.teacher(inputs, capture=inner is not None)

        terms: dict[str, torch.Tensor] = {}
        if with_outputs and self.label_weight > 0:
            terms["labels"] = self.label_weight * self.task.loss(outputs, batch) / counts["targets"]
        if with_soft:
            soft = self.task.soft_loss(outputs, targets, batch, self.temperature)
            terms["teacher"] = (1 - self.label_weight) * soft / counts["targets"]
        parts = list(terms.values())
        if inner is not None:
            assert captures is not None and their_captures is not None
            inner_loss, inner_terms = inner.loss(captures, their_captures, _flat(batch), counts)
            parts, terms = [*parts, inner_loss], terms | inner_terms
        return total(parts), terms


def _flat(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch as encoders see it: the choices of a question are sequences of their own."""
    return {name: tensor.flatten(0, -2) for name, tensor in model_inputs(batch).items()}


def inner_recipe(args: LossArguments, student: PreTrainedModel, teacher: TaskTeacher) -> LossRecipe:
    """What inner states are compared.

    Raises:
        InputError: if a loss does not suit student and teacher, or wants masked text.
    """
    if student.config.model_type != "efficientbert":
        raise InputError(
            f"model: inner states of model type {student.config.model_type!r} are not learned; use --distillation "
            "outputs"
        )
    recipe = make_recipe(args, student.config, teacher.encoder)
    if recipe.masks:
        raise InputError("losses: masked_lm and logits need masked text; tasks are learned from whole text")
    return recipe


def inner_distillation(
    recipe: LossRecipe, teacher: TaskTeacher, task: Task, data: TaskData, folder: Path
) -> GeneralDistillation:
    """The comparison of inner states on a task, with the teacher's variances on its first rows.

    Args:
        recipe: What is compared.
        teacher: A teacher with captures.
        task: The task.
        data: Training rows.
        folder: Where the variances are kept.
    """
    batches = first_batches(task, data, teacher.model.device)
    samples = ((teacher.inner_states(batch), _flat(batch)) for batch in batches)
    return GeneralDistillation(teacher.encoder, stored_scales(folder, samples), recipe)


@torch.no_grad()
def fit_to_task(student: TaskStudent, teacher: TaskTeacher, task: Task, data: TaskData, recipe: LossRecipe) -> None:
    """Fits a student's projection to the first rows of a task; see `fit_to_states`.

    Args:
        student: Its projection is set.
        teacher: A teacher with captures.
        task: The task.
        data: Training rows.
        recipe: Which hidden states are compared; where none are, the evenly mapped ones.
    """

    def samples() -> Iterator[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...], torch.Tensor]]:
        for batch in first_batches(task, data, teacher.model.device):
            mine = student.model(**batch, output_hidden_states=True).hidden_states
            yield mine, teacher.inner_states(batch).hidden_states, _flat(batch)["attention_mask"]

    states = recipe.states or even_states(student.model.config.num_hidden_layers, teacher.encoder.num_layers)
    fit_to_states(student.projection, states, samples())


def first_batches(task: Task, data: TaskData, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    """The first rows of a task in batches, as models take them."""
    rows = [data.features[index] for index in range(min(FIRST_ROWS, len(data.features)))]
    for start in range(0, len(rows), 16):
        batch = model_inputs(task.collate(rows[start : start + 16]))
        yield {name: tensor.to(device) for name, tensor in batch.items()}
