"""A federation whose broker runs on a bus in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.members import WrittenDirectory
from broker.rules import PolicySet
from tests import federation as world
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import Federation
from tests.making import NOW


@pytest.fixture
def written() -> WrittenDirectory:
    """The directory of the federation; a test that wants another says so."""
    return world.directory()


@pytest.fixture
async def federation(tmp_path: Path, written: WrittenDirectory) -> AsyncIterator[Federation]:
    """A running federation with the packaged policies."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(bus, written, PolicySet.packaged())
    made = Federation(tmp_path, bus, clock)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await made.adopted()
        yield made
