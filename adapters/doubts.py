"""What a member issued or holds under a key that was compromised, and what became of it since.

Works on the member's own files: whoever was told of a revocation finds by itself which of its deliveries are in doubt,
and nobody learns from it what anybody else holds.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker import codec
from broker.directory import Directory
from broker.notice import DecisionRecord, Envelope, Header, Leaf, Receipt, Revocation, Shared, Statement


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation that was checked when it came. Times in ms since the epoch; `bureau` is the key's."""

    key_id: bytes
    bureau: str
    reason: str
    compromised_since: int | None
    leaf_number: int
    revoked_at: int


@dataclass(frozen=True, slots=True)
class Issued:
    """A notice of ours in doubt. `ours` False: it never was in our outbox, somebody else signed it."""

    notice_id: bytes
    record: str
    leaf_number: int
    recorded_at: int
    reached: tuple[str, ...]
    ours: bool

    @property
    def id(self) -> str:
        """The notice id as people write it."""
        return str(uuid.UUID(bytes=self.notice_id))


@dataclass(frozen=True, slots=True)
class Held:
    """A delivery in doubt. `after`: it is recorded after the key was revoked, which no honest broker does."""

    delivery_number: int
    notice_id: bytes
    record: str
    leaf_number: int
    recorded_at: int
    after: bool

    @property
    def id(self) -> str:
        """The notice id as people write it."""
        return str(uuid.UUID(bytes=self.notice_id))


@dataclass(frozen=True, slots=True)
class Answered:
    """A receipt that we were given, signed while its key may have been in other hands: `erased` may not be true."""

    leaf_number: int
    bureau: str
    act: str
    result: str | None
    recorded_at: int
    about: tuple[int, ...]
    """Leaves of the notices that it speaks of."""


def revocations(outbox: sqlite3.Connection, directory: Callable[[bytes], Directory | None]) -> list[Revoked]:
    """List the keys that were revoked; where one was revoked again, from the earliest moment named.

    `directory` finds a directory by its digest: a later one need not list the key any more.
    """
    found: dict[bytes, Revoked] = {}
    for row in outbox.execute("SELECT * FROM outcomes WHERE kind = 'revoked' ORDER BY leaf_number"):
        said = codec.decode(Revocation, codec.decode(Statement, bytes(row["statement"])).payload)
        judged_by = directory(codec.decode(Leaf, bytes(row["leaf"])).directory)
        key, before = judged_by.key(said.key_id) if judged_by else None, found.get(said.key_id)
        if key is None:
            continue
        # A second one is on record only if it reaches further back; the key ended with the first.
        leaf, at = (before.leaf_number, before.revoked_at) if before else (row["leaf_number"], row["now"])
        found[said.key_id] = Revoked(said.key_id, key.bureau, said.reason, said.compromised_since, leaf, at)
    return list(found.values())


def held(inbox: sqlite3.Connection, revoked: Revoked) -> list[Held]:
    """List what a bureau still holds that was recorded under a key while it was compromised, or after its end."""
    return list(_held(inbox, revoked))


def _held(inbox: sqlite3.Connection, revoked: Revoked) -> Iterator[Held]:
    since = revoked.revoked_at if revoked.compromised_since is None else revoked.compromised_since
    for row in inbox.execute(
        "SELECT * FROM deliveries WHERE issuer = ? AND shared IS NOT NULL ORDER BY delivery_number", (revoked.bureau,)
    ):
        at, after = codec.decode(Leaf, bytes(row["leaf"])).now, row["leaf_number"] > revoked.leaf_number
        in_doubt = after or (revoked.compromised_since is not None and at >= since)
        if in_doubt and _envelope(row).key_id == revoked.key_id:
            yield Held(row["delivery_number"], bytes(row["notice_id"]), row["record"], row["leaf_number"], at, after)


def _envelope(row: sqlite3.Row) -> Envelope:
    return codec.decode(Envelope, codec.decode(Shared, bytes(row["shared"])).envelope)


def answered(outbox: sqlite3.Connection, revoked: Revoked) -> list[Answered]:
    """List the receipts in doubt: those that were signed with the key while it was compromised."""
    if revoked.compromised_since is None:
        return []
    rows = outbox.execute(
        "SELECT leaf_number, now, statement FROM outcomes WHERE kind = 'receipt' AND now >= ? ORDER BY leaf_number",
        (revoked.compromised_since,),
    )
    found = ((row, codec.decode(Statement, bytes(row["statement"]))) for row in rows)
    return [_answered(row, said) for row, said in found if said.key_id == revoked.key_id]


def _answered(row: sqlite3.Row, said: Statement) -> Answered:
    receipt = codec.decode(Receipt, said.payload)
    about = tuple(each.leaf_number for each in receipt.items)
    return Answered(row["leaf_number"], receipt.bureau, receipt.act, receipt.result, row["now"], about)


def issued(outbox: sqlite3.Connection, revoked: Revoked) -> list[Issued]:
    """List what was recorded under our key while it was compromised and stands, neither confirmed nor withdrawn."""
    if revoked.compromised_since is None:
        return []
    return sorted((*_own(outbox, revoked), *_foreign(outbox, revoked)), key=lambda each: each.leaf_number)


def _own(outbox: sqlite3.Connection, revoked: Revoked) -> Iterator[Issued]:
    for row in outbox.execute(
        "SELECT e.*, o.now, o.decision FROM envelopes AS e JOIN outcomes AS o ON o.leaf_number = e.leaf_number"
        " WHERE e.key_id = ? AND e.outcome IN ('routed', 'held') AND e.kind != 'withdrawal' AND o.now >= ?"
        " AND NOT EXISTS (SELECT 1 FROM ours AS n WHERE n.bureau = e.bureau AND n.record = e.record"
        " AND n.version > e.version AND n.outcome IS NOT 'rejected')",
        (revoked.key_id, revoked.compromised_since),
    ):
        yield Issued(bytes(row["notice_id"]), row["record"], row["leaf_number"], row["now"], _reached(row), ours=True)


def _foreign(outbox: sqlite3.Connection, revoked: Revoked) -> Iterator[Issued]:
    """Find what is on record as ours but never was in this outbox, and was not withdrawn since."""
    for row in outbox.execute(
        "SELECT o.* FROM outcomes AS o WHERE o.kind IN ('routed', 'held') AND o.now >= ?"
        " AND NOT EXISTS (SELECT 1 FROM envelopes AS e WHERE e.notice_id = o.notice_id)",
        (revoked.compromised_since,),
    ):
        header = codec.decode(Header, codec.decode(DecisionRecord, bytes(row["decision"])).header)
        if header.issuer == revoked.bureau and not _withdrawn(outbox, header):
            reached = _reached(row)
            yield Issued(header.notice_id, header.record, row["leaf_number"], row["now"], reached, ours=False)


def _withdrawn(outbox: sqlite3.Connection, header: Header) -> bool:
    rows = outbox.execute(
        "SELECT header FROM envelopes WHERE bureau = ? AND record = ? AND kind = 'withdrawal'"
        " AND outcome IS NOT 'rejected'",
        (header.issuer, header.record),
    )
    named = (each for row in rows for each in codec.decode(Header, bytes(row["header"])).references)
    return any(each.notice_id == header.notice_id for each in named)


def _reached(row: sqlite3.Row) -> tuple[str, ...]:
    return tuple(each.bureau for each in codec.decode(DecisionRecord, bytes(row["decision"])).rows)
