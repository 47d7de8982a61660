"""Nodes that are away for longer than a transaction may take: the broker goes on by itself, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from broker import streams
from broker.kafka import LIMIT_S
from broker.rules import PolicySet
from tests import federation as world
from tests.faults.test_broker_killed import BATCH, Site, check
from tests.kafka_world import running_kafka


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
