"""A cache of the register that another process empties or takes over: nothing is judged on what is left of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from broker import notes, up
from broker.begin import begin
from broker.begun import ENDED, ORIGIN
from broker.bus import Record, Writes
from broker.errors import (
    FencedError,
    InputLostError,
    NothingLostError,
    RegisterEmptiedError,
    UnavailableError,
    ValiseError,
)
from broker.notes import Checkpoint, Vkey
from broker.owner import NONE, Owner
from broker.register import Register
from broker.resume import Outside, Restored, resume
from broker.rules import PolicySet
from broker.streams import REGISTER, ROUTED, notices, receipts
from broker.trail import Trail
from tests import federation as world
from tests.fake_bus import Clock, FakeBus, FakeShard, Memory, still_owned
from tests.federation import Federation
from tests.making import NOW, Draft

TO = "EUROPOL/analysis"


def nothing() -> None:
    """What happens where nothing does."""


class Bus(FakeBus):
    """A bus on which something else happens once."""

    before_own: Callable[[], None] = staticmethod(nothing)
    after_own: Callable[[], Awaitable[None]] = staticmethod(still_owned)
    after_now: Callable[[], Awaitable[None]] = staticmethod(still_owned)
    after_commit: Callable[[], Awaitable[None]] = staticmethod(still_owned)

    @asynccontextmanager
    async def _own(self, shard: int, inputs: Sequence[str]) -> AsyncIterator[FakeShard]:
        self.before_own()
        async with super()._own(shard, inputs) as owned:
            commit, now = owned.commit, owned.now
            comes, self.after_own = self.after_own, still_owned
            await comes()

            async def committed(taken: Sequence[Record], writes: Writes) -> Mapping[str, int]:
                last = await commit(taken, writes)
                happens, self.after_commit = self.after_commit, still_owned
                await happens()
                return last

            async def asked() -> int:
                at = await now()
                happens, self.after_now = self.after_now, still_owned
                await happens()
                return at

            owned.now = asked  # type: ignore[method-assign]
            owned.commit = committed  # type: ignore[method-assign]
            yield owned


@pytest.fixture
async def federation(tmp_path: Path) -> Federation:
    """A federation whose broker has sent out one notice, and is down."""
    clock = Clock(NOW)
    made = Federation(tmp_path, Bus(Memory(clock=clock)), clock)
    await world.write_versions(made.bus, world.directory(), PolicySet.packaged())
    async with running(made):
        await made.adopted()
        await made.settled(TO)
    return made


def running(federation: Federation) -> AbstractAsyncContextManager[None]:
    return world.running(federation.folder, federation.bus, lambda: federation.clock.now)


def owner(federation: Federation) -> Owner:
    return world.owner(federation.folder, lambda: federation.clock.now)


def cache(federation: Federation) -> Register:
    """The cache, as another process opens it."""
    return Register(owner(federation).register)


async def emptied(federation: Federation) -> None:
    with closing(cache(federation)) as other:
        await other.take_over(still_owned)
        other.forget()


async def emptied_and_filled(federation: Federation) -> None:
    """Let a third process fill it to the same place."""
    found = await federation.bus.read(REGISTER, 0, limit=10_000)
    with closing(cache(federation)) as other:
        place = await other.take_over(still_owned)
        other.forget()
        other.restore([(each.key, each.value) for each in found], place)
        assert other.place == place


async def one_more(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to(TO).numbered(9, b"one more").envelope())


async def ends(federation: Federation, meanwhile: Callable[[], Awaitable[None]], error: type[ValiseError]) -> None:
    """Let something happen while a broker works; it ends by what it takes in or looks at next."""
    ready = asyncio.Event()
    working = asyncio.ensure_future(up.run(owner(federation), federation.bus, ready.set))
    async with asyncio.timeout(60):
        await ready.wait()
        await meanwhile()
        await one_more(federation)
        with pytest.raises(error):
            await working


async def fenced(federation: Federation, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Let something happen to the cache of a broker that works; it ends as fenced."""
    await ends(federation, meanwhile, FencedError)


async def numbers_go_on(federation: Federation) -> None:
    """The next owner numbers deliveries on from those that were given; the notice comes once."""
    async with running(federation):
        found = await federation.inbox(TO, 2)
        await federation.settled(TO)
        found = await federation.inbox(TO, 3)
    assert [each.delivery.delivery_number for each in found] == [1, 2, 3]


@pytest.mark.parametrize("happens", [emptied, emptied_and_filled])
async def test_nothing_is_committed_that_was_judged_on_a_cache_emptied_meanwhile(
    federation: Federation, happens: Callable[[Federation], Awaitable[None]]
) -> None:
    resumed = len(await federation.leaves()) + 1
    await fenced(federation, lambda: happens(federation))
    assert len(await federation.leaves()) == resumed
    await numbers_go_on(federation)


