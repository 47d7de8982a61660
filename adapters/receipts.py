"""Signs receipts, keeps them until the bus has them, and sends them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker import codec, crash, streams
from broker.bus import Bus
from broker.notice import RECEIPT_ITEMS, RECEIPT_TYPE, Receipt, ReceiptItem, Statement
from broker.signing import SigningKey
from broker.writing import transaction

PAGE = 100
TABLES = """
CREATE TABLE IF NOT EXISTS receipts(
    number INTEGER PRIMARY KEY, issuer_member TEXT NOT NULL, act TEXT NOT NULL, statement BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS receipts_unsent ON receipts(number) WHERE sent = 0;
"""


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
        statement = self._signer.statement(RECEIPT_TYPE, codec.encode(receipt))
        self._database.execute(
            "INSERT INTO receipts(number, issuer_member, act, statement) VALUES (?, ?, ?, ?)",
            (receipt.number, receipt.issuer_member, receipt.act, codec.encode(statement)),
        )

    async def send(self, bus: Bus, shard: int) -> int:
        """Send what waits, in order; return how many went. What went twice is on record once."""
        sent = 0
        while rows := self._database.execute(
            "SELECT number, statement FROM receipts WHERE sent = 0 ORDER BY number LIMIT ?", (PAGE,)
        ).fetchall():
            values = [(b"", self._in_force(bytes(row["statement"]))) for row in rows]
            await bus.append(streams.receipts(self._signer.member), values, partition=shard)
            crash.here("collect.receipt-appended")
            with transaction(self._database):
                self._database.execute(
                    "UPDATE receipts SET sent = 1 WHERE sent = 0 AND number <= ?", (rows[-1]["number"],)
                )
            sent += len(rows)
        return sent

    def _in_force(self, data: bytes) -> bytes:
        """Sign the same payload anew where the bureau's key has changed since."""
        statement = codec.decode(Statement, data)
        if statement.key_id == self._signer.key.public.id:
            return data
        return codec.encode(self._signer.statement(statement.payload_type, statement.payload))
