"""Pictures of a search."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from efficientbert.search.study.pareto import pareto_front
from efficientbert.search.study.record import Record
from efficientbert.train.files.writing import writing


matplotlib.use("Agg")


def plot_history(records: Sequence[Record], objective: str, path: Path) -> None:
    """Draws an objective of all candidates in their order, the best so far, and which have failed.

    Args:
        records: Candidates in order.
        objective: Name of the figure.
        path: PNG file to write.
    """
    values = np.array([record.figures[objective] if record.state == "COMPLETE" else np.nan for record in records])
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(values, ".", color="tab:gray", label="candidate")
    if np.isfinite(values).any():
        axes.step(range(len(values)), np.fmin.accumulate(values), where="post", label="best so far")
    for state, label, color in (("PRUNED", "given up", "tab:orange"), ("FAIL", "failed", "tab:red")):
        numbers = [index for index, record in enumerate(records) if record.state == state]
        if numbers:
            bottom = axes.get_xaxis_transform()
            axes.plot(numbers, [0.02] * len(numbers), "x", color=color, label=label, transform=bottom)
    axes.set(xlabel="candidate", ylabel=objective)
    axes.legend()
    save_figure(figure, path)


def plot_front(records: Sequence[Record], cost: str, objective: str, path: Path) -> None:
    """Draws all complete candidates over their cost, early ones dark, late ones bright, and the Pareto front.

    Args:
        records: Candidates in order.
        cost: Name of the figure that goes to the right.
        objective: Name of the figure that goes up.
        path: PNG file to write.
    """
    points = [(record.figures[cost], record.figures[objective]) for record in records if record.state == "COMPLETE"]
    front = sorted(points[index] for index in pareto_front(points))
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    if points:
        axes.scatter(*zip(*points), c=range(len(points)), s=12)
        axes.step(*zip(*front), where="post", color="tab:red", label="Pareto front")
        axes.legend()
    axes.set(xlabel=cost, ylabel=objective)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG whole or not at all."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
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
    save_figure(figure, path)
