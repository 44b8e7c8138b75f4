"""The raw rows of labelled data."""

from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.data_files import FILE_FORMATS, READER_OPTIONS, check_not_empty
from efficientbert.train.tasks.arguments import GLUE_COLUMNS, TaskArguments


def load_split(args: TaskArguments, split: str, columns: tuple[str, ...]) -> Dataset:
    """The raw rows of a split.

    Args:
        args: Where it comes from.
        split: Split or slice of it, such as `train[:90%]`.
        columns: Those it must have.

    Raises:
        InputError: if the data, the split or a column is missing.
    """
    source = args.source()
    try:
        if Path(source).is_file():
            check_not_empty(Path(source), "data")
            suffix = Path(source).suffix
            if suffix not in FILE_FORMATS:
                raise InputError(f"data {source}: unknown kind of file; known are {', '.join(FILE_FORMATS)}")
            rows = load_dataset(FILE_FORMATS[suffix], data_files=source, split=split, **READER_OPTIONS.get(suffix, {}))
        else:
            name = args.data_name or (args.task if args.task in GLUE_COLUMNS else None)
            rows = load_dataset(source, name, split=split)
    except InputError:
        raise
    except Exception as error:  # datasets raises what its readers raise
        reason = one_line(error.__cause__ or error)
        raise InputError(f"data {source}: split {split!r} cannot be loaded: {reason}") from None
    if isinstance(rows, DatasetDict) or len(rows) == 0:
        raise InputError(f"data {source}: split {split!r} is empty")
    for column in columns:
        if column not in rows.column_names:
            raise InputError(f"data {source}: no column {column!r}; it has {', '.join(rows.column_names)}")
    return rows
