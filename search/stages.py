"""The stages of a search as steps of one study: warm-up, coarse, fine, fine by weight sharing (paper, section 3.3)."""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import BaseStorage
from torch import nn

from efficientbert.search.arguments import SearchArguments
from efficientbert.search.samplers import SAMPLERS, Sampler
from efficientbert.search.scores.held_out_text import HeldOutText
from efficientbert.search.scores.ladder import Ladder
from efficientbert.search.scores.probe import TaskProbe
from efficientbert.search.scores.remembered_teacher import RememberedTeacher
from efficientbert.search.scores.score import ParameterCount, Score, isolated_randomness
from efficientbert.search.scores.short_training import GeneralTraining, ShortTraining, TaskTraining
from efficientbert.search.scores.task_slices import TaskSlices
from efficientbert.search.scores.trained_candidates import TrainedCandidates
from efficientbert.search.scores.wpca import RandomEncoders, WPca
from efficientbert.search.space.architecture import Architecture
from efficientbert.search.space.neighbourhood import Neighbourhood
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.study.group import Group
from efficientbert.search.study.pareto import pareto_front
from efficientbert.search.study.record import Record
from efficientbert.search.study.report import write_report
from efficientbert.search.study.study import Report, StageStudy
from efficientbert.search.supernet.few_shot import FewShotSupernet, Partition
from efficientbert.search.supernet.supernet import Supernet, TaskSupernet
from efficientbert.search.supernet.training import (
    Candidates,
    Slices,
    SupernetDistillation,
    TaskSupernetDistillation,
    Wholes,
    bounds,
    task_objectives,
)
from efficientbert.search.supernet.weights import load_weights, save_weights
from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.held_out import HeldOut, score_student
from efficientbert.train.distillation.multitask_objective import TaskBatches
from efficientbert.train.distillation.objective import GeneralDistillation
from efficientbert.train.distillation.projection import save_projection
from efficientbert.train.distillation.student import Student, choose_attention
from efficientbert.train.distillation.task_objective import TaskObjective
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.loop import train
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.start.from_teacher import initialize_from_teacher
from efficientbert.train.tasks.task import Task, TaskData
from efficientbert.train.text.preparation import Text


Row = tuple[Architecture, tuple[float, ...]]  # a complete candidate with its losses

PLACES = ("output_dir", "storage", "name")  # where a study is kept; not what it is
TASK_SAMPLING = 0.5  # a task's share of the batches is its rows to this power


@dataclass(frozen=True)
class Material:
    """What a search works with, loaded and checked.

    Attributes:
        teacher: The teacher.
        remembered: The same, for trainings that read the same text again.
        space: All architectures.
        text: The corpus.
        objective: What an architecture distils.
        held_out: Held-out text.
        tasks: Tasks with their teachers.
        probe: Task and rows of a linear probe, if it is asked for.
    """

    teacher: Teacher
    remembered: RememberedTeacher
    space: SearchSpace
    text: Text
    objective: Callable[[Architecture], GeneralDistillation]
    held_out: HeldOut
    tasks: tuple[TaskTraining, ...]
    probe: tuple[Task, TaskData] | None


@dataclass(frozen=True)
class Winner:
    """The candidate that a stage hands on."""

    architecture: Architecture
    losses: tuple[float, ...]


