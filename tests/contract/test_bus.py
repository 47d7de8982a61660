"""The bus's contract (broker/bus.py), on the embedded bus and on Kafka."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.helpers import create_ssl_context
from confluent_kafka import Producer

from broker import kafka as kafka_bus
from broker import kafka_read, sqlite_file, sqlite_pages, streams
from broker.bus import MAX_RECORD, Bus, Copies, Owned, Record, Shard, Writes
from broker.errors import (
    ConfigurationError,
    FencedError,
    ForbiddenStreamError,
    InputLostError,
    OffsetGoneError,
    TooLargeError,
    UnavailableError,
)
from broker.fair import shares
from broker.kafka import KafkaBus
from broker.kafka_admin import client_settings
from broker.sqlite import SqliteBus
from broker.sqlite_batch import Copy
from broker.sqlite_file import Transaction, Writer
from broker.sqlite_pages import Table, connect, keyed, select
from tests.kafka_world import KafkaWorld, running_kafka

MEMBERS = tuple("ORG" + "".join(letters) for letters in itertools.product("ABCDEF", "ABCDEFG"))
WORLD = streams.World(
    MEMBERS,
    tuple(f"{member}/{bureau}" for member in MEMBERS for bureau in ("ncb", "border")),
    frozenset({f"{MEMBERS[0]}/ncb"}),
)
DAY = streams.DAY_MS
PATIENCE_S = 60.0
"""How long what must come may take, from nodes that get the processor late."""


class Stage(Protocol):
    """A bus for one test, opened by any principal; `member` names one that no other test has used."""

    def open(self, principal: str, owned: Owned | None = None) -> AbstractAsyncContextManager[Bus]: ...

    def member(self) -> str: ...

    async def lose(self, stream: str, before: int) -> None:
        """Let the stream forget what lies before an offset, as its retention does."""
        ...


@dataclass
class Embedded:
    path: Path
    now: int = 1_795_000_000_000
    members: Iterator[str] = field(default_factory=lambda: iter(MEMBERS[1:]))

    def open(self, principal: str, owned: Owned | None = None) -> AbstractAsyncContextManager[Bus]:
        return SqliteBus(self.path, principal, WORLD, lambda: self.now, owned=owned)

    def opened(self) -> SqliteBus:
        """The router's, for what only this bus has."""
        return SqliteBus(self.path, streams.ROUTER, WORLD, lambda: self.now)

    def member(self) -> str:
        return next(self.members)

    async def lose(self, stream: str, before: int) -> None:
        async with self.open(streams.ROUTER) as bus:
            assert await bus.read(stream, before)
            self.now += 31 * DAY
            with sqlite3.connect(self.path) as connection:
                (number,) = connection.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchone()
                connection.execute(f"UPDATE s{number} SET at = ? WHERE offset >= ?", (self.now, before))
            connection.close()
            assert await bus.prune() == before


@dataclass
class OnKafka:
    world: KafkaWorld
    members: Iterator[str] = field(default_factory=lambda: iter(MEMBERS[1:]))

    def open(self, principal: str, owned: Owned | None = None) -> AbstractAsyncContextManager[Bus]:
        return KafkaBus(self.world.bootstrap, principal, self.world.pki(principal), WORLD, owned=owned)

    def member(self) -> str:
        return next(self.members)

    async def lose(self, stream: str, before: int) -> None:
        tls = self.world.pki(streams.SETUP)
        context = create_ssl_context(cafile=tls[0], certfile=tls[1], keyfile=tls[2])
        admin = AIOKafkaAdminClient(
            bootstrap_servers=self.world.bootstrap, security_protocol="SSL", ssl_context=context
        )
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(stream, 0): RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()


@pytest.fixture(scope="module")
def kafka() -> Iterator[OnKafka]:
    with running_kafka(WORLD) as world:
        yield OnKafka(world)


@pytest_asyncio.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    if request.param == "kafka":
        yield request.getfixturevalue("kafka")
        return
    embedded = Embedded(tmp_path / "bus.db")
    async with embedded.open(streams.SETUP) as bus:
        await bus.create(list(WORLD.streams()))
    yield embedded


def values(*texts: str) -> list[tuple[bytes, bytes]]:
    return [(text.encode(), text.encode() * 3) for text in texts]


def keys(records: list[Record]) -> list[str]:
    return [record.key.decode() for record in records]


async def give(stage: Stage, member: str, *texts: str) -> int:
    async with stage.open(streams.adapter(member)) as bus:
        return await bus.append(streams.notices(member), values(*texts))


async def take_all(shard: Shard, count: int) -> list[Record]:
    """Take until `count` records came, and then whether there are more."""
    taken: list[Record] = []
    while more := await shard.take(500, PATIENCE_S if len(taken) < count else 0.3):
        taken += more
    return taken


async def read_all(bus: Bus, stream: str, offset: int, count: int) -> list[Record]:
    """Read until `count` records came, and then whether there are more."""
    seen: list[Record] = []
    while page := await bus.read(stream, offset, wait=PATIENCE_S if len(seen) < count else 0):
        seen += page
        offset = page[-1].offset + 1
    return seen


async def test_records_are_read_in_the_order_they_were_appended(stage: Stage) -> None:
    member = stage.member()
    first = await give(stage, member, "a", "b", "c")
    second = await give(stage, member, "d")
    async with stage.open(streams.ROUTER) as bus:
        stream = streams.notices(member)
        records = await read_all(bus, stream, 0, 4)
        assert keys(records) == ["a", "b", "c", "d"]
        assert [record.value for record in records] == [b"aaa", b"bbb", b"ccc", b"ddd"]
        assert [record.offset for record in records] == sorted({record.offset for record in records})
        assert (records[2].offset, records[3].offset) == (first, second)
        assert {(record.stream, record.partition, record.fault) for record in records} == {(stream, 0, "")}
        assert await bus.end(stream) >= second + 1


async def test_a_page_ends_at_its_limit_and_the_next_begins_after_it(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, *(f"{i:04}" for i in range(1_200)))
    seen: list[str] = []
    async with stage.open(streams.ROUTER) as bus:
        offset = 0
        while len(seen) < 1_200:
            page = await bus.read(streams.notices(member), offset, limit=250, wait=PATIENCE_S)
            assert 0 < len(page) <= 250
            seen += keys(page)
            offset = page[-1].offset + 1
        assert await bus.read(streams.notices(member), offset) == []
    assert seen == [f"{i:04}" for i in range(1_200)]


async def test_what_was_acknowledged_is_there_after_opening_again(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, "a")
    await give(stage, member, "b")
    async with stage.open(streams.ROUTER) as bus:
        assert keys(await read_all(bus, streams.notices(member), 0, 2)) == ["a", "b"]


async def test_an_empty_stream_ends_at_0_and_gives_nothing(stage: Stage) -> None:
    member = stage.member()
    async with stage.open(streams.ROUTER) as bus:
        assert await bus.end(streams.notices(member)) == 0
        assert await bus.read(streams.notices(member), 0) == []


