"""A notice is judged at one `now`: what a day changes, it changes from that day on, and for nothing decided before."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from broker import codec, members, streams, up
from broker.directory import NO_ANNEX
from broker.errors import UnavailableError
from broker.notice import DecisionRecord, Entry, Envelope, Header, Routed, Row
from broker.recorded import Recorded, remember
from broker.redecide import Grounds, Repetition, redecide
from broker.rules import PolicySet
from tests import federation as world
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import Federation, Opened
from tests.making import NOW, Draft, reference

DAY = 86_400_000
TO = "GE/ncb"
POLICIES = PolicySet.packaged()


@dataclass
class Times:
    """A federation whose clock the test moves."""

    federation: Federation
    number: int = 0

    def at(self, now: int) -> None:
        """Move the bus's clock."""
        self.federation.clock.now = now

    async def publish(self, draft: Draft, corrects: Envelope | None = None) -> Envelope:
        """Publish, perhaps as a correction, and wait until it is decided."""
        self.number += 1
        made = draft.but(record="r-1", version=self.number).numbered(self.number)
        if corrects:
            made = made.but(references=(reference(corrects, "corrects"),))
        envelope = made.envelope()
        await self.federation.publish(envelope)
        await self.federation.settled()
        return envelope

    async def received(self, bureau: str = TO) -> list[Opened]:
        """What a bureau has got so far."""
        return await self.federation.inbox(bureau)

    async def decisions(self) -> list[Recorded]:
        """Everything decided on the notices of this test, as the trail remembers it."""
        found = await self.federation._records(streams.TRAIL, 0)
        entries = [codec.decode(Entry, value) for key, value in found if key == b"entry"]
        every = (remember(each.leaf_number, each.leaf, each.decision_salt, each.decision) for each in entries)
        return [each for each in every if each and each.routing.series == b"series-1"]


@pytest.fixture
def times(federation: Federation) -> Times:
    """The federation of these tests."""
    return Times(federation)


def again(recorded: Recorded) -> Repetition:
    """Repeat a decision with Cedar itself."""
    directory = members.parse(members.canonical(world.directory()))
    return redecide(recorded, Grounds(directory, NO_ANNEX, POLICIES, {}))


async def test_an_expired_notice_is_rejected_from_its_last_moment_on(times: Times) -> None:
    await times.publish(Draft("AT/ncb").to(TO).but(expires=NOW + DAY))
    times.at(NOW + DAY - 1)
    await times.publish(Draft("AT/ncb").to(TO).but(expires=NOW + DAY))
    times.at(NOW + DAY)
    await times.publish(Draft("AT/ncb").to(TO).but(expires=NOW + DAY))
    assert len(await times.received()) == 2
    assert [each.code for each in await times.federation.leaves() if each.kind == "rejected"] == ["already-expired"]


@pytest.mark.parametrize("field", ["retain_until", "review_due"])
async def test_after_its_day_nothing_is_delivered_until_a_correction_sets_a_later_one(times: Times, field: str) -> None:
    first = await times.publish(Draft("AT/ncb").to(TO).but(**{field: NOW + DAY}))
    times.at(NOW + DAY - 1)
    second = await times.publish(Draft("AT/ncb").to(TO).but(**{field: NOW + DAY}), corrects=first)
    assert len(await times.received()) == 2

    times.at(NOW + DAY)
    third = await times.publish(Draft("AT/ncb").to(TO).but(**{field: NOW + DAY}), corrects=second)
    assert len(await times.received()) == 2

    await times.publish(Draft("AT/ncb").to(TO).but(**{field: NOW + 2 * DAY}), corrects=third)
    assert len(await times.received()) == 3


def _as_once(value: bytes) -> bytes:
    """What a broker of before kept of a route, of its ends the first only."""
    routed = codec.decode(Routed, value)
    header = codec.decode(DecisionRecord, routed.decision).header
    return codec.encode(replace(routed, expires=codec.decode(Header, header).expires if header else None))


@pytest.mark.parametrize("field", ["expires", "retain_until", "review_due"])
async def test_what_runs_out_before_it_leaves_arrives_with_nothing_open_after_a_restart_too(
    tmp_path: Path, field: str
) -> None:
    bus, own = FakeBus(Memory(clock=Clock(NOW))), Clock(NOW)
    await world.write_versions(bus, world.directory(), POLICIES)
    made, short = Federation(tmp_path, bus, Clock(NOW)), Draft("AT/ncb").to(TO).but(**{field: NOW + DAY})
    async with world.running(tmp_path, bus, lambda: own.now):
        await made.adopted()
        await made.publish(short.numbered(1).envelope())
        await made.inbox(TO, 1)
        own.now = NOW + DAY  # from here on all is decided in time, by the bus's clock, and leaves too late
        await made.publish(short.numbered(2).envelope())
        await made.inbox(TO, 2)
    await bus.keep_place("distribute", streams.ROUTED, 0)
    routed = bus.memory.partition(streams.ROUTED, 0)
    routed.records = [replace(each, value=_as_once(each.value or b"")) for each in routed.records]
    bus.memory.clock.now = own.now
    async with world.running(tmp_path, bus, lambda: own.now):
        copies = await made.inbox(TO, 4)
    assert [len(each.shown) for each in copies] == [2, 0, 0, 0]
    assert {codec.decode(Row, each.delivery.row).shown for each in copies} == {0b110}


