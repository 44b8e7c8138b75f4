"""Data of users as rows. A file, a pattern of files, a folder and a Hub id are read the same way: text stays text."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import pyarrow
from datasets import Dataset, Features, IterableDataset, Value, load_dataset, load_dataset_builder, logging
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.text.text import Text
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from pyarrow import parquet

from efficientbert.train.cli.errors import InputError, disk_full, one_line
from efficientbert.train.files.data_files import FILE_FORMATS, SEPARATORS, check_source, find_files


# Only an empty field is missing: "None", "null" or "NA" is a word or a label.
CSV_OPTIONS = {"keep_default_na": False, "na_values": [""]}
HUB_SECONDS = 10  # to answer whether it has a data set


@dataclass(frozen=True)
class Source:
    """Where `load_dataset` finds data, and how it is to read it.

    Attributes:
        path: Its first argument.
        options: Its others.
        files: All data files, by split.
        validates: Whether its reader refuses what is not UTF-8.
    """

    path: str
    options: dict[str, Any]
    files: dict[str, list[str]]
    validates: bool


def load_data(
    source: str, name: str | None, split: str, what: str, streaming: bool = False
) -> Dataset | IterableDataset:
    """The rows of a split.

    Args:
        source: A file, a pattern of files, a folder that `load_dataset` understands, or a Hub id.
        name: Configuration of a folder or a data set on the Hub.
        split: Split or slice of it, such as `train[:90%]` (a slice is not for streaming).
        what: What the data is, for messages.
        streaming: Whether to read it as it is needed, rather than cache it as a whole.

    Raises:
        InputError: if it cannot be loaded or the split is empty, naming the file where one is at fault.
    """
    found = find_source(source, name, what)
    try:
        with quiet():
            rows = load_dataset(found.path, split=split, streaming=streaming, **found.options)
        if not streaming and not found.validates:
            rows.data.validate(full=True)
    except Exception as error:  # datasets raises what its readers raise
        cause = error.__cause__ or error
        if disk_full(cause):
            raise cause from None
        if "corresponds to no data" in str(error) or "at least one example" in str(cause):
            raise InputError(f"{what} {source!r}: split {split!r} is empty") from None
        raise InputError(f"{what} {culprit(found) or source!r}: cannot be loaded: {reason(cause)}") from None
    if not streaming and len(rows) == 0:
        raise InputError(f"{what} {source!r}: split {split!r} is empty")
    return rows


def split_names(source: str, name: str | None, what: str) -> list[str]:
    """The splits of data.

    Raises:
        InputError: if it cannot be loaded.
    """
    return list(find_source(source, name, what).files)


def find_source(source: str, name: str | None, what: str) -> Source:
    """See `load_data`; files that are here are checked.

    Raises:
        InputError: if there is no such data, or a file is empty, truncated or not for us to read.
    """
    check_source(source, what)
    given = find_files(source)
    options: dict[str, Any]
    if given:
        suffix = Path(given[0]).suffix
        path, options = FILE_FORMATS[suffix], {"data_files": given}
        options |= {"sep": SEPARATORS[suffix]} if suffix in SEPARATORS else {}
    else:
        path, options = source, {"name": name}
        if not os.path.exists(source) and "://" not in source:
            check_hub(source, what)
    try:
        builder = load_dataset_builder(path, **options)
    except Exception as error:  # as in `load_data`
        raise InputError(f"{what} {source!r}: cannot be loaded: {reason(error.__cause__ or error)}") from None
    files = {str(split): list(map(str, names)) for split, names in (builder.config.data_files or {}).items()}
    every = [file for names in files.values() for file in names]
    for file in every:
        check_file(Path(file), what)
    if isinstance(builder, Csv):
        columns = csv_columns(every, builder.config.sep, what)
        options |= CSV_OPTIONS | {"features": Features(dict.fromkeys(columns, Value("string")))}
    elif isinstance(builder, Text):
        options["encoding"] = "utf-8-sig"  # a byte order mark is no part of the text
    return Source(path, options, files, validates=not isinstance(builder, Json))


@cache
def check_hub(source: str, what: str) -> None:
    """Asks the Hub, once in a process, whether it has a data set: `load_dataset` asks again and again without network.

    Raises:
        InputError: if it has none, or does not answer.
    """
    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().dataset_info(source, timeout=HUB_SECONDS)
    except (HFValidationError, RepositoryNotFoundError):
        raise InputError(f"{what} {source!r}: is neither a file or folder here nor a data set on the Hub") from None
    except HfHubHTTPError:  # such as of one that asks for consent: `load_dataset` says what is to be done
        return
    except Exception as error:  # of whichever library asks
        raise InputError(
            f"{what} {source!r}: is no file or folder here, and the Hub cannot be reached ({one_line(error)}); a copy "
            "in the cache is read with HF_HUB_OFFLINE=1"
        ) from None


def check_file(path: Path, what: str) -> None:
    """A file that cannot be read is named before a reader stumbles over it; what is not here is left alone.

    Raises:
        InputError: if it is empty, a truncated parquet file, or not for us to read; `what` says what it was to be.
    """
    if not path.is_file():
        return
    if not os.access(path, os.R_OK):
        raise InputError(f"{what} {str(path)!r}: may not be read; its permissions deny it")
    if path.stat().st_size == 0:
        raise InputError(f"{what} {str(path)!r}: is empty")
    if path.suffix == ".parquet":
        try:
            parquet.read_metadata(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(f"{what} {str(path)!r}: is no whole parquet file: {one_line(error)}") from None


def csv_columns(files: list[str], separator: str, what: str) -> list[str]:
    """The columns of CSV files; all must have the same, as rows of one data set.

    Raises:
        InputError: if they do not, a name stands twice, or a first row has more fields than the file has columns,
            which would move all.
    """
    columns: list[str] = []
    for file in files:
        try:
            head = pandas.read_csv(file, nrows=1, sep=separator, dtype=str)
            (names,) = pandas.read_csv(file, nrows=1, sep=separator, dtype=str, header=None, **CSV_OPTIONS).values
        except (OSError, ValueError, pandas.errors.ParserError) as error:
            raise InputError(f"{what} {file!r}: cannot be loaded: {reason(error)}") from None
        if len(head) and not isinstance(head.index, pandas.RangeIndex):
            raise InputError(f"{what} {file!r}: row 0 has more fields than the file has columns; quote its texts")
        twice = [name for name, count in Counter(names).items() if count > 1 and isinstance(name, str)]
        if twice:
            raise InputError(f"{what} {file!r}: column {twice[0]!r} stands twice; give each column a name of its own")
        columns = columns or list(head.columns)
        if set(head.columns) != set(columns):
            mine, others = (", ".join(map(repr, found)) for found in (head.columns, columns))
            raise InputError(
                f"{what} {file!r}: has columns {mine}, but {files[0]!r} has {others}; they must be the same"
            )
    return columns


def culprit(found: Source) -> str | None:
    """The first local file of several that cannot be read alone."""
    files = [file for names in found.files.values() for file in names if Path(file).is_file()]
    formats = {FILE_FORMATS.get(Path(file).suffix) for file in files}
    if len(files) < 2 or len(formats) > 1 or None in formats:
        return None
    options = {name: value for name, value in found.options.items() if name not in ("name", "data_files")}
    for file in files:
        try:
            with quiet():
                for _ in load_dataset(*formats, data_files=[file], split="train", streaming=True, **options):
                    pass
        except Exception:  # whatever its reader raises
            return file
    return None


def reason(error: BaseException) -> str:
    """What a reader's error says, in one line."""
    if isinstance(error, UnicodeDecodeError) or "Invalid UTF8" in str(error):
        return "is not UTF-8; save it as UTF-8"
    return one_line(error)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps `datasets` from printing what its readers raise, where the caller says it."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
