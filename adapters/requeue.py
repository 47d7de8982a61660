"""Queues again what an outbox has sent and the broker could not take, or may not have taken, for its key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import suppress

from adapters.again import KEY_CODES, Rejection, Shown, can_come_again, is_due
from adapters.compose import NO_KEY, Maker
from broker import codec
from broker.notice import Leaf


class Requeue:
    """What an outbox sends again, under keys that were at hand before the file was held; else it waits."""

    def __init__(self, database: sqlite3.Connection, maker: Maker) -> None:
        self._database, self._maker = database, maker
        self._keys: dict[str, bytes] = {}

    def bureaus(self) -> set[str]:
        """Name the bureaus whose keys say whether something of them comes again."""
        rejected = [row for row in self._rejected() if self.may_follow(bytes(row["notice_id"]))]
        return {row["bureau"] for row in (*rejected, *self._built_on())}

    def unlock(self, bureaus: Iterable[str]) -> None:
        """Have the keys of these bureaus at hand before the file is held: a person may have to type a passphrase."""
        self._keys = {}
        for bureau in sorted(bureaus):
            with suppress(*NO_KEY):  # it has no key at all now: that is for its own notices to say
                self._keys[bureau] = self._maker.key(bureau).public.id

    # Within the caller's transaction

    def rejected(self) -> None:
        """Queue what was rejected for its key alone and can come again, once for each rejection."""
        for row in self._rejected():
            rejection = _rejection(row)
            signed = bytes(row["notice_id"]), row["bureau"], bytes(row["key_id"])
            if self.can_come_again(*signed, rejection) or (self._follows(*signed) and self._is_due(row)):
                self.again(bytes(row["notice_id"]))
                self._answered(rejection)

    def _rejected(self) -> list[sqlite3.Row]:
        return self._database.execute(
            "SELECT e.notice_id, e.bureau, e.key_id, e.sent_at, o.record_digest, o.code, o.now,"
            " max(o.leaf_number) AS leaf_number"
            # CROSS: from what was rejected, which is little, to its envelopes.
            " FROM outcomes AS o CROSS JOIN envelopes AS e ON o.record_digest = e.sent_digest"
            " WHERE o.kind = 'rejected' AND o.code IN (SELECT value FROM json_each(?))"
            " AND e.outcome IS NULL AND e.sent_at IS NOT NULL"
            " AND o.leaf_number NOT IN (SELECT leaf_number FROM sent_again) GROUP BY e.notice_id",
            (json.dumps(KEY_CODES),),
        ).fetchall()

    def is_due(self) -> bool:
        """Say whether something comes again since its key has come into force by now."""
        return any(self._is_due(row) and self.may_follow(bytes(row["notice_id"])) for row in self._rejected())

    def _is_due(self, row: sqlite3.Row) -> bool:
        key = self._maker.directory.key(bytes(row["key_id"]))
        return is_due(_rejection(row), key, self._maker.clock() - row["sent_at"])

    def _follows(self, notice_id: bytes, bureau: str, key_id: bytes) -> bool:
        return self._keys.get(bureau) == key_id and self.may_follow(notice_id)

    def before_what_builds_on_it(self) -> None:
        """Queue what is not decided, before what builds on it, if its key has changed since or was not taken.

        Without it the broker would know nothing of what a correction or a withdrawal names.
        """
        for row in self._built_on():
            key = self._keys.get(row["bureau"])
            if row["rejected"] or (key and key != bytes(row["key_id"])):
                self.again(bytes(row["notice_id"]))

    def _built_on(self) -> list[sqlite3.Row]:
        return self._database.execute(
            "SELECT DISTINCT e.notice_id, e.bureau, e.key_id, EXISTS("
            " SELECT 1 FROM outcomes AS o WHERE o.record_digest = e.sent_digest AND o.kind = 'rejected') AS rejected"
            " FROM envelopes AS later CROSS JOIN envelopes AS e"
            " WHERE e.bureau = later.bureau AND e.record = later.record AND e.version < later.version"
            " AND later.sent_at IS NULL AND e.sent_at IS NOT NULL AND e.outcome IS NULL AND e.compartments IS NOT NULL"
        ).fetchall()

    def _answered(self, rejection: Rejection) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO sent_again SELECT leaf_number FROM outcomes WHERE record_digest = ?",
            (rejection.digest,),
        )

    def can_come_again(self, notice_id: bytes, bureau: str, key_id: bytes, rejection: Rejection) -> bool:
        """Say whether a notice that was rejected for its key alone could be accepted now, and can be sent again."""
        present, directory = self._keys.get(bureau), self._maker.directory
        if present is None or not self.may_follow(notice_id):
            return False
        return can_come_again(rejection, (key_id, present), self._newest_leaf(), {directory.digest: directory}.get)

    def may_follow(self, notice_id: bytes) -> bool:
        """Say whether a notice whose body is still here may go out after what is on record by now.

        Not a version of a record of which a later one is on record already: it would stand beside that, as if it were
        new. A withdrawal ends what it names and nothing later.
        """
        row = self._database.execute(
            "SELECT 1 FROM envelopes AS e WHERE notice_id = ? AND compartments IS NOT NULL"
            " AND (kind = 'withdrawal' OR NOT EXISTS ("
            " SELECT 1 FROM envelopes AS later WHERE later.bureau = e.bureau AND later.record = e.record"
            " AND later.version > e.version AND later.kind != 'withdrawal'"
            " AND later.outcome IS NOT NULL AND later.outcome != 'rejected'))",
            (notice_id,),
        ).fetchone()
        return row is not None

    def _newest_leaf(self) -> Shown | None:
        row = self._database.execute(
            "SELECT leaf_number, leaf FROM outcomes ORDER BY leaf_number DESC LIMIT 1"
        ).fetchone()
        return Shown(row[0], codec.decode(Leaf, bytes(row[1]))) if row else None

    def again(self, notice_id: bytes) -> None:
        """Queue a notice anew, if its body is still here; a retransmission is harmless."""
        self._database.execute(
            "UPDATE envelopes SET sent_at = NULL, queued = queued + 1 WHERE notice_id = ? AND compartments IS NOT NULL",
            (notice_id,),
        )


def _rejection(row: sqlite3.Row) -> Rejection:
    return Rejection(row["leaf_number"], bytes(row["record_digest"]), row["code"], row["now"])
