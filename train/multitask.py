"""Trains one encoder on several labelled tasks at once, each under its own teacher (what makes EfficientBERT+).

    efficientbert multitask --model my-student --tasks mrpc rte my-task.yaml \
        --teachers my-teacher-mrpc my-teacher-rte my-teacher --output_dir my-student-plus

The output folder holds the shared encoder in `encoder/`, to start from with `efficientbert finetune --model`, and a
model with its head for every task.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from efficientbert.train.checkpoint import write_checkpoint
from efficientbert.train.finetune import (
    TaskTrainingArguments,
    load_for_task,
    load_tokenizer,
    main_score,
    make_objective,
    training_data,
)
from efficientbert.train.folders import OutputFolder, write_json
from efficientbert.train.loop import make_accelerator, train
from efficientbert.train.scoring import predict, score
from efficientbert.train.script import InputError, parse_arguments, run_script
from efficientbert.train.selection import Selection
from efficientbert.train.student import choose_attention, save_projection
from efficientbert.train.task_distillation import TaskObjective, TaskStudent
from efficientbert.train.tasks import task_of_data
from efficientbert.train.tasks.arguments import TASKS, LabelledData
from efficientbert.train.tasks.task import Task, TaskData


@dataclass(kw_only=True)
class MultitaskArguments(TaskTrainingArguments):
    """Trains one encoder on several labelled tasks and writes it with a head for each of them."""

    tasks: list[str] = field(
        metadata={
            "help": f"Known tasks ({', '.join(TASKS)}), or YAML files with the flags of `finetune` for the data."
        }
    )
    teachers: list[str] | None = field(
        default=None, metadata={"help": "A teacher fine-tuned on each task, in the order of the tasks."}
    )
    data: str | None = field(default=None, metadata={"help": "Hub id or folder of the known tasks."})
    sampling: float = field(
        default=0.5,
        metadata={"help": "A task's share of the batches is its rows to this power: 1 by size, 0 all alike."},
    )

    def check(self) -> None:
        """See `LoopArguments.check`."""
        super().check()
        if self.teachers is not None and len(self.teachers) != len(self.tasks):
            raise InputError(
                f"teachers: {len(self.teachers)} for {len(self.tasks)} tasks; give one for each, in order"
            )
        if not 0 <= self.sampling <= 1:
            raise InputError(f"sampling: must be between 0 and 1, not {self.sampling}")

    def sources(self) -> list[LabelledData]:
        """The data of every task.

        Raises:
            InputError: if a task is neither known nor a YAML file, or two have the same name.
        """
        sources = []
        for task in self.tasks:
            if task.endswith((".yaml", ".yml")):
                source = parse_arguments(LabelledData, [task], "efficientbert multitask", "")
            else:
                source = LabelledData(task=task, data=self.data)
            source.check_task()
            sources.append(source)
        titles = [source.title() for source in sources]
        if len(set(titles)) != len(titles):
            raise InputError(f"tasks: must have different names, not {', '.join(titles)}")
        return sources


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


class MultitaskModel(nn.Module):
    """Models of several tasks that share one encoder and, under teachers, one projection.

    Args:
        students: A model or a `TaskStudent` for every task; the encoder of the first becomes that of all.
    """

    def __init__(self, students: list[nn.Module]):
        super().__init__()
        first, *others = students
        models = [student.model if isinstance(student, TaskStudent) else student for student in students]
        for model in models[1:]:
            setattr(model, model.base_model_prefix, models[0].base_model)
        for student in others:
            if isinstance(student, TaskStudent):
                student.projection, student.recorder = first.projection, first.recorder
        self.students = nn.ModuleList(students)
        self.models = models

    def forward(self, task: int, **inputs: Any) -> Any:
        """What the student of a task yields."""
        return self.students[task](**inputs)


class MultitaskObjective:
    """The objective of whichever task a batch is of; rows weigh alike, whatever their task.

    Args:
        objectives: One for every task.
    """

    def __init__(self, objectives: list[TaskObjective]):
        self.objectives = objectives

    def count(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As the task counts it."""
        return self.objectives[int(batch["task"])].count(batch)

    def __call__(
        self, model: nn.Module, batch: Mapping[str, torch.Tensor], counts: Mapping[str, torch.Tensor], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch as a share of the whole one, and its parts."""
        task = int(batch["task"])

        def call(**inputs: Any) -> Any:
            return model(task=task, **inputs)

        return self.objectives[task](call, batch, counts, step)


def main(args: MultitaskArguments) -> dict[str, dict[str, float]]:
    """Runs the job from arguments to a finished folder; returns the figures of every task."""
    args.check()
    sources = args.sources()
    folder = OutputFolder(args.output_dir, dataclasses.asdict(args) | {"output_dir": Path(args.output_dir).name})
    if folder.complete:
        print(f"{folder.path} is complete already")
        return {}
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=True)
    tokenizer = load_tokenizer(args.model)
    with accelerator.main_process_first():
        tasks = [task_of_data(source, tokenizer, source.train_split) for source in sources]
        divided = [training_data(source, task, args.selection) for source, task in zip(sources, tasks)]
        scored = [[task.load(split) for split in source.scored_splits()] for source, task in zip(sources, tasks)]
    if accelerator.is_main_process:
        folder.open()
    accelerator.wait_for_everyone()
    batches_a_step = args.gradient_accumulation_steps * accelerator.num_processes
    rows = sum(len(data.features) for data, _ in divided)
    max_steps = math.ceil(args.num_epochs * rows / (args.batch_size * batches_a_step))
    model, objective = make_students(args, tasks, [data for data, _ in divided], max_steps, accelerator, folder.work)
    kept_aside = [data for _, data in divided]
    selection = None
    if args.selection:
        selection = Selection(
            model,
            lambda: statistics.fmean(mean_scores(model, tasks, kept_aside, args.batch_size)),
            folder.work / "selected.safetensors",
            every=math.ceil(rows / (args.batch_size * batches_a_step)),
            last=max_steps,
            writes=accelerator.is_main_process,
        )
    batches = TaskBatches(
        [data.features for data, _ in divided], args.batch_size, max_steps * batches_a_step, args.sampling, args.seed
    )

    def collate(items: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, torch.Tensor]:
        ((task, features),) = items
        return tasks[task].collate(features) | {"task": torch.tensor([task])}

    log = train(
        accelerator,
        model,
        objective,
        batches,
        collate,
        replace(args, batch_size=1),
        max_steps,
        folder.work / "checkpoints",
        f"Training on {len(tasks)} tasks",
        after_step=selection,
    )
    results: dict[str, dict[str, float]] = {}
    if accelerator.is_main_process:
        if selection is not None:
            selection.restore()
        for index, (source, task) in enumerate(zip(sources, tasks)):
            single = model.models[index]
            if kept_aside[index] is not None:
                task.calibrate(single, predict(single, task, kept_aside[index], args.batch_size), kept_aside[index])
            figures = {
                part.split: score(task, predict(single, task, part, args.batch_size), part) for part in scored[index]
            }
            results[source.title()] = figures
            print(f"{source.title()}: {figures}")
            write_checkpoint(folder.work / source.title(), single, tokenizer, "finetune", source, figures, args.model)
            write_json(folder.work / source.title() / "results.json", figures)
        encoder = folder.work / "encoder"
        write_checkpoint(encoder, model.models[0].base_model, tokenizer, "multitask", args, results, args.model)
        if isinstance(model.students[0], TaskStudent):
            save_projection(model.students[0].projection, encoder)
        write_json(folder.work / "results.json", results)
        write_json(folder.work / "training_log.json", log)
        (folder.work / "selected.safetensors").unlink(missing_ok=True)
        print(folder.finish())
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def make_students(
    args: MultitaskArguments,
    tasks: list[Task],
    data: list[TaskData],
    max_steps: int,
    accelerator: Accelerator,
    work: Path,
) -> tuple[MultitaskModel, MultitaskObjective]:
    """The models of all tasks around one encoder, and their objectives."""
    students, objectives = [], []
    for index, task in enumerate(tasks):
        model: PreTrainedModel = load_for_task(args.model, task).to(accelerator.device)
        choose_attention(model)
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        teacher = args.teachers[index] if args.teachers else None
        student, objective = make_objective(
            args, teacher, task, model, data[index], max_steps, accelerator, work / task.args.title()
        )
        students.append(student)
        objectives.append(objective)
    return MultitaskModel(students), MultitaskObjective(objectives)


def mean_scores(model: MultitaskModel, tasks: list[Task], data: list[TaskData], batch_size: int) -> list[float]:
    """The main score of every task."""
    return [
        main_score(score(task, predict(single, task, part, batch_size), part))
        for single, task, part in zip(model.models, tasks, data)
    ]


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, MultitaskArguments, "multitask")


if __name__ == "__main__":
    cli()
