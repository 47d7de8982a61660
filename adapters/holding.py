"""Which notices of a record stand with its holders, and which one a withdrawal that told nobody has left with them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from broker import avro, codec
from broker.notice import ORDERED, WITHDRAWAL, DecisionRecord, Header, Reference, Verified
from broker.signing import header_digest

_FORGET = "DELETE FROM standing WHERE (bureau, record) IN (SELECT bureau, record FROM envelopes WHERE notice_id ="
TABLES = f"""
CREATE TABLE IF NOT EXISTS told_nobody(
    notice_id BLOB PRIMARY KEY, compartments BLOB, followed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_nobody_unfollowed ON told_nobody(notice_id) WHERE followed = 0;
CREATE TABLE IF NOT EXISTS standing(
    bureau TEXT NOT NULL, record TEXT NOT NULL, places TEXT NOT NULL, PRIMARY KEY(bureau, record)
) WITHOUT ROWID;
-- Whatever may change what stands of a record forgets it here, in the file: a process of before may have it open, too.
CREATE TRIGGER IF NOT EXISTS standing_published AFTER INSERT ON envelopes BEGIN
    DELETE FROM standing WHERE bureau = new.bureau AND record = new.record;
END;
CREATE TRIGGER IF NOT EXISTS standing_decided AFTER UPDATE OF outcome ON envelopes
WHEN new.outcome IS NOT old.outcome AND (
    'rejected' IN (old.outcome, new.outcome) OR '{ORDERED}' IN (old.outcome, new.outcome)
    -- On record is what nobody was to hold, as a withdrawal that told nobody names it.
    OR old.outcome IS NULL AND EXISTS (
        SELECT 1 FROM told_nobody CROSS JOIN envelopes AS e USING (notice_id)
        WHERE e.bureau = new.bureau AND e.record = new.record))
BEGIN
    DELETE FROM standing WHERE bureau = new.bureau AND record = new.record;
END;
CREATE TRIGGER IF NOT EXISTS standing_untold AFTER INSERT ON told_nobody BEGIN {_FORGET} new.notice_id); END;
CREATE TRIGGER IF NOT EXISTS standing_told AFTER DELETE ON told_nobody BEGIN {_FORGET} old.notice_id); END;
CREATE TRIGGER IF NOT EXISTS standing_ordered AFTER INSERT ON orders BEGIN {_FORGET} new.notice_id); END;
CREATE TRIGGER IF NOT EXISTS standing_foreign AFTER INSERT ON outcomes
WHEN new.kind IN ('routed', 'held') AND NOT EXISTS (SELECT 1 FROM envelopes WHERE notice_id = new.notice_id)
BEGIN
    DELETE FROM standing;
