"""What a producer's failure does to the calls beside it; aiokafka's own parts, without a node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from broker import kafka, streams
from broker.bus import Copies
from broker.errors import UnavailableError
from broker.kafka import KafkaBus
from broker.streams import World

BUREAUS = tuple(f"LV/b{number}" for number in range(9))
WORLD = World(("AT", "LV"), BUREAUS)
NOT_ENOUGH_REPLICAS = 19


class Silent:
    """Stands for the consumer that is asked which topics there are, and for its client: no node answers."""

    @property
    def _client(self) -> Silent:
        return self

    async def fetch_all_metadata(self) -> None:
        raise kafka_errors.KafkaConnectionError


class Refusing:
    """A node's answer to every produce request: too few nodes have the batch."""

    API_VERSION = 7

    def __init__(self, request: Any) -> None:
        self.topics = [
            (topic, [(place, NOT_ENOUGH_REPLICAS, -1, -1, 0) for place, _ in batches])
            for topic, batches in request._topics
        ]


async def test_nodes_that_are_too_few_for_long_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    producer = AIOKafkaProducer(bootstrap_servers="x:1", acks="all", enable_idempotence=True, retry_backoff_ms=5)

    async def answered(_node: int, request: Any, group: Any = None) -> Refusing:  # noqa: ARG001
        await asyncio.sleep(0.02)
        return Refusing(request)

    async def done(*_: object) -> bool:
        return True

    async def close() -> None:
        closed.append(True)

    client: Any = producer.client
    client.send, client._wait_on_metadata, client._maybe_wait_metadata, client.close = answered, done, done, close
    client.force_metadata_update = lambda: asyncio.get_running_loop().create_future()
    monkeypatch.setattr(producer, "_partition", lambda *_: 0)
    monkeypatch.setattr(producer._metadata, "leader_for_partition", lambda _: 1)
    producer._txn_manager.set_pid_and_epoch(1, 0)
    await producer._sender.start()
    bus = KafkaBus("x:1", streams.ROUTER, None, WORLD, limit=0.3)
    bus._producers[kafka.APPENDS] = producer
    monkeypatch.setattr(bus, "_offsets", Silent(), raising=False)
    with pytest.raises(UnavailableError):
        await bus.append(streams.outcomes("AT"), [(b"", b"x")])
    assert closed


class Producer:
    """Answers with what it is given, at once or later; without `after` the test answers what waits."""

    def __init__(self, answer: object, after: float | None) -> None:
        self.answer, self.after = answer, after
        self.written: list[str] = []
        self.waiting: list[asyncio.Future[Any]] = []

    async def send_batch(self, _batch: object, stream: str, partition: int) -> asyncio.Future[Any]:  # noqa: ARG002
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.written.append(stream)
        tell: Any = future.set_exception if isinstance(self.answer, BaseException) else future.set_result
        if self.after is None:
            self.waiting.append(future)
        else:
            asyncio.get_running_loop().call_later(self.after, lambda: future.done() or tell(self.answer))
        return future


async def test_no_inbox_gets_what_came_later_without_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane fails at once; while the other is waited for, the next step must not go out by a new producer."""
    inboxes = [streams.inbox(bureau) for bureau in BUREAUS]
    first, second = (next(each for each in inboxes if kafka._lane(each) == lane) for lane in kafka.FAN_OUT_LANES)
    place = type("Place", (), {"offset": 0})()
    new = Producer(place, 0)
    bus = KafkaBus("x:1", streams.ROUTER, None, WORLD, limit=60)

    async def make(_: str | None) -> Producer:
        return new

    async def discard(_: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(bus._client, "producer", make)
    monkeypatch.setattr(kafka, "_discard", discard)
    failing, slow = Producer(kafka_errors.OutOfOrderSequenceNumber(), 0), Producer(place, None)
    monkeypatch.setattr(bus, "_producers", dict(zip(kafka.FAN_OUT_LANES, (failing, slow), strict=True)))
    earlier = asyncio.create_task(bus.fan_out([Copies(b"k1", b"", [(first, b"1"), (second, b"1")])]))
    while not (bus._fan_failed and slow.written):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    assert not earlier.done()
    with pytest.raises(UnavailableError):
        await bus.fan_out([Copies(b"k2", b"", [(first, b"2")])])
    assert not new.written
    for each in slow.waiting:
        each.set_result(place)
    with pytest.raises(UnavailableError):
        await earlier
    await bus.fan_out([Copies(b"k1", b"", [(first, b"1")])])
    assert new.written == [first]


class Counting(Producer):
    """Takes what it is given, and knows how much of it was on its way at once."""

    under_way = most = 0

    async def send_batch(self, batch: object, stream: str, partition: int) -> asyncio.Future[Any]:
        size = len(batch._build())  # type: ignore[attr-defined]
        future = await super().send_batch(batch, stream, partition)
        self.under_way += size
        self.most = max(self.most, self.under_way)
        future.add_done_callback(lambda _: self._arrived(size))
        return future

    def _arrived(self, size: int) -> None:
        self.under_way -= size


async def test_large_records_for_many_inboxes_are_not_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node closes the connection on a request beyond its limit, and would do so at every further try."""
    bureaus = tuple(f"LV/b{number}" for number in range(60))
    bus = KafkaBus("x:1", streams.ROUTER, None, World(("LV",), bureaus), limit=60)
    producers = {lane: Counting(type("Place", (), {"offset": 0})(), 0.001) for lane in kafka.FAN_OUT_LANES}
    monkeypatch.setattr(bus, "_producers", dict(producers))
    monkeypatch.setattr(kafka, "AT_ONCE_BYTES", 1 << 20)
    large = bytes(200_000)
    await bus.fan_out([Copies(b"k", large, [(streams.inbox(each), b"") for each in bureaus])])
    assert sorted(each for made in producers.values() for each in made.written) == sorted(map(streams.inbox, bureaus))
    for made in producers.values():
        assert len(large) < made.most <= 1 << 20
