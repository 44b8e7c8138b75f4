"""The record of how a model was made, without the paths of this machine."""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.writing import write_json


def read_provenance(folder: Path) -> list[dict[str, Any]]:
    """The steps that made the model in `folder`, first to last; none where it keeps no record.

    Raises:
        InputError: if the record is no list of steps.
    """
    path = folder / "provenance.json"
    if not path.exists():
        return []
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"provenance {path}: cannot be read: {error}") from None
    if not isinstance(steps, list) or not all(isinstance(step, dict) and "step" in step for step in steps):
        raise InputError(f"provenance {path}: must be a list of steps, each with its name under 'step'")
    return steps


def write_provenance(folder: Path, steps: list[dict[str, Any]]) -> None:
    """Keeps the steps that made a model in `folder/provenance.json`, without the paths of this machine.

    Args:
        folder: The model's folder.
        steps: First to last, each `{"step": command, "arguments": {...}, "result": {...}, "versions": {...}}`.
    """
    write_json(folder / "provenance.json", without_paths(steps))


def without_paths(value: Any) -> Any:
    """A JSON value in which every local path is cut down to `./` and its last component."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(entry) for entry in value]
    if isinstance(value, Path):
        return f"./{value.name}"
    if not isinstance(value, str):
        return value
    value = value.removeprefix("file://")
    if is_path(value):
        return f"./{Path(value).name}"
    # Paths inside a longer text; the slashes of https:// are none.
    return re.sub(r"(?<![\w./~])(?:~/|/(?!/))(?:[^\s,;:'\"/]+/)*([^\s,;:'\"/]+)/?", r"./\1", value)


def is_path(text: str) -> bool:
    """Whether the whole text names a file or folder of this machine. A single word only as a model folder."""
    if any(mark in text for mark in ",;\n") or len(text) > 255:
        return False
    if text.startswith(("/", "./", "../", "~/")):
        return True
    return Path(text).exists() if "/" in text else Path(text, "config.json").is_file() and text != ""


def is_hub_id(text: str) -> bool:
    """Whether the text can be an id on the Hub and is nothing on this machine."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return not is_path(text) and not Path(text).exists()


def first_argument(steps: list[dict[str, Any]], name: str) -> str | None:
    """The first value that any step has for an argument."""
    values = (step.get("arguments", {}).get(name) for step in steps)
    return next((value for value in values if value), None)


def shown(text: str) -> str:
    """A Hub id or text as it is; of a local path the last component."""
    short = without_paths(text)
    return f"{short.removeprefix('./')} (local)" if short.startswith("./") else short
