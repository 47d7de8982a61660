"""The world that tests share: a small federation, its bus, and a broker that runs in this process.

Members AT, LV, GE, RU (each `ncb`; AT and LV also `organised-crime`) and EUROPOL; `circle` is of AT, LV and GE.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from broker import avro, codec, members, notes, streams, up
from broker.members import WrittenAgreement, WrittenBureau, WrittenDirectory, WrittenKey, WrittenLog, WrittenMember
from broker.members import WrittenTransfer as Transfer
from broker.notice import (
    BODY_SCHEMAS,
    PURPOSES,
    Compartment,
    Delivery,
    Entry,
    Envelope,
    Header,
    Leaf,
    Outcome,
    Shared,
    Version,
)
from broker.owner import Owner, Pace
from broker.rules import PolicySet
from broker.signing import SigningKey
from broker.streams import World
from tests.making import FEDERATION, Draft, key_of, subscription

if TYPE_CHECKING:
    from broker.bus import Bus
    from tests.fake_bus import Clock

BUREAUS = ("AT/ncb", "AT/organised-crime", "LV/ncb", "LV/organised-crime", "GE/ncb", "RU/ncb", "EUROPOL/analysis")
MEMBERS = ("AT", "LV", "GE", "RU", "EUROPOL")
LOG_KEY = SigningKey.from_seed(sha256(b"log").digest())
ORIGIN = f"{FEDERATION}/trail"
LOG = notes.vkey(ORIGIN, LOG_KEY.public.raw)
FOR_EVER = 4_000_000_000_000


def directory(version: int = 1, extra_keys: tuple[WrittenKey, ...] = (), **changes: object) -> WrittenDirectory:
    """The directory of this world; `changes` are fields of WrittenDirectory."""
    written = WrittenDirectory(
        federation=FEDERATION,
        version=version,
        members=tuple(
            WrittenMember(id=each, name=each, kind="organisation" if each == "EUROPOL" else "state") for each in MEMBERS
        ),
        bureaus=tuple(
            WrittenBureau(id=each, index=index, name=each, mandates=PURPOSES, languages=("en",))
            for index, each in enumerate(BUREAUS)
        ),
        keys=tuple(written_key(each) for each in BUREAUS) + extra_keys,
        agreements=(WrittenAgreement(id="circle", title="Circle", basis="invented", members=("AT", "LV", "GE")),),
        transfers=tuple(
            Transfer(source=a, target=b, basis="agreement", reference="invented")
            for a in MEMBERS
            for b in MEMBERS
            if a != b
        ),
        compartment_schemas=tuple(sorted(avro.fingerprint(name).hex() for name in BODY_SCHEMAS)),
        logs=(WrittenLog(shard=0, vkey=str(LOG)),),
    )
    return written.model_copy(update=changes)


def written_key(bureau: str, generation: int = 0, begin: int = 0, end: int = FOR_EVER) -> WrittenKey:
    """A key of the directory."""
    public = key_of(bureau, generation).public
    return WrittenKey(key_id=public.id.hex(), bureau=bureau, public=public.raw.hex(), valid_from=begin, valid_until=end)


@dataclass(frozen=True)
class Opened:
    """A delivery as it came, opened without any check."""

    delivery: Delivery
    envelope: Envelope
    header: Header
    compartments: tuple[Compartment, ...]
    leaf: Leaf

    @property
    def shown(self) -> set[str]:
        """Names of the compartments that are open."""
        return {each.name for each in self.compartments if each.opened}


@dataclass
class Federation:
    """A running federation."""

    folder: Path
    bus: Bus
    clock: Clock
    _numbers: dict[str, int] = field(default_factory=dict)

    @property
    def trail(self) -> Path:
        """The trail's folder."""
        return self.folder / "trail"

    async def append(self, stream: str, value: bytes) -> int:
        """Put one record on a stream."""
        return await self.bus.append(stream, [(b"", value)])

    async def adopted(self) -> None:
        """Return once directory and policies are in force."""
        async with asyncio.timeout(60):
            # A directory with new members makes the broker own its shard again, for their streams.
            while [each.kind for each in await self.leaves()].count("resumed") < 2:
                await self.bus.read(streams.TRAIL, await self.bus.end(streams.TRAIL), wait=0.05)

    async def subscribe(self, bureau: str, *patterns: str) -> None:
        """Subscribe a bureau; return once it is in force."""
        member = bureau.partition("/")[0]
        told = len(await self.outcomes(member))
        await self.append(streams.notices(member), subscription(bureau, *patterns))
        await self.outcomes(member, told + 1)

    async def publish(self, envelope: Envelope) -> int:
        """Put a notice on its issuer's stream."""
        issuer = codec.decode(Header, envelope.header).member
        return await self.append(streams.notices(issuer), codec.encode(envelope))

    async def inbox(self, bureau: str, at_least: int = 0) -> list[Opened]:
        """Everything in a bureau's inbox, once there are `at_least` so many."""
        return [_opened(value) for value in await self._all(streams.inbox(bureau), at_least)]

    async def outcomes(self, member: str, at_least: int = 0) -> list[Outcome]:
        """Everything on a member's outcome stream."""
        return [codec.decode(Outcome, value) for value in await self._all(streams.outcomes(member), at_least)]

    async def leaves(self) -> list[Leaf]:
        """Every leaf, as the trail stream has it."""
        found = await self._records(streams.TRAIL, 0)
        return [codec.decode(Leaf, codec.decode(Entry, value).leaf) for key, value in found if key == b"entry"]

    async def _all(self, stream: str, at_least: int) -> list[bytes]:
        return [value for _, value in await self._records(stream, at_least)]

    async def _records(self, stream: str, at_least: int) -> list[tuple[bytes, bytes]]:
        place, found = 0, list[tuple[bytes, bytes]]()
        async with asyncio.timeout(60):
            while True:
                records = await self.bus.read(stream, place, wait=0.05 if len(found) < at_least else 0.0)
                found += [(each.key, each.value) for each in records if each.value is not None]
                place = records[-1].offset + 1 if records else place
                if not records and len(found) >= at_least:
                    return found

    async def settled(self, bureau: str = "EUROPOL/analysis") -> None:
        """Return once everything that was published before has come out: one more notice, addressed to one bureau."""
        before = len(await self.inbox(bureau))
        number = self._numbers["settled"] = self._numbers.get("settled", 0) + 1
        draft = Draft("AT/ncb").to(bureau).numbered(number, b"settled!")
        await self.publish(draft.envelope())
        await self.inbox(bureau, before + 1)


