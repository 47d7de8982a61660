"""What `valise audit` catches, what it calls by its place, and what it never calls good."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from broker import avro, codec, notes, tiles
from broker.merkle import Rows
from broker.notice import (
    RECEIPT_TYPE,
    DecisionRecord,
    Entry,
    Leaf,
    Receipt,
    ReceiptItem,
    Recipient,
    Row,
    RuleHit,
    Statement,
    Terms,
)
from broker.signing import decision_digest, header_digest
from cli.audit import audit
from tests.making import Draft
from tests.steps.ledger import BUREAU, DEPTH, KEY, ORIGIN, OTHER_KEY, SEED, VKEY, Ledger, later, leaf_of

SIZE = 600


def run(ledger: Ledger, *more: str) -> Result:
    return CliRunner().invoke(audit, ["verify", "--home", str(ledger.home), *more])


def report(ledger: Ledger, *more: str) -> dict[str, Any]:
    result = run(ledger, "--json", *more)
    value: dict[str, Any] = json.loads(result.stdout)
    assert value["exit"] == result.exit_code
    return value


def places(ledger: Ledger, *more: str) -> list[str]:
    """What is wrong, as PLACE: WHAT; the exit code is then 4."""
    value = report(ledger, *more)
    assert value["exit"] == 4
    return [f"{each['place']}: {each['what']}" for each in value["findings"]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A trail of 600 leaves in four steps, whose heads and deliveries AT's collector kept; each test takes a copy."""
    ledger = Ledger(tmp_path_factory.mktemp("kept") / "home")

    async def work() -> None:
        await ledger.recover()
        for count in (5, 245, 300, 50):
            await ledger.step(count)

    asyncio.run(work())
    ledger.stop()
    ledger.keep()
    return ledger


@pytest.fixture
def ledger(kept: Ledger, tmp_path: Path) -> Ledger:
    ledger = kept.copy(tmp_path / "home")
    ledger.stop()
    return ledger


@pytest.fixture
def alone(ledger: Ledger) -> Ledger:
    """The same, where nobody kept anything."""
    ledger.keep(heads=False, deliveries=False)
    return ledger


