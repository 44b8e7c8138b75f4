"""Confidence intervals of corpus-level figures: rows are drawn again, with replacement, and the figure taken again.

The percentile interval of Efron and Tibshirani (1993, section 13.3), as `scipy.stats.bootstrap` gives it for one
figure of two rows or more. Rows are what was asked: a text, a question, a sentence; never windows or tokens of one.
The draws depend on nothing but the seed and the number of rows, so that two models scored on the same rows are
compared on the same draws.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.metrics import OURS, load_metric, numbers


LEVEL = 0.95


def bootstrap(
    metric: str, predictions: list[Any], references: list[Any], resamples: int, seed: int, **options: Any
) -> dict[str, tuple[float, float]]:
    """The interval of every figure of a metric that one can be drawn for: ends of the middle 95%.

    Counts have none, nor has what the official SQuAD script chooses by looking at the answers. A draw in which a
    figure does not exist, such as that of unanswerable questions without one, does not count for it.

    Args:
        metric: Name for `load_metric`.
        predictions, references: What the metric takes, one of every row.
        resamples: Draws of as many rows as there are.
        seed: Of the draws.
        options: What the metric takes beside predictions and references.

    Raises:
        InputError: if the metric cannot be loaded, or one that is not ours cannot be computed on a draw.
    """
    figures = figures_of_rows(metric, predictions, references, options)
    drawn: dict[str, list[float]] = {}
    for rows in draw_rows(len(references), resamples, seed):
        for name, value in figures(rows).items():
            if isinstance(value, float):
                drawn.setdefault(name, []).append(value)
    return {name: interval(values) for name, values in drawn.items()}


def draw_rows(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Numbers of rows, drawn again with replacement, each of shape `(count,)`; shows a bar."""
    rng = np.random.default_rng(seed)
    for _ in tqdm(range(resamples), desc="Resampling", unit="draw", leave=False, disable=None):
        yield rng.integers(count, size=count)


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95% of draws."""
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
    return low, high


def figures_of_rows(
    metric: str, predictions: list[Any], references: list[Any], options: dict[str, Any]
) -> Callable[[np.ndarray], dict[str, float]]:
    """The figures of a metric by the numbers of the rows that are drawn."""
    foreign = load_metric(metric)
    if foreign is None:
        values = OURS[metric].row_values(metric, predictions, references, **options)
        return lambda rows: OURS[metric].figures(metric, {name: column[rows] for name, column in values.items()})

    def figures(rows: np.ndarray) -> dict[str, float]:
        predicted, true = ([side[row] for row in rows] for side in (predictions, references))
        try:
            return numbers(foreign.compute(predictions=predicted, references=true, **options))
        except Exception as error:  # foreign code can raise anything
            raise InputError(
                f"metric {metric!r}: cannot be computed on a draw of the rows: {one_line(error)}; --bootstrap 0 "
                "leaves the intervals out"
            ) from None

    return figures
