"""An owner of shard 0 that commits without a pause, in a process: `python -m tests.kafka.owner_process …`."""

from __future__ import annotations

import asyncio
import logging
import sys

from broker import streams
from broker.bus import Writes
from broker.errors import FencedError, UnavailableError
from broker.kafka import KafkaBus
from tests.kafka_world import WORLD

LIMIT_S = 3.0
"""How long a transaction may take."""


async def _work(bus: KafkaBus) -> None:
    async with bus.own(0, []) as shard:
        print("owned", flush=True)  # noqa: T201
        while True:
            await shard.commit([], Writes([(streams.REGISTER, b"entry", b"by the old"), (streams.TRAIL, b"", b"leaf")]))


async def _main(bootstrap: str, ca: str, chain: str, key: str) -> None:
    async with KafkaBus(bootstrap, streams.ROUTER, (ca, chain, key), WORLD, limit=LIMIT_S) as bus:
        while True:
            try:
                await _work(bus)
            except FencedError:
                print("fenced", flush=True)  # noqa: T201
                return
            except UnavailableError:
                print("unavailable", flush=True)  # noqa: T201
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    logging.disable()  # what aiokafka says of a producer that was fenced
    asyncio.run(_main(*sys.argv[1:]))
