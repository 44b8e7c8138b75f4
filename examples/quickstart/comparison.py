"""What the quickstart says of its models: a table, which one to take, and a plot."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


# Okabe and Ito's colours, told apart by colour-blind readers; in grey the markers differ.
STYLES = {"searched": ("#0072B2", "o"), "random": ("#E69F00", "s"), "plain": ("#009E73", "D")}
TEACHER = "#555555"


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The comparison as a Markdown table."""
    print(
        "\n| model | accuracy (95% interval) | ms a sentence | parameters | MB | cosine to teacher | minutes to make |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        low, high = row["interval_95"]
        student = "held_out" in row
        cosine = f"{row['held_out']['cosine']:.3f}" if student else ""
        spent = f"{row['seconds'] / 60:.1f}" if student else ""
        print(
            f"| {row['model']} | {row['accuracy']:.3f} ({low:.3f} to {high:.3f}) | {row['milliseconds']:.1f} "
            f"| {row['parameters'] / 1e6:.1f}M | {row['bytes'] / 1e6:.0f} | {cosine} | {spent} |"
        )
    print(
        "\nAccuracy is on the validation split, with a bootstrap interval; milliseconds are those of one sequence of\n"
        "72 tokens on this machine, two threads; the cosine is that of last hidden states on held-out text; minutes\n"
        "are those of all jobs that make a model, interruptions left out: of the searched one also what is made\n"
        "beside it, the same shape without a teacher."
    )


def recommend(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The student to take: the fastest of those within the 95% interval of the most accurate. And why, as a sentence.

    Args:
        rows: One a model, the teacher first.
    """
    teacher, *students = rows
    best = max(students, key=lambda row: row["accuracy"])
    alike = [row for row in students if row["accuracy"] >= best["interval_95"][0]]
    taken = min(alike, key=lambda row: row["milliseconds"])
    if len(alike) == 1:
        reason = f"its accuracy of {taken['accuracy']:.3f} is the best, above all chance of the sample"
    elif taken is best:
        reason = f"its accuracy of {taken['accuracy']:.3f} is the best, and none that comes near it is faster"
    else:
        reason = (
            f"its accuracy of {taken['accuracy']:.3f} lies within the interval of the best ({best['model']}, "
            f"{best['accuracy']:.3f}), and of those that do it is the fastest"
        )
    return taken, (
        f"Take '{taken['model']}' ({taken['folder']}): {reason}; it has {taken['accuracy'] / teacher['accuracy']:.0%} "
        f"of the teacher's accuracy at {teacher['milliseconds'] / taken['milliseconds']:.1f} times its speed with "
        f"{taken['parameters'] / teacher['parameters']:.0%} of its parameters."
    )


def plot_comparison(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy, time and cosine of the students side by side, in ranges that show how they differ.

    Args:
        rows: One a model, the teacher first; see `read_results` of the quickstart.
    """
    teacher, *students = rows
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 3)
    accuracy, milliseconds, cosine = panels
    for place, row in enumerate(students):
        color, marker = STYLES[row["model"]]
        style = {"color": color, "fmt": marker, "markersize": 9, "capsize": 6, "linewidth": 2}
        accuracy.errorbar(
            place, row["accuracy"], _reach(row["accuracy"], row["interval_95"]), label=row["model"], **style
        )
        milliseconds.errorbar(
            place, row["milliseconds"], _reach(row["milliseconds"], row["milliseconds_quartiles"]), **style
        )
        cosine.errorbar(place, row["held_out"]["cosine"], **style)
    line = {"color": TEACHER, "linestyle": "--", "linewidth": 2}
    accuracy.axhline(teacher["accuracy"], label="teacher (shaded: its interval)", **line)
    accuracy.axhspan(*teacher["interval_95"], color=TEACHER, alpha=0.12, linewidth=0)
    milliseconds.axhline(teacher["milliseconds"], **line)
    accuracy.set_title("Accuracy, 95% interval", fontsize=13)
    accuracy.set_ylabel("accuracy on validation pairs", fontsize=13)
    milliseconds.set_title("Time, quartiles", fontsize=13)
    milliseconds.set_ylabel("ms per sentence of 72 tokens", fontsize=13)
    cosine.set_title("Likeness to the teacher", fontsize=13)
    cosine.set_ylabel("cosine of last hidden states", fontsize=13)
    for axes in panels:
        axes.set_xticks(range(len(students)), [row["model"] for row in students], fontsize=12)
        axes.set_xlim(-0.6, len(students) - 0.4)
        axes.tick_params(axis="y", labelsize=12)
        axes.margins(y=0.15)
        axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(rows), fontsize=13, frameon=False)
    return figure


def _reach(value: float, ends: Sequence[float]) -> list[list[float]]:
    """An interval as `errorbar` takes it: how far it reaches below and above."""
    return [[value - ends[0]], [ends[1] - value]]
