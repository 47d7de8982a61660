"""A whole broker whose log is witnessed: notices flow, heads are cosigned, a disk of yesterday does not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker import cosignature, notes, streams, up
from broker.errors import TrailError
from broker.fetch import Place
from broker.merkle import EMPTY_ROOT
from broker.owner import Known, Witnesses
from broker.rules import PolicySet
from broker.witness import Witness
from tests import federation as world
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import LOG, LOG_KEY, ORIGIN, Federation
from tests.making import NOW, Draft
from tests.witness.log import answering_on, cosigner, identity, saying


@asynccontextmanager
async def witnessed(folder: Path, quorum: int, *known: Known) -> AsyncIterator[Federation]:
    """Run a federation whose operator asks these witnesses."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(bus, world.directory(), PolicySet.packaged())
    owner = replace(world.owner(folder, lambda: clock.now), witnesses=Witnesses(known, quorum))
    ready = asyncio.Event()
    await asyncio.to_thread(folder.mkdir)
    async with asyncio.TaskGroup() as tasks:
        broker = tasks.create_task(up.run(owner, bus, ready.set))
        await ready.wait()
        made = Federation(folder, bus, clock)
        await made.adopted()
        yield made
        broker.cancel()


def honest(folder: Path) -> Witness:
    return Witness(folder / "witness.db", identity(), [LOG], lambda: NOW)


async def cosigned(federation: Federation, place: int) -> tuple[int, str]:
    """Wait for the next head with cosignatures that members are shown; give it and the place after it."""
    async with asyncio.timeout(120):  # the one that hangs is waited for each time
        while True:
            for record in await federation.bus.read(streams.CHECKPOINTS, place, wait=0.5):
                place = record.offset + 1
                if record.key == b"cosigned":
                    return place, notes.parse_advance(record.value or b"").checkpoint


async def test_notices_flow_and_heads_are_cosigned_though_one_witness_hangs_and_one_is_dead(tmp_path: Path) -> None:
    dead = Known(cosigner("witness.example/dead"), Place("127.0.0.1", 1, "", None))
    async with (
        saying(b"", hang=True) as hanging,
        answering_on(honest(tmp_path)) as known,
    ):
        with capture_logs():
            async with witnessed(tmp_path / "operator", 1, hanging, dead, known) as federation:
                for number in range(1, 6):
                    await federation.publish(Draft("AT/ncb").to("LV/ncb").numbered(number).envelope())
                    await federation.inbox("LV/ncb", number)
                _, note = await cosigned(federation, 0)
    assert notes.open_checkpoint(note, LOG).origin == ORIGIN
    (found,) = cosignature.cosignatures(note, [known.cosigner]).values()
    assert found.time == NOW // 1000
    kept = (tmp_path / "operator" / "trail" / "checkpoint.witnessed").read_text(encoding="utf-8")
    assert cosignature.cosignatures(kept, [known.cosigner])


@pytest.mark.usefixtures("patient")
async def test_a_broker_whose_witness_saw_more_than_its_disk_refuses_to_run(tmp_path: Path) -> None:
    witness = honest(tmp_path)
    seen = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, 1000, EMPTY_ROOT), LOG_KEY)
    witness.add(notes.format_advance(0, [], seen).encode())
    async with answering_on(witness) as known:
        with pytest.raises(ExceptionGroup) as raised:
            async with witnessed(tmp_path / "operator", 1, known):
                pass
    assert raised.group_contains(TrailError, match="saw 1000 leaves")