async def test_a_cache_emptied_while_a_step_is_committed_ends_the_owner_with_that_step_on_record(
    federation: Federation,
) -> None:
    bus, resumed = cast("Bus", federation.bus), len(await federation.leaves()) + 1

    async def at_the_next_commit() -> None:
        bus.after_commit = lambda: emptied(federation)

    await fenced(federation, at_the_next_commit)
    assert len(await federation.leaves()) == resumed + 1
    await numbers_go_on(federation)


async def test_a_newcomer_that_cannot_own_the_shard_leaves_the_living_owners_cache_alone(
    federation: Federation,
) -> None:
    bus = cast("Bus", federation.bus)

    def unavailable() -> None:
        raise UnavailableError

    bus.before_own = unavailable
    with closing(cache(federation)) as living:
        place = await living.take_over(still_owned)
        living.put("next/AT/ncb", b"\2")
        changed = living.end_step()
        last = await bus.append(REGISTER, [(b"next/AT/ncb", b"\2")])  # committed, and not settled yet
        with pytest.raises(UnavailableError):
            await up._own_and_work(owner(federation), bus, nothing, up.Apart(int))
        assert living.place == place
        living.settle(changed, last + 1)


async def test_a_newcomer_that_has_lost_the_shard_already_leaves_the_living_owners_cache_alone(
    federation: Federation,
) -> None:
    bus, ready = cast("Bus", federation.bus), asyncio.Event()
    living = list[asyncio.Future[None]]()

    async def another_comes() -> None:
        living.append(asyncio.ensure_future(up.run(owner(federation), bus, ready.set)))
        await ready.wait()

    async with asyncio.timeout(60):
        bus.after_own = another_comes
        with pytest.raises(FencedError):
            await up.run(owner(federation), bus, nothing)
        await one_more(federation)
        assert [each.delivery.delivery_number for each in await federation.inbox(TO, 2)] == [1, 2]
    assert not living[0].done()
    living[0].cancel()
    await asyncio.gather(*living, return_exceptions=True)


async def test_what_was_restored_from_a_cache_emptied_meanwhile_is_not_put_in_force(federation: Federation) -> None:
    home = owner(federation)

    class Emptied(Register):
        def get(self, key: str) -> bytes | None:
            with closing(sqlite3.connect(home.register)) as other, other:
                for table in ("entry", "stamp"):
                    other.execute(f"DELETE FROM {table}")
            return super().get(key)

    async with federation.bus.own(0, []) as shard:
        with closing(Emptied(home.register)) as register, pytest.raises(FencedError):
            await up.restored(register, federation.bus, home, shard)


@pytest.mark.parametrize("place", [0, 1_000_000])
async def test_a_cache_that_is_behind_or_of_another_past_keeps_no_broker_from_starting(
    federation: Federation, place: int
) -> None:
    with closing(cache(federation)) as other:
        await other.take_over(still_owned)
        other.forget()
        other.restore([(b"version/directory", b"of another past")], place)
    await one_more(federation)
    await numbers_go_on(federation)


async def runs(federation: Federation) -> None:
    await up.run(owner(federation), federation.bus, nothing)


async def resumes(federation: Federation) -> None:
    home = owner(federation)
    what = Restored(home.trail, home.records, home.register, home.origin, home.shard, home.key)
    await resume(what, federation.bus, _seen(federation), NONE, _silent)


async def begins_anew(federation: Federation) -> None:
    trail = Trail.open(federation.trail, world.ORIGIN)
    beyond = [Outside(Checkpoint(trail.origin, trail.size + 1, bytes(32)), "AT")]
    await begin(owner(federation), federation.bus, lambda _: beyond, lambda _: None, _silent)


@pytest.mark.parametrize("start", [runs, resumes, begins_anew])
async def test_on_a_register_whose_stream_was_emptied_nothing_goes_on_and_the_cache_stays(
    federation: Federation, start: Callable[[Federation], Awaitable[None]]
) -> None:
    """Else it would begin with nothing in force, and a withdrawal would reach nobody."""
    memory = cast("Bus", federation.bus).memory
    memory.lose(REGISTER)
    with closing(cache(federation)) as living:
        place = await living.take_over(still_owned)
        owned = dict(memory.epochs)
        with pytest.raises(RegisterEmptiedError, match="register names no directory and no policies"):
            await start(federation)
        living.check_ours()
        assert (living.place, memory.epochs, list(federation.trail.glob(f"{ENDED}*"))) == (place, owned, [])


async def test_on_an_emptied_register_no_broker_begins_whose_cache_is_lost_too(federation: Federation) -> None:
    cast("Bus", federation.bus).memory.lose(REGISTER)
    owner(federation).register.unlink()
    with pytest.raises(RegisterEmptiedError):
        await runs(federation)


