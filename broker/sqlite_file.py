"""One SQLite file of streams: its tables, and the one thread of a process that writes it.

A thread of Python gives up the interpreter lock at every step of a statement and may wait 5 ms to have it back while
the event loop computes. So a statement takes hundreds of rows in one step (500 rows one by one, beside a loop that
never rests: 15 notices/s to 27 inboxes; in one step: 2,000), and the copies for an inbox are a row for each hundred.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from broker.errors import ConfigurationError, UnavailableError, ValiseError
from broker.reading import code_of
from broker.sqlite_batch import BATCH, Copy, pack, unpack
from broker.sqlite_pages import Table, connect
from broker.writing import AWAY, log_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

S = TypeVar("S")
T = TypeVar("T")
Row: TypeAlias = "tuple[bytes, bytes | None]"
"""key, value (None removes the key)"""

LIMIT_S = 60.0
ROWS = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, partition INTEGER NOT NULL,
    start INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0, UNIQUE (name, partition));
CREATE TABLE IF NOT EXISTS shared (id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS orphans ON shared (refs) WHERE refs <= 0;
CREATE TABLE IF NOT EXISTS places (
    party TEXT NOT NULL, stream INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (party, stream)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS owners (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, name BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS clock (at INTEGER NOT NULL);
INSERT INTO clock SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM clock);
CREATE TABLE IF NOT EXISTS room (first INTEGER NOT NULL);
INSERT INTO room SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM room);
"""


def checkpoint(connection: sqlite3.Connection) -> None:
    """Bring the write-ahead log into the file and empty it. Raises UnavailableError while a reader holds it."""
    blocked, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if blocked:
        raise UnavailableError("a reader keeps the bus file's log from being emptied; prune again")


_BATCHES = "SELECT offset FROM {} AND shared < 0"


