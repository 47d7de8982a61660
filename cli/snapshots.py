"""Copies of databases as they are at one moment, in clear in the operator's home for as long as a backup reads them.

Whoever uses one keeps its file locked, which the kernel ends with the process: a copy that nobody has locked was left
by a backup that was killed, whatever process has that one's number today.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

PREFIX = ".snapshot."


@contextmanager
def of(database: Path, folder: Path) -> Iterator[Path]:
    """Copy a database into `folder`, whoever writes it; the copy is gone at the end."""
    fd, copy = _locked(folder)
    try:
        with closing(sqlite3.connect(database, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
            target.execute("PRAGMA journal_mode=OFF")  # no second file of it
            source.backup(target)
        yield copy
    finally:
        copy.unlink()
        os.close(fd)


def remove_left(folder: Path) -> None:
    """Remove the copies that nobody uses any more."""
    for each in folder.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError, BlockingIOError), each.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            each.unlink()


def _locked(folder: Path) -> tuple[int, Path]:
    while True:
        fd, name = tempfile.mkstemp(prefix=PREFIX, dir=folder)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, Path(name)
        os.close(fd)  # it was removed before it was locked
