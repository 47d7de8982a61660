"""Publish → verified in the collector on Kafka over TLS at 100, 500 and 1,000 notices/s, divided by a bare copy loop's.

Publisher, broker and the collector of one bureau of 27 are processes of their own. A notice's time begins when it is
due, not when a busy machine gets round to sending it, and ends when the collector has checked it: signature, row, path
to a signed head. The bare loop is aiokafka alone, on asyncio's own event loop: it reads the same records and copies
each in a transaction to 27 inboxes, where a consumer that reads committed records receives it; no signature, policy or
trail. Both meet a node that has been at work for a while: a first round goes uncounted, in which Java compiles the
node's code, and inboxes keep some 40 MB each, so that pages of the system's cache are used again (a virtual machine
gets each page that it never had from its host). `value` is the ratio of the p99 at 1,000/s. Goal 1.5; over 3 is not
done. A rate that is not `sustained` has no steady latency: its figures tell how long the queue grew. A row tells the
CPU of broker and Kafka's JVM for one notice to 27 bureaus (goal 1.1 ms).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.helpers import create_ssl_context

from adapters.collect import PAGE_OBJECTS, Collector
from adapters.inbox import Inbox
from adapters.receipts import Signer
from adapters.versions import Versions
from bench import scene
from broker import codec, node, streams
from broker.kafka import KafkaBus
from broker.notice import Envelope, Header
from broker.quick import seek_cycles_rarely
from broker.streams import World
from tests.kafka_world import KafkaWorld, running_kafka
from tests.making import FEDERATION, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event

GOAL = 1.5
RATES = (100, 500, 1000)
"""Notices/s; `value` is of the last."""
BUREAU = scene.RECIPIENTS[0]
BARE = tuple(f"XX/b{number:02}" for number in range(1, 28))
WORLD = World((*scene.MEMBERS, "XX"), (*scene.WORLD.bureaus, *BARE))
"""XX is no member that the broker knows: its streams are the bare loop's."""
TUNING = replace(node.STEADY, retention_check=2000)
OVERRIDES = {
    "inbox": {"retention.bytes": str(32 << 20), "segment.bytes": str(16 << 20), "file.delete.delay.ms": "1000"}
}
"""Far more than a reader is behind."""
BARE_SOURCE = streams.notices("XX")
BARE_INBOXES = tuple(streams.inbox(each) for each in BARE)
TICK_S = 0.01
"""How often is published what is due; a notice's time counts from when it was due."""
START_S = 30.0
TAIL_S = 4.0
"""How long after the last publication a notice may still arrive; what comes later counts as lost."""
WARM_S = 15.0
GROWTH = 2.0
SLACK_MS = 50.0
STEADY_MS = 1000.0
"""Who waits longer waits in a queue, even where a short run does not show that it grows."""

Tls = tuple[str, str, str]
Keyed = tuple[bytes, bytes]
"""Notice id and envelope."""
Load = tuple[int, list[Keyed]]
"""Notices/s, and what to publish."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a process of the bench needs to know: where Kafka is, who it is there, and a folder of its own."""

    bootstrap: str
    principal: str
    tls: Tls
    folder: Path

    def bus(self) -> KafkaBus:
        """Open the bus."""
        return KafkaBus(self.bootstrap, self.principal, self.tls, WORLD)

    def common(self) -> dict[str, Any]:
        """Give what aiokafka's own clients are opened with."""
        ca, chain, key = self.tls
        context = create_ssl_context(cafile=ca, certfile=chain, keyfile=key)
        return {"bootstrap_servers": self.bootstrap, "security_protocol": "SSL", "ssl_context": context}


