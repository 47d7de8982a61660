"""Files that a backup has aside while it works: copies of databases as they are at one moment, and itself.

The copies lie in clear in the operator's home for as long as they are read. Whoever uses a file aside keeps it locked,
which the kernel ends with the process: one that nobody has locked was left by a backup that was killed, whatever
process has that one's number today.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from broker.errors import ConfigurationError
from cli.progress import progress_of

PREFIX = ".snapshot."


@contextmanager
def of(database: Path, folder: Path) -> Iterator[Path]:
    """Copy a database into `folder`, whoever writes it; the copy is gone at the end.

    Raises ConfigurationError where there is none: none is made.
    """
    with aside(folder, PREFIX) as copy:
        with progress_of(f"copied of {database.name}", _size(database), lambda: _size(copy)):
            _copy(database, copy)
        yield copy


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _copy(database: Path, copy: Path) -> None:
    there = f"{database.absolute().as_uri()}?mode=rw"
    try:
        with (
            closing(sqlite3.connect(there, uri=True, timeout=60)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            target.execute("PRAGMA journal_mode=OFF")  # no second file of it
            source.backup(target)
    except sqlite3.Error as error:
        message = f"cannot copy {database}: {error}"
        raise ConfigurationError(message) from error


@contextmanager
def aside(folder: Path, prefix: str) -> Iterator[Path]:
    """Make a file of our own, for nobody else to read; at the end it is gone, unless it was put in another's place."""
    fd, made = _locked(folder, prefix)
    try:
        yield made
    finally:
        made.unlink(missing_ok=True)
        os.close(fd)


def remove_left(folder: Path, prefix: str = PREFIX) -> None:
    """Remove the files aside that nobody uses any more."""
    for each in folder.glob(f"{prefix}*"):
        # For writing: NFS locks no other files. One of another user's is that user's to remove.
        with suppress(FileNotFoundError, BlockingIOError, PermissionError), each.open("r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            each.unlink()


def _locked(folder: Path, prefix: str) -> tuple[int, Path]:
    while True:
        fd, name = tempfile.mkstemp(prefix=prefix, dir=folder)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, Path(name)
        os.close(fd)  # it was removed before it was locked
