"""Reads streams, a shard's inputs and places by aiokafka's consumers, whatever a member has written into a batch."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.record._crecords import default_records
from aiokafka.structs import ConsumerRecord

from broker.bus import MAX_RECORD, Place, Record, made_again, passed_over
from broker.errors import OffsetGoneError, UnavailableError
from broker.fair import shares
from broker.kafka_answers import FAILED, answering
from broker.kafka_ids import AGAIN_S, ids, others

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

BOUND = 16 << 20
"""bytes that one batch may expand to"""
HELD_BYTES = 4 << 20
"""what is read ahead of one stream before its reading pauses"""
UNPACKED = 64
"""records unpacked between two looks at that: a few bytes on the way may be megabytes here"""
LOOK_S = 5.0
"""how long a look at the inputs may take; what it does not find the next one may"""
# What decoding hostile bytes was seen to raise, or could.
_DAMAGED = (
    kafka_errors.KafkaError,
    ArithmeticError,
    AssertionError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class Reader:
    """One partition of a stream, read on from where the last page ended; `turn` is for one reading at a time."""

    def __init__(self, consumer: AIOKafkaConsumer, principal: str, place: Place, limit: float) -> None:
        self._consumer, self._principal, self._limit = consumer, principal, limit
        self._place = TopicPartition(*place)
        self._next = -1
        self.turn = asyncio.Lock()
        consumer.assign([self._place])
        consumer.seek(self._place, 0)

    async def read(self, offset: int, limit: int, wait: float) -> list[Record]:
        """Read a page; what is there already is given even where `wait` is 0."""
        with answering(self._principal, "read", self._place.topic):
            if offset != self._next:
                self._consumer.seek(self._place, offset)
                self._next = offset
            try:
                return await self._page(limit, wait)
            except kafka_errors.OffsetOutOfRangeError:
                self._next = -1
                await raise_if_gone(self._consumer, self._place, offset)
                # Beyond the end: there is nothing to read.
                return []

    async def _page(self, limit: int, wait: float) -> list[Record]:
        if records := await self._poll(limit, wait):
            return records
        # Nothing came in time. That there is nothing is another thing: what is committed by now must still come.
        async with asyncio.timeout(self._limit):
            await await_known(self._consumer, [self._place])
            end = (await self._consumer.end_offsets([self._place]))[self._place]
            while not records and await self._consumer.position(self._place) < end:
                records = await self._poll(limit, 0.05)
        return records

    async def _poll(self, limit: int, wait: float) -> list[Record]:
        found = await self._consumer.getmany(self._place, timeout_ms=int(wait * 1000), max_records=limit)
        records = [_record(message) for message in found.get(self._place, [])]
        if records:
            self._next = records[-1].offset + 1
        return records


class Places:
    """The committed offsets of one group, read and moved without joining it."""

    def __init__(self, consumer: AIOKafkaConsumer, principal: str, group: str, limit: float) -> None:
        self._consumer, self._principal, self._group, self._limit = consumer, principal, group, limit

    async def committed(self, places: Sequence[Place]) -> list[int | None]:
        """Tell the next offsets to read; None where none was kept, or in a topic of before this one."""
        tasks = [TopicPartition(*each) for each in places]
        with answering(self._principal, "read", self._group):
            async with asyncio.timeout(self._limit):
                found = await self._consumer._coordinator.fetch_committed_offsets(tasks)  # noqa: SLF001 -- with metadata
                known = {each.topic: kept.metadata for each, kept in found.items() if kept.metadata}
                before = others(known, await ids(self._consumer, known))
        return [found[each].offset if each in found and each.topic not in before else None for each in tasks]

    async def ids(self, streams: Sequence[str]) -> dict[str, str]:
        """Tell the ids of these streams' topics, once a node knows them all."""
        with answering(self._principal, "read", ", ".join(streams)):
            async with asyncio.timeout(self._limit):
                while len(found := await ids(self._consumer, streams)) < len(streams):  # noqa: ASYNC110 -- nodes are asked
                    await asyncio.sleep(AGAIN_S)
        return found

    async def commit(self, place: Place, offset: int) -> None:
        """Keep the next offset to read."""
        task = TopicPartition(*place)
        with answering(self._principal, "commit to", self._group):
            known = self._consumer.assignment()
            if task not in known:
                # Only what is assigned can be committed. Paused and with a position it fetches nothing.
                self._consumer.assign([*known, task])
                for each in (*known, task):
                    self._consumer.pause(each)
                    self._consumer.seek(each, 0)
            async with asyncio.timeout(self._limit):
                await self._consumer.commit({task: offset})


