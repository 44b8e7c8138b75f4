"""Scores a checkpoint on a task through `evaluate`.

efficientbert evaluate --model my-student-rte --task rte
efficientbert evaluate --model my-reviews --data reviews.csv --text_column review --split "train[90%:]"
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import EvalResult
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from efficientbert.train.card import add_results
from efficientbert.train.folders import write_json
from efficientbert.train.metrics import load_metric
from efficientbert.train.script import LOAD_ERRORS, InputError, run_script
from efficientbert.train.tasks import TaskArguments, TaskCollator, TaskData, load_task


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
def predict(
    model: PreTrainedModel, rows: Dataset, collator: Callable[[list], dict[str, torch.Tensor]], batch_size: int
) -> np.ndarray:
    """Logits of all rows, in order, of shape `(N, outputs)`. Rows of like length go together."""
    model.eval()
    device = next(model.parameters()).device
    order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable")
    logits = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    for start in tqdm(range(0, len(rows), batch_size), desc="Scoring", unit="batch", leave=False):
        chosen = order[start : start + batch_size]
        batch = collator([rows[int(index)] for index in chosen])
        inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
        logits[chosen] = model(**inputs).logits.float().cpu().numpy()
    return logits


def score_predictions(logits: np.ndarray, data: TaskData, metric: str) -> dict[str, float]:
    """Corpus-level figures of a metric.

    Args:
        logits: Shape `(N, outputs)`, rows in the order of `data`.
        data: What was predicted.
        metric: Name for `load_metric`.
    """
    predictions = logits[:, 0] if data.label_names is None else logits.argmax(-1)
    return load_metric(metric).compute(predictions=predictions, references=data.rows["labels"])


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
            dataset_type=args.data,
            dataset_name=args.task or Path(args.data).name,
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
    args.columns()
    model = load_scored_model(args)
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    except LOAD_ERRORS as error:
        raise InputError(f"model {args.model}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
    regression = model.config.num_labels == 1
    label_names = None if regression else [model.config.id2label[index] for index in range(model.config.num_labels)]
    data = load_task(args, args.split, tokenizer, label_names)
    if regression != (data.label_names is None):
        kinds = ("a number", "classes") if regression else ("classes", "a number")
        raise InputError(f"model {args.model}: predicts {kinds[0]}, but the labels of {args.data} are {kinds[1]}")
    logits = predict(model, data.rows, TaskCollator(tokenizer.pad_token_id), args.batch_size)
    result = score_predictions(logits, data, args.metric_name(regression))
    print(f"| {'metric':<20} | {'value':>8} |\n|{'-' * 22}|{'-' * 9}:|")
    for name, value in result.items():
        print(f"| {name:<20} | {value:>8.4f} |")
    report = {
        "model": Path(args.model).name,
        "task": args.task,
        "data": Path(args.data).name,
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
