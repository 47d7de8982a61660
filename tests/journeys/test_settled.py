"""Whoever waits until a federation has come to rest is not told so before what was decided last has gone out."""

from __future__ import annotations

from broker import streams
from broker.bus import Record
from broker.distribute import GROUP
from cli.stage import _passed
from tests.fake_bus import FakeBus

SHOWN, SENT = 3, 5
"""With which look at the end of the stream its one record is shown, and with which the broker has sent it out."""


class Late(FakeBus):
    """Shows a step a moment after its commit, as Kafka does."""

    looks = 0

    async def end(self, stream: str, *, partition: int = 0) -> int:
        self.looks += 1
        return await super().end(stream, partition=partition) - (self.looks < SHOWN)

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        found = await super().read(stream, offset, limit=limit, wait=wait, partition=partition)
        return found if self.looks >= SHOWN else []

    async def place(self, group: str, stream: str, *, partition: int = 0) -> int:
        if self.looks >= SENT:
            await self.keep_place(group, stream, 1, partition=partition)
        return await super().place(group, stream, partition=partition)


async def test_a_step_that_is_still_to_be_shown_has_not_gone_out() -> None:
    bus = Late()
    await bus.append(streams.ROUTED, [(b"", b"")])
    await _passed(bus, GROUP, streams.ROUTED)
    assert (bus.looks, await bus.place(GROUP, streams.ROUTED)) == (SENT, 1)
