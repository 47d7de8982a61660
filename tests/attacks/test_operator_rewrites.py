"""The operator rewrites his log: every hash and every signature is right, and what others kept is not his to change."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from broker import codec, notes, tiles
from broker.notice import Entry, Leaf
from broker.seen import AHEAD_MS
from broker.signing import SigningKey
from tests.attacks.scene import ALL, Scene, leaf_but, root_of, two_logs, write_trail
from tests.honest_broker import LOG
from tests.making import NOW
from tests.member.conftest import draft

HOUR = 3_600_000
Rewrite = Callable[[list[bytes]], list[bytes]]


def test_an_operator_who_changed_nothing_is_called_honest(kept: Scene) -> None:
    """The stories below would mean nothing if this did not hold: exit 0."""
    kept.lay_out_records()
    verdict = kept.verify("--records")
    assert (verdict.exit, verdict.findings) == (0, [])


def edited(leaves: list[bytes]) -> list[bytes]:
    return [leaves[0], leaf_but(leaves[1], code="erased"), *leaves[2:]]


def deleted(leaves: list[bytes]) -> list[bytes]:
    return [leaves[0], *leaves[2:]]


def inserted(leaves: list[bytes]) -> list[bytes]:
    return [leaves[0], leaf_but(leaves[1], decision=bytes(32)), *leaves[1:]]


def reordered(leaves: list[bytes]) -> list[bytes]:
    return [leaves[0], leaf_but(leaves[3], about=None), leaves[2], leaf_but(leaves[1], about=None), *leaves[4:]]


def backdated(leaves: list[bytes]) -> list[bytes]:
    return [leaf_but(each, now=codec.decode(Leaf, each).now - HOUR) for each in leaves]


@pytest.mark.parametrize("rewrite", [edited, deleted, inserted, reordered, backdated])
def test_the_operator_rewrites_his_log_and_signs_it_again(kept: Scene, rewrite: Rewrite) -> None:
    """He edits, deletes, inserts, reorders or backdates leaves and signs a new head. `audit verify` holds it against
    the heads that LV, GE and AT kept: `another history (split view)`, exit 4."""
    kept.lay_out(rewrite(kept.operator.leaves))
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("it showed others another history (split view)")


@pytest.mark.parametrize("rewrite", [edited, deleted, inserted, reordered, backdated])
def test_the_operator_rewrites_his_log_and_one_delivery_survives(kept: Scene, rewrite: Rewrite) -> None:
    """All that is left outside is what AT was told of leaf 1. Its leaf is another now, exit 4."""
    kept.lay_out(rewrite(kept.operator.leaves))
    outbox = kept.home("AT/ncb").outbox()
    outbox.database.execute("DELETE FROM heads")
    outbox.database.execute("DELETE FROM outcomes WHERE leaf_number != 1")
    outbox.close()
    verdict = kept.verify("--seen", str(kept.folder / "members" / "AT" / "outbox.db"))
    assert verdict.exit == 4
    assert verdict.says("leaf 1: AT/outbox.db was told of another leaf of this number")


async def test_the_operator_records_what_he_routed_as_withdrawn(kept: Scene) -> None:
    """He writes a code into the leaf as he records it, so that who looks for it reads `withdrawn`, and everybody's copy
    of that leaf is the same. No such leaf has a code, exit 4."""
    (data,) = await kept.publish(draft("R-told-otherwise"))
    operator = kept.operator
    number = operator.record(data, {"LV/ncb": ALL})
    leaf = leaf_but(operator.leaves[number], code="withdrawn")
    operator.leaves[number], operator.routes[number] = leaf, replace(operator.routes[number], leaf=leaf)
    await operator.seal()
    await operator.deliver(number)
    assert (await kept.collect()).records == ["R-told-otherwise"]
    kept.lay_out()
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says(f"leaf {number}: is routed, and bears the code withdrawn")


def test_the_operator_ends_a_notice_in_a_leaf_of_his_own_make(kept: Scene) -> None:
    """He appends a leaf that says of the first notice that it has expired. No broker records that, exit 4."""
    ended = leaf_but(kept.operator.leaves[1], kind="expired", about=0, rows=None)
    kept.lay_out([*kept.operator.leaves, leaf_but(ended, now=kept.operator.now)])
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says(f"leaf {len(kept.operator.leaves)}: is of an unknown kind")


def test_the_operator_cuts_the_end_of_his_log_off(kept: Scene) -> None:
    """He publishes the head of three leaves again, truly signed once. What LV kept cannot be met, exit 4."""
    kept.lay_out(kept.operator.leaves[:3])
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("leaf 3: the head of size 4")
    assert verdict.says("the trail ends at 3 leaves")


def test_the_operator_burns_his_log(kept: Scene) -> None:
    """He presents an empty log. What others kept has leaves in it, exit 4."""
    kept.lay_out()
    for each in sorted(kept.trail.rglob("*"), reverse=True):
        each.unlink() if each.is_file() else each.rmdir()
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("the trail ends at 0 leaves")


def test_the_operator_backdates_one_leaf(kept: Scene) -> None:
    """Before anybody kept a head he stamps a leaf earlier than the one before it. Times only rise, exit 4."""
    leaves = kept.operator.leaves
    kept.lay_out([*leaves[:4], leaf_but(leaves[4], now=NOW - HOUR), *leaves[5:]])
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("leaf 4: goes back in time")


def test_the_operator_edits_an_entry_and_not_its_hash(kept: Scene) -> None:
    """He changes what an entry says and leaves tiles and head as they are. The entry is named, exit 4."""
    file = kept.trail / tiles.path(tiles.ENTRIES, 0, len(kept.operator.leaves))
    entries = tiles.unbundle(file.read_bytes())
    file.write_bytes(tiles.bundle([entries[0], leaf_but(entries[1], code="erased"), *entries[2:]]))
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("leaf 1: was changed: its hash in tile/0/000.p/8 is another")


def test_the_operator_edits_a_hash_and_not_its_entry(kept: Scene) -> None:
    """He changes a tile, so that a proof of that leaf fails. The hash is named, exit 4."""
    file = kept.trail / tiles.path(0, 0, len(kept.operator.leaves))
    file.write_bytes(file.read_bytes()[:32] + bytes(32) + file.read_bytes()[64:])
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("tile/0/000.p/8, hash 1: was changed")


def test_the_operator_begins_a_new_log_under_a_new_key(kept: Scene) -> None:
    """He says that the old key was lost. The key that others pinned did not sign it: exit 4; a collector takes
    nothing under it: `bad-checkpoint`."""
    key = SigningKey.from_seed(b"a new log, a new life. 32 bytes!")
    write_trail(kept.trail, kept.operator.leaves, key)
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("checkpoint: cannot be trusted")


async def test_the_operator_announces_a_head_under_a_new_key(kept: Scene) -> None:
    """He announces the next head under a key that no directory names. Collectors refuse it: `bad-checkpoint`."""
    kept.operator.key = SigningKey.from_seed(b"a new log, a new life. 32 bytes!")
    (data,) = await kept.publish(draft("R-5"))
    await kept.operator.route(data, {"LV/ncb": ALL})
    seen = await kept.collect()
    assert seen.records == []
    assert set(seen.alarms) == {"bad-checkpoint", "not-in-trail"}


def test_the_operator_has_nobody_to_be_compared_with(kept: Scene) -> None:
    """He rewrites his log where nobody kept anything. It is sound in itself, and never called good: exit 6."""
    kept.lay_out(edited(kept.operator.leaves))
    for file in kept.folder.glob("members/*/*.db"):
        file.unlink()
    verdict = kept.verify()
    assert (verdict.exit, verdict.findings) == (6, [])


async def test_the_operator_shows_two_members_two_logs(kept: Scene) -> None:
    """Each collector is content: each history is sound and signed. As soon as GE's file is held against the log that
    LV was shown: `another history (split view)`, exit 4."""
    await two_logs(kept)
    assert (await kept.collect()).alarms == (await kept.collect("GE/ncb")).alarms == []
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.says("the head of size 9 that GE/inbox.ncb.db kept has another root")
    assert verdict.says("split view")


async def test_a_member_hands_the_head_that_it_was_shown_to_another(kept: Scene) -> None:
    """GE sends LV the one line that it was shown. LV's collector alone finds the split: alarm `split-view`."""
    await two_logs(kept)
    inbox = kept.home("GE/ncb").inbox()
    size, root = inbox.heads.newest()
    inbox.close()
    kept.bus = kept.home("LV/ncb").bus
    await kept.announce(notes.Checkpoint(LOG.name, size, root))
    assert (await kept.collect()).alarms == ["split-view"]


