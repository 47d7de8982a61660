"""Sealing: the order of what becomes visible, and recovery from every point of a crash."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from broker import codec, crash, merkle, notes, streams
from broker.bus import Record
from broker.distribute import Distribute
from broker.erase import Eraser
from broker.errors import FencedError, TrailError, UnavailableError
from broker.notice import DecisionRecord, Routed
from broker.records import Records
from broker.register import Register
from broker.witnessed import WITNESSED
from tests.fake_bus import START, FakeBus, Memory
from tests.killed import killed
from tests.steps.ledger import KEY, ORIGIN, OTHER_KEY, VKEY, Ledger, entry_of, leaf_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def ledger(home: Path) -> Ledger:
    ledger = Ledger(home)
    assert await ledger.recover() is None
    return ledger


async def published(bus: FakeBus) -> list[notes.Checkpoint]:
    """Follow `checkpoints` as a collector does: every head extends the last."""
    last = notes.Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT)
    heads = []
    for record in await bus.read(streams.CHECKPOINTS, 0, limit=10_000):
        advance = notes.parse_advance(record.value or b"")
        head = notes.open_checkpoint(advance.checkpoint, VKEY)
        assert advance.old == last.size
        if advance.old:
            merkle.check_consistency(last.size, head.size, advance.proof, last.root, head.root)
        heads.append(head)
        last = head
    return heads


async def test_a_sealed_step_is_on_disk_and_published_with_its_proof(ledger: Ledger) -> None:
    for count in (5, 300, 1):
        note = await ledger.step(count)
        head = notes.open_checkpoint(note, VKEY)
        assert (head.size, head.root) == (ledger.steps[-1][1].size, ledger.steps[-1][1].root)
        assert (ledger.folder / "checkpoint").read_text(encoding="utf-8") == note
    assert [each.size for each in await published(ledger.bus)] == [5, 305, 306]
    assert ledger.records.size == 306
    assert notes.parse_vkey((ledger.folder / "vkey").read_text(encoding="utf-8")) == VKEY


async def test_steps_that_waited_together_are_sealed_under_the_last_head(ledger: Ledger) -> None:
    first, second = await ledger.commit(3), await ledger.commit(4)
    await ledger.sealer.seal([*first[0], *second[0]], second[1])
    assert [each.size for each in await published(ledger.bus)] == [7]
    recovered = await ledger.restart()
    assert recovered == second[1]


async def test_the_proofs_of_a_sealed_step_hold(ledger: Ledger) -> None:
    await ledger.step(300)
    for number, text in enumerate(ledger.sealer.proofs(range(300))):
        proof = notes.parse_proof(text)
        head = notes.open_checkpoint(proof.checkpoint, VKEY)
        hashed = merkle.leaf_hash(ledger.steps[0][0][number].leaf)
        merkle.check_inclusion(hashed, number, head.size, proof.proof, head.root)


async def test_a_head_that_the_leaves_do_not_lead_to_is_never_signed(ledger: Ledger) -> None:
    await ledger.step(5)
    entries, head = await ledger.commit(5)
    for wrong in (replace(head, root=bytes(32)), replace(head, size=11), replace(head, size=4)):
        with pytest.raises(TrailError):
            await ledger.sealer.seal(entries, wrong)
    with pytest.raises(TrailError):
        await ledger.sealer.seal(entries[1:], head)
    assert [each.size for each in await published(ledger.bus)] == [5]


@pytest.mark.parametrize("kept", [False, True])
async def test_a_seal_that_failed_half_way_is_done_again_without_a_second_head(ledger: Ledger, kept: bool) -> None:
    await ledger.step(5)
    step = await ledger.commit(5)
    ledger.bus.memory.breaks.append(kept)
    with pytest.raises(UnavailableError):
        await ledger.sealer.seal(*step)
    await ledger.sealer.seal(*step)
    assert [each.size for each in await published(ledger.bus)] == [5, 10]


async def test_recovery_tells_the_head_to_go_on_from(ledger: Ledger) -> None:
    await ledger.step(5)
    assert await ledger.restart() == ledger.steps[-1][1]
    assert ledger.trail.frontier().root() == ledger.frontier.root()


async def test_a_disk_behind_the_record_is_finished(ledger: Ledger) -> None:
    await ledger.step(5)
    for count in (300, 1, 700):
        await ledger.commit(count)
    assert await ledger.restart() == ledger.steps[-1][1]
    assert [each.size for each in await published(ledger.bus)] == [5, 1006]
    assert ledger.records.size == 1006


async def test_a_lost_disk_is_made_again_from_the_record(ledger: Ledger) -> None:
    for count in (5, 300):
        await ledger.step(count)
    ledger.stop()
    shutil.rmtree(ledger.home / "operator")
    (ledger.home / "operator").mkdir()
    ledger.start()
    assert await ledger.recover() == ledger.steps[-1][1]
    assert [each.size for each in await published(ledger.bus)] == [5, 305]
    assert ledger.records.size == 305


async def test_lost_decision_records_are_read_again(ledger: Ledger) -> None:
    for count in (5, 7, 300):
        await ledger.step(count)
    ledger.stop()
    for file in ledger.home.glob("operator/records.db*"):
        file.unlink()
    ledger.start()
    await ledger.recover()
    assert ledger.records.size == 312


async def test_a_disk_ahead_of_the_record_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.step(5)
    short = Ledger(tmp_path / "short")
    await short.step(3)
    ledger.bus.memory.partitions[streams.TRAIL, 0] = short.bus.memory.partitions[streams.TRAIL, 0]
    with pytest.raises(TrailError, match="more than the record"):
        await ledger.restart()


async def test_a_disk_with_leaves_is_refused_where_the_record_is_empty(ledger: Ledger) -> None:
    await ledger.step(5)
    ledger.bus.memory.partitions.pop((streams.TRAIL, 0))
    with pytest.raises(TrailError, match="more than the record"):
        await ledger.restart()


async def test_a_record_with_another_root_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.step(5)
    other = Ledger(tmp_path / "other")
    await other.commit(leaves=[leaf_of(each, "another") for each in range(5)])
    ledger.bus.memory.partitions[streams.TRAIL, 0] = other.bus.memory.partitions[streams.TRAIL, 0]
    with pytest.raises(TrailError, match="another root"):
        await ledger.restart()


async def test_a_lost_stretch_of_the_record_is_refused(ledger: Ledger) -> None:
    await ledger.step(5)
    await ledger.commit(5)
    second = await ledger.bus.end(streams.TRAIL)
    await ledger.commit(5)
    ledger.bus.memory.cut(streams.TRAIL, second)
    with pytest.raises(TrailError, match="a stretch is lost"):
        await ledger.restart()


async def test_a_record_whose_last_step_has_no_head_is_refused(ledger: Ledger) -> None:
    await ledger.step(5)
    await ledger.bus.append(streams.TRAIL, [(b"entry", codec.encode(entry_of(5)))])
    with pytest.raises(TrailError, match="without a head"):
        await ledger.restart()


async def test_a_record_that_cannot_be_read_is_refused(ledger: Ledger) -> None:
    await ledger.step(5)
    await ledger.bus.append(streams.TRAIL, [(b"entry", b"not an entry")])
    with pytest.raises(TrailError, match="cannot be read"):
        await ledger.restart()


async def test_decision_records_beyond_the_record_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.step(5)
    ledger.stop()
    short = Ledger(tmp_path / "short")
    await short.step(3)
    short.stop()
    for each in (ledger.home / "operator").glob("records.db*"):
        shutil.copy(each, short.home / "operator")
    short.start()
    with pytest.raises(TrailError, match="decision records go to leaf 5; the record ends at 3"):
        await short.recover()


async def test_what_retention_took_is_not_missed(ledger: Ledger) -> None:
    await ledger.step(5)
    ledger.bus.memory.cut(streams.TRAIL, await ledger.bus.end(streams.TRAIL))
    assert await ledger.restart() == ledger.steps[-1][1]
    await ledger.commit(4)
    assert await ledger.restart() == ledger.steps[-1][1]
    assert [each.size for each in await published(ledger.bus)] == [5, 9]


async def test_a_head_that_only_the_disk_has_is_refused_where_retention_took_the_record(ledger: Ledger) -> None:
    await ledger.step(5)
    step = await ledger.commit(2)
    ledger.bus.memory.breaks.append(False)
    with pytest.raises(UnavailableError):
        await ledger.sealer.seal(*step)
    ledger.bus.memory.cut(streams.TRAIL, await ledger.bus.end(streams.TRAIL))
    with pytest.raises(TrailError, match="more than the record"):
        await ledger.restart()


async def test_a_published_head_that_nobody_has_any_more_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.step(5)
    short = Ledger(tmp_path / "short", FakeBus(Memory()))
    await short.step(3)
    short.bus.memory.partitions[streams.CHECKPOINTS, 0] = ledger.bus.memory.partitions[streams.CHECKPOINTS, 0]
    with pytest.raises(TrailError, match="was published"):
        await short.restart()


async def test_a_published_head_of_another_history_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.step(5)
    await ledger.step(5)
    other = Ledger(tmp_path / "other")
    await other.step(leaves=[leaf_of(each, "another") for each in range(5)])
    ledger.bus.memory.partitions[streams.CHECKPOINTS, 0] = other.bus.memory.partitions[streams.CHECKPOINTS, 0]
    with pytest.raises(TrailError, match="another root"):
        await ledger.restart()


async def test_a_trail_of_another_key_is_refused(ledger: Ledger) -> None:
    await ledger.step(5)
    ledger.key = OTHER_KEY
    with pytest.raises(TrailError, match="not the key"):
        await ledger.restart()


async def test_a_checkpoint_that_another_key_signed_is_refused(ledger: Ledger) -> None:
    await ledger.step(5)
    head = ledger.steps[-1][1]
    forged = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, head.size, head.root), OTHER_KEY)
    (ledger.folder / "checkpoint").write_text(forged, encoding="utf-8")
    with pytest.raises(TrailError):
        await ledger.restart()


async def test_a_checkpoint_file_that_was_lost_is_written_again(ledger: Ledger) -> None:
    await ledger.step(5)
    before = (ledger.folder / "checkpoint").read_bytes()
    (ledger.folder / "checkpoint").write_bytes(b"")
    assert await ledger.restart() == ledger.steps[-1][1]
    assert (ledger.folder / "checkpoint").read_bytes() == before


class Counting(FakeBus):
    """A bus that counts what is read of it."""

    records = 0

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        found = await super().read(stream, offset, limit=limit, wait=wait, partition=partition)
        self.records += len(found)
        return found


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A log of 150 steps, stopped; each test takes a copy."""
    ledger = Ledger(tmp_path_factory.mktemp("long"))

    async def work() -> None:
        await ledger.recover()
        for _ in range(150):
            await ledger.step(1)

    asyncio.run(work())
    ledger.stop()
    return ledger


