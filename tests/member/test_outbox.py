from __future__ import annotations

import asyncio
import os
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.adapter import Draft, Pointer
from adapters.changes import Guard, Unchanged, changes
from adapters.compose import Maker
from adapters.dates import OlderSourceError
from adapters.kinds import kinds
from adapters.order import order
from adapters.outbox import Cursor, Outbox, Published, Refusal, Result
from broker import codec, crash, members
from broker.errors import InvalidReferenceError, UnavailableError
from broker.notice import HEADER_TYPE, Audience, Envelope, Header, Routing, Verified
from broker.signing import SigningKey, header_digest, pae
from broker.sqlite import SqliteBus
from broker.streams import World as Streams
from broker.verify import Arrival, verify
from schemas import loader
from tests.honest_broker import BUREAUS, HonestBroker, directory
from tests.killed import killed
from tests.making import NOW, key_of
from tests.making import Draft as Making
from tests.member.conftest import World, draft


def opened(data: bytes, broker: HonestBroker) -> Verified:
    """Verify as the broker does."""
    return verify(codec.decode(Envelope, data), Arrival("notices.at", NOW, broker.directory, frozenset()))


def run(outbox: Outbox, source: str, drafts: Sequence[Draft], cursor: Cursor | None = None) -> list[Result]:
    """Run an adapter that finds these drafts in its source."""
    before = outbox.published(source)
    found = changes(before, drafts, Guard(accept_withdrawals=True))
    return outbox.apply(found, source, cursor, previous=before)


def test_numbers_have_no_gap_and_survive_reopening(world: World) -> None:
    at = world.machine("AT/ncb")
    numbers: list[int] = []
    for begin in (0, 3, 6):
        outbox = at.outbox()
        results = outbox.publish(draft(f"R-{begin + each}") for each in range(3))
        numbers += [each.number for each in results if isinstance(each, Published)]
        outbox.close()
    assert numbers == list(range(1, 10))