async def test_the_operator_signs_two_heads_of_one_size(kept: Scene) -> None:
    """He announces a second head of eight leaves to everybody. Every collector rings: `split-view`."""
    await kept.announce(notes.Checkpoint(LOG.name, 8, root_of(edited(kept.operator.leaves))))
    assert (await kept.collect()).alarms == (await kept.collect("GE/ncb")).alarms == ["split-view"]


async def test_the_operator_restores_yesterdays_disk_and_goes_on(kept: Scene) -> None:
    """He goes back to four leaves and records other things. No head of his extends what members hold: they take in
    nothing more, and ring; `audit verify` says `split view`, exit 4."""
    operator = kept.operator
    del operator.leaves[4:]
    operator.sealed = 4
    for data in await kept.publish(draft("R-5"), draft("R-6"), draft("R-7"), draft("R-8"), draft("R-9")):
        await operator.route(data, {"LV/ncb": ALL})
    seen = await kept.collect()
    assert seen.records == []
    assert {"unknown-head", "split-view"} <= set(seen.alarms)
    kept.lay_out()
    assert kept.verify().says("split view")


def test_the_operator_records_an_answer_to_what_never_was(kept: Scene) -> None:
    """He records a receipt about a leaf that is no notice, exit 4."""
    leaves = kept.operator.leaves
    kept.lay_out([*leaves[:7], leaf_but(leaves[7], about=5)])
    assert kept.verify().says("leaf 7: speaks of leaf 5, which is no record leaf before it")


