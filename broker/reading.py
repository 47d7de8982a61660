"""Reads files that somebody else may have put there: regular ones only, no more than they can hold, writing nothing."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""A pipe is opened without its writer, a link not at all: what it leads to may have no end."""
_BESIDE = ("-wal", "-shm", "-journal")
UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
"""What SQLite says, as `code_of`, where nothing may be written."""
KEPT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""What it says of a file that another process keeps."""
WAIT_S = 10.0
"""How long a database that another process keeps is waited for."""


def code_of(error: sqlite3.Error | OSError) -> int:
    """Give SQLite's primary result code, 0 where it gave none: the low byte, above it stands why."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def read(file: Path, limit: int) -> bytes:
    """Give the bytes of a file, at most `limit`. Raises OSError that names the file and says what is wrong with it."""
    with opened(file) as found:
        size = os.fstat(found.fileno()).st_size
        data = found.read(size + 1) if size <= limit else b""
    if size > limit or len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(file))
    return data


def database(file: Path) -> sqlite3.Connection:
    """Open a SQLite file to read it, also where nothing may be written; whoever writes it may go on meanwhile.

    Raises sqlite3.Error, and OSError for what is no file. A thread may read what another has opened, one at a time.
    """
    file = file.resolve()
    check(file)
    for each in _BESIDE:  # SQLite opens these, too, and would wait for a pipe's writer
        if os.path.lexists(beside := file.with_name(f"{file.name}{each}")):
            check(beside)
    try:
        return _tried(file, "mode=ro")
    except sqlite3.OperationalError as error:
        if code_of(error) not in UNWRITABLE:
            raise
        # SQLite reads a file that once had a write-ahead log only where that log and its index lie beside it, or may be
        # written there. A running writer keeps both there; where no log waits to be played back, the file stands still.
        if _unfinished(file):
            message = f"what its log holds can be read only where one may write: copy all of {file.parent} there"
            raise sqlite3.OperationalError(message) from error
        return _tried(file, "mode=ro&immutable=1")


def _tried(file: Path, how: str) -> sqlite3.Connection:
    with ExitStack() as stack:
        made = sqlite3.connect(
            f"{file.as_uri()}?{how}", uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        stack.callback(made.close)
        made.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        stack.pop_all()
        return made


def _unfinished(file: Path) -> bool:
    logs = (file.with_name(f"{file.name}{each}") for each in ("-wal", "-journal"))
    return any(each.exists() and each.stat().st_size for each in logs)


def check(file: Path) -> None:
    """Check that a file is a regular one, for whoever has to open it himself. Raises OSError.

    Nothing is opened: to close it would give up the locks that SQLite holds on this file for the whole process.
    """
    if not stat.S_ISREG(file.lstat().st_mode):
        raise _irregular(file)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file; FileNotFoundError where there is none, another OSError for a link, a pipe, a device or a folder."""
    try:
        descriptor = os.open(file, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _irregular(file) from error
        raise
    with open(descriptor, "rb") as found:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _irregular(file)
        yield found


def _irregular(file: Path) -> OSError:
    return OSError(errno.EINVAL, "it is no regular file, but a link, a pipe or the like", str(file))
