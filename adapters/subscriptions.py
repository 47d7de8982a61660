"""What a bureau subscribes to: what the broker has put on record, and what was signed here and waits for that."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from adapters.check import Known, check_key, find_directory
from adapters.database import transaction
from adapters.refusals import IssuerKeyError, OtherFederationError, WrongLeafError
from broker import codec
from broker.notice import SUBSCRIPTION_TYPE, DecisionRecord, Leaf, Statement, Subscription
from broker.signing import pae

TABLES = """
CREATE TABLE IF NOT EXISTS subscriptions(
    bureau TEXT NOT NULL, number INTEGER NOT NULL, patterns TEXT NOT NULL, record_digest BLOB NOT NULL,
    sent_at INTEGER, PRIMARY KEY(bureau, number)
);
"""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What is on record: the topic patterns, since when (ms since the epoch), in which leaf."""

    patterns: tuple[str, ...]
    since: int
    leaf_number: int


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed here after what is on record.

    `sent_at` None: perhaps it never left; `code`: why it was rejected, if it was.
    """

    patterns: tuple[str, ...]
    signed_at: int
    sent_at: int | None
    code: str | None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What a bureau subscribes to, as far as is known here."""

    adopted: Adopted | None
    signed: Signed | None


def check_subscription(decision: DecisionRecord | None, leaf: Leaf, known: Known) -> None:
    """Check that a bureau of ours signed what it is said to subscribe to. Raises RefusedError."""
    if decision is None:
        raise WrongLeafError
    statement, subscription = _read(decision)
    signed = (statement.signature, pae(SUBSCRIPTION_TYPE, statement.payload))
    if check_key(find_directory(leaf, known), statement.key_id, leaf.now, signed) != subscription.bureau:
        raise IssuerKeyError
    if subscription.federation != known.federation:
        raise OtherFederationError
    if statement.payload_type != SUBSCRIPTION_TYPE or subscription.bureau.partition("/")[0] != known.bureau:
        raise WrongLeafError


def _read(decision: DecisionRecord) -> tuple[Statement, Subscription]:
    statement = codec.decode(Statement, decision.statement)
    return statement, codec.decode(Subscription, statement.payload)


def keep(database: sqlite3.Connection, statement: bytes) -> None:
    """Keep a signed subscription in an outbox file before it is sent. Raises UnavailableError."""
    said = codec.decode(Subscription, codec.decode(Statement, statement).payload)
    with transaction(database):
        adopted = _adopted(database, said.bureau)
        if adopted:  # what it has replaced tells nobody anything more
            database.execute(
                "DELETE FROM subscriptions WHERE bureau = ? AND number <= ?", (said.bureau, adopted[0].number)
            )
        database.execute(
            "INSERT OR IGNORE INTO subscriptions VALUES (?, ?, ?, ?, NULL)",
            (said.bureau, said.number, json.dumps(said.patterns), sha256(statement).digest()),
        )


def mark_sent(database: sqlite3.Connection, statement: bytes, at: int) -> None:
    """Note that a subscription is on the bus. Raises UnavailableError."""
    with transaction(database):
        database.execute(
            "UPDATE subscriptions SET sent_at = ? WHERE record_digest = ?", (at, sha256(statement).digest())
        )


def of(database: sqlite3.Connection, bureau: str) -> Subscribed:
    """Tell what a bureau subscribes to, from its member's outbox file, once that has taken in the outcomes."""
    adopted = _adopted(database, bureau)
    row = database.execute(
        "SELECT s.*, o.code FROM subscriptions AS s"
        " LEFT JOIN outcomes AS o ON o.kind = 'rejected' AND o.record_digest = s.record_digest"
        " WHERE s.bureau = ? ORDER BY s.rowid DESC LIMIT 1",
        (bureau,),
    ).fetchone()
    # By a clock that was set back it has a lower number than what is on record, and is rejected: that, too, is told.
    if row and row["code"] is None and adopted and row["number"] <= adopted[0].number:
        row = None
    signed = Signed(tuple(json.loads(row["patterns"])), row["number"], row["sent_at"], row["code"]) if row else None
    return Subscribed(adopted[1] if adopted else None, signed)


def _adopted(database: sqlite3.Connection, bureau: str) -> tuple[Subscription, Adopted] | None:
    """Give the bureau's subscription of the highest number that is on record."""
    found = [(said, row) for said, row in _on_record(database) if said.bureau == bureau]
    if not found:
        return None
    said, row = max(found, key=lambda each: each[0].number)
    return said, Adopted(said.patterns, row["now"], row["leaf_number"])


def _on_record(database: sqlite3.Connection) -> Iterator[tuple[Subscription, sqlite3.Row]]:
    for row in database.execute("SELECT leaf_number, now, decision FROM outcomes WHERE kind = 'subscribed'"):
        yield _read(codec.decode(DecisionRecord, bytes(row["decision"])))[1], row
