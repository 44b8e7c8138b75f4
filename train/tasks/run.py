"""What runs on one task and on several have in common: their length, the selection of weights, and the outcome."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from efficientbert.train.distillation.projection import save_projection
from efficientbert.train.distillation.task_objective import TaskStudent
from efficientbert.train.engine.best_weights import Selection
from efficientbert.train.files.writing import write_json
from efficientbert.train.model_folder.write import write_checkpoint
from efficientbert.train.tasks.arguments import TaskArguments, TaskTrainingArguments
from efficientbert.train.tasks.prediction import main_score, predict, score
from efficientbert.train.tasks.preparation import Prepared


SELECTED = "selected.safetensors"  # the best weights, while a run lasts


def count_steps(args: TaskTrainingArguments, rows: int, processes: int) -> tuple[int, int]:
    """Optimizer steps of a run, and of one pass over its rows."""
    steps = rows / (args.batch_size * args.gradient_accumulation_steps * processes)
    return args.max_steps or math.ceil(args.num_epochs * steps), math.ceil(steps)


def make_selection(
    model: nn.Module, score: Callable[[], float], folder: Path, steps: tuple[int, int], accelerator: Accelerator
) -> Selection:
    """Keeps the best weights, looked at after every pass over the rows.

    Args:
        model: The model in training.
        score: See `Selection`.
        folder: Where they are kept.
        steps: As of `count_steps`.
        accelerator: Of the run.
    """
    return Selection(model, score, folder / SELECTED, steps[1], steps[0], accelerator.is_main_process)


def final_figures(prepared: Prepared, model: PreTrainedModel, batch_size: int) -> dict[str, dict[str, float]]:
    """Settles thresholds on the rows kept aside, and scores the final weights on every split; prints the figures.

    Those of a teacher stand beside its student's: they are what can be hoped for.
    """
    task, aside = prepared.task, prepared.kept_aside
    if aside is not None:
        task.calibrate(model, predict(model, task, aside, batch_size), aside)
    results = {}
    for part in prepared.scored:
        results[part.split] = score(task, predict(model, task, part, batch_size), part)
        print(described(part.split, results[part.split]))
        if prepared.teacher is not None:
            name = f"{part.split}, teacher"
            results[name] = score(task, predict(prepared.teacher.model, task, part, batch_size), part)
            print(described(name, results[name]))
    return results


def described_gain(split: str, results: dict[str, dict[str, float]], metric: str) -> str:
    """Whether a student gains by its teacher on a split, by the number that weights are chosen by, in one line."""
    under, alone = main_score(results[split], metric), main_score(results[f"{split}, labels alone"], metric)
    verdict = "gains by its teacher" if under > alone else "does not gain by its teacher"
    if under == alone:
        verdict = "is as good with its teacher as without"
    return f"{split}: the student {verdict}: {under:.4f} under it, {alone:.4f} on labels alone"


def described(title: str, figures: dict[str, float]) -> str:
    """Figures in one line."""
    return f"{title}: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


def write_model(
    folder: Path,
    trained: nn.Module,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    step: str,
    args: TaskTrainingArguments,
    source: TaskArguments,
    results: dict[str, dict[str, float]],
) -> None:
    """Writes a fine-tuned model with its record and figures and, of a student, its projection.

    Args:
        folder: Where to.
        trained: What was trained: the model, or a student with it.
        model: The model.
        tokenizer: Its tokenizer.
        step: The command that made it.
        args: Its arguments.
        source: The data of the task.
        results: Figures of every split.
    """
    task, sources = source.task_arguments(), [source.source()]
    write_checkpoint(folder, model, tokenizer, step, args, results, args.model, task, sources)
    if isinstance(trained, TaskStudent):
        save_projection(trained.projection, folder)
    write_json(folder / "results.json", results)


def read_results(folder: Path) -> dict[str, Any]:
    """The figures of a finished folder."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))
