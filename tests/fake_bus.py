"""A bus in memory that keeps the written contract of broker/bus.py."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from broker import streams
from broker.bus import NOTHING_LOST, Copies, Place, Record, Writes
from broker.errors import FencedError, ForbiddenStreamError, OffsetGoneError, UnavailableError

START = 1_795_000_000_000
"""Where a clock begins, in ms since 1970-01-01T00:00:00Z."""
_BEFORE_ALL = (streams.VERSIONS, streams.ANNEXES, streams.ASKS)


@dataclass(slots=True)
class Clock:
    """The bus's clock, set by the test."""

    now: int = START


@dataclass(slots=True)
class _Partition:
    records: list[Record] = field(default_factory=list)
    start: int = 0
    end: int = 0


@dataclass(slots=True)
class Memory:
    """What lies on the bus, whoever opens it. `breaks` is what the next writes do: was it kept before it failed?"""

    clock: Clock = field(default_factory=Clock)
    partitions: dict[Place, _Partition] = field(default_factory=dict)
    places: dict[tuple[str, str, int], int] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    breaks: deque[bool] = field(default_factory=deque)
    gone: frozenset[str] = frozenset()

    def copy(self) -> Memory:
        """Give a bus on which the same records lie; what comes from now on comes on one of the two."""
        parts = {place: replace(each, records=list(each.records)) for place, each in self.partitions.items()}
        return Memory(Clock(self.clock.now), parts, dict(self.places), dict(self.epochs))

    def partition(self, stream: str, number: int) -> _Partition:
        """Find a partition, made at its first use."""
        return self.partitions.setdefault((stream, number), _Partition())

    def put(self, stream: str, number: int, key: bytes, value: bytes | None, fault: str = "") -> int:
        """Append one record, stamped with the clock's time."""
        part = self.partition(stream, number)
        part.records.append(Record(stream, number, part.end, self.clock.now, key, value, fault))
        part.end += 1
        return part.end - 1

    async def write(
        self,
        records: Sequence[tuple[str, int, bytes, bytes | None]],
        moved: Mapping[tuple[str, str, int], int] = MappingProxyType({}),
    ) -> dict[str, int]:
        """Append all at once and move the places, or fail as `breaks` says."""
        kept = self.breaks.popleft() if self.breaks else None
        last: dict[str, int] = {}
        if kept is not False:
            async with self.changed:
                last = {record[0]: self.put(*record) for record in records}
                self.places.update(moved)
                self.changed.notify_all()
        if kept is not None:
            raise UnavailableError
        return last

    def find(self, stream: str, number: int, offset: int, limit: int) -> list[Record]:
        """Give records from `offset` on."""
        part = self.partition(stream, number)
        if offset < part.start:
            raise OffsetGoneError(stream, offset, part.start)
        if offset >= part.end:
            return []
        return [each for each in part.records[-(part.end - offset) :] if each.offset >= offset][:limit]

    async def until(self, ready: Callable[[], list[Record]], wait: float) -> list[Record]:
        """Give what is ready, waiting for the first."""
        await asyncio.sleep(0)  # lets the other tasks of this loop go on
        if wait > 0 and not ready():
            try:
                async with asyncio.timeout(wait), self.changed:
                    await self.changed.wait_for(lambda: bool(ready()))
            except TimeoutError:
                return []
        return ready()

    def cut(self, stream: str, offset: int, number: int = 0) -> None:
        """Drop everything before `offset`, as retention does."""
        part = self.partition(stream, number)
        part.start = offset
        part.records = [each for each in part.records if each.offset >= offset]

    def lose(self, stream: str, number: int = 0) -> None:
        """Lose a stream and the places in it, and make it again empty, as an operator does on Kafka."""
        self.partitions[stream, number] = _Partition()
        self.places = {key: offset for key, offset in self.places.items() if key[1:] != (stream, number)}


class FakeShard:
    """The input and output of one shard, for its one owner."""

    def __init__(self, memory: Memory, shard: int, epoch: int, inputs: Sequence[str]) -> None:
        self._memory, self._shard, self._epoch = memory, shard, epoch
        self._group = f"shard-{shard}"
        self._given: deque[Record] = deque()
        self._unplaced = frozenset(
            each for each in inputs if (self._group, each, self._number(each)) not in memory.places
        )
        self._next = {each: memory.places.get((self._group, each, self._number(each)), 0) for each in inputs}
        self._parts = {each: memory.partition(each, self._number(each)) for each in inputs}

    def _number(self, stream: str) -> int:
        return self._shard if streams.family_of(stream).sharded else 0

    def _waiting(self, limit: int) -> list[Record]:
        found = {
            each: deque(self._memory.find(each, self._number(each), self._next[each], limit)) for each in self._next
        }
        ready = [record for each in _BEFORE_ALL for record in found.pop(each, ())]
        while any(found.values()) and len(ready) < limit:
            ready.extend(queue.popleft() for queue in found.values() if queue)
        return ready[:limit]

    async def take(self, limit: int, wait: float) -> list[Record]:
        """Give the next records, a fair share of each stream."""
        records = await self._memory.until(lambda: self._waiting(limit), wait)
        for record in records:
            self._next[record.stream] = record.offset + 1
        self._given.extend(records)
        return records

    async def commit(self, taken: Sequence[Record], writes: Writes) -> Mapping[str, int]:
        """Write and move the offsets, unless another owner has come."""
        self._check_epoch()
        if list(self._given)[: len(taken)] != list(taken):
            message = "the records are not those given next"
            raise ValueError(message)
        again = self._made_again()  # a place in what was there before is none in this
        moved = {
            (self._group, each.stream, each.partition): each.offset + 1 for each in taken if each.stream not in again
        }
        records = [(stream, self._number(stream), key, value) for stream, key, value in writes.records]
        last = await self._memory.write(records, moved)
        for _ in taken:
            self._given.popleft()
        return last

    async def gone(self) -> frozenset[str]:
        """Name the inputs that the test took away."""
        if again := self._made_again():
            raise UnavailableError(f"{', '.join(again)} was lost, and made again")
        return self._memory.gone

    def _made_again(self) -> list[str]:
        return [
            each for each, part in self._parts.items() if self._memory.partition(each, self._number(each)) is not part
        ]

    def unplaced(self) -> frozenset[str]:
        """Name the inputs of which nothing was committed, or whose places went with them."""
        return self._unplaced

    async def now(self) -> int:
        """Tell the clock's time, unless another owner has come."""
        self._check_epoch()
        return self._memory.clock.now

    def _check_epoch(self) -> None:
        if self._memory.epochs[self._shard] != self._epoch:
            raise FencedError


