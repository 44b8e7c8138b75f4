"""What a compression says of its models: a table, a plot, and a section in each model's card."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from efficientbert.search.compression.arguments import CompressArguments
from efficientbert.search.costs.machine import describe_machine
from efficientbert.search.study.plot import BLUE, GREY, ORANGE
from efficientbert.train.files.tables import table
from efficientbert.train.files.writing import writing
from efficientbert.train.model_folder.siblings import COMPRESSION, MADE


TABLE, PLOT = "compression.md", "compression.png"
SECTION = "Beside its teacher"  # of a card
# Roles of a row; a rival has the same shape and was not distilled.
TEACHER, RIVAL = "teacher", "rival"


def make_table(rows: Sequence[dict[str, Any]]) -> str:
    """The models as a Markdown table.

    Args:
        rows: One a model, the teacher first: `model`, `role`, `latency_ms`, `megabytes`, `parameters`, and where they
            are known `metric`, `quality`, `interval_95` and, over the untrained model of its shape, `gain` and
            `gain_interval_95`.
    """
    teacher, lines = rows[0], []
    metric = next((row["metric"] for row in rows if "metric" in row), None)
    for row in rows:
        gain = f"{row['gain']:+.3f}{_ends(row, 'gain_interval_95')}" if "gain" in row else ""
        lines.append(
            (
                row["model"],
                f"{row['quality']:.3f}{_ends(row, 'interval_95')}" if "quality" in row else "",
                gain,
                f"{row['latency_ms']:.1f}",
                f"{teacher['latency_ms'] / row['latency_ms']:.1f}x",
                f"{row['megabytes']:.0f}",
                f"{row['parameters'] / 1e6:.1f}M",
            )
        )
    header = ("model", metric or "quality", "gained by distillation", "ms a text", "speed-up", "MB", "parameters")
    return table(header, lines, aligned=True)


def _ends(row: dict[str, Any], name: str) -> str:
    """An interval in brackets, where there is one."""
    return f" ({row[name][0]:.3f} to {row[name][1]:.3f})" if name in row else ""


def explain(rows: Sequence[dict[str, Any]], threads: int, args: CompressArguments, labelled: bool) -> str:
    """What the columns of the table mean.

    Args:
        rows: As of `make_table`.
        threads: CPU threads of the times.
        args: Arguments of the run.
        labelled: Whether the rows had labels of their own.
    """
    said = (
        f"Milliseconds are those of one text of {args.max_length} tokens at batch 1 in {args.runtime or 'PyTorch'}, "
        f"with {threads} threads on {describe_machine()['processor']}; megabytes are those of the encoder's weights "
        "in float32."
    )
    scored = next((row for row in rows if "rows" in row), None)
    if scored is not None:
        whose = "the" if labelled else "the teacher's"
        said += (
            f" Quality is on {scored['rows']:,} rows of the split {scored['split']!r}, with 95% bootstrap intervals. "
            "What is gained is over the same shape, started from the teacher's weights and fine-tuned on "
            f"{whose} labels alone, on the same draws of rows."
        )
        if not labelled:
            said += " The rows had no labels: the teacher's stand in, so quality is agreement with it."
    elif any("quality" in row for row in rows):
        said += " Quality is the mean cosine to the teacher on held-out text; gained is over the same shape untrained."
    return said


def plot_models(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws quality over milliseconds and writes it as a PNG file; nothing where no quality is known."""
    known = [row for row in rows if "quality" in row]
    if not known:
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    styles = {TEACHER: (GREY, "*", 16), MADE: (BLUE, "o", 10), RIVAL: (ORANGE, "s", 9)}
    names = {TEACHER: "teacher", MADE: "compressed", RIVAL: "same shape without the teacher"}
    for role, (color, marker, size) in styles.items():
        for number, row in enumerate(row for row in known if row["role"] == role):
            low, high = row.get("interval_95", (row["quality"], row["quality"]))
            axes.errorbar(
                row["latency_ms"],
                row["quality"],
                [[max(0.0, row["quality"] - low)], [max(0.0, high - row["quality"])]],
                fmt=marker,
                color=color,
                markersize=size,
                capsize=5,
                label=None if number else names[role],
            )
    axes.set_xlabel("ms a text, batch 1", fontsize=13)
    axes.set_ylabel(next((row["metric"] for row in known if "metric" in row), "quality"), fontsize=13)
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=12, frameon=False)
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a finished compression."""
    return json.loads((folder / COMPRESSION).read_text(encoding="utf-8"))
