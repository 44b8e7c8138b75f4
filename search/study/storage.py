"""Where studies are kept: a journal file in a folder, or any database that Optuna knows."""

import fcntl
import os
import time
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from efficientbert.train.cli.errors import InputError, one_line


JOURNAL = "study.journal"
TRIES = 5  # several workers may be about to make the tables of one database at once


class JournalLock:
    """One writer at a time: a lock that the system takes back from a process that is killed.

    Whoever gets it first drops what a killed writer left of its last line, which would spoil the next one.

    Args:
        path: The journal file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: BinaryIO  # while it is held

    def acquire(self) -> bool:
        """Waits for the lock."""
        self.file = open(f"{self.path}.lock", "ab")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self._drop_torn_line()
        return True

    def release(self) -> None:
        """Gives the lock back."""
        self.file.close()

    def _drop_torn_line(self) -> None:
        with open(self.path, "r+b") as journal:
            if not journal.seek(0, os.SEEK_END):
                return
            journal.seek(-1, os.SEEK_END)
            if journal.read(1) != b"\n":
                journal.seek(0)
                journal.truncate(journal.read().rfind(b"\n") + 1)


def open_storage(location: str | Path) -> BaseStorage:
    """Opens the storage of studies, or makes it.

    Args:
        location: A folder, which then holds `study.journal`, or a database, such as `sqlite:///study.db` or
            `postgresql://user@host/name`.

    Raises:
        InputError: if it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its notes would tear the progress bar
    if "://" in str(location):
        return _open_database(str(location))
    folder = Path(location)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        return JournalStorage(JournalFileBackend(str(path), JournalLock(path)))
    except OSError as error:
        raise InputError(f"study folder '{folder}': cannot be opened: {one_line(error)}") from None
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"study '{path}': cannot be read: {one_line(error)}; choose another --output_dir, or delete the file to "
            "begin anew"
        ) from None


def without_password(url: str) -> str:
    """A location of a storage as it may be shown; of a database that cannot be told, the kind alone."""
    if "://" not in url:
        return url
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return url.partition("://")[0] + "://…"


def _open_database(url: str) -> BaseStorage:
    shown = without_password(url)
    try:
        # Workers that write at the same moment wait for each other; SQLite gives up after 5 seconds otherwise.
        options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        for _ in range(TRIES - 1):
            try:
                return get_storage(RDBStorage(url, engine_kwargs=dict(options)))
            except (DBAPIError, StorageInternalError):
                time.sleep(0.5)
        return get_storage(RDBStorage(url, engine_kwargs=dict(options)))
    except (ImportError, RuntimeError, SQLAlchemyError, StorageInternalError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"storage '{shown}': cannot be opened: {reason}; give a URL such as sqlite:///study.db or "
            "postgresql://user@host/name"
        ) from None
