"""Which version of a record its holders have, and which one a withdrawal that told nobody has left with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from broker import codec
from broker.notice import WITHDRAWAL, Header, Reference

TABLES = """
CREATE TABLE IF NOT EXISTS told_nobody(
    notice_id BLOB PRIMARY KEY, compartments BLOB, followed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_nobody_unfollowed ON told_nobody(notice_id) WHERE followed = 0;
"""


class Holding:
    """What is held of the records of one outbox file; what writes does so within the caller's transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def held(self, bureau: str, record: str) -> Reference | None:
        """Find the newest notice of a record that bureaus may hold; None if all of it is withdrawn or was rejected.

        A withdrawal that builds on a rejected notice ended nothing: the broker knew of nobody who holds that. One that
        told nobody ended what it names and nothing before it.
        """
        rows = self._database.execute(
            "SELECT notice_id, header_digest, kind, header, notice_id IN (SELECT notice_id FROM told_nobody) AS untold"
            " FROM ours WHERE bureau = ? AND record = ? AND outcome IS NOT 'rejected' ORDER BY version",
            (bureau, record),
        )
        found: dict[bytes, Reference] = {}
        ours: set[bytes] = set()
        for row in rows:
            digest = bytes(row["header_digest"])
            if row["kind"] != WITHDRAWAL:
                found[digest] = Reference(bureau, bytes(row["notice_id"]), digest, "")
                ours.add(digest)
            elif named := ours & subjects(row):
                found = {each: held for each, held in found.items() if row["untold"] and each not in named}
        return list(found.values())[-1] if found else None

    def built_on(self, digest: bytes, bureau: str, record: str) -> bool:
        """Say whether the newest notice of a record is a withdrawal of that header."""
        row = self._database.execute(
            "SELECT kind, header FROM ours WHERE bureau = ? AND record = ? ORDER BY version DESC LIMIT 1",
            (bureau, record),
        ).fetchone()
        return row is not None and row["kind"] == WITHDRAWAL and digest in subjects(row)

    def told_nobody(self, notice_id: bytes) -> None:
        """Note that a withdrawal told nobody, if it has left a version with its holders: that is to be withdrawn.

        Before its body goes, which has its reason. Until then the record is what it is at its holders: live.
        """
        end = self._database.execute(
            "SELECT * FROM ours WHERE notice_id = ? AND kind = 'withdrawal'", (notice_id,)
        ).fetchone()
        if end is None or self.left_by(end) is None:
            return
        self._database.execute(
            "INSERT OR IGNORE INTO told_nobody(notice_id, compartments) VALUES (?, ?)", (notice_id, end["compartments"])
        )
        # Of what was published meanwhile the state is its own.
        self._database.execute(
            "UPDATE records SET state = 'live', digest = x'' WHERE bureau = ? AND record = ? AND version = ?",
            (end["bureau"], end["record"], end["version"]),
        )

    def unfollowed(self) -> list[sqlite3.Row]:
        """Give the withdrawals that told nobody and are to be followed; `reason`: their bodies, if they were here."""
        return self._database.execute(
            "SELECT e.*, t.compartments AS reason FROM told_nobody AS t CROSS JOIN envelopes AS e USING (notice_id)"
            " WHERE t.followed = 0 ORDER BY e.place"
        ).fetchall()

    def follow(self, notice_id: bytes) -> bool:
        """Take it on oneself to follow one; False: another process has."""
        changed = self._database.execute(
            "UPDATE told_nobody SET followed = 1, compartments = NULL WHERE notice_id = ? AND followed = 0",
            (notice_id,),
        )
        return bool(changed.rowcount)

    def left_by(self, end: sqlite3.Row) -> sqlite3.Row | None:
        """Find the newest version before a withdrawal that is on record, or still may be, and that nothing else ends.

        What is not decided and named by a withdrawal is none: whichever of them comes first, nobody holds it after.
        Who disowns another's notice, a thief's, ends none of ours.
        """
        ours = self._database.execute(
            "SELECT notice_id, header_digest, version, kind, outcome, header FROM ours"
            " WHERE bureau = ? AND record = ? ORDER BY version",
            (end["bureau"], end["record"]),
        ).fetchall()
        if not subjects(end) & {bytes(row["header_digest"]) for row in ours}:
            return None
        rows = [row for row in ours if row["outcome"] != "rejected" or row["notice_id"] == end["notice_id"]]
        named = [(row, subjects(row)) for row in rows]
        withdrawn = {digest for row, digests in named if row["kind"] == WITHDRAWAL for digest in digests}
        later = {digest for row, digests in named if row["version"] > end["version"] for digest in digests}
        before = [
            row
            for row in rows
            if row["kind"] != WITHDRAWAL
            and row["version"] < end["version"]
            and (row["outcome"] or bytes(row["header_digest"]) not in withdrawn)
        ]
        newest = before[-1] if before else None
        return newest if newest and bytes(newest["header_digest"]) not in withdrawn | later else None


def subjects(row: sqlite3.Row) -> set[bytes]:
    """Give the digests of the headers that an envelope names."""
    return {each.header_digest for each in codec.decode(Header, bytes(row["header"])).references}


def reason_in(compartments: bytes | None) -> Mapping[str, Any] | None:
    """Read the reason of a withdrawal, if its body is still here."""
    found = codec.decode_compartments(compartments) if compartments else ()
    opened = next((each.opened for each in found if each.name == "reason"), None)
    return codec.read("withdrawal.reason", opened.data) if opened else None
