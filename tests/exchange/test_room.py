"""A disk of the operator's home that is full stops the broker until there is room again, and loses nothing."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from broker import durable, up
from broker.errors import UnavailableError
from tests.federation import Federation
from tests.making import Draft

TO = "GE/ncb"


class Disk:
    """What is written goes to the real one, unless it is full."""

    def __init__(self) -> None:
        self.full, self._loop = False, asyncio.get_running_loop()
        self._refused: asyncio.Queue[None] = asyncio.Queue()
        self._write = durable._write

    def write(self, fd: int, data: bytes) -> None:
        """Write, or refuse as a system does: half of it is there, and no file is named."""
        if self.full:
            os.write(fd, data[: len(data) // 2])
            self._loop.call_soon_threadsafe(self._refused.put_nowait, None)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write(fd, data)

    async def refused(self, times: int) -> None:
        """Wait until so much was refused."""
        for _ in range(times):
            await self._refused.get()


@pytest.mark.timeout(60)
async def test_a_broker_whose_trail_has_no_room_goes_on_once_there_is_some(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended, which no line said of which disk. Meanwhile nothing is handed out, and nothing more is decided."""
    disk = Disk()
    monkeypatch.setattr(durable, "_write", disk.write)
    monkeypatch.setattr(up, "AGAIN_S", 0.01)
    await federation.publish(Draft("AT/ncb").to(TO).numbered(1).envelope())
    assert len(await federation.inbox(TO, 1)) == 1
    disk.full, before = True, len(await federation.leaves())
    with capture_logs() as logged:
        await federation.publish(Draft("AT/ncb").to(TO).numbered(2).envelope())
        await disk.refused(1)
        for number in (3, 4):
            await federation.publish(Draft("AT/ncb").to(TO).numbered(number).envelope())
        await disk.refused(2)
    structlog.reset_defaults()
    warned = [each for each in logged if each["log_level"] != "debug"]
    assert {each["event"] for each in warned} == {"shard.unavailable"}
    assert all("there is no room on a disk of " in each["said"] for each in warned)
    assert (len(await federation.inbox(TO)), len(await federation.leaves()) - before) == (1, 1)
    disk.full = False
    assert len(await federation.inbox(TO, 4)) == 4
    assert [each.kind for each in await federation.leaves()].count("routed") == 4


def test_only_a_full_disk_is_mended_by_room(tmp_path: Path) -> None:
    for code, raised in ((errno.EDQUOT, UnavailableError), (errno.EROFS, OSError)):
        with pytest.raises(raised), durable.room(tmp_path):
            raise OSError(code, os.strerror(code))
