"""Fine-tuning of a model on a labelled task, alone or under a teacher."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.distillation.projection import save_projection
from efficientbert.train.distillation.task_objective import TaskStudent
from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.best_weights import Selection
from efficientbert.train.engine.loop import train
from efficientbert.train.files.digests import digest_models
from efficientbert.train.files.output_folder import OutputFolder, run_arguments
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.loading import load_tokenizer
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.tasks.arguments import FinetuneArguments
from efficientbert.train.tasks.prediction import length, main_score, predict, score
from efficientbert.train.tasks.preparation import Prepared, make_objective, prepare


def run(args: FinetuneArguments) -> dict[str, dict[str, float]]:
    """One run, from arguments to a finished folder; returns the figures of every scored split."""
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=args.distillation == "sequence")
    tokenizer = load_tokenizer(args.model)
    prepared = prepare(args, args, args.teacher, tokenizer, accelerator)
    task, data, model = prepared.task, prepared.data, prepared.model
    if prepared.kept_aside is None and task.metric() == "squad_v2":
        print("no-answer threshold: 0.5; with --selection 0.1 it is chosen on a tenth of the training rows")
    if accelerator.is_main_process:
        folder.open(inputs(args, prepared))
    accelerator.wait_for_everyone()
    rows_a_step = args.batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    max_steps = math.ceil(args.num_epochs * len(data.features) / rows_a_step)
    trained, objective = make_objective(args, prepared, max_steps, accelerator, folder.work)
    selection = None
    if prepared.kept_aside is not None:
        aside = prepared.kept_aside
        selection = Selection(
            model,
            lambda: main_score(score(task, predict(model, task, aside, args.batch_size), aside)),
            folder.work / "selected.safetensors",
            every=math.ceil(len(data.features) / rows_a_step),
            last=max_steps,
            writes=accelerator.is_main_process,
        )
    log = train(
        accelerator,
        trained,
        objective,
        data.features,
        task.collate,
        args,
        max_steps,
        folder.work / "checkpoints",
        f"Fine-tuning on {args.title()}",
        lengths=[length(ids) for ids in data.features["input_ids"]],
        after_step=selection,
    )
    accelerator.unwrap_model(trained, keep_fp32_wrapper=False)  # scored in full precision, as it will be saved
    results: dict[str, dict[str, float]] = {}
    if accelerator.is_main_process:
        if selection is not None:
            step, best = selection.restore()
            task.calibrate(model, predict(model, task, aside, args.batch_size), aside)
            results["selection"] = {"step": step, "score": best}
        for part in prepared.scored:
            results[part.split] = score(task, predict(model, task, part, args.batch_size), part)
            print(f"{part.split}: " + "  ".join(f"{name} {value:.4f}" for name, value in results[part.split].items()))
        finish(folder, args, trained, model, tokenizer, results, log)
    accelerator.wait_for_everyone()
    return results


def inputs(args: FinetuneArguments, prepared: Prepared) -> dict[str, str]:
    """Checksums of what a run reads, for `OutputFolder.open`."""
    return digest_models(args, "model", "teacher") | {f"data of task {args.title()!r}": prepared.digest()}


def finish(
    folder: OutputFolder,
    args: FinetuneArguments,
    trained: nn.Module,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    results: dict[str, dict[str, float]],
    log: list[dict[str, float]],
) -> None:
    """Writes the model with its record, figures and log, and moves the folder to its name."""
    write_json(folder.work / "results.json", results)
    write_checkpoint(folder.work, model, tokenizer, "finetune", args, results, args.model)
    if isinstance(trained, TaskStudent):
        save_projection(trained.projection, folder.work)
    write_json(folder.work / "training_log.json", log)
    (folder.work / "selected.safetensors").unlink(missing_ok=True)
    print(folder.finish())


def read_results(folder: Path) -> dict[str, dict[str, float]]:
    """The figures of a finished folder."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def run_seeds(args: FinetuneArguments) -> dict[str, dict[str, float]]:
    """One run a seed, each in a folder of its own, and the mean and standard deviation of their figures."""
    folder = OutputFolder(args.output_dir, run_arguments(args))
    if folder.complete:
        print(f"{folder.path} is complete already")
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work)
    # Refuses before anything is written.
    prepared = prepare(args, args, args.teacher, load_tokenizer(args.model), accelerator)
    if accelerator.is_main_process:
        folder.open(inputs(args, prepared))
    accelerator.wait_for_everyone()
    runs = [
        run(replace(args, seed=seed, seeds=None, output_dir=str(folder.work / f"seed-{seed}"))) for seed in args.seeds
    ]
    if not accelerator.is_main_process:
        return {}
    summary = {split: summarize([result[split] for result in runs]) for split in runs[0]}
    for split, figures in summary.items():
        print(f"{split}, {len(runs)} seeds: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    write_json(folder.work / "results.json", summary)
    print(folder.finish())
    return summary


def summarize(results: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over runs and, as NAME_std, its sample standard deviation; 0 of a single run."""
    summary: dict[str, float] = {}
    for name in results[0]:
        values = [result[name] for result in results]
        summary[name] = statistics.fmean(values)
        summary[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return summary