async def test_the_eighteenth_birthday_decides_again_when_the_notice_is_corrected(times: Times) -> None:
    child = Draft("AT/ncb").to("GE").routed(minor="yes")
    first = await times.publish(child)
    times.at(NOW + DAY)
    await times.publish(Draft("AT/ncb").to("GE").routed(minor="no"), corrects=first)
    before, after = await times.received()
    assert before.shown == {"warnings"}
    assert after.shown == {"identity", "warnings"}
    assert after.delivery.replaces == (before.delivery.delivery_number,)


async def test_until_it_is_corrected_a_birthday_changes_nothing_that_was_delivered(times: Times) -> None:
    await times.publish(Draft("AT/ncb").to("GE").routed(minor="yes"))
    times.at(NOW + 20 * 365 * DAY)
    await times.publish(Draft("AT/ncb").to("GE").routed(minor="unknown"))
    assert [each.shown for each in await times.received()] == [{"warnings"}, {"warnings"}]


async def test_what_was_decided_is_decided_the_same_however_late_it_is_repeated(times: Times) -> None:
    first = await times.publish(Draft("AT/ncb").to(TO).but(retain_until=NOW + DAY, review_due=NOW + DAY))
    times.at(NOW + 3 * DAY)
    await times.publish(Draft("AT/ncb").to(TO).routed(minor="yes").but(retain_until=NOW + DAY), corrects=first)
    before, after = await times.decisions()
    assert (before.leaf.now, after.leaf.now) == (NOW, NOW + 3 * DAY)
    assert [len(each.record.rows) for each in (before, after)] == [1, 0]
    assert again(before).same
    assert again(after).same


async def test_a_backlog_is_judged_at_the_time_at_which_the_bus_took_each_notice(times: Times) -> None:
    draft = Draft("AT/ncb").to(TO).but(retain_until=NOW + DAY)
    await times.federation.publish(draft.numbered(101).envelope())
    times.at(NOW + DAY)
    await times.federation.publish(draft.numbered(102).envelope())
    await times.federation.settled()
    assert len(await times.received()) == 1


def test_a_clock_that_is_set_while_the_broker_runs_rings_once_each_time() -> None:
    """Set ahead it makes notices run out, set back it makes what is due wait: nobody had heard of it."""
    hour, clock, steady = 3_600_000, Clock(NOW), Clock(0)
    moved = up.Moved(lambda: clock.now, lambda: steady.now / 1000)
    with capture_logs() as logged:
        for step in (0, 299_000, DAY, 0, -2 * hour, 2_000):
            clock.now += step + hour
            steady.now += hour
            with pytest.raises(UnavailableError) if abs(step) > hour else nullcontext():  # to be measured anew
                moved.look()
    structlog.reset_defaults()
    assert [(each["event"], each["by_ms"]) for each in logged] == [
        ("clock.moved", 299_000 + DAY), ("clock.moved", -2 * hour),
    ]  # fmt: skip


async def test_a_broker_whose_clock_is_not_that_of_the_bus_says_so_at_its_start(tmp_path: Path) -> None:
    bus = FakeBus(Memory(clock=Clock(NOW)))
    await world.write_versions(bus, world.directory(), POLICIES)
    with capture_logs() as logged:
        for ahead in (0, 2 * DAY, -DAY):
            async with world.running(tmp_path, bus, partial(int, NOW + ahead)):
                pass
    structlog.reset_defaults()
    assert [each["bus_ahead_ms"] for each in logged if each["event"] == "clock.apart"] == [-2 * DAY, DAY]


def test_a_clock_that_is_apart_rings_once_each_time_and_not_whenever_the_shard_is_owned() -> None:
    clock = Clock(NOW)
    apart = up.Apart(lambda: clock.now)
    with capture_logs() as logged:
        for ahead in (299_000, DAY, DAY + 1_000, 2 * DAY, 0, 2 * DAY):
            clock.now = NOW + ahead
            apart.measure(NOW)
            assert apart.now() == NOW
    structlog.reset_defaults()
    assert [each["bus_ahead_ms"] for each in logged] == [-DAY, -2 * DAY, -2 * DAY]


@pytest.mark.parametrize("apart", [-2 * DAY, 2 * DAY])
async def test_what_runs_out_does_so_by_the_time_of_the_bus_whatever_the_brokers_clock_says(
    tmp_path: Path, apart: int
) -> None:
    """A clock that was ahead emptied what was in force by the time that stands in its leaf."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(bus, world.directory(), POLICIES)
    made, short = Federation(tmp_path, bus, clock), Draft("AT/ncb").to(TO).but(expires=NOW + DAY)
    async with world.running(tmp_path, bus, lambda: clock.now + apart):
        await made.adopted()
        await made.publish(short.numbered(1).envelope())
        await made.inbox(TO, 1)
    await bus.keep_place("distribute", streams.ROUTED, 0)
    clock.now = NOW + DAY
    async with world.running(tmp_path, bus, lambda: clock.now + apart):
        copies = await made.inbox(TO, 2)
    assert [len(each.shown) for each in copies] == [2, 0]


async def test_a_clock_set_back_takes_no_leaf_back_not_even_over_a_restart(tmp_path: Path) -> None:
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(bus, world.directory(), POLICIES)
    times = list[int]()
    for turn in range(3):
        async with world.running(tmp_path, bus, lambda: clock.now):
            federation = Federation(tmp_path, bus, clock)
            await federation.adopted()
            for number in (1, 2):
                await federation.publish(Draft("AT/ncb").to(TO).numbered(2 * turn + number).envelope())
                await federation.inbox(TO, 2 * turn + number)
                clock.now -= DAY // 4
            times = [each.now for each in await federation.leaves()]
    assert times == sorted(times)
    assert times[-1] == NOW
    assert len(times) >= 9
