"""A broker that runs beside the test, in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

from broker.sqlite import SqliteBus
from cli.home import clock
from tests import federation as world
from tests.fake_bus import Clock

LIMIT_S = 60.0


@contextmanager
def broker_beside(folder: Path) -> Iterator[None]:
    """Run the broker on the bus and the operator's home in `folder` while the block runs; it must end well.

    Both are there, and on the bus a directory and policies, which are in force when the block begins.
    """
    spawn = multiprocessing.get_context("spawn")
    ready, stop = spawn.Event(), spawn.Event()
    broker = spawn.Process(target=_serve_until_stopped, args=(str(folder), ready, stop))
    broker.start()
    try:
        assert ready.wait(LIMIT_S)
        yield
    finally:
        stop.set()
        broker.join(LIMIT_S)
        broker.kill()  # one that does not end: whoever has ended is left alone
        broker.join()
    assert broker.exitcode == 0


def _serve_until_stopped(folder: str, ready: Event, stop: Event) -> None:
    asyncio.run(_serve(Path(folder), ready, stop))


async def _serve(folder: Path, ready: Event, stop: Event) -> None:
    bus = SqliteBus(folder / "bus.db", "router", world.world(), clock)
    async with bus, world.running(folder / "operator", bus, clock):
        await world.Federation(folder / "operator", bus, Clock()).adopted()
        ready.set()
        await asyncio.to_thread(stop.wait)
