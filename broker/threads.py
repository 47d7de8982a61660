"""Runs work in a thread that is never left behind: who is cancelled meanwhile waits for its end.

A thread that goes on alone meets a second writer on the disk, or a database that its owner has closed under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def _no_hurry() -> None:
    """Let the work take its time."""


async def to_the_end(work: Callable[..., T], *args: object, hurry: Callable[[], None] = _no_hurry) -> T:
    """Run in a thread and give its answer; raises what the work raises, and CancelledError only once it has ended.

    `hurry` is called where somebody is cancelled who waits: it may make the work end sooner.
    """
    return await ended(asyncio.to_thread(work, *args), hurry)


async def ended(work: Coroutine[Any, Any, T], hurry: Callable[[], None] = _no_hurry) -> T:
    """Give the answer of what must be known to have ended; as `to_the_end`."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        hurry()
        while not running.done():  # however often we are cancelled
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # nobody is there any more to be told
        raise
