"""The supernets of a search: each is trained once, by one of all workers, and kept in the folder of the study."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from efficientbert.search.arguments import SearchArguments
from efficientbert.search.material import Material
from efficientbert.search.scores.score import isolated_randomness
from efficientbert.search.space.space import SearchSpace
from efficientbert.search.supernet.few_shot import FewShotSupernet, Partition
from efficientbert.search.supernet.supernet import Supernet, TaskSupernet
from efficientbert.search.supernet.training import (
    Candidates,
    LargestInTurns,
    Slices,
    SupernetDistillation,
    TaskSupernetDistillation,
    bounds,
    task_objectives,
)
from efficientbert.search.supernet.weights import load_weights, save_weights
from efficientbert.slicing_efficientbert import nearest_layers
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.multitask_objective import TaskBatches, TaskCollator
from efficientbert.train.distillation.student import choose_attention
from efficientbert.train.distillation.task_objective import TaskObjective
from efficientbert.train.engine.loop import train
from efficientbert.train.files.writing import write_json
from efficientbert.train.start.from_teacher import initialize_from_teacher


TASK_SAMPLING = 0.5  # a task's share of the batches is its rows to this power


def warm_supernet(material: Material) -> Supernet:
    """The supernet of stages 1 and 2: initialised from the teacher, then distilled as its largest architecture."""
    space, teacher, device = material.space, material.teacher, material.accelerator.device
    material.tell("making the supernet from the teacher's weights")
    with isolated_randomness(material.args.seed):
        supernet = Supernet(space.base, space.largest(), teacher.hidden_size).to(device)
        choose_attention(supernet.whole.encoder)
        layers = nearest_layers(len(supernet.largest.layers), teacher.num_layers)
        initialize_from_teacher(supernet.whole, teacher, layers, material.text.sample_batch(device))
    objective = SupernetDistillation(material.objective, LargestInTurns.of(supernet.largest))
    folder, steps = material.folder / "warm-up", material.args.warmup_steps
    phase = f"training the supernet as its largest architecture: {steps} steps"
    _train_once(
        material,
        folder,
        supernet,
        lambda: _distil(material, supernet, objective, steps, folder, "Warm-up", phase),
    )
    return supernet


def sampled_supernet(material: Material, warm: Supernet, space: SearchSpace) -> Supernet | FewShotSupernet:
    """The supernet of stage 3: the warm one, trained on by sampled candidates of a space."""
    args, folder = material.args, material.folder / "stage-3"
    supernet: Supernet | FewShotSupernet = warm
    if args.supernets > 1:
        supernet = FewShotSupernet(warm, Partition.quantiles(space.sample, args.supernets, args.seed))
    largest, smallest = bounds(space)
    candidates = Candidates(space.sample, largest, args.seed, smallest=smallest if args.sandwich else None)
    objective = SupernetDistillation(material.objective, candidates, args.in_place)
    # The seed differs from the warm-up's: rows in another order.
    again, steps = replace(args, seed=args.seed + 1), args.sampled_steps
    phase = f"training the supernet by architectures drawn at random: {steps} steps"
    _train_once(
        material,
        folder,
        supernet,
        lambda: _distil(material, supernet, objective, steps, folder, "Supernet", phase, again),
    )
    return supernet


def task_supernet(material: Material, supernet: Supernet, space: SearchSpace) -> TaskSupernet:
    """The same supernet with heads, trained on by sampled candidates on all tasks."""
    args, folder = material.args, material.folder / "stage-3-tasks"
    with isolated_randomness(args.seed):  # of the heads
        on_tasks = TaskSupernet(supernet, [training.task for training in material.tasks])
    candidates = Candidates(space.sample, bounds(space)[0], args.seed)
    _train_once(material, folder, on_tasks, lambda: _distil_tasks(material, on_tasks, candidates, folder))
    return on_tasks


def _train_once(
    material: Material, folder: Path, module: nn.Module, training: Callable[[], list[dict[str, float]]]
) -> None:
    """Gives a module its trained weights: from the folder or, done by one of all workers, by training it."""
    path, name = folder / "supernet.safetensors", material.name

    def job() -> None:
        if material.group.share(path.exists()):
            return  # its worker was killed before it could say so
        log = training()
        if material.group.leads:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "training_log.json", log)
            save_weights(module, path)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    material.group.once(material.storage, f"{name}/supernet of {folder.name}", job)
    if not path.exists():
        raise InputError(
            f"supernet '{path}': is not there, though study '{name}' has trained it; all workers need the same "
            "output folder in sight, and another search needs another --name"
        )
    load_weights(module, path)


def _distil(
    material: Material,
    supernet: nn.Module,
    objective: SupernetDistillation,
    steps: int,
    folder: Path,
    description: str,
    phase: str,
    args: SearchArguments | None = None,
) -> list[dict[str, float]]:
    """Distils architectures of a supernet on text, if there is any step to take."""
    if steps == 0:
        return []
    material.tell(phase)
    text = material.text
    return train(
        material.accelerator,
        Slices(supernet),
        objective,
        text.training,
        text.collator,
        args or material.args,
        steps,
        folder / "checkpoints",
        description,
    )


def _distil_tasks(
    material: Material, supernet: TaskSupernet, candidates: Candidates, folder: Path
) -> list[dict[str, float]]:
    """Distils sampled candidates on all tasks, one task a batch."""
    args, trainings = material.args, material.tasks
    material.tell(f"training the supernet on tasks: {args.task_steps} steps")
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
        args.task_steps * args.gradient_accumulation_steps * material.accelerator.num_processes,
        TASK_SAMPLING,
        args.seed,
    )
    return train(
        material.accelerator,
        supernet,
        objective,
        batches,
        TaskCollator([training.task for training in trainings]),
        replace(args, batch_size=1, learning_rate=args.task_learning_rate),
        args.task_steps,
        folder / "checkpoints",
        f"Supernet on {len(trainings)} tasks",
    )
