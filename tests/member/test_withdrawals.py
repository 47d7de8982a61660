"""What stands of a record after withdrawals that were rejected, told nobody, or disown what a thief published."""

from __future__ import annotations

import os

import pytest

from adapters.adapter import Draft
from adapters.changes import Guard, changes
from adapters.compose import Maker
from adapters.outbox import Outbox, Published, Refusal, Result
from adapters.trace import trace
from broker import avro, codec, streams
from broker.errors import ConfigurationError, InvalidReferenceError
from broker.notice import Envelope, Header
from broker.signing import SigningKey
from tests.making import NOW, reference
from tests.making import Draft as Making
from tests.member.conftest import Machine, World, draft
from tests.member.test_outcomes import SHOWS, identity, learn, reject, renewed

TOLD = {"LV/ncb": ("reason",), "GE/ncb": ("reason",)}


def said(data: bytes) -> Header:
    """What a notice says."""
    return codec.decode(Header, codec.decode(Envelope, data).header)


def named(data: bytes) -> list[bytes]:
    """Name the notices of which a notice speaks."""
    return [each.notice_id for each in said(data).references]


async def run(world: World, outbox: Outbox, *drafts: Draft) -> bytes:
    """Let a run of the source "list" publish what is new in it; give the notice that was sent last."""
    before = outbox.published("list")
    found = changes(before, drafts, Guard(accept_withdrawals=True, accept_corrections=True))
    outbox.apply(found, "list", previous=before)
    await outbox.flush(world.bus)
    return (await world.sent())[-1]


async def test_a_withdrawal_that_builds_on_a_rejected_correction_is_made_again(world: World) -> None:
    """Both were on their way when the correction was rejected: the broker knew of nobody who holds it."""
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    (second,) = await world.publish(draft(action_sought="arrest"))
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    await reject(world, second, "already-expired")
    assert await learn(at, outbox) == ["already-expired"]
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-1")
    outbox.close()
    header = codec.decode(Header, codec.decode(Envelope, (await world.sent())[-1]).header)
    assert (header.kind, header.version) == ("withdrawal", 4)
    assert [each.notice_id for each in header.references] == [identity(first)]


async def withdrawn(world: World) -> Outbox:
    """AT withdraws what LV has; the broker has not heard of it."""
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    outbox = world.machine("AT/ncb").outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    return outbox


async def ended(world: World, first: bytes, *, rejected: bool) -> tuple[Outbox, bytes]:
    """AT withdraws, by its correction, what LV has; the correction is rejected, or nobody ever hears of it."""
    await world.broker.route(first, SHOWS)
    (second,) = await world.publish(draft(action_sought="arrest"))
    outbox = world.machine("AT/ncb").outbox()
    outbox.withdraw("R-1", {"code": "arrested", "text": "in LV"})
    await outbox.flush(world.bus)
    if rejected:
        await reject(world, second, "could-not-be-judged", signed=False)
    return outbox, (await world.sent())[-1]


async def ended_and_told_nobody(world: World, *, rejected: bool) -> bytes:
    """The withdrawal, too, is rejected with the correction, or told nobody: AT has not heard of it. Give the first."""
    (first,) = await world.publish(draft())
    outbox, end = await ended(world, first, rejected=rejected)
    outbox.close()
    await (reject(world, end, "invalid-reference") if rejected else world.broker.route(end, {}))
    return first


def last(sent: list[bytes]) -> tuple[Header, dict[str, object]]:
    """Header and reason of the withdrawal that was sent last."""
    envelope = codec.decode(Envelope, sent[-1])
    opened = codec.decode_compartments(envelope.compartments)[1].opened
    assert opened is not None
    return codec.decode(Header, envelope.header), avro.read("withdrawal.reason", opened.data)


