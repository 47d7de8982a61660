"""Reads files that somebody else may have put there: regular ones only, and no more than their kind can hold."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""A pipe is opened without its writer, a link not at all: what it leads to may have no end."""


def read(file: Path, limit: int) -> bytes:
    """Give the bytes of a file, at most `limit`. Raises OSError that names the file and says what is wrong with it."""
    with opened(file) as found:
        size = os.fstat(found.fileno()).st_size
        data = found.read(size + 1) if size <= limit else b""
    if size > limit or len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(file))
    return data


def check(file: Path) -> None:
    """Check that a file is a regular one, for whoever has to open it himself. Raises OSError."""
    with opened(file):
        pass


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
