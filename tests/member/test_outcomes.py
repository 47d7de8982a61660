from __future__ import annotations

import os

import pytest

from adapters.compose import Maker
from adapters.outbox import Outbox
from adapters.outcomes import Outcomes, rejected_in
from adapters.trace import trace
from adapters.versions import Versions
from broker import codec, streams
from broker.directory import Directory
from broker.errors import ConfigurationError
from broker.notice import (
    Envelope,
    Header,
    Receipt,
    Statement,
)
from broker.signing import SigningKey
from cli import in_words
from cli.in_words import SILENT_MS
from tests.honest_broker import directory
from tests.making import NOW, Draft, key_of
from tests.member.conftest import Machine, World, draft, sent_under_the_next_key

ALL = ("identity", "warnings", "narrative")
SHOWS = {"LV/ncb": ALL, "GE/ncb": ("identity",)}


def identity(data: bytes) -> bytes:
    """The notice id of an envelope."""
    return codec.decode(Header, codec.decode(Envelope, data).header).notice_id


async def collect(world: World, bureau: str) -> None:
    """Let a bureau collect and the broker take in what it signed."""
    machine = world.machine(bureau)
    inbox = machine.inbox()
    before = len(await world.receipts(bureau[:2]))
    await machine.collector(inbox).drain()
    inbox.close()
    for each in (await world.receipts(bureau[:2]))[before:]:
        outcome = world.broker.confirm(each)
        await world.broker.seal()
        await world.broker.tell("AT", outcome)


async def learn(machine: Machine, outbox: Outbox) -> list[str]:
    """Follow the outcomes; give the codes of all alarms."""
    outcomes = machine.outcomes(outbox)
    await outcomes.drain()
    return [each.code for each in outcomes.journal.alarms()]


async def reject(world: World, data: bytes, code: str, *, signed: bool = True) -> None:
    """Let the broker reject what AT sent, and tell AT."""
    outcome = world.broker.reject(data, code, signed=signed)
    await world.broker.seal()
    await world.broker.tell("AT", outcome)


async def renewed(world: World) -> Machine:
    """Give AT/ncb another key, of which everybody knows."""
    world.broker.written = directory({"AT/ncb": 1}, 2)
    await world.broker.publish_directory()
    at = world.machine("AT/ncb")
    await at.versions.follow(world.bus)
    at.generation = 1
    return at


async def test_the_issuer_learns_who_was_given_what_and_who_is_silent(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    await collect(world, "LV/ncb")
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == []
    story = trace(outbox.database, identity(data))
    assert story is not None
    assert (story.outcome, story.leaf_number, story.rules[0].rule) == ("routed", 0, "mandate")
    assert [(each.bureau, each.shown) for each in story.reached] == [("LV/ncb", ALL), ("GE/ncb", ("identity",))]
    assert story.reached[0].at("received") == world.broker.now
    assert story.silent == ("GE/ncb",)
    outbox.close()
    decided = story.decided_at or 0
    assert in_words.became(story, decided + SILENT_MS - 1).endswith("to 2 bureaus; no answer yet from: GE/ncb")
    assert in_words.became(story, decided + SILENT_MS).endswith("to 2 bureaus; silent: GE/ncb")


async def test_a_reviewer_is_called_silent_once_it_has_had_the_time_to_answer(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ALL}, kind="held")
    outbox = world.machine("AT/ncb").outbox()
    await learn(world.machine("AT/ncb"), outbox)
    story = trace(outbox.database, identity(data))
    outbox.close()
    assert story is not None
    decided = story.decided_at or 0
    assert in_words.became(story, decided).endswith("for review: LV/ncb has not answered yet")
    assert in_words.became(story, decided + SILENT_MS).endswith("for review: LV/ncb is silent")


async def test_whose_clock_is_ahead_is_told_so_and_by_how_much(world: World) -> None:
    at = world.machine("AT/ncb")
    at.ahead = 2 * 3_600_000
    (data,) = await world.publish(draft())
    await reject(world, data, "issued-in-future")
    outbox = at.outbox()
    await learn(at, outbox)
    said = "your clock was at least 120 min ahead of the broker's"
    assert [each.about for each in at.outcomes(outbox).journal.alarms()] == [f"leaf 0: {said}"]
    story = trace(outbox.database, identity(data))
    outbox.close()
    assert story is not None
    assert story.detail == f"{said}: set it right and publish again"


