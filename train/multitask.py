"""Trains one encoder on several labelled tasks at once, each under its own teacher (what makes EfficientBERT+).

    efficientbert multitask --model my-student --tasks mrpc rte my-task.yaml \
        --teachers my-teacher-mrpc my-teacher-rte my-teacher --output_dir my-student-plus

The output folder holds the shared encoder in `encoder/`, to start from with `efficientbert finetune --model`, and a
model with its head for every task.
"""

import math
import statistics
from dataclasses import replace
from typing import Any

from efficientbert.train.cli.command import run_command
from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.output_folder import OutputFolder, run_arguments
from efficientbert.train.files.writing import write_json
from efficientbert.train.tasks.arguments import MultitaskArguments


def main(args: MultitaskArguments) -> dict[str, dict[str, float]]:
    """Runs the job from arguments to a finished folder; returns the figures of every task."""
    import torch

    from efficientbert.train.distillation.multitask_objective import MultitaskModel, MultitaskObjective, TaskBatches
    from efficientbert.train.distillation.projection import save_projection
    from efficientbert.train.distillation.task_objective import TaskStudent
    from efficientbert.train.engine.accelerator import make_accelerator
    from efficientbert.train.engine.best_weights import Selection
    from efficientbert.train.engine.loop import train
    from efficientbert.train.files.digests import digest_models
    from efficientbert.train.model_folder.loading import load_tokenizer
    from efficientbert.train.model_folder.write import write_checkpoint
    from efficientbert.train.tasks.multitask_training import mean_scores
    from efficientbert.train.tasks.prediction import predict, score
    from efficientbert.train.tasks.preparation import make_objective, prepare

    args.check()
    sources = args.sources()
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return {}
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=True)
    tokenizer = load_tokenizer(args.model)
    teachers = args.teachers or [None] * len(sources)
    prepared = [
        prepare(args, source, teacher, tokenizer, accelerator)
        for source, teacher in zip(sources, teachers, strict=True)
    ]
    if prepared[0].model.config.model_type != "efficientbert":
        raise InputError(f"model {args.model}: must be an EfficientBERT, whose encoder several heads can share")
    tasks = [one.task for one in prepared]
    if accelerator.is_main_process:
        data = {f"data of task {source.title()!r}": one.digest() for source, one in zip(sources, prepared)}
        folder.open(digest_models(args, "model", "teachers", "tasks") | data)
    accelerator.wait_for_everyone()
    batches_a_step = args.gradient_accumulation_steps * accelerator.num_processes
    rows = sum(len(one.data.features) for one in prepared)
    max_steps = math.ceil(args.num_epochs * rows / (args.batch_size * batches_a_step))
    made = [
        make_objective(args, one, max_steps, accelerator, folder.work / source.title())
        for source, one in zip(sources, prepared)
    ]
    model = MultitaskModel([student for student, _ in made])
    kept_aside = [one.kept_aside for one in prepared]
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
        [one.data.features for one in prepared], args.batch_size, max_steps * batches_a_step, args.sampling, args.seed
    )

    def collate(items: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, torch.Tensor]:
        ((task, features),) = items
        return tasks[task].collate(features) | {"task": torch.tensor([task])}

    log = train(
        accelerator,
        model,
        MultitaskObjective([objective for _, objective in made]),
        batches,
        collate,
        replace(args, batch_size=1),
        max_steps,
        folder.work / "checkpoints",
        f"Training on {len(tasks)} tasks",
        after_step=selection,
    )
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # scored in full precision, as it will be saved
    results: dict[str, dict[str, float]] = {}
    if accelerator.is_main_process:
        if selection is not None:
            selection.restore()
        for index, (source, task) in enumerate(zip(sources, tasks)):
            single = model.models[index]
            if kept_aside[index] is not None:
                task.calibrate(single, predict(single, task, kept_aside[index], args.batch_size), kept_aside[index])
            figures = {
                part.split: score(task, predict(single, task, part, args.batch_size), part)
                for part in prepared[index].scored
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


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_command(main, MultitaskArguments, "multitask")


if __name__ == "__main__":
    cli()