def test_a_refused_draft_uses_no_number_and_stops_no_other(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    results = outbox.publish([draft("R-1"), draft("R-2", audience=Audience(everyone=False)), draft("R-3")])
    assert [type(each) for each in results] == [Published, Refusal, Published]
    assert isinstance(results[1], Refusal)
    assert results[1].code == "empty-audience"
    assert [each.number for each in results if isinstance(each, Published)] == [1, 2]
    outbox.close()


def test_a_publication_costs_the_same_however_many_versions_its_record_has(world: World) -> None:
    at, steps = world.machine("AT/ncb"), list[int]()
    for first, last in ((0, 10), (10, 400)):
        outbox, count = at.outbox(), 0
        outbox.publish(draft(action_sought=f"{each}") for each in range(first, last))

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        outbox.database.set_progress_handler(step, 10)
        outbox.publish([draft(action_sought=f"{last}, too")])
        outbox.database.set_progress_handler(None, 0)
        steps.append(count)
        outbox.close()
    assert steps[1] <= 1.2 * steps[0], f"steps of SQLite: {steps}"


async def test_a_value_that_fits_no_schema_is_refused_by_its_field_and_is_not_told(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    (refused,) = outbox.publish([draft(compartments={"description": {"height_cm": 99_999_999_999}})])
    outbox.close()
    assert isinstance(refused, Refusal)
    assert refused.reason == "the value does not fit the schema person.description: field height_cm"


async def test_a_rehearsal_makes_what_publishing_would_and_keeps_nothing(world: World) -> None:
    """Corrections, pointers within the list, what is unchanged, ordered away, or points nowhere."""
    outbox = world.machine("AT/ncb").outbox()
    outbox.publish([draft("R-1"), draft("R-2"), draft("R-3")])
    outbox.database.execute("UPDATE envelopes SET outcome = 'withdrawn-by-order' WHERE record = 'R-3'")
    reason = {"reason": loader.example("restriction.reason")}
    drafts = [
        draft("R-1", action_sought="arrest"),
        draft("R-2"),
        draft("R-3", action_sought="arrest"),
        draft("R-4", pointers=(Pointer("", "R-5", "cites"),)),
        draft("R-5"),
        draft("R-6", pointers=(Pointer("", "R-5", "cites"),)),
        draft("R-7", kind="restriction", pointers=(Pointer("", "R-1", "restricts"),), compartments=reason),
        draft("R-8", pointers=(Pointer("", "NOPE", "cites"),)),
    ]
    before = list(outbox.database.iterdump())
    rehearsed = outbox.rehearse(drafts)
    assert list(outbox.database.iterdump()) == before
    published = outbox.publish(drafts)
    assert [each for each in rehearsed if not isinstance(each, Verified)] == [
        each for each in published if not isinstance(each, Published)
    ]
    assert [each.code for each in published if isinstance(each, Refusal)] == [
        "withdrawn-by-order",
        *["invalid-reference"] * 3,
    ]
    assert [
        (each.header.record, each.header.version, each.routing.number)
        for each in rehearsed
        if isinstance(each, Verified)
    ] == [(each.record, each.version, each.number) for each in published if isinstance(each, Published)]
    assert [each.relation for made in rehearsed if isinstance(made, Verified) for each in made.header.references] == [
        "corrects", "cites",
    ]  # fmt: skip
    outbox.close()


def test_a_key_is_asked_for_before_the_file_is_held(world: World) -> None:
    """Somebody may have to type a passphrase: other commands and the collector go on meanwhile."""
    at, asked = world.machine("AT/ncb"), list[str]()
    path = at.folder / "outbox.db"

    def asking() -> Maker:
        known: set[str] = set()

        def key(bureau: str) -> SigningKey:
            if bureau not in known:
                with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as another:
                    another.execute("BEGIN IMMEDIATE")
                known.add(bureau)
                asked.append(bureau)
            return key_of(bureau)

        return Maker(at.versions.newest(), key, at.clock, os.urandom)

    def act(job: Callable[[Outbox], object]) -> list[str]:
        asked.clear()
        with closing(Outbox(path, asking(), "AT/ncb")) as outbox:
            job(outbox)
        return asked

    assert act(lambda outbox: outbox.rehearse([draft("R-1")])) == ["AT/ncb"]
    assert act(lambda outbox: outbox.publish([draft("R-1"), draft("R-2", bureau="AT/border")])) == [
        "AT/border", "AT/ncb",
    ]  # fmt: skip
    assert act(lambda outbox: run(outbox, "cases", [draft("R-3"), draft("R-4")])) == ["AT/ncb"]
    assert act(lambda outbox: run(outbox, "cases", [draft("R-3"), draft("R-4")])) == []
    moved = [draft("R-3", bureau="AT/border")]
    assert act(lambda outbox: run(outbox, "cases", moved)) == ["AT/border", "AT/ncb"]
    assert act(lambda outbox: outbox.withdraw("R-1")) == ["AT/ncb"]


async def test_a_rehearsal_on_a_full_disk_says_so(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    pages = outbox.database.execute("PRAGMA page_count").fetchone()[0]
    outbox.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UnavailableError, match="full"):
        outbox.rehearse([draft(f"R-{number}") for number in range(100)])
    assert (outbox.database.in_transaction, outbox.waiting()) == (False, 0)
    outbox.close()


async def test_each_bureau_has_its_own_series(world: World) -> None:
    await world.publish(draft("R-1"), draft("R-2", bureau="AT/border"), draft("R-3"))
    verified = [opened(each, world.broker) for each in await world.sent()]
    assert [(each.header.issuer, each.routing.number) for each in verified] == [
        ("AT/ncb", 1),
        ("AT/border", 1),
        ("AT/ncb", 2),
    ]
    assert verified[0].routing.series == verified[2].routing.series != verified[1].routing.series


async def test_a_record_is_found_as_fast_among_many_as_among_few(world: World) -> None:
    """Counted in SQLite's steps: who looks at each record of a list would read all of them for each."""
    outbox, steps = world.machine("AT/ncb").outbox(), list[int]()
    for count in (10, 400):
        outbox.publish([draft(f"R-{number}") for number in range(count)])
        counted = [0]

        def step(counted: list[int] = counted) -> int:
            counted[0] += 1
            return 0

        outbox.database.set_progress_handler(step, 1)
        assert outbox.find("R-7")
        assert outbox.bureaus_with("R-7") == ["AT/ncb"]
        assert outbox._live_at("R-7", "") == ["AT/ncb"]
        outbox.database.set_progress_handler(None, 1)
        steps.append(counted[0])
    assert steps[1] <= steps[0] + 10
    outbox.close()


async def test_a_second_run_publishes_only_what_changed(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    first = [draft("R-1"), draft("R-2"), draft("R-3")]
    run(outbox, "list", first, Cursor("list", "one"))
    assert outbox.waiting() == 3
    await outbox.flush(world.bus)
    again = run(outbox, "list", first)
    assert again == [Unchanged("R-1"), Unchanged("R-2"), Unchanged("R-3")]
    second = [draft("R-1"), draft("R-2", action_sought="arrest"), draft("R-4")]
    run(outbox, "list", second, Cursor("list", "two"))
    await outbox.flush(world.bus)
    sent = [opened(each, world.broker) for each in await world.sent()]
    assert [(each.header.record, each.header.kind, each.header.version) for each in sent[3:]] == [
        ("R-3", "withdrawal", 2),
        ("R-2", "person", 2),
        ("R-4", "person", 1),
    ]
    relations = {each.header.record: [ref.relation for ref in each.header.references] for each in sent[3:]}
    assert relations == {"R-3": ["withdraws"], "R-2": ["corrects"], "R-4": []}
    assert sent[3].header.references[0].header_digest == sent[2].header_digest
    assert sent[4].header.references[0].notice_id == sent[1].header.notice_id
    assert outbox.cursor("list") == "two"
    assert set(outbox.published("list")) == {"R-1", "R-2", "R-4"}
    outbox.close()


def test_a_list_older_than_the_one_last_published_takes_no_newer_correction_back(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()

    def run(dated: int | None, *drafts: Draft, source: str = "list", accept_older: bool = False) -> int:
        before, cursor = outbox.published(source), Cursor(source, str(dated))
        results = outbox.apply(
            changes(before, drafts), source, cursor, previous=before, dated=dated, accept_older=accept_older
        )
        return sum(isinstance(each, Published) for each in results)

    old, new = draft("R-1"), draft("R-1", action_sought="arrest")
    assert run(NOW, old) == 1
    assert run(NOW + 1, new, draft("R-2")) == 2
    standing, waiting = outbox.published("list"), outbox.waiting()
    for dated in (NOW, None):
        with pytest.raises(OlderSourceError) as refused:
            run(dated, old)
        assert (refused.value.dated, refused.value.last) == (dated, NOW + 1)
        assert "2026-11-18T11:06:40.001+00:00" in str(refused.value)
        assert "accept_older" in str(refused.value)
    assert (outbox.published("list"), outbox.waiting()) == (standing, waiting)
    assert outbox.cursor("list") == str(NOW + 1)
    outbox.close()
    outbox = world.machine("AT/ncb").outbox()
    with pytest.raises(OlderSourceError):
        run(NOW, old)
    assert run(NOW + 1, new, draft("R-2")) == 0  # the same list once more
    assert run(None, draft("R-9"), source="undated") == 1
    assert run(None, draft("R-9"), source="undated") == 0
    assert run(NOW, old, accept_older=True) == 2  # from here on that is the one last published
    assert run(NOW, old) == 0
    assert run(None, new, accept_older=True) == 1  # from here on it is undated
    assert run(None, new) == 0
    assert run(NOW - 1, old) == 1
    outbox.close()


def test_an_outbox_tells_the_kinds_of_what_stands_published_from_a_source(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    run(outbox, "one", [draft("R-1"), draft("R-2")])
    outbox.publish([draft("R-1", action_sought="by hand"), draft("R-3")])
    outbox.withdraw("R-2")
    assert kinds(outbox.database, "one") == {"R-1": "person"}
    outbox.close()


def test_a_run_of_one_source_does_not_touch_another(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    run(outbox, "one", [draft("R-1")])
    run(outbox, "two", [draft("R-2")])
    assert (set(outbox.published("one")), set(outbox.published("two"))) == ({"R-1"}, {"R-2"})
    outbox.close()


def test_a_record_of_one_source_is_no_correction_of_another_sources_record_of_the_same_name(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    run(outbox, "one", [draft("R-1")])
    before = outbox.published("one")
    for other in (draft("R-1", action_sought="another person"), draft("R-1")):
        (refused,) = run(outbox, "two", [other])
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.reason) == ("record-of-another-source", "it stands published from one")
    assert (outbox.published("one"), outbox.published("two"), outbox.waiting()) == (before, {}, 1)
    # Another bureau's is another record, and what has left its source is nobody's.
    run(outbox, "two", [draft("R-1", bureau="AT/border")])
    outbox.withdraw("R-1", bureau="AT/border")
    outbox.withdraw("R-1")
    (published,) = run(outbox, "two", [draft("R-1")])
    assert isinstance(published, Published)
    assert outbox.published("two").keys() == {"R-1"}
    outbox.close()


def test_what_is_corrected_by_hand_still_belongs_to_its_source(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    run(outbox, "list", [draft("R-1"), draft("R-2")])
    outbox.publish([draft("R-1", action_sought="by hand")])
    assert set(outbox.published("list")) == {"R-1", "R-2"}
    results = run(outbox, "list", [draft("R-2")])
    assert [(each.record, each.kind) for each in results if isinstance(each, Published)] == [("R-1", "withdrawal")]
    # What has left its source and is published by hand is nobody's list's.
    outbox.publish([draft("R-1")])
    assert set(outbox.published("list")) == {"R-2"}
    outbox.close()


def test_a_record_that_changes_its_bureau_ends_at_the_one_before(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()

    def ran(*drafts: Draft) -> list[tuple[str, str, str]]:
        results = run(outbox, "list", drafts)
        published = [each for each in results if isinstance(each, Published)]
        return [(each.record, each.kind, outbox.bureau_of(each.notice_id)) for each in published]

    ran(draft("R-1"))
    assert ran(draft("R-1", bureau="AT/border")) == [("R-1", "person", "AT/border"), ("R-1", "withdrawal", "AT/ncb")]
    assert ran() == [("R-1", "withdrawal", "AT/border")]
    assert ran() == []
    assert ran(draft("R-1")) == [("R-1", "person", "AT/ncb")]
    outbox.close()


def test_a_record_name_means_our_own_bureaus_record(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.publish([draft("R-1"), draft("R-1", bureau="AT/border")])
    outbox.publish([draft("R-1", bureau="AT/border", action_sought="arrest"), draft("R-2", bureau="AT/border")])
    found, others = outbox.find("R-1"), outbox.find("R-2")
    assert found
    assert others
    assert (outbox.bureau_of(found.notice_id), found.version) == ("AT/ncb", 1)
    assert outbox.bureau_of(others.notice_id) == "AT/border"
    assert outbox.bureaus_with("R-1") == ["AT/border", "AT/ncb"]
    outbox.close()


def test_a_record_may_be_called_like_a_notice_id(world: World) -> None:
    record, outbox = str(uuid.uuid4()), world.machine("AT/ncb").outbox()
    (first,), (second,) = outbox.publish([draft(record)]), outbox.publish([draft(record, action_sought="arrest")])
    assert isinstance(first, Published)
    assert isinstance(second, Published)
    assert [outbox.find(each) for each in (record, first.id, str(uuid.uuid4()))] == [second, first, None]
    assert outbox.newest_of(record) == second
    outbox.close()


async def test_an_order_on_anothers_record_is_none_of_ours(world: World) -> None:
    """AT is an authority, and both have a record of one name."""
    theirs = replace(Making("LV/ncb").make_header(()), record="R-1", version=5)
    at = world.machine("AT/ncb")
    world.broker.written = directory().model_copy(update={"authorities": ("AT/ncb",), "version": 2})
    await world.broker.publish_directory()
    await at.versions.follow(world.bus)
    outbox = at.outbox()
    order_of = order(theirs, header_digest(codec.encode(theirs)), "AT/ncb")
    assert isinstance(outbox.order(order_of), Published)
    assert outbox.find("R-1") is None
    (own,) = outbox.publish([draft("R-1")])
    assert isinstance(own, Published)
    ordered = outbox.order(order_of)
    assert isinstance(ordered, Published)
    outbox.database.executescript("DELETE FROM orders; PRAGMA user_version = 0")  # as a file of before
    outbox.close()
    outbox = at.outbox()
    assert outbox.find("R-1") == own
    assert outbox.find(ordered.id) == ordered
    assert outbox.is_order(ordered.notice_id)
    outbox.publish([draft("R-2", pointers=(Pointer("AT/ncb", "R-1", "cites"),))])
    await outbox.flush(world.bus)
    outbox.close()
    (cited,) = opened((await world.sent())[-1], world.broker).header.references
    assert cited.notice_id == own.notice_id


async def test_a_correction_names_the_newest_version(world: World) -> None:
    await world.publish(draft("R-1"))
    await world.publish(draft("R-1", action_sought="one"))
    await world.publish(draft("R-1", action_sought="two"))
    sent = [opened(each, world.broker) for each in await world.sent()]
    assert [each.header.version for each in sent] == [1, 2, 3]
    assert sent[2].header.references[0].header_digest == sent[1].header_digest


async def test_what_was_withdrawn_can_be_published_again_as_a_notice_of_its_own(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    outbox.publish([draft("R-1")])
    outbox.withdraw("R-1", {"code": "arrested"})
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-1")
    outbox.publish([draft("R-1")])
    await outbox.flush(world.bus)
    sent = [opened(each, world.broker) for each in await world.sent()]
    assert [(each.header.kind, each.header.version, len(each.header.references)) for each in sent] == [
        ("person", 1, 0),
        ("withdrawal", 2, 1),
        ("person", 3, 0),
    ]
    outbox.close()


def test_what_was_never_published_cannot_be_withdrawn(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    with pytest.raises(InvalidReferenceError):
        outbox.withdraw("R-9")
    outbox.close()


async def test_a_pointer_becomes_a_signed_reference(world: World) -> None:
    await world.publish(draft("R-1"), draft("R-2", pointers=(Pointer("AT/ncb", "R-1", "cites"),)))
    first, second = [opened(each, world.broker) for each in await world.sent()]
    assert [(each.relation, each.header_digest) for each in second.header.references] == [
        ("cites", first.header_digest)
    ]


def test_a_pointer_to_nothing_is_refused(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    (result,) = outbox.publish([draft("R-2", pointers=(Pointer("LV/ncb", "R-1", "answers"),))])
    assert isinstance(result, Refusal)
    assert result.code == "invalid-reference"
    outbox.close()


async def test_what_the_bus_did_not_take_is_sent_again_byte_for_byte(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    outbox.publish([draft("R-1"), draft("R-2")])
    world.bus.memory.breaks.append(True)  # written, but the answer was lost
    with pytest.raises(UnavailableError):
        await outbox.flush(world.bus)
    assert outbox.waiting() == 2
    await outbox.flush(world.bus)
    sent = await world.sent()
    assert sent[:2] == sent[2:]
    assert outbox.waiting() == 0
    outbox.close()


async def test_the_same_header_bytes_are_signed_anew_when_the_key_has_changed(world: World) -> None:
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    outbox.publish([draft("R-1")])
    outbox.close()
    old = bytes(_one(at.folder / "outbox.db", "SELECT header FROM envelopes"))
    maker = Maker(
        members.parse(members.canonical(directory({"AT/ncb": 1}, 2))),
        lambda each: key_of(each, 1),
        lambda: NOW,
        os.urandom,
    )
    outbox = Outbox(at.folder / "outbox.db", maker, "AT/ncb")
    await outbox.flush(world.bus)
    (sent,) = await world.sent()
    envelope = codec.decode(Envelope, sent)
    assert envelope.header == old
    assert envelope.key_id == key_of("AT/ncb", 1).public.id
    key_of("AT/ncb", 1).public.check(envelope.signature, pae(HEADER_TYPE, envelope.header))
    outbox.close()


def test_an_unchanged_draft_is_not_published_again(world: World) -> None:
    outbox = world.machine("AT/ncb").outbox()
    assert [type(each) for each in outbox.publish([draft("R-1"), draft("R-1")])] == [Published, Unchanged]
    outbox.close()


def _one(path: Path, query: str) -> bytes:
    database = sqlite3.connect(path)
    value: bytes = database.execute(query).fetchone()[0]
    database.close()
    return value


STREAMS = Streams(("AT", "LV", "GE"), BUREAUS)


async def _flush(outbox: Outbox, path: Path) -> None:
    async with SqliteBus(path, "at.adapter", STREAMS, lambda: NOW) as bus:
        await bus.create(["notices.at"])
        await outbox.flush(bus)


def _publish_until_killed(home: Path, point: str) -> None:
    maker = Maker(members.parse(members.canonical(directory())), key_of, lambda: NOW, os.urandom)
    outbox = Outbox(home / "outbox.db", maker, "AT/ncb")
    outbox.publish([draft("R-1"), draft("R-2")])
    asyncio.run(_flush(outbox, home / "bus.db"))
    crash.arm(point)
    outbox.publish([draft("R-1", action_sought="arrest"), draft("R-3")], cursor=Cursor("list", "two"))
    asyncio.run(_flush(outbox, home / "bus.db"))


@pytest.mark.parametrize("point", ["outbox.stored", "outbox.appended", "outbox.marked"])
async def test_kill_9_loses_nothing_and_leaves_no_gap(tmp_path: Path, point: str) -> None:
    killed(_publish_until_killed, tmp_path, point)
    maker = Maker(members.parse(members.canonical(directory())), key_of, lambda: NOW, os.urandom)
    outbox = Outbox(tmp_path / "outbox.db", maker, "AT/ncb")
    assert outbox.cursor("list") == "two"
    await _flush(outbox, tmp_path / "bus.db")
    outbox.publish([draft("R-4")])
    await _flush(outbox, tmp_path / "bus.db")
    async with SqliteBus(tmp_path / "bus.db", "router", STREAMS, lambda: NOW) as bus:
        values = [each.value or b"" for each in await bus.read("notices.at", 0)]
    distinct = list(dict.fromkeys(values))
    headers = [codec.decode(Header, codec.decode(Envelope, each).header) for each in distinct]
    assert [(each.record, each.version) for each in headers] == [
        ("R-1", 1),
        ("R-2", 1),
        ("R-1", 2),
        ("R-3", 1),
        ("R-4", 1),
    ]
    assert [_routing(each).number for each in distinct] == [1, 2, 3, 4, 5]
    assert len(values) == (7 if point == "outbox.appended" else 5)
    outbox.close()


def _routing(data: bytes) -> Routing:
    opened_ = codec.decode_compartments(codec.decode(Envelope, data).compartments)[0].opened
    assert opened_ is not None
    return codec.decode(Routing, opened_.data)
