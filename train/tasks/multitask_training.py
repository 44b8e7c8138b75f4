"""Training of one encoder on several labelled tasks."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from efficientbert.train.cli.errors import InputError
from efficientbert.train.distillation.multitask_objective import (
    MultitaskModel,
    MultitaskObjective,
    TaskBatches,
    TaskCollator,
)
from efficientbert.train.distillation.projection import save_projection
from efficientbert.train.distillation.task_objective import TaskStudent
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.loop import train
from efficientbert.train.files.run_folder import run_folder
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.loading import load_tokenizer
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.tasks.arguments import MultitaskArguments
from efficientbert.train.tasks.prediction import main_score, predict, score
from efficientbert.train.tasks.preparation import Prepared, make_objective, prepare
from efficientbert.train.tasks.run import (
    SELECTED,
    count_steps,
    final_figures,
    make_selection,
    read_results,
    write_model,
)


def run(args: MultitaskArguments) -> dict[str, dict[str, dict[str, float]]]:
    """One run, from arguments to a finished folder; returns the figures of every task by split."""
    sources = args.sources()
    args = replace(args, learning_rate=args.rate(args.teachers is not None))
    files = [file for one in sources.values() for file in (one.data, one.augmented_data)]
    folder = run_folder(args, ("model", "teachers", "tasks"), "data", *files)
    if folder.complete:
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=True)
    tokenizer = load_tokenizer(args.model)
    teachers: Sequence[str | None] = args.teachers or [None] * len(sources)
    tasks = {
        name: prepare(args, source, teacher, tokenizer, accelerator)
        for (name, source), teacher in zip(sources.items(), teachers, strict=True)
    }
    kind = next(iter(tasks.values())).model.config.model_type
    if kind != "efficientbert":
        raise InputError(
            f"model {args.model!r}: is of model type {kind!r}; it must be an EfficientBERT, whose encoder several "
            "heads can share"
        )
    if accelerator.is_main_process:
        data = {f"data of task {name!r}": task.digest() for name, task in tasks.items()}
        folder.open(data)
    accelerator.wait_for_everyone()
    rows = [task.data.features for task in tasks.values()]
    steps = count_steps(args, sum(map(len, rows)), accelerator.num_processes)
    made = [make_objective(args, task, steps[0], accelerator, folder.work / name) for name, task in tasks.items()]
    model = MultitaskModel([student for student, _ in made])
    selection = None
    if args.selection:
        selection = make_selection(
            model, lambda: mean_score(model, list(tasks.values()), args.batch_size), folder.work, steps, accelerator
        )
    batches = steps[0] * args.gradient_accumulation_steps * accelerator.num_processes
    log = train(
        accelerator,
        model,
        MultitaskObjective([objective for _, objective in made]),
        TaskBatches(rows, args.batch_size, batches, args.sampling, args.seed),
        TaskCollator([task.task for task in tasks.values()]),
        replace(args, batch_size=1),
        steps[0],
        folder.work / "checkpoints",
        f"Training on {len(tasks)} tasks",
        after_step=selection,
    )
    results: dict[str, dict[str, dict[str, float]]] = {}
    if accelerator.is_main_process:
        if selection is not None:
            selection.restore()
        for (name, task), student, single in zip(tasks.items(), model.students, model.models):
            print(f"{name}:")
            results[name] = final_figures(task, single, args.batch_size)
            part = folder.work / name
            write_model(part, student, single, tokenizer, "multitask", args, task.task.args, results[name])
        encoder, origins = folder.work / "encoder", [source.source() for source in sources.values()]
        write_checkpoint(
            encoder, model.models[0].base_model, tokenizer, "multitask", args, results, args.model, sources=origins
        )
        if isinstance(model.students[0], TaskStudent):
            save_projection(model.students[0].projection, encoder)
        write_json(folder.work / "results.json", results)
        write_json(folder.work / "training_log.json", log)
        (folder.work / SELECTED).unlink(missing_ok=True)
        print(folder.finish())
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def mean_score(model: MultitaskModel, tasks: list[Prepared], batch_size: int) -> float:
    """The mean over tasks of their main scores, each as a fraction, on rows kept aside."""
    scores = []
    for single, prepared in zip(model.models, tasks):
        task, aside = prepared.task, prepared.kept_aside
        assert aside is not None  # as weights are chosen on it
        scores.append(main_score(score(task, predict(single, task, aside, batch_size), aside), task.metric()))
    return statistics.fmean(scores)
