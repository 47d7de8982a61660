"""What `routed` has lost waits for the operator's word, and neither step nor start has too much on its way at once."""

from __future__ import annotations

from typing import Any

import pytest

from broker import codec, streams
from broker.bus import Record
from broker.distribute import GROUP, Distribute, parts
from broker.errors import InputLostError
from broker.handover import COPIES, at_once
from broker.notice import DecisionRecord, Leaf, Recipient, Routed
from tests.fake_bus import FakeBus
from tests.making import Draft

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


@pytest.mark.parametrize(("bureaus", "records"), [(0, 140), (27, 140), (142, 140), (1_000, 20), (50_000, 1)])
def test_a_step_takes_fewer_records_where_each_may_go_to_many(bureaus: int, records: int) -> None:
    assert at_once(140, bureaus) == records
    assert records * bureaus <= COPIES or records == 1


def routed(number: int, rows: int) -> Record:
    leaf = Leaf("routed", 1, None, bytes(32), None, 0, bytes(32), bytes(32), bytes(32), bytes(32))
    recipients = tuple(Recipient(index, f"M{index}/ncb", 0, (), (), 1) for index in range(rows))
    envelope = codec.encode(Draft("AT/ncb").envelope())
    decision = DecisionRecord("notices.at", 0, number, 1, bytes(32), seed=bytes(32), depth=5, rows=recipients)
    kept = Routed(number, codec.encode(leaf), bytes(32), codec.encode(decision), envelope, None, (), b"")
    return Record(streams.ROUTED, 0, number, 1, b"", codec.encode(kept))


def test_a_start_sends_no_more_at_once_than_a_step_brings() -> None:
    records = [routed(number, rows) for number, rows in enumerate((3, 3, 9, 0, 2))]
    found = [([each.leaf_number for each in routes], place) for routes, place in parts(records, 6)]
    assert found == [([0, 1], 2), ([2], 3), ([3, 4], 5)]
    assert len(list(parts(records))) == 1
