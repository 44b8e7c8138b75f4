"""Pictures of a search."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from efficientbert.search.study.pareto import pareto_front
from efficientbert.search.study.record import Record
from efficientbert.train.files.writing import writing


# Okabe and Ito's colours, which colour-blind readers tell apart; markers and dashes say the same in grey.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#777777"
UNITS = {  # how a figure is drawn: its axis, and what of it is one unit there
    "loss": ("loss", 1.0),
    "parameters": ("parameters (millions)", 1e6),
    "flops": ("FLOPs of a sequence (billions)", 1e9),
    "latency": ("latency of a forward (ms)", 1.0),
}


def plot_history(records: Sequence[Record], objective: str, path: Path) -> Figure:
    """Draws an objective of all candidates by their number, the best so far, and which have failed.

    Args:
        records: Candidates in order.
        objective: Name of the figure.
        path: PNG file to write.

    Returns:
        What was written.
    """
    label, unit = UNITS.get(objective, (objective, 1.0))
    numbers = [record.number for record in records]
    values = np.array(
        [record.figures[objective] / unit if record.state == "COMPLETE" else np.nan for record in records]
    )
    figure, axes = _figure()
    if np.isfinite(values).any():
        axes.plot(numbers, values, "o", color=GREY, markersize=6, label="candidate")
        axes.step(numbers, np.fmin.accumulate(values), where="post", color=BLUE, linewidth=2.5, label="best so far")
    for state, name, color, marker in (("PRUNED", "given up", ORANGE, "v"), ("FAIL", "failed", RED, "x")):
        found = [record.number for record in records if record.state == state]
        if found:
            bottom = axes.get_xaxis_transform()
            axes.plot(found, [0.03] * len(found), marker, color=color, markersize=8, label=name, transform=bottom)
    axes.set(xlabel="candidate", ylabel=label, ymargin=0.12)  # the marks of failures keep clear of the line
    if numbers:
        axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _finish(figure, path)
    return figure


def plot_front(records: Sequence[Record], cost: str, objective: str, path: Path) -> Figure:
    """Draws all complete candidates over their cost, coloured by their number, and the Pareto front.

    Args:
        records: Candidates in order.
        cost: Name of the figure that goes to the right.
        objective: Name of the figure that goes up.
        path: PNG file to write.

    Returns:
        What was written.
    """
    (right, right_unit), (up, up_unit) = (UNITS.get(name, (name, 1.0)) for name in (cost, objective))
    complete = [record for record in records if record.state == "COMPLETE"]
    points = [(record.figures[cost] / right_unit, record.figures[objective] / up_unit) for record in complete]
    figure, axes = _figure()
    if points:
        front = sorted(points[index] for index in pareto_front(points))
        axes.step(
            *zip(*front),
            "o-",
            where="post",
            color=RED,
            linewidth=2,
            markersize=11,
            fillstyle="none",
            label="Pareto front",
        )
        numbers = [record.number for record in complete]
        ends = {"vmin": 0, "vmax": max(1, *numbers)}
        dots = axes.scatter(*zip(*points), c=numbers, s=45, cmap="cividis", label="candidate", zorder=2, **ends)
        bar = figure.colorbar(dots, ax=axes, ticks=MaxNLocator(integer=True, min_n_ticks=1))
        bar.set_label("number of the candidate", fontsize=14)
        bar.ax.tick_params(labelsize=12)
    axes.set(xlabel=right, ylabel=up)
    _finish(figure, path)
    return figure


def _figure() -> tuple:
    """A figure and its axes, readable at half its size."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.xaxis.label.set_fontsize(14)
    axes.yaxis.label.set_fontsize(14)
    axes.tick_params(labelsize=12)
    axes.ticklabel_format(useOffset=False)
    axes.grid(alpha=0.3)
    return figure, axes


def _finish(figure: Figure, path: Path) -> None:
    """Adds the key, and writes a PNG whole or not at all."""
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=4, fontsize=13, frameon=False)
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
