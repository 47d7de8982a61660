"""A withdrawal that is being sent while another process empties the register's cache: its body goes all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from broker import streams, up
from broker.errors import FencedError
from broker.register import Register
from broker.sqlite import SqliteBus
from tests import federation as world
from tests.erasure.site import Open, gone, one, running, withdrawal
from tests.erasure.test_embedded import is_there, publish
from tests.fake_bus import Clock, still_owned
from tests.federation import Federation
from tests.making import NOW


class Emptying(SqliteBus):
    """A bus that empties a cache, as `broker resume` does, when an issuer is next told of something."""

    cache: Path | None = None

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        """Append, after that."""
        cache, told = self.cache, stream.startswith("outcomes.")
        if cache and told:
            self.cache = None
            with closing(Register(cache)) as other:
                await other.take_over(still_owned)
                other.forget()
        return await super().append(stream, values, partition=partition)


async def test_what_was_withdrawn_while_the_cache_was_emptied_goes_with_the_next_start(tmp_path: Path) -> None:
    home, draft, clock, ready = tmp_path / "home", one(), Clock(NOW), asyncio.Event()
    async with running(home) as federation:
        envelope, _ = await publish(federation, draft)
        await federation.settled()
        assert is_there(home, draft)
    owner = world.owner(home / "operator", lambda: clock.now)
    everything = Open(world.MEMBERS, world.BUREAUS)
    async with Emptying(home / "bus.db", streams.ROUTER, everything, lambda: clock.now) as bus, asyncio.timeout(60):
        working = asyncio.ensure_future(up.run(owner, bus, ready.set))
        await ready.wait()
        bus.cache = owner.register
        await publish(Federation(home / "operator", bus, clock), withdrawal(envelope))
        with pytest.raises(FencedError):
            await working
    async with running(home) as federation:
        await gone(federation, home, draft.needles)
