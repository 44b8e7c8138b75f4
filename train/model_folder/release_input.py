"""What a conversion is given and can be read before any library is loaded: its task and file."""

from pathlib import Path

from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.release_tasks import CHOICE_TASKS, LABELS, RELEASE_NAMES, SPAN_TASKS


def read_task(name: str | None) -> str | None:
    """A task's name as `datasets` spells it.

    Raises:
        InputError: if there is no such task.
    """
    if name is None:
        return None
    task = RELEASE_NAMES.get(name.lower(), name.lower())
    known = (*LABELS, *SPAN_TASKS, *CHOICE_TASKS)
    if task not in known:
        raise InputError(f"--task {name!r}: unknown; known are {', '.join(known)}")
    return task


def read_bytes(path: str | Path) -> bytes:
    """The content of the checkpoint file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"checkpoint '{path}': cannot be read: {error.strerror}") from None