async def test_a_wait_ends_when_something_arrives(stage: Stage) -> None:
    member = stage.member()
    async with stage.open(streams.ROUTER) as bus, asyncio.TaskGroup() as group:
        waiting = group.create_task(bus.read(streams.notices(member), 0, wait=2 * PATIENCE_S))
        began = time.monotonic()
        await give(stage, member, "a")
        assert keys(await waiting) == ["a"]
        assert time.monotonic() - began < 2 * PATIENCE_S


async def test_a_wait_for_nothing_has_its_limit(stage: Stage) -> None:
    member = stage.member()
    async with stage.open(streams.ROUTER) as bus:
        began = time.monotonic()
        assert await bus.read(streams.notices(member), 0, wait=0.2) == []
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert await shard.take(10, 0.2) == []
        assert 0.3 < time.monotonic() - began < PATIENCE_S


async def test_what_is_committed_is_read_without_waiting_and_nothing_means_that_nothing_is_there(stage: Stage) -> None:
    """On Kafka the end of each step is a marker, which counts as an offset and is no record."""
    member = stage.member()
    async with stage.open(streams.ROUTER) as bus:
        begin = await bus.end(streams.ROUTED)
        async with bus.own(0, [streams.notices(member)]) as shard:
            for text in ("a", "b", "c"):
                last = await shard.commit([], Writes([(streams.ROUTED, text.encode(), b"")]))
        async with bus.own(0, []):  # Kafka writes the marks of a commit after its answer, and before the next owner
            end = await bus.end(streams.ROUTED)
    for limit in (500, 1):
        async with stage.open(streams.ROUTER) as bus:  # nothing was read ahead
            seen, place = [], begin
            while page := await bus.read(streams.ROUTED, place, limit=limit):
                seen += keys(page)
                place = page[-1].offset + 1
            assert seen == ["a", "b", "c"]
            assert place == last[streams.ROUTED] + 1
            for beyond in range(place, end + 2):
                assert await bus.read(streams.ROUTED, beyond) == []
            assert keys(await bus.read(streams.ROUTED, begin)) == seen


async def test_what_a_step_wrote_counts_as_written_as_soon_as_its_commit_has_answered(stage: Stage) -> None:
    async with stage.open(streams.ROUTER) as bus:
        async with bus.own(0, []) as shard:
            for text in ("a", "b", "c"):
                last = await shard.commit([], Writes([(streams.ROUTED, text.encode(), b"")]))
                assert await bus.written(streams.ROUTED) > last[streams.ROUTED]
        async with bus.own(0, []):
            assert await bus.written(streams.ROUTED) == await bus.end(streams.ROUTED)


async def test_many_appends_at_once_are_all_kept_each_in_its_order(stage: Stage) -> None:
    member = stage.member()
    async with stage.open(streams.adapter(member)) as bus, asyncio.TaskGroup() as group:
        for i in range(40):
            group.create_task(bus.append(streams.notices(member), values(f"{i:02}a", f"{i:02}b")))
    async with stage.open(streams.ROUTER) as bus:
        seen = keys(await read_all(bus, streams.notices(member), 0, 80))
    assert sorted(seen) == sorted(f"{i:02}{part}" for i in range(40) for part in "ab")
    assert all(seen.index(f"{i:02}a") < seen.index(f"{i:02}b") for i in range(40))


async def test_a_step_moves_its_inputs_with_its_outputs(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, *(f"n{i}" for i in range(10)))
    async with stage.open(streams.ROUTER) as bus:
        begin = await bus.end(streams.ROUTED)
        async with bus.own(0, [streams.notices(member)]) as shard:
            taken = await take_all(shard, 10)
            assert len(taken) == 10
            writes = Writes()
            for record in taken[:4]:
                writes.add(streams.ROUTED, record.key, b"routed " + record.key)
                writes.add(streams.TRAIL, record.key, b"leaf")
            last = await shard.commit(taken[:4], writes)
        assert set(last) == {streams.ROUTED, streams.TRAIL}
        routed = await read_all(bus, streams.ROUTED, begin, 4)
        assert keys(routed) == ["n0", "n1", "n2", "n3"]
        assert routed[-1].offset == last[streams.ROUTED]
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert keys(await take_all(shard, 6)) == [f"n{i}" for i in range(4, 10)]


async def test_records_once_taken_may_be_committed_in_several_steps(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, *(f"n{i}" for i in range(9)))
    async with stage.open(streams.ROUTER) as bus:
        begin = await bus.end(streams.ROUTED)
        async with bus.own(0, [streams.notices(member)]) as shard:
            taken = await take_all(shard, 9)
            for part in (taken[:3], taken[3:6], taken[6:]):
                writes = Writes([(streams.ROUTED, record.key, b"") for record in part])
                await shard.commit(part, writes)
            assert await shard.take(10, 0.1) == []
        assert keys(await read_all(bus, streams.ROUTED, begin, 9)) == [f"n{i}" for i in range(9)]


async def test_a_step_may_only_read_or_only_write(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, "a")
    async with stage.open(streams.ROUTER) as bus:
        begin = await bus.end(streams.TRAIL)
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert await shard.commit([], Writes()) == {}
            await shard.commit([], Writes([(streams.TRAIL, b"resumed", b"leaf")]))
            assert await shard.commit(await take_all(shard, 1), Writes()) == {}
        assert keys(await read_all(bus, streams.TRAIL, begin, 1)) == ["resumed"]
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert await shard.take(10, 0.2) == []


async def test_what_an_owner_took_and_did_not_commit_comes_again(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, "a", "b")
    async with stage.open(streams.ROUTER) as bus:
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert keys(await take_all(shard, 2)) == ["a", "b"]
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert keys(await take_all(shard, 2)) == ["a", "b"]


async def test_a_fenced_owner_commits_nothing(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, "a", "b")
    inputs = [streams.notices(member)]
    async with stage.open(streams.ROUTER) as old, stage.open(streams.ROUTER) as new:
        begin = await new.end(streams.ROUTED)
        async with old.own(0, inputs) as fenced:
            taken = await take_all(fenced, 2)
            await fenced.commit(taken[:1], Writes([(streams.ROUTED, b"a", b"by the old")]))
            async with new.own(0, inputs) as owner:
                with pytest.raises(FencedError):
                    await fenced.commit(taken[1:], Writes([(streams.ROUTED, b"b", b"by the old")]))
                again = await take_all(owner, 1)
                assert keys(again) == ["b"]
                await owner.commit(again, Writes([(streams.ROUTED, b"b", b"by the new")]))
                with pytest.raises(UnavailableError):
                    await fenced.commit([], Writes([(streams.ROUTED, b"c", b"by the old")]))
        routed = await read_all(new, streams.ROUTED, begin, 2)
        assert [record.value for record in routed] == [b"by the old", b"by the new"]


