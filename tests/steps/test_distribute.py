"""What `routed` has lost is never passed over by itself, and what was sent long ago is not called lost."""

from __future__ import annotations

from typing import Any

import pytest

from broker import streams
from broker.distribute import GROUP, Distribute
from broker.errors import InputLostError
from tests.fake_bus import FakeBus

UNUSED: Any = None


def with_place(place: int, start: int, end: int) -> FakeBus:
    bus = FakeBus()
    for number in range(end):
        bus.memory.put(streams.ROUTED, 0, bytes([number]), b"")
    bus.memory.cut(streams.ROUTED, start)
    bus.memory.places[GROUP, streams.ROUTED, 0] = place
    return bus


def distribute(bus: FakeBus, lost: dict[str, int]) -> Distribute:
    return Distribute(bus, UNUSED, UNUSED, 0, lambda: 0, lost)


async def test_a_stream_of_which_all_was_sent_may_be_gone_to_the_mark_of_its_last_commit() -> None:
    await distribute(with_place(3, start=4, end=4), {}).catch_up()


@pytest.mark.parametrize(("place", "start", "end", "goes_on"), [(2, 4, 4, 4), (9, 0, 4, 4)])
async def test_what_is_lost_of_it_waits_for_the_operators_word(place: int, start: int, end: int, goes_on: int) -> None:
    bus = with_place(place, start, end)
    for other in ({}, {streams.ROUTED: place + 1}, {streams.TRAIL: place}):
        with pytest.raises(InputLostError) as stopped:
            await distribute(bus, other).catch_up()
        assert (stopped.value.stream, stopped.value.offset) == (streams.ROUTED, place)
    await distribute(bus, {streams.ROUTED: place}).catch_up()
    assert await bus.place(GROUP, streams.ROUTED) == goes_on
