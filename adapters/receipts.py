"""Signs receipts, keeps them until the bus has them, and sends them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from adapters.again import Rejection, Shown, can_come_again, has_come, is_due
from adapters.database import QUEUED, check_went, transaction
from broker import codec, crash, streams
from broker.bus import Bus
from broker.directory import Directory
from broker.errors import IssuedInFutureError
from broker.notice import RECEIPT_ITEMS, RECEIPT_TYPE, Receipt, ReceiptItem, Statement
from broker.signing import SigningKey

PAGE = 100
TABLES = f"""
CREATE TABLE IF NOT EXISTS receipts(
    number INTEGER PRIMARY KEY, issuer_member TEXT NOT NULL, act TEXT NOT NULL, statement BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0, {QUEUED}
);
CREATE INDEX IF NOT EXISTS receipts_unsent ON receipts(number) WHERE sent = 0;
CREATE TABLE IF NOT EXISTS receipts_sent(digest BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts_rejected(
    number INTEGER PRIMARY KEY, leaf_number INTEGER NOT NULL, digest BLOB NOT NULL, code TEXT NOT NULL,
    now INTEGER NOT NULL DEFAULT 0, noted_at INTEGER
);
"""
ADDED = ("now INTEGER NOT NULL DEFAULT 0", "noted_at INTEGER")
"""Columns of `receipts_rejected` that a file of before lacks: when it was rejected by the trail, and noted here, ms."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs for a bureau."""

    federation: str
    bureau: str
    key: SigningKey
    clock: Callable[[], int]

    @property
    def member(self) -> str:
        """The member of the bureau."""
        return self.bureau.partition("/")[0]

    def statement(self, payload_type: str, payload: bytes) -> Statement:
        """Sign a payload."""
        return Statement(payload_type, payload, self.key.public.id, self.key.sign_payload(payload_type, payload))


@dataclass(frozen=True, slots=True)
class Act:
    """What a receipt will say of one delivery."""

    act: str
    issuer_member: str
    item: ReceiptItem
    result: str | None = None
    case_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A receipt that is to be sent, as it was read or as it will go."""

    number: int
    queued: int
    statement: bytes

    @property
    def digest(self) -> bytes:
        return sha256(self.statement).digest()


class Receipts:
    """The receipts of one bureau, numbered from 1."""

    def __init__(self, database: sqlite3.Connection, signer: Signer) -> None:
        self._database, self._signer = database, signer

    def queue(self, acts: Sequence[Act]) -> None:
        """Sign what is to be said, in the caller's transaction; alike acts share a receipt of at most 500 items."""
        groups: dict[tuple[str, str, str | None, bytes | None], list[ReceiptItem]] = {}
        for each in acts:
            groups.setdefault((each.issuer_member, each.act, each.result, each.case_digest), []).append(each.item)
        for (issuer_member, act, result, case_digest), items in groups.items():
            for begin in range(0, len(items), RECEIPT_ITEMS):
                part = tuple(items[begin : begin + RECEIPT_ITEMS])
                self._queue(
                    Receipt(
                        self._signer.federation, self._signer.bureau, issuer_member, act, part, result, case_digest,
                        self._next(), self._signer.clock(),
                    )
                )  # fmt: skip

    def _next(self) -> int:
        return int(self._database.execute("SELECT coalesce(max(number), 0) + 1 FROM receipts").fetchone()[0])

    def _queue(self, receipt: Receipt) -> None:
        statement = codec.encode(self._signer.statement(RECEIPT_TYPE, codec.encode(receipt)))
        self._database.execute(
            "INSERT INTO receipts(number, issuer_member, act, statement) VALUES (?, ?, ?, ?)",
            (receipt.number, receipt.issuer_member, receipt.act, statement),
        )
        # Already here, so that `send` needs no transaction of its own for it.
        self._database.execute(
            "INSERT OR IGNORE INTO receipts_sent VALUES (?, ?)", (sha256(statement).digest(), receipt.number)
        )

    async def send(self, bus: Bus, shard: int) -> int:
        """Send what waits, in order; return how many went. What went twice is on record once.

        Raises UnavailableError, also where another process keeps signing the same anew.
        """
        sent, before = 0, list[tuple[int, int]]()
        while rows := self._database.execute(
            "SELECT number, statement, queued FROM receipts WHERE sent = 0 ORDER BY number LIMIT ?", (PAGE,)
        ).fetchall():
            check_went(before, before := [(row["number"], row["queued"]) for row in rows])
            kept = [_Waiting(row["number"], row["queued"], bytes(row["statement"])) for row in rows]
            signed = [replace(each, statement=self._in_force(each.statement)) for each in kept]
            self._note([new for new, old in zip(signed, kept, strict=True) if new != old or not self._is_noted(old)])
            values = [(b"", each.statement) for each in signed]
            await bus.append(streams.receipts(self._signer.member), values, partition=shard)
            crash.here("collect.receipt-appended")
            self._mark_sent(signed)
            sent += len(rows)
        return sent

    def _is_noted(self, waiting: _Waiting) -> bool:
        row = self._database.execute("SELECT 1 FROM receipts_sent WHERE digest = ?", (waiting.digest,)).fetchone()
        return row is not None

    def _note(self, signed: Sequence[_Waiting]) -> None:
        """Keep receipts as they will go out, before they do: another process may hear first that one was rejected.

        It, and an auditor, knows them by that.
        """
        if not signed:
            return
        with transaction(self._database):
            self._database.executemany(
                "UPDATE receipts SET statement = ? WHERE number = ? AND sent = 0 AND queued = ?",
                [(each.statement, each.number, each.queued) for each in signed],
            )
            self._database.executemany(
                "INSERT OR IGNORE INTO receipts_sent VALUES (?, ?)", [(each.digest, each.number) for each in signed]
            )

    def _mark_sent(self, signed: Sequence[_Waiting]) -> None:
        """Mark what went. What another process has signed anew or queued anew meanwhile has not gone as it is now."""
        with transaction(self._database):
            self._database.executemany(
                "UPDATE receipts SET sent = 1 WHERE number = ? AND sent = 0 AND queued = ? AND statement = ?",
                [(each.number, each.queued, each.statement) for each in signed],
            )

    def waits_for_key(self) -> bool:
        """Say whether a receipt was rejected for its key, or its date, and could not be sent again yet."""
        return self._database.execute("SELECT 1 FROM receipts_rejected LIMIT 1").fetchone() is not None

    def reject(self, rejected: Iterable[Rejection]) -> None:
        """Keep which receipts were rejected for key or date alone, in the caller's transaction; no other is ours."""
        self._database.executemany(
            "INSERT OR REPLACE INTO receipts_rejected(number, leaf_number, digest, code, now, noted_at)"
            " SELECT number, ?1, ?2, ?3, ?4, ?5 FROM receipts_sent WHERE digest = ?2",
            [(each.leaf_number, each.digest, each.code, each.now, self._signer.clock()) for each in rejected],
        )

    def send_again(self, newest: Shown | None, find: Callable[[bytes], Directory | None], present: Directory) -> None:
        """Queue what was rejected for its key or its date alone and can come again, in the caller's transaction.

        `present`: the newest directory, which says from when on a key is in force. What was dated ahead is dated anew
        where our clock was set back since; where it was not, it goes as it is once its time has come.
        """
        rows = self._database.execute("SELECT w.*, statement FROM receipts_rejected AS w JOIN receipts USING (number)")
        for row in rows.fetchall():
            statement, digest = bytes(row["statement"]), bytes(row["digest"])
            rejection = Rejection(row["leaf_number"], digest, row["code"], row["now"])
            keys = (codec.decode(Statement, statement).key_id, self._signer.key.public.id)
            # Where it went under another key since, that is the one which counts.
            if sha256(statement).digest() == digest:
                waited = self._signer.clock() - row["noted_at"] if row["noted_at"] else 0
                if rejection.code == IssuedInFutureError.code:
                    again = self._dated(statement, rejection, waited)
                else:
                    due = is_due(rejection, present.key(keys[0]), waited)
                    again = statement if due or can_come_again(rejection, keys, newest, find) else None
                if again is None:
                    continue
                self._database.execute(
                    "UPDATE receipts SET sent = 0, queued = queued + 1, statement = ? WHERE number = ?",
                    (again, row["number"]),
                )
            self._database.execute("DELETE FROM receipts_rejected WHERE number = ?", (row["number"],))

    def _dated(self, data: bytes, rejection: Rejection, waited: int) -> bytes | None:
        """Give what was dated ahead as it may come again; None where it would be rejected once more."""
        receipt, now = codec.decode(Receipt, codec.decode(Statement, data).payload), self._signer.clock()
        if now < receipt.at:
            return codec.encode(self._signer.statement(RECEIPT_TYPE, codec.encode(replace(receipt, at=now))))
        return data if has_come(receipt.at, rejection.now + waited) else None

    def _in_force(self, data: bytes) -> bytes:
        """Sign the same payload anew where the bureau's key has changed since."""
        statement = codec.decode(Statement, data)
        if statement.key_id == self._signer.key.public.id:
            return data
        return codec.encode(self._signer.statement(statement.payload_type, statement.payload))
