"""The deliveries of one bureau: what was checked and kept, and what is left of what has ended."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import ends, heads, receipts
from adapters.again import Shown
from adapters.check import Checked
from adapters.database import add_column, connect, count_queued, transaction, version_of
from adapters.ends import ERASED, End, Ends, record_of
from adapters.heads import Heads, Journal
from broker import avro, by_hand, codec
from broker.errors import NoticeRejectedError
from broker.notice import ROUTING, Envelope, Header, Leaf, ReceiptItem, Shared

TABLES = """
CREATE TABLE IF NOT EXISTS deliveries(
    delivery_number INTEGER PRIMARY KEY, leaf_number INTEGER NOT NULL, leaf BLOB NOT NULL, bureau TEXT NOT NULL,
    row BLOB NOT NULL, salt BLOB NOT NULL, path BLOB NOT NULL, row_index INTEGER NOT NULL,
    notice_id BLOB NOT NULL, issuer TEXT NOT NULL, record TEXT NOT NULL, version INTEGER NOT NULL, kind TEXT NOT NULL,
    topics TEXT NOT NULL, urgency TEXT NOT NULL, header_digest BLOB NOT NULL,
    state TEXT NOT NULL CHECK(state IN ('new', 'read', 'replaced', 'erased')), taken_at INTEGER NOT NULL,
    shared BLOB, replaced_by INTEGER
);
CREATE INDEX IF NOT EXISTS deliveries_notice ON deliveries(notice_id);
CREATE INDEX IF NOT EXISTS deliveries_held
    ON deliveries(issuer, record, (kind IN ('withdrawal', 'restriction')), version) WHERE shared IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_named ON deliveries(issuer, record);
