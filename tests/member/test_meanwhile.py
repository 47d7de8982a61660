"""Two processes at work on one member's files: nothing that one does is lost by what the other does meanwhile."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from adapters.adapter import Draft
from adapters.changes import Guard, changes
from adapters.collect import Collector, none
from adapters.compose import Maker
from adapters.inbox import Inbox
from adapters.outbox import Outbox, Published
from adapters.receipts import Receipts, _Waiting
from adapters.trace import trace
from broker import codec, streams
from broker.bus import Record
from broker.errors import UnavailableError
from broker.notice import Envelope, Header, Statement
from broker.signing import SigningKey
from broker.writing import transaction
from tests.fake_bus import FakeBus
from tests.honest_broker import directory
from tests.making import NOW, key_of
from tests.member.conftest import Machine, World, draft
from tests.member.test_outcomes import identity, learn, refuse_receipts, reject, renewed

ALL = ("identity", "warnings", "narrative")


class _Held(FakeBus):
    """The bus of a process that is stopped after its next append, until `meanwhile` is over."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        last = await super().append(stream, values, partition=partition)
        act, self.meanwhile = self.meanwhile, None
        if act:
            await act()
        return last


def held(machine: Machine, meanwhile: Callable[[], Awaitable[None]]) -> Machine:
    """Give the same machine as another process has it, held after its next append."""
    bus = _Held(machine.bus.memory)
    bus.meanwhile = meanwhile
    return Machine(machine.folder, bus, machine.bureau, machine.generation)


async def unheard(world: World, machine: Machine, inbox: Inbox) -> None:
    """Collect a page; what would be sent is not, as the bus goes away."""
    world.bus.memory.breaks.append(False)
    with pytest.raises(UnavailableError):
        await machine.collector(inbox).round()


