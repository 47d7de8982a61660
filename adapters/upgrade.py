"""Brings an outbox file of before up to date, once: what today's outbox notes when it hears an outcome, worked out."""

from __future__ import annotations

import json
import sqlite3

from adapters.again import KEY_CODES
from adapters.database import forget_body, transaction, version_of
from adapters.holding import Holding
from adapters.refusals import UnreadableDeliveryError
from broker import codec
from broker.notice import ORDERED, WITHDRAWAL, DecisionRecord, Header
from broker.verify import is_order

VERSION = 4
"""A file's `user_version`. From 1 on it tells orders, on others' records, apart from what is of ours; from 2 on it
knows what withdrawals that told nobody have left with its holders, and nothing that is decided waits in it; from 3 on
what was ordered away without a word on it before is decided, too; from 4 on it reads decision records that name a
key."""


def bring_up(database: sqlite3.Connection, holding: Holding) -> None:
    """Bring a file up to VERSION. Raises UnavailableError, with nothing changed."""
    if version_of(database) >= VERSION:
        return
    with transaction(database):
        before = version_of(database)
        if before >= VERSION:  # of two processes the second finds it done
            return
        if before < 1:
            _tell_orders(database)
        ordered = _decide_ordered(database)
        if before < 2:
            _decide(database, holding)
            _note_what_stands(database, holding)
        for bureau, record in ordered:
            holding.settle(bureau, record)
        _read_again(database)
        database.execute(f"PRAGMA user_version = {VERSION}")


def _read_again(database: sqlite3.Connection) -> None:
    """Go back to the first outcome that could not be read: a broker of today wrote it while this machine was of before.

    What is known is passed over; what cannot be read today, either, is refused and alarms once more.
    """
    database.execute(
        "UPDATE places SET place = r.first FROM (SELECT stream, min(place) AS first FROM refused WHERE code = ?"
        " AND stream GLOB 'outcomes.*' GROUP BY stream) AS r WHERE r.stream = places.stream AND r.first < places.place",
        (UnreadableDeliveryError.code,),
    )
    database.execute("DELETE FROM refused WHERE code = ? AND stream GLOB 'outcomes.*'", (UnreadableDeliveryError.code,))


def _tell_orders(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT notice_id, header FROM envelopes WHERE kind = ?", (WITHDRAWAL,)).fetchall()
    orders = [row["notice_id"] for row in rows if is_order(codec.decode(Header, bytes(row["header"])))]
    database.executemany("INSERT OR IGNORE INTO orders VALUES (?)", [(each,) for each in orders])


def _decide_ordered(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Note that what an authority ordered away is decided, and forget its body; name the records of which that is."""
    rows = database.execute(
        "UPDATE envelopes SET outcome = ?1, compartments = NULL, sent_at = coalesce(sent_at, made_at)"
        " WHERE outcome IS NULL AND notice_id IN (SELECT notice_id FROM outcomes WHERE kind = ?1)"
        " RETURNING bureau, record",
        (ORDERED,),
    ).fetchall()
    return [(row["bureau"], row["record"]) for row in rows]


def _decide(database: sqlite3.Connection, holding: Holding) -> None:
    """Note unnamed rejections of what was not decided; what is decided does not wait to be sent."""
    rejected = database.execute(
        "UPDATE envelopes SET outcome = 'rejected' WHERE outcome IS NULL AND sent_digest IN ("
        " SELECT record_digest FROM outcomes WHERE kind = 'rejected'"
        " AND code NOT IN (SELECT value FROM json_each(?))) RETURNING header_digest",
        (json.dumps(KEY_CODES),),
    ).fetchall()
    for (digest,) in rejected:
        holding.rejected(bytes(digest))
        forget_body(database, bytes(digest))
    database.execute("UPDATE envelopes SET sent_at = made_at WHERE sent_at IS NULL AND outcome IS NOT NULL")


def _note_what_stands(database: sqlite3.Connection, holding: Holding) -> None:
    """Have withdrawals that told nobody followed where they have left something, and say of every record if it stands.

    Their reasons are gone with their bodies.
    """
    ends = database.execute(
        "SELECT e.*, o.decision FROM ours AS e LEFT JOIN outcomes AS o USING (leaf_number)"
        " WHERE e.kind = ? AND e.outcome IN ('rejected', 'routed') ORDER BY e.place",
        (WITHDRAWAL,),
    ).fetchall()
    for end in ends:
        if end["outcome"] == "rejected" or _reached_nobody(end["decision"]):
            holding.note_left(end)
    # Nothing else has ended what it was not to end, or left what it was to end.
    for bureau, record in database.execute(
        "SELECT DISTINCT bureau, record FROM ours WHERE kind = ? OR outcome IN ('rejected', ?)", (WITHDRAWAL, ORDERED)
    ).fetchall():
        holding.settle(bureau, record)


def _reached_nobody(decision: bytes | None) -> bool:
    return decision is not None and not codec.decode(DecisionRecord, bytes(decision)).rows