class Transaction:
    """What a job may do while the writer holds the file; all jobs of one commit have one append time."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], int]) -> None:
        self._connection, self._clock, self._at = connection, clock, -1

    def run(self, sql: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""
        return self._connection.execute(sql, values).rowcount

    def one(self, sql: str, *values: object, default: int = 0) -> int:
        """Run a statement that answers with one number or none."""
        row = self._connection.execute(sql, values).fetchone()
        return default if row is None else int(row[0])

    def at(self) -> int:
        """Tell the append time, which never goes back, whatever the machine's clock does."""
        if self._at < 0:
            self._at = self.one("UPDATE clock SET at = max(at, ?) RETURNING at", self._clock())
        return self._at

    def append(self, table: Table, rows: Sequence[Row]) -> int:
        """Add records to a table, a row each; return the offset of the last."""
        at, first = self.at(), self._room(table, len(rows))
        self._insert(f"s{table.id}", [(first + i, at, *row, None) for i, row in enumerate(rows)])
        return first + len(rows) - 1

    def append_copies(self, table: Table, copies: Sequence[Copy], shared: int) -> None:
        """Add records that end in shared values, of which `shared` is the first; many of them in a row."""
        at, before = self.at(), self._room(table, len(copies)) - 1
        rows = []
        for begin in range(0, len(copies), BATCH):
            part = copies[begin : begin + BATCH]
            rows.append((before + begin + len(part), at, *pack(part, range(len(part) - 1, -1, -1)), -shared))
        self._insert(f"s{table.id}", rows)

    def _room(self, table: Table, count: int) -> int:
        """Take the next `count` offsets of a table; return the first."""
        sql = "UPDATE streams SET next = next + ? WHERE id = ? RETURNING next"
        return self.one(sql, count, table.id) - count

    def share(self, values: Sequence[tuple[int, bytes]]) -> int:
        """Store (references, value) pairs; return the id of the first, the others follow it."""
        first = self.one("SELECT ifnull(max(id), 0) + 1 FROM shared")
        self._insert("shared", [(first + i, *value) for i, value in enumerate(values)])
        return first

    def _insert(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        for begin in range(0, len(rows), ROWS):
            part = rows[begin : begin + ROWS]
            row = "(" + ",".join("?" * len(part[0])) + ")"
            sql = f"INSERT INTO {table} VALUES " + ",".join([row] * len(part))  # noqa: S608 - the names are ours
            self._connection.execute(sql, [value for row in part for value in row])

    def create(self, stream: str, partition: int, *, roomy: bool = False) -> None:
        """Make one partition of a stream, if it is not there; a roomy one begins beyond the room that was left."""
        number = self.one(
            "INSERT INTO streams (name, partition, next) SELECT ?, ?, iif(?, first, 0) FROM room WHERE true"
            " ON CONFLICT DO NOTHING RETURNING id",
            stream,
            partition,
            roomy,
        )
        if number:
            self.run(
                f"CREATE TABLE s{number} (offset INTEGER PRIMARY KEY, at INTEGER, key BLOB, value BLOB, shared INTEGER)"
            )

    def before(self, table: Table, offset: int, limit: int) -> list[int]:
        """Name the first rows before an offset."""
        return self._listed(f"SELECT offset FROM s{table.id} WHERE offset < ? LIMIT ?", offset, limit)  # noqa: S608

    def drop_rows(self, table: Table, rows: Sequence[int]) -> int:
        """Remove whole rows, and the shared values that no record ends in any more; return how many records went."""
        gone = json.dumps(rows)
        named = f"s{table.id} WHERE offset IN (SELECT t.value FROM json_each(?) AS t)"  # noqa: S608
        dropped = sum(self._thin(table, row, None) for row in self._listed(_BATCHES.format(named), gone))
        self._release(self._listed(f"SELECT shared FROM {named} AND shared > 0", gone))  # noqa: S608
        return dropped + self.run(f"DELETE FROM {named}", gone)  # noqa: S608

    def drop(self, table: Table, offsets: Sequence[int]) -> int:
        """Remove single records, also from the midst of a batch; return how many went."""
        # A record's row is the first from its offset on.
        row = f"SELECT min(offset) FROM s{table.id} WHERE offset >= t.value"  # noqa: S608
        named = f"s{table.id} WHERE offset IN (SELECT ({row}) FROM json_each(?) AS t)"  # noqa: S608
        gone, batches = frozenset(offsets), self._listed(_BATCHES.format(named), json.dumps(offsets))
        return sum(self._thin(table, batch, gone) for batch in batches) + self.drop_rows(table, offsets)

    def _thin(self, table: Table, row: int, gone: frozenset[int] | None) -> int:
        """Take records (None: all) out of a batch, whose others keep their offsets; return how many went."""
        key, value, shared = self._connection.execute(
            f"SELECT key, value, shared FROM s{table.id} WHERE offset = ?",  # noqa: S608
            (row,),
        ).fetchone()
        copies, back = unpack(key, value)
        kept = [] if gone is None else [place for place, before in enumerate(back) if row - before not in gone]
        if kept:
            last = back[kept[-1]]
            packed = pack([copies[place] for place in kept], [back[place] - last for place in kept])
            sql = f"UPDATE s{table.id} SET offset = ?, key = ?, value = ? WHERE offset = ?"  # noqa: S608
            self.run(sql, row - last, *packed, row)
        else:
            self.run(f"DELETE FROM s{table.id} WHERE offset = ?", row)  # noqa: S608
        lost = set(range(len(copies))) - set(kept)
        self._release(copies[place].shared - shared for place in lost)
        return len(lost)

    def _release(self, shared: Iterable[int]) -> None:
        """Count off one reference to each of these values, and remove those that have none left."""
        counts = "SELECT value AS id, count(*) AS n FROM json_each(?) GROUP BY value"
        sql = f"UPDATE shared SET refs = refs - d.n FROM ({counts}) AS d WHERE d.id = shared.id"  # noqa: S608
        if self.run(sql, json.dumps(list(shared))):
            self.run("DELETE FROM shared WHERE refs <= 0")

    def _listed(self, sql: str, *values: object) -> list[int]:
        """Run a query of one column of numbers; all rows in one step."""
        (packed,) = self._connection.execute(
            f"WITH found(n) AS ({sql}) SELECT json_group_array(n) FROM found",  # noqa: S608
            values,
        ).fetchone()
        numbers: list[int] = json.loads(packed)
        return numbers


@dataclass(frozen=True, slots=True)
class _Task:
    done: asyncio.Future[Any]
    job: Callable[[Transaction], Any] | None = None
    aside: Callable[[sqlite3.Connection], None] | None = None


_Outcome: TypeAlias = tuple[Any, BaseException | None]


class Writer:
    """The one thread of this process that writes the file; jobs that wait together share a commit.

    A job that raises a ValiseError must do so before it writes anything; any other error ends the writer with
    nothing of that commit kept.
    """

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._path, self._clock = path, clock
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="bus-writer", daemon=True)
        self._open: Future[None] = Future()

    async def start(self) -> None:
        """Open or make the file. Raises ConfigurationError if it cannot be one of ours, or UnavailableError."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await asyncio.wrap_future(self._open)

    async def stop(self) -> None:
        """Finish what was asked for, then close the file."""
        self._tasks.put(None)
        await asyncio.to_thread(self._thread.join, LIMIT_S)

    async def do(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in the next commit; return its answer once that commit is durable.

        Where it is not told in time (UnavailableError) the job may have been done, and is not begun any more.
        """
        answer: T = await self._ask(_Task(self._loop.create_future(), job))
        return answer

    async def aside(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Do something with the connection between two commits."""
        await self._ask(_Task(self._loop.create_future(), aside=work))

    async def _ask(self, task: _Task) -> Any:
        if not self._thread.is_alive():
            raise UnavailableError("the writer of the bus file has stopped")
        self._tasks.put(task)
        try:
            async with asyncio.timeout(LIMIT_S):
                return await task.done
        except TimeoutError as error:
            raise UnavailableError("the bus file did not take the write in time") from error

    def _run(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError) as error:
            self._open.set_exception(self._refusal(error))
            return
        self._open.set_result(None)
        try:
            while tasks := self._together():
                self._commit(connection, tasks)
        finally:
            connection.close()

    def _refusal(self, error: sqlite3.Error | OSError) -> ValiseError:
        if code_of(error) in AWAY:
            return UnavailableError(f"{self._path} cannot be used now: {error}")
        return ConfigurationError(f"{self._path} cannot be used as a bus: {error}")

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, write=True)
        connection.execute("PRAGMA page_size=8192")
        log_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        # Without it erased bytes stay in free pages.
        connection.execute("PRAGMA secure_delete=ON")
        connection.executescript("BEGIN IMMEDIATE;" + SCHEMA + "COMMIT;")
        return connection

    def _together(self) -> list[_Task]:
        first = self._tasks.get()
        tasks = [] if first is None else [first]
        while tasks and not self._tasks.empty():
            task = self._tasks.get()
            if task is None:
                # The next round finds it again and ends.
                self._tasks.put(None)
                break
            tasks.append(task)
        return tasks

    def _commit(self, connection: sqlite3.Connection, tasks: list[_Task]) -> None:
        tasks.sort(key=lambda task: task.job is None)
        outcomes: list[_Outcome] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, self._clock)
            outcomes = [_outcome(_wanted(task), transaction) for task in tasks if task.job]
            connection.execute("COMMIT")
            outcomes += [_outcome(task.aside, connection) for task in tasks if task.aside]
        except sqlite3.OperationalError as error:
            _give_up(connection)
            outcomes = [(None, UnavailableError(f"the bus file cannot be written now: {error}"))] * len(tasks)
        except BaseException as error:
            _give_up(connection)
            outcomes = [(None, error)] * len(tasks)
            raise
        finally:
            # One call for all: waking the loop for each would cost more than the commit.
            self._loop.call_soon_threadsafe(_tell, tasks, outcomes)


def _wanted(task: _Task) -> Callable[[Transaction], Any]:
    """Give a task's job; nothing is left to do for who no longer waits: a shard would be owned by nobody."""
    return _nothing if task.job is None or task.done.cancelled() else task.job


def _nothing(_: Transaction) -> None:
    """Write nothing."""


def _tell(tasks: list[_Task], outcomes: list[_Outcome]) -> None:
    for task, (answer, error) in zip(tasks, outcomes, strict=True):
        if task.done.done():
            continue
        if error:
            task.done.set_exception(error)
        else:
            task.done.set_result(answer)


def _outcome(job: Callable[[S], Any], on: S) -> _Outcome:
    try:
        return job(on), None
    except ValiseError as refusal:
        return None, refusal


def _give_up(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
