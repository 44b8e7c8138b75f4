"""Names that a user gives: paths of this machine, or ids on the Hub."""

import os


FILE_SUFFIXES = tuple(".bin .ckpt .csv .json .jsonl .parquet .pt .pth .safetensors .tsv .txt .yaml .yml .zip".split())


def looks_local(word: str) -> bool:
    """Whether a word is spelt as a path, which no id on the Hub is."""
    word = word.removeprefix("file://")
    return word.startswith(("/", "./", "../", "~")) or word.endswith(("/", *FILE_SUFFIXES)) or "\\" in word


def is_local(word: str) -> bool:
    """Whether a word means a file or folder of this machine: it is spelt as a path, or there is one of that name."""
    return word != "" and (looks_local(word) or os.path.exists(word))


def without_path(word: str) -> str:
    """A word as records keep it: a path of this machine cut down, all else as it is."""
    return shortened(word) if is_local(word) else word


def shortened(path: str) -> str:
    """A path cut down to `./` and its last component."""
    whole = os.path.abspath(path.removeprefix("file://").replace("\\", "/"))
    return f"./{os.path.basename(whole)}"
