"""Runs work in a thread that is never left behind: who is cancelled meanwhile waits for its end.

A thread that goes on alone meets a second writer on the disk, or a database that its owner has closed under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Callable[..., T], *args: object) -> T:
    """Run in a thread and give its answer; raises what the work raises, and CancelledError only once it has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
