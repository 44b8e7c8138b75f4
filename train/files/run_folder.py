"""The output folder of a run, which knows by checksums what the run was begun with."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from efficientbert.train.files.digests import digest_data, digest_models
from efficientbert.train.files.output_folder import OutputFolder, run_arguments


def run_folder(args: Any, models: Sequence[str], what: str, *sources: str | None) -> OutputFolder:
    """The folder that a command writes; says so where it is complete already.

    Args:
        args: Dataclass of the command's arguments, with `output_dir`.
        models: Those of its fields that name models.
        what: What its data is, for messages.
        sources: The data: files, patterns of files, folders and Hub ids.

    Raises:
        InputError: see `OutputFolder`.
    """
    folder = OutputFolder(
        args.output_dir,
        run_arguments(args),
        partial(digest_models, args, *models),
        partial(digest_data, what, *sources),
    )
    if folder.complete:
        print(f"{folder.path} is complete already")
    return folder