async def test_who_is_told_the_time_owned_the_shard_when_it_asked(stage: Stage) -> None:
    inputs = [streams.notices(stage.member())]
    async with stage.open(streams.ROUTER) as old, stage.open(streams.ROUTER) as new, old.own(0, inputs) as fenced:
        await fenced.now()
        async with new.own(0, inputs) as owner:
            with pytest.raises(FencedError):
                await fenced.now()
            await owner.now()


async def test_who_has_lost_a_shard_does_not_take_it_back_though_nothing_told_it(stage: Stage) -> None:
    """Stopped for long, it has timed out, and would own the shard again; so would its next bus."""
    ours = Owned()
    async with stage.open(streams.ROUTER, ours) as old, stage.open(streams.ROUTER) as new:
        for _ in range(2):
            async with old.own(0, []) as shard:
                await shard.commit([], Writes([(streams.REGISTER, b"entry", b"by the old")]))
        async with new.own(0, []) as owner:
            with pytest.raises(FencedError):
                async with old.own(0, []):
                    pass
            await owner.commit([], Writes([(streams.REGISTER, b"entry", b"by the new")]))
            async with stage.open(streams.ROUTER, ours) as anew:
                with pytest.raises(FencedError):
                    async with anew.own(0, []):
                        pass
            await owner.commit([], Writes())


async def test_a_process_that_opens_another_bus_goes_on_with_its_shard(stage: Stage) -> None:
    ours = Owned()
    for _ in range(3):
        async with stage.open(streams.ROUTER, ours) as bus, bus.own(0, []) as shard:
            await shard.commit([], Writes([(streams.REGISTER, b"entry", b"ours")]))


async def test_who_is_cancelled_while_it_owns_a_shard_does_not_take_itself_for_another(stage: Stage) -> None:
    """A broker is cancelled wherever it is when a directory with other streams comes, and opens its next bus."""
    ours = Owned()

    async def owned() -> None:
        async with stage.open(streams.ROUTER, ours) as bus:
            async with bus.own(0, []):
                pass
            begun = asyncio.ensure_future(bus.own(0, []).__aenter__())
            await asyncio.sleep(0)
            begun.cancel()
            with suppress(asyncio.CancelledError):
                await begun

    for _ in range(2):
        await owned()
    async with stage.open(streams.ROUTER, ours) as bus, bus.own(0, []) as shard:
        await shard.commit([], Writes([(streams.REGISTER, b"entry", b"ours")]))


async def test_a_bus_that_was_left_is_not_opened_again(stage: Stage) -> None:
    """It would go on with what was stopped."""
    bus = stage.open(streams.ROUTER)
    async with bus as opened:
        await opened.end(streams.CHECKPOINTS)
    with pytest.raises(RuntimeError, match="once"):
        async with bus:
            pass


async def test_a_record_is_never_given_twice_between_own_and_commit(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, *(f"{i:03}" for i in range(300)))
    async with stage.open(streams.ROUTER) as bus, bus.own(0, [streams.notices(member)]) as shard:
        seen: list[Record] = []
        while len(seen) < 300:
            seen += await shard.take(70, PATIENCE_S)
            if len(seen) == 140:
                await shard.commit(seen, Writes())
        assert keys(seen) == [f"{i:03}" for i in range(300)]


async def test_versions_annexes_and_asks_come_before_any_waiting_notice(stage: Stage) -> None:
    member = stage.member()
    inputs = [streams.notices(member), streams.ASKS, streams.ANNEXES, streams.VERSIONS]
    async with stage.open(streams.ROUTER) as bus:
        async with bus.own(0, inputs) as shard:
            await shard.commit(await take_all(shard, 0), Writes())
        await give(stage, member, "notice")
        async with stage.open(streams.OPERATOR) as operator:
            for stream in (streams.ASKS, streams.ANNEXES, streams.VERSIONS):
                await operator.append(stream, values(stream))
        for pause in PAUSES_S:
            async with bus.own(0, inputs) as shard:
                await asyncio.sleep(pause)
                taken = await shard.take(100, PATIENCE_S)
                if len(taken) == 4:
                    await shard.commit(taken, Writes())
                    break
    assert keys(taken) == ["versions", "annexes", "asks", "notice"]


PAUSES_S = (0.0, 0.5, 2.0, 8.0, 30.0)
"""Until all has reached a new owner: on Kafka each stream arrives on its own."""


async def test_a_backlog_does_not_starve_the_others(stage: Stage) -> None:
    big, small = stage.member(), stage.member()
    await give(stage, big, *(f"big{i}" for i in range(900)))
    await give(stage, small, *(f"small{i}" for i in range(5)))
    inputs = [streams.notices(big), streams.notices(small)]
    async with stage.open(streams.ROUTER) as bus:
        for pause in PAUSES_S:
            async with bus.own(0, inputs) as shard:
                await asyncio.sleep(pause)
                first = [each for _ in range(3) for each in await shard.take(100, PATIENCE_S)]
            found = [key for key in keys(first) if key.startswith("small")]
            if found:
                break
    assert found == [f"small{i}" for i in range(5)]
    assert len(first) > 100


async def test_copies_are_own_bytes_then_shared_bytes_in_order(stage: Stage) -> None:
    member = stage.member()
    ncb, border = streams.inbox(f"{member}/ncb"), streams.inbox(f"{member}/border")
    copies = [
        Copies(f"id{i}".encode(), f"shared{i}".encode(), [(ncb, b"ncb:"), (border, b"border:")][: 1 + i % 2])
        for i in range(300)
    ]
    async with stage.open(streams.ROUTER) as bus:
        await bus.fan_out(copies)
        await bus.fan_out([Copies(b"late", b"shared", [(border, b"")]), Copies(b"nobody", b"shared", [])])
        await bus.fan_out([])
    async with stage.open(streams.adapter(member)) as bus:
        got = await read_all(bus, ncb, 0, 300)
        assert [(record.key, record.value) for record in got] == [
            (f"id{i}".encode(), f"ncb:shared{i}".encode()) for i in range(300)
        ]
        there = await read_all(bus, border, 0, 151)
        assert [record.value for record in there] == [f"border:shared{i}".encode() for i in range(1, 300, 2)] + [
            b"shared"
        ]


async def test_copies_of_calls_that_overlap_are_in_the_order_of_the_calls(stage: Stage) -> None:
    member = stage.member()
    inboxes = [streams.inbox(f"{member}/{each}") for each in ("ncb", "border")]
    # More than one batch each, so that a later call could slip in between.
    calls = [
        [Copies(f"{call}-{i}".encode(), b"s" * 20_000, [(each, b"own ") for each in inboxes]) for i in range(30)]
        for call in range(4)
    ]
    async with stage.open(streams.ROUTER) as bus, asyncio.TaskGroup() as tasks:
        for copies in calls:
            tasks.create_task(bus.fan_out(copies))
    async with stage.open(streams.adapter(member)) as bus:
        for each in inboxes:
            got = await read_all(bus, each, 0, 120)
            assert [record.key for record in got] == [copy.key for copies in calls for copy in copies]


