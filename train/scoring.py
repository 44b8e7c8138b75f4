"""Scores a checkpoint on a task through `evaluate`.

efficientbert evaluate --model my-student-rte --task rte
efficientbert evaluate --model my-reviews --data reviews.csv --text_column review --split "train[90%:]"
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import EvalResult
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from efficientbert.train.card import add_results
from efficientbert.train.folders import write_json
from efficientbert.train.metrics import load_metric
from efficientbert.train.script import LOAD_ERRORS, InputError, run_script
from efficientbert.train.tasks import TaskArguments, task_of_model
from efficientbert.train.tasks.task import Task, TaskData, model_inputs


@dataclass(kw_only=True)
class EvaluateArguments(TaskArguments):
    """Scores a checkpoint on a labelled task and prints a table; optionally writes JSON and the model card."""

    model: str = field(metadata={"help": "Folder or Hub id of a fine-tuned model."})
    split: str = field(default="validation", metadata={"help": "Split to score."})
    batch_size: int = field(default=64, metadata={"help": "Rows at a time."})
    device: str = field(default="cuda" if torch.cuda.is_available() else "cpu", metadata={"help": "cpu, cuda, mps, …"})
    output_json: str | None = field(default=None, metadata={"help": "File to write the figures to."})
    update_card: bool = field(default=False, metadata={"help": "Add the figures to the model card in the folder."})


@torch.no_grad()
def predict(model: PreTrainedModel, task: Task, data: TaskData, batch_size: int) -> list[np.ndarray]:
    """A model's outputs for every feature of a split, in order; features of like length go together.

    Args:
        model: On any device, in either mode.
        task: What the model is for.
        data: The split; its labels are not read.
        batch_size: Features at a time.
    """
    device, training = next(model.parameters()).device, model.training
    order = np.argsort([length(ids) for ids in data.features["input_ids"]], kind="stable")
    logits: list[np.ndarray] = [np.empty(0)] * len(order)
    model.eval()
    for start in tqdm(range(0, len(order), batch_size), desc="Predicting", unit="batch", leave=False, disable=None):
        chosen = [int(index) for index in order[start : start + batch_size]]
        batch = task.collate([data.features[index] for index in chosen])
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        for index, row in zip(chosen, task.logits(model(**model_inputs(batch)), batch)):
            logits[index] = row
    model.train(training)
    return logits


def length(ids: list[int] | list[list[int]]) -> int:
    """Tokens of a feature; of the longest choice where it has several."""
    return max(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)


def score(task: Task, logits: list[np.ndarray], data: TaskData) -> dict[str, float]:
    """Corpus-level figures of the task's metric.

    Args:
        task: The task.
        logits: As of `predict`.
        data: What was predicted, with its labels.
    """
    predictions, references = task.predict(logits, data), task.references(data)
    return load_metric(task.metric()).compute(predictions=predictions, references=references, **task.metric_options())


def load_scored_model(args: EvaluateArguments) -> PreTrainedModel:
    """The model to score.

    Raises:
        InputError: if it cannot be loaded or has no trained head.
    """
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(args.model, output_loading_info=True)
    except LOAD_ERRORS as error:
        raise InputError(f"model {args.model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if report["missing_keys"]:
        raise InputError(f"model {args.model}: has no trained head for this task; run `efficientbert finetune` first")
    return model.to(args.device)


def card_results(args: EvaluateArguments, result: dict[str, float]) -> list[EvalResult]:
    """The figures as the model card takes them."""
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=args.source(),
            dataset_name=args.title(),
            dataset_config=args.data_name or args.task,
            dataset_split=args.split,
            metric_type=name,
            metric_value=value,
        )
        for name, value in result.items()
    ]


def main(args: EvaluateArguments) -> dict[str, Any]:
    """Runs the job; prints and returns the figures."""
    if args.batch_size < 1:
        raise InputError(f"batch_size: must be at least 1, not {args.batch_size}")
    args.check_task()
    model = load_scored_model(args)
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    except LOAD_ERRORS as error:
        raise InputError(f"model {args.model}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
    task = task_of_model(args, tokenizer, model.config)
    data = task.load(args.split)
    result = score(task, predict(model, task, data, args.batch_size), data)
    print(f"| {'metric':<20} | {'value':>8} |\n|{'-' * 22}|{'-' * 9}:|")
    for name, value in result.items():
        print(f"| {name:<20} | {value:>8.4f} |")
    report = {
        "model": Path(args.model).name,
        "task": args.task,
        "data": Path(args.source()).name,
        "split": args.split,
        "rows": len(data.rows),
        "metrics": result,
    }
    if args.update_card:
        add_results(Path(args.model), card_results(args, result))
    if args.output_json:
        write_json(Path(args.output_json), report)
    return report


def cli() -> None:
    """Runs the script with this process's arguments."""
    run_script(main, EvaluateArguments, "evaluate")


if __name__ == "__main__":
    cli()