@pytest.mark.parametrize("room", [0, 1, 17, 10**12])
@pytest.mark.parametrize("cosigned", [0, 1, 3])
async def test_the_last_head_is_found_behind_any_room_without_reading_all_before_it(
    long_log: Ledger, home: Path, room: int, cosigned: int
) -> None:
    """As a restore leaves it, or a new log; a head with cosignatures only may come after it."""
    ledger = long_log.copy(home, Counting)
    stream = ledger.bus.memory.partition(streams.CHECKPOINTS, 0)
    stream.end += room // 2
    for _ in range(cosigned):
        await ledger.sealer.announce_cosigned(ledger.trail.checkpoint)
    stream.end += room - room // 2
    announced = (await ledger.sealer.look()).announced
    assert announced == notes.Checkpoint(ORIGIN, 150, ledger.frontier.root())
    assert isinstance(ledger.bus, Counting)
    assert ledger.bus.records <= 100
    ledger.stop()


async def test_of_a_stream_that_retention_has_emptied_there_is_no_last_record(home: Path) -> None:
    ledger = Ledger(home)
    await ledger.recover()
    await ledger.step(1)
    stream = ledger.bus.memory.partition(streams.CHECKPOINTS, 0)
    stream.records.clear()
    stream.start = stream.end = stream.end + 10
    ledger.stop()
    ledger.start()
    assert (await ledger.sealer.look()).announced is None
    ledger.stop()


