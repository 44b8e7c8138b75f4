"""What kind of model a teacher is."""

import os

from transformers.utils import cached_file

from efficientbert.train.cli.errors import InputError
from efficientbert.train.model_folder.loading import load_config, loading


EMBEDDER, ENCODER = "embedder", "encoder"
KIND_OF_HEAD = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
}


def recognise(name: str) -> str:
    """The kind of a teacher: one of `KIND_OF_HEAD`'s, `EMBEDDER` or `ENCODER`.

    Args:
        name: Folder or Hub id.

    Raises:
        InputError: if there is no such model.
    """
    config = load_config(name, "teacher")
    for architecture in config.architectures or ():
        for ending, kind in KIND_OF_HEAD.items():
            if architecture.endswith(ending):
                return kind
    return EMBEDDER if _has_modules(name) else ENCODER


def _has_modules(name: str) -> bool:
    """Whether sentence-transformers has saved the model."""
    if os.path.isdir(name):
        return os.path.isfile(os.path.join(name, "modules.json"))
    with loading(name, "teacher"):
        found = cached_file(name, "modules.json", _raise_exceptions_for_missing_entries=False)
    return found is not None


def check_kind(kind: str, asked: str | None, has_data: bool, teacher: str) -> None:
    """Refuses data that a teacher of a kind has no head for.

    Args:
        kind: As of `recognise`.
        asked: What the data is said to be for, if it is said.
        has_data: Whether there is data of a task.
        teacher: Its name.

    Raises:
        InputError: saying what would do.
    """
    if has_data and kind == ENCODER:
        raise InputError(
            f"teacher {teacher!r}: is a bare encoder, which predicts nothing for --data; fine-tune it first with "
            f"`efficientbert finetune --model {teacher}`, or give --corpus alone"
        )
    if kind in (EMBEDDER, ENCODER) or asked in (None, kind):
        return
    raise InputError(f"kind: teacher {teacher!r} is for {kind}, not for {asked}")
