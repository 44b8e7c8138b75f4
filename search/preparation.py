"""What a search needs, loaded and checked: its space, tasks and probe."""

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from efficientbert.configuration_efficientbert import PRESETS, EfficientBertConfig
from efficientbert.search.arguments import SearchArguments
from efficientbert.search.costs.cost import Cost, Flops, Parameters
from efficientbert.search.costs.latency import Latency, LatencySettings
from efficientbert.search.scores.probe import check_probe
from efficientbert.search.scores.short_training import TaskTraining, prepare_task
from efficientbert.search.space.architecture import Architecture, LayerChoice
from efficientbert.search.space.expressions import PLAIN
from efficientbert.search.space.sizes import Choices
from efficientbert.search.space.space import SearchSpace
from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.loss_choice import make_recipe
from efficientbert.train.distillation.student import fit_config, read_config
from efficientbert.train.distillation.teacher import Teacher
from efficientbert.train.engine.device import find_device
from efficientbert.train.tasks.kinds import task_of_data
from efficientbert.train.tasks.task import Task, TaskData


def uniform_architectures(space: SearchSpace) -> list[Architecture]:
    """One of every depth, shape and attention, where networks do not matter: all layers have the same attention."""
    return [
        Architecture(shape, (LayerChoice(PLAIN, 1, 1, *attention),) * depth)
        for depth, shape in space.shapes
        for attention in space.attentions(shape.hidden_size)
        if attention[0]
    ]


def make_space(args: SearchArguments, teacher: Teacher) -> SearchSpace:
    """The space of the arguments, without measured latencies.

    Raises:
        InputError: if the student's sizes do not fit the teacher, or the losses do not fit a shape.
    """
    if args.student in PRESETS:
        base = EfficientBertConfig.from_preset(args.student)
    else:
        base = read_config(Path(args.student))
    base = fit_config(base, teacher)
    sizes = {
        name: tuple(getattr(args, name) or ())
        for name in ("depths", "hidden_sizes", "head_counts", "head_dims", "embedding_sizes")
    }
    choices = Choices(**sizes, gate=args.gate, base_width=args.base_width, width_multiple=args.width_multiple)
    costs: dict[str, Cost] = {"parameters": Parameters(base), "flops": Flops(base, args.max_length)}
    metrics = {*args.objectives, *(budget.metric for budget in args.parsed_budgets())}
    if "latency" in metrics:
        device = find_device(args.device).type
        threads = torch.get_num_threads()
        settings = LatencySettings(args.latency_batch_size, args.max_length, device, threads=threads)
        costs["latency"] = Latency(base, Path(args.output_dir) / "latency.json", settings)
    space = SearchSpace(base, choices, args.parsed_budgets(), costs)
    for architecture in uniform_architectures(space):
        recipe = make_recipe(args, architecture.to_config(base), teacher)
        if recipe.masks:
            raise InputError(
                "losses: masked_lm and logits need a head, which no supernet has; distil its slice with them"
            )
    return space


def load_tasks(args: SearchArguments, teacher: Teacher, accelerator: Accelerator) -> tuple[TaskTraining, ...]:
    """The tasks that candidates learn from teachers, if any.

    Raises:
        InputError: if data or teachers cannot be loaded, or do not suit.
    """
    if args.task_teachers is None:
        return ()
    training = replace(args, learning_rate=args.task_learning_rate, batch_size=args.task_batch_size)
    folder = Path(args.output_dir) / "tasks"
    tasks = tuple(
        prepare_task(
            source,
            name,
            teacher,
            args,
            args.task_held_out,
            training,
            args.task_epochs,
            accelerator,
            folder / source.title(),
        )
        for source, name in zip(args.task_sources(), args.task_teachers)
    )
    for name, task in zip(args.task_teachers, tasks):
        size = task.teacher.encoder.hidden_size
        if "tasks" in args.supernet_scores and size != teacher.hidden_size:
            raise InputError(
                f"task_teachers: '{name}' has hidden size {size}, not the {teacher.hidden_size} of "
                f"teacher '{args.teacher}', as --supernet_scores tasks needs"
            )
    return tasks


def load_probe(args: SearchArguments, teacher: Teacher, accelerator: Accelerator) -> tuple[Task, TaskData] | None:
    """The first task and its rows, where a linear probe on them is asked for.

    Raises:
        InputError: if the data cannot be loaded, or is not for a probe.
    """
    if "probe" not in (*args.scores, *args.supernet_scores):
        return None
    source = args.task_sources()[0]
    if source.task_kind() != "text-classification":
        raise InputError(
            f"task '{source.title()}': score probe is for classification and regression of texts, not for "
            f"{source.task_kind()}"
        )
    with accelerator.main_process_first():
        task = task_of_data(source, teacher.tokenizer, source.train_split)
        data = task.load(source.train_split)
    check_probe(task, data)
    return task, data
