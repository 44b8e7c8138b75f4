"""Metric modules for `evaluate` that need no network."""

from pathlib import Path

import evaluate

from efficientbert.train.script import InputError


GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "ax")


def load_metric(name: str) -> evaluate.EvaluationModule:
    """A metric by name: ours where there is one, else the module of that name on the Hub or on disk.

    Args:
        name: A GLUE task (`stsb` suits any regression), `accuracy`, `squad`, `squad_v2`, or anything
            that `evaluate.load` takes.

    Raises:
        InputError: if there is no such metric, or it cannot be fetched.
    """
    folder = Path(__file__).parent
    if name in (*GLUE, "accuracy"):
        return evaluate.load(str(folder / "glue.py"), name, keep_in_memory=True)
    if name in ("squad", "squad_v2"):
        return evaluate.load(str(folder / "squad.py"), name, keep_in_memory=True)
    try:
        return evaluate.load(name)
    # The module is foreign code: what fails in it can raise anything.
    except Exception as error:
        known = ", ".join((*GLUE, "accuracy", "squad", "squad_v2"))
        raise InputError(
            f"metric {name!r}: {' '.join(str(error).split())}; known without the Hub are {known}"
        ) from None
