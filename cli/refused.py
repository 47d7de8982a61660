"""What this machine refuses a command, as a failure like all others: no folder, no right, no room, a damaged file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from broker.errors import ValiseError
from broker.reading import KEPT
from broker.writing import answering


class RefusedHereError(ValiseError):
    """This machine refused what a command needs: a file, a folder, room on a disk."""

    code = "refused-here"


@contextmanager
def here() -> Iterator[None]:
    """Turn what the machine refuses inside the block into RefusedHereError; bugs of ours pass as they are.

    A file that another process keeps is for time to mend: UnavailableError.
    """
    try:
        with answering("another process keeps a file of this home: try again", KEPT):
            yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except (OSError, UnicodeError, sqlite3.Error) as error:
        raise RefusedHereError(_said(error)) from error


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{error} (a disk is full, or a file damaged, of another kind, or not ours to write)"
