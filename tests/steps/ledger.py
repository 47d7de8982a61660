"""A shard's trail as ingest would commit it: steps of leaves on a bus in memory, sealed on a disk of the test."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from broker import codec, notes, streams
from broker.merkle import Frontier, Rows, leaf_hash
from broker.notice import Entry, Head, Leaf, Row
from broker.records import Records
from broker.seal import Sealer
from broker.signing import SigningKey, decision_digest
from broker.trail import Trail
from tests.fake_bus import START, FakeBus

ORIGIN = "test-federation/trail"
KEY = SigningKey.from_seed(sha256(b"log").digest())
OTHER_KEY = SigningKey.from_seed(sha256(b"another log").digest())
VKEY = notes.vkey(ORIGIN, KEY.public.raw)
SEED = sha256(b"rows").digest()
DEPTH = 6
INDEX = 3
BUREAU = "AT/ncb"


def row_of(number: int) -> bytes:
    """The row of leaf `number`'s only recipient."""
    return codec.encode(Row(BUREAU, number + 1, 1))


@cache
def rows_of(number: int) -> Rows:
    """The rows of leaf `number`, ready to prove."""
    rows = Rows(SEED, DEPTH)
    rows.build({INDEX: row_of(number)})
    return rows


@cache
def leaf_of(number: int, word: str = "") -> Leaf:
    """A leaf of a routed notice; `word` makes another of the same number."""
    digest = sha256(f"{number}{word}".encode()).digest()
    rows = rows_of(number).build({INDEX: row_of(number)})
    return Leaf("routed", START + number, None, digest, None, 0, bytes(32), bytes(32), decision_digest(b"", b""), rows)


def entry_of(number: int, leaf: Leaf | None = None) -> Entry:
    """A leaf as a step commits it."""
    return Entry(number, codec.encode(leaf or leaf_of(number)), b"", b"")


class Ledger:
    """A home with a trail, and the streams that its steps go to."""

    def __init__(self, home: Path, bus: FakeBus | None = None, key: SigningKey = KEY) -> None:
        self.home, self.bus, self.key = home, bus or FakeBus(), key
        self.frontier, self.steps = Frontier(), list[tuple[list[Entry], Head]]()
        self.inboxes = 0
        (home / "operator").mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def folder(self) -> Path:
        return self.home / "operator" / "trail"

    def start(self) -> None:
        """Open what lies on disk, as a new process would."""
        self.records = Records(self.home / "operator" / "records.db")
        self.trail = Trail.open(self.folder, ORIGIN)
        self.sealer = Sealer(self.trail, self.records, self.key, self.bus, 0)

    def copy(self, home: Path, bus: type[FakeBus] = FakeBus) -> Ledger:
        """Give one that goes on from here in another home, on a bus of its own. Only while this one is stopped."""
        shutil.copytree(self.home, home)
        made = Ledger(home, bus(self.bus.memory.copy()), self.key)
        made.frontier, made.steps, made.inboxes = deepcopy(self.frontier), list(self.steps), self.inboxes
        return made

    def stop(self) -> None:
        self.records.close()

    async def recover(self) -> Head | None:
        return await self.sealer.recover()

    async def restart(self) -> Head | None:
        self.stop()
        self.start()
        return await self.recover()

    async def commit(self, count: int = 0, leaves: list[Leaf] | None = None) -> tuple[list[Entry], Head]:
        """Commit a step to the trail stream; nothing is sealed."""
        first = self.frontier.size
        made = leaves or [leaf_of(first + each) for each in range(count)]
        entries = [entry_of(first + place, leaf) for place, leaf in enumerate(made)]
        for entry in entries:
            self.frontier.add(leaf_hash(entry.leaf))
        head = Head(self.frontier.size, self.frontier.root(), made[-1].now)
        values = [(b"entry", codec.encode(each)) for each in entries] + [(b"head", codec.encode(head))]
        await self.bus.append(streams.TRAIL, values)
        self.steps.append((entries, head))
        return entries, head

    async def step(self, count: int = 0, leaves: list[Leaf] | None = None) -> str:
        """Commit a step and seal it."""
        return await self.sealer.seal(*await self.commit(count, leaves))

    def keep(self, member: str = "AT", heads: bool = True, deliveries: bool = True) -> Path:
        """Keep all heads and deliveries so far as a member's collector does."""
        folder = self.home / "members" / member
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "inbox.ncb.db"
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE heads(size INTEGER PRIMARY KEY, root BLOB, note TEXT)")
            database.execute(
                "CREATE TABLE deliveries(delivery_number INTEGER PRIMARY KEY, leaf_number INTEGER, leaf BLOB,"
                " bureau TEXT, row BLOB, salt BLOB, path BLOB, row_index INTEGER, taken_at INTEGER)"
            )
            if heads:
                database.executemany("INSERT INTO heads VALUES (?, ?, ?)", map(self._kept_head, self.steps))
            if deliveries:
                kept = [_kept(entry) for entries, _ in self.steps for entry in entries]
                database.executemany("INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", kept)
            database.commit()
        return file

    def _kept_head(self, step: tuple[list[Entry], Head]) -> tuple[int, bytes, str]:
        head = step[1]
        note = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, head.size, head.root), self.key)
        return head.size, head.root, note

    async def rewritten(self, home: Path, number: int, leaf: Leaf) -> Ledger:
        """Make the same log with one leaf replaced, hashed and signed throughout: what only a liar could do."""
        other = Ledger(home, key=self.key)
        await other.recover()
        for entries, _ in self.steps:
            made = [codec.decode(Leaf, each.leaf) for each in entries]
            first = entries[0].leaf_number
            await other.step(leaves=[leaf if first + at == number else each for at, each in enumerate(made)])
        other.stop()
        return other

    def replace_trail(self, other: Ledger) -> None:
        """Put another log in the place of this one."""
        shutil.rmtree(self.folder)
        shutil.copytree(other.folder, self.folder)


def _kept(entry: Entry) -> tuple[object, ...]:
    number, rows = entry.leaf_number, rows_of(entry.leaf_number)
    row, taken_at = row_of(number), codec.decode(Leaf, entry.leaf).now
    return number + 1, number, entry.leaf, BUREAU, row, rows.salt(INDEX), rows.path(INDEX), INDEX, taken_at


def later(leaf: Leaf, ms: int) -> Leaf:
    """The same leaf at another time."""
    return replace(leaf, now=leaf.now + ms)
