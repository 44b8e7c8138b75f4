"""Fine-tuning of a model on a labelled task, alone or under a teacher."""

import shutil
import statistics
from dataclasses import replace
from pathlib import Path

from efficientbert.train.engine.accelerator import make_accelerator
from efficientbert.train.engine.loop import train
from efficientbert.train.files.output_folder import OutputFolder
from efficientbert.train.files.run_folder import run_folder
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.loading import load_tokenizer
from efficientbert.train.tasks.arguments import FinetuneArguments
from efficientbert.train.tasks.prediction import length, main_score, predict, score
from efficientbert.train.tasks.preparation import make_objective, prepare
from efficientbert.train.tasks.run import (
    SELECTED,
    count_steps,
    described,
    described_gain,
    final_figures,
    make_selection,
    read_results,
    write_model,
)


LABELS_ALONE = "labels-alone"  # folder of the model that a student under a teacher is held against; it is not kept


def run(args: FinetuneArguments, nested: bool = False) -> dict[str, dict[str, float]]:
    """One run, from arguments to a finished folder; returns the figures of every scored split.

    Args:
        args: The arguments.
        nested: Whether it is part of another run, in whose folder it is written.
    """
    asked, args = args, replace(args, learning_rate=args.rate(args.teacher is not None))
    folder = output_folder(args)
    if folder.complete:
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work, find_unused_parameters=args.distillation == "sequence")
    tokenizer = load_tokenizer(args.model)
    prepared = prepare(args, args, args.teacher, tokenizer, accelerator)
    task, data, model = prepared.task, prepared.data, prepared.model
    if prepared.kept_aside is None and task.metric() == "squad_v2":
        print("no-answer threshold: 0.5; with --selection 0.1 it is chosen on a tenth of the training rows")
    if accelerator.is_main_process:
        folder.open({f"data of task {args.title()!r}": prepared.digest()})
    accelerator.wait_for_everyone()
    steps = count_steps(args, len(data.features), accelerator.num_processes)
    trained, objective = make_objective(args, prepared, steps[0], accelerator, folder.work)
    selection = None
    if prepared.kept_aside is not None:
        aside = prepared.kept_aside

        def score_aside() -> float:
            return main_score(score(task, predict(model, task, aside, args.batch_size), aside), task.metric())

        selection = make_selection(model, score_aside, folder.work, steps, accelerator)
    log = train(
        accelerator,
        trained,
        objective,
        data.features,
        task.collate,
        args,
        steps[0],
        folder.work / "checkpoints",
        f"Fine-tuning on {args.title()}",
        lengths=[length(ids) for ids in data.features["input_ids"]],
        after_step=selection,
    )
    results: dict[str, dict[str, float]] = {}
    if accelerator.is_main_process:
        if selection is not None:
            results["selection"] = dict(zip(("step", "score"), selection.restore()))
        results |= final_figures(prepared, model, args.batch_size)
    if args.labels_alone:
        accelerator.print("now once more on the labels alone, from the same start")
        alone = run(without_teacher(asked, folder.work / LABELS_ALONE), nested=True)
        for part in prepared.scored if accelerator.is_main_process else ():
            results[f"{part.split}, labels alone"] = alone[part.split]
            print(described_gain(part.split, results, task.metric()))
    if accelerator.is_main_process:
        write_model(folder.work, trained, model, tokenizer, "finetune", args, task.args, results)
        write_json(folder.work / "training_log.json", log)
        (folder.work / SELECTED).unlink(missing_ok=True)
        shutil.rmtree(folder.work / LABELS_ALONE, ignore_errors=True)
        finished = folder.finish()
        if not nested:
            print(finished)
    accelerator.wait_for_everyone()
    return results


def output_folder(args: FinetuneArguments) -> OutputFolder:
    """The folder of a run."""
    return run_folder(args, ("model", "teacher"), "data", args.data, args.augmented_data)


def without_teacher(args: FinetuneArguments, output: Path) -> FinetuneArguments:
    """The same run on the labels alone, from the same start, into another folder."""
    return replace(args, teacher=None, label_weight=0.0, temperature=1.0, labels_alone=False, output_dir=str(output))


def run_seeds(args: FinetuneArguments) -> dict[str, dict[str, float]]:
    """One run a seed, each in a folder of its own, and the mean and standard deviation of their figures."""
    folder = output_folder(args)
    if folder.complete:
        return read_results(folder.path)
    accelerator = make_accelerator(args, folder.work)
    # Refuses before anything is written.
    prepared = prepare(args, args, args.teacher, load_tokenizer(args.model), accelerator)
    if accelerator.is_main_process:
        folder.open({f"data of task {args.title()!r}": prepared.digest()})
    accelerator.wait_for_everyone()
    runs = [
        run(replace(args, seed=seed, seeds=None, output_dir=str(folder.work / f"seed-{seed}")), nested=True)
        for seed in args.seeds or ()
    ]
    if not accelerator.is_main_process:
        return {}
    summary = {split: summarize([result[split] for result in runs]) for split in runs[0]}
    for split, figures in summary.items():
        print(described(f"{split}, {len(runs)} seeds", figures))
    for part in prepared.scored if args.labels_alone else ():
        print(f"{len(runs)} seeds, {described_gain(part.split, summary, prepared.task.metric())}")
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
