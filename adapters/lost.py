"""Settles what an outbox has sent and whose outcome the bus has dropped before it was read.

Nobody can say any more what became of it: sent again it would be called `repeated`, which without the first outcome
proves nothing. So it is taken for what does less harm. A withdrawal counts as rejected: else a record would be
withdrawn here for ever that others hold. Anything else is `unknown`, and stands: it can be withdrawn, and its source
publishes it anew as the next version. An outcome that comes after all counts.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable

from adapters.database import forget_body
from adapters.heads import Journal
from adapters.holding import Holding, subjects
from adapters.requeue import Requeue
from broker.notice import WITHDRAWAL

TABLES = """
CREATE TABLE IF NOT EXISTS unknown(notice_id BLOB PRIMARY KEY) WITHOUT ROWID;
"""
"""`unknown`: whose outcome is lost, if it has none by now."""
UNKNOWN = "unknown"
"""What a story says of it, and of a withdrawal that is taken for rejected."""
_WAITS_FOR_KEY = (
    "EXISTS (SELECT 1 FROM outcomes WHERE kind = 'rejected' AND record_digest = sent_digest"
    " AND leaf_number NOT IN (SELECT leaf_number FROM sent_again))"
)


class Lost:
    """The lost outcomes of one outbox file; all within the caller's transaction."""

    def __init__(self, database: sqlite3.Connection, holding: Holding, clock: Callable[[], int]) -> None:
        self._database, self._holding, self._clock = database, holding, clock
        self._journal = Journal(database)

    def give_up(self, before: int) -> None:
        """Give up what went out before this moment (ms): its outcome may be among those that the bus has dropped.

        What was rejected for its key alone, and waits to come again, is none: of that the outcome is here.
        """
        for row in self._undecided("sent_at < ?", before):
            self._give_up(row)

    def ask_again(self, requeue: Requeue) -> None:
        """Send again what is not decided: its outcome may have been in a stream that was lost and made again.

        The broker decides it now, or calls it repeated: then it is given up. So is at once, and not sent again, what
        no longer stands: the copy would outlive the erasure of what was withdrawn.
        """
        for row in self._undecided("sent_at IS NOT NULL"):
            if (row["kind"] == WITHDRAWAL or self._stands(row)) and requeue.may_follow(row["notice_id"]):
                requeue.again(row["notice_id"])
            else:
                self._give_up(row)

    def _undecided(self, which: str, *values: int) -> list[sqlite3.Row]:
        """List what waits for its outcome, withdrawals first: what they name stands again where they are given up."""
        return self._database.execute(
            f"SELECT * FROM envelopes WHERE outcome IS NULL AND {which} AND notice_id NOT IN unknown"  # noqa: S608 -- ours
            f" AND NOT {_WAITS_FOR_KEY} ORDER BY kind != ?, place",
            (*values, WITHDRAWAL),
        ).fetchall()

    def give_up_one(self, digest: bytes) -> None:
        """Give up a notice of ours, if it is not decided: of what it is called to repeat we were not told."""
        row = self._database.execute(
            "SELECT * FROM envelopes WHERE header_digest = ? AND outcome IS NULL AND notice_id NOT IN unknown",
            (digest,),
        ).fetchone()
        if row:
            self._give_up(row)

    def _give_up(self, row: sqlite3.Row) -> None:
        digest, said = bytes(row["header_digest"]), f"notice {uuid.UUID(bytes=bytes(row['notice_id']))}"
        if row["kind"] == WITHDRAWAL:
            self._reject(digest, told=False)
            self._journal.alarm(self._clock(), "withdrawal-undecided", said)
        else:
            self._database.execute("INSERT INTO unknown VALUES (?)", (row["notice_id"],))
            if self._stands(row):
                self._have_published_anew(row)
                self._journal.alarm(self._clock(), "publication-undecided", said)
        forget_body(self._database, digest)

    def _stands(self, row: sqlite3.Row) -> bool:
        standing = self._holding.standing(row["bureau"], row["record"])
        return any(each["place"] == row["place"] for each in standing)

    def _have_published_anew(self, row: sqlite3.Row) -> None:
        self._database.execute(
            "UPDATE records SET digest = x'' WHERE bureau = ? AND record = ? AND version = ?",
            (row["bureau"], row["record"], row["version"]),
        )

    def not_on_record(self, end: bytes) -> None:
        """Take for rejected what a withdrawal of ours names and what is unknown: the broker refuses to end it.

        It takes a withdrawal of whatever stands, has ended, or never came.
        """
        row = self._database.execute(
            "SELECT * FROM ours WHERE header_digest = ? AND kind = ?", (end, WITHDRAWAL)
        ).fetchone()
        for digest in subjects(row) if row else ():
            if self._find_unknown(digest):
                self._reject(digest, told=True)

    def told_before(self, notice_id: bytes) -> str:
        """Say which earlier withdrawal of the same record, that was given up, may have told holders; empty: none."""
        row = self._database.execute(
            "SELECT b.notice_id FROM ours AS e JOIN ours AS b ON b.bureau = e.bureau AND b.record = e.record"
            " AND b.place < e.place WHERE e.notice_id = ? AND b.kind = ? AND b.outcome = 'rejected'"
            " AND b.leaf_number IS NULL AND NOT EXISTS (SELECT 1 FROM outcomes WHERE record_digest = b.sent_digest)"
            " ORDER BY b.place DESC LIMIT 1",
            (notice_id, WITHDRAWAL),
        ).fetchone()
        if row is None:
            return ""
        return f"; withdrawal {uuid.UUID(bytes=bytes(row[0]))}, whose outcome is lost, may have told them"

    def named_unknown(self, notice_id: bytes) -> str:
        """Say which notice that an end names was given up, and so may never have had holders; empty: none."""
        row = self._database.execute("SELECT * FROM ours WHERE notice_id = ?", (notice_id,)).fetchone()
        found = next(filter(None, map(self._find_unknown, subjects(row) if row else ())), None)
        if found is None:
            return ""
        return (
            f"; notice {uuid.UUID(bytes=found)}, whose outcome is lost and which it ends, may never have been on record"
        )

    def _find_unknown(self, digest: bytes) -> bytes | None:
        """Find a notice of ours that is unknown, by the digest of its header."""
        row = self._database.execute(
            "SELECT notice_id FROM envelopes WHERE header_digest = ? AND outcome IS NULL AND notice_id IN unknown",
            (digest,),
        ).fetchone()
        return bytes(row[0]) if row else None

    def _reject(self, digest: bytes, *, told: bool) -> None:
        self._database.execute(
            "UPDATE envelopes SET outcome = 'rejected', sent_at = coalesce(sent_at, ?) WHERE header_digest = ?",
            (self._clock(), digest),
        )
        self._holding.rejected(digest, told=told)
