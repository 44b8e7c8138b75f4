"""What a model predicts for labelled rows, and what figures that comes to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from efficientbert.train.cli.errors import InputError
from efficientbert.train.metrics import PERCENTAGES, compute_metric
from efficientbert.train.metrics.intervals import draw_rows, figures_of_rows
from efficientbert.train.tasks.task import Task, TaskData, model_inputs


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
    model.eval()
    logits = run_rows(model, task, data, batch_size, device)
    model.train(training)
    return logits


def run_rows(
    run: Callable[..., Any], task: Task, data: TaskData, batch_size: int, device: torch.device | str = "cpu"
) -> list[np.ndarray]:
    """As `predict`, of anything that is called as a model of the task is.

    Args:
        run: Takes model inputs, and returns what has the outputs of a model as attributes.
        task: What it is for.
        data: As of `predict`.
        batch_size: As of `predict`.
        device: Where it takes its inputs.
    """
    order = np.argsort([length(ids) for ids in data.features["input_ids"]], kind="stable")
    logits: list[np.ndarray] = [np.empty(0)] * len(order)
    for start in tqdm(range(0, len(order), batch_size), desc="Predicting", unit="batch", leave=False, disable=None):
        chosen = [int(index) for index in order[start : start + batch_size]]
        batch = task.collate([data.features[index] for index in chosen])
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        for index, row in zip(chosen, task.logits(run(**model_inputs(batch)), batch)):
            logits[index] = row
    return logits


def length(ids: list[int] | list[list[int]]) -> int:
    """Tokens of a feature; of the longest choice where it has several."""
    return max(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)


def check_length(model: PreTrainedModel, data: TaskData, what: str) -> None:
    """Holds the longest feature of a split against a model's positions.

    Raises:
        InputError: if it has too few, naming `what` it is.
    """
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return
    positions = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    longest = max(map(length, data.features["input_ids"]))
    if longest > positions:
        raise InputError(
            f"max_length: {what} has {positions} positions, but split {data.split!r} a sequence of {longest} tokens; "
            "lower it"
        )


def score(task: Task, logits: list[np.ndarray], data: TaskData) -> dict[str, float]:
    """Corpus-level figures of the task's metric.

    Args:
        task: The task.
        logits: As of `predict`.
        data: What was predicted, with its labels.
    """
    predictions, references = task.predict(logits, data), task.references(data)
    return compute_metric(task.metric(), predictions, references, **task.metric_options())


@dataclass(frozen=True)
class Scored:
    """What predictions come to, and what those of rows drawn again.

    Attributes:
        metrics: All figures; those that are chosen by looking at the answers are left out, as no draw has them.
        name: Of the main figure.
        score: The main figure, see `main_score`.
        draws: The main figures of the draws. Draws depend on the seed and the number of rows alone, so that models are
            compared on the same ones.
    """

    metrics: dict[str, float]
    name: str
    score: float
    draws: np.ndarray


def score_draws(task: Task, logits: list[np.ndarray], data: TaskData, draws: int, seed: int) -> Scored:
    """The figures of outputs on all rows, and on rows drawn again with replacement.

    Args:
        task: The task.
        logits: As of `predict`.
        data: What was predicted, with its labels.
        draws: How often rows are drawn again.
        seed: Of the draws.
    """
    predictions, references = task.predict(logits, data), task.references(data)
    metric, count = task.metric(), len(references)
    figures = figures_of_rows(metric, predictions, references, task.metric_options())
    metrics = figures(np.arange(count))
    drawn = np.array([main_score(figures(rows), metric) for rows in draw_rows(count, draws, seed)])
    return Scored(metrics, main_name(metrics), main_score(metrics, metric), drawn)


def main_score(result: dict[str, float], metric: str) -> float:
    """The number that weights and candidates are chosen by: F1, at the best threshold if there is one, or the first.

    Args:
        result: As of `score`.
        metric: Name of its metric. What it gives as percentages becomes a fraction.
    """
    number = result[main_name(result)]
    return number / 100 if metric in PERCENTAGES else number


def main_name(result: dict[str, float]) -> str:
    """Which figure of a result `main_score` takes."""
    return next((name for name in ("best_f1", "f1") if name in result), next(iter(result)))