class Backlog:
    """What has arrived for a shard and was not taken yet, stream by stream."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        places: Mapping[TopicPartition, int | None],
        known: Mapping[str, str],
        principal: str,
        limit: float,
    ) -> None:
        self._consumer, self._principal, self._limit = consumer, principal, limit
        self.ids = known
        """Of the topics in which the places are."""
        self._held: dict[Place, deque[Record]] = {place: deque() for place in places}
        self._bytes: dict[Place, int] = dict.fromkeys(places, 0)
        self._paused: set[Place] = set()
        self._turn = 0
        self._places = {place: offset or 0 for place, offset in places.items()}
        self.unplaced = frozenset(stream for (stream, _), offset in places.items() if offset is None)
        """Streams of which no place was kept."""
        if places:
            consumer.assign(list(places))
        for place, offset in self._places.items():
            consumer.seek(place, offset)

    async def check(self, lost: Mapping[str, int]) -> None:
        """Hold each place against its stream: one beyond the end would pass over what is written before it grew again.

        Raises InputLostError, but for what the operator has said is `lost`.
        """
        with answering(self._principal, "read", "a shard's inputs"):
            async with asyncio.timeout(self._limit):
                await await_known(self._consumer, self._places)
                starts = await self._consumer.beginning_offsets(list(self._places))
                ends = await self._consumer.end_offsets(list(self._places))
        for place, offset in self._places.items():
            gap = passed_over(place, offset, (starts[place], ends[place]), lost)
            if gap is None and place.topic in self.unplaced:
                gap = made_again(place, starts[place], lost)
            if gap is not None:
                self._held[place].append(gap)
                self._bytes[place] += _weight(gap)
                self._consumer.seek(place, gap.offset + 1)

    async def gone(self) -> frozenset[str]:
        """Name the streams of which a node that answers has no topic: nothing comes of them.

        Raises UnavailableError where one was made again: of our place there nothing is known, though it has an end
        beyond that.
        """
        there = self.ids
        with suppress(*FAILED):
            async with asyncio.timeout(LOOK_S):
                there = await ids(self._consumer, self.ids)
        if again := others(self.ids, there):
            raise UnavailableError(f"{', '.join(again)} was lost, and made again")
        return frozenset(self.ids) - there.keys()

    async def take(self, limit: int, wait: float) -> list[Record]:
        """Give what has come, each stream its fair share; wait for the first if nothing has."""
        if not self._held:
            await asyncio.sleep(wait)
            return []
        await self._fetch(0)
        if not any(self._held.values()):
            await self._fetch(wait)
        given = shares({place: len(held) for place, held in self._held.items()}, limit, self._turn)
        self._turn += 1
        return [self._give(place) for place, share in given.items() for _ in range(share)]

    def _give(self, place: Place) -> Record:
        record = self._held[place].popleft()
        self._bytes[place] -= _weight(record)
        # At half, so that the next records are there before these are gone.
        if place in self._paused and self._bytes[place] <= HELD_BYTES // 2:
            self._paused.discard(place)
            self._consumer.resume(TopicPartition(*place))
        return record

    async def _fetch(self, wait: float) -> None:
        with answering(self._principal, "read", "a shard's inputs"):
            try:
                while going := [TopicPartition(*each) for each in self._held if each not in self._paused]:
                    found = await self._consumer.getmany(*going, timeout_ms=int(wait * 1000), max_records=UNPACKED)
                    if not found:
                        return
                    self._hold(found)
                    wait = 0
            except kafka_errors.OffsetOutOfRangeError as error:
                # What is lost is said of the place that is kept, not of where we have read on to: by who owns it next.
                raise UnavailableError("a node does not have what it had a moment ago") from error

    def _hold(self, found: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        for place, messages in found.items():
            records = [_record(message) for message in messages]
            self._held[place].extend(records)
            self._bytes[place] += sum(map(_weight, records))
            if self._bytes[place] > HELD_BYTES:
                self._paused.add(place)
                self._consumer.pause(place)


def _weight(record: Record) -> int:
    # Empty ones weigh, too, or a flood of them would be read without end.
    return len(record.key) + len(record.value or b"") + 100


class _Refused(ConsumerRecord):  # type: ignore[misc]  # aiokafka's records are untyped
    """Stands for a record that is too large, or a whole batch that could not be read, at the batch's last offset."""


