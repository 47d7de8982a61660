from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from adapters.collect import Collector
from adapters.inbox import Inbox
from adapters.receipts import Signer
from adapters.refusals import RetentionOverError
from adapters.versions import Versions
from broker import avro, by_hand, codec, crash, merkle, notes, streams
from broker.bus import Copies, Record
from broker.errors import UnavailableError
from broker.notice import RECEIPT_TYPE, Delivery, Receipt, Shared, Statement
from broker.signing import SigningKey, pae
from broker.sqlite import SqliteBus
from broker.streams import World as Streams
from schemas import loader
from tests.fake_bus import FakeBus
from tests.honest_broker import BUREAUS, LOG
from tests.killed import killed
from tests.making import FEDERATION, NOW, key_of
from tests.making import Draft as Made
from tests.member.conftest import Machine, World, draft, sent_under_the_next_key

ALL = ("identity", "warnings", "narrative")


def receipt(data: bytes) -> Receipt:
    """Check a receipt's signature and read it."""
    statement = codec.decode(Statement, data)
    made = codec.decode(Receipt, statement.payload)
    key_of(made.bureau).public.check(statement.signature, pae(RECEIPT_TYPE, statement.payload))
    return made


async def test_what_was_checked_is_kept_and_a_receipt_is_sent(world: World) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, {"LV/ncb": ALL})
    await world.broker.route(second, {"LV/ncb": ("identity",)})
    inbox = world.machine("LV/ncb").inbox()
    taken = await world.machine("LV/ncb").collector(inbox).drain()
    assert [each.record for each in taken.new] == ["R-1", "R-2"]
    assert inbox.heads.newest()[0] == 2
    (made,) = map(receipt, await world.receipts("LV"))
    assert (made.act, made.issuer_member, made.number) == ("received", "AT", 1)
    assert [each.leaf_number for each in made.items] == [0, 1]
    assert inbox.journal.alarms() == []
    inbox.close()


async def test_a_copy_made_twice_is_dropped(world: World) -> None:
    (data,) = await world.publish(draft())
    number = await world.broker.route(data, {"LV/ncb": ALL})
    await world.broker.deliver(number)
    inbox = world.machine("LV/ncb").inbox()
    taken = await world.machine("LV/ncb").collector(inbox).drain()
    assert (len(taken.new), taken.records, taken.refused) == (1, 2, 0)
    assert len(await world.receipts("LV")) == 1
    inbox.close()


async def test_a_missing_delivery_number_is_an_alarm_and_what_came_is_kept(world: World) -> None:
    lost, came = await world.publish(draft("R-1"), draft("R-2"))
    broker = world.broker
    first, second = broker.record(lost, {"LV/ncb": ALL}), broker.record(came, {"LV/ncb": ALL})
    await broker.seal()
    await broker.deliver(second)
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    assert [each.number for each in (await collector.drain()).new] == [2]
    assert [each.code for each in inbox.journal.alarms()] == ["gap"]
    assert inbox.missing() == 1
    await broker.deliver(first)
    assert [each.number for each in (await collector.drain()).new] == [1]
    assert inbox.missing() == 0
    inbox.close()


