"""Keeps other processes out of blocks over one folder while a task waits for a bus; other tasks go on meanwhile.

Apart from `durable`: who only writes files, as the checking process does, need not load an event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker import durable


@asynccontextmanager
async def alone(folder: Path, wait_s: float | None = None) -> AsyncIterator[None]:
    """Do as `durable.alone`, whose blocks keep clear, too. Raises UnavailableError, as that does.

    `wait_s` is for a folder in which whoever is in his block may need longer than to write files.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + (durable.ALONE_S if wait_s is None else wait_s)
        while not durable.locked(fd, folder, deadline):  # noqa: ASYNC110 -- another process lets go of it
            await asyncio.sleep(durable.AGAIN_S)
        yield
    finally:
        os.close(fd)
