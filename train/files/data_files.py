"""Data files of users: which are read, and what is refused before any is opened."""

import csv
import errno
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from efficientbert.train.cli.errors import InputError, did_you_mean, one_line
from efficientbert.train.files.local_paths import looks_local


FILE_FORMATS = {".txt": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
SEPARATORS = {".tsv": "\t"}  # of kinds of files in which fields are not separated by commas
NESTED = {"version", "data"}  # columns of SQuAD's original file, in which questions lie within contexts


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
    if len({(FILE_FORMATS[suffix], SEPARATORS.get(suffix)) for suffix in (Path(file).suffix for file in files)}) > 1:
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
    if NESTED == set(columns):
        raise InputError(
            f"{what}: is in SQuAD's nested format; write one question a row, with the columns 'id', 'context', "
            "'question' and 'answers', as in {'text': ['Ada'], 'answer_start': [0]}"
        )
    listed = f"it has {', '.join(map(repr, columns)) or 'none'}"
    raise InputError(f"{what}: no column {column!r}; {listed}{did_you_mean(column, columns)}")


def check_columns(wanted: Sequence[str], columns: Iterable[str], what: str) -> None:
    """Refuses columns that are not there, as `check_column`, or that stand for two things.

    Raises:
        InputError: naming the first of them.
    """
    columns = list(columns)
    for column in wanted:
        if wanted.count(column) > 1:
            raise InputError(f"{what}: column {column!r} is named for two things; name different ones")
        check_column(column, columns, what)


def check_file_columns(source: str, wanted: Sequence[str], what: str) -> None:
    """Looks for columns in files of text, CSV or JSON, without a library that takes seconds to load.

    Other data, and files that cannot be read, are left to their readers.

    Args:
        source: A file, a pattern of files, a folder, or a Hub id.
        wanted: The columns.
        what: What it was to be, for the message.

    Raises:
        InputError: see `check_columns`.
    """
    columns: dict[str, None] = {}
    try:
        for path in map(Path, find_files(source)):
            for found in columns_of(path):
                columns |= dict.fromkeys(found)
                if columns.keys() >= set(wanted):
                    break
    except (OSError, ValueError, csv.Error):
        return
    if columns:
        check_columns(wanted, columns, f"{what} {source!r}")


def columns_of(path: Path) -> Iterator[list[str]]:
    """The columns of a file, or of its rows one after another; none of a file of another kind.

    Raises:
        OSError, ValueError, csv.Error: if it cannot be read.
    """
    kind = FILE_FORMATS[path.suffix]
    if kind == "text":
        with path.open(encoding="utf-8-sig") as file:
            yield from (["text"] for line in file)
    elif kind == "csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(filter(None, csv.reader(file, delimiter=SEPARATORS.get(path.suffix, ","))), [])
        yield [name or f"Unnamed: {index}" for index, name in enumerate(header)]  # as its reader calls it
    elif kind == "json":
        yield from (list(row) for row in json_rows(path) if isinstance(row, dict))


def json_rows(path: Path) -> Iterator[Any]:
    """The values of a JSON file: one a line, or a list of them; a single one may take several lines.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        lines = (line for line in file if line.strip())
        first = next(lines, "[]")
        try:
            found = json.loads(first)
        except json.JSONDecodeError:
            found = json.loads(first + file.read())
        yield from found if isinstance(found, list) else [found]
        yield from map(json.loads, lines)


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