def edit(file: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the entries of a bundle."""
    file.write_bytes(tiles.bundle(change(tiles.unbundle(file.read_bytes()))))


def flip(file: Path, at: int) -> None:
    """Change one byte."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(bytes(data))


def test_a_good_trail_is_called_good(ledger: Ledger) -> None:
    value = report(ledger)
    assert (value["exit"], value["good"], value["findings"]) == (0, True, [])
    assert (value["size"], value["compared"]["heads"], value["compared"]["deliveries"]) == (SIZE, 4, SIZE)
    assert value["root"] == ledger.frontier.root().hex()


def test_the_answer_comes_first_and_the_next_command_last(ledger: Ledger) -> None:
    lines = run(ledger).stdout.splitlines()
    assert lines[0].startswith("The trail is good: 600 leaves")
    assert lines[-1].startswith("valise audit show")


def test_a_changed_byte_of_an_earlier_partial_tile_is_called_by_its_place(ledger: Ledger) -> None:
    """No head that is in force needs it, and a reader of an earlier head does."""
    earlier = [each.relative_to(ledger.folder) for each in sorted(ledger.folder.glob("tile/**/002.p/*"))]
    assert len({each.parent for each in earlier}) == 2
    stale = [each for each in earlier if each.name != "88"]
    assert stale
    for file in stale:
        flip(ledger.folder / file, 40)
        (told,) = places(ledger)
        assert told.startswith(f"{file}, ")
        assert "was changed" in told
        flip(ledger.folder / file, 40)
    (ledger.folder / stale[0]).write_bytes(b"")
    assert places(ledger) == [
        f"{stale[0]}: holds 0 {'hashes' if 'tile/0' in str(stale[0]) else 'entries'} instead of {stale[0].name}"
    ]


def test_what_lies_half_written_beyond_the_head_is_no_fault(ledger: Ledger) -> None:
    """A full disk leaves it until there is room, a kill until the next start; a broker that runs, for a moment.

    What is whole there is compared as far as the head goes.
    """
    for level in ("0", "entries"):
        newest = ledger.folder / f"tile/{level}/002.p/88"
        data, further = newest.read_bytes(), newest.with_name("89")
        for half in (b"", data[:41], data):
            further.write_bytes(half)
            assert run(ledger).exit_code == 0
    (hashes := ledger.folder / "tile/0/002.p/89").write_bytes(
        (ledger.folder / "tile/0/002.p/88").read_bytes() + bytes(32)
    )
    assert run(ledger).exit_code == 0
    flip(hashes, 40)
    assert places(ledger) == ["tile/0/002.p/89, hash 1: was changed: it is another in the tree of the checkpoint"]


def test_compared_with_nothing_is_never_called_good(alone: Ledger) -> None:
    result = run(alone)
    assert result.exit_code == 6
    assert "compared with nothing" in result.stdout.splitlines()[0]
    assert "good" not in result.stdout


def test_it_says_that_the_key_comes_from_the_operator_s_own_folder(ledger: Ledger, tmp_path: Path) -> None:
    assert "own folder" in run(ledger).stdout
    pinned = tmp_path / "pinned"
    pinned.write_text(str(VKEY), encoding="utf-8")
    assert "own folder" not in run(ledger, "--vkey", str(pinned)).stdout


def test_a_pinned_key_catches_a_log_signed_by_another(ledger: Ledger, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned"
    pinned.write_text(str(notes.vkey(ORIGIN, OTHER_KEY.public.raw)), encoding="utf-8")
    assert places(ledger, "--vkey", str(pinned))[0].startswith("checkpoint: cannot be trusted")


# Without the key: what a hand on the disk can do.


@pytest.mark.parametrize(("number", "file"), [(7, "tile/entries/000"), (300, "tile/entries/001"), (599, "002.p/88")])
def test_a_changed_entry_is_called_by_its_number(alone: Ledger, number: int, file: str) -> None:
    path = alone.folder / tiles.path(tiles.ENTRIES, number // 256, 256 if number < 512 else 88)
    edit(path, lambda each: [*each[: number % 256], each[0], *each[number % 256 + 1 :]])
    found = places(alone)
    assert f"{file}, leaf {number}: was changed" in found[0]
    assert not any("checkpoint" in each for each in found)


@pytest.mark.parametrize(
    ("name", "at", "place"),
    [
        ("tile/0/000", 32 * 9, "tile/0/000, hash 9: was changed: leaf 9"),
        ("tile/0/002.p/88", 32 * 80 + 5, "tile/0/002.p/88, hash 80: was changed: leaf 592"),
        ("tile/1/000.p/2", 33, "tile/1/000.p/2, hash 1: is not the root of tile/0/001"),
    ],
)
def test_a_changed_byte_of_a_tile_is_called_by_its_place(alone: Ledger, name: str, at: int, place: str) -> None:
    flip(alone.folder / name, at)
    found = places(alone)
    assert [each for each in found if place in each]
    assert len(found) == 1


def test_a_deleted_entry_is_called_by_its_place(alone: Ledger) -> None:
    edit(alone.folder / "tile/entries/001", lambda each: [*each[:44], *each[45:]])
    found = places(alone)
    assert found[0] == "tile/entries/001: holds 255 entries instead of 256"
    assert "leaf 300" in found[1]


def test_an_inserted_entry_is_called_by_its_place(alone: Ledger) -> None:
    edit(alone.folder / "tile/entries/001", lambda each: [*each[:44], each[0], *each[44:]])
    found = places(alone)
    assert found[0] == "tile/entries/001: holds 257 entries instead of 256"
    assert "leaf 300" in found[1]


def test_entries_in_another_order_are_called_by_the_first(alone: Ledger) -> None:
    edit(alone.folder / "tile/entries/000", lambda each: [*each[:10], each[11], each[10], *each[12:]])
    found = places(alone)
    assert "leaf 10: was changed" in found[0]
    assert "and 1 more" in found[0]


@pytest.mark.parametrize("name", ["tile/entries/001", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"])
def test_a_missing_file_is_called_by_its_name(alone: Ledger, name: str) -> None:
    (alone.folder / name).unlink()
    assert any(each.startswith(f"{name}: is missing") for each in places(alone))


@pytest.mark.parametrize("name", ["tile/entries/001", "tile/0/001", "tile/0/002.p/88"])
@pytest.mark.parametrize("part", [0, 0.3, 0.99])
def test_a_file_that_is_cut_off_is_called_by_its_name(alone: Ledger, name: str, part: float) -> None:
    file = alone.folder / name
    os.truncate(file, int(file.stat().st_size * part))
    assert any(name in each for each in places(alone))


def test_a_missing_checkpoint_is_no_empty_trail(alone: Ledger) -> None:
    (alone.folder / "checkpoint").unlink()
    assert places(alone) == ["checkpoint: is missing"]


@pytest.mark.parametrize("size", [599, 601])
def test_a_forged_checkpoint_is_refused(alone: Ledger, size: int) -> None:
    head = notes.Checkpoint(ORIGIN, size, alone.frontier.root())
    (alone.folder / "checkpoint").write_text(notes.sign_checkpoint(head, OTHER_KEY), encoding="utf-8")
    assert places(alone)[0].startswith("checkpoint: cannot be trusted")


def test_a_checkpoint_that_the_log_signed_over_other_leaves_is_refused(alone: Ledger) -> None:
    head = notes.Checkpoint(ORIGIN, SIZE, bytes(32))
    (alone.folder / "checkpoint").write_text(notes.sign_checkpoint(head, KEY), encoding="utf-8")
    assert places(alone) == ["checkpoint: its root is not that of the 600 leaves"]


# With the key: what only the operator can do, and only what others kept can show.


async def test_a_rewritten_history_is_caught_by_a_kept_head(ledger: Ledger, tmp_path: Path) -> None:
    ledger.replace_trail(await ledger.rewritten(tmp_path / "liar", 300, leaf_of(300, "another")))
    ledger.keep(deliveries=False)
    found = places(ledger)
    assert found[0].startswith("leaves 250 to 549: the head of size 550 that AT/inbox.ncb.db kept has another root")
    assert "split view" in found[0]


async def test_a_rewritten_leaf_is_caught_by_a_kept_delivery(ledger: Ledger, tmp_path: Path) -> None:
    ledger.replace_trail(await ledger.rewritten(tmp_path / "liar", 300, leaf_of(300, "another")))
    ledger.keep(heads=False)
    assert places(ledger) == ["leaf 300: delivery 301 of AT/ncb (AT/inbox.ncb.db) has another leaf of this number"]


async def test_a_rewritten_history_that_nobody_kept_is_not_called_good(alone: Ledger, tmp_path: Path) -> None:
    alone.replace_trail(await alone.rewritten(tmp_path / "liar", 300, leaf_of(300, "another")))
    assert run(alone).exit_code == 6


async def test_a_truncated_trail_with_a_true_signature_is_caught_by_what_others_kept(
    ledger: Ledger, tmp_path: Path
) -> None:
    short = Ledger(tmp_path / "short")
    await short.recover()
    for entries, _ in ledger.steps[:3]:
        await short.step(len(entries))
    short.stop()
    ledger.replace_trail(short)
    found = places(ledger)
    assert "leaf 550: the head of size 600 that AT/inbox.ncb.db kept cannot be met: the trail ends at 550" in found[0]
    assert "leaf 550: delivery 551 of AT/ncb (AT/inbox.ncb.db) has it, the trail has not" in found


async def test_a_trail_emptied_altogether_is_caught_by_what_others_kept(ledger: Ledger) -> None:
    for each in sorted(ledger.folder.rglob("*"), reverse=True):
        if each.name != "vkey":
            each.unlink() if each.is_file() else each.rmdir()
    assert "the trail ends at 0 leaves" in places(ledger)[0]


async def test_a_backdated_leaf_is_caught_though_all_is_signed(ledger: Ledger, tmp_path: Path) -> None:
    liar = await ledger.rewritten(tmp_path / "liar", 300, later(leaf_of(300), -5_000))
    assert any("leaf 300: goes back in time" in each for each in places(liar))


@pytest.mark.parametrize("about", [300, 450, -1])
async def test_an_event_about_no_record_leaf_before_it_is_caught(ledger: Ledger, tmp_path: Path, about: int) -> None:
    event = replace(leaf_of(300), kind="receipt", about=about)
    liar = await ledger.rewritten(tmp_path / "liar", 300, event)
    assert f"leaf 300: speaks of leaf {about}, which is no record leaf before it" in places(liar)


async def test_an_event_about_an_event_is_caught(ledger: Ledger, tmp_path: Path) -> None:
    first = await ledger.rewritten(tmp_path / "first", 4, replace(leaf_of(4), kind="receipt", about=3))
    assert report(first)["findings"] == []
    second = await first.rewritten(tmp_path / "second", 580, replace(leaf_of(580), kind="receipt", about=4))
    assert places(second) == ["leaf 580: speaks of leaf 4, which is no record leaf before it"]


async def test_a_leaf_that_is_none_is_caught(ledger: Ledger) -> None:
    edit(ledger.folder / "tile/entries/000", lambda each: [*each[:3], b"garbage", *each[4:]])
    assert "leaf 3: cannot be read (unknown-schema)" in places(ledger)


@pytest.mark.parametrize(
    ("column", "value"),
    [("row", codec.encode(Row(BUREAU, 8, 7))), ("salt", bytes(32)), ("path", bytes(192)), ("row_index", 4)],
)
def test_a_delivery_whose_row_is_not_on_record_is_caught(ledger: Ledger, column: str, value: object) -> None:
    with closing(sqlite3.connect(ledger.home / "members/AT/inbox.ncb.db")) as database:
        database.execute(f"UPDATE deliveries SET {column} = ? WHERE leaf_number = 7", (value,))
        database.commit()
    assert places(ledger) == ["leaf 7: the row of delivery 8 of AT/ncb (AT/inbox.ncb.db) is not below its root of rows"]


def test_a_delivery_kept_under_another_number_is_caught(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.home / "members/AT/inbox.ncb.db")) as database:
        database.execute("UPDATE deliveries SET delivery_number = 9999 WHERE leaf_number = 7")
        database.commit()
    assert "is another's" in places(ledger)[0]


# What it compares with.


def test_what_several_members_kept_is_merged(ledger: Ledger) -> None:
    ledger.keep("LV")
    compared = report(ledger)["compared"]
    assert (compared["heads"], compared["deliveries"], len(compared["files"])) == (8, 2 * SIZE, 2)


def test_a_checkpoint_file_is_compared_with(alone: Ledger, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoint-of-may"
    kept.write_text((alone.folder / "checkpoint").read_text(encoding="utf-8"), encoding="utf-8")
    assert report(alone, "--seen", str(kept))["compared"]["heads"] == 1
    head = notes.Checkpoint(ORIGIN, 5, bytes(32))
    kept.write_text(notes.sign_checkpoint(head, KEY), encoding="utf-8")
    assert "leaves 0 to 4" in places(alone, "--seen", str(kept))[0]


def test_a_folder_is_searched_but_the_trail_never_bears_itself_out(alone: Ledger) -> None:
    value = report(alone, "--seen", str(alone.home / "operator"))
    assert (value["exit"], value["compared"]["files"]) == (6, [])


def test_a_path_with_nothing_is_said(ledger: Ledger) -> None:
    result = run(ledger, "--seen", str(ledger.home / "nothing"))
    assert result.exit_code == 1
    assert "nothing to compare" in str(result.exception)


def test_a_trail_is_examined_from_anywhere(ledger: Ledger) -> None:
    result = CliRunner().invoke(audit, ["verify", str(ledger.folder)])
    assert result.exit_code == 0


# Stories.


def decision() -> DecisionRecord:
    """A person shown to one bureau: header bytes, opened routing, its row."""
    draft = Draft("LV/ncb")
    envelope, routing = draft.envelope(), draft.opened()["routing"]
    return DecisionRecord(
        stream="notices.lv", partition=0, offset=3, at=1, record_digest=sha256(b"").digest(),
        header=envelope.header, routing=routing.salt + routing.data, seed=SEED, depth=DEPTH,
        rows=(Recipient(3, BUREAU, 0b10, delivery_number=1),), rules=(RuleHit("rule-1", 0b1000),),
        terms=Terms(8, 8, 0, 8),
    )  # fmt: skip


def recorded(number: int, kind: str, decision: DecisionRecord) -> tuple[Entry, Leaf]:
    raw, salt = codec.encode(decision), bytes(32)
    rows = None
    if decision.rows:
        encoded = {
            each.index: codec.encode(Row(each.bureau, each.delivery_number, each.shown)) for each in decision.rows
        }
        rows = Rows(decision.seed, decision.depth).build(encoded)
    digest = header_digest(decision.header) if decision.header else None
    leaf = replace(leaf_of(number), kind=kind, header_digest=digest, decision=decision_digest(salt, raw), rows=rows)
    return Entry(number, codec.encode(leaf), salt, raw), leaf


@pytest.fixture
async def told(tmp_path: Path) -> tuple[Ledger, str]:
    """A notice that was routed to one bureau, and the bureau's receipt."""
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    routed = decision()
    first = recorded(0, "routed", routed)
    digest = header_digest(routed.header)
    receipt = Receipt("f", BUREAU, "LV", "read", (ReceiptItem(0, digest), ReceiptItem(9, digest)), None, None, 1, 1)
    statement = codec.encode(Statement(RECEIPT_TYPE, codec.encode(receipt), bytes(32), bytes(64)))
    empty = DecisionRecord("receipts.at", 0, 0, 1, sha256(b"").digest(), statement=statement)
    second = recorded(1, "receipt", empty)
    step = await ledger.commit(leaves=[first[1], second[1]])
    await ledger.sealer.seal([first[0], second[0]], step[1])
    ledger.stop()
    header = avro.read("header", routed.header)
    return ledger, str(UUID(bytes=header["notice_id"]))


def show(ledger: Ledger, name: str, *more: str) -> Result:
    return CliRunner().invoke(audit, ["show", name, "--home", str(ledger.home), *more])


@pytest.mark.parametrize("by_number", [False, True])
def test_a_story_names_recipients_what_they_saw_rules_and_receipts(told: tuple[Ledger, str], by_number: bool) -> None:
    ledger, notice_id = told
    chapters = json.loads(show(ledger, "0" if by_number else notice_id, "--json").stdout)
    assert [each["leaf"] for each in chapters] == [0, 1]
    assert chapters[0]["notice"] == notice_id
    assert chapters[0]["recipients"][0] == {
        "bureau": BUREAU, "delivery": 1, "shown": ["identity"], "replaces": [], "erases": [],
    }  # fmt: skip
    assert chapters[0]["rules"] == [{"rule": "rule-1", "bureaus": ["bureau 3"]}]
    assert chapters[0]["routing"]["everyone"] is True
    noted = chapters[1]["receipt"]
    assert (noted["bureau"], noted["act"], noted["result"]) == (BUREAU, "read", None)
    assert all(each["decision_holds"] for each in chapters)


def test_a_story_is_told_in_lines(told: tuple[Ledger, str]) -> None:
    lines = show(told[0], told[1]).stdout.splitlines()
    assert lines[0].startswith(f"Notice {told[1]} of LV/ncb: routed, 1 recipient,")
    assert lines[-1].startswith("valise audit verify")


@pytest.mark.parametrize("name", ["7", "0198c0de-0000-7000-8000-000000000000", "nothing"])
def test_there_is_no_story_of_what_is_not_there(told: tuple[Ledger, str], name: str) -> None:
    result = show(told[0], name)
    assert result.exit_code == 1
    assert "no such notice" in str(result.exception)


def test_a_changed_decision_record_is_told(told: tuple[Ledger, str]) -> None:
    ledger, notice_id = told
    with closing(sqlite3.connect(ledger.home / "operator/records.db")) as database:
        database.execute("UPDATE decision SET salt = ? WHERE leaf_number = 0", (bytes(31) + b"1",))
        database.commit()
    result = show(ledger, notice_id)
    assert result.exit_code == 4
    assert result.stdout.startswith("The decision record of leaf 0 is not what the leaf says")


def test_the_index_is_made_again_when_it_is_lost(told: tuple[Ledger, str]) -> None:
    ledger, notice_id = told
    first = show(ledger, notice_id, "--json").stdout
    (ledger.home / "operator/records.index.db").unlink()
    assert show(ledger, notice_id, "--json").stdout == first
