"""The score of stages 1 and 2: a slice of the warm supernet is trained a little, then scored (paper, section 3.3)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from efficientbert.search.scores.held_out_text import held_out_loss
from efficientbert.search.scores.score import ReportRung, isolated_randomness
from efficientbert.search.scores.task_slices import task_error
from efficientbert.search.space.architecture import Architecture
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.arguments import LossArguments
from efficientbert.train.distillation.held_out import HeldOut
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.student import Student, choose_attention
from efficientbert.train.distillation.task_objective import (
    TaskObjective,
    TaskStudent,
    fit_to_task,
    inner_distillation,
    inner_recipe,
)
from efficientbert.train.distillation.task_teacher import TaskTeacher
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.arguments import LoopArguments
from efficientbert.train.engine.loop import train
from efficientbert.train.tasks.arguments import LabelledData
from efficientbert.train.tasks.division import training_data
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.tasks.prediction import check_length, length
from efficientbert.train.tasks.task import Task, TaskData
from efficientbert.train.text.preparation import Text


@dataclass(frozen=True)
class GeneralTraining:
    """General distillation of a candidate.

    Attributes:
        objective: What an architecture distils; see `efficientbert.search.scores.objectives`.
        text: The corpus.
        held_out: Its held-out part.
        args: Learning rate, batch size and seed.
        steps: Optimizer steps.
        rungs: Steps behind which the held-out loss is reported, ascending and below `steps`.
    """

    objective: Callable[[Architecture], GeneralDistillation]
    text: Text
    held_out: HeldOut
    args: LoopArguments
    steps: int
    rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted({rung for rung in self.rungs if 0 < rung < self.steps}):
            raise InputError(
                f"rungs: must be ascending steps below the {self.steps} of the training, not {list(self.rungs)}"
            )


@dataclass(frozen=True)
class TaskTraining:
    """Distillation of a candidate on a task; the error on held-out rows is reported behind every epoch but the last.

    Attributes:
        task: The task.
        data: Rows to train on.
        held_out: Rows to score on: of the train split too, never trained on, the same for all candidates.
        teacher: A teacher of the task.
        inner: For a candidate's model, the comparison of inner states that is learned together with the teacher's
            outputs; None to learn the outputs alone.
        args: Learning rate, batch size and seed.
        epochs: Passes over the rows.
    """

    task: Task
    data: TaskData
    held_out: TaskData
    teacher: TaskTeacher
    inner: Callable[[PreTrainedModel], GeneralDistillation] | None
    args: LoopArguments
    epochs: float


def prepare_task(
    source: LabelledData,
    teacher_name: str,
    student_teacher: Teacher,
    losses: LossArguments | None,
    held_out: float,
    args: LoopArguments,
    epochs: float,
    accelerator: Accelerator,
    folder: Path,
) -> TaskTraining:
    """Loads a task and its teacher once, for all candidates, and divides its train split.

    Which rows are held out depends on the data alone: neither on a seed nor on a candidate.

    Args:
        source: The task; its train split, or the slice of it, is divided.
        teacher_name: Folder or Hub id of a teacher that was fine-tuned on the task.
        student_teacher: Teacher of the general distillation, whose tokenizer and positions the candidates have.
        losses: Inner states to learn; None to learn the outputs alone.
        held_out: Share of the rows to score on.
        args: Of the training.
        epochs: Passes over the other rows.
        accelerator: Of the search.
        folder: An existing folder, where the teacher's variances are kept.

    Raises:
        InputError: if anything cannot be loaded or does not suit.
    """
    if not 0 < held_out < 1:
        raise InputError(f"held_out: must be a share of the training rows between 0 and 1, not {held_out}")
    if not epochs > 0:
        raise InputError(f"num_epochs: must be above 0, not {epochs}")
    with accelerator.main_process_first():
        task = task_of_data(source, student_teacher.tokenizer, source.train_split)
    teacher = TaskTeacher.load(teacher_name, task, losses is not None, accelerator.device)
    with accelerator.main_process_first():
        data, aside = training_data(source, task, held_out)
    assert aside is not None  # with a share above 0
    rows = args.batch_size * accelerator.num_processes
    if len(data.features) < rows:
        raise InputError(f"data {source.source()}: {len(data.features)} rows to train on, less than a batch of {rows}")
    for part in (data, aside):
        check_length(student_teacher.model, part, f"teacher {student_teacher.name!r}")
        check_length(teacher.model, part, f"teacher {teacher_name!r}")

    def inner(losses: LossArguments, model: PreTrainedModel) -> GeneralDistillation:
        recipe = inner_recipe(losses, model, teacher)
        with accelerator.main_process_first():
            return inner_distillation(recipe, teacher, task, data, folder)

    return TaskTraining(task, data, aside, teacher, None if losses is None else partial(inner, losses), args, epochs)


class ShortTraining:
    """What becomes of a slice of the supernet in a short training of its own: general distillation, then a task's.

    Its loss is the error on the held-out rows of the task; without a task, that on the held-out text (`HeldOutText`).
    The released search trains on 2% of the corpus and for 3 epochs on 10% of MNLI, at a learning rate of 4e-4. With
    as many steps and epochs as a final training has, this is full training, the dearest score of all.

    Rungs, from 0: the steps of `GeneralTraining.rungs`, the end of general distillation if a task follows, and every
    epoch of the task but the last.

    Every candidate is trained with the same seed, that of the arguments: on the same rows in the same order, and with
    the same random weights where they are of the same size. So candidates are compared in pairs, and a loss depends on
    the architecture alone, not on what was scored before. Global random generators are left as they were.

    All processes of an `accelerate launch` train a candidate together; each must ask for the same one. Candidates have
    no checkpoints: one that was interrupted begins anew.

    Args:
        extract: The slice of an architecture, with weights of its own.
        accelerator: What to train with. What it had prepared before a candidate is let go behind it.
        general: General distillation, if any.
        task: Distillation on a task, if any.
        keep: Told of every architecture its loss and its student as general distillation has left it, in the main
            process alone.

    Raises:
        InputError: if there is nothing to train.
    """

    def __init__(
        self,
        extract: Callable[[Architecture], Student],
        accelerator: Accelerator,
        general: GeneralTraining | None,
        task: TaskTraining | None,
        keep: Callable[[Architecture, float, Student], None] | None = None,
    ):
        first = general or task
        if first is None:
            raise InputError("short training: needs general distillation, a task or both")
        self.seed = first.args.seed
        self.extract = extract
        self.accelerator = accelerator
        self.general = general
        self.task = task
        self.keep = keep

    def __call__(self, architecture: Architecture, report: ReportRung | None = None) -> float:
        """The loss; see `efficientbert.search.scores.Score`.

        Raises:
            NotFiniteError: if too many steps had no finite loss, or the trained candidate has none.
        """
        try:
            with isolated_randomness(self.seed):
                return self._train(architecture, report)
        finally:
            self.accelerator.free_memory()

    def _train(self, architecture: Architecture, report: ReportRung | None) -> float:
        """Trains a candidate; its loss."""
        rungs = count()

        def tell(loss: float) -> None:
            loss = agreed(loss)
            if report is not None:
                report(loss, next(rungs))

        student = self.extract(architecture)
        choose_attention(student.encoder)
        if self.general is not None:
            loss = self._train_general(student, self.general, self.general.objective(architecture), tell)
            if self.task is not None:
                tell(loss)
        if self.task is not None:
            loss = self._train_task(student, self.task, tell)
        loss = agreed(loss)
        if self.keep is not None and self.general is not None and self.accelerator.is_main_process:
            self.keep(architecture, loss, student)
        return loss

    def _train_general(
        self, student: Student, general: GeneralTraining, objective: GeneralDistillation, tell: Callable[[float], None]
    ) -> float:
        """Trains the student in place; its loss on the held-out text."""

        def after_step(step: int) -> None:
            if step in general.rungs:
                tell(held_out_loss(student, objective, general.held_out))

        train(
            self.accelerator,
            student,
            objective,
            general.text.training,
            general.text.collator,
            general.args,
            general.steps,
            None,
            "Candidate: text",
            after_step=after_step,
        )
        return held_out_loss(student, objective, general.held_out)

    def _train_task(self, student: Student, training: TaskTraining, tell: Callable[[float], None]) -> float:
        """Trains a copy of the student with a head; its error on the held-out rows."""
        task, data, args = training.task, training.data, training.args
        model = model_for_task(student, task, args.seed).to(self.accelerator.device)
        choose_attention(model)
        trained, inner = model, None
        if training.inner is not None:
            inner = training.inner(model)
            with isolated_randomness(args.seed):
                trained = TaskStudent(model, training.teacher.encoder.hidden_size).to(self.accelerator.device)
            if trained.projection.weight.shape == student.projection.weight.shape:
                trained.projection.load_state_dict(student.projection.state_dict())
            else:
                fit_to_task(trained, training.teacher, task, data, inner.recipe)
        steps_an_epoch = len(data.features) / (
            args.batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes
        )
        max_steps = math.ceil(training.epochs * steps_an_epoch)
        ends = {math.ceil(epoch * steps_an_epoch) for epoch in range(1, math.ceil(training.epochs))} - {max_steps}

        def error() -> float:
            return task_error(model, task, training.held_out, args.batch_size)

        def after_step(step: int) -> None:
            if step in ends:
                tell(error())

        train(
            self.accelerator,
            trained,
            TaskObjective(task, training.teacher, inner=inner),
            data.features,
            task.collate,
            args,
            max_steps,
            None,
            f"Candidate: {task.args.title()}",
            lengths=[length(ids) for ids in data.features["input_ids"]],
            after_step=after_step,
        )
        return error()


def agreed(loss: float) -> float:
    """The loss of the main process in all: of the others, the last bits may differ."""
    return broadcast_object_list([loss])[0]


def model_for_task(student: Student, task: Task, seed: int) -> PreTrainedModel:
    """A model with a fresh head for a task around a copy of a student's encoder.

    Args:
        student: Its encoder is copied.
        task: The task.
        seed: Of the head, which does not depend on what the encoder is made of.
    """
    config = type(student.encoder.config).from_dict(student.encoder.config.to_dict())
    task.configure(config)
    model = task.auto_class.from_config(config)
    model.base_model.load_state_dict(student.encoder.state_dict())
    with isolated_randomness(seed):
        for name, part in model.named_children():
            if name != model.base_model_prefix:
                part.apply(model._init_weights)
    return model