class Stages:
    """Runs the stages of a search in its folder, beside any number of other workers that do the same.

    Args:
        args: What was asked for.
        accelerator: Of the processes that train together.
        storage: Where the study is kept.
        folder: Of the study, seen by all its workers.
        material: What it works with.
    """

    def __init__(
        self, args: SearchArguments, accelerator: Accelerator, storage: BaseStorage, folder: Path, material: Material
    ):
        self.args = args
        self.accelerator = accelerator
        self.group = Group(accelerator)
        self.storage = storage
        self.folder = folder
        self.name = args.name or folder.name
        self.material = material
        self.trained = TrainedCandidates(folder / "trained", self._losses)

    def run(self) -> None:
        """Runs the stages that were asked for, as far as they are not done; then writes the result of the last.

        Raises:
            InputError: if a stage needs another's result that is not there, or came to nothing.
        """
        wanted = [stage for stage in self.args.stages if self.args.stage in (None, stage)]
        start: Winner | None = None
        for stage in self.args.stages[: self.args.stages.index(wanted[0])]:
            start = self._winner(stage)
        warm = self._warm_up()
        for stage in wanted:
            start = self._run_stage(stage, warm, start)

    def _run_stage(self, stage: int, warm: Supernet, start: Winner | None) -> Winner:
        """Searches one stage, writes its result and gives its winner."""
        space, supernet = self.material.space, warm
        first: tuple[Architecture, ...] = ()
        rated = None  # by an earlier stage, as all are here
        if stage == 2:
            space = space.fix_sizes(start.architecture if start else Architecture.from_config(space.base))
            rated = start
        elif start is None:
            first = space.familiar(self.args.seed)
        else:
            space, first = space.fix_expressions(start.architecture), (start.architecture,)
        if stage == 3:
            self.material.remembered.forget()
            supernet, score = self._supernet_of_stage_3(warm, space)
        else:
            score = self._score(self.args.scores, warm)
        records = self._search(stage, space, score, first, rated)
        rows = [(Architecture.from_json(record.candidate), record.losses) for record in records if record.losses]
        if rated is not None:
            rows.append((rated.architecture, rated.losses))
        winner = self._winner(stage, rows)
        if stage == self.args.stages[-1]:
            # One of all workers writes; with more candidates, of a search that was taken up again, it is written anew.
            self.group.once(
                self.storage,
                f"{self.name}/result of {len(records)} candidates",
                lambda: self._write(stage, rows, supernet) if self.group.leads else None,
            )
        if self.group.leads:
            budgets = self.material.space.budgets
            report = write_report(self.storage, self.name, self.folder, budgets[0].metric if budgets else "parameters")
            best = min(rows, key=lambda row: row[1])
            complete = sum(record.losses is not None for record in records)
            print(f"stage {stage}: {complete} of {len(records)} candidates complete, best loss {best[1][0]:.4f}")
            print(f"report: {report}")
        return winner

    # Supernets

    def _new_supernet(self) -> Supernet:
        """The whole supernet, initialised from the teacher."""
        space, teacher = self.material.space, self.material.teacher
        with isolated_randomness(self.args.seed):
            supernet = Supernet(space.base, space.largest(), teacher.hidden_size).to(self.accelerator.device)
            choose_attention(supernet.whole.encoder)
            layers = nearest_layers(len(space.largest().layers), teacher.num_layers)
            sample = self.material.text.sample_batch(self.accelerator.device)
            initialize_from_teacher(supernet.whole, teacher, layers, sample)
        return supernet

    def _warm_up(self) -> Supernet:
        """The supernet, distilled as a whole."""
        supernet = self._new_supernet()
        objective = SupernetDistillation(self.material.objective, Wholes.of(supernet.largest))
        folder = self.folder / "warm-up"
        self._trained(
            folder, supernet, lambda: self._distil(supernet, objective, self.args.warmup_steps, folder, "Warm-up")
        )
        return supernet

    def _supernet_of_stage_3(self, warm: Supernet, space: SearchSpace) -> tuple[Supernet | FewShotSupernet, Score]:
        """The supernet that was trained by sampled candidates, and the score of its slices."""
        args, folder = self.args, self.folder / "stage-3"
        supernet: Supernet | FewShotSupernet = warm
        if args.supernets > 1:
            supernet = FewShotSupernet(warm, Partition.quantiles(space.sample, args.supernets, args.seed))
        largest, smallest = bounds(space)
        candidates = Candidates(space.sample, largest, args.seed, smallest=smallest if args.sandwich else None)
        objective = SupernetDistillation(self.material.objective, candidates, args.in_place)
        # The seed differs from the warm-up's: rows in another order.
        again = replace(args, seed=args.seed + 1)
        self._trained(
            folder, supernet, lambda: self._distil(supernet, objective, args.sampled_steps, folder, "Supernet", again)
        )
        if "tasks" not in args.supernet_scores:
            return supernet, self._score(args.supernet_scores, supernet)
        folder = self.folder / "stage-3-tasks"
        with isolated_randomness(args.seed):  # of the heads
            on_tasks = TaskSupernet(supernet, [training.task for training in self.material.tasks])
        self._trained(
            folder, on_tasks, lambda: self._distil_tasks(on_tasks, replace(candidates, smallest=None), folder)
        )
        return supernet, self._score(args.supernet_scores, supernet, on_tasks)

    def _trained(self, folder: Path, module: nn.Module, training: Callable[[], list[dict[str, float]]]) -> None:
        """Gives a module its trained weights: from the folder or, done by one of all workers, by training it."""
        path = folder / "supernet.safetensors"

        def job() -> None:
            if self.group.share(path.exists()):
                return  # its worker was killed before it could say so
            log = training()
            if self.accelerator.is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / "training_log.json", log)
                save_weights(module, path)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)

        self.group.once(self.storage, f"{self.name}/supernet of {folder.name}", job)
        if not path.exists():
            raise InputError(
                f"supernet {path}: is not there, though study {self.name} has trained it; all workers need the same "
                "output folder in sight, and another search needs another --name"
            )
        load_weights(module, path)

    def _distil(
        self,
        supernet: nn.Module,
        objective: SupernetDistillation,
        steps: int,
        folder: Path,
        description: str,
        args: SearchArguments | None = None,
    ) -> list[dict[str, float]]:
        text = self.material.text
        return train(
            self.accelerator,
            Slices(supernet),
            objective,
            text.training,
            text.collator,
            args or self.args,
            steps,
            folder / "checkpoints",
            description,
        )

    def _distil_tasks(self, supernet: TaskSupernet, candidates: Candidates, folder: Path) -> list[dict[str, float]]:
        """Distils sampled candidates on all tasks, one task a batch."""
        args, trainings = self.args, self.material.tasks
        objectives = [
            TaskObjective(
                training.task,
                training.teacher,
                inner=None if training.inner is None else training.inner(supernet.wholes[index].model),
            )
            for index, training in enumerate(trainings)
        ]
        objective = TaskSupernetDistillation(task_objectives(objectives, args, supernet.supernet.base), candidates)
        batches = TaskBatches(
            [training.data.features for training in trainings],
            args.task_batch_size,
            args.task_steps * args.gradient_accumulation_steps * self.accelerator.num_processes,
            TASK_SAMPLING,
            args.seed,
        )

        def collate(items: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, torch.Tensor]:
            ((task, features),) = items
            return trainings[task].task.collate(features) | {"task": torch.tensor([task])}

        return train(
            self.accelerator,
            supernet,
            objective,
            batches,
            collate,
            replace(args, batch_size=1, learning_rate=args.task_learning_rate),
            args.task_steps,
            folder / "checkpoints",
            f"Supernet on {len(trainings)} tasks",
        )

    # Candidates

    def _score(
        self, words: Sequence[str], supernet: Supernet | FewShotSupernet, on_tasks: TaskSupernet | None = None
    ) -> Score:
        """What rates candidates."""
        material, args = self.material, self.args
        parameters = material.space.costs["parameters"]

        def made(word: str) -> Score:
            if word == "parameters":
                return ParameterCount(parameters)
            if word == "wpca":
                encoders = RandomEncoders(material.space.base, args.seed, self.accelerator.device)
                return WPca(encoders, parameters, material.text.sample_batch(self.accelerator.device))
            if word == "text":
                return HeldOutText(supernet.extract, material.objective, material.held_out)
            if word == "probe":
                return TaskProbe(supernet.extract, *material.probe)
            if word == "tasks":
                scored = tuple((training.task, training.held_out) for training in material.tasks)
                return TaskSlices(on_tasks.extract, scored, args.task_batch_size)
            return ShortTraining(
                supernet.extract,
                self.accelerator,
                self._general_training(),
                material.tasks[0] if material.tasks else None,
                self.trained.keep,
            )

        return Ladder(tuple(made(word) for word in words))

    def _general_training(self) -> GeneralTraining | None:
        args, factor = self.args, self.args.reduction_factor
        if args.general_steps == 0:
            return None
        rungs: tuple[int, ...] = ()
        if factor is not None:
            rungs = tuple(sorted({args.general_steps // factor, args.general_steps // factor**2} - {0}))
        material = self.material

        def objective(architecture: Architecture) -> GeneralDistillation:
            found = material.objective(architecture)
            return GeneralDistillation(material.remembered, found.scales, found.recipe)

        # The seed differs from the arguments': who distils the best with the same goes on with rows it has not seen.
        again = replace(args, seed=args.seed + 1)
        return GeneralTraining(objective, material.text, material.held_out, again, args.general_steps, rungs)

    def _sampler(self, space: SearchSpace, start: Winner | None) -> Sampler[Architecture]:
        """Who proposes candidates; in stage 2 around the winner of stage 1, which was rated as they are."""
        settings: dict[str, dict[str, int]] = {
            "evolution": {"initial": self.args.initial},
            "nsga2": {"initial": self.args.initial},
            "action_space": {"first": self.args.initial, "interval": self.args.refit_interval},
        }
        drawn = space if start is None else Neighbourhood(space, start.architecture)
        sampler = SAMPLERS[self.args.sampler](drawn, self.args.seed, **settings.get(self.args.sampler, {}))
        if start is not None:
            sampler.tell(start.architecture, start.losses)
        return sampler

    def _search(
        self, stage: int, space: SearchSpace, score: Score, first: tuple[Architecture, ...], rated: Winner | None
    ) -> list[Record]:
        """Evaluates the candidates of a stage: some first, then those of the sampler, who knows what is rated."""
        args, factor = self.args, self.args.reduction_factor

        def evaluate(architecture: Architecture, report: Report) -> dict[str, float]:
            def at_rung(loss: float, rung: int) -> None:
                report(loss, factor**rung)  # the pruner's rungs are the powers of its factor

            loss = score(architecture, None if factor is None else at_rung)
            return self._figures(architecture, loss)

        study = StageStudy(
            self.storage,
            f"{self.name}/stage-{stage}",
            self._sampler(space, rated),
            to_json=Architecture.to_json,
            from_json=Architecture.from_json,
            objectives=tuple(args.objectives),
            seed=args.seed,
            settings={key: value for key, value in args.decisive().items() if key not in PLACES},
            first=first,
            numbers=numbers,
            pruner=None if factor is None else SuccessiveHalvingPruner(1, factor),
        )
        return self.group.run(study, evaluate, args.stop_rule())

    def _figures(self, architecture: Architecture, loss: float) -> dict[str, float]:
        """What there is to know of a candidate."""
        return {"loss": loss} | {metric: cost(architecture) for metric, cost in self.material.space.costs.items()}

    def _losses(self, architecture: Architecture, loss: float) -> tuple[float, ...]:
        """What is minimised."""
        figures = self._figures(architecture, loss)
        return tuple(figures[name] for name in self.args.objectives)

    def _winner(self, stage: int, rows: Sequence[Row] = ()) -> Winner:
        """The candidate that a stage hands on: that of the lowest loss. Once chosen it stays.

        Args:
            stage: The stage.
            rows: Its complete candidates, where they are at hand.

        Raises:
            InputError: if none was chosen yet, and there is nothing to choose from.
        """

        def job() -> list[Any]:
            if not rows:
                raise InputError(f"stage {stage}: no candidate of it is complete; run it first: --stage {stage}")
            candidate, losses = min(rows, key=lambda row: row[1][0])
            return [candidate.to_json(), losses]

        candidate, losses = self.group.once(self.storage, f"{self.name}/winner of stage {stage}", job)
        return Winner(Architecture.from_json(candidate), tuple(losses))

    def _write(self, stage: int, rows: Sequence[Row], supernet: Supernet | FewShotSupernet) -> None:
        """Writes the candidates that no other is better than: `best`, and several in `front`, by rising loss."""

        def extract(architecture: Architecture) -> Student:
            student = supernet.extract(architecture)
            trained = stage != 3 and self.args.scores[-1] == "short" and self.args.general_steps > 0
            if trained and not self.trained.load(architecture, student):
                warnings.warn(f"{self.trained.folder}: lacks a candidate's weights; it is as it began", stacklevel=2)
            return student

        front = [rows[index] for index in pareto_front([losses for _, losses in rows])]
        front = sorted(dict(front).items(), key=lambda row: row[1])
        self._write_candidate(*front[0], extract, self.folder / "best")
        if len(self.args.objectives) > 1:
            work = self.folder / "front.partial"
            shutil.rmtree(work, ignore_errors=True)
            for number, row in enumerate(front):
                self._write_candidate(*row, extract, work / str(number))
            move(work, self.folder / "front")

    def _write_candidate(
        self,
        architecture: Architecture,
        losses: tuple[float, ...],
        extract: Callable[[Architecture], Student],
        folder: Path,
    ) -> None:
        """Writes a candidate as a checkpoint, to go on from."""
        material = self.material
        student = extract(architecture)
        result = dict(zip(self.args.objectives, losses))
        result["search_loss"] = result.pop("loss")
        result |= {metric: cost(architecture) for metric, cost in material.space.costs.items()}
        result |= score_student(student, material.objective(architecture), material.held_out)
        work = folder.with_name(folder.name + ".partial")
        shutil.rmtree(work, ignore_errors=True)
        sources = [self.args.corpus, *(training.task.args.source() for training in material.tasks)]
        write_checkpoint(
            work, student.encoder, material.teacher.tokenizer, "search", self.args, result, sources=sources
        )
        save_projection(student.projection, work)
        move(work, folder)


def move(work: Path, folder: Path) -> None:
    """Gives a folder that is complete its name, in the place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(work, folder)


def numbers(architecture: Architecture) -> dict[str, int]:
    """What a dashboard plots of an architecture."""
    found = {"num_layers": len(architecture.layers)} | asdict(architecture.shape)
    for index, layer in enumerate(architecture.layers):
        found |= {f"stack {index}": layer.stack, f"width {index}": layer.intermediate_size}
    return found
