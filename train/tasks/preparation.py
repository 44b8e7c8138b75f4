"""What a training on a task needs, loaded and checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.distillation.losses import LossRecipe
from efficientbert.train.distillation.projection import load_projection
from efficientbert.train.distillation.student import choose_attention
from efficientbert.train.distillation.task_objective import (
    TaskObjective,
    TaskStudent,
    fit_to_task,
    inner_distillation,
    inner_recipe,
)
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.files.digests import digest, digest_rows
from efficientbert.train.metrics import load_metric
from efficientbert.train.model_folder.loading import load_config, load_model
from efficientbert.train.model_folder.tokenizer_check import (
    check_tokenizer,
    fit_segments,
    ignore_segments,
    reads_segments,
)
from efficientbert.train.tasks.arguments import LabelledData, TaskTrainingArguments
from efficientbert.train.tasks.division import scored_data, training_data
from efficientbert.train.tasks.held_out import HELD_OUT
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.tasks.prediction import check_length, length, predict, score
from efficientbert.train.tasks.task import Task, TaskData


REHEARSED = 8  # rows of every split that are read before the training


def load_for_task(name: str, task: Task) -> PreTrainedModel:
    """A model with a head for a task; a head of another shape, or for other labels, is made anew.

    Models that look at the last token, as GPT-2's do, know padding by their configuration.

    Raises:
        InputError: if it cannot be loaded, or its encoder lacks weights.
    """
    config = load_config(name, "model")
    head_fits = task.label_names_of(config) == task.label_names
    problem = config.problem_type
    task.configure(config)
    if problem not in (None, config.problem_type):
        PartialState().print(f"model {name!r}: its problem type {problem!r} becomes {config.problem_type!r}")
    if config.pad_token_id is None:
        config.pad_token_id = task.tokenizer.pad_token_id
    model, report = load_model(task.auto_class, name, "model", new_head=True, config=config, dtype=torch.float32)
    prefix = model.base_model_prefix + "."
    missing = sorted(key for key in report["missing_keys"] if key.startswith(prefix) and ".pooler." not in key)
    if missing:
        raise InputError(f"model {name!r}: its checkpoint lacks {len(missing)} weights, such as {missing[0]!r}")
    if not head_fits:
        reset_outputs(model)
    return model


def reset_outputs(model: PreTrainedModel) -> None:
    """Makes the last linear of a model's head anew: its rows meant other labels."""
    *_, last = (module for name, module in model.named_modules() if isinstance(module, nn.Linear))
    nn.init.normal_(last.weight, std=model.config.initializer_range)
    if last.bias is not None:
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
    load_metric(task.metric())  # refuses one that is unknown before anything is tokenised
    if task.describe() is not None:
        accelerator.print(task.describe())
    model = load_for_task(args.model, task).to(accelerator.device)
    check_tokenizer(tokenizer, model, f"model {args.model!r}")
    fit_segments(tokenizer, model)
    if not reads_segments(model, tokenizer):
        ignore_segments(model)
    choose_attention(model)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    teacher = recipe = None
    if teacher_name is not None:
        inner_states = args.distillation != "outputs"
        teacher = TaskTeacher.load(teacher_name, task, inner_states, accelerator.device)
        recipe = inner_recipe(args, model, teacher) if inner_states else None
    with accelerator.main_process_first():
        data, kept_aside = training_data(source, task, args.selection)
        scored = scored_data(source, task)
    if scored and scored[0].split == HELD_OUT:
        accelerator.print(
            f"data {source.source()!r}: has one split; {len(scored[0].rows)} of its rows are kept aside and "
            f"scored as {HELD_OUT!r}"
        )
    if told := describe_cut(task, data):
        accelerator.print(told)
    check_rows(data, args.batch_size * accelerator.num_processes, source)
    for part in (data, *scored):
        check_length(model, part, f"model {args.model!r}")
        if teacher is not None:
            check_length(teacher.model, part, f"teacher {teacher_name!r}")
    rehearse(model, task, data, f"model {args.model!r}")
    for part in ([] if kept_aside is None else [kept_aside]) + scored:
        few = first_rows(task, part)
        score(task, predict(model, task, few, REHEARSED), few)
    return Prepared(task, data, kept_aside, scored, model, teacher, recipe)


def describe_cut(task: Task, data: TaskData) -> str | None:
    """How many rows are cut at the length of a sequence, in a line; None where none are.

    Args:
        task: The task.
        data: Rows to train on. One that fills a sequence counts as cut: few end just there.
    """
    longest = task.args.max_length
    full = sum(length(ids) >= longest for ids in data.features["input_ids"]) if task.cuts else 0
    if full == 0:
        return None
    return (
        f"data {task.args.source()!r}: {full:,} of {len(data.features):,} rows to train on fill {longest} tokens; "
        "what goes on behind them is not read; --max_length reads more"
    )


def check_rows(data: TaskData, batch_size: int, source: LabelledData) -> None:
    """Refuses data that fills no batch: incomplete ones are left out.

    Args:
        data: Rows to train on.
        batch_size: Of all processes together.
        source: Where the rows come from.

    Raises:
        InputError: if there are too few.
    """
    rows = len(data.features)
    if rows < batch_size:
        raise InputError(
            f"batch_size: {batch_size} rows make a batch, but there are {rows} to train on in {source.source()!r}; "
            "lower it"
        )


def first_rows(task: Task, data: TaskData) -> TaskData:
    """The first rows of a split."""
    return task.data(data.rows.select(range(min(REHEARSED, len(data.rows)))), data.split)


def rehearse(model: PreTrainedModel, task: Task, data: TaskData, what: str) -> None:
    """Lets a model read the first rows of its training data in one padded batch.

    Raises:
        InputError: if its architecture cannot, naming `what` it is.
    """
    try:
        predict(model, task, first_rows(task, data), REHEARSED)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError | torch.OutOfMemoryError):
            raise
        raise InputError(
            f"{what}: model type {model.config.model_type!r} cannot read a padded batch of the task "
            f"{task.args.title()!r}: {one_line(error)}"
        ) from None


def make_objective(
    args: TaskTrainingArguments, prepared: Prepared, max_steps: int, accelerator: Accelerator, folder: Path
) -> tuple[PreTrainedModel | TaskStudent, TaskObjective]:
    """What is trained, and on what: the model on labels, or a student under a teacher.

    A model that comes without a projection to its teacher's width gets the one that fits its hidden states best.

    Args:
        args: Settings of the run.
        prepared: Of the task.
        max_steps: Optimizer steps.
        accelerator: Of the run.
        folder: Where the teacher's variances are kept.
    """
    task, teacher = prepared.task, prepared.teacher
    if prepared.recipe is None or teacher is None:
        return prepared.model, TaskObjective(task, teacher, args.label_weight, args.temperature)
    student = TaskStudent(prepared.model, teacher.encoder.hidden_size).to(accelerator.device)
    with accelerator.main_process_first():
        inner = inner_distillation(prepared.recipe, teacher, task, prepared.data, folder)
    if not load_projection(student.projection, Path(args.model)):
        fit_to_task(student, teacher, task, prepared.data, prepared.recipe)
    inner_steps = max_steps // 2 if args.distillation == "sequence" else 0
    return student, TaskObjective(task, teacher, args.label_weight, args.temperature, inner, inner_steps)
