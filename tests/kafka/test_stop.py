"""A consumer is stopped whatever its fetches do, and nobody is cancelled with them."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher

from broker import kafka


async def waiting() -> None:
    """Wait as a fetch does whose node is away, before it tries again."""
    await asyncio.sleep(60)


async def test_a_consumer_whose_fetch_waits_to_try_again_is_stopped_and_cancels_nobody() -> None:
    """The broker ended as if it had been told to, where it took its shard anew while a node was away."""
    consumer, fetcher = AIOKafkaConsumer(bootstrap_servers="x:1"), Fetcher.__new__(Fetcher)
    fetcher._fetch_task, fetcher._fetch_waiters = asyncio.ensure_future(waiting()), set()
    fetcher._pending_tasks = {asyncio.ensure_future(waiting())}
    consumer._coordinator, consumer._fetcher = None, fetcher
    await asyncio.sleep(0)
    await kafka._stop(consumer)
    assert all(each.done() for each in fetcher._pending_tasks)


async def test_who_is_cancelled_while_a_consumer_stops_is_cancelled() -> None:
    consumer, closing = AIOKafkaConsumer(bootstrap_servers="x:1"), asyncio.Event()

    class Slow:
        async def close(self) -> None:
            closing.set()
            await waiting()

    consumer._coordinator, consumer._fetcher = Slow(), None
    stopping = asyncio.ensure_future(kafka._stop(consumer))
    await closing.wait()
    stopping.cancel()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
