"""A federation whose broker runs on a bus in memory, and a SoftHSM token."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.rules import PolicySet
from tests import federation as world
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import Federation
from tests.keys.soft_token import TOKEN, configuration, new_token
from tests.making import NOW


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    """A running federation in which AT/ncb and LV/ncb have a second key in force."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    second = (world.written_key("AT/ncb", 1), world.written_key("LV/ncb", 1))
    await world.write_versions(bus, world.directory(extra_keys=second), PolicySet.packaged())
    made = Federation(tmp_path, bus, clock)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await made.adopted()
        yield made


@pytest.fixture(scope="session")
def soft_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A SoftHSM token for this process and, with these variables, for others; its PIN lies in VALISE_PIN_FILE.

    One for the session: a process loads a PKCS#11 library once, and that reads its configuration once.
    """
    assert shutil.which("softhsm2-util"), "install softhsm2 (deploy/system-packages softhsm2-util)"
    folder = tmp_path_factory.mktemp("softhsm")
    added = configuration(folder)
    new_token(TOKEN, os.environ | added)
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    yield added
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
