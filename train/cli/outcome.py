"""What a command leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command has made.

    Attributes:
        path: The folder or file that it wrote; None where it wrote none.
        figures: What it measured, by name.
    """

    path: Path | None
    figures: dict[str, Any]
