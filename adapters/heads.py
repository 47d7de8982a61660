"""Follows the `checkpoints` stream: every head extends the one before, or is refused.

A log that was begun because leaves of the old one were lost is followed once a directory names it, and rings.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from adapters.database import transaction
from adapters.refusals import RefusedError, SplitViewError, UnknownHeadError
from broker import begun, merkle, notes, streams
from broker.begun import OPENING_KEY, Beginning
from broker.bus import Bus, Record
from broker.errors import ProofError

PAGE = 500
TABLES = """
CREATE TABLE IF NOT EXISTS heads(size INTEGER PRIMARY KEY, root BLOB NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ended(size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS places(stream TEXT PRIMARY KEY, place INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS refused(stream TEXT, place INTEGER, code TEXT NOT NULL, PRIMARY KEY(stream, place));
CREATE TABLE IF NOT EXISTS alarms(number INTEGER PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL, about TEXT);
"""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person must look at: ids and numbers only, no content."""

    at: int
    code: str
    about: str


@dataclass(frozen=True, slots=True)
class Head:
    """Root and signed note of a head."""

    root: bytes
    note: str


class Journal:
    """What every follower of streams keeps beside its own tables: places, refusals, alarms."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def place(self, stream: str) -> int:
        """Tell the next offset to read."""
        row = self.database.execute("SELECT place FROM places WHERE stream = ?", (stream,)).fetchone()
        return int(row[0]) if row else 0

    def move(self, stream: str, place: int) -> None:
        """Keep the next offset to read, in the caller's transaction.

        What was read from a place is kept only while that is the place still: else another process has taken it in
        meanwhile, or has set the place back.
        """
        self.database.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (stream, place))

    def refuse(self, record: Record, code: str) -> None:
        """Keep that a record was refused, in the caller's transaction."""
        self.database.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", (record.stream, record.offset, code))
        self.alarm(record.at, code, f"{record.stream} offset {record.offset}")

    def alarm(self, at: int, code: str, about: str) -> None:
        """Raise an alarm, in the caller's transaction."""
        self.database.execute("INSERT INTO alarms(at, code, about) VALUES (?, ?, ?)", (at, code, about))

    def ring_once(self, at: int, code: str, about: str, more: str = "") -> None:
        """Raise an alarm, unless one was raised before about the same, whatever more it said."""
        query = "SELECT 1 FROM alarms WHERE code = ?1 AND substr(about, 1, length(?2)) = ?2"
        if not self.database.execute(query, (code, about)).fetchone():
            with transaction(self.database):
                if not self.database.execute(query, (code, about)).fetchone():  # another process may have
                    self.alarm(at, code, about + more)

    def alarms(self) -> list[Alarm]:
        """List all alarms, oldest first."""
        rows = self.database.execute("SELECT at, code, about FROM alarms ORDER BY number")
        return [Alarm(row["at"], row["code"], row["about"]) for row in rows]


class Heads:
    """The heads of one shard's log as this party saw them; all of them lie on one history.

    What a new log has not of the one that it goes on from is put aside in `ended`: evidence, and nothing else.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._database = journal.database
        self.ahead = ""
        """The log before whose opening `follow` has stopped."""

    def find(self, size: int) -> Head | None:
        """Give the known head of a size."""
        row = self._database.execute("SELECT root, note FROM heads WHERE size = ?", (size,)).fetchone()
        return Head(bytes(row[0]), str(row[1])) if row else None

    def newest(self) -> tuple[int, bytes]:
        """Give size and root of the largest head; (0, the empty root) before the first."""
        row = self._database.execute("SELECT size, root FROM heads ORDER BY size DESC LIMIT 1").fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, merkle.EMPTY_ROOT)

    async def follow(self, bus: Bus, log: notes.Vkey, shard: int, *, to_end: bool = True) -> int:
        """Take in the heads beyond our place; return how many were kept.

        Stops before a log that is begun anew and that is not `log`: the directory that names it is not here yet.
        Without `to_end` it stops after a page that is not full, too: to learn that this was all takes 0.1 s on Kafka.
        """
        kept, self.ahead = 0, ""
        while True:
            place = self._journal.place(streams.CHECKPOINTS)
            records = await bus.read(streams.CHECKPOINTS, place, limit=PAGE, partition=shard)
            if not records:
                break
            with transaction(self._database):
                if self._journal.place(streams.CHECKPOINTS) != place:
                    continue
                for record in records:
                    if self._is_ahead(record, log):
                        return kept
                    kept += self._take(record, log)
                    self._journal.move(streams.CHECKPOINTS, record.offset + 1)
            if not to_end and len(records) < PAGE:
                break
        return kept

    def _is_ahead(self, record: Record, log: notes.Vkey) -> bool:
        """Say whether a record opens a log after the one that we know."""
        try:
            name = begun.named(record.value or b"") if record.key == OPENING_KEY else ""
        except ProofError:
            return False
        self.ahead = name if begun.is_before(log.name, name) else ""
        return bool(self.ahead)

    def ring_ahead(self, at: int) -> None:
        """Raise an alarm, once: a log was opened that no directory names."""
        self._journal.ring_once(at, "log-not-named", f"{self.ahead}: no directory names it yet")

    def _take(self, record: Record, log: notes.Vkey) -> bool:
        try:
            if record.key == OPENING_KEY:
                self._open(begun.open_opening(record.value or b"", log), record.at)
                return True
            return self._accept(record.value or b"", log)
        except ProofError as error:
            code = error.code if isinstance(error, RefusedError) else "bad-checkpoint"
            self._journal.refuse(record, code)
            return False

    def _accept(self, body: bytes, log: notes.Vkey) -> bool:
        advance = notes.parse_advance(body)
        head = begun.open_checkpoint(advance.checkpoint, log)
        self._check_log(head.origin)
        known = self.find(head.size)
        if known is not None:
            if known.root != head.root:
                raise SplitViewError
            if len(advance.checkpoint) > len(known.note):  # the same head, cosigned meanwhile
                self._database.execute("UPDATE heads SET note = ? WHERE size = ?", (advance.checkpoint, head.size))
            return False
        check_extends(self.newest(), advance, head)
        self._database.execute("INSERT INTO heads VALUES (?, ?, ?)", (head.size, head.root, advance.checkpoint))
        return True

    def _log(self) -> str:
        """Name the log that we follow; "" before the first head."""
        row = self._database.execute("SELECT note FROM heads ORDER BY size DESC LIMIT 1").fetchone()
        return begun.origin_of(str(row[0])) if row else ""

    def goes_on(self) -> bool:
        """Say whether the log that we follow was begun because leaves of the one before were lost."""
        origin = self._log()
        return bool(origin) and begun.place_of(origin) > 1

    def _check_log(self, origin: str) -> None:
        """Check that a head is of the log that we follow. Raises UnknownHeadError."""
        followed = self._log() or begun.first_of(origin)
        if origin != followed:
            message = f"a head of {origin}; {followed} is followed"
            raise UnknownHeadError(message)

    def _open(self, beginning: Beginning, at: int) -> None:
        """Go on with a new log from a head of the old one that we saw; what the new one has not is put aside.

        Raises ProofError with nothing changed.
        """
        head, old = beginning.head, beginning.advance.old
        if not begun.is_before(self._log() or beginning.ended.origin, head.origin):
            message = f"{head.origin} was begun before"
            raise UnknownHeadError(message)
        seen, _ = self.newest()
        if old:
            known = self.find(old)
            if known is None:
                message = f"{head.origin} goes on from a head of {old} leaves that was never here"
                raise UnknownHeadError(message)
            merkle.check_consistency(old, head.size, beginning.advance.proof, known.root, head.root)
        self._database.execute("INSERT INTO ended SELECT size, root, note FROM heads WHERE size > ?", (old,))
        self._database.execute("DELETE FROM heads WHERE size > ?", (old,))
        self._database.execute(
            "INSERT INTO heads VALUES (?, ?, ?)", (head.size, head.root, beginning.advance.checkpoint)
        )
        self._ring(beginning, seen, at)

    def _ring(self, beginning: Beginning, seen: int, at: int) -> None:
        """Say that a new log has begun, what of the old one was lost, and whether we saw more than was said."""
        ended, last = beginning.ended, beginning.seen.size - 1
        about = f"{beginning.head.origin}: leaves {ended.size} to {last} of {ended.origin} are lost at the operator"
        self._journal.alarm(at, "new-log", about)
        if seen > beginning.seen.size:
            self._journal.alarm(at, "lost-more", f"{ended.origin}: {seen} leaves were seen here, not {last + 1}")


def check_extends(last: tuple[int, bytes], advance: notes.Advance, head: notes.Checkpoint) -> None:
    """Check that a head goes on from the last one that is known. Raises ProofError."""
    size, root = last
    if advance.old != size or head.size <= size:
        message = f"a head of size {head.size} from {advance.old} does not go on from {size}"
        raise UnknownHeadError(message)
    if size:
        merkle.check_consistency(size, head.size, advance.proof, root, head.root)
