"""Digests of what a run reads: a run that was interrupted goes on only with the same rows, models and files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from huggingface_hub import try_to_load_from_cache

from efficientbert.train.files.data_files import find_files


BLOCK = 1000  # rows
READ_WHOLE = 2**30  # bytes of data; of more, sizes and times alone are looked at
# What of a model's folder is loaded; the last three are of the modules of sentence-transformers.
MODEL_FILES: tuple[str, ...] = ("config.json", "modules.json", "tokenizer*", "vocab*", "*.safetensors", "*.bin")
MODEL_FILES += ("config_sentence_transformers.json", "[0-9]*_*/config.json", "[0-9]*_*/*.safetensors")


def digest(*parts: bytes | str) -> str:
    """A checksum of texts or bytes, in order."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()


def digest_rows(rows: Dataset | Iterable[dict[str, Any]]) -> str:
    """A checksum of all columns of rows, which does not depend on how they are cut to blocks in memory or on disk."""
    if not isinstance(rows, Dataset):
        return digest(*(json.dumps(row, sort_keys=True, default=str) for row in rows))
    total = hashlib.blake2b(str(sorted(rows.features.items())).encode(), digest_size=16)
    for table in rows.with_format("arrow").iter(BLOCK):
        for name in sorted(table.column_names):
            _update(total, table[name].combine_chunks())
    return total.hexdigest()


def _update(total: Any, array: pa.Array) -> None:
    """Adds the values of an array to a checksum."""
    if array.null_count:
        total.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)))
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        total.update(pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False))
        _update(total, array.flatten())
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            _update(total, part)
    elif pa.types.is_primitive(kind) and not pa.types.is_temporal(kind):
        if array.null_count:
            array = array.fill_null(False if pa.types.is_boolean(kind) else 0)
        total.update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)))
    else:
        total.update(json.dumps(array.to_pylist(), default=str).encode())


def digest_model(name: str) -> str | None:
    """A checksum of a model, its tokenizer and what lies beside them: of a folder the files, of a Hub id the commit.

    None where nothing of it is here, as of a Hub id before it is loaded, or of what the package brings.

    Args:
        name: Folder or Hub id of a model, a file, or the name of something that the package brings.
    """
    path = Path(name)
    if path.is_file():
        return digest_file(path)
    if path.is_dir():
        total = hashlib.blake2b(digest_size=16)
        for file in sorted({file for pattern in MODEL_FILES for file in path.glob(pattern) if file.is_file()}):
            total.update((file.relative_to(path).as_posix() + digest_file(file)).encode())
        return total.hexdigest()
    cached = try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    return Path(cached).parent.name if isinstance(cached, str) else None


def digest_file(path: Path) -> str:
    """A checksum of what a file holds."""
    total = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def digest_models(args: Any, *names: str) -> dict[str, str]:
    """The checksums of the models that arguments name and that are here, as `OutputFolder` takes them.

    Args:
        args: Dataclass of a command's arguments.
        names: Its fields; each holds the name of a model, several, or None.
    """
    found = {}
    for name in names:
        value = getattr(args, name)
        for one in [value] if isinstance(value, str) else value or ():
            checksum = digest_model(one)
            if checksum is not None:
                found[f"{name} {one!r}"] = checksum
    return found


def digest_files(source: str) -> str:
    """A checksum of the sizes and times of the files of a path, for what is too large to be read at once."""
    path = Path(source)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats = [(file, file.stat()) for file in files]
    return digest(*(f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats))


def digest_data(what: str, *sources: str | None) -> dict[str, str]:
    """The checksums of data that lies here, as `OutputFolder` takes them.

    Args:
        what: What the data is to be, for messages.
        sources: Files, patterns of files, folders and Hub ids.
    """
    found = {}
    for source in filter(None, sources):
        paths = Path(source).rglob("*") if Path(source).is_dir() else map(Path, find_files(source))
        files = sorted(path for path in paths if path.is_file())
        if sum(file.stat().st_size for file in files) > READ_WHOLE:
            found[f"{what} {source!r}"] = digest(*(digest_files(str(file)) for file in files))
        elif files:
            found[f"{what} {source!r}"] = digest(*map(digest_file, files))
    return found
