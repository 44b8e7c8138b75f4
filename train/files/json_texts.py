"""Texts of JSON files as they stand there: `pyarrow` reads texts that are all dates as points in time."""

from typing import IO

import pyarrow
from datasets.packaged_modules.json import json
from pyarrow.json import ParseOptions, ReadOptions, read_json


class TextReader:
    """What the JSON reader of `datasets` takes from `pyarrow.json`."""

    ReadOptions = ReadOptions

    @staticmethod
    def read_json(file: IO[bytes], read_options: ReadOptions) -> pyarrow.Table:
        """The rows of a file; columns that hold points in time are read again, as texts."""
        table = read_json(file, read_options=read_options)
        texts = [field.with_type(as_text(field.type)) for field in table.schema]
        texts = [field for field in texts if field.type != table.schema.field(field.name).type]
        if not texts:
            return table
        file.seek(0)
        options = ParseOptions(explicit_schema=pyarrow.schema(texts))
        return read_json(file, read_options=read_options, parse_options=options).select(table.column_names)


def as_text(kind: pyarrow.DataType) -> pyarrow.DataType:
    """A type with texts in the place of points in time, also in lists and objects."""
    if pyarrow.types.is_timestamp(kind):
        return pyarrow.string()
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(as_text(kind.value_type))
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([field.with_type(as_text(field.type)) for field in kind])
    return kind


def keep_texts() -> None:
    """Lets `datasets` read JSON so, in this whole process: it has no option for it."""
    json.paj = TextReader