@pytest.mark.parametrize("rejected", [True, False])
@pytest.mark.parametrize("code", [None, "invalid-reference"])
async def test_a_withdrawal_of_a_version_that_is_not_on_record_is_followed_by_one_of_the_version_that_stands(
    world: World, code: str | None, *, rejected: bool
) -> None:
    """Its holders would hear of none: the broker knows of nobody who holds what the first one names."""
    (first,) = await world.publish(draft())
    outbox, end = await ended(world, first, rejected=rejected)
    at = world.machine("AT/ncb")
    await (reject(world, end, code) if code else world.broker.route(end, {}))
    alarms = ["could-not-be-judged"] * rejected + [code or "holders-not-told"]
    assert await learn(at, outbox) == alarms
    assert (await outbox.flush(world.bus), await outbox.flush(world.bus)) == (1, 0)
    header, reason = last(await world.sent())
    assert (header.kind, header.version, reason["code"], reason["text"]) == ("withdrawal", 4, "arrested", "in LV")
    assert [each.notice_id for each in header.references] == [identity(first)]
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-1")
    await world.broker.route((await world.sent())[-1], {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    assert await learn(at, outbox) == [*alarms, "holders-not-told"]  # not GE, who holds it, too
    for each in (said(end), header):  # who was told by the one that follows is no longer named by the one before
        story = trace(outbox.database, each.notice_id)
        assert story
        assert story.untold == ("GE/ncb",)
    assert outbox.waiting() == 0
    outbox.close()


def without_key(at: Machine, asked: list[bool]) -> Outbox:
    """AT's outbox where no key can be had; `asked`: whether it was asked for within a transaction."""

    def no_key(bureau: str) -> SigningKey:
        asked.append(outbox.database.in_transaction)
        raise ConfigurationError(f"the passphrase does not open the key of {bureau}")

    outbox = Outbox(at.folder / "outbox.db", Maker(at.versions.newest(), no_key, at.clock, os.urandom), "AT/ncb")
    return outbox


@pytest.mark.parametrize("rejected", [True, False])
async def test_what_cannot_be_followed_for_want_of_a_key_is_followed_once_there_is_one(
    world: World, *, rejected: bool
) -> None:
    first, at = await ended_and_told_nobody(world, rejected=rejected), world.machine("AT/ncb")
    told: list[Result] = []
    asked: list[bool] = []
    outbox = without_key(at, asked)
    await learn(at, outbox)
    assert (asked, outbox.waits()) == ([], True)
    assert await outbox.flush(world.bus, 0, told.append) == 0
    assert [each.code for each in told if isinstance(each, Refusal)] == ["configuration"]
    assert asked == [False]
    outbox.close()
    outbox = at.outbox()
    assert (await outbox.flush(world.bus, 0, told.append), outbox.waits()) == (1, False)
    header, reason = last(await world.sent())
    assert isinstance(told[-1], Published)
    assert (header.notice_id, header.version, reason["text"]) == (told[-1].notice_id, 4, "in LV")
    assert [each.notice_id for each in header.references] == [identity(first)]
    outbox.close()


@pytest.mark.parametrize("rejected", [True, False])
async def test_what_a_withdrawal_that_told_nobody_has_left_can_be_withdrawn_by_hand(
    world: World, *, rejected: bool
) -> None:
    first, at = await ended_and_told_nobody(world, rejected=rejected), world.machine("AT/ncb")
    outbox = without_key(at, [])
    await learn(at, outbox)
    outbox.close()
    outbox = at.outbox()
    assert outbox.standing("AT/ncb", "R-1") is not None
    outbox.withdraw("R-1", {"code": "died"})
    assert (await outbox.flush(world.bus), await outbox.flush(world.bus)) == (1, 0)
    header, reason = last(await world.sent())
    assert (reason["code"], [each.notice_id for each in header.references]) == ("died", [identity(first)])
    await reject(world, (await world.sent())[-1], "invalid-field")
    await learn(at, outbox)
    assert outbox.withdraw("R-1")  # it stands still
    outbox.close()


async def test_what_follows_and_is_rejected_itself_is_left_to_people(world: World) -> None:
    (first,) = await world.publish(draft())
    outbox, end = await ended(world, first, rejected=False)
    at = world.machine("AT/ncb")
    await world.broker.route(end, {})
    await learn(at, outbox)
    assert await outbox.flush(world.bus) == 1
    await reject(world, (await world.sent())[-1], "invalid-reference")
    assert await learn(at, outbox) == ["holders-not-told", "invalid-reference"]
    assert not outbox.waits()
    assert outbox.withdraw("R-1")
    outbox.close()


async def test_what_was_published_anew_meanwhile_stays(world: World) -> None:
    (first,) = await world.publish(draft())
    outbox, end = await ended(world, first, rejected=False)
    outbox.publish([draft()])
    await outbox.flush(world.bus)
    await world.broker.route(end, {})
    await learn(world.machine("AT/ncb"), outbox)
    await outbox.flush(world.bus)
    header, _ = last(await world.sent())
    assert (header.version, [each.notice_id for each in header.references]) == (2, [identity(first)])
    assert outbox.withdraw("R-1")
    outbox.close()


async def test_what_a_correction_that_was_published_meanwhile_names_is_left_to_that(world: World) -> None:
    (first,) = await world.publish(draft())
    outbox, end = await ended(world, first, rejected=True)
    at = world.machine("AT/ncb")
    await learn(at, outbox)
    outbox.publish([draft(action_sought="search")])
    await outbox.flush(world.bus)
    await reject(world, end, "invalid-reference")
    await learn(at, outbox)
    assert outbox.waiting() == 0
    outbox.close()


async def test_a_withdrawal_of_what_is_on_record_is_made_once_whatever_the_broker_says(world: World) -> None:
    at, outbox = world.machine("AT/ncb"), await withdrawn(world)
    await world.broker.route((await world.sent())[-1], {})
    assert await learn(at, outbox) == ["holders-not-told"]
    assert outbox.waiting() == 0
    outbox.close()


async def test_a_withdrawal_that_is_on_record_after_all_has_ended_what_it_names(world: World) -> None:
    """It went twice, killed before it was marked, and a bug of the broker's met the first of them only."""
    at, outbox = world.machine("AT/ncb"), world.machine("AT/ncb").outbox()
    await world.broker.route(await run(world, outbox, draft()), SHOWS)
    end = await run(world, outbox)
    await reject(world, end, "could-not-be-judged", signed=False)
    await learn(at, outbox)
    assert outbox.published("list") == {"R-1": b""}
    await world.broker.route(end, TOLD)
    await learn(at, outbox)
    assert (outbox.published("list"), outbox.standing("AT/ncb", "R-1"), outbox.waits()) == ({}, None, False)
    outbox.close()


@pytest.mark.parametrize(("days", "given_up"), [(31, True), (29, False)])
async def test_a_withdrawal_whose_outcome_the_bus_has_dropped_can_be_made_anew(
    world: World, days: int, given_up: bool
) -> None:
    """It was rejected, and AT was away for longer than outcomes are kept: LV has the notice still.

    One that is not that old waits for its outcome, which the bus cannot have dropped.
    """
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    assert await learn(at, outbox) == []
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    await reject(world, (await world.sent())[-1], "already-expired")
    world.bus.memory.cut(streams.outcomes("AT"), await world.bus.end(streams.outcomes("AT")))
    at.ahead = days * streams.DAY_MS
    for _ in range(2):
        alarms = await learn(at, outbox)
        assert alarms == ["offset-gone", *["withdrawal-undecided"] * given_up]
    if not given_up:
        with pytest.raises(InvalidReferenceError):
            outbox.withdraw("R-1")
    else:
        outbox.withdraw("R-1")
        await outbox.flush(world.bus)
        assert named((await world.sent())[-1]) == [identity(first)]
    outbox.close()


async def test_a_withdrawal_is_given_up_though_no_outcome_was_ever_taken_in(world: World) -> None:
    """AT sent it and was away before it asked what became of anything."""
    outbox, at = await withdrawn(world), world.machine("AT/ncb")
    await reject(world, (await world.sent())[-1], "already-expired")
    world.bus.memory.cut(streams.outcomes("AT"), await world.bus.end(streams.outcomes("AT")))
    at.ahead = 31 * streams.DAY_MS
    assert await learn(at, outbox) == ["withdrawal-undecided", "publication-undecided"]
    assert outbox.standing("AT/ncb", "R-1")
    outbox.close()


async def test_a_withdrawal_that_waits_for_a_key_is_not_given_up(world: World) -> None:
    """What became of it is known: it goes out by itself once AT has the next key."""
    outbox, at = await withdrawn(world), world.machine("AT/ncb")
    await reject(world, (await world.sent())[-1], "unknown-key", signed=False)
    assert await learn(at, outbox) == ["unknown-key"]
    (other,) = await world.publish(draft("R-2"))
    await world.broker.route(other, SHOWS)
    world.bus.memory.cut(streams.outcomes("AT"), await world.bus.end(streams.outcomes("AT")))
    at.ahead = 31 * streams.DAY_MS
    assert await learn(at, outbox) == ["unknown-key", "offset-gone", "publication-undecided"]
    outbox.close()
    at.generation, before = 1, len(await world.sent())
    outbox = at.outbox()
    assert await outbox.flush(world.bus) == 1
    assert [said(each).kind for each in (await world.sent())[before:]] == ["withdrawal"]
    outbox.close()


async def test_what_a_given_up_withdrawal_names_can_be_withdrawn_though_its_own_outcome_is_lost_as_well(
    world: World,
) -> None:
    """LV holds the correction: that no outcome of it came is no sign that the broker never had it."""
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    (second,) = await world.publish(draft(action_sought="arrest"))
    await world.broker.route(second, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    await reject(world, (await world.sent())[-1], "already-expired")
    world.bus.memory.cut(streams.outcomes("AT"), await world.bus.end(streams.outcomes("AT")))
    at.ahead = 31 * streams.DAY_MS
    assert await learn(at, outbox) == ["withdrawal-undecided", "publication-undecided"]
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    assert named((await world.sent())[-1]) == [identity(second)]
    outbox.close()


async def test_a_withdrawal_that_was_given_up_and_whose_outcome_comes_after_all_has_ended_its_record(
    world: World,
) -> None:
    """What was dropped were outcomes before it: the broker was down, and took it in late."""
    outbox, at = await withdrawn(world), world.machine("AT/ncb")
    assert await learn(at, outbox) == []
    other, *_ = await world.publish(draft("R-2"))
    await world.broker.route(other, SHOWS)
    world.bus.memory.cut(streams.outcomes("AT"), await world.bus.end(streams.outcomes("AT")))
    at.ahead = 31 * streams.DAY_MS
    assert await learn(at, outbox) == ["offset-gone", "withdrawal-undecided", "publication-undecided"]
    await world.broker.route(next(each for each in await world.sent() if said(each).kind == "withdrawal"), TOLD)
    await learn(at, outbox)
    assert outbox.standing("AT/ncb", "R-1") is None
    outbox.close()


async def test_what_was_withdrawn_is_not_corrected_by_a_later_try(world: World) -> None:
    at, outbox = world.machine("AT/ncb"), await withdrawn(world)
    (again,) = await world.publish(draft())
    await reject(world, again, "invalid-field")
    await learn(at, outbox)
    outbox.close()
    (once_more,) = await world.publish(draft())
    header = codec.decode(Header, codec.decode(Envelope, once_more).header)
    assert (header.version, header.references) == (4, ())


async def corrected_by_a_thief(world: World, outbox: Outbox) -> tuple[bytes, Header]:
    """AT's source has a record, which a thief of its key corrects; give the first version, and the thief's."""
    first = await run(world, outbox, draft())
    await world.broker.route(first, SHOWS)
    named_first = (reference(codec.decode(Envelope, first), "corrects"),)
    fake = codec.encode(Making("AT/ncb").but(record="R-1", version=2, references=named_first).envelope())
    await world.broker.route(fake, SHOWS)
    await learn(world.machine("AT/ncb"), outbox)
    return first, said(fake)


@pytest.mark.parametrize("tries", [0, 1, 2, 3])
async def test_what_a_thief_corrected_comes_anew_once_that_is_disowned_however_often_it_was_tried(
    world: World, tries: int
) -> None:
    """Each run before was rejected, as is the first one after: none may name the version that the thief's replaced."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    _, fake = await corrected_by_a_thief(world, outbox)
    for each in range(tries):
        await reject(world, await run(world, outbox, draft(action_sought=f"{each}")), "invalid-reference")
        await learn(at, outbox)
    outbox.disown(fake.notice_id)
    await outbox.flush(world.bus)
    await world.broker.route((await world.sent())[-1], TOLD)
    await learn(at, outbox)
    assert outbox.published("list") == {}
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-1")
    for _ in range(2):
        anew = await run(world, outbox, draft())
        assert said(anew).references == ()
        await reject(world, anew, "issued-in-future")
        await learn(at, outbox)
    await world.broker.route(await run(world, outbox, draft()), SHOWS)
    await learn(at, outbox)
    assert set(outbox.published("list")) == {"R-1"}
    outbox.close()


async def test_a_disowning_that_is_rejected_ends_nothing(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first, fake = await corrected_by_a_thief(world, outbox)
    outbox.disown(fake.notice_id)
    await outbox.flush(world.bus)
    await reject(world, (await world.sent())[-1], "issued-in-future")
    await learn(at, outbox)
    stands = outbox.standing("AT/ncb", "R-1")
    assert (outbox.published("list"), stands and stands[1].notice_id) == ({"R-1": b""}, identity(first))
    assert not outbox.waits()
    outbox.disown(fake.notice_id)
    assert (outbox.published("list"), outbox.standing("AT/ncb", "R-1")) == ({}, None)
    outbox.close()


async def withdrawn_and_published_anew(world: World, outbox: Outbox) -> tuple[bytes, bytes, bytes]:
    """The source loses what LV and GE have, and has it again, for LV, before the broker has heard of its withdrawal."""
    first = await run(world, outbox, draft())
    await world.broker.route(first, SHOWS)
    end = await run(world, outbox)
    return first, end, await run(world, outbox, draft(action_sought="again"))


async def standing_beside_each_other(
    world: World, outbox: Outbox, code: str = "issued-in-future", *, signed: bool = True
) -> tuple[bytes, bytes]:
    """The same, and the broker rejects the withdrawal: what LV and GE have stands beside what LV was given then."""
    first, end, anew = await withdrawn_and_published_anew(world, outbox)
    assert said(anew).references == ()
    await reject(world, end, code, signed=signed)
    await world.broker.route(anew, {"LV/ncb": ("identity",)})
    assert await learn(world.machine("AT/ncb"), outbox) == [code]
    return first, anew


async def last_withdraws(world: World, first: bytes) -> None:
    """What was sent last withdraws the first version of a record, and nothing later."""
    sent = (await world.sent())[-1]
    assert (said(sent).kind, said(sent).version, named(sent)) == ("withdrawal", 2, [identity(first)])


@pytest.mark.parametrize(("code", "signed"), [("issued-in-future", True), ("could-not-be-judged", False)])
async def test_what_a_rejected_withdrawal_has_left_beside_a_newer_publication_is_withdrawn_and_that_stays(
    world: World, code: str, *, signed: bool
) -> None:
    outbox = world.machine("AT/ncb").outbox()
    first, anew = await standing_beside_each_other(world, outbox, code, signed=signed)
    assert (await outbox.flush(world.bus), outbox.waits()) == (1, False)
    await last_withdraws(world, first)
    assert outbox.published("list") != {"R-1": b""}
    ends = await run(world, outbox)
    assert (said(ends).version, named(ends)) == (4, [identity(anew)])
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-1")
    outbox.close()


async def test_who_withdraws_a_record_withdraws_all_that_stands_of_it(world: World) -> None:
    """What followed the rejected withdrawal was rejected itself, and is not tried without end."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first, anew = await standing_beside_each_other(world, outbox)
    await outbox.flush(world.bus)
    await reject(world, (await world.sent())[-1], "issued-in-future")
    assert await learn(at, outbox) == ["issued-in-future"] * 2
    assert await outbox.flush(world.bus) == 0
    assert len(outbox.withdraw("R-1", {"code": "mistaken"})) == 2
    assert await outbox.flush(world.bus) == 2
    older, newer = (await world.sent())[-2:]
    assert [(said(each).version, named(each)) for each in (older, newer)] == [
        (2, [identity(first)]), (4, [identity(anew)]),
    ]  # fmt: skip
    await world.broker.route(older, TOLD)
    await world.broker.route(newer, {"LV/ncb": ("reason",)})
    assert await learn(at, outbox) == ["issued-in-future"] * 2
    assert (outbox.published("list"), outbox.standing("AT/ncb", "R-1")) == ({}, None)
    outbox.close()


async def test_a_withdrawal_that_was_rejected_for_its_key_alone_comes_again_beside_a_newer_publication(
    world: World,
) -> None:
    """It ends what it names, and nothing that came later."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    _, end, anew = await withdrawn_and_published_anew(world, outbox)
    await reject(world, end, "key-revoked", signed=False)
    await world.broker.route(anew, SHOWS)
    await learn(at, outbox)
    assert await outbox.flush(world.bus) == 0
    outbox.close()
    outbox = (await renewed(world)).outbox()
    assert await outbox.flush(world.bus) == 1
    assert identity((await world.sent())[-1]) == identity(end)
    outbox.close()


async def test_who_uses_the_id_of_a_withdrawal_of_ours_says_nothing_of_what_that_told(world: World) -> None:
    """LV and GE erase. That another notice under its id was rejected is no reason to withdraw once more."""
    at = world.machine("AT/ncb")
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    await world.publish(draft(action_sought="arrest"))  # AT never hears of its outcome
    outbox = at.outbox()
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    end = (await world.sent())[-1]
    await world.broker.route(end, TOLD)
    thiefs = Making("AT/ncb").but(notice_id=identity(end), record="another", issued=NOW).envelope()
    await reject(world, codec.encode(thiefs), "id-reused")
    assert await learn(at, outbox) == ["not-from-this-outbox"]
    assert (await outbox.flush(world.bus), outbox.standing("AT/ncb", "R-1")) == (0, None)
    outbox.close()