END;
"""  # noqa: S608 -- ours
"""To be made after the outbox's own. `standing`: what stands of records of several versions, by `place`, as worked out
when it was last published; no row: to be worked out again."""
_STANDING = (
    "SELECT place, notice_id, bureau, record, version, kind, header, header_digest, outcome,"
    " notice_id IN (SELECT notice_id FROM told_nobody) AS untold FROM ours"
)
_ENDS = frozenset({"corrects", "withdraws"})


class Holding:
    """What is held of the records of one outbox file; what writes does so within the caller's transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def standing(self, bureau: str, record: str) -> list[sqlite3.Row]:
        """List the notices of a record that bureaus may hold and that nothing ends, lowest version first.

        They are several where a withdrawal was rejected after its record had been published anew: what was rejected
        ends nothing. What is not decided and named by a withdrawal that told nobody is none, and ends nothing:
        whichever of the two comes first, nobody holds it after.
        """
        known = self._database.execute(
            "SELECT places FROM standing WHERE bureau = ? AND record = ?", (bureau, record)
        ).fetchone()
        if known is None:
            return self._worked_out(bureau, record)
        return self._rows("place IN (SELECT value FROM json_each(?))", *known)

    def _worked_out(self, bureau: str, record: str) -> list[sqlite3.Row]:
        """Say what stands of a record from all its versions: a header read for each."""
        rows = self._rows("bureau = ? AND record = ?", bureau, record)
        lost = {digest for row in rows if row["untold"] for digest in subjects(row)}
        taken = [
            row
            for row in rows
            if row["outcome"] != "rejected" and (row["outcome"] or bytes(row["header_digest"]) not in lost)
        ]
        ended = {digest for row in taken for digest in self._ended_by(row)}
        return [
            row
            for row in taken
            if row["kind"] != WITHDRAWAL and row["outcome"] != ORDERED and bytes(row["header_digest"]) not in ended
        ]

    def _rows(self, where: str, *values: str) -> list[sqlite3.Row]:
        return self._database.execute(f"{_STANDING} WHERE {where} ORDER BY version, place", values).fetchall()

    def went_on(self, before: Sequence[sqlite3.Row], made: Verified) -> None:
        """Keep what stands now that a version was published over what stood `before`: nobody has decided it yet."""
        if not before:
            return
        (new,) = self._database.execute(f"{_STANDING} WHERE notice_id = ?", (made.header.notice_id,)).fetchall()
        ended = self._ended_by(new)
        left = [row for row in before if bytes(row["header_digest"]) not in ended]
        self._keep(new["bureau"], new["record"], [*left, new])

    def _keep(self, bureau: str, record: str, standing: Sequence[sqlite3.Row]) -> None:
        places = json.dumps([row["place"] for row in standing])
        self._database.execute("INSERT OR REPLACE INTO standing VALUES (?, ?, ?)", (bureau, record, places))

    def held(self, bureau: str, record: str) -> Reference | None:
        """Find the newest notice of a record that bureaus may hold; None if all of it is withdrawn or was rejected."""
        found = self.standing(bureau, record)
        return reference_to(found[-1], "") if found else None

    def _ended_by(self, row: sqlite3.Row) -> set[bytes]:
        """Give the digests of the headers that a notice of ours ends.

        Of one that disowns a thief's, too, what that had corrected: nothing but its withdrawal reaches who holds it.
        """
        found, named = set[bytes](), [_header(bytes(row["header"]))]
        for header in named:
            for reference in header.references:
                if reference.relation not in _ENDS:
                    continue
                found.add(reference.header_digest)
                foreign = self.foreign(reference.notice_id)
                if foreign and foreign[1] == reference.header_digest:  # a digest names no header that names it: it ends
                    named.append(foreign[0])
        return found

    def foreign(self, notice_id: bytes) -> tuple[Header, bytes] | None:
        """Give header and digest of a notice that is on record as ours and never was in this outbox."""
        row = self._database.execute(
            "SELECT decision FROM outcomes WHERE notice_id = ?1 AND kind IN ('routed', 'held')"
            " AND NOT EXISTS (SELECT 1 FROM envelopes WHERE notice_id = ?1)",
            (notice_id,),
        ).fetchone()
        if row is None:
            return None
        header = codec.decode(DecisionRecord, bytes(row["decision"])).header
        return codec.decode(Header, header), header_digest(header)

    def settle(self, bureau: str, record: str) -> None:
        """Note whether anything of a record stands; where that has changed, its source has it published again."""
        standing = self.standing(bureau, record)
        self._keep(bureau, record, standing)
        self._database.execute(
            "UPDATE records SET digest = x'', state = iif(?1, 'live', 'withdrawn')"
            " WHERE bureau = ?2 AND record = ?3 AND (state = 'live') != ?1",
            (bool(standing), bureau, record),
        )

    def rejected(self, digest: bytes, *, told: bool = True) -> None:
        """Note what stands, now that a notice of ours was rejected; its source has that version published again.

        `told`: the broker has said so, after all that it had to say of what the notice names. Else what that names and
        is not decided may be held, as its outcome, too, may be lost.
        """
        row = self._ours(digest)
        if row is None:  # an order: of another's record, whatever that is called
            return
        if row["kind"] == WITHDRAWAL and (told or self._decided(subjects(row))):
            self.note_left(row)
        self._database.execute(
            "UPDATE records SET digest = x'' WHERE bureau = ? AND record = ? AND version = ?",
            (row["bureau"], row["record"], row["version"]),
        )
        self.settle(row["bureau"], row["record"])

    def told_nobody(self, digest: bytes) -> None:
        """Note what stands, now that a notice of ours told nobody, if it is a withdrawal."""
        row = self._ours(digest)
        if row and row["kind"] == WITHDRAWAL:
            self.note_left(row)
            self.settle(row["bureau"], row["record"])

    def on_record(self, digest: bytes) -> None:
        """Note what stands, now that a notice of ours is on record that was taken for rejected."""
        row = self._ours(digest)
        if row:
            self._database.execute("DELETE FROM told_nobody WHERE notice_id = ?", (row["notice_id"],))
            self.settle(row["bureau"], row["record"])

    def note_left(self, end: sqlite3.Row) -> None:
        """Note that a withdrawal has told nobody, if it has left a version with its holders: that is to be withdrawn.

        Before its body goes, which has its reason, and before `settle`: until it is, its record is live, as at holders.
        """
        added = self._database.execute(
            "INSERT OR IGNORE INTO told_nobody(notice_id, compartments) VALUES (?, ?)",
            (end["notice_id"], end["compartments"]),
        ).rowcount
        if added and self.left_by(end, self.standing(end["bureau"], end["record"])) is None:
            self._database.execute("DELETE FROM told_nobody WHERE notice_id = ?", (end["notice_id"],))

    def _decided(self, digests: set[bytes]) -> bool:
        """Say whether all of these notices that are ours have an outcome."""
        return all(row["outcome"] for row in map(self._ours, digests) if row)

    def _ours(self, digest: bytes) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._database.execute(
            "SELECT * FROM ours WHERE header_digest = ?", (digest,)
        ).fetchone()
        return found

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

    def left_by(self, end: sqlite3.Row, standing: Sequence[sqlite3.Row]) -> sqlite3.Row | None:
        """Find, in what is standing of its record, the newest version before a withdrawal that told nobody.

        One that it names itself, as it was rejected, only if the record was published anew after it, and hides that:
        else the record is live, and its source or people withdraw it again. None that something published after it
        names, though that was rejected: whoever did so knew that it stands, and did not want it ended. Who disowns
        another's notice, a thief's, ends none of ours.
        """
        bureau, record, named = end["bureau"], end["record"], subjects(end)
        if not any(self._ours(digest) for digest in named):
            return None
        before = [row for row in standing if row["version"] < end["version"]]
        if not before:
            return None
        newest = bytes(before[-1]["header_digest"])
        went_on = self._database.execute(
            "SELECT header FROM ours WHERE bureau = ? AND record = ? AND place > ? AND kind != ?",
            (bureau, record, end["place"], WITHDRAWAL),
        ).fetchall()
        if any(newest in subjects(row) for row in went_on) or (newest in named and not went_on):
            return None
        return before[-1]


def reference_to(row: sqlite3.Row, relation: str) -> Reference:
    """Refer to a notice of ours."""
    return Reference(row["bureau"], bytes(row["notice_id"]), bytes(row["header_digest"]), relation)


def subjects(row: sqlite3.Row) -> set[bytes]:
    """Give the digests of the headers that an envelope names."""
    return {each.header_digest for each in _header(bytes(row["header"])).references}


@lru_cache(4096)
def _header(data: bytes) -> Header:
    """Read a header; all versions of a record are read again for each that ends."""
    return codec.decode(Header, data)


def reason_in(compartments: bytes | None) -> Mapping[str, Any] | None:
    """Read the reason of a withdrawal, if its body is still here."""
    found = codec.decode_compartments(compartments) if compartments else ()
    opened = next((each.opened for each in found if each.name == "reason"), None)
    return avro.read("withdrawal.reason", opened.data) if opened else None
