"""Markdown tables and how their numbers are shown."""

from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], aligned: bool = False) -> str:
    """A Markdown table; the cells are escaped.

    Args:
        header: Names of the columns.
        rows: A cell for each of them.
        aligned: For terminals: columns of even width, and all but the first to the right.
    """
    lines = [[number(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    marks = ["---"] * len(header)
    if aligned:
        widths = [max(map(len, column)) for column in zip(*lines)]
        lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
        marks = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], marks, *lines[1:]))


def number(value: Any) -> str:
    """A value as one line of text, floats to five digits."""
    return f"{value:.5g}" if isinstance(value, float) else " ".join(str(value).split())


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
