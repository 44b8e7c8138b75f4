"""Files that a reader never sees half written."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written in the block; it takes the name `path` when the block ends.

    Where the block fails it is removed, and what had the name before stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")  # other processes may write theirs just now
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON; see `writing`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text as it is, without a change of its line ends; see `writing`."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