def _record(message: ConsumerRecord) -> Record:
    fault = message.value if isinstance(message, _Refused) else ""
    value = None if fault else message.value
    return Record(message.topic, message.partition, message.offset, message.timestamp, message.key or b"", value, fault)


class _Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """Reads batches as aiokafka does, but gives one refused record for a batch that it cannot read, and goes on.

    aiokafka raises out of the middle, loses what it had read before, and meets the same batch again for ever.
    """

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if not self._skipped(batch):
                yield from self._read(batch)
            # A compacted batch keeps its last offset, an aborted one is stepped over.
            self.next_fetch_offset = batch.next_offset

    def _skipped(self, batch: Any) -> bool:
        if batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
        aborted = batch.is_transactional and batch.producer_id in self._aborted_producers
        return bool(batch.is_control_batch or aborted)

    def _read(self, batch: Any) -> Iterator[ConsumerRecord]:
        try:
            if not batch.validate_crc():
                raise kafka_errors.CorruptRecordException("the checksum does not fit")
            for record in batch:
                if record.offset >= self.next_fetch_offset:
                    self.next_fetch_offset = record.offset + 1
                    if len(record.key or b"") + len(record.value or b"") > MAX_RECORD:
                        yield self._refused(record.offset, record.timestamp, "a record is larger than the bus takes")
                    else:
                        yield self._consumer_record(self._tp, record)
        except _DAMAGED as error:
            fault = f"a batch could not be read: {type(error).__name__}"
            yield self._refused(batch.next_offset - 1, batch.max_timestamp, fault)

    def _refused(self, offset: int, at: int, fault: str) -> _Refused:
        return _Refused(self._tp.topic, self._tp.partition, offset, at, 1, None, fault, None, -1, -1, ())


def _bounded_gunzip(payload: Any) -> bytes:
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    unpacked = unpack.decompress(payload, BOUND)
    if unpack.unconsumed_tail or not unpack.eof:
        raise ValueError("a batch expands past its bound, or ends too early")
    return unpacked


_plainly = GroupCoordinator._send_req  # noqa: SLF001 -- aiokafka's own way
_NOT_THE_COORDINATOR = (kafka_errors.NotCoordinatorForGroupError, kafka_errors.GroupCoordinatorNotAvailableError)


async def _ask_coordinator(self: Any, request: Any) -> Any:
    """Ask as aiokafka does, and raise what a node says of a group's places as a whole (KIP-88, OffsetFetch from 2 on).

    aiokafka looks for an error beside each place, and there is none then: a node that is the coordinator no more, or
    not yet, would be taken to say that no place was ever kept, and all would be taken in from the beginning once more.
    """
    answer = await _plainly(self, request)
    code = getattr(answer, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
    if code:
        error = kafka_errors.for_code(code)
        if error in _NOT_THE_COORDINATOR:
            self.coordinator_dead()  # another is looked for
        raise error(self.group_id)
    return answer


def tune() -> None:
    """Have all consumers of aiokafka read so; doing so again changes nothing."""
    # The compiled reader looks the name up here, not in aiokafka.codec.
    default_records.gzip_decode = _bounded_gunzip
    fetcher.PartitionRecords = _Records
    GroupCoordinator._send_req = _ask_coordinator  # noqa: SLF001 -- nothing public lies between it and its answers


async def await_known(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> None:
    """Wait until the nodes have told where these lie. Raises TopicAuthorizationFailedError where they refuse to.

    Asked for an offset there, aiokafka would ask for the place again until our time is up: as if no node answered.
    """
    for place in places:
        await consumer._client._wait_on_metadata(place.topic)  # noqa: SLF001 -- nothing public tells of a refusal


async def raise_if_gone(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> None:
    """Raise OffsetGoneError if retention has taken what lies at this offset."""
    start = (await consumer.beginning_offsets([place]))[place]
    if offset < start:
        raise OffsetGoneError(place.topic, offset, start)