async def test_what_was_decided_needs_its_body_here_no_longer(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    outbox = world.machine("AT/ncb").outbox()
    await learn(world.machine("AT/ncb"), outbox)
    assert outbox.database.execute("SELECT compartments FROM envelopes").fetchone()[0] is None
    assert await outbox.flush(world.bus) == 0
    outbox.close()


async def test_a_rejected_record_is_published_again_by_the_next_run(world: World) -> None:
    (data,) = await world.publish(draft())
    await reject(world, data, "unknown-purpose")
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == ["unknown-purpose"]
    assert outbox.published("") == {}
    (again,) = await world.publish(draft())
    assert codec.decode(Header, codec.decode(Envelope, again).header).references == ()
    outbox.close()


async def test_after_a_rejected_correction_the_next_one_names_the_version_that_stands(world: World) -> None:
    (first,) = await world.publish(draft())
    (second,) = await world.publish(draft(action_sought="arrest"))
    await world.broker.route(first, SHOWS)
    await reject(world, second, "invalid-field")
    outbox = world.machine("AT/ncb").outbox()
    await learn(world.machine("AT/ncb"), outbox)
    outbox.close()
    (third,) = await world.publish(draft(action_sought="arrest"))
    header = codec.decode(Header, codec.decode(Envelope, third).header)
    assert header.version == 3
    assert [each.notice_id for each in header.references] == [identity(first)]


async def test_what_was_rejected_for_its_key_alone_is_signed_anew(world: World) -> None:
    (data,) = await world.publish(draft())
    at = await renewed(world)
    await reject(world, data, "key-not-in-force", signed=False)
    outbox = at.outbox()
    assert await learn(at, outbox) == []
    assert await outbox.flush(world.bus) == 1
    anew = codec.decode(Envelope, (await world.sent())[-1])
    assert anew.header == codec.decode(Envelope, data).header
    assert anew.key_id == key_of("AT/ncb", 1).public.id
    outbox.close()


async def refuse_receipts(world: World, code: str) -> None:
    """Let the broker reject what LV signed last for its key, and LV learn of it."""
    outcome = world.broker.refuse((await world.receipts("LV"))[-1], code)
    await world.broker.seal()
    await world.broker.tell("LV", outcome)
    lv = world.machine("LV/ncb")
    outbox = lv.outbox()
    await lv.outcomes(outbox).drain()
    outbox.close()


async def received(world: World) -> bool:
    """Whether AT's trace says that LV has received what was published first."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await learn(at, outbox)
    story = trace(outbox.database, identity((await world.sent())[0]))
    outbox.close()
    assert story is not None
    return story.silent == ()


@pytest.mark.parametrize("code", ["key-not-in-force", "key-revoked", "unknown-key"])
async def test_a_receipt_that_was_rejected_for_its_key_is_signed_anew(world: World, code: str) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    await refuse_receipts(world, code)
    await lv.collector(inbox).drain()  # the same key still
    assert (len(await world.receipts("LV")), await received(world)) == (1, False)

    world.broker.written = directory({"LV/ncb": 1}, 2)
    await world.broker.publish_directory()
    await lv.versions.follow(world.bus)
    lv.generation = 1
    for _ in range(2):
        await lv.collector(inbox).drain()
    inbox.close()
    old, anew = [codec.decode(Statement, each) for each in await world.receipts("LV")]
    assert (anew.payload, anew.key_id) == (old.payload, key_of("LV/ncb", 1).public.id)
    outcome = world.broker.confirm((await world.receipts("LV"))[-1])
    await world.broker.seal()
    await world.broker.tell("AT", outcome)
    assert await received(world)


async def test_receipts_that_are_rejected_in_leaf_after_leaf_are_all_found(world: World) -> None:
    """Whoever looks again begins at the leaf after the last that it has seen."""
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    inbox.close()
    for _ in range(2):
        await refuse_receipts(world, "unknown-key")
    file = lv.folder / "outbox.db"
    first, second = [each.leaf_number for each in rejected_in(file, 0)]
    assert second == first + 1
    assert [[each.leaf_number for each in rejected_in(file, since)] for since in (second, second + 1)] == [[second], []]


@pytest.mark.parametrize(("code", "times"), [("unknown-key", 2), ("key-revoked", 1)])
async def test_a_receipt_under_a_key_that_was_not_yet_in_force_comes_again(world: World, code: str, times: int) -> None:
    """A later leaf shows that the key is in force by now; a revoked one never is again."""
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, {"LV/ncb": ALL})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    await refuse_receipts(world, code)
    await world.broker.route(second, {"LV/ncb": ALL})
    for _ in range(2):
        await lv.collector(inbox).drain()
    inbox.close()
    sent = await world.receipts("LV")
    assert (sent.count(sent[0]), len(sent)) == (times, times + 1)


@pytest.mark.parametrize(("code", "times"), [("key-not-in-force", 2), ("key-revoked", 1)])
async def test_a_notice_under_a_key_that_was_not_yet_in_force_comes_again(world: World, code: str, times: int) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await reject(world, first, code, signed=False)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    assert await learn(at, outbox) == [code]
    assert await outbox.flush(world.bus) == 0
    await world.broker.route(second, {"LV/ncb": ALL})
    await learn(at, outbox)
    for _ in range(2):
        await outbox.flush(world.bus)
    outbox.close()
    assert (await world.sent()).count(first) == times


async def test_a_notice_comes_again_as_soon_as_its_key_is_in_force(world: World) -> None:
    """Though no other outcome says so; once for each rejection."""
    wait, at, written = 10 * 60_000, world.machine("AT/ncb"), directory(version=2)
    (data,) = await world.publish(draft())
    keys = (each.model_copy(update={"valid_from": NOW + wait}) for each in written.keys)
    world.broker.written = written.model_copy(update={"keys": tuple(keys)})
    await world.broker.publish_directory()
    await at.versions.follow(world.bus)
    await reject(world, data, "key-not-in-force", signed=False)
    outbox = at.outbox()
    assert await learn(at, outbox) == ["key-not-in-force"]
    for at.ahead, times in ((wait - 1, 0), (wait, 1), (2 * wait, 0)):
        assert outbox.waits() == bool(times)
        assert await outbox.flush(world.bus) == times
    assert await world.sent() == [data, data]
    outbox.close()


@pytest.mark.parametrize("of_before", [False, True])
async def test_a_receipt_comes_again_as_soon_as_its_key_is_in_force(world: World, *, of_before: bool) -> None:
    """Though nothing else arrives; once for each rejection. One noted by a Valise of before waits for the next leaf."""
    wait, lv, written = 10 * 60_000, world.machine("LV/ncb"), directory(version=2)
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ALL})
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    keys = (each.model_copy(update={"valid_from": NOW + wait}) for each in written.keys)
    world.broker.written = written.model_copy(update={"keys": tuple(keys)})
    await world.broker.publish_directory()
    await refuse_receipts(world, "key-not-in-force")
    await lv.versions.follow(world.bus)
    await lv.collector(inbox).drain()
    if of_before:
        for each in ("now", "noted_at"):
            inbox.database.execute(f"ALTER TABLE receipts_rejected DROP COLUMN {each}")
        inbox.close()
        inbox = lv.inbox()
    for lv.ahead, times in ((wait - 1, 1), (wait, 2), (2 * wait, 2)):
        await lv.collector(inbox).drain()
        assert len(await world.receipts("LV")) == (1 if of_before else times)
    inbox.close()
    assert len(set(await world.receipts("LV"))) == 1


@pytest.mark.parametrize("set_back", [True, False])
async def test_a_receipt_that_was_dated_ahead_comes_again(world: World, *, set_back: bool) -> None:
    """As soon as the clock was set back, dated anew; where it was not, once its time has come. Once each time."""
    ahead, lv = 2 * 3_600_000, world.machine("LV/ncb")
    lv.ahead = ahead
    (data,) = await world.publish(draft())
    await world.broker.route(data, {"LV/ncb": ALL})
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    await refuse_receipts(world, "issued-in-future")
    await lv.collector(inbox).drain()
    assert [made_at(each) for each in await world.receipts("LV")] == [NOW + ahead]
    lv.ahead = 1 if set_back else 2 * ahead
    for _ in range(2):
        await lv.collector(inbox).drain()
    inbox.close()
    assert [made_at(each) for each in await world.receipts("LV")] == [NOW + ahead, NOW + (1 if set_back else ahead)]
    assert len({codec.decode(Receipt, payload_of(each)).number for each in await world.receipts("LV")}) == 1


def payload_of(statement: bytes) -> bytes:
    return codec.decode(Statement, statement).payload


def made_at(statement: bytes) -> int:
    return codec.decode(Receipt, payload_of(statement)).at


async def test_an_auditor_is_told_of_a_receipt_as_it_was_sent(world: World) -> None:
    inbox = await sent_under_the_next_key(world)
    (kept,) = inbox.database.execute("SELECT statement FROM receipts").fetchone()
    inbox.close()
    assert [kept] == await world.receipts("LV")


async def test_who_uses_an_id_of_ours_for_other_bytes_has_our_key(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    thiefs = Draft("AT/ncb").but(notice_id=identity(data), record="another", issued=NOW).envelope()
    await reject(world, codec.encode(thiefs), "id-reused")
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == ["not-from-this-outbox"]
    assert outbox.database.execute("SELECT outcome FROM envelopes").fetchone()[0] == "routed"
    outbox.close()


async def test_what_was_rejected_for_its_key_waits_for_the_next_one(world: World) -> None:
    sent = await world.publish(draft("R-1"), draft("R-2"))
    at = world.machine("AT/ncb")
    for data in sent:
        await reject(world, data, "key-revoked", signed=False)
    outbox = at.outbox()
    assert await learn(at, outbox) == ["key-revoked", "key-revoked"]
    assert await outbox.flush(world.bus) == 0
    outbox.close()
    at.generation = 1
    outbox = at.outbox()
    assert await outbox.flush(world.bus) == 2
    assert await outbox.flush(world.bus) == 0
    outbox.close()
    anew = [codec.decode(Envelope, each) for each in (await world.sent())[2:]]
    assert {each.key_id for each in anew} == {key_of("AT/ncb", 1).public.id}


async def test_a_bureau_that_has_no_key_any_more_stops_no_other_bureau_of_its_member(world: World) -> None:
    (data,) = await world.publish(draft())
    at = world.machine("AT/ncb")
    await reject(world, data, "key-revoked", signed=False)

    def no_key(bureau: str) -> SigningKey:
        raise ConfigurationError(f"every key of {bureau} was revoked")

    outbox = Outbox(at.folder / "outbox.db", Maker(at.versions.newest(), no_key, at.clock, os.urandom), "AT/border")
    assert await learn(at, outbox) == ["key-revoked"]
    outbox.close()


@pytest.mark.parametrize(("followed", "alarms"), [(True, ["offset-gone"]), (False, [])])
async def test_outcomes_that_retention_has_taken_stop_nothing(world: World, followed: bool, alarms: list[str]) -> None:
    await world.publish(draft("R-1"))
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    if followed:
        for data in await world.sent():
            await reject(world, data, "invalid-field")
        await learn(at, outbox)
    for data in await world.publish(draft("R-2"), draft("R-3")):
        await reject(world, data, "invalid-field")
    stream = streams.outcomes("AT")
    world.bus.memory.cut(stream, world.bus.memory.partition(stream, 0).end - 1)
    await learn(at, outbox)
    found = [each.code for each in at.outcomes(outbox).journal.alarms()]
    assert [code for code in found if code == "offset-gone"] == alarms
    assert "invalid-field" in found
    outbox.close()


async def test_another_leaf_under_a_number_that_is_known_is_refused_and_said(world: World) -> None:
    """So it is where the operator began a log anew and admitted to fewer lost leaves than were seen here."""
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await learn(at, outbox)
    for leaf, alarms in ((None, []), (b"another", ["leaf-reused"])):
        outbox.database.execute("UPDATE outcomes SET leaf = coalesce(?, leaf)", (leaf,))
        outbox.database.execute("UPDATE places SET place = 0 WHERE stream = ?", (streams.outcomes("AT"),))
        await learn(at, outbox)  # it comes again
        assert [each.code for each in at.outcomes(outbox).journal.alarms()] == alarms
    outbox.close()


async def test_an_older_version_is_not_signed_anew_where_a_later_one_is_on_record(world: World) -> None:
    (first,) = await world.publish(draft())
    (second,) = await world.publish(draft(action_sought="arrest"))
    at = await renewed(world)
    await world.broker.route(second, SHOWS)
    await reject(world, first, "key-not-in-force", signed=False)
    outbox = at.outbox()
    assert await learn(at, outbox) == ["key-not-in-force"]
    assert await outbox.flush(world.bus) == 0
    outbox.close()


async def test_what_is_not_decided_goes_out_again_before_what_builds_on_it_under_another_key(world: World) -> None:
    (first,) = await world.publish(draft())
    await renewed(world)
    again, second = await world.publish(draft(action_sought="arrest"))
    assert [codec.decode(Envelope, each).key_id for each in (again, second)] == [key_of("AT/ncb", 1).public.id] * 2
    assert codec.decode(Envelope, again).header == codec.decode(Envelope, first).header
    assert len(await world.publish(draft(action_sought="search"))) == 1


async def test_what_waits_for_its_key_goes_out_before_what_builds_on_it(world: World) -> None:
    """The key may be in force by now: then the second would name what is not on record."""
    (first,) = await world.publish(draft())
    await reject(world, first, "key-not-in-force", signed=False)
    outbox = world.machine("AT/ncb").outbox()
    await learn(world.machine("AT/ncb"), outbox)
    outbox.close()
    again, _ = await world.publish(draft(action_sought="arrest"))
    assert again == first


async def test_what_was_rejected_unnamed_is_named_by_nothing_that_comes_after_it(world: World) -> None:
    """The broker knows nothing of it: what corrects or withdraws it would be refused for ever."""
    (first,) = await world.publish(draft())
    await reject(world, first, "unknown-member", signed=False)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    assert await learn(at, outbox) == ["unknown-member"]
    assert outbox.published("") == {}
    story = trace(outbox.database, identity(first))
    assert story is not None
    assert (story.outcome, story.code, story.leaf_number) == ("rejected", "unknown-member", 0)
    (second,) = await world.publish(draft())
    header = codec.decode(Header, codec.decode(Envelope, second).header)
    assert (header.version, header.references) == (2, ())
    # He took it in after all, from the stream: the member is told, and trace tells it.
    await world.broker.route(first, SHOWS)
    await learn(at, outbox)
    story = trace(outbox.database, identity(first))
    outbox.close()
    assert story is not None
    assert (story.outcome, story.leaf_number) == ("routed", 1)


class _Counted(Versions):
    """Tells how often the newest directory was looked up in its files."""

    looked_up = 0

    def newest(self) -> Directory:
        _Counted.looked_up += 1
        return super().newest()


async def test_the_newest_directory_is_looked_up_once_for_a_page_of_outcomes(world: World) -> None:
    at, counts = world.machine("AT/ncb"), list[int]()
    outbox = at.outbox()
    for records in (1, 20):
        for data in await world.publish(*(draft(f"R-{records}-{each}") for each in range(records))):
            await world.broker.route(data, SHOWS)
        _Counted.looked_up = 0
        learned = await Outcomes(world.bus, outbox, _Counted(at.versions._folder), "AT", at.clock).round()
        counts.append(_Counted.looked_up)
        assert learned.new == records
    outbox.close()
    assert counts[0] == counts[1]


async def test_who_has_not_erased_is_named(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.withdraw("R-1", {"code": "arrested"})
    await outbox.flush(world.bus)
    withdrawal = (await world.sent())[-1]
    reason = dict.fromkeys(SHOWS, ("reason",))
    await world.broker.route(withdrawal, reason, dict.fromkeys(SHOWS, ("erases", 1)))
    await collect(world, "GE/ncb")
    await learn(at, outbox)
    story = trace(outbox.database, identity(withdrawal))
    assert story is not None
    assert story.silent == ("LV/ncb",)
    assert story.reached[1].at("erased") is not None
    outbox.close()


@pytest.mark.parametrize(
    ("kind", "became", "alarms"),
    [
        ("withdrawn-by-order", "withdrawn-by-order", ["withdrawn-by-order"]),
        ("released", "routed", []),
        ("not-released", "refused", ["refused-in-review"]),
    ],
)
@pytest.mark.parametrize("unnamed", [False, True])
async def test_what_became_of_a_notice_whose_own_outcome_is_gone_is_noted_and_its_body_forgotten(
    world: World, kind: str, became: str, alarms: list[str], *, unnamed: bool
) -> None:
    """Outcomes are kept for 30 days; or all that came was that the first copy could not be judged."""
    (data,) = await world.publish(draft())
    if unnamed:
        await reject(world, data, "could-not-be-judged", signed=False)
    await world.broker.route(data, SHOWS, kind=kind)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.requeue.again(identity(data))  # and it was to go out once more
    assert await learn(at, outbox) == ["could-not-be-judged"] * unnamed + alarms
    row = outbox.database.execute("SELECT outcome, compartments FROM envelopes").fetchone()
    assert (tuple(row), outbox.waits()) == ((became, None), False)
    (again,) = outbox.publish([draft(action_sought="arrest")])
    assert (getattr(again, "code", None) == became) == (kind == "withdrawn-by-order")
    outbox.close()


async def test_a_withdrawal_that_is_called_held_has_told_no_holder(world: World) -> None:
    """No end is held: who says so keeps it from those who hold what it ends."""
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    await world.broker.route((await world.sent())[-1], {}, kind="held")
    assert await learn(at, outbox) == ["holders-not-told"]
    outbox.close()


async def test_outcomes_that_were_lost_and_made_again_are_read_from_their_beginning(world: World) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    await world.broker.route(first, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    assert await learn(at, outbox) == []
    world.bus.memory.lose(streams.outcomes("AT"))
    assert await learn(at, outbox) == ["stream-lost"]
    await world.broker.route(second, SHOWS)
    assert await learn(at, outbox) == ["stream-lost"]
    story = trace(outbox.database, identity(second))
    assert story is not None
    assert story.outcome == "routed"
    outbox.close()