def _seen(federation: Federation) -> Callable[[Vkey], list[Outside]]:
    trail = Trail.open(federation.trail, world.ORIGIN)
    return lambda _: [Outside(Checkpoint(trail.origin, trail.size, trail.root), "AT")]


async def _silent() -> None:
    """Leave no room."""


@pytest.mark.parametrize("stream", [notices("AT"), ROUTED])
async def test_a_stream_that_was_made_again_is_gone_on_with_by_the_operators_word_though_its_place_went_with_it(
    federation: Federation, stream: str
) -> None:
    home, memory = owner(federation), cast("Bus", federation.bus).memory
    memory.lose(stream)
    for lost in ({}, {stream: 5}, {receipts("AT"): 0}):
        with pytest.raises(InputLostError, match="was lost, and made again") as stopped:
            await up.run(replace(home, lost=lost), federation.bus, nothing)
        assert (stopped.value.stream, stopped.value.offset) == (stream, 0)
    before = len(await federation.leaves())
    ready = asyncio.Event()
    working = asyncio.ensure_future(up.run(replace(home, lost={stream: 0}), federation.bus, ready.set))
    async with asyncio.timeout(60):
        await ready.wait()
        await one_more(federation)
        assert [each.delivery.delivery_number for each in await federation.inbox(TO, 2)] == [1, 2]
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert len(await federation.leaves()) == before + 2  # begun again, and one more


@pytest.mark.parametrize(("stream", "error"), [(notices("AT"), InputLostError), (REGISTER, RegisterEmptiedError)])
async def test_a_stream_that_is_made_again_ends_the_broker_that_runs_on_it(
    federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    stream: str,
    error: type[InputLostError | RegisterEmptiedError],
) -> None:
    """What comes in an input before the place that was reached in the one before would be passed over in silence.

    Of `register` the cache goes on; whoever has none would begin with nothing.
    """
    monkeypatch.setattr(up, "OURS_S", 0)
    monkeypatch.setattr(up, "AGAIN_S", 0)

    async def made_again() -> None:
        cast("Bus", federation.bus).memory.lose(stream)

    await ends(federation, made_again, error)


async def test_on_a_register_that_was_emptied_and_has_grown_since_no_broker_begins(federation: Federation) -> None:
    """The cache went on with it, and is behind its end, as ever."""
    memory = cast("Bus", federation.bus).memory
    async with running(federation):
        memory.lose(REGISTER)
        await one_more(federation)
        await federation.inbox(TO, 2)
    with pytest.raises(RegisterEmptiedError):
        await runs(federation)


async def test_that_what_is_sent_was_lost_is_said_once(federation: Federation) -> None:
    """Also where nothing was sent since: a supervisor starts the broker again without the operator's word."""
    memory = cast("Bus", federation.bus).memory
    memory.lose(ROUTED)
    with pytest.raises(InputLostError):
        await runs(federation)
    for lost in ({ROUTED: 0}, {}):
        ready = asyncio.Event()
        working = asyncio.ensure_future(up.run(replace(owner(federation), lost=lost), federation.bus, ready.set))
        async with asyncio.timeout(60):
            await ready.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    memory.lose(ROUTED)
    with pytest.raises(InputLostError):
        await runs(federation)


async def test_where_all_places_are_lost_no_stream_is_called_so(federation: Federation) -> None:
    """All is taken once more then, and called repeated."""
    cast("Bus", federation.bus).memory.places.clear()
    async with running(federation):
        await federation.settled(TO)
    assert "repeated" in [each.kind for each in await federation.leaves()]


async def test_an_input_that_is_gone_rings_once_while_the_others_are_taken_in(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "OURS_S", 0)
    memory = cast("Bus", federation.bus).memory
    memory.gone = frozenset({receipts("LV")})
    with capture_logs() as said:
        async with running(federation):
            await federation.settled(TO)
    rung = [each for each in said if each["event"] == "inputs.gone"]
    assert [(each["code"], each["alarm"], receipts("LV") in each["said"]) for each in rung] == [
        ("topic-gone", True, True)
    ]
    assert [each.delivery.delivery_number for each in await federation.inbox(TO)] == [1, 2]


async def test_a_new_log_that_is_refused_leaves_the_cache_alone(federation: Federation) -> None:
    with closing(cache(federation)) as living:
        place, numbers = await living.take_over(still_owned), living.keys("next/")
        with pytest.raises(NothingLostError):
            await begin(owner(federation), federation.bus, _seen(federation), lambda _: None, _silent)
        living.check_ours()
        assert (living.place > 0, living.place, living.keys("next/")) == (True, place, numbers)