async def test_an_offset_that_is_gone_is_never_jumped_over(stage: Stage) -> None:
    member = stage.member()
    stream = streams.notices(member)
    await give(stage, member, "a", "b", "c", "d")
    await stage.lose(stream, 2)
    async with stage.open(streams.ROUTER) as bus:
        with pytest.raises(OffsetGoneError) as gone:
            await bus.read(stream, 1, wait=1)
        assert (gone.value.stream, gone.value.offset, gone.value.start) == (stream, 1, 2)
        assert keys(await read_all(bus, stream, 2, 2)) == ["c", "d"]
        with pytest.raises(InputLostError, match=r"offsets 0 to 1 of .* were never taken") as lost:
            async with bus.own(0, [stream]):
                pass
        assert (lost.value.stream, lost.value.offset) == (stream, 0)
        for other in ({stream: 1}, {"asks": 0}):
            with pytest.raises(InputLostError):
                async with bus.own(0, [stream], other):
                    pass


async def test_what_an_input_has_lost_is_gone_on_with_by_one_refused_record(stage: Stage) -> None:
    member = stage.member()
    stream = streams.notices(member)
    await give(stage, member, "a", "b", "c", "d")
    await stage.lose(stream, 2)
    async with stage.open(streams.ROUTER) as bus:
        async with bus.own(0, [stream], {stream: 0}) as shard:
            (stands_for_it,) = await shard.take(1, PATIENCE_S)
            assert (stands_for_it.offset, stands_for_it.value) == (1, None)
            assert "offsets 0 to 1" in stands_for_it.fault
            await shard.commit([stands_for_it], Writes())
        async with bus.own(0, [stream]) as shard:
            assert keys(await take_all(shard, 2)) == ["c", "d"]


async def test_a_place_beyond_the_end_is_never_waited_out(stage: Stage) -> None:
    """The bus lost a tail: were it to grow past the place, what it then holds before that would be passed over."""
    member = stage.member()
    stream = streams.notices(member)
    await give(stage, member, "a", "b")
    async with stage.open(streams.ROUTER) as bus:
        end = await bus.end(stream)
        await bus.keep_place("0", stream, end + 7)
        with pytest.raises(InputLostError, match=f"{stream} ends at {end}, and was taken up to {end + 7}"):
            async with bus.own(0, [stream]):
                pass
        async with bus.own(0, [stream], {stream: end + 7}) as shard:
            (stands_for_it,) = await shard.take(1, PATIENCE_S)
            await shard.commit([stands_for_it], Writes())
        await give(stage, member, "c")
        async with bus.own(0, [stream]) as shard:
            assert await bus.place("0", stream) == end
            assert keys(await take_all(shard, 1)) == ["c"]


async def test_places_are_kept_for_each_group(stage: Stage) -> None:
    member = stage.member()
    stream = streams.notices(member)
    await give(stage, member, "a", "b", "c", "d")
    async with stage.open(streams.ROUTER) as bus:
        assert await bus.place(f"copy-{member}", stream) == 0
        assert not await bus.has_place(f"copy-{member}", stream)
        await bus.keep_place(f"copy-{member}", stream, 0)
        assert await bus.has_place(f"copy-{member}", stream)
        await bus.keep_place(f"copy-{member}", stream, 3)
        await bus.keep_place(f"other-{member}", stream, 1)
    async with stage.open(streams.ROUTER) as bus:
        assert await bus.place(f"copy-{member}", stream) == 3
        assert await bus.place(f"other-{member}", stream) == 1


async def test_what_the_table_does_not_name_is_refused(stage: Stage) -> None:
    one, other = stage.member(), stage.member()
    async with stage.open(streams.adapter(one)) as bus:
        with pytest.raises(ForbiddenStreamError):
            await bus.append(streams.notices(other), values("a"))
        with pytest.raises(ForbiddenStreamError):
            await bus.append(streams.ROUTED, values("a"))
        with pytest.raises(ForbiddenStreamError):
            await bus.read(streams.inbox(f"{other}/ncb"), 0)
        with pytest.raises(ForbiddenStreamError):
            await bus.read(streams.notices(one), 0)
        with pytest.raises(ForbiddenStreamError):
            await bus.written(streams.notices(one))
        with pytest.raises(ForbiddenStreamError):
            await bus.append("notices.nowhere", values("a"))
        with pytest.raises(ForbiddenStreamError):
            await bus.append("nonsense", values("a"))
        with pytest.raises(ForbiddenStreamError):
            await bus.fan_out([Copies(b"k", b"s", [(streams.inbox(f"{one}/ncb"), b"")])])
        with pytest.raises(ForbiddenStreamError):
            async with bus.own(0, [streams.notices(one)]):
                pass
        assert await bus.read(streams.inbox(f"{one}/ncb"), 0) == []


async def test_a_step_that_writes_a_stream_not_its_own_is_refused_whole(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, "a")
    async with stage.open(streams.ROUTER) as bus:
        async with bus.own(0, [streams.notices(member)]) as shard:
            taken = await take_all(shard, 1)
            with pytest.raises(ForbiddenStreamError):
                await shard.commit(taken, Writes([(streams.VERSIONS, b"forged", b"")]))
        async with bus.own(0, [streams.notices(member)]) as shard:
            assert keys(await take_all(shard, 1)) == ["a"]


async def test_now_is_the_clock_that_stamps_the_records(stage: Stage) -> None:
    member = stage.member()
    await give(stage, member, "before")
    async with stage.open(streams.ROUTER) as bus, bus.own(0, [streams.notices(member)]) as shard:
        before = await take_all(shard, 1)
        now = await shard.now()
        await give(stage, member, "after")
        after = await take_all(shard, 1)
        later = await shard.now()
    assert keys(before + after) == ["before", "after"]
    assert before[0].at <= now <= after[0].at <= later


async def test_large_records_pass_and_larger_ones_are_refused(stage: Stage) -> None:
    member = stage.member()
    inbox = streams.inbox(f"{member}/ncb")
    large = bytes(range(256)) * 1_200
    async with stage.open(streams.adapter(member)) as bus:
        await bus.append(streams.notices(member), [(b"k", large), (b"l", large), (b"m", b"x" * (MAX_RECORD - 1))])
        with pytest.raises(TooLargeError):
            await bus.append(streams.notices(member), [(b"k", b"x" * MAX_RECORD)])
    async with stage.open(streams.ROUTER) as bus:
        await bus.fan_out([Copies(b"k", large, [(inbox, b"own")])] * 5)
        with pytest.raises(TooLargeError):
            await bus.fan_out([Copies(b"k", b"x" * MAX_RECORD, [(inbox, b"own")])])
        async with bus.own(0, [streams.notices(member)]) as shard:
            taken = await take_all(shard, 3)
            assert [len(record.value or b"") for record in taken] == [len(large), len(large), MAX_RECORD - 1]
            await shard.commit(taken, Writes([(streams.ROUTED, record.key, record.value) for record in taken]))
            with pytest.raises(TooLargeError):
                await shard.commit([], Writes([(streams.ROUTED, b"k", b"x" * MAX_RECORD)]))
    async with stage.open(streams.adapter(member)) as bus:
        assert [record.value for record in await read_all(bus, inbox, 0, 5)] == [b"own" + large] * 5


