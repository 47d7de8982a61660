"""What an outbox of before, which knew less of what stands with holders, becomes when today's opens it.

Such files were also made with the code of that time, by lives as in test_record_lives, and went on as all others.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from adapters.outbox import Outbox
from adapters.outcomes import rejected_in
from adapters.trace import trace
from broker.errors import ConfigurationError, InvalidReferenceError
from tests.member.conftest import Machine, World, draft
from tests.member.test_outcomes import SHOWS, identity, learn, reject
from tests.member.test_withdrawals import ended, last_withdraws, named, run, said, standing_beside_each_other


def brought_up(at: Machine, outbox: Outbox, *changes: str) -> Outbox:
    """Close an outbox as one of before would have left its file, and open that."""
    triggers = outbox.database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    script = "".join(f"DROP TRIGGER {name};" for (name,) in triggers)
    script += "DROP TABLE standing; DROP TABLE told_nobody; ALTER TABLE envelopes DROP COLUMN queued;"
    script += "PRAGMA user_version = 1;"
    outbox.database.executescript(script + ";".join(changes))
    outbox.close()
    return at.outbox()


async def withdrawn_in_vain(world: World, outbox: Outbox) -> bytes:
    """What LV and GE were given stands, as the broker rejects its withdrawal."""
    first = await run(world, outbox, draft())
    await world.broker.route(first, SHOWS)
    await reject(world, await run(world, outbox), "issued-in-future")
    await learn(world.machine("AT/ncb"), outbox)
    return first


async def test_what_a_rejected_withdrawal_had_left_beside_a_newer_publication_is_withdrawn(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first, anew = await standing_beside_each_other(world, outbox)
    outbox = brought_up(at, outbox)
    assert (await outbox.flush(world.bus), outbox.waits()) == (1, False)
    await last_withdraws(world, first)
    assert set(outbox.published("list")) == {"R-1"}
    assert named(await run(world, outbox)) == [identity(anew)]
    outbox.close()


@pytest.mark.parametrize("rejected", [True, False])
async def test_what_a_withdrawal_that_told_nobody_had_left_is_withdrawn(world: World, *, rejected: bool) -> None:
    (first,) = await world.publish(draft())
    at = world.machine("AT/ncb")
    outbox, end = await ended(world, first, rejected=rejected)
    await world.broker.route(end, {})
    await learn(at, outbox)
    outbox = brought_up(at, outbox, "UPDATE records SET state = 'withdrawn'")
    assert (await outbox.flush(world.bus), await outbox.flush(world.bus)) == (1, 0)
    follows = (await world.sent())[-1]
    assert (said(follows).kind, said(follows).version, named(follows)) == ("withdrawal", 4, [identity(first)])
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-1")
    outbox.close()


async def test_what_stands_and_was_called_withdrawn_ends_when_its_source_has_it_no_more(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first = await withdrawn_in_vain(world, outbox)
    outbox = brought_up(at, outbox, "UPDATE records SET state = 'withdrawn'")
    assert outbox.published("list") == {"R-1": b""}
    assert named(await run(world, outbox)) == [identity(first)]
    outbox.close()


async def test_what_was_corrected_after_its_withdrawal_was_rejected_is_not_withdrawn(world: World) -> None:
    """The correction was rejected, too: what it names still stands, and whoever corrected it wanted it to."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    first = await withdrawn_in_vain(world, outbox)
    correction = await run(world, outbox, draft(action_sought="arrest"))
    await reject(world, correction, "issued-in-future")
    await learn(at, outbox)
    outbox = brought_up(at, outbox)
    assert (named(correction), outbox.waits(), outbox.published("list")) == ([identity(first)], False, {"R-1": b""})
    assert named(await run(world, outbox, draft(action_sought="arrest"))) == [identity(first)]
    outbox.close()


