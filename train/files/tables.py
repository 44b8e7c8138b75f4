"""Markdown tables and how their numbers are shown."""

from typing import Any


def table(header: tuple[str, ...], rows: list[tuple]) -> str:
    """A Markdown table; the cells are escaped."""
    lines = [header, ["---"] * len(header), *([number(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: Any) -> str:
    """A value as one line of text, floats to five digits."""
    return f"{value:.5g}" if isinstance(value, float) else " ".join(str(value).split())


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
