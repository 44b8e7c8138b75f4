"""Metric modules for `evaluate` that need no network."""

from numbers import Real
from pathlib import Path
from typing import Any

import evaluate

from efficientbert.train.cli.errors import InputError


GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "ax")


def load_metric(name: str) -> evaluate.EvaluationModule:
    """A metric by name: ours where there is one, else the module of that name on the Hub or on disk.

    Args:
        name: A GLUE task (`stsb` suits any regression), `accuracy`, `squad`, `squad_v2`, `entities`, `tags`,
            `multi_label`, or anything that `evaluate.load` takes.

    Raises:
        InputError: if there is no such metric, or it cannot be fetched.
    """
    folder = Path(__file__).parent
    if name in (*GLUE, "accuracy"):
        return evaluate.load(str(folder / "glue.py"), name, keep_in_memory=True)
    if name in ("squad", "squad_v2"):
        return evaluate.load(str(folder / "squad.py"), name, keep_in_memory=True)
    if name in ("entities", "tags"):
        return evaluate.load(str(folder / "entities.py"), name, keep_in_memory=True)
    if name == "multi_label":
        return evaluate.load(str(folder / "multi_label.py"), keep_in_memory=True)
    try:
        return evaluate.load(name)
    # The module is foreign code: what fails in it can raise anything.
    except Exception as error:
        known = ", ".join((*GLUE, "accuracy", "squad", "squad_v2", "entities", "tags", "multi_label"))
        raise InputError(
            f"metric {name!r}: {' '.join(str(error).split())}; known without the Hub are {known}"
        ) from None


def compute_metric(name: str, predictions: list[Any], references: list[Any], **options: Any) -> dict[str, float]:
    """The figures of a metric over the whole corpus.

    Args:
        name: As of `load_metric`.
        predictions, references: What the metric takes, one of every row.
        options: What it takes beside them.

    Raises:
        InputError: if the metric cannot be loaded, or cannot be computed on these.
    """
    metric = load_metric(name)
    try:
        figures = numbers(metric.compute(predictions=predictions, references=references, **options))
    except Exception as error:  # as in `load_metric`
        raise InputError(f"metric {name!r}: cannot be computed: {' '.join(str(error).split())}") from None
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
