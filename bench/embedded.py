"""Notices/s routed, verified, sealed and distributed to 27 inboxes on the embedded bus.

Goal 3,000; under 1,500 is not done. The notices lie on the issuer's stream before the clock starts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop

from bench import scene
from broker import streams
from broker.sqlite import SqliteBus

GOAL = 3000


async def measure(count: int, warm: int) -> float:
    """Route `warm` notices, then time `count`; return notices/s."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        buses = [
            SqliteBus(folder / "bus.db", who, scene.WORLD, scene.clock)
            for who in (streams.ROUTER, streams.OPERATOR, streams.adapter("AT"))
        ]
        async with buses[0] as router, buses[1] as operator, buses[2] as adapter:
            await router.create(list(scene.WORLD.streams()))
            await scene.write_versions(operator)
            async with scene.broker(folder, router):
                await _publish(adapter, warm, 1)
                await scene.copied(router, 1)
                while await router.place("distribute", streams.ROUTED) < await router.end(streams.ROUTED):
                    await asyncio.sleep(0.01)
                done = await router.end(streams.ROUTED)
                await asyncio.sleep(0.5)
            await _publish(adapter, count, warm + 1)
            async with scene.broker(folder, router):
                started = time.perf_counter()
                await scene.copied(router, done + count)
                return count / (time.perf_counter() - started)


async def _publish(adapter: SqliteBus, count: int, first: int) -> None:
    values = [(b"", each) for each in scene.notices(count, first)]
    for begin in range(0, len(values), scene.PAGE):
        await adapter.append(streams.notices("AT"), values[begin : begin + scene.PAGE])


def main() -> None:
    """Measure and print."""
    as_json, quick = scene.flags(__doc__)
    count, warm = (6_000, 500) if quick else (30_000, 2_000)
    rates = sorted(uvloop.run(measure(count, warm)) for _ in range(1 if quick else 3))
    value = round(rates[len(rates) // 2])
    result = {"bench": "embedded", "goal": GOAL, "value": value, "unit": "notices/s", "notices": count, "inboxes": 27}
    scene.say(result, [("notices", count), ("runs", ", ".join(str(round(each)) for each in rates))], as_json)


if __name__ == "__main__":
    main()
