"""Resident memory of a broker process that has 100,000 notices in force, in MB (of 1,000,000 bytes).

The broker is a process of its own on the embedded bus; each notice goes to 27 inboxes, none expires or is withdrawn.
`value` is what it and the process that checks for it hold together after the last one; the most that the broker ever
held by itself is a row. Goal 200. `--quick` routes 5,000 only, and the result says how many are in force.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench import scene
from broker import streams
from broker.sqlite import SqliteBus

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

GOAL = 200
MB = 1_000_000
START_S = 30.0
SILENT_S = 30.0
"""A broker that routes nothing for so long has failed."""
PAGE = 1000
AHEAD = 4000
"""Notices that may lie before the broker: a backlog of any length is not what is measured here."""


def bus(folder: Path, principal: str) -> SqliteBus:
    """Open the bus in the name of a principal."""
    return SqliteBus(folder / "bus.db", principal, scene.WORLD, scene.clock)


def serve(folder: Path, ready: Event) -> None:
    """Run the broker until this process is ended."""
    asyncio.run(_serve(folder, ready))


async def _serve(folder: Path, ready: Event) -> None:
    async with bus(folder, streams.ROUTER) as router, scene.broker(folder, router):
        ready.set()
        await asyncio.Event().wait()


async def prepare(folder: Path) -> None:
    """Make the streams, and write directory and policies."""
    async with bus(folder, streams.ROUTER) as router, bus(folder, streams.OPERATOR) as operator:
        await router.create(list(scene.WORLD.streams()))
        await scene.write_versions(operator)


async def publish(folder: Path, count: int) -> None:
    """Publish `count` notices and return once all are in 27 inboxes. Raises TimeoutError if the broker stands still."""
    async with bus(folder, streams.adapter("AT")) as adapter, bus(folder, streams.ROUTER) as router:
        for first in range(1, count + 1, PAGE):
            values = [(b"", each) for each in scene.notices(min(PAGE, count + 1 - first), first)]
            await adapter.append(streams.notices("AT"), values)
            await _routed(router, first + len(values) - 1 - AHEAD)
        await _routed(router, count)


async def _routed(router: SqliteBus, count: int) -> None:
    last, moved = -1, time.monotonic()
    while (place := await router.place("distribute", streams.ROUTED)) < count:
        if place != last:
            last, moved = place, time.monotonic()
        elif time.monotonic() - moved > SILENT_S:
            message = f"the broker stands still at {place} of {count} notices"
            raise TimeoutError(message)
        await asyncio.sleep(0.02)


def in_force(folder: Path) -> int:
    """Count the notices in force as the register has them."""
    with closing(sqlite3.connect(folder / "register.db")) as register:
        return int(register.execute("SELECT count(*) FROM entry WHERE key LIKE 'notice/%'").fetchone()[0])


def held(process: psutil.Process) -> int:
    """Tell the resident memory of the broker and of the process that checks for it, in bytes."""
    own: int = process.memory_info().rss
    return own + sum(int(each.memory_info().rss) for each in process.children())


def most_ever(pid: int) -> int:
    """Tell the most memory that a process ever held at once, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure(folder: Path, count: int) -> tuple[int, int, int, int]:
    """Route `count` notices; (bytes before the first, after the last, most ever; notices in force)."""
    asyncio.run(prepare(folder))
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    broker = context.Process(target=serve, args=(folder, ready))
    broker.start()
    try:
        if not ready.wait(START_S):
            message = f"the broker was not ready within {START_S:.0f} s"
            raise TimeoutError(message)
        process = psutil.Process(broker.pid)
        before = held(process)
        asyncio.run(publish(folder, count))
        return before, held(process), most_ever(process.pid), in_force(folder)
    finally:
        broker.kill()
        broker.join()


def main() -> None:
    """Measure and print."""
    as_json, quick = scene.flags(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        before, after, most, kept = measure(Path(folder), 5_000 if quick else 100_000)
    result = {"bench": "memory", "goal": GOAL, "value": round(after / MB, 1), "unit": "MB", "notices_in_force": kept}
    result |= {"before_mb": round(before / MB, 1), "most_mb": round(most / MB, 1)}
    rows = [
        ("notices in force", kept),
        ("MB before the first", result["before_mb"]),
        ("MB, the most ever without the checking process", result["most_mb"]),
    ]
    scene.say(result, rows, as_json)


if __name__ == "__main__":
    main()