async def collected(world: World, record: str = "R-1") -> Machine:
    """Let LV collect a notice, and give its machine."""
    (data,) = await world.publish(draft(record))
    await world.broker.route(data, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    inbox.close()
    return lv


async def test_a_receipt_queued_anew_while_a_later_one_is_sent_waits_to_be_sent_itself(world: World) -> None:
    lv = await collected(world)
    (rejected,) = await world.receipts("LV")
    await refuse_receipts(world, "key-revoked")
    world.broker.written = directory({"LV/ncb": 1}, 2)
    await world.broker.publish_directory()
    await lv.versions.follow(world.bus)
    lv.generation = 1
    one, other = lv.inbox(), lv.inbox()
    reader = held(lv, lambda: unheard(world, lv, other)).collector(one)
    reader.read(1, "case")
    await reader.send()
    await lv.collector(other).drain()
    one.close()
    other.close()
    sent = [codec.decode(Statement, each) for each in await world.receipts("LV")]
    under_new = [each.payload for each in sent if each.key_id == key_of("LV/ncb", 1).public.id]
    assert codec.decode(Statement, rejected).payload in under_new


@pytest.mark.parametrize("both", [True, False])
async def test_a_receipt_queued_anew_before_it_was_marked_waits_to_be_sent(world: World, both: bool) -> None:
    """Its key was not in force yet; that of the same bytes comes in force without another one.

    `both`: the other process has sent it, too.
    """
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    one, other = lv.inbox(), lv.inbox()

    async def meanwhile() -> None:
        if both:
            await lv.collector(other).drain()
        await refuse_receipts(world, "unknown-key")
        await world.broker.route(second, {"LV/ncb": ALL})
        for _ in range(2):
            await unheard(world, lv, other)

    await held(lv, meanwhile).collector(one).round()
    one.close()
    other.close()
    sent = await world.receipts("LV")
    assert sent.count(sent[0]) == (3 if both else 2)


async def test_an_inbox_of_before_counts_how_often_a_receipt_was_queued_anew(world: World) -> None:
    lv = await collected(world)
    inbox = lv.inbox()
    inbox.database.executescript("ALTER TABLE receipts DROP COLUMN queued; DELETE FROM receipts_sent;")
    inbox.database.execute("UPDATE receipts SET sent = 0")
    inbox.close()
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    inbox.close()
    one, again = await world.receipts("LV")
    assert again == one
    await refuse_receipts(world, "unknown-key")
    await collected(world, "R-2")
    await collected(world, "R-3")
    assert (await world.receipts("LV")).count(one) == 3


async def test_what_another_process_erases_is_not_opened_and_read_afterwards(world: World) -> None:
    lv = await collected(world)
    one, other = lv.inbox(), lv.inbox()
    other.database.execute("PRAGMA busy_timeout = 0")

    def withdrawn() -> int:
        """Take in its withdrawal when the reader looks at the clock, unless the reader keeps the file by then."""
        with suppress(UnavailableError, sqlite3.OperationalError), transaction(other.database):
            other.end([1], "erased", 1)
        return NOW

    collector = Collector(
        world.bus, one, lv.versions, replace(lv.signer(), clock=withdrawn), os.urandom, rejections=none
    )
    opened, line = collector.read(1, "case"), other.line(1)
    assert line is not None
    assert (opened is None) == (line.state == "erased")
    one.close()
    other.close()


async def test_a_run_that_was_overtaken_by_another_of_its_source_publishes_nothing(world: World) -> None:
    """It read the source before the other did, which found a record corrected, one gone, and one new."""
    at = world.machine("AT/ncb")
    one, other = at.outbox(), at.outbox()

    def run(outbox: Outbox, before: dict[str, bytes], *drafts: Draft) -> int:
        found = changes(before, drafts, Guard(accept_withdrawals=True))
        return sum(isinstance(each, Published) for each in outbox.apply(found, "list", previous=before))

    assert run(one, {}, draft("R-1"), draft("R-2")) == 2
    before = one.published("list")
    assert run(other, before, draft("R-1", action_sought="newer"), draft("R-3")) == 3
    stands, waiting = other.published("list"), other.waiting()
    with pytest.raises(UnavailableError, match="run again"):
        run(one, before, draft("R-1", action_sought="older"), draft("R-2"))
    assert (one.published("list"), one.waiting()) == (stands, waiting)
    assert run(one, stands, draft("R-1", action_sought="newest"), draft("R-3")) == 1
    one.close()
    other.close()


async def test_what_is_published_during_a_send_does_not_overtake_what_it_builds_on(world: World) -> None:
    """The first version went under a key that is in force no more: it has to go again, before its correction."""
    (first,) = await world.publish(draft("R-1"))
    at = await renewed(world)
    outbox, beside = at.outbox(), at.outbox()

    async def corrected() -> None:
        beside.publish([draft("R-1", action_sought="arrest")])

    outbox.publish([draft("R-2")])
    assert await outbox.flush(held(at, corrected).bus) == 3
    again, correction = (await world.sent())[2:]
    assert (identity(again), len(references(again))) == (identity(first), 0)
    assert references(correction) == [identity(first)]
    outbox.close()
    beside.close()


def references(data: bytes) -> list[bytes]:
    """The notices that an envelope names."""
    header = codec.decode(Header, codec.decode(Envelope, data).header)
    return [each.notice_id for each in header.references]


class _HeldReader(FakeBus):
    """The bus of a process that is stopped once it has read a page of `stream`, until `meanwhile` is over."""

    def __init__(self, bus: FakeBus, stream: str, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(bus.memory)
        self._stream, self._meanwhile = stream, [meanwhile]

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        records = await super().read(stream, offset, limit=limit, wait=wait, partition=partition)
        if stream == self._stream and records and self._meanwhile:
            await self._meanwhile.pop()()
        return records


async def test_no_key_is_asked_for_while_a_run_holds_the_outbox(world: World) -> None:
    """While a passphrase was typed the record, once rejected, came to stand at another bureau, too."""
    at = world.machine("AT/ncb")
    beside = at.outbox()
    beside.publish([draft("R-1", bureau="AT/border")], "list")
    beside.database.execute("UPDATE records SET digest = x''")
    before, asked = beside.published("list"), list[tuple[str, bool]]()

    def key(bureau: str) -> SigningKey:
        if not asked:
            beside.database.execute(
                "INSERT INTO records SELECT 'AT/ncb', record, source, digest, version, state, facts FROM records"
            )
        asked.append((bureau, outbox.database.in_transaction))
        return key_of(bureau)

    outbox = Outbox(at.folder / "outbox.db", Maker(at.versions.newest(), key, at.clock, os.urandom), "AT/ncb")
    found = list(changes(before, [], Guard(accept_withdrawals=True)))
    with pytest.raises(UnavailableError, match="run again"):
        outbox.apply(found, "list", previous=before)
    assert asked == [("AT/border", False)]
    outbox.close()
    beside.close()


@pytest.mark.parametrize("stream", ["inbox.lv.ncb", streams.CHECKPOINTS])
async def test_a_page_that_two_collectors_read_is_stored_once(world: World, stream: str) -> None:
    """The second, which read less, neither sets the place back nor rings again for what was refused."""
    for kind in ("inbox.lv.ncb", streams.CHECKPOINTS):
        await world.bus.append(kind, [(b"", b"nothing that is signed")])
    lv = world.machine("LV/ncb")
    one, other = lv.inbox(), lv.inbox()

    async def meanwhile() -> None:
        (data,) = await world.publish(draft("R-1"))
        await world.broker.route(data, {"LV/ncb": ALL})
        await lv.collector(other).drain()

    slow = Machine(lv.folder, _HeldReader(lv.bus, stream, meanwhile), lv.bureau)
    taken = await slow.collector(one).round()
    assert taken.new == []
    assert one.journal.place(stream) == 2
    assert len([each for each in one.journal.alarms() if stream in each.about]) == 1
    assert (await slow.collector(one).drain()).records == 0
    one.close()
    other.close()


async def test_a_page_of_outcomes_that_two_processes_read_is_kept_once(world: World) -> None:
    await world.bus.append(streams.outcomes("AT"), [(b"", b"nothing that is signed")])
    at = world.machine("AT/ncb")
    one, other = at.outbox(), at.outbox()

    async def meanwhile() -> None:
        await reject(world, await published_elsewhere(world), "invalid-field")
        await at.outcomes(other).drain()

    slow = Machine(at.folder, _HeldReader(at.bus, streams.outcomes("AT"), meanwhile), at.bureau)
    await slow.outcomes(one).round()
    journal = at.outcomes(one).journal
    assert journal.place(streams.outcomes("AT")) == 2
    assert len([each for each in journal.alarms() if "offset 0" in each.about]) == 1
    one.close()
    other.close()


async def test_a_file_that_another_process_keeps_is_waited_for_and_loses_nothing(world: World) -> None:
    """The other was stopped inside a transaction: what came is taken in once it goes on."""
    (data,) = await world.publish(draft("R-1"))
    await world.broker.route(data, {"LV/ncb": ALL})
    await reject(world, data, "invalid-field")
    lv, at = world.machine("LV/ncb"), world.machine("AT/ncb")
    inbox, stopped, outbox, beside = lv.inbox(), lv.inbox(), at.outbox(), at.outbox()
    collector, outcomes = lv.collector(inbox), at.outcomes(outbox)
    for each in (inbox, outbox):
        each.database.execute("PRAGMA busy_timeout = 0")
    acts: list[Callable[[], Awaitable[object]]] = [
        collector.round, outcomes.round, partial(outbox.flush, world.bus)
    ]  # fmt: skip
    with transaction(stopped.database), transaction(beside.database):
        for act in acts:
            with pytest.raises(UnavailableError, match="another process may keep it"):
                await act()
        for again in (lv.inbox, at.outbox):  # it is opened all the same
            again().close()
        for write in (partial(outbox.publish, [draft("R-2")]), partial(outbox.rehearse, [draft("R-2")])):
            with pytest.raises(UnavailableError):
                write()
    assert [each.record for each in (await collector.drain()).new] == ["R-1"]
    assert (await outcomes.drain()).new == 2
    for opened in (inbox, stopped, outbox, beside):
        opened.close()


@pytest.mark.parametrize("both", [True, False])
async def test_a_notice_queued_anew_before_it_was_marked_waits_to_be_sent(world: World, both: bool) -> None:
    """It was rejected as its key was not in force yet; `both`: the other process has sent it, too."""
    at = world.machine("AT/ncb")
    one, other = at.outbox(), at.outbox()
    one.publish([draft("R-1")])

    async def meanwhile() -> None:
        if both:
            await other.flush(world.bus)
        (first, *_) = await world.sent()
        await reject(world, first, "key-not-in-force", signed=False)
        await world.broker.route(await published_elsewhere(world), {"LV/ncb": ALL})
        await learn(at, other)
        world.bus.memory.breaks.append(False)
        with pytest.raises(UnavailableError):
            await other.flush(world.bus)

    bus = _Held(world.bus.memory)
    bus.meanwhile = meanwhile
    await one.flush(bus)
    await other.flush(world.bus)
    one.close()
    other.close()
    sent = await world.sent()
    assert sent.count(sent[0]) == (3 if both else 2)


class _Between(FakeBus):
    """The bus of a process beside which another one does something at each append."""

    def beside(self, act: Callable[[], None]) -> _Between:
        self.act = act
        return self

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        last = await super().append(stream, values, partition=partition)
        self.act()
        return last


async def test_who_sends_with_an_old_key_beside_another_with_the_new_one_says_so_and_ends(world: World) -> None:
    at = world.machine("AT/ncb")
    one = at.outbox()
    one.publish([draft("R-1")])
    other = (await renewed(world)).outbox()

    def signs() -> None:
        rows = other.database.execute("SELECT * FROM envelopes WHERE sent_at IS NULL").fetchall()
        other._sender._note([(row, other._sender._in_force(row)) for row in rows])

    with pytest.raises(UnavailableError, match="another process signs with another key"):
        await one.flush(_Between(world.bus.memory).beside(signs))
    assert len(await world.sent()) == 1
    assert await other.flush(world.bus) == 1
    one.close()
    other.close()


async def test_who_sends_receipts_with_an_old_key_beside_another_says_so_and_ends(world: World) -> None:
    (data,) = await world.publish(draft("R-1"))
    await world.broker.route(data, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    await unheard(world, lv, inbox)
    lv.generation = 1
    box = lv.inbox()
    other = Receipts(box.database, lv.signer())
    lv.generation = 0

    def signs() -> None:
        (row,) = box.database.execute("SELECT number, queued, statement FROM receipts").fetchall()
        other._note([_Waiting(row["number"], row["queued"], other._in_force(bytes(row["statement"])))])

    bus = _Between(world.bus.memory).beside(signs)
    with pytest.raises(UnavailableError, match="another process signs with another key"):
        await Receipts(inbox.database, lv.signer()).send(bus, 0)
    assert len(await world.receipts("LV")) == 1
    assert await other.send(world.bus, 0) == 1
    inbox.close()
    box.close()


async def published_elsewhere(world: World) -> bytes:
    """A notice of AT that is none of this outbox."""
    at = world.machine("AT/ncb")
    elsewhere = Machine(at.folder / "elsewhere", FakeBus(), at.bureau)
    await elsewhere.versions.follow(world.bus)
    outbox = elsewhere.outbox()
    outbox.publish([draft("R-2")])
    await outbox.flush(elsewhere.bus)
    outbox.close()
    (sent,) = await elsewhere.bus.read("notices.at", 0)
    return sent.value or b""


async def test_a_rejection_that_is_heard_before_its_notice_was_marked_is_not_missed(world: World) -> None:
    """The broker names no notice in it: the outbox knows it by the bytes that went out, here under the next key."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.publish([draft("R-1")])
    outbox.close()
    at = await renewed(world)
    one, other = at.outbox(), at.outbox()

    async def meanwhile() -> None:
        (sent,) = await world.sent()
        await reject(world, sent, "unknown-member", signed=False)
        await learn(at, other)

    bus = _Held(world.bus.memory)
    bus.meanwhile = meanwhile
    await one.flush(bus)
    (sent,) = await world.sent()
    story = trace(one.database, identity(sent))
    assert story is not None
    assert (story.outcome, one.published(""), one.waiting()) == ("rejected", {}, 0)
    one.close()
    other.close()


async def test_an_outbox_of_before_counts_how_often_a_notice_was_queued_anew(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.publish([draft("R-1")])
    of_before(outbox)
    outbox.close()
    outbox = at.outbox()
    assert await outbox.flush(world.bus) == 1
    await reject(world, (await world.sent())[0], "key-not-in-force", signed=False)
    await learn(at, outbox)
    outbox.close()
    outbox = (await renewed(world)).outbox()
    assert (await outbox.flush(world.bus), outbox.waiting()) == (1, 0)
    outbox.close()


def of_before(outbox: Outbox) -> None:
    """Make a file what an earlier Valise left."""
    outbox.database.executescript(
        "DROP VIEW ours; ALTER TABLE envelopes DROP COLUMN queued; UPDATE envelopes SET sent_digest = NULL;"
        "CREATE VIEW ours AS SELECT * FROM envelopes WHERE notice_id NOT IN (SELECT notice_id FROM orders);"
    )
