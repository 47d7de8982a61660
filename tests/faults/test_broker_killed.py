"""kill -9 of the broker at every crash point: nothing is lost, nothing is routed twice, the trail verifies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker import codec, streams
from broker.bus import Bus
from broker.notice import DecisionRecord, Delivery, Entry, Head, Leaf, Outcome
from broker.rules import PolicySet
from broker.sqlite import SqliteBus
from broker.trail import Trail
from tests import federation as world
from tests.faults.broker_process import clock, open_bus
from tests.kafka_world import KafkaWorld, running_kafka
from tests.making import Draft

POINTS = (
    "ingest.before-commit",
    "ingest.committed",
    "ingest.settled",
    "seal.records-written",
    "seal.tiles-unsynced",
    "seal.tiles-written",
    "seal.checkpoint-aside",
    "seal.checkpoint-renamed",
    "seal.checkpoint-durable",
    "seal.announced",
    "distribute.sealed",
    "distribute.copied",
    "distribute.told",
    "distribute.erased",
    "distribute.kept-place",
)
BATCH = 4


class Site:
    """Where the broker runs: its folder, its bus, and how to open the bus in somebody's name."""

    def __init__(self, folder: Path, address: str, kafka: KafkaWorld | None) -> None:
        self.folder, self.address, self._kafka = folder, address, kafka
        self._number = 0

    def _tls(self, principal: str) -> list[str]:
        return list(self._kafka.pki(principal)) if self._kafka else []

    @asynccontextmanager
    async def bus(self, principal: str) -> AsyncIterator[Bus]:
        """Open the bus in somebody's name."""
        async with open_bus(self.address, principal, self._tls(principal)) as bus:
            yield bus

    async def start(self, point: str = "", *more: str) -> asyncio.subprocess.Process:
        """Start the broker, to be killed at `point`."""
        tls = self._tls(streams.ROUTER)
        command = [sys.executable, "-m", "tests.faults.broker_process", str(self.folder), self.address]
        command += ["--crash", point, *more, *(["--tls", *tls] if tls else [])]
        return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)

    async def publish(self, count: int) -> None:
        """Publish so many notices to GE/ncb, and as many to LV/ncb and GE/ncb."""
        async with self.bus("at.adapter") as bus:
            for _ in range(count):
                self._number += 1
                to = ("GE/ncb",) if self._number % 2 else ("GE/ncb", "LV/ncb")
                draft = Draft("AT/ncb").to(*to).numbered(self._number).but(issued=clock())
                await bus.append(streams.notices("AT"), [(b"", codec.encode(draft.envelope()))])

    @property
    def published(self) -> int:
        return self._number

    async def records(self, principal: str, stream: str) -> list[tuple[bytes, bytes]]:
        """Read a stream up to its present end."""
        found, place = list[tuple[bytes, bytes]](), 0
        async with self.bus(principal) as bus:
            end = await bus.end(stream)
            while place < end and (records := await bus.read(stream, place)):
                found += [(each.key, each.value) for each in records if each.value is not None]
                place = records[-1].offset + 1
        return found

    async def shown(self) -> None:
        """Return once everything is shown that a broker committed: no broker runs any more, and none is to.

        Kafka writes the marks of a commit after its answer, and before the next owner has the shard.
        """
        async with self.bus(streams.ROUTER) as bus, bus.own(0, []):
            pass

    async def told(self, by: asyncio.subprocess.Process, limit_s: float = 90) -> None:
        """Return once the issuer has been told of all that it published."""
        found, place = set[int](), 0
        async with asyncio.timeout(limit_s), self.bus("at.adapter") as bus:
            while len(found) < self.published:
                assert by.returncode is None
                for record in await bus.read(streams.outcomes("AT"), place, wait=0.2):
                    found.add(codec.decode(Outcome, record.value or b"").leaf_number)
                    place = record.offset + 1


