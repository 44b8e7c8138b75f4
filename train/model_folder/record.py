"""The record of how a model was made, without the paths of this machine."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from efficientbert.train.cli.arguments import changed_arguments
from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.local_paths import looks_local, shortened, without_path
from efficientbert.train.files.writing import write_json


UNRECORDED = ("output_dir", "storage")  # where a run kept its files


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
        raise InputError(f"provenance '{path}': cannot be read: {one_line(error)}") from None
    if not isinstance(steps, list) or not all(isinstance(step, dict) and "step" in step for step in steps):
        raise InputError(f"provenance '{path}': must be a list of steps, each with its name under 'step'")
    return steps


def read_result(folder: Path) -> dict[str, Any]:
    """The figures of the last step that made the model in `folder`; empty where it keeps no record."""
    steps = read_provenance(folder)
    return steps[-1].get("result", {}) if steps else {}


def write_provenance(folder: Path, steps: list[dict[str, Any]]) -> None:
    """Keeps the steps that made a model in `folder/provenance.json`.

    Args:
        folder: The model's folder.
        steps: First to last, each with `step`, the command; `arguments` and, of labelled data that it is for,
            `task_arguments`, as `recorded` gives them; `datasets`, those of the Hub that it learned from; `result`;
            and `versions`.
    """
    write_json(folder / "provenance.json", steps)


def recorded(args: Any) -> dict[str, Any]:
    """The arguments of a command that differ from its defaults, as JSON values; local paths are cut down.

    Args:
        args: A dataclass. A field with `"path"` in its metadata holds names of files, folders or things on the Hub, or
            one of the words under `"words"` that mean something else.
    """
    values = {name: value for name, value in changed_arguments(args).items() if name not in UNRECORDED}
    for field in fields(args):
        value, words = values.get(field.name), field.metadata.get("words", ())
        if value is not None and field.metadata.get("path"):
            kept = [
                word if word in words else without_path(word)
                for word in ([value] if isinstance(value, str) else value)
            ]
            values[field.name] = kept[0] if isinstance(value, str) else kept
    return values


def is_hub_id(text: str) -> bool:
    """Whether a text of a record can be an id on the Hub."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return not looks_local(text)


def recorded_values(steps: list[dict[str, Any]], name: str) -> list[Any]:
    """The values that steps have for an argument, first to last."""
    values = (step.get("arguments", {}).get(name) for step in steps)
    return [value for value in values if value]


def shown(text: str) -> str:
    """A Hub id or text as it is; of a local path the last component."""
    return f"{shortened(text).removeprefix('./')} (local)" if looks_local(text) else text