async def still_owned() -> None:
    """Answer as the shard of whoever still owns it."""


class FakeBus:
    """The bus in the name of one principal; without a world everybody may do everything."""

    def __init__(
        self, memory: Memory | None = None, principal: str = streams.ROUTER, world: streams.World | None = None
    ) -> None:
        self.memory, self.principal, self.world = memory or Memory(), principal, world

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def of(self, principal: str) -> FakeBus:
        """Open the same bus in another's name."""
        return FakeBus(self.memory, principal, self.world)

    def _may(self, act: str, stream: str) -> None:
        if self.world is None:
            return
        named = self.world.writers(stream) if act == "write" else self.world.readers(stream)
        if self.principal not in named:
            raise ForbiddenStreamError(self.principal, act, stream)

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        """Append in order."""
        self._may("write", stream)
        last = await self.memory.write([(stream, partition, key, value) for key, value in values])
        return last.get(stream, self.memory.partition(stream, partition).end - 1)

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        """Read from an offset on."""
        self._may("read", stream)
        return await self.memory.until(lambda: self.memory.find(stream, partition, offset, limit), wait)

    async def end(self, stream: str, *, partition: int = 0) -> int:
        """Tell the next offset."""
        self._may("read", stream)
        return self.memory.partition(stream, partition).end

    async def written(self, stream: str, *, partition: int = 0) -> int:
        """Tell the next offset, whatever of it is shown."""
        self._may("read", stream)
        return self.memory.partition(stream, partition).end

    async def fan_out(self, copies: Sequence[Copies], *, partition: int = 0) -> None:
        """Copy to inboxes."""
        for copy in copies:
            for stream, _ in copy.own:
                self._may("write", stream)
        await self.memory.write(
            [(stream, partition, copy.key, own + copy.shared) for copy in copies for stream, own in copy.own]
        )

    async def place(self, group: str, stream: str, *, partition: int = 0) -> int:
        """Tell where a group stands."""
        return self.memory.places.get((group, stream, partition), 0)

    async def has_place(self, group: str, stream: str, *, partition: int = 0) -> bool:
        """Tell whether a group ever kept a place."""
        return (group, stream, partition) in self.memory.places

    async def keep_place(self, group: str, stream: str, offset: int, *, partition: int = 0) -> None:
        """Remember where a group stands."""
        self.memory.places[group, stream, partition] = offset

    def own(
        self,
        shard: int,
        inputs: Sequence[str],
        lost: Mapping[str, int] = NOTHING_LOST,  # noqa: ARG002 - nothing is lost here
    ) -> AbstractAsyncContextManager[FakeShard]:
        """Own a shard; the old owner is fenced."""
        for stream in inputs:
            self._may("read", stream)
        return self._own(shard, inputs)

    @asynccontextmanager
    async def _own(self, shard: int, inputs: Sequence[str]) -> AsyncIterator[FakeShard]:
        epoch = self.memory.epochs[shard] = self.memory.epochs.get(shard, 0) + 1
        yield FakeShard(self.memory, shard, epoch, inputs)

    async def create(self, streams: Sequence[str], shards: int = 1) -> None:
        """Make streams."""
        for stream in streams:
            for number in range(shards):
                self.memory.partition(stream, number)

    async def prune(self) -> int:
        """Drop what is older than its stream keeps, and what a compacted stream has replaced."""
        return sum(self._prune(stream, part) for (stream, _), part in self.memory.partitions.items())

    async def erase(
        self,
        stream: str,  # noqa: ARG002
        *,
        keys: Sequence[bytes] = (),  # noqa: ARG002
        offsets: Sequence[int] = (),  # noqa: ARG002
        partition: int = 0,  # noqa: ARG002
    ) -> int:
        """Leave it to retention, as Kafka does."""
        return 0

    async def compact(self, stream: str, keys: Sequence[bytes], *, partition: int = 0) -> int:  # noqa: ARG002
        """Leave it to `prune`."""
        return 0

    async def scrub(self) -> None:
        """Do nothing: there is no file."""

    def _prune(self, stream: str, part: _Partition) -> int:
        family, before = streams.family_of(stream), part.records
        if family.compacted:
            newest = {each.key: each.offset for each in before}
            part.records = [each for each in before if each.value is not None and newest[each.key] == each.offset]
        if family.retention_ms != streams.FOR_EVER:
            oldest = self.memory.clock.now - family.retention_ms
            part.records = [each for each in part.records if each.at >= oldest]
            # A compacted stream has holes; only what is too old moves its start.
            part.start = next((each.offset for each in before if each.at >= oldest), part.end)
        return len(before) - len(part.records)
