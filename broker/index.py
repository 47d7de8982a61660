"""Which leaves speak of what: derived from trail and decision records, and made again when it is lost.

Kept off the way of a notice: it is brought up to date when somebody asks. A word (`outcome:rejected`, `to:AT/ncb`) has
for each block of leaves a mask of those that it fits, so that any question is a few reads and ANDs, and its answer is
counted, not guessed. There is no word for what a body says: persons cannot be searched for here.

Several auditors may share the file, and one may throw it away while another reads or adds: every change is one
transaction that looks first at what is there, and all questions between two updates see the file as the first left it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from broker import avro, by_hand, codec
from broker.errors import NoticeRejectedError, UnknownKeyError, UnknownKindError
from broker.notice import (
    LOOK_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    SUBSCRIPTION_TYPE,
    DecisionRecord,
    Leaf,
    Look,
    Receipt,
    Statement,
)
from broker.streams import member_of
from broker.trail import Trail
from broker.writing import log_ahead, take_back, transaction

VERSION = 6
"""Of the tables, and of how they are made: what earlier ones left may be wrong, where two processes made it at once."""
# WITHOUT ROWID: what a question reads lies together.
_TABLES = {
    "notice": "(notice_id BLOB, leaf_number INTEGER, PRIMARY KEY(notice_id, leaf_number)) WITHOUT ROWID",
    "event": "(about INTEGER, leaf_number INTEGER, PRIMARY KEY(about, leaf_number)) WITHOUT ROWID",
    "word": "(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "posting": "(word INTEGER, block INTEGER, mask BLOB NOT NULL, PRIMARY KEY(word, block)) WITHOUT ROWID",
    "done": "(id INTEGER PRIMARY KEY CHECK(id = 1), size INTEGER NOT NULL, root BLOB NOT NULL)",
}
BLOCK = 4096
"""Leaves whose bits lie in one mask, and that are taken in as one transaction."""
_Covered = tuple[int, bytes]
"""How many leaves an index covers, and their root."""
_NOTHING: _Covered = (0, b"")
T = TypeVar("T")


class Kept(Protocol):
    """Decision records by leaf number, as `Records` has them."""

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream (leaf number, salt, record) from `begin` on."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """One page of an answer: the leaves, newest first, and how many there are in all."""

    leaves: tuple[int, ...]
    total: int


class Index:
    """An index in one SQLite file; `:memory:` where nothing may be written."""

    def __init__(self, path: Path | None) -> None:
        self._database = sqlite3.connect(path or ":memory:", timeout=10, isolation_level=None)
        self._database.execute("PRAGMA page_size = 8192")
        log_ahead(self._database)
        # A power cut may take the last blocks; they are made again.
        self._database.execute("PRAGMA synchronous = NORMAL")
        with transaction(self._database):  # read inside: another process may be making it, too
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                self._make()
            self._database.execute(f"PRAGMA user_version = {VERSION}")  # always: who may not write is told here

    def _make(self) -> None:
        """Make the tables, empty, in the place of those that are there."""
        for table, columns in _TABLES.items():
            self._database.execute(f"DROP TABLE IF EXISTS {table}")
            self._database.execute(f"CREATE TABLE {table}{columns}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def forget(self) -> None:
        """Throw everything away, to make it again."""
        take_back(self._database)
        with transaction(self._database):
            self._make()

    @property
    def size(self) -> int:
        """How many leaves it covers."""
        return self._done()[0]

    def _done(self) -> _Covered:
        row = self._database.execute("SELECT size, root FROM done").fetchone()
        return (int(row[0]), bytes(row[1])) if row else _NOTHING

    # Making it

    def update(self, trail: Trail, records: Kept, progress: Callable[[int, int], None]) -> Trail:
        """Cover the trail up to its head, a block at a time: what a kill leaves is gone on from.

        Returns the trail as it covers it: opened anew where another process has covered more of it meanwhile. An index
        of another past (it covers more all the same, or another root) is made again. All that is asked afterwards,
        until the next update, is answered from what the file has now: another process may throw it away.
        """
        take_back(self._database)  # what was asked before saw the file as it was
        while True:
            before = self._done()
            if before[0] > trail.size:
                trail = Trail.open(trail.folder)
            covered = self._go_on(before, trail, records, progress)
            if covered is not None and self._sees(covered):
                return trail
            # another process has changed it meanwhile

    def _sees(self, covered: _Covered) -> bool:
        """Keep seeing the file as it is, if it covers this."""
        self._database.execute("BEGIN")
        if self._done() == covered:
            return True
        take_back(self._database)
        return False

    def _go_on(
        self, covered: _Covered, trail: Trail, records: Kept, progress: Callable[[int, int], None]
    ) -> _Covered | None:
        """Add what is missing, and tell what it covers then; None once another process has changed it meanwhile."""
        size, root = covered
        if size > trail.size or (size and trail.root_of(size) != root):
            if not self._if_still(covered, self._make):
                return None
            covered = _NOTHING
        begin = covered[0]
        if begin == trail.size:
            return covered
        kept = _Reader(records, begin)
        while begin < trail.size and kept.number >= 0:  # where the records end earlier, the rest is covered later
            block, end = _Block(begin), min(begin - begin % BLOCK + BLOCK, trail.size)
            while begin < end and kept.number >= 0:
                block.add(begin, trail.entry(begin), kept.take(begin))
                begin += 1
            now = begin, trail.root_of(begin)
            if not self._if_still(covered, partial(self._keep, block, now)):
                return None
            covered = now
            progress(begin, trail.size)
        return covered

    def _if_still(self, before: _Covered, change: Callable[[], None]) -> bool:
        """Change an index that covers what is `before`; False if it covers anything else by now."""
        with transaction(self._database):
            if self._done() != before:
                return False
            change()
        return True

    def _keep(self, block: _Block, now: _Covered) -> None:
        """Add a block."""
        # Not from the block before: in an index that was made again meanwhile words have other numbers.
        words = dict[str, int](self._database.execute("SELECT name, id FROM word"))
        self._database.executemany("INSERT OR IGNORE INTO notice VALUES (?, ?)", block.notices)
        self._database.executemany("INSERT OR IGNORE INTO event VALUES (?, ?)", block.events)
        postings = [(self._word(words, name), mask) for name, mask in block.masks.items()]
        if block.begin % BLOCK:
            postings = [(word, mask | self._mask(word, block.number)) for word, mask in postings]
        self._database.executemany(
            "INSERT OR REPLACE INTO posting VALUES (?, ?, ?)",
            [(word, block.number, by_hand.mask_bytes(mask)) for word, mask in postings],
        )
        self._database.execute("INSERT OR REPLACE INTO done VALUES (1, ?, ?)", now)

    def _word(self, words: Mapping[str, int], name: str) -> int:
        found = words.get(name)
        if found is None:
            (found,) = self._database.execute("INSERT INTO word(name) VALUES (?) RETURNING id", (name,)).fetchone()
        return int(found)

    def _mask(self, word: int, block: int) -> int:
        row = self._database.execute("SELECT mask FROM posting WHERE word = ? AND block = ?", (word, block)).fetchone()
        return int.from_bytes(row[0], "big") if row else 0

    # Asking

    def leaves_of(self, notice_id: bytes) -> list[int]:
        """List the leaves of a notice's own records."""
        rows = self._database.execute(
            "SELECT leaf_number FROM notice WHERE notice_id = ? ORDER BY leaf_number", (notice_id,)
        )
        return [row[0] for row in rows]

    def leaves_about(self, leaf_number: int) -> list[int]:
        """List the leaves that speak of a leaf."""
        rows = self._database.execute(
            "SELECT leaf_number FROM event WHERE about = ? ORDER BY leaf_number", (leaf_number,)
        )
        return [row[0] for row in rows]

    def words(self, prefix: str) -> list[str]:
        """List what stands after `prefix` in the words that there are."""
        rows = self._database.execute("SELECT name FROM word WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        return sorted(str(row[0])[len(prefix) :] for row in rows)

    def search(self, wanted: Sequence[Iterable[str]], begin: int, end: int, limit: int) -> Found:
        """Find the leaves from `begin` to before `end` that fit one word of each group, newest first, and count all."""
        end = min(end, self.size)
        blocks = [self._postings(group, begin, end) for group in wanted]
        found, total = list[int](), 0
        for block in self._candidates(blocks, begin, end):
            mask = _within(block, begin, end)
            for each in blocks:
                mask &= each.get(block, 0)
            total += mask.bit_count()
            while mask and len(found) < limit:
                bit = mask.bit_length() - 1
                found.append(block * BLOCK + bit)
                mask ^= 1 << bit
        return Found(tuple(found), total)

    def _postings(self, group: Iterable[str], begin: int, end: int) -> dict[int, int]:
        """Read one group's masks by block: a leaf needs to fit one of its words."""
        masks: dict[int, int] = {}
        for name in group:
            rows = self._database.execute(
                "SELECT block, mask FROM posting WHERE word = (SELECT id FROM word WHERE name = ?)"
                " AND block BETWEEN ? AND ?",
                (name, begin // BLOCK, (end - 1) // BLOCK),
            )
            for block, mask in rows:
                masks[block] = masks.get(block, 0) | int.from_bytes(mask, "big")
        return masks

    def _candidates(self, blocks: list[dict[int, int]], begin: int, end: int) -> Iterable[int]:
        if end <= begin:
            return ()
        if not blocks:
            return range((end - 1) // BLOCK, begin // BLOCK - 1, -1)
        rarest: dict[int, int] = min(blocks, key=len)
        return sorted(rarest, reverse=True)


def _within(block: int, begin: int, end: int) -> int:
    """Give the mask of a block's leaves from `begin` to before `end`."""
    first = block * BLOCK
    upper = (1 << min(max(end - first, 0), BLOCK)) - 1
    return upper & ~((1 << min(max(begin - first, 0), BLOCK)) - 1)


class _Reader:
    """Decision records one after the other; `number` is the next one's leaf, -1 after the last."""

    def __init__(self, records: Kept, begin: int) -> None:
        self._records = records.since(begin)
        self._go_on()

    def _go_on(self) -> None:
        self.number, _salt, self._record = next(self._records, (-1, b"", b""))

    def take(self, number: int) -> bytes:
        """Give the record of a leaf; b"" where it is missing: `audit verify` and `audit show` say so."""
        if self.number != number:
            return b""
        record = self._record
        self._go_on()
        return record


class _Block:
    """What one block of leaves says, or the part of it that begins at `begin`."""

    __slots__ = ("begin", "events", "masks", "notices", "number")

    def __init__(self, begin: int) -> None:
        self.begin, self.number = begin, begin // BLOCK
        self.notices: list[tuple[bytes, int]] = []
        self.events: list[tuple[int, int]] = []
        self.masks: defaultdict[str, int] = defaultdict(int)

    def add(self, number: int, entry: bytes, record: bytes) -> None:
        """Take in one leaf and its decision record."""
        leaf, decision = avro.read("leaf", entry), _decision(record)
        words = {f"outcome:{leaf['kind']}", f"policies:{leaf['policies'].hex()}"}
        if leaf["code"] is not None:
            words.add(f"outcome:{leaf['code']}")
        if member := member_of(decision["stream"]):
            words.add(f"member:{member}")  # whose record could not even be read is known by its stream
        # Who floods us with keys of nobody's would make a word of each; whose they are was not asked in each case.
        known = leaf["code"] not in (UnknownKeyError.code, UnknownKindError.code) or leaf["header_digest"] is not None
        if decision["key_id"] is not None and known:
            words.add(f"key:{decision['key_id'].hex()}")
        abouts = set() if leaf["about"] is None else {leaf["about"]}
        if decision["header"]:
            with suppress(NoticeRejectedError):
                self._notice(number, decision, words)
        elif decision["statement"]:
            abouts.update(_statement(decision["statement"], words))
        bit = 1 << number % BLOCK
        for word in words:
            self.masks[word] |= bit
        self.events.extend((about, number) for about in sorted(abouts))

    def _notice(self, number: int, decision: dict[str, Any], words: set[str]) -> None:
        header = avro.read("header", decision["header"])
        self.notices.append((header["notice_id"], number))
        words.add(f"issuer:{header['issuer']}")
        words.add(f"purpose:{header['purpose']}")
        bureaus = [each["bureau"] for each in decision["rows"]]
        words.update([f"to:{each}" for each in bureaus])
        words.update([f"member:{each.partition('/')[0]}" for each in (header["issuer"], *bureaus)])
        words.update([f"rule:{each['id']}" for each in decision["rules"]])
        words.update([f"outcome:{each}" for each in decision["warnings"]])


def _decision(record: bytes) -> dict[str, Any]:
    """Read a decision record; one that is missing or was made unreadable says nothing here, and shows in `verify`."""
    try:
        return avro.read("decision", record)
    except NoticeRejectedError:
        return {"stream": "", "header": b"", "statement": b"", "key_id": None}


_BY = {
    RECEIPT_TYPE: ("receipt", "bureau"),
    SUBSCRIPTION_TYPE: ("subscription", "bureau"),
    REVOCATION_TYPE: ("revocation", "bureau"),
    LOOK_TYPE: ("look", "by"),
}
"""Payload type → its schema, and the field that says who signed."""


def _statement(data: bytes, words: set[str]) -> list[int]:
    """Add the words of a statement; return the leaves that it speaks of."""
    try:
        statement = avro.read("statement", data)
        schema, field = _BY[statement["payload_type"]]
        said = avro.read(schema, statement["payload"])
    except (NoticeRejectedError, KeyError):
        return []
    words.add(f"by:{said[field]}")
    words.add(f"key:{statement['key_id'].hex()}")
    words.add(f"member:{said[field].partition('/')[0]}")
    if schema == "look":
        words.add(f"member:{said['issuer_member']}")
        return list(said["leaves"])
    if schema != "receipt":
        return []
    words.add(f"member:{said['issuer_member']}")
    if said["result"] is not None:
        words.add(f"outcome:{said['result']}")
    return [each["leaf_number"] for each in said["items"]]


def receipt_in(decision: DecisionRecord) -> Receipt | None:
    """Give the receipt that a leaf records, or None."""
    return _in(decision, RECEIPT_TYPE, Receipt)


def look_in(decision: DecisionRecord) -> Look | None:
    """Give the look that a leaf records, or None."""
    return _in(decision, LOOK_TYPE, Look)


def _in(decision: DecisionRecord, payload_type: str, kind: type[T]) -> T | None:
    if not decision.statement:
        return None
    try:
        statement = codec.decode(Statement, decision.statement)
        return codec.decode(kind, statement.payload) if statement.payload_type == payload_type else None
    except NoticeRejectedError:
        return None


def leaf_at(trail: Trail, moment: int) -> int:
    """Find the first leaf whose time is not before `moment`: times never go back along the trail."""
    low, high = 0, trail.size
    while low < high:
        middle = (low + high) // 2
        if codec.decode(Leaf, trail.entry(middle)).now < moment:
            low = middle + 1
        else:
            high = middle
    return low
