"""Tells of what kind the notices are that stand published from a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


def kinds(database: sqlite3.Connection, source: str) -> dict[str, str]:
    """Give record → kind of what an outbox has published from a source and not withdrawn."""
    rows = database.execute(
        "SELECT r.record, e.kind FROM records AS r JOIN envelopes AS e"
        " ON (e.bureau, e.record, e.version) = (r.bureau, r.record, r.version) WHERE r.source = ? AND r.state = 'live'",
        (source,),
    )
    return {row["record"]: row["kind"] for row in rows}
