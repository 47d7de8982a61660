"""Who is stopped for longer than a transaction may take loses its shard, and leaves it to whoever has it then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from broker import streams
from broker.bus import Shard, Writes
from broker.kafka import KafkaBus
from tests.kafka.owner_process import LIMIT_S
from tests.kafka_world import WORLD, running_kafka

PATIENCE_S = 90.0
AFTER = Writes([(streams.REGISTER, b"entry", b"by the new")])


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().strip()


async def nothing_more(process: asyncio.subprocess.Process) -> None:
    """Pass over what a process said before it was stopped: on a slow machine it may have owned the shard twice."""
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.5):
                assert process.stdout is not None
                await process.stdout.readline()


async def commit_for(shard: Shard, seconds: float) -> None:
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        await shard.commit([], AFTER)
        await asyncio.sleep(0.1)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_owner_that_timed_out_while_it_was_stopped_leaves_the_shard_to_its_successor() -> None:
    with running_kafka(WORLD) as kafka:
        tls = kafka.pki(streams.ROUTER)
        old = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.kafka.owner_process", kafka.bootstrap, *tls, stdout=asyncio.subprocess.PIPE
        )
        try:
            while (said := await line(old)) != "owned":  # a slow machine may need longer than a transaction may take
                assert said == "unavailable"
            await asyncio.sleep(1)
            os.kill(old.pid, signal.SIGSTOP)
            await nothing_more(old)
            async with KafkaBus(kafka.bootstrap, streams.ROUTER, tls, WORLD) as bus, bus.own(0, []) as shard:
                await commit_for(shard, 2 * LIMIT_S)
                os.kill(old.pid, signal.SIGCONT)
                said = await line(old)
                while said != "fenced":
                    assert said == "unavailable"
                    said = await line(old)
                await commit_for(shard, 1)
        finally:
            if old.returncode is None:
                old.kill()
            await old.wait()
