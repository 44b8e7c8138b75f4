"""Confidence intervals of corpus-level figures: rows are drawn again, with replacement, and the figure taken again.

The percentile interval of Efron and Tibshirani (1993, section 13.3). Rows are what was asked: a text, a question, a
sentence; never windows or tokens of one. The draws depend on nothing but the seed and the number of rows, so that
two models scored on the same rows are compared on the same draws.
"""

import math
from collections.abc import Callable, Iterator
from operator import eq
from typing import Any

import evaluate
import numpy as np
from tqdm.auto import tqdm

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.metrics import load_metric, numbers
from efficientbert.train.metrics.entities import entities
from efficientbert.train.metrics.glue import TASKS as GLUE_FIGURES


LEVEL = 0.95
CHUNK = 2_000_000  # drawn rows held in memory at a time


def bootstrap(
    metric: str, predictions: list[Any], references: list[Any], resamples: int, seed: int, **options: Any
) -> dict[str, tuple[float, float]]:
    """The interval of every figure of a metric that one can be drawn for: ends of the middle 95%.

    Counts of a corpus have none, nor has what the official SQuAD script chooses by looking at the answers.

    Args:
        metric: Name for `load_metric`.
        predictions, references: What the metric takes, one of every row.
        resamples: Draws of as many rows as there are.
        seed: Of the draws.
        options: What the metric takes beside predictions and references.

    Raises:
        InputError: if a metric that is not ours cannot be computed on a draw.
    """
    if metric in GLUE_FIGURES:
        predicted, true = np.asarray(predictions), np.asarray(references)
        figures = {name: FIGURES[name](predicted, true) for name in GLUE_FIGURES[metric]}
    elif metric in ("squad", "squad_v2"):
        figures = question_means(load_metric(metric), predictions, references, options)
    elif metric in ("entities", "tags"):
        figures = tag_figures(metric, predictions, references)
    else:
        return percentiles(foreign_figures(metric, predictions, references, resamples, seed, options))
    drawn = {
        name: [figure(rows) for rows in draws(len(predictions), resamples, seed)] for name, figure in figures.items()
    }
    return percentiles({name: np.concatenate(values) for name, values in drawn.items()})


