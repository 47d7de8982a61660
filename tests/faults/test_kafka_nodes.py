"""Nodes that are away for longer than a transaction may take: the broker goes on by itself, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from broker import streams
from broker.bus import Bus
from broker.distribute import GROUP
from broker.errors import UnavailableError
from broker.kafka import LIMIT_S
from broker.rules import PolicySet
from tests import federation as world
from tests.faults.test_broker_killed import BATCH, Site, check
from tests.kafka_world import running_kafka

DEATH_S = 12.0
"""More than the others take to find out that a node is dead, and who leads in its place."""


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_of_three_nodes_are_away_for_a_while_and_the_broker_goes_on_by_itself(tmp_path: Path) -> None:
    with running_kafka(world.world(), nodes=3) as kafka:
        site = Site(tmp_path, f"kafka:{kafka.bootstrap}", kafka)
        async with site.bus(streams.OPERATOR) as operator:
            await world.write_versions(operator, world.directory(), PolicySet.packaged())
        broker = await site.start()
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


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_place_that_was_kept_stays_while_each_node_in_turn_is_killed(tmp_path: Path) -> None:
    """A node that keeps it no more, or not yet, answers for no stream: that is not that none was kept."""
    with running_kafka(world.world(), nodes=3) as kafka:
        site = Site(tmp_path, f"kafka:{kafka.bootstrap}", kafka)
        told = set[int]()

        async def ask(bus: Bus) -> None:
            while True:
                with contextlib.suppress(UnavailableError):
                    told.add(await bus.place(GROUP, streams.ROUTED))
                await asyncio.sleep(0)

        async with site.bus(streams.ROUTER) as bus:
            await bus.keep_place(GROUP, streams.ROUTED, 7)
            asking = asyncio.create_task(ask(bus))
            for each in (1, 2, 3):
                await asyncio.to_thread(kafka.kill, each)
                await asyncio.sleep(DEATH_S)
                await asyncio.to_thread(kafka.restart, each)
            asking.cancel()
            await asyncio.wait([asking])
        assert told == {7}
