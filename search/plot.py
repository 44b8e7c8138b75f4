"""Pictures of a search."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np


matplotlib.use("Agg")
from matplotlib import pyplot


def plot_search(rows: Sequence[dict[str, Any]], metric: str, path: Path) -> None:
    """Draws the loss of all candidates over time, with the best so far, and over cost.

    Args:
        rows: Candidates in order, each with `loss` and `cost`.
        metric: What cost is measured in.
        path: PNG file to write.
    """
    losses = np.array([row["loss"] for row in rows])
    figure, (over_time, over_cost) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    over_time.plot(losses, ".", color="tab:gray", label="candidate")
    over_time.step(range(len(losses)), np.fmin.accumulate(losses), where="post", label="best so far")
    over_time.set(xlabel="candidate", ylabel="loss of the slice")
    over_time.legend()
    over_cost.scatter([row["cost"] for row in rows], losses, c=range(len(rows)), s=12)
    over_cost.set(xlabel=metric, ylabel="loss of the slice")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_comparison(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws held-out loss and task accuracy of several models side by side.

    Args:
        rows: Each with `model`, `held_out["loss"]` and `task["accuracy"]`.
        path: PNG file to write.
    """
    names = [row["model"] for row in rows]
    figure, (loss, accuracy) = pyplot.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    loss.bar(names, [row["held_out"]["loss"] for row in rows], color="tab:blue")
    loss.set(title="distillation loss on held-out text", ylabel="loss")
    accuracy.bar(names, [row["task"]["accuracy"] for row in rows], color="tab:orange")
    accuracy.set(title="task, validation split", ylabel="accuracy", ylim=(0, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