# Decision records, beside the log.


def changed(entries: list[Entry]) -> list[Entry]:
    return [replace(entries[0], decision=entries[2].decision), *entries[1:]]


def cut(entries: list[Entry]) -> list[Entry]:
    return entries[:-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed, "leaf 0: its decision record is not the one that it commits to"),
        (cut, "its decision record is missing"),
    ],
)
def test_the_operator_changes_why_something_was_decided(
    kept: Scene, change: Callable[[list[Entry]], list[Entry]], words: str
) -> None:
    """He doctors the decision records and leaves the log alone. Each leaf commits to its own: exit 4."""
    kept.lay_out_records(change(kept.entries()))
    verdict = kept.verify("--records")
    assert verdict.exit == 4
    assert verdict.says(words)


async def test_the_operator_drops_a_receipt_between_two_others(scene: Scene) -> None:
    """LV answered twice; he records the second answer only. LV kept what it sent: `no leaf records it`, exit 4."""
    for data in await scene.publish(draft("R-1"), draft("R-2")):
        await scene.operator.route(data, {"LV/ncb": ALL})
        await scene.collect()
    await scene.confirm((await scene.receipts())[1])
    scene.lay_out()
    scene.lay_out_records()
    verdict = scene.verify("--records")
    assert verdict.exit == 4
    assert verdict.says("receipt 1 of LV/ncb: LV/inbox.ncb.db sent it, and no leaf records it")


async def test_the_operator_drops_a_notice_between_two_others(scene: Scene) -> None:
    """AT sent R-1 and R-2; he records the second only. AT kept what it sent: `no leaf records it`, exit 4."""
    _, carried = await scene.publish(draft("R-1"), draft("R-2"))
    await scene.operator.route(carried, {"LV/ncb": ALL})
    await scene.learn()
    scene.lay_out()
    scene.lay_out_records()
    verdict = scene.verify("--records")
    assert verdict.exit == 4
    assert verdict.says("notice 1 of AT/ncb: AT/outbox.db sent it, and no leaf records it")


