"""What all parts of a search work with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from optuna.storages import BaseStorage

from efficientbert.search.arguments import SearchArguments
from efficientbert.search.scores.remembered_teacher import RememberedTeacher
from efficientbert.search.scores.short_training import TaskTraining
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.study.group import Group
from efficientbert.train.distillation.held_out import HeldOut
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.tasks.task import Task, TaskData
from efficientbert.train.text.preparation import Text


@dataclass(frozen=True)
class Material:
    """What a search works with, loaded and checked.

    Attributes:
        args: What was asked for.
        accelerator: Of the processes that train together.
        group: The same processes, towards the study.
        storage: Where the study is kept.
        folder: Of the study, seen by all its workers.
        teacher: The teacher.
        remembered: The same, for trainings that read the same text again.
        space: All architectures.
        text: The corpus.
        objective: What an architecture distils.
        held_out: Held-out text.
        tasks: Tasks with their teachers.
        probe: Task and rows of a linear probe, if it is asked for.
    """

    args: SearchArguments
    accelerator: Accelerator
    group: Group
    storage: BaseStorage
    folder: Path
    teacher: Teacher
    remembered: RememberedTeacher
    space: SearchSpace
    text: Text
    objective: Callable[[Architecture], GeneralDistillation]
    held_out: HeldOut
    tasks: tuple[TaskTraining, ...]
    probe: tuple[Task, TaskData] | None

    @property
    def name(self) -> str:
        """Of the study in its storage."""
        return self.args.name or self.folder.name

    def tell(self, phase: str) -> None:
        """Says at once what the search goes on with."""
        self.accelerator.print(phase, flush=True)

    def figures(self, architecture: Architecture, loss: float) -> dict[str, float]:
        """What there is to know of a candidate: its loss, and its costs by metric."""
        return {"loss": loss} | {metric: cost(architecture) for metric, cost in self.space.costs.items()}

    def losses(self, architecture: Architecture, loss: float) -> tuple[float, ...]:
        """What is minimised, one number an objective."""
        figures: Mapping[str, float] = self.figures(architecture, loss)
        return tuple(figures[name] for name in self.args.objectives)