DROP INDEX IF EXISTS deliveries_record;
DROP INDEX IF EXISTS deliveries_withdrawals;
CREATE TABLE IF NOT EXISTS orders(
    delivery_number INTEGER PRIMARY KEY, state TEXT NOT NULL, ordered_by INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS cases(
    digest BLOB PRIMARY KEY, delivery_number INTEGER NOT NULL, salt BLOB NOT NULL, reference TEXT NOT NULL,
    at INTEGER NOT NULL
);
"""
_LINE = (
    "delivery_number, leaf_number, notice_id, issuer, record, version, kind, topics, urgency, state, taken_at,"
    " header_digest"
)
"""What a `Line` is made of: a list of all that was delivered must not bring all its bodies into memory."""
TELLS_ENDS = 1
"""The version of a file from which on it tells what has ended each record."""
_JSON = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class OpenedFor:
    """For which case a delivery was opened; `digest` is SHA-256(salt ‖ reference), which the `read` receipt carries."""

    reference: str
    digest: bytes
    salt: bytes
    at: int
    notice_id: bytes
    leaf_number: int


@dataclass(frozen=True, slots=True)
class Line:
    """One delivery as a list shows it; nothing of the body."""

    number: int
    leaf_number: int
    notice_id: bytes
    issuer: str
    record: str
    version: int
    kind: str
    topics: tuple[str, ...]
    urgency: str
    state: str
    taken_at: int
    header_digest: bytes

    @property
    def id(self) -> str:
        """The notice id as people write it."""
        return str(uuid.UUID(bytes=self.notice_id))

    @property
    def issuer_member(self) -> str:
        """The member that issued it."""
        return self.issuer.partition("/")[0]

    @property
    def item(self) -> ReceiptItem:
        """What a receipt says of it."""
        return ReceiptItem(self.leaf_number, self.header_digest)


@dataclass(frozen=True, slots=True)
class Newest:
    """The delivery with the highest number that was kept, and the directory of its leaf; (0, None) before the first."""

    number: int
    directory: bytes | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A delivery as a person reads it: header and the compartments that are open.

    `unreadable`: compartments that were shown and are not what their schema says. The broker opens none, so whoever has
    a key can send such; what else there is can still be read, reviewed and ended.
    """

    line: Line
    header: Header
    body: dict[str, Any]
    unreadable: tuple[str, ...] = ()


class Inbox:
    """The file of one bureau. Nothing is in it that was not checked."""

    def __init__(self, path: Path) -> None:
        self.database = connect(path, heads.TABLES + receipts.TABLES + ends.TABLES + TABLES, TELLS_ENDS)
        count_queued(self.database, "receipts")
        for column in receipts.ADDED:
            add_column(self.database, "receipts_rejected", column)
        self.journal = Journal(self.database)
        self.heads = Heads(self.journal)
        self.ends = Ends(self.database)
        if version_of(self.database) < TELLS_ENDS:
            self._learn_ends()

    def _learn_ends(self) -> None:
        """Take the withdrawals that a file of before has."""
        with transaction(self.database):
            for row in self.database.execute(
                "SELECT delivery_number, leaf_number FROM deliveries WHERE kind = 'withdrawal' AND shared IS NOT NULL"
            ).fetchall():
                if opened := self.open(row[0]):
                    self.ends.keep(self.ends.made_by(opened.header, row[1], row[0]), opened.header)
            self.database.execute(f"PRAGMA user_version = {TELLS_ENDS}")

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def last_number(self) -> int:
        """Tell the highest delivery number that was kept."""
        return int(self.database.execute("SELECT coalesce(max(delivery_number), 0) FROM deliveries").fetchone()[0])

    def newest(self) -> Newest:
        """Give the delivery with the highest number."""
        row = self.database.execute(
            "SELECT delivery_number, leaf FROM deliveries ORDER BY delivery_number DESC LIMIT 1"
        ).fetchone()
        return Newest(row[0], codec.decode(Leaf, bytes(row[1])).directory) if row else Newest(0, None)

    def newest_leaf(self) -> Shown | None:
        """Give the leaf of the delivery with the highest number."""
        row = self.database.execute(
            "SELECT leaf_number, leaf FROM deliveries ORDER BY delivery_number DESC LIMIT 1"
        ).fetchone()
        return Shown(row[0], codec.decode(Leaf, bytes(row[1]))) if row else None

    def missing(self) -> int:
        """Tell how many delivery numbers below the highest never came."""
        row = self.database.execute("SELECT coalesce(max(delivery_number), 0) - count(*) FROM deliveries").fetchone()
        return int(row[0])

    def line(self, number: int) -> Line | None:
        """Find a delivery by its number."""
        row = self.database.execute("SELECT * FROM deliveries WHERE delivery_number = ?", (number,)).fetchone()
        return _line(row) if row else None

    def leaf_before(self, number: int) -> Leaf | None:
        """Give the leaf of the delivery that came nearest before this number."""
        row = self.database.execute(
            "SELECT leaf FROM deliveries WHERE delivery_number < ? ORDER BY delivery_number DESC LIMIT 1", (number,)
        ).fetchone()
        return codec.decode(Leaf, bytes(row["leaf"])) if row else None

    def lines(self, after: int = 0) -> Iterator[Line]:
        """List deliveries, oldest first."""
        query = f"SELECT {_LINE} FROM deliveries WHERE delivery_number > ? ORDER BY delivery_number"  # noqa: S608 -- ours
        return map(_line, self.database.execute(query, (after,)).fetchall())

    def held_lines(self) -> list[Line]:
        """List the deliveries that were given for a review and have not ended, oldest first."""
        begins = by_hand.leaf_prefix("held")
        query = (
            f"SELECT {_LINE} FROM deliveries WHERE state IN ('new', 'read') AND substr(leaf, 1, ?) = ?"  # noqa: S608 -- ours
            " ORDER BY delivery_number"
        )
        return list(map(_line, self.database.execute(query, (len(begins), begins))))

    def before_newest(self, count: int) -> int:
        """Tell after which number the newest `count` deliveries come."""
        numbers = "SELECT delivery_number FROM deliveries ORDER BY delivery_number DESC LIMIT ?"
        row = self.database.execute(f"SELECT coalesce(min(delivery_number), 1) - 1 FROM ({numbers})", (count,))  # noqa: S608 -- ours
        return int(row.fetchone()[0])

    def count(self) -> tuple[int, int]:
        """Tell how many deliveries there are, and how many of them are new."""
        row = self.database.execute("SELECT count(*), count(*) FILTER (WHERE state = 'new') FROM deliveries").fetchone()
        return int(row[0]), int(row[1])

    def find(self, text: str) -> Line | None:
        """Find a delivery by its notice id or number; the newest delivery where a notice came twice."""
        try:
            if text.isdecimal() and len(text) < 19:
                return self.line(int(text))
            sought = uuid.UUID(text).bytes
        except ValueError:
            return None
        query = "SELECT * FROM deliveries WHERE notice_id = ? ORDER BY delivery_number DESC LIMIT 1"
        row = self.database.execute(query, (sought,)).fetchone()
        return _line(row) if row else None

    def of_record(self, issuer: str, record: str) -> Line | None:
        """Find what we have of a record: what stands before what has ended, then the latest delivery.

        An old version may come late.
        """
        query = (
            "SELECT * FROM deliveries WHERE issuer = ? AND record = ?"
            " ORDER BY state IN ('new', 'read') DESC, delivery_number DESC LIMIT 1"
        )
        row = self.database.execute(query, (issuer, record)).fetchone()
        return _line(row) if row else None

    def open(self, number: int) -> Opened | None:
        """Read a delivery's body; None if there is none, or no longer."""
        row = self.database.execute("SELECT * FROM deliveries WHERE delivery_number = ?", (number,)).fetchone()
        if row is None or row["shared"] is None:
            return None
        envelope = codec.decode(Envelope, codec.decode(Shared, bytes(row["shared"])).envelope)
        body: dict[str, Any] = {}
        unreadable: list[str] = []
        for each in codec.decode_compartments(envelope.compartments):
            if each.opened is None or each.name == ROUTING:
                continue
            try:
                body[each.name] = avro.read(avro.name_of(each.opened.data), each.opened.data)
            except NoticeRejectedError:
                unreadable.append(each.name)
        return Opened(_line(row), codec.decode(Header, envelope.header), body, tuple(unreadable))

    def held(self, end: End, issuer: str, record: str) -> list[int]:
        """Give the numbers of a record's deliveries that still have a body and that an end of it ends."""
        rows = self.database.execute(
            "SELECT delivery_number, leaf_number FROM deliveries WHERE issuer = ? AND record = ?"
            " AND (kind IN ('withdrawal', 'restriction')) = 0 AND version <= ? AND shared IS NOT NULL"
            " ORDER BY delivery_number",
            (issuer, record, end.version),
        ).fetchall()
        return [number for number, leaf in rows if leaf < end.leaf_number or self._is_ended(end, number, leaf)]

    def _is_ended(self, end: End, number: int, leaf_number: int) -> bool:
        """Look into a delivery that was recorded after what may end it: no honest operator hands out such."""
        opened = self.open(number)
        return opened is not None and end.ends(opened.header, leaf_number)

    def speaks_of(self, number: int) -> tuple[str, str] | None:
        """Name issuer and record of which a delivery speaks; None where nothing of it is kept."""
        line, opened = self.line(number), self.open(number)
        if opened:
            return record_of(opened.header)
        return (line.issuer, line.record) if line else None

    # Within the caller's transaction

    def keep(self, checked: Checked, ordered: tuple[str, int] | None, taken_at: int) -> Line:
        """Keep a delivery; if its end came before it, by what is `ordered` or else, it is kept without its body."""
        delivery, header = checked.delivery, checked.header
        end = self.ends.of(header, delivery.leaf_number)
        if end and (ordered is None or end.state == ERASED):
            ordered = (end.state, end.number)
        state, ordered_by = ordered or ("new", None)
        self.database.execute(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                delivery.delivery_number, delivery.leaf_number, checked.shared.leaf, delivery.bureau,
                delivery.row, delivery.salt, delivery.path, delivery.index,
                header.notice_id, header.issuer, header.record, header.version, header.kind,
                _JSON(header.topics), header.urgency, checked.header_digest,
                state, taken_at, None if ordered else delivery.shared, ordered_by,
            ),
        )  # fmt: skip
        # What a look into the file would give.
        return Line(
            delivery.delivery_number, delivery.leaf_number, header.notice_id, header.issuer, header.record,
            header.version, header.kind, header.topics, header.urgency, state, taken_at, checked.header_digest,
        )  # fmt: skip

    def ordered(self, number: int) -> tuple[str, int] | None:
        """Tell what was ordered for a delivery before it came: (state, number of the delivery that ordered it)."""
        row = self.database.execute("SELECT * FROM orders WHERE delivery_number = ?", (number,)).fetchone()
        return (str(row["state"]), int(row["ordered_by"])) if row else None

    def end(self, numbers: Sequence[int], state: str, ordered_by: int) -> None:
        """Take the bodies of deliveries away; what has not come yet will be kept without its body."""
        for number in numbers:
            changed = self.database.execute(
                "UPDATE deliveries SET state = ?, shared = NULL, replaced_by = ?"
                " WHERE delivery_number = ? AND state != 'erased'",
                (state, ordered_by, number),
            ).rowcount
            if not changed and self.line(number) is None:
                self.database.execute("INSERT OR REPLACE INTO orders VALUES (?, ?, ?)", (number, state, ordered_by))

    def mark_read(self, number: int) -> None:
        """Mark a delivery as read."""
        self.database.execute(
            "UPDATE deliveries SET state = 'read' WHERE delivery_number = ? AND state = 'new'", (number,)
        )

    def case(self, number: int, reference: str) -> bytes | None:
        """Give the digest under which this delivery was opened for this case before."""
        row = self.database.execute(
            "SELECT digest FROM cases WHERE delivery_number = ? AND reference = ?", (number, reference)
        ).fetchone()
        return bytes(row[0]) if row else None

    def keep_case(self, number: int, digest: bytes, salt: bytes, reference: str, at: int) -> None:
        """Keep for which case a delivery was opened; only the digest leaves this machine."""
        self.database.execute("INSERT INTO cases VALUES (?, ?, ?, ?, ?)", (digest, number, salt, reference, at))

    def opened_for(self) -> list[OpenedFor]:
        """List for which cases deliveries were opened, oldest first."""
        rows = self.database.execute(
            "SELECT c.*, d.notice_id, d.leaf_number FROM cases AS c JOIN deliveries AS d USING (delivery_number)"
            " ORDER BY c.at, c.delivery_number"
        )
        return [
            OpenedFor(
                row["reference"], bytes(row["digest"]), bytes(row["salt"]), row["at"], bytes(row["notice_id"]),
                row["leaf_number"],
            )
            for row in rows
        ]  # fmt: skip


def _line(row: sqlite3.Row) -> Line:
    return Line(
        row["delivery_number"], row["leaf_number"], bytes(row["notice_id"]), row["issuer"], row["record"],
        row["version"], row["kind"], tuple(json.loads(row["topics"])), row["urgency"], row["state"], row["taken_at"],
        bytes(row["header_digest"]),
    )  # fmt: skip
