"""What a training on a task needs, loaded and checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import LOAD_ERRORS, InputError
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.projection import load_projection
from efficientbert.train.distillation.student import choose_attention
from efficientbert.train.distillation.task_objective import (
    TaskObjective,
    TaskStudent,
    inner_distillation,
    inner_recipe,
)
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.files.digests import digest, digest_rows
from efficientbert.train.model_folder.loading import quiet_loading
from efficientbert.train.tasks.arguments import LabelledData, TaskTrainingArguments
from efficientbert.train.tasks.division import training_data
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.tasks.prediction import check_length, predict, score
from efficientbert.train.tasks.task import Task, TaskData


REHEARSED = 8  # rows of every split that are scored before the training


def load_for_task(name: str, task: Task) -> PreTrainedModel:
    """A model with a head for a task; a head of another shape, or for other labels, is made anew.

    Raises:
        InputError: if it cannot be loaded, or its encoder lacks weights.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        head_fits = task.label_names_of(config) == task.label_names
        task.configure(config)
        with quiet_loading():
            model, report = task.auto_class.from_pretrained(
                name, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except LOAD_ERRORS as error:
        raise InputError(f"model {name}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    prefix = model.base_model_prefix + "."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(prefix) and ".pooler." not in key)
    if missing:
        raise InputError(f"model {name}: its checkpoint lacks {len(missing)} weights, such as {missing[0]}")
    if not head_fits:
        reset_outputs(model)
    return model


def reset_outputs(model: PreTrainedModel) -> None:
    """Makes the last linear of a model's head anew: its rows meant other labels."""
    *_, last = (module for name, module in model.named_modules() if isinstance(module, nn.Linear))
    nn.init.normal_(last.weight, std=model.config.initializer_range)
    nn.init.zeros_(last.bias)


@dataclass(frozen=True)
class Prepared:
    """What a run on one task needs, loaded and checked; nothing is written yet.

    Attributes:
        task: The task.
        data: Rows to train on.
        kept_aside: Rows to choose weights and thresholds on, if any.
        scored: Splits to score the final weights on.
        model: The model to train, on its device.
        teacher: Its teacher, if it has one.
        recipe: What inner states are compared, if they are.
    """

    task: Task
    data: TaskData
    kept_aside: TaskData | None
    scored: list[TaskData]
    model: PreTrainedModel
    teacher: TaskTeacher | None
    recipe: LossRecipe | None

    def digest(self) -> str:
        """A checksum of what is read of all its rows."""
        parts = [self.data, *([] if self.kept_aside is None else [self.kept_aside]), *self.scored]
        return digest(*(digest_rows(part.features) for part in parts))


def prepare(
    args: TaskTrainingArguments,
    source: LabelledData,
    teacher_name: str | None,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
) -> Prepared:
    """Loads data, model and teacher, and rehearses the scoring, whose faults would else show behind the training.

    Raises:
        InputError: if anything does not suit.
    """
    with accelerator.main_process_first():
        task = task_of_data(source, tokenizer, source.train_split)
        data, kept_aside = training_data(source, task, args.selection)
        scored = [task.load(split) for split in source.scored_splits()]
    model = load_for_task(args.model, task).to(accelerator.device)
    choose_attention(model)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    teacher = recipe = None
    if teacher_name is not None:
        inner_states = args.distillation != "outputs"
        teacher = TaskTeacher.load(teacher_name, task, inner_states, accelerator.device)
        recipe = inner_recipe(args, model, teacher) if inner_states else None
    for part in (data, *scored):
        check_length(model, part, f"model {args.model}")
    if teacher is not None:
        check_length(teacher.model, data, f"teacher {teacher_name}")
    for part in ([] if kept_aside is None else [kept_aside]) + scored:
        few = task.data(part.rows.select(range(min(REHEARSED, len(part.rows)))), part.split)
        score(task, predict(model, task, few, REHEARSED), few)
    return Prepared(task, data, kept_aside, scored, model, teacher, recipe)


def make_objective(
    args: TaskTrainingArguments, prepared: Prepared, max_steps: int, accelerator: Accelerator, folder: Path
) -> tuple[nn.Module, TaskObjective]:
    """What is trained, and on what: the model on labels, or a student under a teacher.

    Args:
        args: Settings of the run.
        prepared: Of the task.
        max_steps: Optimizer steps.
        accelerator: Of the run.
        folder: Where the teacher's variances are kept.
    """
    task, teacher = prepared.task, prepared.teacher
    if prepared.recipe is None:
        return prepared.model, TaskObjective(task, teacher, args.label_weight, args.temperature)
    student = TaskStudent(prepared.model, teacher.encoder.hidden_size).to(accelerator.device)
    if Path(args.model).is_dir():
        load_projection(student.projection, Path(args.model))
    with accelerator.main_process_first():
        inner = inner_distillation(prepared.recipe, teacher, task, prepared.data, folder)
    inner_steps = max_steps // 2 if args.distillation == "sequence" else 0
    return student, TaskObjective(task, teacher, args.label_weight, args.temperature, inner, inner_steps)
