"""The models of a folder that a compression or a search has written, and what they are called on the Hub."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.model_folder.record import read_result


COMPRESSION = "compression.json"  # a compression's models: a list of objects
MADE = "compressed"  # role of those among them that are its result
FRONT, BEST = "front", "best"  # a search's results
UNITS = {"ms": "ms a text", "m": "million parameters"}  # by what stands in a name
DIGITS = range(2, 6)  # of a number in a name: as few as tell the models apart


@dataclass(frozen=True)
class Sibling:
    """One of the models that are uploaded together.

    Attributes:
        folder: Of the model.
        repo_id: Where it goes.
        note: What sets it apart from the others, in their collection.
    """

    folder: Path
    repo_id: str
    note: str


def find_siblings(folder: Path, repo_id: str) -> list[Sibling]:
    """The models in a folder; the folder itself where it is one, or holds none.

    Several get names that end in their milliseconds, or in millions of parameters where no time is known.

    Args:
        folder: A model folder, or one that `compress` or `search` has written.
        repo_id: Name on the Hub; of several, what their names begin with.

    Raises:
        InputError: if what a compression has written cannot be read.
    """
    if (folder / COMPRESSION).is_file():
        return _of_compression(folder, repo_id)
    front = sorted(
        (path for path in (folder / FRONT).glob("*") if path.name.isdigit()), key=lambda path: int(path.name)
    )
    if len(front) > 1:
        results = [read_result(path) for path in front]
        if all("latency" in result for result in results):
            numbers, unit = [result["latency"] for result in results], "ms"
        else:
            numbers, unit = [result.get("parameters", 0) / 1e6 for result in results], "m"
        return _named(front, repo_id, numbers, unit)
    if (folder / BEST).is_dir():
        return [Sibling(folder / BEST, repo_id, "")]
    return [Sibling(folder, repo_id, "")]


def _of_compression(folder: Path, repo_id: str) -> list[Sibling]:
    """The models that a compression has made."""
    try:
        rows = json.loads((folder / COMPRESSION).read_text(encoding="utf-8"))
        made = [(folder / row["model"], row["latency_ms"]) for row in rows if row["role"] == MADE]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"folder '{folder}': {COMPRESSION} cannot be read: {one_line(error)}") from None
    if not made:
        raise InputError(f"folder '{folder}': {COMPRESSION} names no model that was made")
    if len(made) == 1:
        return [Sibling(made[0][0], repo_id, "")]
    paths, times = zip(*made)
    return _named(paths, repo_id, times, "ms")


def _named(paths: Sequence[Path], repo_id: str, numbers: Sequence[float], unit: str) -> list[Sibling]:
    """Siblings, each with its number behind the common name."""
    for digits in DIGITS:
        names = [f"{repo_id}-{float(f'{number:.{digits}g}'):g}{unit}" for number in numbers]
        if len({*names}) == len(names):
            break
    else:
        names = [f"{repo_id}-{index}" for index in range(1, len(numbers) + 1)]
    notes = [f"{number:.3g} {UNITS[unit]}" for number in numbers]
    return [Sibling(*sibling) for sibling in zip(paths, names, notes)]
