"""A member's machine beside an honest broker, on a bus in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.adapter import EVERYONE, Draft
from adapters.collect import Collector
from adapters.compose import Maker
from adapters.inbox import Inbox
from adapters.outbox import Outbox, Published
from adapters.outcomes import Outcomes, rejected_in
from adapters.receipts import Signer
from adapters.versions import Versions
from broker import codec, streams
from broker.errors import UnavailableError
from broker.notice import Envelope
from schemas import loader
from tests.fake_bus import FakeBus
from tests.honest_broker import HonestBroker
from tests.making import FEDERATION, NOW, key_of


def draft(record: str = "R-1", **changes: Any) -> Draft:
    """A person, as a national system would give it."""
    made = Draft(
        record=record,
        kind="person",
        topics=("sought.red",),
        purpose="criminal-investigation",
        legal_basis="invented",
        audience=EVERYONE,
        compartments={name: loader.example(f"person.{name}") for name in ("identity", "warnings", "narrative")},
    )
    return replace(made, **changes)


@dataclass
class Machine:
    """What one bureau runs, its files in one folder."""

    folder: Path
    bus: FakeBus
    bureau: str
    generation: int = 0
    ahead: int = 0
    """How much later than at the broker it is here, ms."""

    def clock(self) -> int:
        """The same time as the broker's, unless it is said to be later."""
        return NOW + self.ahead

    @property
    def versions(self) -> Versions:
        """The versions that came."""
        return Versions(self.folder / "versions")

    def signer(self) -> Signer:
        """Who signs receipts."""
        return Signer(FEDERATION, self.bureau, key_of(self.bureau, self.generation), self.clock)

    def outbox(self) -> Outbox:
        """Open the outbox."""
        generation = self.generation
        maker = Maker(self.versions.newest(), lambda bureau: key_of(bureau, generation), self.clock, os.urandom)
        return Outbox(self.folder / "outbox.db", maker, self.bureau)

    def inbox(self) -> Inbox:
        """Open the inbox."""
        return Inbox(self.folder / "inbox.db")

    def collector(self, inbox: Inbox) -> Collector:
        """Make the collector."""
        rejections = partial(rejected_in, self.folder / "outbox.db")
        return Collector(self.bus, inbox, self.versions, self.signer(), os.urandom, rejections=rejections)

    def outcomes(self, outbox: Outbox) -> Outcomes:
        """Follow the outcomes."""
        return Outcomes(self.bus, outbox, self.versions, self.bureau.partition("/")[0], self.clock)


@dataclass
class World:
    """AT publishes, the others receive, and the broker does as the test says."""

    bus: FakeBus
    broker: HonestBroker
    machine: Callable[[str], Machine]

    async def sent(self, member: str = "at") -> list[bytes]:
        """Everything that a member has put on its stream, decoded by nobody."""
        return [each.value or b"" for each in await self.bus.read(f"notices.{member}", 0)]

    async def publish(self, *drafts: Draft) -> list[bytes]:
        """Publish for AT/ncb and give what came on the bus."""
        at, before = self.machine("AT/ncb"), len(await self.sent())
        outbox = at.outbox()
        results = outbox.publish(drafts)
        assert all(isinstance(each, Published) for each in results), results
        await outbox.flush(self.bus)
        outbox.close()
        return (await self.sent())[before:]

    async def receipts(self, member: str) -> list[bytes]:
        """Everything on a member's receipts stream."""
        return [each.value or b"" for each in await self.bus.read(streams.receipts(member), 0)]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A directory is published and every machine has it."""
    bus = FakeBus()
    broker = HonestBroker(bus, NOW)
    await broker.publish_directory()
    machines: dict[str, Machine] = {}

    def machine(bureau: str) -> Machine:
        return machines.setdefault(bureau, Machine(tmp_path / bureau.replace("/", "."), bus, bureau))

    for bureau in ("AT/ncb", "LV/ncb", "GE/ncb"):
        await machine(bureau).versions.follow(bus)
    return World(bus, broker, machine)


def envelope(data: bytes) -> Envelope:
    """Open what came on the bus."""
    return codec.decode(Envelope, data)


async def sent_under_the_next_key(world: World) -> Inbox:
    """Let LV/ncb collect a notice whose receipt could not be sent before its key had changed."""
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ("identity", "warnings", "narrative")})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    world.bus.memory.breaks.append(False)
    with pytest.raises(UnavailableError):
        await lv.collector(inbox).drain()
    lv.generation = 1
    await lv.collector(inbox).drain()
    return inbox
