"""The bus over Kafka, by way of aiokafka.

What aiokafka does at its defaults would lose records, wait 100 ms at a time and let a sender fill our memory, so it is
tuned and guarded, at one door: `_tune` for back-offs, kafka_read.py for what cannot be read, kafka_send.py for copying.
A producer that failed is thrown away: after one lost batch it refuses the others for ever.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.producer import sender

from broker import kafka_metadata, kafka_read, kafka_send
from broker.bus import NOTHING_LOST, Copies, Owned, Place, Record, Shard, Writes
from broker.errors import (
    ConfigurationError,
    FencedError,
    ForbiddenStreamError,
    TopicGoneError,
    UnavailableError,
)
from broker.kafka_answers import FAILED, answering
from broker.kafka_batch import BATCH_BYTES, TRANSACTIONAL, Batch, Heads, Value, make_batches
from broker.kafka_read import Backlog, Places, Reader, await_known
from broker.kafka_tls import Context
from broker.streams import REGISTER, ROUTER, SETUP, World, family_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

CLOCK = b"clock"
"""Key of the records in `register` that only ask for the time, and name who asks (`Owned`); no entry of the register.

Compaction keeps the newest of them: who owned a shard before finds by it that another has owned it since.
"""

LIMIT_S = 30.0
"""longer than the 8 to 11 s that a partition pauses when one of three nodes is lost"""
STOP_S = 5.0
SHARD_WAIT_MS, READER_WAIT_MS = 10, 100
"""how long a node keeps a fetch that finds nothing; what arrives ends it at once, each empty one costs CPU"""
FAN_OUT_BYTES = 8 << 20
"""about what one request carries: aiokafka puts a batch of every inbox into it"""
AT_ONCE_BYTES = 32 << 20
"""what is queued at once where single records are larger than their share of that; the nodes take 100 MiB"""
REQUEST_BYTES = 1_040_000
"""a batch of one large record; the nodes take 1 MiB with its head"""

APPENDS, FAN_OUT_LANES = 0, (1, 2)
"""Producers, by what they carry. aiokafka has one request under way for each: a head that waits to be announced must
not wait for the copies of a whole step, and half of them are made while the node takes in the other half."""


class KafkaBus:
    """The bus, in the name of one principal; `tls` is (CA file, certificate file, key file)."""

    def __init__(
        self,
        bootstrap: str,
        principal: str,
        tls: tuple[str, str, str] | None,
        world: World,
        *,
        limit: float = LIMIT_S,
        owned: Owned | None = None,
    ) -> None:
        self._principal, self._world = principal, world
        self._owned = owned or Owned()
        self._client = _Client(bootstrap, principal, tls, limit)
        self._granted: set[tuple[str, str]] = set()
        self._all_offsets: AIOKafkaConsumer | None = None
        self._readers: dict[Place, Reader] = {}
        self._places: dict[str, Places] = {}
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._queueing: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._starting, self._opened = asyncio.Lock(), False
        self._fanning, self._fan_failed = 0, False

    async def __aenter__(self) -> Self:
        if self._opened:  # its readers are stopped with it, or still somebody's
            raise RuntimeError("a bus is opened once: make another one")
        _tune()
        async with AsyncExitStack() as stack:
            self._offsets = await self._client.consumer(stack)
            self._stack, self._opened = stack.pop_all(), True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for producer in self._producers.values():
            await _discard(producer)
        await self._stack.aclose()

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        """Append with an idempotent producer."""
        self._check("write", stream)
        if not values:
            return await self.end(stream, partition=partition) - 1
        last = await self._produce({(stream, partition): [(key, value, None) for key, value in values]}, APPENDS)
        return last[stream, partition]

    async def fan_out(self, copies: Sequence[Copies], *, partition: int = 0) -> None:
        """Append every copy with idempotent producers, all inboxes at once.

        Once one call has failed, those under way and those that begin before they all have ended fail, too.
        """
        self._fanning += 1
        try:
            await self._fan_out(copies, partition)
        finally:
            self._fanning -= 1
            self._fan_failed = self._fan_failed and self._fanning > 0

    async def _fan_out(self, copies: Sequence[Copies], partition: int) -> None:
        inboxes: dict[str, list[Value]] = defaultdict(list)
        for copy in copies:
            for stream, own in copy.own:
                inboxes[stream].append((copy.key, own, copy.shared))
        lanes: dict[int, dict[Place, list[Value]]] = defaultdict(dict)
        for stream, values in inboxes.items():
            self._check("write", stream)
            lanes[_lane(stream)][stream, partition] = values
        heads: Heads = {}
        # Each to its end: a lane that failed must not leave another writing behind our back.
        ends = [self._produce(values, lane, heads) for lane, values in lanes.items()]
        for end in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(end, BaseException):
                raise end

    async def _produce(
        self, values: Mapping[Place, Sequence[Value]], lane: int, heads: Heads | None = None
    ) -> dict[Place, int]:
        known = {} if heads is None else heads
        most = min(BATCH_BYTES, FAN_OUT_BYTES // len(values))
        batches = {place: make_batches(rows, known, most=most) for place, rows in values.items()}
        # What a producer still held has not left meanwhile, behind what the next one writes: it is discarded by then.
        async with self._naming_gone(stream for stream, _ in values):
            return await self._produce_by(lane, batches)

    async def _produce_by(self, lane: int, batches: Mapping[Place, list[Batch]]) -> dict[Place, int]:
        producer: AIOKafkaProducer | None = None
        try:
            async with self._starting:
                self._check_order(lane)
                if lane not in self._producers:
                    self._producers[lane] = await self._client.producer(None)
                producer = self._producers[lane]
            with answering(self._principal, "write", _names(batches)):
                async with asyncio.timeout(self._client.limit):
                    return await self._queue_in_turn(producer, batches, lane)
        except BaseException:
            # Before anything is awaited: the next call would find a new producer, and overtake this one.
            self._fan_failed = self._fan_failed or lane in FAN_OUT_LANES
            if producer:
                if self._producers.get(lane) is producer:
                    del self._producers[lane]
                await _discard(producer)
            raise

    @asynccontextmanager
    async def _naming_gone(self, streams: Iterable[str]) -> AsyncIterator[None]:
        """Raise TopicGoneError where the time was up for what a node that answers says there is no topic of."""
        try:
            yield
        except UnavailableError as error:
            if isinstance(error.__cause__, _NOT_IN_TIME) and (gone := await self._gone(streams)):
                raise TopicGoneError(gone) from error
            raise

    async def _gone(self, streams: Iterable[str]) -> list[str]:
        """Name those of these streams of which a node that answers says there is no topic; none if none answers."""
        with suppress(*FAILED):
            async with asyncio.timeout(STOP_S):
                known = await self._offsets._client.fetch_all_metadata()  # noqa: SLF001 -- nothing public lists them
                return sorted(set(streams) - known.topics())
        return []

    async def _queue_in_turn(
        self, producer: AIOKafkaProducer, batches: Mapping[Place, list[Batch]], lane: int
    ) -> dict[Place, int]:
        """Queue batches, whoever called first first; wait for a part of them only before the next could be too much."""
        last: dict[Place, int] = {}
        async with self._queueing[lane]:
            *before, part = _parts(batches, AT_ONCE_BYTES)
            for each in before:
                self._check_order(lane)
                last |= await _acknowledged(await _queue(producer, each))
            self._check_order(lane)
            sent = await _queue(producer, part)
        return last | await _acknowledged(sent)

    def _check_order(self, lane: int) -> None:
        if self._fan_failed and lane in FAN_OUT_LANES:
            raise UnavailableError("what was to be there before could not be written")

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        """Read committed records from `offset` on; reading on from the last record is the cheap way."""
        self._check("read", stream)
        reader = await self._reader(stream, partition)
        async with reader.turn, self._naming_gone([stream]):
            return await reader.read(offset, limit, wait)

    async def _reader(self, stream: str, partition: int) -> Reader:
        place = (stream, partition)
        async with self._starting:
            if place not in self._readers:
                consumer = await self._client.consumer(self._stack)
                self._readers[place] = Reader(consumer, self._principal, place, self._client.limit)
        return self._readers[place]

    async def end(self, stream: str, *, partition: int = 0) -> int:
        """Tell the end of what is committed; markers of transactions count as records."""
        self._check("read", stream)
        return await self._end(self._offsets, stream, partition)

    async def written(self, stream: str, *, partition: int = 0) -> int:
        """Tell the end of all records, those of open transactions, too."""
        self._check("read", stream)
        async with self._starting:
            if self._all_offsets is None:
                self._all_offsets = await self._client.consumer(self._stack, isolation="read_uncommitted")
        return await self._end(self._all_offsets, stream, partition)

    async def _end(self, offsets: AIOKafkaConsumer, stream: str, partition: int) -> int:
        place = TopicPartition(stream, partition)
        async with self._naming_gone([stream]):
            with answering(self._principal, "read", stream):
                async with asyncio.timeout(self._client.limit):
                    await await_known(offsets, [place])
                    ends = await offsets.end_offsets([place])
        return int(ends[place])

    async def place(self, group: str, stream: str, *, partition: int = 0) -> int:
        """Tell the committed offset of the group `<principal>.<group>`.

        A node that keeps a group's places since another died may know of commits what the others hold of its copy, and
        tell for a moment what was kept before them. What it acknowledges itself comes after all of them.
        """
        return await self._place(group, stream, partition) or 0

    async def has_place(self, group: str, stream: str, *, partition: int = 0) -> bool:
        """Tell whether the group `<principal>.<group>` has a committed offset, which goes with its topic."""
        return await self._place(group, stream, partition) is not None

    async def _place(self, group: str, stream: str, partition: int) -> int | None:
        self._check("read", stream)
        places = await self._group(group)
        (offset,) = await places.committed([(stream, partition)])
        return offset

    async def keep_place(self, group: str, stream: str, offset: int, *, partition: int = 0) -> None:
        """Commit an offset for the group `<principal>.<group>`, without joining it."""
        self._check("read", stream)
        places = await self._group(group)
        async with self._naming_gone([stream]):
            await places.commit((stream, partition), offset)

    async def _group(self, group: str) -> Places:
        name = f"{self._principal}.{group}"
        async with self._starting:
            if name not in self._places:
                consumer = await self._client.consumer(self._stack, group=name)
                self._places[name] = Places(consumer, self._principal, name, self._client.limit)
        return self._places[name]

    @asynccontextmanager
    async def own(
        self, shard: int, inputs: Sequence[str], lost: Mapping[str, int] = NOTHING_LOST
    ) -> AsyncIterator[Shard]:
        """Own a shard by its `transactional.id`: making that producer fences whoever had it.

        Not if we had it, and another has come since: stopped for longer than a transaction may take, we have timed out
        and were never told.
        """
        if self._principal != ROUTER:
            raise ForbiddenStreamError(self._principal, "own", f"shard {shard}")
        for stream in inputs:
            self._check("read", stream)
        group = f"{ROUTER}.{shard}"
        tasks = [TopicPartition(stream, shard if family_of(stream).sharded else 0) for stream in inputs]
        async with AsyncExitStack() as stack:
            await self._check_still_ours(shard)
            # Whoever came between that look and this is fenced by us, and ends: to find its name later, because our own
            # could not be written, must not end us, too. Nobody would go on.
            self._owned.last.pop(shard, None)
            producer = await self._client.producer(group)
            stack.push_async_callback(_discard, producer)
            owner = _Shard(shard, producer, self._check, self._client.limit, self._owned, self._naming_gone)
            # First of all: whoever had the shard is to find it, and to leave it to us.
            await owner.now()
            # Only now: the old owner can no longer move them.
            consumer = await self._client.consumer(stack, group=group)
            places = Places(consumer, self._principal, group, self._client.limit)
            await places.commit((REGISTER, shard), 0)  # or the newest may not be told (`Bus.place`); it is no input
            async with self._naming_gone(inputs):
                known = await places.ids(inputs)  # first: the place in one that is made again in between is not ours
            places_of = dict(zip(tasks, await places.committed(tasks), strict=True))
            reader = await self._client.consumer(stack, wait_ms=SHARD_WAIT_MS)
            owner.backlog = Backlog(reader, places_of, known, self._principal, self._client.limit)
            async with self._naming_gone(inputs):
                await owner.backlog.check(lost)
            yield owner

    async def _check_still_ours(self, shard: int) -> None:
        """Look through what `register` got since we wrote there last. Raises FencedError if another has owned it since.

        Kafka cannot be asked: it moves the epoch of a transactional id, too, when it ends a transaction of ours that
        took too long, and nobody else need have come.
        """
        if shard not in self._owned.last:
            return
        place, end = self._owned.last[shard], await self.end(REGISTER, partition=shard)
        while place < end and (found := await self.read(REGISTER, place, partition=shard)):
            if any(each.key == CLOCK and each.value != self._owned.name for each in found):
                raise FencedError(f"another process has owned shard {shard} since")
            place = found[-1].offset + 1

    async def create(self, streams: Sequence[str], shards: int = 1) -> None:
        """Check that the streams were made: making topics and bindings is the work of `valise broker init`."""
        if self._principal != SETUP:
            raise ForbiddenStreamError(self._principal, "create", ", ".join(streams))
        there = await self._client.partitions(streams)
        short = sorted(stream for stream in streams if there[stream] < (shards if family_of(stream).sharded else 1))
        if short:
            raise ConfigurationError(f"no topics for {', '.join(short)}: run `valise kafka up` or `valise broker init`")

    async def prune(self) -> int:
        """Leave it to the nodes, which drop what is older than its stream keeps."""
        return 0

    async def erase(
        self,
        stream: str,  # noqa: ARG002
        *,
        keys: Sequence[bytes] = (),  # noqa: ARG002
        offsets: Sequence[int] = (),  # noqa: ARG002
        partition: int = 0,  # noqa: ARG002
    ) -> int:
        """Leave it to retention, whose settings topics.py spells out: no single record goes from the middle."""
        return 0

    async def compact(self, stream: str, keys: Sequence[bytes], *, partition: int = 0) -> int:  # noqa: ARG002
        """Leave it to the nodes, within max.compaction.lag.ms."""
        return 0

    async def scrub(self) -> None:
        """Leave it to the nodes, which delete whole segments."""

    def _check(self, act: str, stream: str) -> None:
        if (act, stream) not in self._granted:
            self._world.check(self._principal, act, stream)
            self._granted.add((act, stream))


class _Client:
    """What all connections of one principal have in common."""

    def __init__(self, bootstrap: str, principal: str, tls: tuple[str, str, str] | None, limit: float) -> None:
        self._bootstrap, self._principal, self.limit = bootstrap, principal, limit
        self._tls = Context.of(*tls) if tls else None

    def _settings(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self._bootstrap,
            "client_id": self._principal,
            "security_protocol": "SSL" if self._tls else "PLAINTEXT",
            "ssl_context": self._tls,
            "request_timeout_ms": int(self.limit * 1000),
            "retry_backoff_ms": 5,
        }

    @contextmanager
    def _connecting(self, act: str, stream: str) -> Iterator[None]:
        """Turn what aiokafka says as `answering` does; where certificates are why there is no connection, say so."""
        try:
            with answering(self._principal, act, stream):
                yield
        except UnavailableError as error:
            if self._tls and (fault := self._tls.fault()):
                raise UnavailableError(f"{self._principal} could not {act} {stream}: {fault}") from error
            raise

    async def partitions(self, streams: Sequence[str]) -> dict[str, int]:
        """Count the partitions of each stream; 0 where there is none."""
        admin = AIOKafkaAdminClient(**self._settings())
        with self._connecting("describe", "the streams"):
            try:
                async with asyncio.timeout(self.limit):
                    await admin.start()
                    described = await admin.describe_topics(list(streams))
            finally:
                await admin.close()
        found = {str(topic["topic"]): len(topic["partitions"]) for topic in described}
        return {stream: found.get(stream, 0) for stream in streams}

    async def consumer(
        self,
        stack: AsyncExitStack,
        group: str | None = None,
        wait_ms: int = READER_WAIT_MS,
        isolation: str = "read_committed",
    ) -> AIOKafkaConsumer:
        """Start a consumer that commits nothing by itself, and stop it with the stack."""
        consumer = AIOKafkaConsumer(
            **self._settings(),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            fetch_max_wait_ms=wait_ms,
        )
        stack.push_async_callback(_stop, consumer)
        with self._connecting("use", "the bus"):
            async with asyncio.timeout(self.limit):
                await consumer.start()
        # Its tasks must have begun: stop() would wait for one that was cancelled before, and be cancelled with it.
        await asyncio.sleep(0)
        return consumer

    async def producer(self, transactional_id: str | None) -> AIOKafkaProducer:
        """Start a producer; one with a transactional id fences the others of that id."""
        producer = AIOKafkaProducer(
            **self._settings(),
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            transaction_timeout_ms=int(self.limit * 1000),
            max_batch_size=REQUEST_BYTES,
            max_request_size=REQUEST_BYTES,
        )
        try:
            with self._connecting("write", transactional_id or "the bus"):
                async with asyncio.timeout(self.limit):
                    await producer.start()
        except BaseException:
            await _discard(producer)
            raise
        return producer


class _Shard:
    """A shard, as long as nobody else has made a producer of its `transactional.id`."""

    backlog: Backlog

    def __init__(
        self, shard: int, producer: AIOKafkaProducer, check: Any, limit: float, owned: Owned, naming_gone: Any
    ) -> None:
        self._shard, self._producer, self._check, self._limit, self._owned = shard, producer, check, limit, owned
        self._naming_gone, self._dead = naming_gone, False

    async def gone(self) -> frozenset[str]:
        """Name the inputs of which a node that answers has no topic."""
        return await self.backlog.gone()

    def unplaced(self) -> frozenset[str]:
        """Name the inputs of which the group had no place."""
        return self.backlog.unplaced

    async def take(self, limit: int, wait: float) -> list[Record]:
        """Give the next records of the shard's inputs."""
        return await self.backlog.take(limit, wait)

    async def commit(self, taken: Sequence[Record], writes: Writes) -> Mapping[str, int]:
        """Commit the step in one transaction; whatever goes wrong, this owner is done."""
        rows: dict[Place, list[Value]] = defaultdict(list)
        for stream, key, value in writes.records:
            rows[stream, self._shard if family_of(stream).sharded else 0].append((key, value, None))
        for stream, _ in rows:
            self._check("write", stream)
        batches = {place: make_batches(values, {}, TRANSACTIONAL) for place, values in rows.items()}
        known = self.backlog.ids
        offsets = {
            TopicPartition(each.stream, each.partition): (each.offset + 1, known.get(each.stream, "")) for each in taken
        }
        if not batches and not offsets:
            return {}
        async with (
            self._naming_gone([stream for stream, _ in [*rows, *offsets]]),
            self._transaction(_names(rows)) as producer,
        ):
            # Every one is awaited: a commit succeeds although a send before it failed.
            last, _ = await asyncio.gather(_send(producer, batches), self._send_offsets(offsets))
        written = {stream: offset for (stream, _), offset in last.items()}
        if REGISTER in written:
            self._owned.last[self._shard] = written[REGISTER] + 1
        return written

    async def _send_offsets(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        if offsets:
            await self._producer.send_offsets_to_transaction(offsets, f"{ROUTER}.{self._shard}")

    @asynccontextmanager
    async def _transaction(self, stream: str) -> AsyncIterator[AIOKafkaProducer]:
        if self._dead:
            raise UnavailableError(f"shard {self._shard} must be owned again")
        self._dead = True
        with answering(ROUTER, "write", stream):
            async with asyncio.timeout(self._limit):
                await self._producer.begin_transaction()
                yield self._producer
                await self._producer.commit_transaction()
        self._dead = False

    async def now(self) -> int:
        """Write a record and see which time the node gave it."""
        async with self._naming_gone([REGISTER]), self._transaction(REGISTER) as producer:
            (batch,) = make_batches([(CLOCK, self._owned.name, None)], {}, TRANSACTIONAL)
            stamp = await (await producer.send_batch(batch, REGISTER, partition=self._shard))
        self._owned.last[self._shard] = int(stamp.offset) + 1
        if stamp.timestamp_type != 1:
            raise ConfigurationError(f"{REGISTER} does not stamp its records: set message.timestamp.type=LogAppendTime")
        return int(stamp.timestamp)


_NOT_IN_TIME = (TimeoutError, kafka_errors.UnknownTopicOrPartitionError)


def _lane(stream: str) -> int:
    """Give an inbox one producer, and always the same: that keeps its order."""
    return FAN_OUT_LANES[zlib.crc32(stream.encode()) % len(FAN_OUT_LANES)]


_Sent = tuple[list["Awaitable[Any]"], int]
"""What tells where each batch of one stream went, and how many records are in the last."""


def _parts(batches: Mapping[Place, list[Batch]], most: int) -> list[dict[Place, list[Batch]]]:
    """Part streams so that one batch of each has no more than `most` bytes in all: so many leave in one request."""
    parts, size = [dict[Place, list[Batch]]()], 0
    for place, each in batches.items():
        largest = max(batch.size for batch in each)
        if parts[-1] and size + largest > most:
            parts.append({})
            size = 0
        parts[-1][place] = each
        size += largest
    return parts


async def _queue(producer: AIOKafkaProducer, batches: Mapping[Place, list[Batch]]) -> dict[Place, _Sent]:
    """Queue batches, each stream's in order; the producer takes one of each at a time."""
    places = list(batches)
    sent = await asyncio.gather(*(_queue_one(producer, place, batches[place]) for place in places))
    return dict(zip(places, sent, strict=True))


async def _queue_one(producer: AIOKafkaProducer, place: Place, batches: Iterable[Batch]) -> _Sent:
    stream, partition = place
    futures: list[Awaitable[Any]] = []
    count = 0
    for batch in batches:
        futures.append(await producer.send_batch(batch, stream, partition=partition))
        count = batch.record_count()
    return futures, count


async def _send(producer: AIOKafkaProducer, batches: Mapping[Place, list[Batch]]) -> dict[Place, int]:
    return await _acknowledged(await _queue(producer, batches))


async def _acknowledged(sent: Mapping[Place, _Sent]) -> dict[Place, int]:
    """Return the last offset of each stream once all nodes that must have the batches do."""
    stamps = await asyncio.gather(*(asyncio.gather(*futures) for futures, _ in sent.values()))
    last: dict[Place, int] = {}
    for (place, (_, count)), each in zip(sent.items(), stamps, strict=True):
        if each[-1].offset < 0:
            raise UnavailableError(f"{place[0]} kept a batch without telling where")
        last[place] = int(each[-1].offset) + count - 1
    return last


def _names(places: Iterable[Place]) -> str:
    return ", ".join(stream for stream, _ in places)


def _tune() -> None:
    """Set what aiokafka has no parameter for; doing so again changes nothing."""
    # Waited between two transactions; 20 ms by default.
    sender.BACKOFF_OVERRIDE = 0.002
    kafka_metadata.tune()
    kafka_read.tune()
    kafka_send.tune()
    logging.getLogger(sender.__name__).addFilter(_not_concurrent_transactions)


def _not_concurrent_transactions(entry: logging.LogRecord) -> bool:
    # KAFKA-15459: how a healthy node tells old clients that the transaction before is still being finished.
    return "NotEnoughReplicas" not in entry.getMessage() or "retrying" not in entry.getMessage()


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, though a fetch of it that has failed waits to try again: aiokafka would cancel us with that."""
    if not await _ended(consumer.stop()):
        await _ended(consumer._client.close())  # noqa: SLF001 -- nothing else ends what still waits for an answer


async def _ended(ending: Awaitable[None]) -> bool:
    """Say whether something came to its end, in time; who is cancelled himself is cancelled."""
    with suppress(*FAILED):
        async with asyncio.timeout(STOP_S):
            try:
                await ending
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
            else:
                return True
    return False


async def _discard(producer: AIOKafkaProducer) -> None:
    """Stop a producer without waiting for what it still holds: that has no one who waits for it."""
    producer._message_accumulator.fail_all(kafka_errors.ProducerClosed())  # noqa: SLF001 - stop() would wait for it
    # It raises what its sending task ended with, KeyError among others: a batch that was taken away and comes back.
    with suppress(Exception):
        async with asyncio.timeout(STOP_S):
            await producer.stop()
    # Does nothing after a good stop; after one that hung it ends what still waits for an answer.
    await producer.client.close()
    task = producer._sender.sender_task  # noqa: SLF001 - nothing else ends it
    if task and not task.done():
        await asyncio.wait([task], timeout=STOP_S)