async def test_a_removal_is_read_as_no_value_and_no_fault(stage: Stage) -> None:
    async with stage.open(streams.ROUTER) as bus:
        async with bus.own(0, []) as shard:
            writes = Writes([(streams.REGISTER, b"gone", b"state"), (streams.REGISTER, b"gone", None)])
            last = (await shard.commit([], writes))[streams.REGISTER]
        records = await read_all(bus, streams.REGISTER, last - 1, 2)
        assert [(record.key, record.value, record.fault) for record in records] == [
            (b"gone", b"state", ""),
            (b"gone", None, ""),
        ]


def test_shares_are_even_and_what_one_does_not_need_goes_to_the_others() -> None:
    backlogs = {("notices.a", 0): 900, ("notices.b", 0): 5, ("receipts.a", 0): 60, ("asks", 0): 10, ("versions", 0): 1}
    given = shares(backlogs, 100, 0)
    assert list(given)[:2] == [("versions", 0), ("asks", 0)]
    assert sum(given.values()) == 100
    assert (given["notices.a", 0], given["notices.b", 0], given["receipts.a", 0]) == (42, 5, 42)


def test_each_stream_has_its_turn_where_the_limit_is_smaller_than_their_number() -> None:
    backlogs = {(f"notices.{name}", 0): 9 for name in "abc"}
    first = [next(iter(shares(backlogs, 1, turn))) for turn in range(3)]
    assert sorted(first) == sorted(backlogs)


@pytest.fixture
def embedded(tmp_path: Path) -> Embedded:
    return Embedded(tmp_path / "bus.db")


async def test_a_value_for_many_inboxes_is_stored_once_and_goes_with_the_last_row(embedded: Embedded) -> None:
    bureaus = [f"{member}/ncb" for member in MEMBERS[:20]]
    secret = b"SECRET" * 300
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        await bus.fan_out([Copies(b"id", secret, [(streams.inbox(bureau), b"own") for bureau in bureaus])])
        await bus.fan_out([Copies(b"id", b"erased", [(streams.inbox(bureau), b"own") for bureau in bureaus[1:]])])
        assert await bus.prune() == 19
        assert embedded.path.read_bytes().count(secret) == 1
        await bus.fan_out([Copies(b"id", b"erased", [(streams.inbox(bureaus[0]), b"own")])])
        assert await bus.prune() == 1
        held = embedded.path.read_bytes() + embedded.path.with_name("bus.db-wal").read_bytes()
        assert b"SECRET" not in held
    async with embedded.open(streams.adapter(MEMBERS[1])) as bus:
        assert [record.value for record in await bus.read(streams.inbox(bureaus[1]), 0)] == [b"ownerased"]


async def test_a_page_may_begin_and_end_in_the_midst_of_a_batch(embedded: Embedded) -> None:
    inbox = streams.inbox(f"{MEMBERS[1]}/ncb")
    copies = [Copies(b"%d" % i, b"shared%d" % i, [(inbox, b"own%d," % i)]) for i in range(250)]
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        await bus.append(inbox, [(b"alone", b"before")])
        await bus.fan_out(copies)
        await bus.append(inbox, [(b"alone", b"after")])
    expected = [b"before", *(b"own%d,shared%d" % (i, i) for i in range(250)), b"after"]
    async with embedded.open(streams.adapter(MEMBERS[1])) as bus:
        for limit in (1, 7, 100, 500):
            got: list[Record] = []
            while len(got) < len(expected):
                page = await bus.read(inbox, len(got), limit=limit)
                assert 0 < len(page) <= limit
                got += page
            assert [record.value for record in got] == expected
            assert [record.offset for record in got] == list(range(252))


async def test_a_record_may_be_taken_out_of_a_batch_and_leaves_a_gap(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "bus.db", lambda: 1)
    await writer.start()
    table = Table(1, "inbox.at.ncb", 0)
    copies = [Copy(b"key%d" % i, b"own%d" % i, i, 7) for i in range(5)]

    def fill(transaction: Transaction) -> None:
        transaction.create(table.stream, 0)
        first = transaction.share([(1, b"shared%d" % i) for i in range(5)])
        transaction.append_copies(table, copies, first)

    await writer.do(fill)
    pages = connect(tmp_path / "bus.db", write=False)
    for gone, left in (([1], [0, 2, 3, 4]), ([4], [0, 2, 3]), ([0, 7], [2, 3]), ([2, 3], [])):
        assert await writer.do(partial(_dropped, table, gone)) == len(gone) - gone.count(7)
        records, after = select(pages, table, 0, 10)
        assert [(each.offset, each.key, each.value) for each in records] == [
            (i, b"key%d" % i, b"own%dshared%d" % (i, i)) for i in left
        ]
        assert after == 5
        assert pages.execute("SELECT count(*) FROM shared").fetchone() == (len(left),)
    pages.close()
    await writer.stop()


def _dropped(table: Table, offsets: list[int], transaction: Transaction) -> int:
    return transaction.drop(table, offsets)


async def test_pruning_keeps_the_latest_of_each_key_and_a_removal_for_a_day(embedded: Embedded) -> None:
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        async with bus.own(0, []) as shard:
            for text in ("a", "b", "a", "c"):
                await shard.commit([], Writes([(streams.REGISTER, text.encode(), b"state")]))
            await shard.commit([], Writes([(streams.REGISTER, b"c", None)]))
            assert await bus.prune() == 2
            assert keys(await bus.read(streams.REGISTER, 0)) == ["b", "a", "c"]
            embedded.now += DAY + 1
            assert await bus.prune() == 1
            await shard.commit([], Writes([(streams.REGISTER, b"d", b"state")]))
        embedded.now += 1_000 * DAY
        assert await bus.prune() == 0
        assert [record.offset for record in await bus.read(streams.REGISTER, 0)] == [1, 2, 5]


async def test_erased_records_are_in_no_file_and_the_others_stay_where_they_were(embedded: Embedded) -> None:
    bureaus, secret = [f"{member}/ncb" for member in MEMBERS[1:4]], b"SECRET" * 50
    inboxes = list(map(streams.inbox, bureaus))

    async def offsets(place: int) -> list[int]:
        async with embedded.open(streams.adapter(MEMBERS[place + 1])) as reader:
            return [each.offset for each in await reader.read(inboxes[place], 0)]

    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        for key, value in ((b"1", b"kept"), (b"2", secret), (b"3", b"kept"), (b"2", secret)):
            await bus.fan_out([Copies(key, value, [(each, b"own ") for each in inboxes])])
        assert await bus.erase(inboxes[0], keys=[b"2", b"9"], offsets=[0, 0, 77]) == 3
        assert await offsets(0) == [2]
        await bus.scrub()
        assert b"SECRET" in embedded.path.read_bytes()
        assert [await bus.erase(each, keys=[b"2"]) for each in inboxes] == [0, 2, 2]
        await bus.scrub()
        held = embedded.path.read_bytes() + embedded.path.with_name("bus.db-wal").read_bytes()
        assert b"SECRET" not in held
        assert await offsets(1) == await offsets(2) == [0, 2]
        await bus.fan_out([Copies(b"4", b"kept", [(inboxes[1], b"own ")])])
        assert await offsets(1) == [0, 2, 4]
        # A bureau that has left may have left something.
        assert await bus.erase("inbox.gone.ncb", keys=[b"2"]) == 0
    async with embedded.open(streams.adapter(MEMBERS[1])) as adapter:
        with pytest.raises(ForbiddenStreamError):
            await adapter.erase(inboxes[1], keys=[b"1"])


