"""A member writes no faster than it may, and the router as fast as it can."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer

from broker import kafka_quota, topics
from broker.errors import UnavailableError
from tests.kafka_world import WORLD, KafkaWorld, running_kafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
RECORD, COUNT = bytes(100_000), 60


def seconds(kafka: KafkaWorld, principal: str, stream: str) -> float:
    """How long it takes to write 6 MB."""
    settings = topics.client_settings(kafka.bootstrap, kafka.credentials(principal))
    producer = Producer(settings | {"acks": "all", "batch.size": 200_000})
    began = time.monotonic()
    for _ in range(COUNT):
        producer.produce(stream, RECORD)
        producer.poll(0)
    assert producer.flush(60) == 0
    return time.monotonic() - began


async def test_a_members_flood_is_slowed_down_and_nobody_elses_writing() -> None:
    with running_kafka(WORLD) as kafka:
        with pytest.raises(UnavailableError):
            await kafka_quota.bound(kafka.bootstrap, kafka.credentials("operator"))
        assert seconds(kafka, "at.adapter", "notices.at") < 3
        await kafka_quota.bound(kafka.bootstrap, kafka.credentials("setup"), rate=200_000)
        # Some 10 s are averaged: 6 MB are three times what may come in them.
        assert seconds(kafka, "at.adapter", "notices.at") > 5
        assert seconds(kafka, "router", "outcomes.at") < 3