@dataclass(frozen=True, slots=True)
class Phase:
    """What one rate gave."""

    latencies: list[float]
    """ms, in the order of publication"""
    lost: int
    cpu_ms: float
    """broker and JVM, for one notice"""
    receiver_share: float
    """of one core, that the receiving process used"""

    def at(self, share: float) -> float:
        """Give a percentile; what was lost counts as the longest wait."""
        return scene.percentile([*self.latencies, *([TAIL_S * 1000] * self.lost)], share)

    @property
    def sustained(self) -> bool:
        """Whether all came and no queue grew: the last quarter waited as long as the second, below STEADY_MS."""
        if self.lost:
            return False
        quarter = len(self.latencies) // 4
        early = scene.percentile(self.latencies[quarter : 2 * quarter], 0.5)
        late = scene.percentile(self.latencies[-quarter:], 0.5)
        return late <= min(GROWTH * early + SLACK_MS, STEADY_MS)


Phases = Sequence[Phase]
"""One for each of RATES."""


# --- processes --------------------------------------------------------------------------------------------------------


def serve(place: Place, ready: Event) -> None:
    """Run the broker until this process is ended."""
    uvloop.run(_serve(place, ready))


async def _serve(place: Place, ready: Event) -> None:
    async with place.bus() as router, scene.broker(place.folder, router):
        ready.set()
        await asyncio.Event().wait()


def collect(place: Place, ready: Event, out: Connection) -> None:
    """Collect for the bureau, and tell each delivery's notice id and the time (ms) at which it was checked."""
    uvloop.run(_collect(place, ready, out))


async def _collect(place: Place, ready: Event, out: Connection) -> None:
    seek_cycles_rarely(PAGE_OBJECTS)  # as `valise inbox --follow` does
    inbox, versions = Inbox(place.folder / "inbox.db"), Versions(place.folder / "versions")
    signer = Signer(FEDERATION, BUREAU, key_of(BUREAU), scene.clock)
    async with place.bus() as bus:
        collector = Collector(bus, inbox, versions, signer, os.urandom)
        await versions.follow(bus)
        await collector.drain()
        ready.set()
        while True:
            taken = await collector.round(wait=1.0)
            # The clock of the collector has whole milliseconds: the one that has begun counts as over.
            out.send([(each.notice_id, each.taken_at + 1.0) for each in taken.new])


def copy(place: Place, ready: Event) -> None:
    """Copy from the bare source to the bare inboxes until this process is ended."""
    asyncio.run(_copy(place, ready))


async def _copy(place: Place, ready: Event) -> None:
    common = place.common()
    producer = AIOKafkaProducer(
        transactional_id="router.bare", max_batch_size=1 << 20, linger_ms=0, retry_backoff_ms=5, **common
    )
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=10, **common
    )
    async with producer, consumer:
        source = TopicPartition(BARE_SOURCE, 0)
        consumer.assign([source])
        await consumer.seek_to_end(source)
        await consumer.position(source)
        ready.set()
        while True:
            found = (await consumer.getmany(source, timeout_ms=1000, max_records=scene.PAGE)).get(source, [])
            if found:
                values = [(record.key, record.value) for record in found]
                await _copy_page(producer, values, source, found[-1].offset + 1)


async def _copy_page(
    producer: AIOKafkaProducer, values: Sequence[tuple[bytes, bytes]], source: TopicPartition, place: int
) -> None:
    async with producer.transaction():
        sent = []
        for inbox in BARE_INBOXES:
            batch = producer.create_batch()
            for key, value in values:
                if batch.append(key=key, value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batch, inbox, partition=0))
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=None)
            sent.append(await producer.send_batch(batch, inbox, partition=0))
        await asyncio.gather(*sent)
        await producer.send_offsets_to_transaction({source: place}, "router.bare")


def receive(place: Place, ready: Event, out: Connection) -> None:
    """Read one bare inbox, and tell each record's key and the time (ms) at which it was there."""
    asyncio.run(_receive(place, ready, out))


async def _receive(place: Place, ready: Event, out: Connection) -> None:
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=10, **place.common()
    )
    async with consumer:
        source = TopicPartition(BARE_INBOXES[0], 0)
        consumer.assign([source])
        await consumer.seek_to_end(source)
        await consumer.position(source)
        ready.set()
        while True:
            found = await consumer.getmany(source, timeout_ms=1000)
            now = time.time_ns() / 1e6
            out.send([(record.key, now) for record in found.get(source, [])])