async def test_what_was_copied_together_is_erased_one_by_one(embedded: Embedded) -> None:
    inbox, secret = streams.inbox(f"{MEMBERS[1]}/ncb"), b"SECRET" * 50
    copies = [Copies(b"%08d" % i, secret if i == 130 else b"kept%d" % i, [(inbox, b"own ")]) for i in range(250)]
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        await bus.fan_out(copies)
        await bus.fan_out([Copies(b"%08d" % 7, b"again", [(inbox, b"own ")])])
        # That its bytes stand in the midst of two keys makes nothing one of the keys.
        assert await bus.erase(inbox, keys=[b"%08d" % 130, b"%08d" % 199, b"0000000"], offsets=[3]) == 3
        assert await bus.compact(inbox, [b"%08d" % 7, b"%08d" % 8]) == 1
        await bus.scrub()
        held = embedded.path.read_bytes() + embedded.path.with_name("bus.db-wal").read_bytes()
        assert b"SECRET" not in held
    async with embedded.open(streams.adapter(MEMBERS[1])) as bus:
        got = await bus.read(inbox, 0)
        assert [each.offset for each in got] == [i for i in range(251) if i not in {3, 7, 130, 199}]
        assert got[-1].value == b"own again"
        assert {each.value for each in got[:-1]} == {b"own kept%d" % each.offset for each in got[:-1]}