def test_the_release_of_a_held_notice_is_found_without_reading_all_records(tmp_path: Path) -> None:
    release = replace(leaf_of(3), kind="released", about=1)
    records = Records(tmp_path / "records.db")
    records.add([*map(entry_of, range(3)), entry_of(3, release), entry_of(4)])
    records.add([entry_of(3, release), entry_of(4), entry_of(5, replace(release, about=2))])
    assert [records.releases(each) for each in (0, 1, 2)] == [([], 0), ([3], 0), ([5], 0)]
    records.close()


def test_a_file_of_an_earlier_version_says_what_it_has_not_listed(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.db")
    records.add([entry_of(0), entry_of(1)])
    records.close()
    with closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as old:
        old.executescript("DROP TABLE release; DROP TABLE listed")
    records = Records(tmp_path / "records.db")
    records.add([entry_of(2, replace(leaf_of(2), kind="released", about=1))])
    assert records.releases(1) == ([2], 2)
    records.close()


def test_decision_records_take_no_gap(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.db")
    records.add([entry_of(0), entry_of(1)])
    records.add([entry_of(1), entry_of(2)])
    with pytest.raises(TrailError, match="does not follow"):
        records.add([entry_of(4)])
    assert records.size == 3
    assert records.get(3) is None
    assert [each[0] for each in records.since(1)] == [1, 2]
    records.close()


POINTS = (
    "seal.records-written",
    "seal.tiles-unsynced",
    "seal.tiles-written",
    "seal.checkpoint-aside",
    "seal.checkpoint-renamed",
    "seal.checkpoint-durable",
    "seal.announced",
)


def _seal_until_killed(home: Path, point: str, before: int, count: int) -> None:
    """Run in a process of its own: seal one step, then the next until the point."""

    async def work() -> None:
        ledger = Ledger(home)
        await ledger.recover()
        await ledger.step(before)
        crash.arm(point)
        await ledger.step(count)

    asyncio.run(work())


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("before", "count"), [(5, 300), (250, 6)])
async def test_a_kill_at_any_point_leaves_what_recovery_finishes(
    home: Path, point: str, before: int, count: int
) -> None:
    killed(_seal_until_killed, home, point, before, count)
    # The bus outlives the process: what it had committed and published stands there.
    bus = FakeBus()
    ledger = Ledger.__new__(Ledger)
    witness = Ledger(home.parent / "witness", bus)
    await witness.recover()
    await witness.step(before)
    await (witness.step(count) if point == "seal.announced" else witness.commit(count))
    ledger.home, ledger.bus, ledger.key = home, bus, KEY
    ledger.start()
    assert await ledger.recover() == witness.steps[-1][1]
    assert [each.size for each in await published(bus)] == [before, before + count]
    assert (ledger.trail.root, ledger.records.size) == (witness.frontier.root(), before + count)


async def test_a_checkpoint_of_one_size_is_the_same_bytes_whenever_it_is_signed(home: Path, tmp_path: Path) -> None:
    first, second = Ledger(home), Ledger(tmp_path / "second")
    assert await first.step(5) == await second.step(5)


async def test_what_another_owner_has_committed_since_is_not_sent(ledger: Ledger, tmp_path: Path) -> None:
    """Who is fenced while it catches up may read on into what only its successor can prove."""
    register = Register(tmp_path / "register.db")
    eraser = Eraser(ledger.bus, register, ledger.records, ledger.trail.entry, 0)
    distribute = Distribute(ledger.bus, ledger.sealer, eraser, 0, lambda: START)
    await ledger.step(3)
    for number, read in ((2, 1), (3, 1)):
        decision = codec.encode(DecisionRecord("", 0, 0, START, bytes(32)))
        routed = Routed(number, entry_of(number).leaf, b"", decision, b"", None, (), b"")
        await ledger.bus.append(streams.ROUTED, [(b"", codec.encode(routed))])
        if number < ledger.trail.size:
            await distribute.catch_up()
        else:
            with pytest.raises(FencedError):
                await distribute.catch_up()
        assert await ledger.bus.place("distribute", streams.ROUTED) == read
    register.close()


async def test_what_was_committed_after_the_look_is_left_to_whoever_committed_it(home: Path, tmp_path: Path) -> None:
    """Who was fenced before it recovers must not seal its successor's steps: the successor would find itself fenced."""
    bus = FakeBus()
    successor = Ledger(tmp_path / "successor", bus)
    await successor.recover()
    before = await successor.commit(3)
    late = Ledger(home, bus)
    outlook = await late.sealer.look()
    for each in (before, await successor.commit(2)):
        await successor.sealer.seal(*each)
    await late.sealer.finish(outlook)
    assert late.trail.size == late.records.size == before[1].size
    assert await late.restart() == successor.steps[-1][1]


async def test_an_old_owner_shows_no_head_that_a_successor_went_beyond(home: Path, ledger: Ledger) -> None:
    """The bus failed it between disk and stream; until it tries again another has gone on with what lies on disk."""
    await ledger.step(2)
    step = await ledger.commit(3)
    ledger.bus.memory.breaks.append(False)
    with pytest.raises(UnavailableError):
        await ledger.sealer.seal(*step)
    successor = Ledger(home, ledger.bus)
    await successor.sealer.finish()
    successor.frontier = ledger.frontier
    newer = await successor.commit(1)
    ledger.bus.memory.breaks.append(False)
    with pytest.raises(UnavailableError):
        await successor.sealer.seal(*newer)
    with pytest.raises(FencedError):
        await ledger.sealer.seal(*step)
    assert [each.size for each in await published(ledger.bus)] == [2]
    await successor.sealer.seal(*newer)
    assert [each.size for each in await published(ledger.bus)] == [2, 6]


async def test_an_old_owner_turns_no_witnessed_head_back(home: Path, ledger: Ledger) -> None:
    """It was stopped while it asked its witnesses; the head that they confirm is not its newest any more, either."""
    note = await ledger.step(5)
    head = notes.open_checkpoint(note, VKEY)
    await ledger.step(1)
    witnessed = ledger.folder / WITNESSED
    await ledger.sealer.cosigned(head, note, keep=True)
    assert witnessed.read_text(encoding="utf-8") == note
    successor = Ledger(home, ledger.bus)
    await successor.recover()
    successor.frontier = ledger.frontier
    newer = await successor.step(3)
    await successor.sealer.cosigned(notes.open_checkpoint(newer, VKEY), newer, keep=True)
    with pytest.raises(FencedError):
        await ledger.sealer.cosigned(head, note, keep=True)
    assert witnessed.read_text(encoding="utf-8") == newer