def draws(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Drawn row numbers in chunks of shape `(draws, rows)`."""
    rng = np.random.default_rng(seed)
    size = max(1, CHUNK // rows)
    for start in range(0, resamples, size):
        yield rng.integers(rows, size=(min(size, resamples - start), rows))


def percentiles(drawn: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The ends of the middle part of drawn figures; draws in which one does not exist are left out."""
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    existing = {name: values[~np.isnan(values)] for name, values in drawn.items()}
    return {
        name: tuple(map(float, np.quantile(values, ends))) if len(values) else (math.nan, math.nan)
        for name, values in existing.items()
    }


# A figure of draws: takes row numbers of shape (draws, rows), gives the figure of every draw.
Figure = Callable[[np.ndarray], np.ndarray]


def mean(values: np.ndarray) -> Figure:
    """Mean of one number a row; rows of not-a-number do not count."""
    counted = ~np.isnan(values)
    values = np.where(counted, values, 0.0)

    def figure(rows: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return values[rows].sum(1) / counted[rows].sum(1)

    return figure


def ratio(over: np.ndarray, under: np.ndarray) -> Figure:
    """The sum of one count a row as a share of the sum of another; 0.0 where that is 0."""
    return lambda rows: over[rows].sum(1) / np.maximum(under[rows].sum(1), 1)


def accuracy(predictions: np.ndarray, references: np.ndarray) -> Figure:
    """Share of equal rows."""
    return mean((predictions == references).astype(float))


def f1(predictions: np.ndarray, references: np.ndarray) -> Figure:
    """F1 of class 1; 0.0 without true positives."""
    predicted, true = (predictions == 1).astype(int), (references == 1).astype(int)
    return ratio(2 * predicted * true, predicted + true)


def matthews(predictions: np.ndarray, references: np.ndarray) -> Figure:
    """Matthews correlation of any number of classes (Gorodkin 2004); 0.0 where one side is constant."""
    classes, ids = np.unique(np.concatenate([predictions, references]), return_inverse=True)
    size = len(classes)
    cells = ids[: len(predictions)] * size + ids[len(predictions) :]

    def figure(rows: np.ndarray) -> np.ndarray:
        offsets = np.arange(len(rows))[:, None] * size**2
        table = np.bincount((cells[rows] + offsets).ravel(), minlength=len(rows) * size**2)
        table = table.reshape(-1, size, size).astype(float)  # (draws, predicted, true)
        predicted, true, total = table.sum(2), table.sum(1), table.sum((1, 2))
        covariance = table.trace(axis1=1, axis2=2) * total - (predicted * true).sum(1)
        variances = (total**2 - (predicted**2).sum(1)) * (total**2 - (true**2).sum(1))
        return np.where(variances > 0, covariance / np.sqrt(np.maximum(variances, 1)), 0.0)

    return figure


def correlate(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; 0.0 where one side is constant."""
    constant = (np.ptp(left, axis=-1) == 0) | (np.ptp(right, axis=-1) == 0)
    left = left - left.mean(-1, keepdims=True)
    right = right - right.mean(-1, keepdims=True)
    norms = np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    return (left * right).sum(-1) / np.where(constant, np.inf, norms)


def pearson(predictions: np.ndarray, references: np.ndarray) -> Figure:
    """Pearson correlation; not-a-number of any draw where there is one among the rows."""
    undefined = np.nan if np.isnan([predictions, references]).any() else 0.0
    return lambda rows: correlate(predictions[rows], references[rows]) + undefined


def spearman(predictions: np.ndarray, references: np.ndarray) -> Figure:
    """As `pearson`, of the ranks within a draw; those of equal values are the middle of theirs."""
    sides = [np.unique(side, return_inverse=True)[1] for side in (predictions, references)]
    undefined = np.nan if np.isnan([predictions, references]).any() else 0.0

    def ranks(ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
        size = ids.max() + 1
        offsets = np.arange(len(rows))[:, None] * size
        counts = np.bincount((ids[rows] + offsets).ravel(), minlength=len(rows) * size).reshape(-1, size)
        middles = counts.cumsum(1) - (counts - 1) / 2
        return np.take_along_axis(middles, ids[rows], axis=1)

    return lambda rows: correlate(*(ranks(ids, rows) for ids in sides)) + undefined


FIGURES = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews,
    "pearson": pearson,
    "spearmanr": spearman,
}


def question_means(
    metric: evaluate.EvaluationModule, predictions: list[dict], references: list[dict], options: dict[str, Any]
) -> dict[str, Figure]:
    """The SQuAD figures that are means over questions: of all, of those with an answer, of those without."""
    paired = {reference["id"]: reference for reference in references}
    alone = [metric._compute([prediction], [paired[prediction["id"]]], **options) for prediction in predictions]
    names = {name: None for scores in alone for name in scores if not name.startswith("best_") and "total" not in name}
    return {name: mean(np.array([scores.get(name, np.nan) for scores in alone])) for name in names}


def tag_figures(metric: str, predictions: list[list[str]], references: list[list[str]]) -> dict[str, Figure]:
    """The figures of tagged texts, from the counts of every text."""
    words = np.array([len(true) for true in references])
    right = np.array([sum(map(eq, *tags)) for tags in zip(predictions, references)])
    accuracies = {"accuracy": ratio(right, words)}
    if metric == "tags":
        return accuracies
    found = [tuple(map(entities, tags)) for tags in zip(predictions, references)]
    hits = np.array([len(predicted & true) for predicted, true in found])
    predicted, true = np.array([list(map(len, pair)) for pair in found]).T
    figures = {"f1": ratio(2 * hits, predicted + true)}
    return figures | {"precision": ratio(hits, predicted), "recall": ratio(hits, true)} | accuracies


def foreign_figures(
    name: str, predictions: list[Any], references: list[Any], resamples: int, seed: int, options: dict[str, Any]
) -> dict[str, np.ndarray]:
    """The figures of a metric of which nothing is known, computed anew on every draw.

    Raises:
        InputError: if it cannot be computed on one.
    """
    metric = load_metric(name)
    drawn: dict[str, list[float]] = {}
    progress = tqdm(total=resamples, desc="Resampling", unit="draw", leave=False, disable=None)
    for rows in (rows for chunk in draws(len(predictions), resamples, seed) for rows in chunk):
        predicted, true = ([side[row] for row in rows] for side in (predictions, references))
        try:
            result = metric._compute(predictions=predicted, references=true, **options)
        except Exception as error:  # foreign code can raise anything
            raise InputError(
                f"metric {name!r}: cannot be computed on a draw of the rows: {one_line(error)}; "
                "--bootstrap 0 leaves the intervals out"
            ) from None
        for figure, value in numbers(result).items():
            drawn.setdefault(figure, []).append(value)
        progress.update()
    return {figure: np.array(values, dtype=float) for figure, values in drawn.items()}
