"""kill -9 in the middle of an erasure: the next start repeats it, and nothing else is lost."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from broker import codec, streams
from broker.notice import Envelope
from broker.rules import PolicySet
from broker.sqlite import SqliteBus
from tests import federation as world
from tests.erasure.site import Marked, found, one, withdrawal
from tests.faults.broker_process import clock
from tests.faults.test_broker_killed import Site, killed

POINTS = (
    "distribute.told",
    "erase.inbox",
    "erase.notices",
    "erase.routed",
    "distribute.erased",
    "distribute.kept-place",
)
"""In the order in which they are passed; at each of them something is left in the files."""


class Ending(Site):
    """A site where what is published is withdrawn at once, and both are taken in by one start."""

    async def publish_and_withdraw(self) -> Marked:
        """Publish a notice to GE/ncb and LV/ncb, and its withdrawal."""
        draft = one(("GE/ncb", "LV/ncb")).but(issued=clock())
        assert isinstance(draft, Marked)
        envelope = draft.envelope()
        for each in (envelope, withdrawal(envelope).but(issued=clock()).envelope()):
            await self._append(each)
        return draft

    async def _append(self, envelope: Envelope) -> None:
        async with self.bus("at.adapter") as bus:
            await bus.append(streams.notices("AT"), [(b"", codec.encode(envelope))])

    async def until_gone(self, drafts: list[Marked]) -> None:
        """Run the broker until no file holds anything of these notices."""
        process = await self.start()
        needles = [each for draft in drafts for each in draft.needles]
        try:
            async with asyncio.timeout(60), self.bus(streams.ROUTER) as bus:
                while found(self.folder, needles):
                    assert process.returncode is None
                    await bus.read(streams.TRAIL, await bus.end(streams.TRAIL), wait=0.2)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


@pytest.mark.slow
async def test_an_erasure_that_was_killed_is_repeated_by_the_next_start(tmp_path: Path) -> None:
    site = Ending(tmp_path, f"sqlite:{tmp_path / 'bus.db'}", None)
    async with SqliteBus(tmp_path / "bus.db", streams.ROUTER, world.world(), clock) as bus:
        await bus.create(list(world.world().streams()))
    async with site.bus(streams.OPERATOR) as operator:
        await world.write_versions(operator, world.directory(), PolicySet.packaged())
    drafts = []
    for point in POINTS:
        drafts.append(await site.publish_and_withdraw())
        await killed(site, point, 60)
        assert found(tmp_path, drafts[-1].needles), point
    await site.until_gone(drafts)
    # The kill between the file of the bus and that of the register.
    await killed(site, "erase.bus-scrubbed", 60)
    drafts.append(await site.publish_and_withdraw())
    await site.until_gone(drafts)
    entries = await site.records(streams.ROUTER, streams.TRAIL)
    assert sum(key == b"entry" for key, _ in entries) > 2 * len(drafts)
    deliveries = await site.records("ge.adapter", streams.inbox("GE/ncb"))
    # Of what nobody had read by then the withdrawals are left, each at least once.
    assert len({key for key, _ in deliveries}) == len(drafts)