async def test_what_was_sent_again_is_out_of_turn_and_accuses_nobody_while_it_may_be_on_its_way(scene: Scene) -> None:
    """R-1, and LV's first receipt, were rejected for their key and sent again since; the auditor's copy of the trail is
    of before. Once the trail goes on for long after AT sent R-1 anew: `no leaf records it`, exit 4."""
    _, second, third = await scene.publish(draft("R-1"), draft("R-2"), draft("R-3"))
    for each in (second, third):
        await scene.operator.route(each, {"LV/ncb": ALL})
        await scene.collect()
    await scene.confirm((await scene.receipts())[1])
    assert await scene.learn() == []
    queued_anew(scene.home("AT/ncb").folder / "outbox.db", "envelopes", "record = 'R-1'")
    queued_anew(scene.home("LV/ncb").folder / "inbox.ncb.db", "receipts", "number = 1")
    scene.lay_out()
    scene.lay_out_records()
    verdict = scene.verify("--records")
    assert (verdict.findings, verdict.value["decisions"]["receipts_waiting"]) == ([], 2)
    scene.pass_time(AHEAD_MS + 1)
    (later,) = await scene.publish(draft("R-4"))
    await scene.operator.route(later, {"LV/ncb": ALL})
    await scene.learn()
    scene.lay_out()
    scene.lay_out_records()
    (finding,) = scene.verify("--records").findings
    assert finding == "notice 1 of AT/ncb: AT/outbox.db sent it, and no leaf records it"


def queued_anew(file: Path, table: str, which: str) -> None:
    """Have a member's tool remember that it sent something again."""
    with closing(sqlite3.connect(file)) as database:
        assert database.execute(f"UPDATE {table} SET queued = queued + 1 WHERE {which}").rowcount == 1
        database.commit()


def test_the_operator_takes_one_notice_in_twice(kept: Scene) -> None:
    """He records R-1 a second time, for somebody else, and tells nobody of this leaf. A notice has one leaf, exit 4
    without any decision record."""
    again = leaf_but(kept.operator.leaves[0], now=kept.operator.now, decision=bytes(32))
    kept.lay_out([*kept.operator.leaves, again])
    verdict = kept.verify()
    assert verdict.exit == 4
    assert verdict.findings == ["leaf 8: takes in the notice of leaf 0 once more"]


def untold(leaf: Leaf) -> Leaf:
    return leaf


def elsewhere(leaf: Leaf) -> Leaf:
    return replace(leaf, about=1)


def unrelated(leaf: Leaf) -> Leaf:
    return replace(leaf, about=None)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (untold, "ends the notice of leaf 0 and does not tell LV/ncb"),
        (elsewhere, "does not say that it ends the notice of leaf 0"),
        (unrelated, "does not say that it ends the notice of leaf 0"),
    ],
)
async def test_the_operator_records_a_withdrawal_for_some_holders_only(
    scene: Scene, lie: Callable[[Leaf], Leaf], words: str
) -> None:
    """AT withdraws R-1, which LV and GE hold; he records that only GE is told, of this notice, of another or of none.
    Who holds a notice follows from the decisions on record: `audit verify --records`, exit 4."""
    for data in await scene.publish(draft("R-1"), draft("R-2")):
        await scene.operator.route(data, {"LV/ncb": ALL, "GE/ncb": ALL})
    number = scene.operator.record(await scene.withdraw("R-1"), {"GE/ncb": ("reason",)}, {"GE/ncb": ("erases", 1)})
    honest = replace(codec.decode(Leaf, scene.operator.leaves[number]), about=0)
    scene.operator.leaves[number] = codec.encode(lie(honest))
    await scene.operator.seal()
    scene.lay_out()
    scene.lay_out_records()
    verdict = scene.verify("--records")
    assert verdict.exit == 4
    assert verdict.says(f"leaf {number}: {words}")


def test_the_operator_flips_any_byte_of_his_log(kept: Scene) -> None:
    """Disk or hand: 25 bytes anywhere in the log, one at a time. Each time `audit verify` exits 4."""
    source = random.Random(7)
    files = [each for each in sorted(kept.trail.rglob("*")) if each.is_file() and each.name != "vkey"]
    for _ in range(25):
        file: Path = source.choice(files)
        data = bytearray(file.read_bytes())
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        before = file.read_bytes()
        file.write_bytes(bytes(data))
        assert kept.verify().exit == 4, file
        file.write_bytes(before)
