"""Hands committed steps from ingest to distribute, and knows how many batches are under way.

Steps that run back to back starve the machine: each is small, and each costs the bus and the disk the same. So a new
batch is taken up only when few are under way: one while nothing waits, more while there is a backlog.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.step import Done

STEPS_WAITING = 1
"""Committed steps that may wait to be sealed before ingest waits, too."""
COPIES = 20_000
"""Deliveries on their way in one step at the most, unless a single record brings more.

Each holds some 1.2 KB until it has left, and three batches may be under way: with 140 notices to 1,000 bureaus in each
the broker's process had 702 MB, with 20 it has 236, as quickly.
"""


def at_once(most: int, bureaus: int) -> int:
    """Say how many records a step takes, `most` or fewer: each may go to so many bureaus."""
    return max(1, min(most, COPIES // max(1, bureaus)))


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed step; `place` is where `distribute` stands in `routed` once it is sent, `last` ends its batch."""

    done: Done
    place: int
    last: bool


class Handover:
    """The way from ingest to distribute within one process."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Committed] = asyncio.Queue(STEPS_WAITING)
        self._under_way = 0
        self._left = asyncio.Event()

    async def enter(self, most: int) -> None:
        """Begin a batch once fewer than `most` are under way."""
        while self._under_way >= most:
            self._left.clear()
            await self._left.wait()
        self._under_way += 1

    def leave(self) -> None:
        """End a batch that brought nothing, or whose last step is sent."""
        self._under_way -= 1
        self._left.set()

    async def put(self, committed: Committed) -> None:
        """Hand a step on; waits while distribute is behind."""
        await self._queue.put(committed)

    async def get(self) -> list[Committed]:
        """Give the steps that wait, at least one."""
        steps = [await self._queue.get()]
        while not self._queue.empty():
            steps.append(self._queue.get_nowait())
        return steps

    def sent(self, steps: list[Committed]) -> None:
        """Say that these have left."""
        for each in steps:
            self._queue.task_done()
            if each.last:
                self.leave()

    async def join(self) -> None:
        """Wait until everything that was handed on has left."""
        await self._queue.join()
