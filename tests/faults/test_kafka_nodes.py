"""Nodes that are away for longer than a transaction may take: the broker goes on by itself, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context

from broker import streams
from broker.bus import Bus
from broker.distribute import GROUP
from broker.errors import UnavailableError
from broker.kafka import KafkaBus
from broker.rules import PolicySet
from tests import federation as world
from tests.faults.test_broker_killed import BATCH, Site, check
from tests.kafka_world import WORLD, KafkaWorld, running_kafka

LIMIT_S = 10.0
"""s that a transaction of this broker may take"""
ANSWERS = 20
"""Of the node that keeps a group's places next, while it takes them over and after."""


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_of_three_nodes_are_away_for_a_while_and_the_broker_goes_on_by_itself(tmp_path: Path) -> None:
    with running_kafka(world.world(), nodes=3) as kafka:
        site = Site(tmp_path, f"kafka:{kafka.bootstrap}", kafka)
        async with site.bus(streams.OPERATOR) as operator:
            await world.write_versions(operator, world.directory(), PolicySet.packaged())
        broker = await site.start("", "--limit", str(LIMIT_S))
        try:
            await site.publish(BATCH)
            await site.told(broker, 120)
            for each in (2, 3):
                kafka.kill(each)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIMIT_S + 3):
                    await broker.wait()
            for each in (2, 3):
                kafka.restart(each)
            await site.publish(BATCH)
            await site.told(broker, 180)
        finally:
            with contextlib.suppress(ProcessLookupError):
                broker.send_signal(signal.SIGTERM)
            await broker.wait()
        await check(site)


async def coordinator(kafka: KafkaWorld, group: str) -> int:
    """Tell which node keeps a group's places."""
    ca, chain, key = kafka.pki(streams.SETUP)
    context = create_ssl_context(cafile=ca, certfile=chain, keyfile=key)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, security_protocol="SSL", ssl_context=context)
    try:
        await admin.start()
        return int(await admin.find_coordinator(group))
    finally:
        await admin.close()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_place_that_was_kept_stays_while_the_node_that_keeps_it_is_killed() -> None:
    """A node that keeps it no more, or not yet, answers for no stream: that is not that none was kept.

    The next one may not know that a commit of just before was acknowledged, until one of its own is.
    """
    with running_kafka(WORLD, nodes=3) as kafka:
        told = list[int]()

        async def ask(bus: Bus) -> None:
            while True:
                with contextlib.suppress(UnavailableError):
                    await bus.keep_place(GROUP, streams.REGISTER, 0)
                    told.append(await bus.place(GROUP, streams.ROUTED))
                await asyncio.sleep(0)

        async with KafkaBus(kafka.bootstrap, streams.ROUTER, kafka.pki(streams.ROUTER), WORLD) as bus:
            await bus.keep_place(GROUP, streams.ROUTED, 7)
            asking = asyncio.create_task(ask(bus))
            keeper = await coordinator(kafka, f"{streams.ROUTER}.{GROUP}")
            await asyncio.to_thread(kafka.kill, keeper)
            enough = len(told) + ANSWERS
            while len(told) < enough:  # noqa: ASYNC110 -- what asks tells nobody
                await asyncio.sleep(0.05)
            await asyncio.to_thread(kafka.restart, keeper)
            asking.cancel()
            await asyncio.wait([asking])
        assert set(told) == {7}
