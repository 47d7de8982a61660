"""What a member's files are asked often is answered from an index, however much was ever published or delivered."""

from __future__ import annotations

import sqlite3

from tests.member.conftest import World, draft
from tests.member.test_outcomes import learn, reject

SMALL = ("USING INDEX envelopes_unsent", "USING INDEX told_nobody_unfollowed", "VIRTUAL TABLE INDEX 1:")
"""Indexes of what waits alone, and a list that was given."""


def _scans(database: sqlite3.Connection, statements: list[str]) -> list[str]:
    """Say where these statements go through a whole table, or an index of all of it."""
    steps = [row["detail"] for each in statements for row in database.execute(f"EXPLAIN QUERY PLAN {each}")]
    return [each for each in steps if each.startswith("SCAN") and not each.endswith(SMALL)]


async def test_neither_sending_nor_an_unnamed_rejection_goes_through_all_that_was_ever_published(world: World) -> None:
    (data,) = await world.publish(draft("R-1"))
    outbox, statements = world.machine("AT/ncb").outbox(), list[str]()
    outbox.database.set_trace_callback(statements.append)
    await reject(world, data, "key-not-in-force", signed=False)
    await learn(world.machine("AT/ncb"), outbox)
    assert outbox.waits() is False
    await outbox.flush(world.bus)
    outbox.database.set_trace_callback(None)
    asked = [each for each in statements if "envelopes" in each and each.startswith("SELECT")]
    assert (len(asked) > 5, _scans(outbox.database, asked)) == (True, [])
    outbox.close()


async def test_a_record_of_others_is_found_without_a_look_at_the_whole_inbox(world: World) -> None:
    """What stands counts before what has ended: an old version may come late."""
    for action in ("watch", "arrest"):
        (data,) = await world.publish(draft("R-1", action_sought=action))
        await world.broker.route(data, {"LV/ncb": ("identity",)})
    lv = world.machine("LV/ncb")
    inbox, statements = lv.inbox(), list[str]()
    await lv.collector(inbox).drain()
    inbox.database.set_trace_callback(statements.append)
    newest = inbox.of_record("AT/ncb", "R-1")
    inbox.database.set_trace_callback(None)
    assert newest is not None
    assert (newest.number, newest.version, newest.state, _scans(inbox.database, statements)) == (2, 2, "new", [])
    inbox.database.execute("UPDATE deliveries SET state = iif(delivery_number = 1, 'new', 'replaced')")
    assert (inbox.of_record("AT/ncb", "R-1"), inbox.of_record("LV/ncb", "R-1")) == (inbox.line(1), None)
    inbox.database.execute("UPDATE deliveries SET state = 'erased'")
    assert inbox.of_record("AT/ncb", "R-1") == inbox.line(2)
    inbox.close()