def _opened(value: bytes) -> Opened:
    delivery = codec.decode(Delivery, value)
    shared = codec.decode(Shared, delivery.shared)
    envelope = codec.decode(Envelope, shared.envelope)
    header = codec.decode(Header, envelope.header)
    compartments = codec.decode_compartments(envelope.compartments)
    return Opened(delivery, envelope, header, compartments, codec.decode(Leaf, shared.leaf))


def world() -> World:
    """The streams of this federation."""
    return World(MEMBERS, BUREAUS)


def owner(folder: Path, clock: Callable[[], int], trial_s: float = 30.0) -> Owner:
    """The operator's side of this federation."""
    return Owner(folder, FEDERATION, 0, LOG_KEY, Pace(500, 0.0, trial_s), clock, os.urandom)


async def write_versions(bus: Bus, written: WrittenDirectory | None = None, policies: PolicySet | None = None) -> None:
    """Write a directory and a policy set, as the operator does."""
    records = []
    if written is not None:
        records.append(codec.encode(Version("directory", members.canonical(written))))
    if policies is not None:
        records.append(codec.encode(Version("policies", policies.content)))
    await bus.append(streams.VERSIONS, [(b"", each) for each in records])


@asynccontextmanager
async def running(folder: Path, bus: Bus, clock: Callable[[], int]) -> AsyncIterator[None]:
    """Run the broker while the block runs; what it fails with, the block fails with."""
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        broker = tasks.create_task(up.run(owner(folder, clock), bus, ready.set))
        await ready.wait()
        try:
            yield
        finally:
            broker.cancel()
