"""The scenes on which attackers try their luck."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from broker.rules import PolicySet
from tests import federation as world
from tests.attacks.bench import AUTHORITY, REVIEWER, Bench
from tests.attacks.scene import ALL, Scene
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import Federation
from tests.honest_broker import HonestBroker
from tests.making import NOW
from tests.member.conftest import draft

HOUR = 3_600_000


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    """An operator who may do as he likes, and three members that have his directory."""
    bus = FakeBus()
    made = Scene(tmp_path, bus, HonestBroker(bus, NOW), {})
    await made.operator.publish_directory()
    for bureau in ("AT/ncb", "LV/ncb", "GE/ncb"):
        await made.home(bureau).versions.follow(bus)
    return made


@pytest.fixture
async def kept(scene: Scene) -> Scene:
    """Four notices, an hour apart; LV and GE took them in, AT was told, LV's receipts are on record."""
    for data in await scene.publish(*map(draft, ("R-1", "R-2", "R-3", "R-4"))):
        await scene.operator.route(data, {"LV/ncb": ALL, "GE/ncb": ("identity",)})
        assert (await scene.collect()).alarms == (await scene.collect("GE/ncb")).alarms == []
        await scene.confirm((await scene.receipts())[-1])
        scene.pass_time(HOUR)
    assert await scene.learn() == []
    scene.lay_out()
    return scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """One running federation for all stories of a file: each leaves keys, policies and clock as they were."""
    async with running(tmp_path_factory.mktemp("federation")) as federation:
        yield Bench(federation)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A running federation for one story."""
    async with running(tmp_path) as federation:
        yield Bench(federation)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Federation]:
    """A running federation with the packaged policies; AT/ncb and LV/ncb have a second key in force."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    second = (world.written_key("AT/ncb", 1), world.written_key("LV/ncb", 1))
    written = world.directory(extra_keys=second, reviewers=(REVIEWER,), authorities=(AUTHORITY,))
    await world.write_versions(bus, written, PolicySet.packaged())
    made = Federation(folder, bus, clock)
    async with world.running(folder, bus, lambda: clock.now):
        await made.adopted()
        yield made
