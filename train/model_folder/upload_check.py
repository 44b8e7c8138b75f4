"""What is looked at before an upload, and before any library is loaded: the name, and whether all files are there."""

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from efficientbert.train.cli.errors import InputError, one_line


CODE_FILES = (
    "configuration_efficientbert.py",
    "ffn_efficientbert.py",
    "modeling_efficientbert.py",
    "slicing_efficientbert.py",
)
REQUIRED_FILES = ("config.json", "model.safetensors", *CODE_FILES)


def check_repo_id(repo_id: str) -> None:
    """Checks the form `user/name`.

    Raises:
        InputError: if it has another form.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"repo_id {repo_id!r}: {one_line(error)}") from None
    if "/" not in repo_id:
        raise InputError(f"repo_id {repo_id!r}: must have the form user/name")


def check_complete(folder: Path) -> None:
    """Checks that a folder has all that a model on the Hub needs, and that another machine's code could be read.

    Raises:
        InputError: naming the first thing that is missing.
    """
    if not folder.is_dir():
        raise InputError(f"folder '{folder}': does not exist")
    if folder.absolute().name.endswith(".partial"):
        raise InputError(f"folder '{folder}': is the work of an unfinished run; let it finish first")
    for name in REQUIRED_FILES:
        if not (folder / name).is_file():
            raise InputError(f"folder '{folder}': has no {name}")
    for name in CODE_FILES:
        try:
            compile((folder / name).read_bytes(), name, "exec")
        except (SyntaxError, ValueError) as error:
            raise InputError(f"folder '{folder}': {name} is no Python: {one_line(error)}") from None
