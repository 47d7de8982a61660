"""The operator's side: what witnesses cosign is kept, and nothing that a witness does disturbs anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from adapters.database import connect
from adapters.heads import TABLES, Heads, Journal
from broker import cosignature, merkle, notes, streams, witnessed
from broker.cosignature import Cosigner
from broker.errors import FencedError, TrailError
from broker.fetch import Place
from broker.owner import Known, Witnesses
from broker.submit import AGAIN_LEAST_MS, AGAIN_MOST_MS, REFRESH_MS, Submit, check_seen
from broker.witness import Witness
from broker.witnessed import NO_QUORUM_MS
from tests.fake_bus import START, Clock
from tests.steps.ledger import KEY, ORIGIN, VKEY, Ledger, later, leaf_of
from tests.witness.log import answering_on, cosigner, identity, saying

LIMIT_S = 60.0
"""Long: an honest witness must not be late on a busy machine."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"


@dataclass
class Scene:
    """A ledger whose heads are submitted; `now` is everybody's clock."""

    ledger: Ledger
    now: Clock
    stack: AsyncExitStack
    folder: Path

    async def witness(self, name: str) -> Known:
        """Let an honest witness run."""
        judge = Witness(self.folder / f"{name}.db", identity(f"witness.example/{name}"), [VKEY], lambda: self.now.now)
        return await self.stack.enter_async_context(answering_on(judge))

    def submit(self, *known: Known, quorum: int = 1, limit_s: float = LIMIT_S) -> Submit:
        return Submit(self.ledger.sealer, Witnesses(known, quorum), lambda: self.now.now, limit_s)

    @property
    def checkpoint(self) -> str:
        return (self.ledger.folder / "checkpoint").read_text(encoding="utf-8")

    @property
    def witnessed(self) -> str:
        file = self.ledger.folder / "checkpoint.witnessed"
        return file.read_text(encoding="utf-8") if file.exists() else ""


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    async with AsyncExitStack() as stack:
        yield Scene(ledger, Clock(START), stack, tmp_path)
    ledger.stop()


@pytest.fixture(autouse=True)
def logged() -> Iterator[None]:
    with capture_logs():
        yield
    structlog.reset_defaults()


def by(note: str, *known: Known) -> list[str]:
    """Who of these cosigned a note."""
    cosigners: list[Cosigner] = [each.cosigner for each in known]
    return sorted(each.by.name for each in cosignature.cosignatures(note, cosigners).values()) if note else []


async def test_the_newest_checkpoint_bears_the_cosignatures_of_all(scene: Scene) -> None:
    known = [await scene.witness(each) for each in ("a", "b", "c")]
    submit = scene.submit(*known, quorum=2)
    for size in (5, 1, 300):
        await scene.ledger.step(size)
        await submit.round()
        names = ["witness.example/a", "witness.example/b", "witness.example/c"]
        assert by(scene.checkpoint, *known) == by(scene.witnessed, *known) == names
        assert notes.open_checkpoint(scene.checkpoint, VKEY).size == scene.ledger.trail.size
    assert (await scene.ledger.restart()) == scene.ledger.steps[-1][1]
    await scene.ledger.step(2)


async def test_a_member_that_follows_the_heads_gets_the_cosignatures(scene: Scene) -> None:
    known = await scene.witness("a")
    submit = scene.submit(known)
    with closing(connect(scene.folder / "inbox.db", TABLES, known=0)) as database:
        heads = Heads(Journal(database))
        for size in (5, 7):
            await scene.ledger.step(size)
            await heads.follow(scene.ledger.bus, VKEY, 0)
            await submit.round()
            await heads.follow(scene.ledger.bus, VKEY, 0)
            kept = heads.find(scene.ledger.trail.size)
            assert kept
            assert kept.note == scene.checkpoint
            assert by(kept.note, known)
        assert not Journal(database).alarms()


