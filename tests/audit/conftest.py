"""A federation with an auditor and an authority, whose broker runs on a bus in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.members import WrittenAuditor
from broker.rules import PolicySet
from tests import federation as world
from tests.attacks.bench import AUTHORITY
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import FOR_EVER, Federation
from tests.making import NOW, key_of

AUDITOR = "auditor-1"


def written_auditor(name: str = AUDITOR) -> WrittenAuditor:
    """An auditor of the directory."""
    public = key_of(name).public
    return WrittenAuditor(id=name, key_id=public.id.hex(), public=public.raw.hex(), valid_from=0, valid_until=FOR_EVER)


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    """A running federation with the packaged policies, one auditor and one authority."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(
        bus, world.directory(auditors=(written_auditor(),), authorities=(AUTHORITY,)), PolicySet.packaged()
    )
    made = Federation(tmp_path, bus, clock)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await made.adopted()
        yield made