async def killed(site: Site, point: str, limit_s: float) -> None:
    """Run the broker until it kills itself at `point`."""
    process = await site.start(point)
    async with asyncio.timeout(limit_s):
        assert await process.wait() == -signal.SIGKILL, point


async def finished(site: Site, limit_s: float) -> None:
    """Run the broker until everything published is told, then end it."""
    process = await site.start()
    try:
        await site.told(process, limit_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def check(site: Site, folder: Path | None = None) -> None:
    """Nothing lost, nothing routed twice, every record in one leaf, delivery numbers without gaps, the trail whole."""
    await site.shown()
    trail = await site.records(streams.ROUTER, streams.TRAIL)
    entries = [codec.decode(Entry, value) for key, value in trail if key == b"entry"]
    head = codec.decode(Head, trail[-1][1])
    assert [each.leaf_number for each in entries] == list(range(head.size))
    leaves = [codec.decode(Leaf, each.leaf) for each in entries]
    assert Counter(each.kind for each in leaves)["routed"] == site.published
    origins = [codec.decode(DecisionRecord, each.decision) for each in entries]
    places = [(each.stream, each.offset) for each in origins if each.stream]
    assert len(places) == len(set(places)) == site.published + 2
    for bureau, share in (("GE/ncb", 1), ("LV/ncb", 2)):
        reader = streams.adapter(bureau.partition("/")[0])
        values = {value for _, value in await site.records(reader, streams.inbox(bureau))}
        deliveries = {codec.decode(Delivery, value).delivery_number for value in values}
        assert deliveries == set(range(1, site.published // share + 1))
    on_disk = Trail.open((folder or site.folder) / "trail", world.ORIGIN)
    assert (on_disk.size, on_disk.root) == (head.size, head.root)


async def every_point(site: Site, limit_s: float) -> None:
    """Kill the broker once at each point, with something to do each time; then let it finish."""
    async with site.bus(streams.OPERATOR) as operator:
        await world.write_versions(operator, world.directory(), PolicySet.packaged())
    for point in POINTS:
        await site.publish(BATCH)
        await killed(site, point, limit_s)
    await site.publish(BATCH)
    await finished(site, limit_s)
    await check(site)


@pytest.mark.slow
async def test_on_the_embedded_bus(tmp_path: Path) -> None:
    site = Site(tmp_path, f"sqlite:{tmp_path / 'bus.db'}", None)
    async with SqliteBus(tmp_path / "bus.db", streams.ROUTER, world.world(), clock) as bus:
        await bus.create(list(world.world().streams()))
    await every_point(site, 60)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_on_kafka(tmp_path: Path) -> None:
    with running_kafka(world.world()) as kafka:
        await every_point(Site(tmp_path, f"kafka:{kafka.bootstrap}", kafka), 90)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_one_of_three_nodes_dies_and_a_stopped_owner_wakes_up(tmp_path: Path) -> None:
    """A node is killed for good, the owner stopped, another takes over; the old one wakes and writes nothing more."""
    with running_kafka(world.world(), nodes=3) as kafka:
        site = Site(tmp_path, f"kafka:{kafka.bootstrap}", kafka)
        async with site.bus(streams.OPERATOR) as operator:
            await world.write_versions(operator, world.directory(), PolicySet.packaged())
        old = await site.start()
        await site.publish(BATCH)
        assert old.stdout is not None
        async with asyncio.timeout(60):
            await old.stdout.readline()
            await old.stdout.readline()
        old.send_signal(signal.SIGSTOP)
        kafka.kill(1)
        await site.publish(BATCH)
        # The new owner has a disk of its own, with nothing on it: all it needs stands on the bus.
        second = Site(tmp_path / "second", site.address, kafka)
        second.folder.mkdir()
        new = await second.start()
        await site.told(new, 120)
        old.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            assert await old.wait() != 0
        await site.publish(BATCH)
        await site.told(new, 120)
        new.send_signal(signal.SIGTERM)
        await new.wait()
        await check(site, second.folder)