@contextmanager
def process(target: Callable[..., None], place: Place, *more: Connection) -> Iterator[psutil.Process]:
    """Run one of the above in a process of its own. Raises TimeoutError if it is not ready in time."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    started = context.Process(target=target, args=(place, ready, *more))
    started.start()
    try:
        if not ready.wait(START_S):
            message = f"{target.__name__} was not ready within {START_S:.0f} s"
            raise TimeoutError(message)
        yield psutil.Process(started.pid)
    finally:
        started.kill()
        started.join()


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One side while it runs: what to publish to, who works, and what the receiver tells."""

    bus: KafkaBus
    stream: str
    workers: tuple[psutil.Process, ...]
    receiver: psutil.Process
    told: Connection

    async def phase(self, rate: int, values: Sequence[Keyed], limit: float) -> Phase:
        """Publish at a rate, and wait until all have come or the limit has passed."""
        parties = (*self.workers, self.receiver)
        before, begun = [_cpu_s(each) for each in parties], time.perf_counter()
        came: dict[bytes, float] = {}
        start = await self._publish(rate, values, came)
        ended = time.perf_counter()
        wanted = {key for key, _ in values}
        while not wanted <= came.keys() and time.perf_counter() < ended + limit:
            await asyncio.sleep(0.02)
            self._hear(came)
        took = time.perf_counter() - begun
        *workers, receiver = (_cpu_s(each) - was for each, was in zip(parties, before, strict=True))
        due = {key: start + 1000 * number / rate for number, (key, _) in enumerate(values)}
        latencies = [came[key] - due[key] for key, _ in values if key in came]
        return Phase(latencies, len(values) - len(latencies), 1000 * sum(workers) / len(values), receiver / took)

    async def _publish(self, rate: int, values: Sequence[Keyed], came: dict[bytes, float]) -> float:
        """Append whatever is due, in one batch; return when the first was due, in ms since the epoch."""
        # The bare loop is told the id in the key: it does not look into the value.
        keys = self.stream == BARE_SOURCE
        start, sent = time.time_ns() / 1e6, 0
        while sent < len(values):
            due = min(len(values), 1 + int((time.time_ns() / 1e6 - start) * rate / 1000))
            if due > sent:
                await self.bus.append(self.stream, [(key if keys else b"", value) for key, value in values[sent:due]])
                sent = due
            self._hear(came)
            await asyncio.sleep(TICK_S)
        return start

    def _hear(self, came: dict[bytes, float]) -> None:
        while self.told.poll():
            came |= dict(self.told.recv())


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def place_of(kafka: KafkaWorld, principal: str, folder: Path) -> Place:
    """Make what a process needs to know."""
    return Place(kafka.bootstrap, principal, kafka.pki(principal), folder)


def keyed(count: int, first: int) -> list[Keyed]:
    """Sign notices; (notice id, envelope)."""
    made = scene.notices(count, first)
    return [(codec.decode(Header, codec.decode(Envelope, each).header).notice_id, each) for each in made]


def side(kafka: KafkaWorld, folder: Path, loads: Sequence[Load], *, bare: bool) -> list[Phase]:
    """Run one side from its start through all loads; the bare loop, or Valise."""
    jvm = psutil.Process(node.statuses(kafka.cluster)[0].pid)
    told, out = multiprocessing.get_context("spawn").Pipe(duplex=False)
    source, work, listen = (BARE_SOURCE, copy, receive) if bare else (streams.notices("AT"), serve, collect)
    publisher = place_of(kafka, streams.adapter("XX" if bare else "AT"), folder)
    reader = place_of(kafka, streams.adapter("XX" if bare else "M01"), folder)
    with (
        process(work, place_of(kafka, streams.ROUTER, folder)) as worker,
        process(listen, reader, out) as receiver,
    ):

        async def run() -> list[Phase]:
            async with publisher.bus() as bus:
                running = Run(bus, source, (worker, jvm), receiver, told)
                # What the first load leaves behind would be waited for in the next: it gets more time.
                limits = [WARM_S, *([TAIL_S] * (len(loads) - 1))]
                return [await running.phase(*load, limit) for load, limit in zip(loads, limits, strict=True)]

        return uvloop.run(run())


