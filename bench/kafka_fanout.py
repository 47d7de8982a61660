"""Notices/s routed, verified, sealed and distributed to 27 inboxes on Kafka, divided by a bare copy loop's.

The bare loop is aiokafka alone, in a process of its own and on asyncio's own event loop: it reads the same 2 KiB
records and copies each to 27 inboxes in transactions of 500, with no signature, policy or trail. Both run over TLS on
the same node, in turn, after the node has seen some 30,000 records (its JVM still compiles until then), and the clock
of either starts when it has copied its first 1,000: the broker's second process starts with its first batch, and the
loop's connections with its first transaction. Goal 1.0; under 0.5 is not done.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.helpers import create_ssl_context
from aiokafka.producer import sender

from bench import scene
from broker import node, streams
from broker.kafka import KafkaBus
from tests.kafka_world import KafkaWorld, running_kafka

GOAL = 1.0
START = 1_000
"""Records that either side copies before its clock starts."""
SOURCE = streams.notices("AT")
INBOXES = tuple(streams.inbox(each) for each in scene.RECIPIENTS)


def bus(kafka: KafkaWorld, principal: str) -> KafkaBus:
    """Open the bus in the name of a principal."""
    return KafkaBus(kafka.bootstrap, principal, kafka.pki(principal), scene.WORLD)


def bare(kafka: KafkaWorld, begin: int, count: int) -> float:
    """Copy `count` records from `begin` on, in a process where nothing of aiokafka is ours; return records/s."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(copy, (kafka.bootstrap, kafka.pki("router"), begin, count))


def copy(bootstrap: str, tls: tuple[str, str, str], begin: int, count: int) -> float:
    """Be that process."""
    sender.BACKOFF_OVERRIDE = 0.002  # the one setting that its transactions need as much as ours
    return asyncio.run(_copy_all(bootstrap, tls, begin, count))


async def _copy_all(bootstrap: str, tls: tuple[str, str, str], begin: int, count: int) -> float:
    ca, chain, key = tls
    context = create_ssl_context(cafile=ca, certfile=chain, keyfile=key)
    common = {"bootstrap_servers": bootstrap, "security_protocol": "SSL", "ssl_context": context}
    producer = AIOKafkaProducer(
        transactional_id="router.bare", max_batch_size=1 << 20, linger_ms=0, retry_backoff_ms=5, **common
    )
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=10, **common
    )
    async with producer, consumer:
        source = TopicPartition(SOURCE, 0)
        consumer.assign([source])
        consumer.seek(source, begin)

        async def copy_up_to(place: int, end: int) -> None:
            while place < end:
                found = await consumer.getmany(source, timeout_ms=1000, max_records=min(500, end - place))
                values = [record.value for record in found.get(source, [])]
                if values:
                    place += len(values)
                    await _copy(producer, values, source, place)

        await copy_up_to(begin, begin + START)
        started = time.perf_counter()
        await copy_up_to(begin + START, begin + START + count)
        return count / (time.perf_counter() - started)


async def _copy(producer: AIOKafkaProducer, values: Sequence[bytes], source: TopicPartition, place: int) -> None:
    async with producer.transaction():
        sent = []
        for inbox in INBOXES:
            batch = producer.create_batch()
            for value in values:
                if batch.append(key=value[:16], value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batch, inbox, partition=0))
                    batch = producer.create_batch()
                    batch.append(key=value[:16], value=value, timestamp=None)
            sent.append(await producer.send_batch(batch, inbox, partition=0))
        await asyncio.gather(*sent)
        await producer.send_offsets_to_transaction({source: place}, "router.bare")


async def valise(kafka: KafkaWorld, folder: Path, first: int, count: int) -> float:
    """Publish START + `count` notices from number `first` on, then time the broker until all are in 27 inboxes."""
    async with bus(kafka, "at.adapter") as adapter, bus(kafka, "router") as router:
        values = [(b"", each) for each in scene.notices(START + count, first)]
        done = await router.end(streams.ROUTED)
        for begin in range(0, len(values), scene.PAGE):
            await adapter.append(SOURCE, values[begin : begin + scene.PAGE])
        async with scene.broker(folder, router):
            # Offsets count commit markers, too.
            timed = done + len(values) - await scene.copied(router, done + START)
            started = time.perf_counter()
            await scene.copied(router, done + len(values))
            return timed / (time.perf_counter() - started)


async def write_versions(kafka: KafkaWorld) -> None:
    """Write directory and policies."""
    async with bus(kafka, "operator") as operator:
        await scene.write_versions(operator)


def measure(kafka: KafkaWorld, folder: Path, warm: int, count: int, rounds: int) -> list[tuple[float, float]]:
    """Measure bare loop and broker in turn, each on its event loop; (bare, ours) of each round, records/s."""
    asyncio.run(write_versions(kafka))
    uvloop.run(valise(kafka, folder, 1, warm))
    bare(kafka, 0, min(warm, count))
    found = []
    for turn in range(rounds):
        ours = uvloop.run(valise(kafka, folder, 1 + START + warm + turn * (START + count), count))
        found.append((bare(kafka, 0, count), ours))
    return found


def main() -> None:
    """Measure and print."""
    as_json, quick = scene.flags(__doc__)
    warm, count, rounds = (4_000, 4_000, 1) if quick else (30_000, 12_000, 3)
    with tempfile.TemporaryDirectory() as folder, running_kafka(scene.WORLD, tuning=node.STEADY) as kafka:
        found = measure(kafka, Path(folder), warm, count, rounds)
    ratios = sorted(ours / copied for copied, ours in found)
    value = round(ratios[len(ratios) // 2], 2)
    result = {"bench": "kafka_fanout", "goal": GOAL, "value": value, "unit": "ratio to a bare copy loop", "inboxes": 27}
    result["notices_per_second"] = round(max(ours for _, ours in found))
    rows = [(f"round {place}: bare, ours /s", f"{a:.0f}, {b:.0f}") for place, (a, b) in enumerate(found, 1)]
    scene.say(result, rows, as_json)


if __name__ == "__main__":
    main()
