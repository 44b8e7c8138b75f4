"""Data files of users: which are read, how, and what is refused before any is read."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
from datasets.exceptions import DatasetsError
from pyarrow import parquet

from efficientbert.train.cli.errors import InputError, one_line


FILE_FORMATS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
# Only an empty field of a CSV is missing: "None", "null" or "NA" is a word or a label.
READER_OPTIONS = {".csv": {"keep_default_na": False, "na_values": [""]}}


def check_not_empty(path: Path, what: str) -> None:
    """A file without a byte is refused before a reader stumbles over it.

    Raises:
        InputError: naming the file; `what` says what it was to be.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{what} {path}: is empty")


def check_parquet(path: Path, what: str) -> None:
    """A truncated file among the parquet files of a path is named before any is read.

    Raises:
        InputError: naming the file; `what` says what it was to be.
    """
    for file in [path] if path.is_file() else sorted(path.rglob("*.parquet")):
        if file.suffix == ".parquet":
            check_not_empty(file, what)
            try:
                parquet.read_metadata(file)
            except (OSError, pyarrow.ArrowException) as error:
                raise InputError(f"{what} {file}: is no whole parquet file: {one_line(error)}") from None


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What readers of `datasets` raise becomes bad input.

    Raises:
        InputError: `what` cannot be read.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{what}: cannot be read: {reason}") from None