async def test_an_inbox_that_was_lost_and_made_again_is_read_from_its_beginning(world: World) -> None:
    """Read on from the place of before, what comes until it has grown past that would be passed over."""
    taken, lost, came = await world.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    await world.broker.route(taken, {"LV/ncb": ALL})
    number = await world.broker.route(lost, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    await collector.drain()
    world.bus.memory.lose(streams.inbox("LV/ncb"))
    assert (await collector.drain()).records == 0
    assert [each.code for each in inbox.journal.alarms()] == ["stream-lost"]
    assert "inbox.lv.ncb ends at 0 and was read up to 2" in (inbox.journal.alarms()[0].about or "")
    await world.broker.deliver(number)  # once more, as a start does that does not know whether it had left
    await world.broker.route(came, {"LV/ncb": ALL})
    assert [each.record for each in (await collector.drain()).new] == ["R-3"]
    assert [each.code for each in inbox.journal.alarms()] == ["stream-lost"]
    inbox.close()


async def test_an_inbox_that_has_grown_past_the_place_since_it_was_made_again_is_read_whole(world: World) -> None:
    """Its end does not tell; a number is missing, and what lies just before the place never came from there."""
    taken, *others = await world.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    await world.broker.route(taken, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    await collector.drain()
    world.bus.memory.lose(streams.inbox("LV/ncb"))
    for each in others:
        await world.broker.route(each, {"LV/ncb": ALL})
    assert [each.record for each in (await collector.drain()).new] == ["R-2", "R-3"]
    assert [each.code for each in inbox.journal.alarms()] == ["stream-lost"]
    assert inbox.missing() == 0
    inbox.close()


@pytest.mark.parametrize("read_before", [True, False])
async def test_who_was_away_for_longer_than_the_bus_keeps_deliveries_goes_on_with_what_it_holds(
    world: World, *, read_before: bool
) -> None:
    """What was dropped is lost: an alarm tells that it was, and the numbers which; nothing that came since waits."""
    first, lost, came = await world.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    await world.broker.route(first, {"LV/ncb": ALL})
    inbox, stream = world.machine("LV/ncb").inbox(), streams.inbox("LV/ncb")
    collector = world.machine("LV/ncb").collector(inbox)
    if read_before:
        await collector.drain()
    await world.broker.route(lost, {"LV/ncb": ALL})
    world.bus.memory.cut(stream, await world.bus.end(stream))
    assert (await collector.drain()).records == 0
    assert [each.code for each in inbox.journal.alarms()] == ["offset-gone"] * read_before
    await world.broker.route(came, {"LV/ncb": ALL})
    assert [each.record for each in (await collector.drain()).new] == ["R-3"]
    assert [each.code for each in inbox.journal.alarms()] == ["offset-gone"] * read_before + ["gap"]
    assert inbox.missing() == (1 if read_before else 2)
    inbox.close()


async def test_a_number_that_belongs_to_another_delivery_is_refused(world: World) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, {"LV/ncb": ALL})
    world.broker.numbers.clear()
    await world.broker.route(second, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    taken = await world.machine("LV/ncb").collector(inbox).drain()
    assert [each.record for each in taken.new] == ["R-1"]
    assert [each.code for each in inbox.journal.alarms()] == ["number-reused"]
    inbox.close()


async def test_what_fails_a_check_is_shown_to_nobody_and_the_collector_goes_on(world: World) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    broker = world.broker
    hostile, honest = broker.record(first, {"LV/ncb": ALL}), broker.record(second, {"LV/ncb": ALL})
    await broker.seal()
    for copy in broker.copies(hostile):
        shared = avro.read("shared", codec.decode(Delivery, copy.own[0][1] + copy.shared).shared)
        bad = Shared(shared["envelope"], shared["leaf"], shared["proof"].replace("index 0", "index 1"))
        await world.bus.fan_out([Copies(copy.key, by_hand.encode_shared(bad), copy.own)])
    await broker.deliver(honest)
    inbox = world.machine("LV/ncb").inbox()
    taken = await world.machine("LV/ncb").collector(inbox).drain()
    assert ([each.record for each in taken.new], taken.refused) == (["R-2"], 1)
    assert [each.code for each in inbox.journal.alarms()] == ["not-in-trail", "gap"]
    inbox.close()


@pytest.mark.parametrize("left", [None, b"damaged"])
async def test_a_directory_that_is_lost_or_damaged_here_is_read_once_more(world: World, left: bytes | None) -> None:
    """It is no delivery's fault; and which one was in force before is known as long as the bus has it."""
    first, second, third = await world.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    old, lv = world.broker.written, world.machine("LV/ncb")
    digests = [world.broker.directory.digest]
    await world.broker.route(first, {"LV/ncb": ("identity",)})
    world.broker.written = old.model_copy(update={"version": 2})
    await world.broker.publish_directory()
    digests.append(world.broker.directory.digest)

    def damage(digest: bytes) -> None:
        file = lv.folder / "versions" / digest.hex()
        file.unlink() if left is None else file.write_bytes(left)

    await lv.versions.follow(world.bus)
    damage(digests[0])
    inbox = lv.inbox()
    assert (await lv.collector(inbox).drain()).refused == 0
    await world.broker.route(second, {"LV/ncb": ("identity",)})
    assert (await lv.collector(inbox).drain()).refused == 0
    damage(digests[1])
    world.broker.written = old
    await world.broker.route(third, {"LV/ncb": ("identity",)})
    assert (await lv.collector(inbox).drain()).refused == 1
    assert [each.record for each in inbox.lines()] == ["R-1", "R-2"]
    assert [each.code for each in inbox.journal.alarms()] == ["wrong-leaf"]
    inbox.close()


async def test_a_delivery_that_comes_before_its_head_is_refused(world: World) -> None:
    (data,) = await world.publish(draft())
    number = world.broker.record(data, {"LV/ncb": ALL})
    await world.broker.deliver(number)
    inbox = world.machine("LV/ncb").inbox()
    assert (await world.machine("LV/ncb").collector(inbox).drain()).new == []
    assert [each.code for each in inbox.journal.alarms()] == ["unknown-head"]
    inbox.close()


class _SlowHeads(FakeBus):
    """Gives heads one at a time, as Kafka may."""

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        limit = 1 if stream == streams.CHECKPOINTS else limit
        return await super().read(stream, offset, limit=limit, wait=wait, partition=partition)


async def _beside_slow_heads(world: World, receiver: str) -> Machine:
    """Route three notices to `receiver`, and give Latvia's machine a bus with slow heads."""
    for each in await world.publish(draft("R-1"), draft("R-2"), draft("R-3")):
        await world.broker.route(each, {receiver: ALL})
    lv = world.machine("LV/ncb")
    lv.bus = _SlowHeads(world.bus.memory)
    return lv


async def test_heads_that_come_slowly_are_waited_for_by_what_names_them(world: World) -> None:
    lv = await _beside_slow_heads(world, "LV/ncb")
    inbox = lv.inbox()
    taken = await lv.collector(inbox).round()
    assert ([each.record for each in taken.new], taken.refused) == (["R-1", "R-2", "R-3"], 0)
    assert inbox.journal.alarms() == []
    inbox.close()


async def test_who_has_nothing_to_check_follows_the_heads_to_their_end(world: World) -> None:
    lv = await _beside_slow_heads(world, "GE/ncb")
    inbox = lv.inbox()
    await lv.collector(inbox).round()
    assert inbox.heads.newest()[0] == 3
    inbox.close()


async def test_a_head_that_does_not_extend_the_last_one_is_refused(world: World) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    broker = world.broker
    await broker.route(first, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    await collector.drain()
    leaf = broker.leaves[0]
    broker.leaves[0] = leaf[:-1] + bytes([leaf[-1] ^ 1])  # history is rewritten
    await broker.route(second, {"LV/ncb": ALL})
    assert (await collector.drain()).new == []
    assert [each.code for each in inbox.journal.alarms()] == ["bad-checkpoint", "unknown-head"]
    assert inbox.heads.newest()[0] == 1
    inbox.close()


async def test_two_heads_of_one_size_are_an_alarm(world: World) -> None:
    (data,) = await world.publish(draft("R-1"))
    await world.broker.route(data, {"LV/ncb": ALL})
    other = notes.sign_checkpoint(notes.Checkpoint(LOG.name, 1, merkle.leaf_hash(b"other")), world.broker.key)
    await world.bus.append(streams.CHECKPOINTS, [(b"", notes.format_advance(0, [], other).encode())])
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert [each.code for each in inbox.journal.alarms()] == ["split-view"]
    inbox.close()


async def test_a_head_that_another_key_signed_is_refused(world: World) -> None:
    (data,) = await world.publish(draft("R-1"))
    world.broker.key = SigningKey.new()
    await world.broker.route(data, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    assert (await world.machine("LV/ncb").collector(inbox).drain()).new == []
    assert inbox.heads.newest()[0] == 0
    inbox.close()


async def test_a_correction_takes_the_body_of_what_it_replaces(world: World) -> None:
    (first,) = await world.publish(draft())
    await world.broker.route(first, {"LV/ncb": ALL})
    (second,) = await world.publish(draft(action_sought="arrest"))
    await world.broker.route(second, {"LV/ncb": ALL}, {"LV/ncb": ("replaces", 1)})
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert [(each.version, each.state) for each in inbox.lines()] == [(1, "replaced"), (2, "new")]
    assert inbox.open(1) is None
    assert inbox.open(2) is not None
    inbox.close()


@pytest.mark.parametrize(("order", "refused"), [({}, 0), ({"LV/ncb": ("replaces", 1)}, 1)])
async def test_a_correction_that_is_held_leaves_its_reviewer_the_version_in_force_until_it_is_released(
    world: World, order: dict[str, tuple[str, int]], refused: int
) -> None:
    (first,) = await world.publish(draft())
    await world.broker.route(first, {"LV/ncb": ALL})
    (second,) = await world.publish(draft(action_sought="arrest"))
    await world.broker.route(second, {"LV/ncb": ALL}, order, "held")
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    assert (await collector.drain()).refused == refused
    assert inbox.open(1) is not None
    await world.broker.route(second, {"LV/ncb": ALL}, {}, "released")
    await collector.drain()
    assert {each.state for each in inbox.lines() if each.number < 3} == {"replaced"}
    assert inbox.open(3) is not None
    inbox.close()


async def test_a_withdrawal_leaves_nothing_of_the_body_in_any_file_and_is_answered(world: World) -> None:
    secret = "Zebedee-Unmistakable"
    body = {"names": [{"family": secret, "script": "Latn", "kind": "primary"}]}
    (first,) = await world.publish(draft(compartments={"identity": body}))
    await world.broker.route(first, {"LV/ncb": ALL})
    inbox, folder = world.machine("LV/ncb").inbox(), world.machine("LV/ncb").folder
    collector = world.machine("LV/ncb").collector(inbox)
    await collector.drain()
    assert secret.encode() in _files(folder)
    outbox = world.machine("AT/ncb").outbox()
    outbox.withdraw("R-1", {"code": "arrested"})
    await outbox.flush(world.bus)
    outbox.close()
    await world.broker.route((await world.sent())[-1], {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    await collector.drain()
    assert secret.encode() not in _files(folder)
    assert [(each.kind, each.state) for each in inbox.lines()] == [("person", "erased"), ("withdrawal", "new")]
    erased = [each for each in map(receipt, await world.receipts("LV")) if each.act == "erased"]
    assert [(each.result, [item.leaf_number for item in each.items]) for each in erased] == [("erased", [1, 0])]
    inbox.close()


def _files(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(folder.glob("inbox.db*")))


async def _withdraw(world: World) -> None:
    """Withdraw R-1, whose delivery is the first."""
    outbox = world.machine("AT/ncb").outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    outbox.close()
    await world.broker.route((await world.sent())[-1], {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})


async def _erase_unseen(world: World) -> None:
    """Withdraw R-1 before its delivery came; that of R-2 stands between."""
    lost, other = await world.publish(draft("R-1"), draft("R-2"))
    world.broker.record(lost, {"LV/ncb": ALL})
    await world.broker.route(other, {"LV/ncb": ALL})
    await _withdraw(world)


async def test_a_withdrawal_that_comes_before_what_it_erases_is_kept_in_mind(world: World) -> None:
    (first,) = await world.publish(draft())
    number = world.broker.record(first, {"LV/ncb": ALL})
    await _withdraw(world)
    await world.broker.deliver(number)
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert [(each.number, each.state) for each in inbox.lines()] == [(1, "erased"), (2, "new")]
    assert inbox.open(1) is None
    inbox.close()


async def test_a_withdrawal_that_names_what_is_missing_may_lie_on_the_next_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _erase_unseen(world)
    whole = world.bus.read

    async def one_by_one(stream: str, offset: int, **more: int) -> list[Record]:
        found = await whole(stream, offset, **more)
        return found[:1] if stream == "inbox.lv.ncb" else found

    monkeypatch.setattr(world.bus, "read", one_by_one)
    inbox = world.machine("LV/ncb").inbox()
    taken = await world.machine("LV/ncb").collector(inbox).round()
    assert (taken.records, [each.number for each in inbox.lines()]) == (2, [2, 3])
    assert [each.code for each in inbox.journal.alarms()] == ["erased-unseen"]
    inbox.close()


async def test_what_was_withdrawn_before_anybody_read_it_is_no_gap_and_is_still_told(world: World) -> None:
    await _erase_unseen(world)
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert [each.number for each in inbox.lines()] == [2, 3]
    assert [each.code for each in inbox.journal.alarms()] == ["erased-unseen"]
    inbox.close()


async def test_a_gap_is_not_passed_off_as_withdrawn_by_what_is_no_withdrawal(world: World) -> None:
    first, second, third = await world.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    world.broker.record(first, {"LV/ncb": ALL})
    await world.broker.route(second, {"LV/ncb": ALL}, {"LV/ncb": ("erases", 1)})
    await world.broker.route(third, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert [each.number for each in inbox.lines()] == [3]
    assert sorted(each.code for each in inbox.journal.alarms()) == ["gap", "unrelated"]
    inbox.close()


async def test_a_file_of_before_learns_what_was_withdrawn(world: World) -> None:
    (first,) = await world.publish(draft())
    number = world.broker.record(first, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    outbox = world.machine("AT/ncb").outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    outbox.close()
    await world.broker.route((await world.sent())[-1], {"LV/ncb": ("reason",)})
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    inbox.database.executescript("DROP TABLE ends; PRAGMA user_version = 0")
    inbox.close()
    inbox = lv.inbox()
    await world.broker.deliver(number)
    await lv.collector(inbox).drain()
    assert [(each.number, each.state) for each in inbox.lines()] == [(1, "erased"), (2, "new")]
    inbox.close()


def _step(counted: Iterator[int]) -> None:
    next(counted)


async def test_the_hundredth_version_costs_what_the_tenth_did(world: World) -> None:
    """Counted in steps of SQLite's machine, for versions that came in order and one by one."""
    inbox = world.machine("LV/ncb").inbox()
    collector, steps = world.machine("LV/ncb").collector(inbox), list[int]()
    for version in range(1, 101):
        (data,) = await world.publish(draft(action_sought=f"act {version}"))
        await world.broker.route(data, {"LV/ncb": ALL})
        counted = count()
        inbox.database.set_progress_handler(partial(_step, counted), 1)
        await collector.round()
        inbox.database.set_progress_handler(None, 1)
        steps.append(next(counted))
    assert [each.state for each in inbox.lines()] == ["replaced"] * 99 + ["new"]
    assert sum(steps[90:]) < 1.2 * sum(steps[10:20])
    inbox.close()


async def test_a_list_of_deliveries_brings_no_body_into_memory(world: World) -> None:
    inbox, columns = world.machine("LV/ncb").inbox(), set[str | None]()

    def note(action: int, table: str | None, column: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ and table == "deliveries":
            columns.add(column)
        return sqlite3.SQLITE_OK

    for number in range(3):
        (data,) = await world.publish(draft(f"R-{number}"))
        await world.broker.route(data, {"LV/ncb": ALL})
    told = list[tuple[int, int]]()
    await world.machine("LV/ncb").collector(inbox).drain(lambda done, size: told.append((done, size)))
    assert told[-1] == (3, 0)
    inbox.database.set_authorizer(note)
    assert [each.record for each in inbox.lines(inbox.before_newest(2))] == ["R-1", "R-2"]
    assert (inbox.before_newest(3), inbox.before_newest(4), inbox.count()) == (0, 0, (3, 3))
    assert "record" in columns
    assert "shared" not in columns
    inbox.close()
    empty = world.machine("GE/ncb").inbox()
    assert (empty.before_newest(2), empty.count()) == (0, (0, 0))
    empty.close()


@pytest.mark.parametrize("order", [("erases", 1), ("replaces", 1)])
async def test_a_notice_of_another_record_can_neither_replace_nor_erase(world: World, order: tuple[str, int]) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, {"LV/ncb": ALL})
    await world.broker.route(second, {"LV/ncb": ALL}, {"LV/ncb": order})
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert inbox.open(1) is not None
    assert [each.code for each in inbox.journal.alarms()] == ["unrelated"]
    inbox.close()


async def test_a_withdrawal_of_another_record_erases_nothing(world: World) -> None:
    first, _ = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, {"LV/ncb": ALL})
    outbox = world.machine("AT/ncb").outbox()
    outbox.withdraw("R-2")
    await outbox.flush(world.bus)
    outbox.close()
    await world.broker.route((await world.sent())[-1], {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert inbox.open(1) is not None
    assert [each.code for each in inbox.journal.alarms()] == ["unrelated"]
    inbox.close()


async def test_reading_is_signed_before_it_is_shown_and_the_case_stays_here(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ("identity",)})
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    await collector.drain()
    opened = collector.read(1, "case 17/26")
    assert opened is not None
    assert list(opened.body) == ["identity"]
    collector.read(1, "case 17/26")
    await collector.send()
    read = [each for each in map(receipt, await world.receipts("LV")) if each.act == "read"]
    assert len(read) == 1
    assert read[0].case_digest is not None
    assert b"17/26" not in b"".join(await world.receipts("LV"))
    assert collector.read(2, "case") is None
    line = inbox.line(1)
    assert line is not None
    assert line.state == "read"
    inbox.close()


@pytest.mark.parametrize("field", ["retain_until", "review_due"])
async def test_past_its_retention_or_review_nothing_is_opened_and_no_receipt_says_so(world: World, field: str) -> None:
    for ends in (NOW, NOW + 1):
        (data,) = await world.publish(draft(f"R-{ends}", **{field: ends}))
        await world.broker.route(data, {"LV/ncb": ("identity",)})
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    await collector.drain()
    with pytest.raises(RetentionOverError):
        collector.read(1, "case")
    assert collector.read(2, "case") is not None
    await collector.send()
    read = [each for each in map(receipt, await world.receipts("LV")) if each.act == "read"]
    assert len(read) == 1
    inbox.close()


async def test_a_receipt_waits_until_the_bus_has_it(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ALL})
    inbox = world.machine("LV/ncb").inbox()
    collector = world.machine("LV/ncb").collector(inbox)
    world.bus.memory.breaks.append(False)
    with pytest.raises(UnavailableError):
        await collector.drain()
    assert await world.receipts("LV") == []
    inbox.close()
    inbox = world.machine("LV/ncb").inbox()
    await world.machine("LV/ncb").collector(inbox).drain()
    assert len(await world.receipts("LV")) == 1
    inbox.close()


async def test_a_waiting_receipt_is_signed_anew_when_the_key_has_changed(world: World) -> None:
    inbox = await sent_under_the_next_key(world)
    (sent,) = await world.receipts("LV")
    assert codec.decode(Statement, sent).key_id == key_of("LV/ncb", 1).public.id
    inbox.close()


def _bus(path: Path) -> SqliteBus:
    return SqliteBus(path, "lv.adapter", Streams(("AT", "LV", "GE"), BUREAUS), lambda: NOW)


def _collect_until_killed(folder: Path, point: str) -> None:
    crash.arm(point)
    asyncio.run(_collect(folder))


async def _collect(folder: Path) -> int:
    async with _bus(folder / "bus.db") as bus:
        inbox = Inbox(folder / "inbox.db")
        versions = Versions(folder / "versions")
        signer = Signer(FEDERATION, "LV/ncb", key_of("LV/ncb"), lambda: NOW)
        taken = await Collector(bus, inbox, versions, signer, os.urandom).drain()
        inbox.close()
        return len(taken.new)


@pytest.mark.parametrize("point", ["collect.stored", "collect.receipt-appended"])
async def test_kill_9_loses_no_delivery_and_no_receipt(world: World, tmp_path: Path, point: str) -> None:
    sent = await world.publish(draft("R-1"), draft("R-2"))
    streams_ = Streams(("AT", "LV", "GE"), BUREAUS)
    async with SqliteBus(tmp_path / "bus.db", "router", streams_, lambda: NOW) as bus:
        await bus.create(list(streams_.streams()))
        broker = replace(world.broker, bus=bus)
        async with SqliteBus(tmp_path / "bus.db", "operator", streams_, lambda: NOW) as operator:
            await replace(broker, bus=operator).publish_directory()
        for each in sent:
            await broker.route(each, {"LV/ncb": ALL})
    killed(_collect_until_killed, tmp_path, point)
    assert await _collect(tmp_path) == 0
    inbox = Inbox(tmp_path / "inbox.db")
    assert [each.record for each in inbox.lines()] == ["R-1", "R-2"]
    inbox.close()
    async with SqliteBus(tmp_path / "bus.db", "router", streams_, lambda: NOW) as bus:
        receipts = [each.value or b"" for each in await bus.read(streams.receipts("LV"), 0)]
    assert len(set(receipts)) == 1
    assert [item.leaf_number for item in receipt(receipts[0]).items] == [0, 1]


async def test_a_body_that_is_not_what_its_schema_says_keeps_nothing_else_from_its_reader(world: World) -> None:
    """The broker opens no body. Its header and all else can be read, and so it can be reviewed and ended."""
    made = Made("AT/ncb", bodies={"warnings": loader.example("person.warnings")}).to("LV/ncb")
    await world.broker.route(codec.encode(made.envelope()), {"LV/ncb": ALL})
    machine = world.machine("LV/ncb")
    inbox = machine.inbox()
    collector = machine.collector(inbox)
    (line,) = (await collector.drain()).new
    opened = collector.read(line.number, "2026/1")
    assert opened is not None
    assert (opened.header.issuer, list(opened.body), opened.unreadable) == ("AT/ncb", ["warnings"], ("identity",))
    assert inbox.speaks_of(line.number) == ("AT/ncb", line.record)
    inbox.close()
