"""Output folders: worked on under a temporary name, moved to their own name when complete."""

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from efficientbert.train.cli.errors import InputError, one_line
from efficientbert.train.files.writing import write_json


LOCK = ".lock"
RECORD = "run.json"  # the arguments of a run, with two entries more:
INPUTS, FILES = "inputs", "files"  # checksums of models and rows, and of the files of data
# How and where a run is done and what its card says, not what comes of it.
UNDECISIVE = ("max_skipped_steps", "tracker", "log_steps", "device", "license", "language")


class OutputFolder:
    """A folder that appears under its name only when everything in it is written.

    Until `finish`, all files live in `work`, which is `PATH.partial`: checkpoints in `work / "checkpoints"`, the rest
    as it shall stand in the end. A run that was killed leaves `PATH.partial`, and the same run started again goes on
    from it; where it had not come to write anything, any run may take it.

    Args:
        path: The final folder.
        arguments: What decides the result, as JSON values. Kept in `work/run.json` and compared on the next start.
        models, data: Give the checksums of the models and of the data that arguments name, of as many as are here, by
            what they are; see `digests`. Kept beside the arguments: a finished folder is that of these alone.

    Raises:
        InputError: if the folder is in use: not empty, worked on by another process, or made or begun with other
            arguments or from other models or data; or if none can be made there.
    """

    def __init__(
        self,
        path: str | Path,
        arguments: dict[str, Any],
        models: Callable[[], dict[str, str]] = dict,
        data: Callable[[], dict[str, str]] = dict,
    ):
        self.path = Path(path).absolute()
        check_place(self.path, "output folder")
        self.work = self.path.with_name(self.path.name + ".partial")
        self.arguments = json.loads(json.dumps(arguments))
        self.models, self.data = models, data
        self.lock: TextIO  # from opening on
        self.complete = holds_run(self.path, self.arguments)
        if self.complete:
            remedy = f"delete {self.path.name} or give another --output_dir"
            record = read_record(self.path)
            check_inputs(record.get(INPUTS), models(), remedy)
            check_inputs(record.get(FILES), data(), remedy)
            self._clear()  # a run may have been killed behind its move
        elif not self._untouched():
            holds_run(self.work, self.arguments)

    def _untouched(self) -> bool:
        """Whether the work folder is there and nothing was made in it yet."""
        return self.work.is_dir() and {path.name for path in self.work.iterdir()} <= {RECORD, LOCK}

    def open(self, rows: Mapping[str, str] | None = None) -> "OutputFolder":
        """Makes the work folder, or takes up the one of a killed run; one process at a time.

        Args:
            rows: Checksums of the rows that the run reads, by what they are of; see `digests`. They are compared in
                the place of the data, where the same rows may have come into other files; by default the data is.

        Raises:
            InputError: if another process works on it, it cannot be made, or what the run reads is no longer what it
                was when the run began.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output folder '{self.work}': cannot be made: {error.strerror}") from None
        self.lock = open(self.work / LOCK, "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"output folder '{self.work}': another process is working on it") from None
        files = self.data()
        inputs = self.models() | dict(files if rows is None else rows)
        if (self.work / RECORD).exists() and not self._untouched():
            try:
                earlier = read_record(self.work).get(INPUTS)
                check_inputs(earlier, inputs, f"delete {self.work.name} or give another --output_dir")
            except InputError:
                self.lock.close()
                raise
        write_json(self.work / RECORD, self.arguments | {INPUTS: inputs, FILES: files})
        return self

    def finish(self) -> Path:
        """Moves the folder to its own name, and drops the checkpoints only then: a kill in between costs nothing."""
        if self.path.exists():
            self.path.rmdir()
        self.work.rename(self.path)
        self._clear()
        self.lock.close()
        return self.path

    def _clear(self) -> None:
        """Drops what a finished folder does not need."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        (self.path / LOCK).unlink(missing_ok=True)


def check_place(path: Path, what: str) -> None:
    """Refuses a path at which nothing can be made.

    Args:
        path: Of a file or folder to be written.
        what: What it is to be, for the message.

    Raises:
        InputError: if it is the root, no path, or below something that is no folder.
    """
    if path == path.parent:
        raise InputError(f"{what} '{path}': is the root; name a folder in it")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {str(path)!r:.100}: is no path: {one_line(error, 50)}; choose another") from None
    above = next(place for place in path.parents if os.path.lexists(place))
    if not above.is_dir():
        raise InputError(f"{what} '{path}': cannot be made: '{above}' is no folder")


def holds_run(folder: Path, arguments: dict[str, Any]) -> bool:
    """Whether a folder holds what a run with these arguments has written; False if it is empty or not there.

    Args:
        folder: With `run.json`, where arguments are kept.
        arguments: What decides the result, as JSON values.

    Raises:
        InputError: if it holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output folder '{folder}': is a file; choose another --output_dir")
    if not folder.exists() or not any(folder.iterdir()):
        return False
    if not (folder / RECORD).exists():
        raise InputError(f"output folder '{folder}': is not empty; choose another --output_dir or empty it")
    earlier = read_record(folder)
    for name in (INPUTS, FILES):
        earlier.pop(name, None)
    for key in sorted(earlier.keys() | arguments.keys()):
        if key not in earlier and not arguments[key]:
            continue  # a choice that an earlier version did not have, and that is not made
        if earlier.get(key) != arguments.get(key):
            raise InputError(
                f"output folder '{folder}': holds a run with {key}={earlier.get(key)!r}, not {arguments.get(key)!r}; "
                "choose another --output_dir or delete it"
            )
    return True


def read_record(folder: Path) -> dict[str, Any]:
    """The arguments in a run's folder, with `INPUTS` and `FILES`."""
    return json.loads((folder / RECORD).read_text(encoding="utf-8"))


def check_inputs(earlier: Mapping[str, str] | None, inputs: Mapping[str, str], remedy: str) -> None:
    """Holds what a run reads against what it read when it began.

    Args:
        earlier: Checksums by what they are of; None of a run of version 0.1.0, which kept none.
        inputs: The same now.
        remedy: What the user can do.

    Raises:
        InputError: naming what has changed.
    """
    for name, checksum in inputs.items():
        if earlier is not None and earlier.get(name) != checksum:
            raise InputError(f"{name}: has changed since the run began; {remedy}")


def run_arguments(args: Any) -> dict[str, Any]:
    """What of a script's dataclass decides the result of a run, for `OutputFolder`."""
    fields = {name: value for name, value in dataclasses.asdict(args).items() if name not in UNDECISIVE}
    return fields | {"output_dir": Path(args.output_dir).name}