async def write_versions(kafka: KafkaWorld, folder: Path) -> None:
    """Write directory and policies."""
    async with place_of(kafka, streams.OPERATOR, folder).bus() as operator:
        await scene.write_versions(operator)


def measure(kafka: KafkaWorld, folder: Path, seconds: int, warm: int, rounds: int) -> list[tuple[Phases, Phases]]:
    """Measure both sides in turn; of each round but the first, and each side, the phase of every rate."""
    asyncio.run(write_versions(kafka, folder))
    found: list[tuple[Phases, Phases]] = []
    first = 1
    for _ in range(1 + rounds):
        loads: list[Load] = []
        for rate, count in ((RATES[-1] // 2, warm), *((rate, rate * seconds) for rate in RATES)):
            loads.append((rate, keyed(count, first)))
            first += count
        _, *ours = side(kafka, folder, loads, bare=False)
        _, *bare = side(kafka, folder, loads, bare=True)
        found.append((ours, bare))
    return found[1:]


def show(found: Sequence[tuple[Phases, Phases]], *, as_json: bool) -> None:
    """Print the round whose ratio is the median."""
    ranked = sorted(found, key=lambda each: each[0][-1].at(0.99) / each[1][-1].at(0.99))
    pairs = ranked[len(ranked) // 2]
    result: dict[str, Any] = {"bench": "latency", "goal": GOAL, "value": 0.0, "unit": "ratio of p99 at 1,000/s"}
    rows: list[tuple[str, object]] = []
    for place, rate in enumerate(RATES):
        ours, bare = pairs[0][place], pairs[1][place]
        ratios = {share: round(ours.at(share) / bare.at(share), 2) for share in (0.5, 0.99)}
        result["value"] = ratios[0.99]
        result[f"at_{rate}"] = {
            "p50_ratio": ratios[0.5], "p99_ratio": ratios[0.99], "valise": _figures(ours), "bare": _figures(bare)
        }  # fmt: skip
        rows += [
            (f"{rate}/s: {name}", f"p50 {each.at(0.5):.0f} ms, p99 {each.at(0.99):.0f} ms, {_steadiness(each)}")
            for name, each in (("Valise", ours), ("bare loop", bare))
        ]
        rows.append((f"{rate}/s: ratio", f"p50 {ratios[0.5]}, p99 {ratios[0.99]}"))
        rows.append((f"{rate}/s: CPU ms for a notice to 27 (goal 1.1)", f"{ours.cpu_ms:.2f}, bare {bare.cpu_ms:.2f}"))
    # The bare loop's own sustained rate is in its figures.
    result["sustained"] = pairs[0][-1].sustained
    result["cpu_ms_per_notice"] = round(pairs[0][-1].cpu_ms, 2)
    scene.say(result, rows, as_json)


def _steadiness(phase: Phase) -> str:
    return "sustained" if phase.sustained else f"NOT sustained ({phase.lost} of them never came)"


def _figures(phase: Phase) -> dict[str, object]:
    return {
        "p50_ms": round(phase.at(0.5), 1),
        "p99_ms": round(phase.at(0.99), 1),
        "sustained": phase.sustained,
        "lost": phase.lost,
        "cpu_ms_per_notice": round(phase.cpu_ms, 2),
        "receiver_core_share": round(phase.receiver_share, 2),
    }


def main() -> None:
    """Measure and print."""
    as_json, quick = scene.flags(__doc__)
    seconds, warm, rounds = (2, 1_000, 1) if quick else (20, 10_000, 3)
    with tempfile.TemporaryDirectory() as folder, running_kafka(WORLD, tuning=TUNING, overrides=OVERRIDES) as kafka:
        found = measure(kafka, Path(folder), seconds, warm, rounds)
    show(found, as_json=as_json)


if __name__ == "__main__":
    main()
