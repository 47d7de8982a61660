"""Completes the beginning of a notice id, as a person copies it, from the ids that a home knows."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3

LEAST = 8
"""hexadecimal digits; they begin with the time, so that those of one minute share the first eight"""


def whole_id(database: sqlite3.Connection, table: str, text: str) -> str | None:
    """Give the id in a column `notice_id` that begins so; None if none does, or `text` is no such beginning.

    Raises ConfigurationError where several do: nobody guesses which is meant.
    """
    digits = text.replace("-", "").lower()
    if not LEAST <= len(digits) < 32 or not re.fullmatch("[0-9a-f]+", digits):
        return None
    first, last = (bytes.fromhex(digits.ljust(32, end)) for end in "0f")
    found = database.execute(
        f"SELECT DISTINCT notice_id FROM {table} WHERE notice_id BETWEEN ? AND ? LIMIT 2",  # noqa: S608 -- ours
        (first, last),
    ).fetchall()
    if len(found) > 1:
        message = f"several notices begin with {text}: give more digits of the one that is meant"
        raise ConfigurationError(message)
    return str(uuid.UUID(bytes=bytes(found[0][0]))) if found else None
