"""Metrics over a whole corpus: ours, which need no network, or any of `evaluate`."""

from numbers import Real
from types import ModuleType
from typing import Any

import evaluate

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.metrics import entities, glue, multi_label, squad


# Each of these modules has `row_values`, what every row adds, `figures`, made of these, and `compute`, the whole.
OURS: dict[str, ModuleType] = {
    **dict.fromkeys(glue.TASKS, glue),
    **dict.fromkeys(squad.METRICS, squad),
    **dict.fromkeys(("entities", "tags"), entities),
    "multi_label": multi_label,
}
PERCENTAGES = squad.METRICS  # by their standard; the rest of ours give fractions


def load_metric(name: str) -> evaluate.EvaluationModule | None:
    """A metric that is not ours, from the Hub or the disk; None where it is.

    Args:
        name: One of `OURS` (a GLUE task, of which `stsb` suits any regression, `accuracy`, `squad`, `squad_v2`,
            `entities`, `tags`, `multi_label`), or anything that `evaluate.load` takes.

    Raises:
        InputError: if there is no such metric, or it cannot be fetched.
    """
    if name in OURS:
        return None
    try:
        return evaluate.load(name, keep_in_memory=True)
    # The module is foreign code: what fails in it can raise anything.
    except Exception as error:
        known = ", ".join(map(repr, OURS))
        raise InputError(f"metric {name!r}: {one_line(error)}; known without the Hub are {known}") from None


def compute_metric(name: str, predictions: list[Any], references: list[Any], **options: Any) -> dict[str, float]:
    """The figures of a metric over the whole corpus.

    Args:
        name: As of `load_metric`.
        predictions, references: What the metric takes, one of every row.
        options: What it takes beside them.

    Raises:
        InputError: if the metric cannot be loaded, or cannot be computed on these.
    """
    foreign = load_metric(name)
    try:
        if foreign is None:
            return OURS[name].compute(name, predictions, references, **options)
        figures = numbers(foreign.compute(predictions=predictions, references=references, **options))
    except Exception as error:  # as in `load_metric`
        raise InputError(f"metric {name!r}: cannot be computed: {one_line(error)}") from None
    if not figures:
        raise InputError(f"metric {name!r}: gives no numbers")
    return figures


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """Of what a metric returns, the numbers: others also return lists, tables or texts."""
    return {
        name: value if isinstance(value, int) else float(value)
        for name, value in result.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    }
