"""Names that users give models, looked at before any library is loaded."""

import os

from efficientbert.train.cli.errors import InputError, did_you_mean
from efficientbert.train.files.local_paths import looks_local


# Those of `configuration_efficientbert`, which imports torch: help and mistakes are to be answered before that.
PRESETS = ("efficientbert-tiny", "efficientbert", "efficientbert-plus", "efficientbert-plus-plus")
STUDENT_FAULT = "no preset, config.json or checkpoint"


def check_model(name: str, what: str, fault: str = "cannot be loaded") -> None:
    """Refuses a model that no loader can find.

    Args:
        name: Folder or Hub id.
        what: What it is to be, for messages: `model`, `teacher`, …
        fault: What is said before the reason.

    Raises:
        InputError: if it is a preset, or spelt as a path that is not there.
    """
    if os.path.exists(name):
        return
    if name in PRESETS:
        advice = f"distil it first with `efficientbert distill --student {name}`"
        raise InputError(f"{what} {name!r}: is a preset, which has no weights: {advice}")
    if looks_local(name):
        raise InputError(f"{what} {name!r}: {fault}: there is no such file or folder")


def check_student(name: str) -> None:
    """Refuses a student that is neither a preset nor here, nor can be an id on the Hub: such an id has an owner.

    Raises:
        InputError: naming it, and the preset that may be meant.
    """
    if name in PRESETS:
        return
    check_model(name, "student", STUDENT_FAULT)
    if "/" not in name and not os.path.exists(name):
        near = did_you_mean(name, PRESETS)
        raise InputError(f"student {name!r}: {STUDENT_FAULT}: there is no such file or folder{near}")