async def test_a_log_that_another_goes_on_with_meanwhile_is_not_ended(federation: Federation) -> None:
    """A supervisor starts the broker anew; the next log would name an end that the old one did not have."""
    home, bus = owner(federation), cast("Bus", federation.bus)
    trail = Trail.open(federation.trail, world.ORIGIN)
    beyond = [Outside(Checkpoint(trail.origin, trail.size + 1, bytes(32)), "AT")]

    def overtaken(_: Sequence[str]) -> None:
        bus.memory.epochs[0] += 1

    with pytest.raises(FencedError):
        await begin(home, bus, lambda _: beyond, overtaken, _silent)
    assert not (federation.trail / ORIGIN).exists()
    assert not list(federation.trail.glob(f"{ENDED}*"))


async def test_a_resume_empties_the_cache_only_while_the_shard_is_its_own(federation: Federation) -> None:
    home, bus, seen = owner(federation), cast("Bus", federation.bus), _seen(federation)
    what = Restored(home.trail, home.records, home.register, home.origin, home.shard, home.key)

    with closing(cache(federation)) as successor:
        await successor.take_over(still_owned)

        async def overtaken() -> None:
            bus.memory.epochs[0] += 1  # stopped once it owns the shard; woken once a broker works

        bus.after_own = overtaken
        with pytest.raises(FencedError):
            await resume(what, bus, seen, NONE, _silent)
        successor.check_ours()
        await resume(what, bus, seen, NONE, _silent)
        assert successor.place == 0
        with pytest.raises(FencedError):
            successor.check_ours()
    async with running(federation):
        await federation.settled(TO)
        assert [each.delivery.delivery_number for each in await federation.inbox(TO)] == [1, 2]


async def test_a_resume_leaves_to_a_broker_that_starts_meanwhile_what_that_commits(federation: Federation) -> None:
    """Its supervisor starts it anew once resume has fenced it; whose step another seals ends as fenced, once more."""
    home = owner(federation)
    what = Restored(home.trail, home.records, home.register, home.origin, home.shard, home.key)
    before = Trail.open(federation.trail, world.ORIGIN).size
    started: list[int] = []

    async def leave_room() -> None:
        async with running(federation):
            await federation.settled(TO)
        started.append(Trail.open(federation.trail, world.ORIGIN).size)

    found = await resume(what, cast("Bus", federation.bus), _seen(federation), NONE, leave_room)
    assert found.size == before
    assert [size > before for size in started] == [True]
    assert Trail.open(federation.trail, world.ORIGIN).size == started[0]


@pytest.mark.parametrize("new_log", [False, True])
async def test_a_successor_that_comes_after_the_answer_that_the_shard_is_ours_keeps_its_cache(
    federation: Federation, *, new_log: bool
) -> None:
    home, bus = owner(federation), cast("Bus", federation.bus)
    trail = Trail.open(federation.trail, world.ORIGIN)
    with closing(cache(federation)) as successor:
        await successor.take_over(still_owned)
        successor._db.execute("PRAGMA busy_timeout = 0")

        async def overtaken() -> None:
            bus.memory.epochs[0] += 1
            await successor.take_over(still_owned)  # at once: whoever is stopped here keeps no file

        bus.after_now = overtaken
        beyond = [Outside(Checkpoint(trail.origin, trail.size + 1, bytes(32)), "AT")]
        what = Restored(home.trail, home.records, home.register, home.origin, home.shard, home.key)
        doing: Coroutine[None, None, object] = (
            begin(home, bus, lambda _: beyond, lambda _: None, _silent)
            if new_log
            else resume(what, bus, _seen(federation), NONE, _silent)
        )
        with pytest.raises(FencedError):
            await doing
        assert bus.after_now is still_owned
        successor.check_ours()


async def test_a_new_log_goes_on_where_nothing_was_ever_sent(tmp_path: Path) -> None:
    """It lets the numbers of bureaus go on that nothing here knows; that is no delivery, and `routed` lost none."""
    made = Federation(tmp_path, Bus(Memory(clock=(clock := Clock(NOW)))), clock)
    await world.write_versions(made.bus, world.directory(), PolicySet.packaged())
    async with running(made):
        await made.adopted()
    home, trail = owner(made), Trail.open(made.trail, world.ORIGIN)
    head = Checkpoint(trail.origin, trail.size + 1, bytes(32))
    seen = Outside(head, "AT", notes.sign_checkpoint(head, home.key))
    await begin(home, made.bus, lambda _: [seen], lambda _: None, _silent)
    ready = asyncio.Event()
    working = asyncio.ensure_future(up.run(owner(made), made.bus, ready.set))
    async with asyncio.timeout(60):
        await asyncio.wait([working, asyncio.ensure_future(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert not working.done() or working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
