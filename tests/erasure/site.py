"""A federation on the embedded bus whose raw files are searched, and notices whose words and salts are known."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from broker import avro, codec, streams
from broker.notice import Envelope, Header, Opened
from broker.rules import PolicySet
from broker.sqlite import SqliteBus
from broker.streams import World
from tests import federation as world
from tests.fake_bus import Clock
from tests.federation import Federation
from tests.making import NOW, Draft, reference

NAME = "Zebedee Unmistakable"
REVIEWER = "EUROPOL/analysis"


class Open(World):
    """The streams of the federation, where one principal may do everything."""

    def writers(self, stream: str) -> frozenset[str]:  # noqa: ARG002
        """Everybody."""
        return frozenset({streams.ROUTER})

    def readers(self, stream: str) -> frozenset[str]:  # noqa: ARG002
        """Everybody."""
        return frozenset({streams.ROUTER})


@dataclass
class Marked(Draft):
    """A notice whose identity is a name, under salts that are kept here."""

    name: str = NAME
    salts: list[bytes] = field(default_factory=list)

    def opened(self) -> dict[str, Opened]:
        """Salt and bytes of each compartment; all that is to go but the routing, which the trail needs."""
        made = super().opened()
        made["identity"] = Opened(os.urandom(32), identity(self.name))
        self.salts += [each.salt for name, each in made.items() if name != "routing"]
        return made

    @property
    def needles(self) -> list[bytes]:
        """What must be found before and nowhere afterwards."""
        return [self.name.encode(), *self.salts]


def identity(name: str) -> bytes:
    """Bytes of a compartment that names somebody."""
    return avro.prefix("person.identity") + name.encode()


def one(to: Sequence[str] = ("LV/ncb", "GE/ncb"), **more: object) -> Marked:
    """A notice of a series of its own."""
    made = Marked("AT/ncb", **more).to(*to).but(record=os.urandom(8).hex())  # type: ignore[arg-type] # name and parts
    made = made.numbered(1, os.urandom(8))
    assert isinstance(made, Marked)
    return made


def following(of: Envelope, kind: str, relation: str, *, by_order: bool = False, **header: object) -> Draft:
    """A notice that speaks of another: its withdrawal, its correction, a verdict."""
    before = codec.decode(Header, of.header)
    issuer = REVIEWER if relation == "approves" or by_order else before.issuer
    part = {"withdrawal": "reason", "approval": "terms"}.get(kind, "identity")
    made = Draft(issuer, kind=kind, parts=(part,)).to("LV/ncb", "GE/ncb").numbered(1, os.urandom(8))
    made = made.but(references=(reference(of, relation),), **header)
    return made if relation == "approves" else made.but(record=before.record, version=before.version + 1)


def withdrawal(of: Envelope) -> Draft:
    """The end of a notice."""
    return following(of, "withdrawal", "withdraws")


def files(home: Path) -> dict[str, bytes]:
    """Every file of a home, raw; a broker that runs may take one of its passing files away meanwhile."""
    read = dict[str, bytes]()
    for each in sorted(home.rglob("*")):
        with suppress(FileNotFoundError):
            if each.is_file():
                read[str(each.relative_to(home))] = each.read_bytes()
    return read


def found(home: Path, needles: Sequence[bytes]) -> set[str]:
    """Name the files that hold one of the needles."""
    return {name for name, data in files(home).items() if any(each in data for each in needles)}


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[Federation]:
    """Run a federation whose operator's files lie in `home`; called again it goes on with what is there."""
    clock = Clock(NOW)
    operator = home / "operator"
    fresh = not operator.exists()
    operator.mkdir(parents=True, exist_ok=True)
    async with SqliteBus(home / "bus.db", streams.ROUTER, Open(world.MEMBERS, world.BUREAUS), lambda: clock.now) as bus:
        if fresh:
            await bus.create(list(world.world().streams()))
            await world.write_versions(
                bus, world.directory(reviewers=(REVIEWER,), authorities=(REVIEWER,)), PolicySet.packaged()
            )
        made = Federation(operator, bus, clock)
        async with world.running(operator, bus, lambda: clock.now):
            await made.adopted()
            yield made


async def gone(federation: Federation, home: Path, needles: Sequence[bytes]) -> None:
    """Return once no file holds a needle."""
    seen = 0
    while found(home, needles):
        seen += 1
        assert seen < 600, found(home, needles)
        await federation.bus.read(streams.TRAIL, await federation.bus.end(streams.TRAIL), wait=0.1)