async def test_many_keys_are_erased_from_many_batches_part_by_part(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, keys = streams.inbox(f"{MEMBERS[1]}/ncb"), [b"%08d" % i for i in range(600)]
    monkeypatch.setattr(sqlite_pages, "CUT_BYTES", 1000)  # two of the batches here, or a third part of the longest
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        for begin, end in itertools.pairwise([0, 1, 60, 120, 121, 500, 560, 600]):
            await bus.fan_out([Copies(each, b"kept", [(inbox, b"own ")]) for each in keys[begin:end]])
        assert await bus.erase(inbox, keys=[*keys[::2], b"0000000"]) == 300
    async with embedded.open(streams.adapter(MEMBERS[1])) as reader:
        got = [record async for record in _all(reader, inbox)]
        assert [(each.offset, each.key) for each in got] == list(enumerate(keys))[1::2]


async def test_to_look_for_many_keys_does_not_cost_a_look_for_each_in_every_batch(embedded: Embedded) -> None:
    """Counted in steps of SQLite's machine."""
    inbox, steps = streams.inbox(f"{MEMBERS[1]}/ncb"), list[int]()
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        for begin in range(0, 2000, 20):
            await bus.fan_out([Copies(b"%08d" % i, b"kept", [(inbox, b"own ")]) for i in range(begin, begin + 20)])
    with closing(connect(embedded.path, write=False)) as pages:
        (number,) = pages.execute("SELECT id FROM streams WHERE name = ?", (inbox,)).fetchone()
        for count in (10, 2000):
            counted = itertools.count()
            pages.set_progress_handler(partial(_step, counted), 1)
            found, _ = keyed(Table(number, inbox, 0), [b"%08d" % i for i in range(count)], 0, 5000, pages)
            pages.set_progress_handler(None, 1)
            assert len(found) == count
            steps.append(next(counted))
    assert steps[1] < 3 * steps[0], "200 times the keys, in 100 batches"


def _step(counted: Iterator[int]) -> int:
    next(counted)
    return 0


async def _all(bus: Bus, stream: str) -> AsyncIterator[Record]:
    place = 0
    while records := await bus.read(stream, place):
        for record in records:
            yield record
        place = records[-1].offset + 1


async def test_compacting_some_keys_leaves_the_newest_of_each_and_all_others(embedded: Embedded) -> None:
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        async with bus.own(0, []) as shard:
            for text in ("a", "b", "a", "b", "a"):
                await shard.commit([], Writes([(streams.REGISTER, text.encode(), b"state")]))
        assert await bus.compact(streams.REGISTER, [b"a", b"c"]) == 2
        assert [each.offset for each in await bus.read(streams.REGISTER, 0)] == [1, 3, 4]
        assert await bus.compact(streams.REGISTER, [b"a"]) == 0


async def test_what_the_router_has_not_taken_up_is_kept_past_its_retention(embedded: Embedded) -> None:
    member = embedded.member()
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        await give(embedded, member, "a", "b", "c")
        async with bus.own(0, [streams.notices(member)]) as shard:
            await shard.commit(await shard.take(1, 0.0), Writes())
            embedded.now += 31 * DAY
            assert await bus.prune() == 1
            assert keys(await shard.take(500, 0.0)) == ["b", "c"]


async def test_offsets_are_not_used_again_after_a_stream_was_emptied(embedded: Embedded) -> None:
    member = embedded.member()
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        assert await give(embedded, member, "a", "b") == 1
        embedded.now += 31 * DAY
        assert await bus.prune() == 2
        assert await bus.end(streams.notices(member)) == 2
        assert await give(embedded, member, "c") == 2


async def test_the_append_time_never_goes_back_with_the_machines_clock(embedded: Embedded) -> None:
    member = embedded.member()
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        await give(embedded, member, "a")
        embedded.now -= 60_000
        await give(embedded, member, "b")
        records = await bus.read(streams.notices(member), 0)
    assert records[0].at == records[1].at == embedded.now + 60_000


async def test_a_stream_that_was_not_made_is_refused(embedded: Embedded) -> None:
    member = embedded.member()
    async with embedded.open(streams.adapter(member)) as bus:
        with pytest.raises(ForbiddenStreamError):
            await bus.append(streams.notices(member), values("a"))
        with pytest.raises(ForbiddenStreamError):
            await bus.create(["inbox.nobody.ncb"])
        await bus.create([streams.notices(member)], shards=2)
        await bus.append(streams.notices(member), values("a"), partition=1)
        with pytest.raises(ForbiddenStreamError):
            await bus.append(streams.notices(member), values("a"), partition=2)


async def test_a_file_that_is_no_bus_is_a_matter_of_configuration(tmp_path: Path) -> None:
    other = tmp_path / "letter.txt"
    other.write_text("no database" * 1_000)
    with pytest.raises(ConfigurationError):
        async with Embedded(other).open(streams.ROUTER):
            pass
    with pytest.raises(ConfigurationError):
        async with Embedded(tmp_path / "missing" / "bus.db").open(streams.ROUTER):
            pass


async def test_a_locked_file_is_unavailable(embedded: Embedded) -> None:
    member = embedded.member()
    async with embedded.open(streams.adapter(member)) as bus:
        await bus.create(list(WORLD.streams()))
        other = sqlite3.connect(embedded.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError):
            await bus.append(streams.notices(member), values("a"))
        other.execute("ROLLBACK")
        other.close()
        assert await bus.append(streams.notices(member), values("a")) == 0


class Busy:
    """Keeps the writer in a commit until it is told to go on."""

    def __init__(self, bus: SqliteBus) -> None:
        self.begun, self.over, self._bus = threading.Event(), threading.Event(), bus

    async def run(self) -> None:
        with suppress(UnavailableError):
            await self._bus._file.write(self._wait)

    def _wait(self, _: Transaction) -> None:
        self.begun.set()
        self.over.wait(60)


async def put(what: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begin what asks the writer, and return once it has."""
    begun = asyncio.ensure_future(what)
    for _ in range(20):
        await asyncio.sleep(0)
    return begun


async def test_who_was_not_told_in_time_that_the_shard_is_its_own_does_not_take_itself_for_another(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that stands still for a minute ends no broker: nobody else would go on."""
    async with embedded.opened() as bus:
        async with bus.own(0, []):
            pass
        first, second = Busy(bus), Busy(bus)
        before = await put(first.run())
        await asyncio.to_thread(first.begun.wait)
        with monkeypatch.context() as hasty:
            hasty.setattr(sqlite_file, "LIMIT_S", 2.0)
            asked = await put(bus.own(0, []).__aenter__())
            after = await put(second.run())  # in one commit with the question, and after it: its answer waits
            first.over.set()
            with pytest.raises(UnavailableError, match="in time"):
                await asked
            await after
        assert second.begun.is_set()
        second.over.set()
        await before
        async with bus.own(0, []) as shard:
            assert bus._owned.last == {0: 3}
            await shard.commit([], Writes())


async def test_a_question_that_nobody_waits_for_any_more_takes_the_shard_from_nobody(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with embedded.opened() as late, embedded.open(streams.ROUTER) as owner:
        other = sqlite3.connect(embedded.path, isolation_level=None)
        async with owner.own(0, []) as shard:
            other.execute("BEGIN IMMEDIATE")
            with monkeypatch.context() as hasty:
                hasty.setattr(sqlite_file, "LIMIT_S", 0.1)
                with pytest.raises(UnavailableError, match="in time"):
                    await late.own(0, []).__aenter__()
            other.execute("ROLLBACK")
            other.close()
            await late._file.write(lambda _: None)  # after it
            await shard.commit([], Writes())


@pytest.mark.parametrize("made", [True, False])
async def test_a_file_that_is_locked_when_it_is_opened_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    embedded = Embedded(tmp_path / "bus.db")
    if made:
        async with embedded.open(streams.ROUTER):
            pass
    monkeypatch.setattr(sqlite_pages, "BUSY_MS", 50)
    other = sqlite3.connect(embedded.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError):
        async with embedded.open(streams.ROUTER):
            pass
    other.execute("ROLLBACK")
    other.close()
    async with embedded.open(streams.ROUTER):
        pass


async def test_a_disk_that_is_full_when_the_file_is_opened_is_unavailable(embedded: Embedded) -> None:
    fault = sqlite3.OperationalError("database or disk is full")
    fault.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert isinstance(Writer(embedded.path, lambda: 0)._refusal(fault), UnavailableError)


APPENDS = """
import asyncio, sys
from pathlib import Path
from broker.sqlite_batch import Copy
from broker.sqlite_file import Transaction, Writer
from broker.sqlite_pages import Table, connect, select
from broker.streams import adapter, notices
from tests.contract.test_bus import Embedded

async def main(path, member):
    async with Embedded(Path(path)).open(adapter(member)) as bus:
        for i in range(100_000):
            await bus.append(notices(member), [(b"%d" % i, b"value")])
            print(i, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_writer_killed_at_any_moment_loses_nothing_that_it_was_told_is_kept(embedded: Embedded) -> None:
    member = embedded.member()
    async with embedded.open(streams.ROUTER) as bus:
        await bus.create(list(WORLD.streams()))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", APPENDS, embedded.path, member, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        # Another process's records arrive while it writes.
        assert await bus.read(streams.notices(member), 0, wait=2 * PATIENCE_S)
        acknowledged = [await process.stdout.readline() for _ in range(30)]
        process.send_signal(signal.SIGKILL)
        acknowledged += (await process.stdout.read()).splitlines()
        await process.wait()
        kept = keys(await bus.read(streams.notices(member), 0, limit=100_000))
        told = [line.strip().decode() for line in acknowledged]
        assert len(told) <= len(kept) <= len(told) + 1
        assert kept[: len(told)] == told


async def give_compressed(kafka: OnKafka, member: str, codec: str, values: list[bytes]) -> None:
    """Write one batch with a stock client, as a member's own software may."""
    who = kafka.world.credentials(streams.adapter(member))
    settings = {
        **client_settings(kafka.world.bootstrap, who),
        "compression.type": codec,
        "message.max.bytes": 100_000_000,
        "batch.size": 100_000_000,
        "linger.ms": 100_000,  # no value leaves before `flush` is called, so that all are in one batch
    }
    producer = Producer(settings)
    for value in values:
        producer.produce(streams.notices(member), value, b"stock")
    assert await asyncio.to_thread(producer.flush, PATIENCE_S) == 0


@pytest.mark.kafka
async def test_a_batch_that_is_packed_as_we_can_read_it_is_read(kafka: OnKafka) -> None:
    member = kafka.member()
    await give_compressed(kafka, member, "gzip", [b"a" * 1_000, b"b" * 1_000])
    async with kafka.open(streams.ROUTER) as bus:
        records = await read_all(bus, streams.notices(member), 0, 2)
    assert [record.value for record in records] == [b"a" * 1_000, b"b" * 1_000]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("codec", "values"),
    [
        ("zstd", [b"a" * 1_000] * 3),
        ("snappy", [b"a" * 1_000] * 3),
        ("lz4", [b"a" * 1_000] * 3),
        ("gzip", [bytes(40 << 20)]),
        ("zstd", [bytes(80 << 20)]),
        ("gzip", [bytes(900_000)] * 30),
    ],
    ids=["zstd", "snappy", "lz4", "gzip-bomb", "zstd-bomb", "gzip-bomb-of-many"],
)
async def test_a_batch_that_cannot_be_read_is_one_refused_record(
    kafka: OnKafka, codec: str, values: list[bytes]
) -> None:
    member = kafka.member()
    stream = streams.notices(member)
    await give(kafka, member, "before")
    await give_compressed(kafka, member, codec, values)
    await give(kafka, member, "after")
    async with kafka.open(streams.ROUTER) as bus:
        records = await read_all(bus, stream, 0, 3)
        assert [record.key for record in records] == [b"before", b"", b"after"]
        assert [record.value is None for record in records] == [False, True, False]
        assert records[1].fault
        assert records[1].offset == records[2].offset - 1 == len(values)
        assert records[0].at <= records[1].at <= records[2].at
        assert await read_all(bus, stream, 1, 2) == records[1:]
        async with bus.own(0, [stream]) as shard:
            taken = await take_all(shard, 3)
            assert taken == records
            await shard.commit(taken[:2], Writes())
        async with bus.own(0, [stream]) as shard:
            assert await take_all(shard, 1) == records[2:]


@pytest.mark.kafka
async def test_a_record_that_unpacks_to_more_than_the_bus_takes_is_refused_and_not_held(kafka: OnKafka) -> None:
    member = kafka.member()
    stream = streams.notices(member)
    for _ in range(3):
        await give_compressed(kafka, member, "gzip", [bytes(15 << 20)])
    await give(kafka, member, "after")
    async with kafka.open(streams.ROUTER) as bus:
        records = await read_all(bus, stream, 0, 4)
        assert [record.value is None for record in records] == [True, True, True, False]
        assert [record.fault for record in records] == ["a record is larger than the bus takes"] * 3 + [""]
        async with bus.own(0, [stream]) as shard:
            assert await take_all(shard, 4) == records


@pytest.mark.kafka
async def test_a_shard_takes_in_no_more_than_it_holds_at_once(kafka: OnKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    member = kafka.member()
    stream = streams.notices(member)
    for _ in range(8):
        await give_compressed(kafka, member, "gzip", [bytes(900_000)] * 16)
    held = [0]
    weigh = kafka_read.Backlog._hold

    def watched(backlog: Any, found: Any) -> None:
        weigh(backlog, found)
        held[0] = max(held[0], sum(backlog._bytes.values()))

    monkeypatch.setattr(kafka_read.Backlog, "_hold", watched)
    async with kafka.open(streams.ROUTER) as bus, bus.own(0, [stream]) as shard:
        taken: list[Record] = []
        while len(taken) < 128:
            taken += await shard.take(10, PATIENCE_S)
    assert [record.offset for record in taken] == list(range(128))
    assert held[0] <= kafka_read.HELD_BYTES + kafka_read.UNPACKED * 900_200


class Overtaken(KafkaBus):
    """Somebody comes between its look whether another has come, and its fencing of whoever has; then nothing works."""

    def __init__(self, kafka: OnKafka, other: Callable[[], Awaitable[object]]) -> None:
        super().__init__(kafka.world.bootstrap, streams.ROUTER, kafka.world.pki(streams.ROUTER), WORLD)
        self._comes, self._has_come = other, False

    async def _check_still_ours(self, shard: int) -> None:
        await super()._check_still_ours(shard)
        if shard in self._owned.last and not self._has_come:
            self._has_come = True
            await self._comes()


class NowFailsOnce:
    """What an owner asks the time of: the first answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_due, now = False, kafka_bus._Shard.now

        async def fails(shard: kafka_bus._Shard) -> int:
            if self.is_due:
                self.is_due = False
                raise UnavailableError("the node does not answer")
            return await now(shard)

        monkeypatch.setattr(kafka_bus._Shard, "now", fails)


@pytest.mark.kafka
async def test_a_successor_without_a_name_yet_is_fenced_by_who_wakes_and_that_one_goes_on(kafka: OnKafka) -> None:
    ours = Owned()
    async with kafka.open(streams.ROUTER, ours) as old, AsyncExitStack() as stack:
        async with old.own(0, []):
            pass
        bare = KafkaBus(kafka.world.bootstrap, streams.ROUTER, kafka.world.pki(streams.ROUTER), WORLD)
        producer = await bare._client.producer(f"{streams.ROUTER}.0")
        stack.push_async_callback(producer.stop)
        successor = kafka_bus._Shard(0, producer, bare._check, 30.0, Owned(), bare._naming_gone)
        async with old.own(0, []) as shard:
            with pytest.raises(FencedError):
                await successor.now()
            for _ in range(2):
                await shard.commit([], Writes([(streams.REGISTER, b"entry", b"by who woke")]))


@pytest.mark.kafka
async def test_who_has_fenced_a_successor_goes_on_though_its_own_name_could_not_be_written_at_first(
    kafka: OnKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor has written its name, and ends: whoever fenced it must not leave the shard to it."""
    async with AsyncExitStack() as stack:
        new = await stack.enter_async_context(kafka.open(streams.ROUTER))
        owners, lost = list[Shard](), NowFailsOnce(monkeypatch)

        async def comes() -> None:
            owners.append(await stack.enter_async_context(new.own(0, [])))
            lost.is_due = True

        async with Overtaken(kafka, comes) as old:
            async with old.own(0, []) as shard:
                await shard.commit([], Writes([(streams.REGISTER, b"entry", b"by the old")]))
            with pytest.raises(UnavailableError):
                await old.own(0, []).__aenter__()
            with pytest.raises(FencedError):
                await owners[0].now()
            async with old.own(0, []) as shard:
                await shard.commit([], Writes([(streams.REGISTER, b"entry", b"by the old")]))


@pytest.mark.kafka
async def test_a_node_that_is_not_there_is_unavailable(kafka: OnKafka) -> None:
    tls = kafka.world.pki(streams.ROUTER)
    with pytest.raises(UnavailableError):
        async with KafkaBus("127.0.0.1:9", streams.ROUTER, tls, WORLD, limit=2):
            pass


@pytest.mark.kafka
async def test_the_node_refuses_what_a_changed_table_would_grant(kafka: OnKafka) -> None:
    member = kafka.member()
    tls = kafka.world.pki(streams.adapter(member))
    # This program believes that it is the router; its certificate says otherwise.
    async with KafkaBus(kafka.world.bootstrap, streams.ROUTER, tls, WORLD, limit=PATIENCE_S) as bus:
        with pytest.raises(ForbiddenStreamError):
            await bus.fan_out([Copies(b"k", b"s", [(streams.inbox(f"{member}/ncb"), b"")])])
        with pytest.raises(ForbiddenStreamError):
            await bus.read(streams.notices(member), 0, wait=PATIENCE_S)
        with pytest.raises(ForbiddenStreamError):
            await bus.place("x", streams.notices(member))
        with pytest.raises(ForbiddenStreamError):
            async with bus.own(0, [streams.notices(member)]):
                pass


@pytest.mark.kafka
async def test_only_setup_asks_whether_the_streams_were_made(kafka: OnKafka) -> None:
    async with kafka.open(streams.ROUTER) as bus:
        with pytest.raises(ForbiddenStreamError):
            await bus.create([streams.ROUTED])
        assert await bus.prune() == 0
    async with kafka.open(streams.SETUP) as bus:
        await bus.create(list(WORLD.streams()))
        with pytest.raises(ConfigurationError, match=streams.notices("ZZZ")):
            await bus.create([streams.notices("ZZZ")])
        with pytest.raises(ConfigurationError, match=streams.ROUTED):
            await bus.create([streams.ROUTED], shards=2)
