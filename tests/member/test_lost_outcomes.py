"""A member was away for longer than the bus keeps outcomes: what it sent is settled, and no lie is believed for it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from adapters.outbox import Outbox
from adapters.trace import trace, undecided
from broker import codec, streams
from broker.errors import UnavailableError
from broker.notice import Leaf
from cli import in_words
from tests.making import NOW
from tests.member.conftest import Machine, World, draft
from tests.member.test_outcomes import SHOWS, identity, learn, reject
from tests.member.test_withdrawals import TOLD, named, run, said, withdrawn


async def routed(world: World) -> tuple[Machine, Outbox, bytes]:
    """Give AT's machine and outbox, and what it sent first, which it knows to be routed."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first = await run(world, outbox, draft())
    await world.broker.route(first, SHOWS)
    await learn(at, outbox)
    return at, outbox, first


async def away(world: World, days: int = 31) -> None:
    """Nothing of what AT was told until now is on the bus any more when it comes back."""
    world.bus.memory.cut(streams.outcomes("AT"), await world.bus.end(streams.outcomes("AT")))
    world.machine("AT/ncb").ahead = days * streams.DAY_MS
    world.broker.now += days * streams.DAY_MS


async def repeat(world: World, data: bytes, original: int, state: str = "routed") -> None:
    """Tell AT that a notice was on record before, in this leaf."""
    broker = world.broker
    outcome = broker.reject(data, "already-expired")
    leaf = codec.decode(Leaf, broker.leaves[outcome.leaf_number])
    leaf = replace(leaf, kind="repeated", code=state, about=original)
    broker.leaves[outcome.leaf_number] = codec.encode(leaf)
    outcome = replace(outcome, kind="repeated", code=state, original=original, leaf=codec.encode(leaf))
    await broker.seal()
    await broker.tell("AT", outcome)


@pytest.mark.parametrize(("days", "given_up"), [(31, ["publication-undecided"]), (29, [])])
async def test_a_publication_whose_outcome_is_lost_is_unknown_and_comes_anew_from_its_source(
    world: World, days: int, given_up: list[str]
) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first = await run(world, outbox, draft())
    await world.broker.route(first, SHOWS)
    await away(world, days)
    assert await learn(at, outbox) == await learn(at, outbox) == given_up
    story = trace(outbox.database, identity(first))
    assert story
    assert (story.outcome, undecided(outbox.database)) == (
        ("unknown", set()) if given_up else (None, {identity(first)})
    )
    assert ("publish its record again" in in_words.became(story, NOW)) == bool(given_up)
    assert outbox.standing("AT/ncb", "R-1")
    second = await run(world, outbox, draft())
    assert (named(second), said(second).version) == (([identity(first)], 2) if given_up else ([], 1))
    assert outbox.published("list") != {"R-1": b""}
    outbox.close()


