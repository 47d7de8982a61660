"""What a member learns of a revoked key, and finds in its own files because of it."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256

import pytest

from adapters import doubts
from adapters.compose import Maker, Place, compose
from adapters.heads import Journal
from adapters.outbox import Outbox, Published
from adapters.outcomes import Outcomes
from adapters.trace import trace
from broker import codec
from broker.errors import InvalidReferenceError
from broker.notice import RECEIPT_TYPE, Envelope, Header, Outcome, Reference, Revocation, Statement
from broker.signing import SigningKey, header_digest
from tests.honest_broker import directory
from tests.making import FEDERATION, NOW, key_of, receipt, statement
from tests.making import Draft as Making
from tests.member.conftest import Machine, World, draft

ALL = ("identity", "warnings", "narrative")
SHOWS = {"LV/ncb": ALL}
OLD = key_of("AT/ncb")


def said(since: int | None = 0, bureau: str = "AT/ncb", key: SigningKey = OLD) -> bytes:
    """A revocation of AT/ncb's key by itself, or by whom it should not be."""
    return statement(Revocation(FEDERATION, bureau, OLD.public.id, "stolen", NOW, since), key)


async def revoke(world: World, value: bytes, *members: str) -> None:
    """Let the broker take in a revocation and tell these members."""
    leaf = world.broker._leaf("revoked", None, os.urandom(32), None, None)
    told = Outcome(
        "revoked", None, "", None, "AT/ncb", sha256(value).digest(), None, (), (), value, b"", b"",
        world.broker.add(leaf), codec.encode(leaf), "",
    )  # fmt: skip
    await world.broker.seal()
    for member in members:
        await world.broker.tell(member, told)


async def learn(machine: Machine) -> tuple[list[doubts.Revoked], int]:
    """Follow the outcomes; give what is known to be revoked, and how many outcomes were refused."""
    outbox = machine.outbox()
    learned = await machine.outcomes(outbox).drain()
    found = doubts.revocations(outbox.database, machine.versions.directory)
    outbox.close()
    return found, learned.refused


async def held(world: World, bureau: str = "LV/ncb") -> list[doubts.Held]:
    """What a bureau knows to be in doubt of what it holds."""
    machine = world.machine(bureau)
    inbox = machine.inbox()
    await machine.collector(inbox).drain()
    found = [each for revoked in (await learn(machine))[0] for each in doubts.held(inbox.database, revoked)]
    inbox.close()
    return found


async def issued(world: World) -> list[doubts.Issued]:
    """What the issuer is to confirm or withdraw."""
    machine = world.machine("AT/ncb")
    found, _ = await learn(machine)
    outbox = machine.outbox()
    listed = [each for revoked in found for each in doubts.issued(outbox.database, revoked)]
    outbox.close()
    return listed