async def test_what_was_withdrawn_and_is_called_live_is_not_withdrawn_again(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await world.broker.route(await run(world, outbox, draft()), SHOWS)
    await world.broker.route(await run(world, outbox), dict.fromkeys(SHOWS, ("reason",)))
    await learn(at, outbox)
    outbox = brought_up(at, outbox, "UPDATE records SET state = 'live'")
    assert (outbox.published("list"), outbox.waits()) == ({}, False)
    outbox.close()


async def test_what_was_rejected_and_waited_to_be_sent_stops_nothing_else(world: World) -> None:
    """A process of before had queued it anew, for another key, when it heard of the rejection."""
    (data,) = await world.publish(draft())
    await reject(world, data, "could-not-be-judged", signed=False)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await learn(at, outbox)
    outbox = brought_up(at, outbox, "UPDATE envelopes SET sent_at = NULL")
    outbox.publish([draft("R-2")])
    assert await outbox.flush(world.bus) == 1
    story = trace(outbox.database, identity(data))
    assert story is not None
    assert (story.outcome, story.sent_at) == ("rejected", story.made_at)
    outbox.close()


async def test_what_was_rejected_unnamed_and_called_undecided_is_published_again(world: World) -> None:
    """It was called published for ever, and each correction named what the broker does not know."""
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    data = await run(world, outbox, draft())
    await reject(world, data, "could-not-be-judged", signed=False)
    (digest,) = outbox.database.execute("SELECT digest FROM records").fetchone()
    await learn(at, outbox)
    outbox.database.execute("UPDATE records SET state = 'live', digest = ?", (digest,))
    outbox = brought_up(at, outbox, "UPDATE envelopes SET outcome = NULL")
    assert (outbox.published("list"), outbox.waits()) == ({}, False)
    again = await run(world, outbox, draft())
    assert (said(again).version, named(again)) == (2, [])
    outbox.close()


@pytest.mark.parametrize("version", [1, 2])
async def test_what_was_ordered_before_it_was_known_to_be_decided_is_published_no_more_and_its_body_goes(
    world: World, version: int
) -> None:
    """For a while files of version 2, too, kept it until it would be decided."""
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS, kind="withdrawn-by-order")
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    body = outbox.database.execute("SELECT compartments FROM envelopes").fetchone()[0]
    await learn(at, outbox)
    outbox.database.execute("UPDATE envelopes SET compartments = ?", (body,))
    undone = "UPDATE records SET state = 'live'", "UPDATE envelopes SET outcome = NULL"
    outbox = brought_up(at, outbox, *undone, f"PRAGMA user_version = {version}")
    assert (outbox.published(""), outbox.standing("AT/ncb", "R-1")) == ({}, None)
    assert outbox._is_ordered("AT/ncb", "R-1")
    assert outbox.database.execute("SELECT compartments FROM envelopes").fetchone()[0] is None
    outbox.close()


async def test_what_a_machine_of_before_could_not_read_is_read_once_it_is_updated(world: World) -> None:
    """The broker was updated first: its outcomes were refused, and what came after them was taken in."""
    sent = await world.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    for data in sent:
        await world.broker.route(data, SHOWS)
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    await learn(at, outbox)
    known = "SELECT count(*) FROM envelopes WHERE outcome = 'routed'"
    undone = (
        "DELETE FROM outcomes WHERE leaf_number < 2",
        "UPDATE envelopes SET outcome = NULL WHERE place <= 2",
        "INSERT INTO refused VALUES ('outcomes.at', 0, 'unreadable'), ('outcomes.at', 1, 'unreadable')",
        "PRAGMA user_version = 3",
    )
    outbox = brought_up(at, outbox, *undone)
    assert outbox.database.execute(known).fetchone()[0] == 1
    learned = await at.outcomes(outbox).drain()
    assert (learned.records, learned.new, learned.refused) == (3, 2, 0)
    assert outbox.database.execute(known).fetchone()[0] == 3
    assert outbox.database.execute("SELECT count(*) FROM refused").fetchone()[0] == 0
    outbox.close()
    outbox = at.outbox()
    assert (await at.outcomes(outbox).drain()).records == 0
    outbox.close()


@pytest.mark.parametrize("name", ["outbox.db", "inbox.db"])
async def test_a_file_that_a_later_version_wrote_is_refused_as_it_is(world: World, name: str) -> None:
    at = world.machine("AT/ncb")
    at.outbox().close()
    at.inbox().close()
    file = at.folder / name
    with closing(sqlite3.connect(file)) as database:
        database.executescript("DROP TABLE heads; PRAGMA user_version = 9")  # as far as we can know
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match=r"version 9, .* up to [14]\): install that version again"):
        (at.outbox if name == "outbox.db" else at.inbox)()
    if name == "outbox.db":
        with pytest.raises(ConfigurationError):  # what a collector looks up there
            rejected_in(file, 0)
    assert file.read_bytes() == before
    assert sorted(each.name for each in at.folder.glob(f"{name}*")) == [name]
