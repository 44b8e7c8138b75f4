"""The raw rows of labelled data."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
from datasets import Dataset, Json, LargeList, List

from efficientbert.train.cli.errors import InputError
from efficientbert.train.files.data_files import check_columns, json_rows
from efficientbert.train.files.loading import find_source, load_data
from efficientbert.train.tasks.arguments import TaskArguments


def load_split(args: TaskArguments, split: str, columns: tuple[str, ...], label_column: str | None = None) -> Dataset:
    """The raw rows of a split.

    Args:
        args: Where it comes from.
        split: Split or slice of it, such as `train[:90%]`.
        columns: Those it must have.
        label_column: One that it must have with a value in every row.

    Raises:
        InputError: if the data, the split, a column or a label is missing, a column is named twice, or one has values
            of several types.
    """
    source = args.source()
    rows = load_data(source, args.configuration(), split, "data")
    wanted = columns if label_column is None else (*columns, label_column)
    check_columns(wanted, rows.column_names, f"data {source!r}")
    for column in wanted:
        check_types(args, rows, split, column)
    if label_column is not None:
        check_no_label_missing(rows, label_column, source)
    return rows


def check_no_label_missing(rows: Dataset, column: str, source: str) -> None:
    """Refuses rows without a label: an empty field, null, not-a-number, or null in a list.

    Raises:
        InputError: naming the first of them.
    """
    labels = rows.select_columns([column]).with_format("arrow")[:][column]
    missing = pyarrow.compute.is_null(labels, nan_is_null=True).to_numpy(zero_copy_only=False)
    if isinstance(rows.features[column], List | LargeList):
        missing = missing | [any(item is None for item in items or ()) for items in labels.to_pylist()]
    if missing.any():
        raise InputError(
            f"data {source!r}: row {missing.argmax()}: {column!r} is missing, as in {missing.sum()} of {len(rows)} "
            "rows; label these rows or remove them"
        )


def check_types(args: TaskArguments, rows: Dataset, split: str, column: str) -> None:
    """Refuses a column of a JSON file with values of several types, such as "0" and 1: `datasets` reads them as one.

    Raises:
        InputError: naming the first row whose type differs from those before it, where the file is here.
    """
    feature = rows.features[column]
    if not isinstance(getattr(feature, "feature", feature), Json):
        return
    source, first = args.source(), None
    files = find_source(source, args.configuration(), "data").files.get(split.partition("[")[0], [])
    for file in files if all(Path(file).is_file() for file in files) else []:
        for index, row in enumerate(json_rows(Path(file))):
            value = row.get(column)
            if value in (None, []):
                continue
            if first is None:
                first = (value, index)
            elif type_name(value) != type_name(first[0]):
                raise InputError(
                    f"data {file!r}: row {index}: {column!r} is {type_name(value)}, {value!r:.50}, but "
                    f"{type_name(first[0])}, {first[0]!r:.50}, in row {first[1]}; write all as one type"
                )
    raise InputError(f"data {source!r}: column {column!r} holds values of several types; write all as one type")


def type_name(value: Any) -> str:
    """The type of a JSON value; all numbers are of one, and lists are told apart by what they hold."""
    if isinstance(value, list):
        return "a list of " + " and ".join(sorted({type_name(item) for item in value if item is not None}))
    names = {str: "a text", bool: "true or false", dict: "an object"}
    return names.get(type(value), "a number")
