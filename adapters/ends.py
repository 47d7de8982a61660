"""What has ended each record at one bureau: by its issuer's word, not by the order in which the broker recorded it.

An old version may be recorded, or come, after its correction or its withdrawal. That it was made before them follows
from what the issuer signed: they name it, or its version is lower and its date no later. The leaf number, which the
operator chooses, decides where this says nothing, and lets no correction end a later version. Of each record the
newest correction, withdrawal and order are known, however many there were.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from broker.notice import RESTRICTION, WITHDRAWAL, Header
from broker.verify import is_order, subject_of

REPLACED, ERASED = "replaced", "erased"
TABLES = """
CREATE TABLE IF NOT EXISTS ends(
    issuer TEXT NOT NULL, record TEXT NOT NULL, act TEXT NOT NULL, version INTEGER NOT NULL, issued INTEGER NOT NULL,
    leaf_number INTEGER NOT NULL, delivery_number INTEGER NOT NULL, names BLOB NOT NULL,
    PRIMARY KEY(issuer, record, act)
) WITHOUT ROWID;
"""
_ANY_VERSION, _NEVER = 2**63 - 1, -(2**63)
"""Of an order: an authority counts no versions, and its clock is not the issuer's."""


@dataclass(frozen=True, slots=True)
class End:
    """A correction, a withdrawal or an order, and up to which version it ends its record."""

    act: str
    version: int
    issued: int
    leaf_number: int
    number: int
    names: bytes
    """The id of the notice that it corrects or withdraws."""

    @property
    def state(self) -> str:
        """What becomes of the deliveries that it ends."""
        return REPLACED if self.act == "corrects" else ERASED

    def ends(self, header: Header, leaf_number: int) -> bool:
        """Say whether it ends a version of its record, recorded in this leaf."""
        is_older = header.version < self.version
        if header.notice_id == self.names and (is_older or self.state == ERASED):
            return True
        if header.version > self.version:
            return False
        return leaf_number < self.leaf_number or (is_older and header.issued <= self.issued)


def record_of(header: Header) -> tuple[str, str]:
    """Name issuer and record of which a notice speaks: its own, or another's that an authority withdraws."""
    subject = subject_of(header)
    return (subject.issuer if subject and is_order(header) else header.issuer, header.record)


class Ends:
    """The newest ends of every record, in the file of an inbox; all within the caller's transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def made_by(self, header: Header, leaf_number: int, number: int) -> End:
        """Say what a correction or release, a withdrawal or an order ends."""
        subject = subject_of(header)
        names = subject.notice_id if subject else b""
        if is_order(header):
            return End("orders", _ANY_VERSION, _NEVER, leaf_number, number, names)
        if header.kind != WITHDRAWAL:
            return End("corrects", header.version, header.issued, leaf_number, number, names)
        # A thief's notice may have a lower version than what its owner has out, and so has the withdrawal of it.
        version = max(header.version - 1, self._version(header, names))
        return End("withdraws", version, header.issued, leaf_number, number, names)

    def _version(self, header: Header, named: bytes) -> int:
        """Give the version of the notice that a withdrawal names, if that is here: it may have a higher one."""
        row = self._database.execute(
            "SELECT max(version) FROM deliveries WHERE notice_id = ? AND issuer = ? AND record = ?",
            (named, header.issuer, header.record),
        ).fetchone()
        return row[0] or 0

    def keep(self, end: End, header: Header) -> None:
        """Keep an end, if none of its record and kind was dated later by its issuer."""
        self._database.execute(
            "INSERT INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version,"
            " issued = excluded.issued, leaf_number = excluded.leaf_number, delivery_number = excluded.delivery_number,"
            " names = excluded.names"
            " WHERE (excluded.issued, excluded.leaf_number) > (issued, leaf_number)",
            (*record_of(header), end.act, end.version, end.issued, end.leaf_number, end.number, end.names),
        )

    def of(self, header: Header, leaf_number: int) -> End | None:
        """Find what ended a version before it came; that it was erased goes before that it was replaced."""
        if header.kind == WITHDRAWAL:
            return None
        rows = self._database.execute(
            "SELECT act, version, issued, leaf_number, delivery_number, names FROM ends"
            " WHERE issuer = ? AND record = ?",
            (header.issuer, header.record),
        )
        ends = [each for row in rows if (each := End(*row)).ends(header, leaf_number)]
        if header.kind == RESTRICTION:
            ends = [each for each in ends if each.state == ERASED]
        return min(ends, key=lambda each: each.state != ERASED, default=None)
