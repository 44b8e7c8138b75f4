"""Files that a reader never sees half written."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name and moves it, so that a reader never sees half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")  # other processes may write theirs just now
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text under a temporary name and moves it, so that a reader never sees half a file."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(temporary, path)
