"""How often a client asks which topics there are, while one is gone; aiokafka's own parts, without a node."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from broker import kafka_metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NODE, THERE = (1, "x", 1, None), (0, "inbox.at.ncb", False, [(0, 0, 1, [1], [1])])


class Nodes:
    """Answers which topics there are, and counts how often it was asked."""

    asked = 0

    def __init__(self) -> None:
        self.topics: list[object] = []

    async def send(self, _request: object) -> SimpleNamespace:
        self.asked += 1
        await asyncio.sleep(0)
        return SimpleNamespace(API_VERSION=1, brokers=[NODE], controller_id=1, topics=self.topics)


@pytest.fixture
async def consumer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[AIOKafkaConsumer, Nodes]]:
    """A consumer that was told of one node, and is started but for that."""
    kafka_metadata.tune()
    made, nodes = AIOKafkaConsumer(bootstrap_servers="x:1", auto_offset_reset="none", retry_backoff_ms=5), Nodes()
    client: Any = made._client

    async def connected(*_: object, **__: object) -> Nodes:
        return nodes

    async def nothing_else(*_: object, **__: object) -> None:
        await asyncio.get_running_loop().create_future()

    async def bootstrap() -> None:
        client.cluster.update_metadata(await nodes.send(None))
        client._sync_task = asyncio.ensure_future(client._md_synchronizer())

    monkeypatch.setattr(client, "_get_conn", connected)
    monkeypatch.setattr(client, "bootstrap", bootstrap)
    monkeypatch.setattr(client, "send", nothing_else)
    await made.start()
    yield made, nodes
    await made.stop()


async def test_a_topic_that_is_gone_is_asked_for_a_few_times_a_second_and_found_once_it_is_there(
    consumer: tuple[AIOKafkaConsumer, Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, nodes = consumer
    monkeypatch.setattr(kafka_metadata, "LONGEST_S", 0.05)
    place = TopicPartition("inbox.at.ncb", 0)
    made.assign([place])
    made.seek(place, 0)
    waiting = asyncio.ensure_future(made._client._wait_on_metadata(place.topic))
    await asyncio.wait([waiting], timeout=0.3)
    assert 3 <= nodes.asked <= 12
    nodes.topics = [THERE]
    async with asyncio.timeout(1):
        assert await waiting == {0}
    await made._client.force_metadata_update()
    assert kafka_metadata._pauses[made._client] == 0