async def test_a_cosigned_head_on_the_stream_is_no_head_of_its_own(scene: Scene) -> None:
    submit = scene.submit(await scene.witness("a"))
    await scene.ledger.step(5)
    await submit.round()
    records = await scene.ledger.bus.read(streams.CHECKPOINTS, 0)
    assert [each.key for each in records] == [b"", b"cosigned"]
    await scene.ledger.step(3)
    await submit.round()
    assert await scene.ledger.restart() == scene.ledger.steps[-1][1]
    await scene.ledger.step(3)
    advances = [
        notes.parse_advance(each.value or b"")
        for each in await scene.ledger.bus.read(streams.CHECKPOINTS, 0)
        if each.key != b"cosigned"
    ]
    assert [each.old for each in advances] == [0, 5, 8]


async def test_a_quorum_that_could_not_be_announced_is_announced_at_the_next_round(scene: Scene) -> None:
    """On a quiet log no other head comes: members would hear of it with the next notice only."""
    submit = scene.submit(await scene.witness("a"))
    await scene.ledger.step(5)
    scene.ledger.bus.memory.breaks.append(False)
    for _ in range(3):
        await submit.round()
    records = await scene.ledger.bus.read(streams.CHECKPOINTS, 0)
    assert [each.key for each in records] == [b"", b"cosigned"]


async def test_traffic_goes_on_while_a_witness_hangs_and_the_others_are_kept(scene: Scene) -> None:
    gives_up = asyncio.Event()
    slow = await scene.stack.enter_async_context(saying(b"HTTP/1.1 200 OK\r\nContent-", until=gives_up))
    known = await scene.witness("a")
    submit = scene.submit(slow, known)
    await scene.ledger.step(5)
    asking = asyncio.ensure_future(submit.round())
    for _ in range(3):
        await scene.ledger.step(2)
    assert not asking.done()
    gives_up.set()
    await asking
    assert by(scene.checkpoint, known) == []
    assert by(scene.witnessed, known) == ["witness.example/a"]
    assert notes.open_checkpoint(scene.witnessed, VKEY).size == 5


async def test_a_witness_that_hangs_is_given_up(scene: Scene) -> None:
    slow = await scene.stack.enter_async_context(saying(b"HTTP/1.1 200 OK\r\nContent-", hang=True))
    await scene.ledger.step(5)
    with capture_logs() as said:
        await scene.submit(slow, limit_s=0.3).round()
    assert [each["event"] for each in said] == ["witness.failed"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        OK % (0, b""),
        OK % (5, b"hello"),
        OK % (200_000, b"x" * 200_000),
        OK % (10, b"cut"),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nx\n",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 20\r\n\r\n99999999999999999999",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 8\r\n\r\n9999999\n",
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n2\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
)
async def test_whatever_a_witness_answers_nothing_is_disturbed(scene: Scene, answer: bytes) -> None:
    odd = await scene.stack.enter_async_context(saying(answer))
    submit = scene.submit(odd)
    note = await scene.ledger.step(5)
    with capture_logs() as said:
        await submit.round()
    assert [each["event"] for each in said] == ["witness.failed"]
    assert (scene.checkpoint, scene.witnessed) == (note, "")
    await check_seen(scene.ledger.sealer, submit.witnesses)