async def test_holder_and_issuer_find_the_same_notice(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    await revoke(world, said(), "AT", "LV")
    (theirs,), (ours,) = await held(world), await issued(world)
    assert theirs.notice_id == ours.notice_id
    assert (theirs.delivery_number, theirs.after, ours.reached, ours.ours) == (1, False, ("LV/ncb",), True)


async def test_what_was_recorded_before_is_not_in_doubt(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    await revoke(world, said(since=NOW + 1), "AT", "LV")
    assert (await held(world), await issued(world)) == ([], [])


async def test_a_revocation_of_a_key_that_was_never_in_other_hands_puts_nothing_in_doubt(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    await revoke(world, said(since=None), "AT", "LV")
    assert (await held(world), await issued(world)) == ([], [])
    assert len((await learn(world.machine("LV/ncb")))[0]) == 1


async def test_a_broker_that_goes_on_taking_a_revoked_key_is_caught_by_the_holder(world: World) -> None:
    await revoke(world, said(since=None), "LV")
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    assert [each.after for each in await held(world)] == [True]


@pytest.mark.parametrize(
    ("bureau", "key"),
    [("LV/ncb", key_of("LV/ncb")), ("AT/ncb", key_of("LV/ncb")), ("AT/ncb", SigningKey.from_seed(b"operator" * 4))],
    ids=["another member", "in another's name", "the operator"],
)
async def test_nobody_else_makes_a_member_doubt_a_key(world: World, bureau: str, key: SigningKey) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    await revoke(world, said(bureau=bureau, key=key), "LV")
    assert await learn(world.machine("LV/ncb")) == ([], 1)


async def test_what_was_signed_as_something_else_is_no_revocation(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    honest = codec.decode(Statement, said())
    await revoke(world, codec.encode(replace(honest, payload_type=RECEIPT_TYPE)), "LV")
    assert await learn(world.machine("LV/ncb")) == ([], 1)


async def test_the_earliest_moment_that_was_named_counts(world: World) -> None:
    for since in (None, NOW, NOW - 5):
        await revoke(world, said(since=since), "LV")
    ((found,), _) = await learn(world.machine("LV/ncb"))
    assert (found.compromised_since, found.leaf_number) == (NOW - 5, 0)


@pytest.mark.parametrize("since", [0, NOW], ids=["long before", "at that very moment"])
async def test_the_next_run_of_a_source_confirms_what_is_in_doubt(world: World, since: int) -> None:
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    await revoke(world, said(since), "AT")
    assert len(await issued(world)) == 1
    world.broker.written = directory({"AT/ncb": 1}, 2)
    await world.broker.publish_directory()
    await world.machine("AT/ncb").versions.follow(world.bus)
    world.machine("AT/ncb").generation = 1
    (again,) = await world.publish(draft())
    header = codec.decode(Header, codec.decode(Envelope, again).header)
    assert (header.version, header.references[0].relation) == (2, "corrects")
    await world.broker.route(again, SHOWS)
    assert await issued(world) == []


async def test_receipts_of_a_key_in_other_hands_are_not_relied_on(world: World) -> None:
    """A thief says that a bureau has erased what it has not."""
    (data,) = await world.publish(draft())
    number = await world.broker.route(data, SHOWS)
    digest = header_digest(codec.decode(Envelope, data).header)
    for since, doubted in ((NOW + 1, []), (NOW, [("LV/ncb", "erased", (number,))])):
        if since > NOW:
            told = world.broker.confirm(receipt("LV/ncb", number, digest, "AT", "erased"))
            await world.broker.seal()
            await world.broker.tell("AT", told)
        key = key_of("LV/ncb")
        value = statement(Revocation(FEDERATION, "LV/ncb", key.public.id, "stolen", NOW, since), key)
        await revoke(world, value, "AT")
        ((found,), _) = await learn(world.machine("AT/ncb"))
        outbox = world.machine("AT/ncb").outbox()
        listed = doubts.answered(outbox.database, found)
        outbox.close()
        assert [(each.bureau, each.act, each.about) for each in listed] == doubted


async def forged(world: World) -> bytes:
    """Let a thief publish with the key of AT/ncb from a machine of his own; give the notice id."""
    maker = Maker(world.machine("AT/ncb").versions.newest(), lambda _: OLD, lambda: NOW, os.urandom)
    made = compose(draft("R-forged"), Place("AT/ncb", 1, (), b"thief-01", 1), maker)
    await world.broker.route(codec.encode(made.envelope), SHOWS)
    return made.header.notice_id


async def test_what_was_never_in_this_outbox_is_listed_and_withdrawn(world: World) -> None:
    notice_id = await forged(world)
    await revoke(world, said(), "AT")
    assert [(each.notice_id, each.ours) for each in await issued(world)] == [(notice_id, False)]
    outbox = world.machine("AT/ncb").outbox()
    assert isinstance(outbox.disown(notice_id, {"code": "mistaken"}), Published)
    await outbox.flush(world.bus)
    outbox.close()
    withdrawal = codec.decode(Header, codec.decode(Envelope, (await world.sent())[-1]).header)
    assert (withdrawal.kind, withdrawal.record, withdrawal.version) == ("withdrawal", "R-forged", 2)
    assert (withdrawal.references[0].notice_id, withdrawal.references[0].relation) == (notice_id, "withdraws")
    assert await issued(world) == []


async def test_our_record_stands_where_what_is_disowned_was_no_later_version(world: World) -> None:
    """The thief used its name, and did not even know its version."""
    at = world.machine("AT/ncb")
    for action in ("one", "two"):
        (data,) = await world.publish(draft(action_sought=action))
        await world.broker.route(data, SHOWS)
    thiefs = codec.encode(Making("AT/ncb").but(record="R-1", version=1).envelope())
    await world.broker.route(thiefs, SHOWS)
    outbox = at.outbox()
    await at.outcomes(outbox).drain()
    header = codec.decode(Header, codec.decode(Envelope, thiefs).header)
    assert isinstance(outbox.disown(header.notice_id), Published)
    assert set(outbox.published("")) == {"R-1"}
    await outbox.flush(world.bus)
    outbox.close()
    await world.broker.route((await world.sent())[-1], {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 3)})
    lv = world.machine("LV/ncb")
    inbox = lv.inbox()
    await lv.collector(inbox).drain()
    assert [each.state for each in inbox.lines()] == ["replaced", "new", "erased", "new"]
    inbox.close()


async def thiefs(world: World, *corrected: Header) -> Header:
    """Let a thief publish "R-1 v2" to nobody with the key of AT/ncb; give what it says."""
    references = tuple(
        Reference("AT/ncb", each.notice_id, header_digest(codec.encode(each)), "corrects") for each in corrected
    )
    data = codec.encode(Making("AT/ncb").but(record="R-1", version=2, references=references).envelope())
    await world.broker.route(data, {})
    return codec.decode(Header, codec.decode(Envelope, data).header)


async def disowned(world: World, outbox: Outbox, notice: Header) -> None:
    """Disown a notice, which reaches nobody, and hear of that."""
    assert isinstance(outbox.disown(notice.notice_id, {"code": "mistaken"}), Published)
    await outbox.flush(world.bus)
    await world.broker.route((await world.sent())[-1], {})
    await world.machine("AT/ncb").outcomes(outbox).drain()


def left_untold(outbox: Outbox, end: bytes) -> tuple[list[str], tuple[str, ...]]:
    """What rings of holders that an end of ours does not tell, and whom its trace names."""
    rung = [each.code for each in Journal(outbox.database).alarms() if each.code == "holders-not-told"]
    story = trace(outbox.database, codec.decode(Header, codec.decode(Envelope, end).header).notice_id)
    assert story
    return rung, story.untold


async def test_our_record_stands_where_what_is_disowned_does_not_correct_it(world: World) -> None:
    """The withdrawal of the thief's notice reaches nobody, and is no reason to withdraw ours."""
    at = world.machine("AT/ncb")
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    fake = await thiefs(world)
    outbox = at.outbox()
    await at.outcomes(outbox).drain()
    await disowned(world, outbox, fake)
    assert left_untold(outbox, (await world.sent())[-1]) == ([], ())
    assert await outbox.flush(world.bus) == 0
    assert outbox.published("") == {"R-1": b""}  # what the thief's notice has ended with it comes anew
    outbox.publish([draft()])
    await outbox.flush(world.bus)
    outbox.withdraw("R-1")
    outbox.close()
    anew = codec.decode(Header, codec.decode(Envelope, (await world.sent())[-1]).header)
    assert (anew.version, [each.relation for each in anew.references]) == (4, ["corrects"])


async def test_our_record_has_ended_where_what_is_disowned_corrected_it_by_another(world: World) -> None:
    at = world.machine("AT/ncb")
    (first,) = await world.publish(draft())
    await world.broker.route(first, SHOWS)
    genuine = codec.decode(Header, codec.decode(Envelope, first).header)
    fake = await thiefs(world, await thiefs(world, genuine))
    outbox = at.outbox()
    await at.outcomes(outbox).drain()
    await disowned(world, outbox, fake)
    assert outbox.published("") == {}
    end = (await world.sent())[-1]
    assert left_untold(outbox, end) == (["holders-not-told"], ("LV/ncb",))  # what it holds this ends, too
    outbox.close()


async def test_a_notice_that_nobody_has_on_record_is_not_disowned(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    with pytest.raises(InvalidReferenceError):
        outbox.disown(bytes(16))
    outbox.close()


def test_a_doubt_says_its_notice_as_people_write_it() -> None:
    made = doubts.Held(1, bytes(15) + b"\1", "R", 0, NOW, after=False)
    assert made.id == replace(made, record="S").id == "00000000-0000-0000-0000-000000000001"


async def test_a_revocation_of_a_key_of_ours_is_acted_on_whenever_it_comes(world: World) -> None:
    """`valise key revoke` may have ended before its leaf came, or another bureau of ours sent it."""
    machine, gone = world.machine("AT/ncb"), list[bytes]()
    theirs = key_of("LV/ncb")
    await revoke(world, said(), "AT")
    other = statement(Revocation(FEDERATION, "LV/ncb", theirs.public.id, "stolen", NOW, None), theirs)
    await revoke(world, other, "AT")
    outbox = machine.outbox()
    learned = await Outcomes(machine.bus, outbox, machine.versions, "AT", machine.clock, forget=gone.append).drain()
    outbox.close()
    assert (learned.new, learned.refused) == (2, 0)
    assert gone == [OLD.public.id]
