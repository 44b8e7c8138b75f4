"""Data files of users: which are read, and what is refused before any is opened."""

import errno
import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from efficientbert.train.cli.errors import InputError, did_you_mean, one_line
from efficientbert.train.files.local_paths import looks_local


FILE_FORMATS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}


def find_files(source: str) -> list[str]:
    """The file of this name, or those that a pattern such as `data/*.csv` matches; none of a folder or a Hub id."""
    if os.path.isfile(source):  # unlike `Path.is_file`, it takes what cannot be a path
        return [source]
    if glob.has_magic(source) and not os.path.exists(source):
        return sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    return []


def check_source(source: str, what: str) -> None:
    """Refuses a source of data that can only be a file or a folder, and is not there.

    Args:
        source: A file, a pattern of files, a folder, or a Hub id.
        what: What it was to be, for the message.

    Raises:
        InputError: naming it, also if it is a file of an unknown kind.
    """
    files = find_files(source)
    for file in files:
        if Path(file).suffix not in FILE_FORMATS:
            raise InputError(f"{what} {file!r}: unknown kind of file; known are {', '.join(FILE_FORMATS)}")
    if len({FILE_FORMATS[Path(file).suffix] for file in files}) > 1:
        raise InputError(f"{what} {source!r}: matches files of several kinds; give a pattern of one kind")
    if files or os.path.exists(source):
        return
    if glob.has_magic(source):
        raise InputError(f"{what} {source!r}: no file matches")
    if looks_local(source):
        raise InputError(f"{what} {source!r}: does not exist")


def check_column(column: str, columns: Iterable[str], what: str) -> None:
    """Refuses a column that is not there.

    Args:
        column: Its name.
        columns: Those that are there.
        what: Of what, for the message.

    Raises:
        InputError: listing those that are there, and which of them may be meant.
    """
    columns = list(columns)
    if column in columns:
        return
    listed = f"it has {', '.join(map(repr, columns)) or 'none'}"
    raise InputError(f"{what}: no column {column!r}; {listed}{did_you_mean(column, columns)}")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What readers of `datasets` raise becomes bad input.

    Raises:
        InputError: `what` cannot be read.
    """
    from datasets.exceptions import DatasetsError  # imported when data is read: a command answers mistakes before that

    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise InputError(f"{what}: cannot be read: {one_line(error.__cause__ or error)}") from None
