"""A revocation whose leaf comes after its command has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker import streams
from broker.bus import Bus, Record
from broker.errors import UnavailableError
from broker.notice import Revocation
from broker.sqlite import SqliteBus
from cli import keyring, revoke
from cli.home import MemberHome, clock
from cli.stage import running, settled
from tests.trust.test_commands import made, valise


async def test_a_home_signs_no_more_with_a_key_whose_revocation_comes_late(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    (key,) = (await valise(stage.home, "key", "list", "--bureau", "LV/ncb", "--json")).value
    words = ("key", "revoke", key["key_id"], "--bureau", "LV/ncb", "--yes", "--wait", "0")
    early = await valise(stage.home, *words)
    assert (early.code, "not on record yet" in early.out) == (8, True)
    async with running(stage):
        await settled(stage)
        assert (await valise(stage.home, "key", "revoked", "--bureau", "LV/ncb")).code == 0
    (key,) = (await valise(stage.home, "key", "list", "--bureau", "LV/ncb", "--json")).value
    assert key["state"] == "revoked"


class Leaving(SqliteBus):
    """A bus that takes what is appended and answers nothing after it."""

    appended = False

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        last = await super().append(stream, values, partition=partition)
        self.appended = True
        return last

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        if self.appended:
            raise UnavailableError("gone")
        return await super().read(stream, offset, limit=limit, wait=wait, partition=partition)


class LeavingHome(MemberHome):
    """A home whose bus goes away once something was sent."""

    @asynccontextmanager
    async def bus(self, principal: str = "") -> AsyncIterator[Bus]:
        path = (self.folder / self.settings.bus_address).resolve()
        async with Leaving(path, principal or streams.adapter(self.member), self.world(), clock) as bus:
            yield bus


async def test_a_revocation_that_was_sent_before_the_bus_went_away_is_undecided_and_not_unsent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = await made(tmp_path)
    found = stage.member("LV/ncb")
    await found.follow()
    home = LeavingHome(found.folder, found.settings, found.bureau)
    (kept,) = keyring.all_kept(home.folder, home.member)
    said = Revocation(home.settings.federation, home.bureau, kept.key_id(), "other", clock(), None)
    assert await revoke.send(home, kept, said, 5.0) is None
    assert "the bus does not answer (gone): it was sent" in capsys.readouterr().err
    async with stage.operator.bus(streams.ROUTER) as bus:
        assert await bus.end(streams.notices("LV")) > 0
