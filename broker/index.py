"""Which leaves speak of which notice: derived from trail and decision records, and made again when it is lost.

Kept off the way of a notice: it is brought up to date when somebody asks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from broker import codec
from broker.errors import NoticeRejectedError
from broker.notice import DecisionRecord, Header, Leaf, Receipt, Statement
from broker.records import Records
from broker.trail import Trail

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notice(
    notice_id BLOB, issuer TEXT, leaf_number INTEGER, PRIMARY KEY(notice_id, leaf_number)
);
CREATE TABLE IF NOT EXISTS event(about INTEGER, leaf_number INTEGER, PRIMARY KEY(about, leaf_number));
CREATE TABLE IF NOT EXISTS done(size INTEGER NOT NULL);
"""
PAGE = 1000


class Index:
    """An index in one SQLite file; `:memory:` where nothing may be written."""

    def __init__(self, path: Path | None) -> None:
        self._database = sqlite3.connect(path or ":memory:", timeout=10, isolation_level=None)
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def size(self) -> int:
        """How many leaves it covers."""
        return int(self._database.execute("SELECT coalesce(max(size), 0) FROM done").fetchone()[0])

    def update(self, trail: Trail, records: Records, progress: Callable[[int, int], None]) -> None:
        """Cover the trail up to its head. An index that covers more belongs to another past and is made again."""
        if self.size > trail.size:
            self._database.executescript("DELETE FROM notice; DELETE FROM event; DELETE FROM done;")
        while (begin := self.size) < trail.size:
            end = min(begin + PAGE, trail.size)
            self._database.execute("BEGIN IMMEDIATE")
            for number, record in _page(records, begin, end):
                self._add(number, codec.decode(Leaf, trail.entry(number)), codec.decode(DecisionRecord, record))
            self._database.execute("DELETE FROM done")
            self._database.execute("INSERT INTO done VALUES (?)", (end,))
            self._database.execute("COMMIT")
            progress(end, trail.size)

    def _add(self, number: int, leaf: Leaf, decision: DecisionRecord) -> None:
        if decision.header:
            header = codec.decode(Header, decision.header)
            self._database.execute(
                "INSERT OR IGNORE INTO notice VALUES (?, ?, ?)", (header.notice_id, header.issuer, number)
            )
        abouts = {each.leaf_number for each in receipt.items} if (receipt := receipt_in(decision)) else set()
        if leaf.about is not None:
            abouts.add(leaf.about)
        self._database.executemany(
            "INSERT OR IGNORE INTO event VALUES (?, ?)", [(about, number) for about in sorted(abouts)]
        )

    def leaves_of(self, notice_id: bytes) -> list[int]:
        """List the leaves of a notice's own records."""
        rows = self._database.execute(
            "SELECT leaf_number FROM notice WHERE notice_id = ? ORDER BY leaf_number", (notice_id,)
        )
        return [row[0] for row in rows]

    def leaves_about(self, leaf_number: int) -> list[int]:
        """List the leaves that speak of a leaf."""
        rows = self._database.execute(
            "SELECT leaf_number FROM event WHERE about = ? ORDER BY leaf_number", (leaf_number,)
        )
        return [row[0] for row in rows]


def _page(records: Records, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    for number, _salt, record in records.since(begin):
        if number >= end:
            return
        yield number, record


def receipt_in(decision: DecisionRecord) -> Receipt | None:
    """Give the receipt that a leaf records, or None."""
    try:
        return codec.decode(Receipt, codec.decode(Statement, decision.statement).payload)
    except NoticeRejectedError:
        return None  # no statement, or one of another kind