async def test_what_was_lost_and_corrected_since_rings_for_its_newest_version_alone(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    for action in ("none", "arrest"):
        await world.broker.route(await run(world, outbox, draft(action_sought=action)), SHOWS)
    await away(world)
    assert await learn(at, outbox) == ["publication-undecided"]
    assert len(outbox.withdraw("R-1")) == 1
    outbox.close()


async def test_what_is_unknown_and_was_rejected_is_settled_by_the_rejection_of_its_withdrawal(world: World) -> None:
    """The broker refuses to end what never was on record: from then on the record is published without naming it."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first = await run(world, outbox, draft())
    await reject(world, first, "already-expired")
    await away(world)
    assert await learn(at, outbox) == ["publication-undecided"]
    await reject(world, await run(world, outbox, draft()), "invalid-reference")
    await learn(at, outbox)
    assert named(await run(world, outbox, draft(action_sought="arrest"))) == [identity(first)]  # nobody knows yet
    await reject(world, (await world.sent())[-1], "invalid-reference")
    await learn(at, outbox)
    await reject(world, await run(world, outbox), "invalid-reference")
    await learn(at, outbox)
    assert outbox.standing("AT/ncb", "R-1") is None
    story = trace(outbox.database, identity(first))
    assert story
    assert "is not on record" in in_words.became(story, NOW)
    assert named(await run(world, outbox, draft())) == []
    outbox.close()


async def test_an_outcome_that_comes_after_all_says_what_became_of_what_was_unknown(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first = await run(world, outbox, draft())
    await reject(world, await run(world, outbox, draft(), draft("R-2")), "already-expired")
    await away(world)
    assert await learn(at, outbox) == ["publication-undecided"] * 2
    await world.broker.route(first, SHOWS)
    await learn(at, outbox)
    story = trace(outbox.database, identity(first))
    assert story
    assert (story.outcome, len(story.reached)) == ("routed", 2)
    outbox.close()


async def killed_before_it_was_marked(world: World, outbox: Outbox) -> bytes:
    """AT's withdrawal is on the bus, and nothing here says so."""
    outbox.withdraw("R-1")
    world.bus.memory.breaks.append(True)
    with pytest.raises(UnavailableError):
        await outbox.flush(world.bus)
    return (await world.sent())[-1]


async def test_a_withdrawal_that_went_unmarked_is_given_up_once_it_is_called_repeated(world: World) -> None:
    """Killed between the two, and away for so long: sent again it repeats a leaf of which AT was not told."""
    at, outbox, first = await routed(world)
    end = await killed_before_it_was_marked(world, outbox)
    number = await world.broker.route(end, TOLD)
    await away(world)
    assert await learn(at, outbox) == ["offset-gone"]
    await outbox.flush(world.bus)
    assert (await world.sent())[-1] == end
    await repeat(world, end, number)
    assert await learn(at, outbox) == ["offset-gone", "withdrawal-undecided", "wrong-leaf"]
    story = trace(outbox.database, identity(end))
    assert story
    assert (story.outcome, "withdraw it once more" in in_words.became(story, NOW)) == ("unknown", True)
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    assert named((await world.sent())[-1]) == [identity(first)]
    outbox.close()


async def test_a_publication_that_went_unmarked_is_unknown_once_it_is_called_repeated(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.publish([draft()])
    world.bus.memory.breaks.append(True)
    with pytest.raises(UnavailableError):
        await outbox.flush(world.bus)
    (data,) = await world.sent()
    number = await world.broker.route(data, SHOWS)
    await away(world)
    assert await learn(at, outbox) == []
    await outbox.flush(world.bus)
    await repeat(world, data, number)
    assert await learn(at, outbox) == ["publication-undecided", "wrong-leaf"]
    assert (outbox.waits(), undecided(outbox.database)) == (False, set())
    outbox.close()


async def test_what_is_not_decided_is_sent_again_where_the_stream_of_its_outcome_was_lost(world: World) -> None:
    """Else it would stay undecided for ever. One is called repeated, the other was not decided yet."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await world.broker.route(await run(world, outbox, draft()), SHOWS)
    await learn(at, outbox)
    ours = [await run(world, outbox, *map(draft, ("R-1", "R-2", "R-3")[:many])) for many in (2, 3)]
    number = await world.broker.route(ours[0], SHOWS)
    world.bus.memory.lose(streams.outcomes("AT"))
    assert await learn(at, outbox) == ["stream-lost"]
    assert await outbox.flush(world.bus) == len(ours)
    assert (await world.sent())[-2:] == ours
    await repeat(world, ours[0], number)
    await world.broker.route(ours[1], SHOWS)
    assert await learn(at, outbox) == ["stream-lost", "publication-undecided", "wrong-leaf"]
    assert undecided(outbox.database) == set()
    assert named(await run(world, outbox, *map(draft, ("R-1", "R-2", "R-3")))) == [identity(ours[0])]
    assert (await learn(at, outbox), outbox.waits()) == (["stream-lost", "publication-undecided", "wrong-leaf"], False)
    outbox.close()


async def test_what_was_withdrawn_before_its_outcomes_were_lost_is_not_sent_again(world: World) -> None:
    """The withdrawal is: of the notice a copy would outlive the erasure."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await world.broker.route(await run(world, outbox, draft("R-2")), SHOWS)
    await learn(at, outbox)
    first, end = await run(world, outbox, draft("R-2"), draft()), await run(world, outbox, draft("R-2"))
    await world.broker.route(first, SHOWS)
    number = await world.broker.route(end, TOLD)
    world.bus.memory.lose(streams.outcomes("AT"))
    assert await learn(at, outbox) == ["stream-lost"]
    assert (await outbox.flush(world.bus), (await world.sent())[-1]) == (1, end)
    await repeat(world, end, number)
    assert await learn(at, outbox) == ["stream-lost", "withdrawal-undecided", "wrong-leaf"]
    again = await run(world, outbox, draft("R-2"))
    assert (said(again).kind, named(again)) == ("withdrawal", [identity(first)])
    outbox.close()


async def confirmed(world: World) -> None:
    """LV and GE answer all that they were given, and AT is told."""
    for bureau in ("LV/ncb", "GE/ncb"):
        machine = world.machine(bureau)
        inbox = machine.inbox()
        before = len(await world.receipts(bureau[:2]))
        await machine.collector(inbox).drain()
        inbox.close()
        for data in (await world.receipts(bureau[:2]))[before:]:
            outcome = world.broker.confirm(data)
            await world.broker.seal()
            await world.broker.tell("AT", outcome)


async def first_withdrawal_told(
    world: World, outbox: Outbox, then: Callable[[], Awaitable[None]], back: Callable[[], Awaitable[None]]
) -> list[str]:
    """LV and GE erase; AT does not hear of the withdrawal that told them, and makes another, which tells nobody."""
    first = (await world.sent())[0]
    assert said(first).kind == "person"
    ends = dict.fromkeys(TOLD, ("erases", 1))
    await world.broker.route((await world.sent())[-1], TOLD, ends)
    await then()
    await away(world)
    await back()
    await learn(world.machine("AT/ncb"), outbox)
    outbox.withdraw("R-1")
    await outbox.flush(world.bus)
    await world.broker.route((await world.sent())[-1], {})
    return await learn(world.machine("AT/ncb"), outbox)


async def nothing() -> None:
    """Nobody answers."""


async def test_a_second_withdrawal_that_tells_nobody_rings_and_names_the_first_whose_outcome_is_lost(
    world: World,
) -> None:
    outbox, at = await withdrawn(world), world.machine("AT/ncb")
    await learn(at, outbox)
    codes = await first_withdrawal_told(world, outbox, lambda: confirmed(world), nothing)
    assert codes == ["offset-gone", "withdrawal-undecided", "holders-not-told"]
    about = at.outcomes(outbox).journal.alarms()[-1].about
    assert "withdrawal" in about
    assert "whose outcome is lost, may have told them" in about
    outbox.close()


async def test_who_has_signed_that_it_erased_was_told_though_the_outcome_of_what_told_it_is_lost(world: World) -> None:
    """Their answers came later than the outcome, and are there: the second withdrawal tells nobody, rightly."""
    outbox, at = await withdrawn(world), world.machine("AT/ncb")
    await learn(at, outbox)
    codes = await first_withdrawal_told(world, outbox, nothing, lambda: confirmed(world))
    assert codes == ["offset-gone", "withdrawal-undecided"]
    outbox.close()


async def test_a_withdrawal_of_what_was_given_up_and_never_on_record_says_why_it_told_nobody(world: World) -> None:
    """LV and GE hold the version before it. The alarm names what it names, and by the next flush they are told."""
    at, outbox, first = await routed(world)
    second = await run(world, outbox, draft(action_sought="arrest"))
    await world.broker.route((await world.publish(draft("R-2")))[0], SHOWS)
    await away(world)
    assert await learn(at, outbox) == ["offset-gone", *["publication-undecided"] * 2]
    end = await run(world, outbox)
    assert named(end) == [identity(second)]
    await world.broker.route(end, {})
    assert (await learn(at, outbox))[-1] == "holders-not-told"
    given_up = (
        f"; notice {uuid.UUID(bytes=identity(second))}, whose outcome is lost and which it ends, may never have been"
    )
    assert at.outcomes(outbox).journal.alarms()[-1].about.endswith(f"{given_up} on record")
    await outbox.flush(world.bus)
    follows = (await world.sent())[-1]
    assert named(follows) == [identity(first)]
    await world.broker.route(follows, TOLD)
    assert (await learn(at, outbox)).count("holders-not-told") == 1
    story = trace(outbox.database, said(end).notice_id)
    assert story
    assert story.untold == ()
    outbox.close()
