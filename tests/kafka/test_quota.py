"""A member writes no faster than it may, and the router as fast as it can."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from broker import certificates, kafka_admin, kafka_quota, node, topics
from broker.errors import UnavailableError
from broker.streams import VERSIONS
from cli import seed
from cli.operator_home import make
from cli.operator_streams import make_streams
from tests.kafka_world import WORLD, KafkaWorld, quick, running_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
RECORD, COUNT = bytes(100_000), 60
KILLED = """
import asyncio, os, pathlib, signal, sys
from broker import topics
from cli.operator_home import NOBODY, operator_home
from cli.operator_streams import make_streams
topics._await_topics = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # the streams were just made
asyncio.run(make_streams(operator_home(pathlib.Path(sys.argv[1])), NOBODY))
"""


@dataclass
class Written:
    """How long it took, and how often the node asked to wait; a machine that is slow itself asks for nothing."""

    seconds: float
    asked: int


def write(kafka: KafkaWorld, principal: str, stream: str, count: int = COUNT) -> Written:
    """Write 6 MB, or so many records."""
    told: list[object] = []
    settings = kafka_admin.client_settings(kafka.bootstrap, kafka.credentials(principal))
    producer = Producer({**settings, "acks": "all", "batch.size": 200_000, "throttle_cb": told.append})
    began = time.monotonic()
    for _ in range(count):
        producer.produce(stream, RECORD)
        producer.poll(0)
    assert producer.flush(120) == 0
    return Written(time.monotonic() - began, len(told))


async def test_a_members_flood_is_slowed_down_and_nobody_elses_writing() -> None:
    with running_kafka(WORLD) as kafka:
        with pytest.raises(UnavailableError):
            await kafka_quota.bound(kafka.bootstrap, kafka.credentials("operator"))
        assert write(kafka, "at.adapter", "notices.at").asked == 0
        await kafka_quota.bound(kafka.bootstrap, kafka.credentials("setup"), rate=300_000)
        # Some 10 s are averaged: 6 MB are twice what may come in them.
        assert write(kafka, "at.adapter", "notices.at").seconds > 5
        assert write(kafka, "router", "outcomes.at").asked == 0


async def test_members_are_bounded_also_where_whoever_made_the_streams_was_killed(tmp_path: Path) -> None:
    """As soon as the streams stand nothing else bounds anybody: that has to come before them."""
    home = make(tmp_path / "home", seed.seed(), "kafka")
    cluster = node.prepare(home.folder / "kafka", certificates.pki_of(home.folder))
    node.start(cluster, tuning=quick())
    try:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(home.folder.parent))
        assert await process.wait() == -signal.SIGKILL
        setup = certificates.credentials(cluster.pki, "setup")
        kafka_admin.until(lambda: VERSIONS in topics.existing(cluster.bootstrap, setup), "the streams are not there")
        await make_streams(home, WORLD)
        kafka = KafkaWorld(WORLD, home.folder.parent, cluster, quick(), {})
        # Some 10 s are averaged, which 44 MB fill: the rest comes at 4 MiB/s.
        assert write(kafka, "at.adapter", "notices.at", 800).seconds > 5
    finally:
        node.stop(cluster, limit=0)