async def test_a_cosignature_that_does_not_fit_or_has_another_time_is_not_kept(scene: Scene) -> None:
    note = await scene.ledger.step(5)
    name, text = "witness.example/odd", notes.parse(note).text
    key = identity(name).key
    other = notes.Checkpoint(ORIGIN, 6, merkle.EMPTY_ROOT).text
    for line in (
        cosignature.cosign(other, name, key, START // 1000),
        cosignature.cosign(text, "witness.example/other", identity("witness.example/other").key, START // 1000),
        cosignature.cosign(text, name, key, START // 1000 - 400),
        cosignature.cosign(text, name, key, START // 1000 + 400),
    ):
        body = line.encode()
        async with saying(OK % (len(body), body), name) as odd:
            await scene.submit(odd).round()
        assert (scene.checkpoint, scene.witnessed) == (note, "")


async def test_a_dead_witness_is_asked_less_and_less_often_and_taken_back(scene: Scene) -> None:
    nobody = Known(cosigner("witness.example/a"), Place("127.0.0.1", 1, "", None))
    submit = scene.submit(nobody)
    await scene.ledger.step(5)
    pauses = []
    for _ in range(12):
        with capture_logs() as said:
            await submit.round()
            await submit.round()  # too early
        (failed,) = (each for each in said if each["event"] == "witness.failed")
        pauses.append(failed["again_ms"])
        scene.now.now += failed["again_ms"]
    assert pauses[:3] == [AGAIN_LEAST_MS, 2 * AGAIN_LEAST_MS, 4 * AGAIN_LEAST_MS]
    assert pauses[-1] == AGAIN_MOST_MS
    alive = await scene.witness("a")
    submit.witnesses = replace(submit.witnesses, known=(alive,))
    await submit.round()
    assert by(scene.checkpoint, alive)


async def test_a_clock_that_was_ahead_keeps_no_witness_from_being_asked_once_it_is_set_right(scene: Scene) -> None:
    """No cosignature is of its time while it is ahead; and the alarm about that is not the last for a day."""
    known, ahead = await scene.witness("a"), 24 * NO_QUORUM_MS
    submit = scene.submit(known)
    submit.clock = lambda: scene.now.now + ahead
    await scene.ledger.step(5)
    for _ in range(3):
        await submit.round()
        scene.now.now += AGAIN_LEAST_MS * 4
    assert by(scene.checkpoint, known) == []
    ahead = 0
    await submit.round()
    assert by(scene.checkpoint, known) == ["witness.example/a"]
    submit.witnesses = Witnesses((replace(known, place=Place("127.0.0.1", 1, "", None)),), 1)
    scene.now.now += NO_QUORUM_MS
    with capture_logs() as said:
        await submit.round()
    assert "witnesses.no-quorum" in [each["event"] for each in said]


async def test_without_a_quorum_nothing_counts_as_witnessed_but_what_came_is_shown(scene: Scene) -> None:
    known = await scene.witness("a")
    nobody = Known(cosigner("witness.example/b"), Place("127.0.0.1", 1, "", None))
    await scene.ledger.step(5)
    await scene.submit(known, nobody, quorum=2).round()
    assert by(scene.checkpoint, known) == ["witness.example/a"]
    assert scene.witnessed == ""
    assert len(await scene.ledger.bus.read(streams.CHECKPOINTS, 0)) == 1


async def test_an_hour_without_a_quorum_alarms_once_an_hour_until_there_is_one(scene: Scene) -> None:
    known = await scene.witness("a")
    submit = scene.submit(known)
    await scene.ledger.step(5)
    await submit.round()
    away = replace(known, place=Place("127.0.0.1", 1, "", None))
    submit.witnesses = Witnesses((away,), 1)
    alarms = []
    for minutes in (30, 29, 1, 10, 50, 5):
        scene.now.now += minutes * 60_000
        await scene.ledger.step(1)
        with capture_logs() as said:
            await submit.round()
        alarms.append([each["log_level"] for each in said if each["event"] == "witnesses.no-quorum"])
    assert alarms == [[], [], ["error"], [], ["error"], []]
    submit.witnesses = Witnesses((known,), 1)
    scene.now.now += NO_QUORUM_MS
    with capture_logs() as said:
        await submit.round()
    assert [each["event"] for each in said if each["log_level"] == "error"] == []
    assert witnessed.since(scene.ledger.trail, VKEY, [known.cosigner], 1) == scene.now.now


async def test_a_restart_does_not_forget_how_long_there_was_no_quorum(scene: Scene) -> None:
    nobody = Known(cosigner("witness.example/a"), Place("127.0.0.1", 1, "", None))
    await scene.ledger.step(leaves=[later(leaf_of(0), 0)])
    scene.now.now += NO_QUORUM_MS
    with capture_logs() as said:
        await scene.submit(nobody).round()
    assert "witnesses.no-quorum" in [each["event"] for each in said]


async def test_a_quiet_log_is_submitted_again_so_that_a_dead_witness_shows(scene: Scene) -> None:
    known = await scene.witness("a")
    submit = scene.submit(known)
    await scene.ledger.step(5)
    for wait, moved in ((0, True), (REFRESH_MS - 1, False), (1, True)):
        scene.now.now += wait
        before = scene.checkpoint
        await submit.round()
        assert (scene.checkpoint != before) == moved
    assert len(await scene.ledger.bus.read(streams.CHECKPOINTS, 0)) == 2


async def test_an_owner_that_lost_its_shard_writes_no_cosignature_over_its_successor_s_head(scene: Scene) -> None:
    submit = scene.submit(await scene.witness("a"))
    await scene.ledger.step(5)
    successor = Ledger(scene.folder / "home", scene.ledger.bus)
    successor.frontier = scene.ledger.frontier
    await successor.recover()
    newer = await successor.step(2)
    with pytest.raises(ExceptionGroup) as raised:
        await submit.round()
    assert raised.group_contains(FencedError)
    assert scene.checkpoint == newer
    successor.stop()


# At the start


@pytest.mark.usefixtures("patient")
async def test_a_witness_that_saw_more_keeps_a_restored_disk_from_running(scene: Scene) -> None:
    known = await scene.witness("a")
    await scene.ledger.step(5)
    yesterday = Ledger(scene.folder / "yesterday")
    await yesterday.recover()
    await yesterday.step(5)
    await check_seen(yesterday.sealer, Witnesses((known,), 1))
    await scene.submit(known).round()
    await check_seen(yesterday.sealer, Witnesses((known,), 1))
    await scene.ledger.step(3)
    await scene.submit(known).round()
    await check_seen(scene.ledger.sealer, Witnesses((known,), 1))
    with pytest.raises(TrailError, match="saw 8 leaves"):
        await check_seen(yesterday.sealer, Witnesses((known,), 1))
    yesterday.stop()


@pytest.mark.usefixtures("patient")
async def test_a_witness_that_saw_another_past_keeps_the_broker_from_running(scene: Scene) -> None:
    known = await scene.witness("a")
    await scene.ledger.step(5)
    await scene.submit(known).round()
    other = await scene.ledger.rewritten(scene.folder / "other", 2, leaf_of(2, "another"))
    other.start()
    with pytest.raises(TrailError, match="another head of 5"):
        await check_seen(other.sealer, Witnesses((known,), 1))
    other.stop()


async def test_no_witness_can_keep_a_broker_from_running_by_its_word_alone(scene: Scene) -> None:
    await scene.ledger.step(5)
    more = notes.Checkpoint(ORIGIN, 9, bytes(32))
    forged = notes.sign_checkpoint(more, identity().key).encode()
    mute = Known(cosigner(), Place("127.0.0.1", 1, "", None))
    async with saying(OK % (len(forged), forged)) as liar, saying(b"", hang=True) as slow:
        await check_seen(scene.ledger.sealer, Witnesses((liar, slow, mute), 1))


@pytest.mark.usefixtures("patient")
async def test_even_the_log_s_own_signature_on_a_head_that_was_never_committed_stops_it(scene: Scene) -> None:
    await scene.ledger.step(5)
    split = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, 5, bytes(32)), KEY).encode()
    async with saying(OK % (len(split), split)) as witness:
        with pytest.raises(TrailError, match="another head"):
            await check_seen(scene.ledger.sealer, Witnesses((witness,), 1))
