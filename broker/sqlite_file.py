"""One SQLite file of streams: its tables, the one thread of a process that writes it, and reads of many rows at a time.

A thread of Python gives up the interpreter lock at every step of a statement and may wait 5 ms to have it back while
the event loop computes. So a statement takes hundreds of rows in one step, in and out (500 rows one by one, beside a
loop that never rests: 15 notices/s to 27 inboxes; in one step: 2,000).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from broker.bus import Record
from broker.errors import ConfigurationError, OffsetGoneError, UnavailableError, ValiseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

S = TypeVar("S")
T = TypeVar("T")
Row: TypeAlias = "tuple[bytes, bytes | None, int | None]"
"""key, value (None removes the key), and the shared value that the record ends in"""

BUSY_MS = 5_000
LIMIT_S = 60.0
ROWS = 500
PAGE_BYTES = 16 << 20
"""the most that one read brings into memory, but for a single larger record"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, partition INTEGER NOT NULL,
    start INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0, UNIQUE (name, partition));
CREATE TABLE IF NOT EXISTS shared (id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS orphans ON shared (refs) WHERE refs <= 0;
CREATE TABLE IF NOT EXISTS places (
    party TEXT NOT NULL, stream INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (party, stream)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS clock (at INTEGER NOT NULL);
INSERT INTO clock SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM clock);
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One partition of a stream: its rows are in table `s<id>`, the row id is the offset."""

    id: int
    stream: str
    partition: int


@contextmanager
def answering() -> Iterator[None]:
    """Turn what SQLite says of a file that is locked, full or out of reach into UnavailableError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UnavailableError(f"the bus file cannot be used now: {error}") from error


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open the file; who reads waits for nobody."""
    mode = "rwc" if write else "ro"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS if write else 0}")
    return connection


def select(connection: sqlite3.Connection, table: Table, offset: int, limit: int) -> tuple[list[Record], int]:
    """Read records from `offset` on, and the offset after the table's last. Raises OffsetGoneError."""
    with answering():
        connection.execute("BEGIN")
        try:
            return _select(connection, table, offset, limit)
        finally:
            connection.execute("COMMIT")


def _select(connection: sqlite3.Connection, table: Table, offset: int, limit: int) -> tuple[list[Record], int]:
    start, after, packed = connection.execute(
        "SELECT start, next, (SELECT group_concat(n) FROM (SELECT offset || ',' || at || ',' || length(key) || ',' ||"  # noqa: S608
        " ifnull(length(s.value) + ifnull(length(h.value), 0), -1) AS n"
        f" FROM s{table.id} AS s LEFT JOIN shared AS h ON h.id = s.shared WHERE offset >= ? ORDER BY offset LIMIT ?))"
        " FROM streams WHERE id = ?",
        (offset, limit, table.id),
    ).fetchone()
    if offset < start:
        raise OffsetGoneError(table.stream, offset, start)
    numbers = [int(number) for number in packed.split(",")] if packed else []
    heads = _page(list(zip(*[iter(numbers)] * 4, strict=True)))
    if not heads:
        return [], after
    (values,) = connection.execute(
        "SELECT CAST(group_concat(v, '') AS BLOB) FROM (SELECT key || ifnull(s.value, '') || ifnull(h.value, '') AS v"  # noqa: S608
        f" FROM s{table.id} AS s LEFT JOIN shared AS h ON h.id = s.shared"
        " WHERE offset BETWEEN ? AND ? ORDER BY offset LIMIT ?)",
        (offset, heads[-1][0], len(heads)),
    ).fetchone()
    return list(_records(table, heads, values)), after


def _page(heads: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    total = 0
    for i, head in enumerate(heads):
        total += head[2] + head[3]
        if total > PAGE_BYTES and i:
            return heads[:i]
    return heads


def _records(table: Table, heads: list[tuple[int, ...]], values: bytes) -> Iterator[Record]:
    begin = 0
    for offset, at, of_key, of_value in heads:
        middle = begin + of_key
        end = middle + max(of_value, 0)
        value = None if of_value < 0 else values[middle:end]
        yield Record(table.stream, table.partition, offset, at, values[begin:middle], value)
        begin = end


def replaced(connection: sqlite3.Connection, table: Table, before: int) -> list[int]:
    """Name the rows that a later row of their key replaces, and the removals that are older than `before`."""
    with answering():
        (packed,) = connection.execute(
            "SELECT json_group_array(offset) FROM (SELECT offset, at, value IS NULL AS removal,"  # noqa: S608
            f" max(offset) OVER (PARTITION BY key) AS last FROM s{table.id})"
            " WHERE offset < last OR (removal AND at < ?)",
            (before,),
        ).fetchone()
    offsets: list[int] = json.loads(packed)
    return offsets


def keyed(
    table: Table, keys: Sequence[bytes], offset: int, limit: int, connection: sqlite3.Connection
) -> tuple[list[tuple[int, str]], int]:
    """Name the rows of some keys (offset, key in hex), of `limit` rows from `offset` on; and where to go on, or -1."""
    with answering():
        packed, last = connection.execute(
            "SELECT json_group_array(json_array(offset, key)) FILTER (WHERE found), ifnull(max(offset), -2) FROM"  # noqa: S608
            " (SELECT offset, key, key IN (SELECT value FROM json_each(?)) AS found FROM"
            f" (SELECT offset, hex(key) AS key FROM s{table.id} WHERE offset >= ? ORDER BY offset LIMIT ?))",
            (json.dumps([each.hex().upper() for each in keys]), offset, limit),
        ).fetchone()
    rows: list[list[Any]] = json.loads(packed)
    return [(int(number), str(key)) for number, key in rows], int(last) + 1


def checkpoint(connection: sqlite3.Connection) -> None:
    """Bring the write-ahead log into the file and empty it. Raises UnavailableError while a reader holds it."""
    blocked, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if blocked:
        raise UnavailableError("a reader keeps the bus file's log from being emptied; prune again")


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
        """Add rows to a table; return the offset of the last."""
        at = self.at()
        after = self.one("UPDATE streams SET next = next + ? WHERE id = ? RETURNING next", len(rows), table.id)
        first = after - len(rows)
        self._insert(f"s{table.id}", [(first + i, at, *row) for i, row in enumerate(rows)])
        return after - 1

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

    def create(self, stream: str, partition: int) -> None:
        """Make one partition of a stream, if it is not there."""
        number = self.one(
            "INSERT INTO streams (name, partition) VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING id", stream, partition
        )
        if number:
            self.run(
                f"CREATE TABLE s{number} (offset INTEGER PRIMARY KEY, at INTEGER, key BLOB, value BLOB, shared INTEGER)"
            )

    def before(self, table: Table, offset: int, limit: int) -> list[int]:
        """Name the first rows before an offset."""
        (packed,) = self._connection.execute(
            "SELECT json_group_array(offset)"  # noqa: S608
            f" FROM (SELECT offset FROM s{table.id} WHERE offset < ? LIMIT ?)",
            (offset, limit),
        ).fetchone()
        offsets: list[int] = json.loads(packed)
        return offsets

    def drop(self, table: Table, offsets: Sequence[int]) -> int:
        """Remove rows, and the shared values that no row ends in any more."""
        gone = json.dumps(offsets)
        rows = f"s{table.id} WHERE offset IN (SELECT value FROM json_each(?))"  # noqa: S608
        counts = f"SELECT shared, count(*) AS n FROM {rows} AND shared IS NOT NULL GROUP BY shared"  # noqa: S608
        self.run(f"UPDATE shared SET refs = refs - d.n FROM ({counts}) AS d WHERE d.shared = shared.id", gone)  # noqa: S608
        dropped = self.run(f"DELETE FROM {rows}", gone)  # noqa: S608
        self.run("DELETE FROM shared WHERE refs <= 0")
        return dropped


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
        """Open or make the file. Raises ConfigurationError if it cannot be one of ours."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await asyncio.wrap_future(self._open)

    async def stop(self) -> None:
        """Finish what was asked for, then close the file."""
        self._tasks.put(None)
        await asyncio.to_thread(self._thread.join, LIMIT_S)

    async def do(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in the next commit; return its answer once that commit is durable."""
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
            self._open.set_exception(ConfigurationError(f"{self._path} cannot be used as a bus: {error}"))
            return
        self._open.set_result(None)
        try:
            while tasks := self._together():
                self._commit(connection, tasks)
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, write=True)
        connection.execute("PRAGMA page_size=8192")
        connection.execute("PRAGMA journal_mode=WAL")
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
            outcomes = [_outcome(task.job, transaction) for task in tasks if task.job]
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
