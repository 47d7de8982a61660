"""The bus in one SQLite file, the embedded default.

Any number of processes share the file; what one appends another sees within a poll of 5 to 10 ms, its own readers at
once. A value for many inboxes is stored once. The file is one trust domain: the table of streams.py guards against
mistakes here, not against somebody who holds the file.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Self, TypeVar

from broker.bus import MAX_RECORD, NOTHING_LOST, Copies, Owned, Record, Shard, Writes, passed_over
from broker.errors import FencedError, ForbiddenStreamError, TooLargeError, UnavailableError
from broker.fair import shares
from broker.scrub import scrub
from broker.sqlite_batch import Copy
from broker.sqlite_file import Row, Transaction, Writer, checkpoint
from broker.sqlite_pages import PAGE_BYTES, REFUSAL, Table, connect, keyed, replaced, select
from broker.streams import DAY_MS, ROUTER, World, family_of
from broker.threads import ended
from broker.writing import answering

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

BUSY_POLL_S, QUIET_POLL_S = 0.005, 0.010
"""between two looks at the file: within a second of a change, and later"""
DROP_ROWS = 1_000
FIND_ROWS = 5_000
ROOM = 1_000_000
"""offsets that `leave_room` passes over at the least: more than a stream gets between two backups worth the name"""
_READ_BY_MEMBERS = ("versions", "annexes", "checkpoints", "inbox", "outcomes")


class SqliteBus:
    """The bus, in the name of one principal; `clock` tells ms since the epoch and stamps `Record.at`."""

    def __init__(
        self, path: Path, principal: str, world: World, clock: Callable[[], int], *, owned: Owned | None = None
    ) -> None:
        self._principal, self._world = principal, world
        self._file = _File(path, principal, world, clock)
        self._owned = owned or Owned()
        self._turn, self._fan_outs_failed = asyncio.Lock(), 0

    async def __aenter__(self) -> Self:
        await self._file.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.close()

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        """Append in one commit, shared with whatever else waits for one."""
        table = self._file.table("write", stream, partition)
        rows: list[Row] = [*values]
        for key, value in values:
            _check_size(len(key) + len(value))
        if not rows:
            return self._file.watch.ends([table])[0] - 1
        return await self._file.write(lambda transaction: transaction.append(table, rows))

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        """Read records from `offset` on; a page ends early at 16 MiB."""
        table = self._file.table("read", stream, partition)
        deadline = monotonic() + wait
        while True:
            records, after = await self._file.read(lambda pages: select(pages, table, offset, limit))
            if records or not await self._file.watch.beyond({table: max(offset, after)}, deadline):
                return records

    async def end(self, stream: str, *, partition: int = 0) -> int:
        """Tell the offset after the last record."""
        return self._file.watch.ends([self._file.table("read", stream, partition)])[0]

    async def written(self, stream: str, *, partition: int = 0) -> int:
        """Tell the same: a step's records are written and shown by one commit."""
        return await self.end(stream, partition=partition)

    async def fan_out(self, copies: Sequence[Copies], *, partition: int = 0) -> None:
        """Append every copy in one commit; what is shared is stored once."""
        inboxes: dict[str, list[Copy]] = defaultdict(list)
        shared: list[tuple[int, bytes]] = []
        for copy in filter(_has_own, copies):
            key, place, size = copy.key, len(shared), len(copy.shared)
            _check_size(len(key) + size + max(len(own) for _, own in copy.own))
            for stream, own in copy.own:
                inboxes[stream].append(Copy(key, own, place, size))
            shared.append((len(copy.own), copy.shared))
        if shared:
            tables = {self._file.table("write", stream, partition): each for stream, each in inboxes.items()}
            await self._in_turn(partial(_fan_out, tables, shared))

    async def _in_turn(self, job: Callable[[Transaction], None]) -> None:
        """Write once the fan-outs before are written; if one of those has failed, not at all."""
        failed = self._fan_outs_failed
        async with self._turn:
            if self._fan_outs_failed != failed:
                raise UnavailableError("what was to go before was not written")
            try:
                await self._file.write(job)
            except BaseException:
                self._fan_outs_failed += 1
                raise

    async def place(self, group: str, stream: str, *, partition: int = 0) -> int:
        """Tell where a group of this principal stands."""
        return self._place(group, self._file.table("read", stream, partition))

    def _place(self, group: str, table: Table) -> int:
        return self._file.watch.one(
            "SELECT offset FROM places WHERE party = ? AND stream = ?", f"{self._principal}.{group}", table.id
        )

    async def has_place(self, group: str, stream: str, *, partition: int = 0) -> bool:
        """Tell whether a group of this principal ever kept a place."""
        table, party = self._file.table("read", stream, partition), f"{self._principal}.{group}"
        found = self._file.watch.one("SELECT count(*) FROM places WHERE party = ? AND stream = ?", party, table.id)
        return found > 0

    async def keep_place(self, group: str, stream: str, offset: int, *, partition: int = 0) -> None:
        """Keep a group's place, durably."""
        table = self._file.table("read", stream, partition)
        await self._file.write(lambda transaction: _keep(transaction, f"{self._principal}.{group}", {table: offset}))

    @asynccontextmanager
    async def own(
        self, shard: int, inputs: Sequence[str], lost: Mapping[str, int] = NOTHING_LOST
    ) -> AsyncIterator[Shard]:
        """Own a shard: whoever had it finds a higher epoch at its next commit, and when it would own it again."""
        if self._principal != ROUTER:
            raise ForbiddenStreamError(self._principal, "own", f"shard {shard}")
        tables = [self._file.table("read", stream, shard if family_of(stream).sharded else 0) for stream in inputs]
        epoch = await ended(self._next_epoch(shard))  # cancelled before it knows, it would take itself for another
        # Only now: the old owner can no longer move them.
        places = {table: self._place(str(shard), table) for table in tables}
        bounds = [(self._file.watch.start(table), self._file.watch.ends([table])[0]) for table in tables]
        gaps = [
            passed_over((table.stream, table.partition), place, each, lost)
            for (table, place), each in zip(places.items(), bounds, strict=True)
        ]
        yield _Shard(self._file, shard, epoch, places, [each for each in gaps if each])

    async def _next_epoch(self, shard: int) -> int:
        name, had = self._owned.name, shard in self._owned.last
        epoch = self._owned.last[shard] = await self._file.write(partial(_own, shard, name, had=had))
        return epoch

    async def create(self, streams: Sequence[str], shards: int = 1) -> None:
        """Make the tables that do not exist yet."""
        known = set(self._world.streams())
        for stream in streams:
            if stream not in known:
                raise ForbiddenStreamError(self._principal, "create", stream)
        await self._file.write(partial(_create, streams, shards))

    async def leave_room(self) -> None:
        """Let the streams that members read go on far beyond their ends, those that are made later included.

        After an older copy of the file was restored a reader's place may lie beyond its end: without room the reader
        would pass over what comes there next. The copy may know nothing of the stream: its member entered later.
        """
        await self._file.write(_leave_room)

    async def prune(self) -> int:
        """Drop what is too old and what a later record of the same key replaced, then empty the write-ahead log.

        Raises UnavailableError if a reader kept the log from being emptied: what was dropped may then still be in it.
        """
        dropped, now = 0, await self._file.write(Transaction.at)
        for table in self._file.watch.tables():
            family = family_of(table.stream)
            if family.retention_ms >= 0:
                dropped += await self._expire(table, now - family.retention_ms)
            if family.compacted:
                dropped += await self._compact(table, now - DAY_MS)
        await (self._file.scrub() if dropped else self._file.empty_log())
        return dropped

    async def erase(
        self, stream: str, *, keys: Sequence[bytes] = (), offsets: Sequence[int] = (), partition: int = 0
    ) -> int:
        """Drop records in one commit, and what they shared once no record ends in it."""
        table = self._to_erase(stream, partition)
        if table is None:
            return 0
        gone = {*offsets, *(offset for offset, _ in await self._keyed(table, keys))}
        return await self._file.write(lambda transaction: transaction.drop(table, sorted(gone))) if gone else 0

    async def compact(self, stream: str, keys: Sequence[bytes], *, partition: int = 0) -> int:
        """Drop records that a later one replaces: found beside the writer, for what is once replaced stays so."""
        table = self._to_erase(stream, partition)
        rows = await self._keyed(table, keys) if table else []
        newest = {key: offset for offset, key in rows}
        gone = [offset for offset, key in rows if offset < newest[key]]
        return await self._file.write(lambda transaction: transaction.drop(table, gone)) if table and gone else 0

    async def _keyed(self, table: Table, keys: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Look through a whole stream for some keys, a part at a time, so that other reads have their turn."""
        offset, found = 0 if keys else -1, list[tuple[int, bytes]]()
        while offset >= 0:
            rows, offset = await self._file.read(partial(keyed, table, keys, offset, FIND_ROWS))
            found += rows
        return found

    async def scrub(self) -> None:
        """Write the file anew, up to 256 MiB, and empty its log."""
        await self._file.scrub()

    def _to_erase(self, stream: str, partition: int) -> Table | None:
        """Find a stream's table, that of a bureau which has left included; None if it was never made."""
        if self._principal != ROUTER:
            raise ForbiddenStreamError(self._principal, "erase", stream)
        sought = (stream, partition)
        return next((each for each in self._file.watch.tables() if (each.stream, each.partition) == sought), None)

    async def _expire(self, table: Table, before: int) -> int:
        dropped = 0
        while more := await self._file.write(partial(_expire, table, before)):
            dropped += more
        return dropped

    async def _compact(self, table: Table, before: int) -> int:
        # Found beside the writer: a row once replaced stays replaced.
        offsets = await self._file.read(lambda pages: replaced(pages, table, before))
        dropped = 0
        for begin in range(0, len(offsets), DROP_ROWS):
            dropped += await self._file.write(partial(_drop, table, offsets[begin : begin + DROP_ROWS]))
        return dropped


class _File:
    """The open file: one thread that writes, one that reads pages, and the event loop that watches."""

    def __init__(self, path: Path, principal: str, world: World, clock: Callable[[], int]) -> None:
        self._path, self._principal, self._world = path, principal, world
        self._writer = Writer(path, clock)
        self._tables: dict[tuple[str, str, int], Table] = {}

    async def open(self) -> None:
        """Start the threads. Raises what `Writer.start` does."""
        await self._writer.start()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="bus-reader")
        self._pages = connect(self._path, write=False)
        self.watch = _Watch(connect(self._path, write=False))

    async def close(self) -> None:
        """Finish what was asked for and stop the threads."""
        await self._writer.stop()
        await asyncio.to_thread(self._reader.shutdown)
        self._pages.close()
        self.watch.close()

    def table(self, act: str, stream: str, partition: int) -> Table:
        """Find a stream's table. Raises ForbiddenStreamError if there is none or it is not for this principal."""
        asked = (act, stream, partition)
        if asked not in self._tables:
            self._world.check(self._principal, act, stream)
            number = self.watch.one("SELECT id FROM streams WHERE name = ? AND partition = ?", stream, partition)
            if not number:
                raise ForbiddenStreamError(self._principal, act, f"{stream}/{partition}")
            self._tables[asked] = Table(number, stream, partition)
        return self._tables[asked]

    async def write(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in the next commit and wake who waits in this process."""
        answer = await self._writer.do(job)
        self.watch.wake()
        return answer

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run a job in the reader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, job, self._pages)

    async def empty_log(self) -> None:
        """Leave nothing in the write-ahead log."""
        await self._writer.aside(checkpoint)

    async def scrub(self) -> None:
        """Leave nothing of what was deleted in the file."""
        await self._writer.aside(scrub)


class _Shard:
    """A shard, as long as the epoch in the file is the one we made."""

    def __init__(self, file: _File, shard: int, epoch: int, places: dict[Table, int], gaps: Sequence[Record]) -> None:
        self._file, self._shard, self._epoch, self._places = file, shard, epoch, places
        self._by_name = {(table.stream, table.partition): table for table in places}
        self._gaps = gaps
        self._move(gaps)
        self._turn = 0
        self._dead = False

    async def gone(self) -> frozenset[str]:
        """Name none: a table of the file goes with the file."""
        return frozenset()

    def unplaced(self) -> frozenset[str]:
        """Name none: places stay where they are, whatever goes from a table."""
        return frozenset()

    async def take(self, limit: int, wait: float) -> list[Record]:
        """Give the next records, from one look at the file; first what stands for lost ones."""
        if self._gaps:
            gaps, self._gaps = self._gaps[:limit], self._gaps[limit:]
            return list(gaps)
        deadline = monotonic() + wait
        while True:
            ends = self._file.watch.ends(list(self._places))
            backlogs = {
                (table.stream, table.partition): end - place
                for (table, place), end in zip(self._places.items(), ends, strict=True)
            }
            wanted = [(self._by_name[place], share) for place, share in shares(backlogs, limit, self._turn).items()]
            self._turn += 1
            records = await self._file.read(partial(self._pages, wanted))
            self._move(records)
            if records or not await self._file.watch.beyond(self._places, deadline):
                return records

    def _move(self, records: Sequence[Record]) -> None:
        for record in records:
            self._places[self._by_name[record.stream, record.partition]] = record.offset + 1

    def _pages(self, wanted: list[tuple[Table, int]], pages: sqlite3.Connection) -> list[Record]:
        records: list[Record] = []
        room = PAGE_BYTES
        for table, share in wanted:
            page, after = select(pages, table, self._places[table], share)
            if not page:  # nothing stands between our place and the end: offsets may be passed over
                self._places[table] = max(self._places[table], after)
            records += page
            room -= sum(len(record.value or b"") for record in page)
            if room <= 0:
                break
        return records

    async def commit(self, taken: Sequence[Record], writes: Writes) -> Mapping[str, int]:
        """Commit the step in one transaction of the file, which looks at the epoch first."""
        if self._dead:
            raise UnavailableError(f"shard {self._shard} must be owned again")
        outputs: dict[Table, list[Row]] = defaultdict(list)
        for stream, key, value in writes.records:
            _check_size(len(key) + len(value or b""))
            partition = self._shard if family_of(stream).sharded else 0
            outputs[self._file.table("write", stream, partition)].append((key, value))
        places = {self._by_name[record.stream, record.partition]: record.offset + 1 for record in taken}
        # What comes of a commit that fails or is cancelled from here on is not known.
        self._dead = True
        last = await self._file.write(partial(self._commit, outputs, places))
        self._dead = False
        return last

    def _commit(
        self, outputs: Mapping[Table, list[Row]], places: Mapping[Table, int], transaction: Transaction
    ) -> dict[str, int]:
        self._check_epoch(transaction)
        _keep(transaction, f"{ROUTER}.{self._shard}", places)
        return {table.stream: transaction.append(table, rows) for table, rows in outputs.items()}

    async def now(self) -> int:
        """Tell the append time of a commit that holds nothing else."""
        return await self._file.write(self._now)

    def _now(self, transaction: Transaction) -> int:
        self._check_epoch(transaction)
        return transaction.at()

    def _check_epoch(self, transaction: Transaction) -> None:
        if transaction.one("SELECT epoch FROM shards WHERE shard = ?", self._shard) != self._epoch:
            raise FencedError(f"another process has taken over shard {self._shard}")


class _Watch:
    """Looks at the file from the event loop, a few microseconds at a time, and wakes who waits for a change."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._version, self._changed = 0, 0.0

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._connection.close()

    def one(self, sql: str, *values: object) -> int:
        """Ask for one number; 0 if there is none."""
        with answering(REFUSAL):
            row = self._connection.execute(sql, values).fetchone()
        return int(row[0]) if row else 0

    def ends(self, tables: Sequence[Table]) -> list[int]:
        """Tell the offset after the last record of each table."""
        numbers = json.dumps([table.id for table in tables])
        with answering(REFUSAL):
            (packed,) = self._connection.execute(
                "SELECT json_group_array(next) FROM (SELECT next FROM json_each(?) AS t"
                " JOIN streams ON streams.id = t.value ORDER BY t.key)",
                (numbers,),
            ).fetchone()
        ends: list[int] = json.loads(packed)
        return ends

    def start(self, table: Table) -> int:
        """Tell the first offset that a table may still hold."""
        return self.one("SELECT start FROM streams WHERE id = ?", table.id)

    def tables(self) -> list[Table]:
        """Name every table."""
        with answering(REFUSAL):
            rows = self._connection.execute("SELECT id, name, partition FROM streams").fetchall()
        return [Table(*row) for row in rows]

    async def beyond(self, offsets: Mapping[Table, int], deadline: float) -> bool:
        """Wait until one of the tables has a record at its offset or later; tell whether it came in time."""
        while all(end <= offset for end, offset in zip(self.ends(list(offsets)), offsets.values(), strict=True)):
            left = deadline - monotonic()
            if left <= 0:
                return False
            await self._change(left)
        return True

    async def _change(self, limit: float) -> None:
        future = self._loop.create_future()
        self._waiting.add(future)
        if self._timer is None:
            self._look()
        try:
            await asyncio.wait([future], timeout=limit)
        finally:
            self._waiting.discard(future)

    def wake(self) -> None:
        """Wake everybody who waits: something may have changed."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        version = self.one("PRAGMA data_version")
        if version != self._version:
            self._version, self._changed = version, self._loop.time()
            self.wake()
        busy = self._loop.time() - self._changed < 1
        self._timer = self._loop.call_later(BUSY_POLL_S if busy else QUIET_POLL_S, self._look)


def _check_size(size: int) -> None:
    if size > MAX_RECORD:
        raise TooLargeError(size, MAX_RECORD)


def _has_own(copy: Copies) -> bool:
    return bool(copy.own)


def _create(streams: Sequence[str], shards: int, transaction: Transaction) -> None:
    for stream in streams:
        for partition in range(shards if family_of(stream).sharded else 1):
            transaction.create(stream, partition, roomy=family_of(stream).name in _READ_BY_MEMBERS)


def _leave_room(transaction: Transaction) -> None:
    # The time in ms grows faster than any stream: a second restore of one copy goes beyond the first.
    least = transaction.one("UPDATE room SET first = max(first + ?, ?) RETURNING first", ROOM, transaction.at())
    family = "substr(name, 1, instr(name || '.', '.') - 1)"
    ids = f"SELECT id FROM streams WHERE {family} IN (SELECT value FROM json_each(?))"  # noqa: S608 - nothing is given
    of_place = "FROM streams WHERE id = places.stream"
    families = json.dumps(_READ_BY_MEMBERS)
    transaction.run(
        f"UPDATE places SET offset = (SELECT max(next + ?, ?) {of_place}) WHERE stream IN ({ids})"  # noqa: S608 - the same
        f" AND offset >= (SELECT next {of_place})",
        ROOM,
        least,
        families,
    )
    sql = f"UPDATE streams SET next = max(next + ?, ?) WHERE id IN ({ids})"  # noqa: S608 - the same
    transaction.run(sql, ROOM, least, families)


def _keep(transaction: Transaction, party: str, places: Mapping[Table, int]) -> None:
    for table, offset in places.items():
        transaction.run(
            "INSERT INTO places VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET offset = excluded.offset",
            party,
            table.id,
            offset,
        )


def _fan_out(
    inboxes: Mapping[Table, list[Copy]], shared: Sequence[tuple[int, bytes]], transaction: Transaction
) -> None:
    first = transaction.share(shared)
    for table, records in inboxes.items():
        transaction.append_copies(table, records, first)


def _own(shard: int, name: bytes, transaction: Transaction, *, had: bool) -> int:
    """Make the next epoch of a shard, ours by our name, unless we had it and another has made one since.

    By the name and not by our last epoch: we may not have been told in time of the one that we made last.
    """
    ours = "SELECT count(*) FROM owners JOIN shards USING (shard, epoch) WHERE shard = ? AND name = ?"
    if had and not transaction.one(ours, shard, name):
        raise FencedError
    epoch = transaction.one(
        "INSERT INTO shards VALUES (?, 1) ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch", shard
    )
    transaction.run("INSERT OR REPLACE INTO owners VALUES (?, ?, ?)", shard, epoch, name)
    return epoch


def _expire(table: Table, before: int, transaction: Transaction) -> int:
    rows = f"s{table.id}"
    young = f"SELECT min(offset) FROM {rows} WHERE at >= ?"  # noqa: S608 - the id is ours
    # The last old row decides, not the first young one: between them compaction may have left a gap.
    old = f"SELECT max(offset) + 1 FROM {rows} WHERE offset < ifnull(({young}), next)"  # noqa: S608
    # What the router has not done with yet must still become a leaf, or be sent.
    done = f"SELECT min(offset) FROM places WHERE stream = {table.id} AND party GLOB '{ROUTER}.*'"  # noqa: S608
    reached = f"min(ifnull(({old}), 0), ifnull(({done}), next))"
    sql = f"UPDATE streams SET start = max(start, {reached}) WHERE id = ? RETURNING start"  # noqa: S608
    start = transaction.one(sql, before, table.id)
    return transaction.drop_rows(table, transaction.before(table, start, DROP_ROWS))


def _drop(table: Table, offsets: Sequence[int], transaction: Transaction) -> int:
    return transaction.drop_rows(table, offsets)
