"""What an input has lost stops the broker, which says what to do; going on is the operator's word, and a leaf."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from broker import codec, streams
from broker.distribute import GROUP
from broker.notice import Leaf
from broker.trail import Trail
from cli import subscribe
from cli.home import clock
from cli.stage import LOOK_S, Stage, running, set_up, settled, verified
from cli.standing import _unsent, _Waiting, standing
from tests.fake_bus import FakeBus
from tests.journeys.test_by_hand import DRAFT
from tests.trust.test_commands import BUREAUS, federation, valise

STREAM = streams.notices("AT")


async def cut_off(stage: Stage) -> int:
    """Let the stream end before the place that it was taken to, as where nodes have lost their last records."""
    async with stage.operator.bus(streams.ROUTER) as bus:
        place = await bus.end(STREAM) + 3
        await bus.keep_place("0", STREAM, place)
    return place


async def test_a_lost_tail_stops_the_broker_until_the_operator_goes_on_with_it(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    async with running(stage):
        await subscribe.send(stage.member("AT/ncb"), ("sought.*",))
        await settled(stage)
    place = await cut_off(stage)
    assert f"RED       {STREAM}:{place} is lost" in (await valise(stage.home, "broker", "status")).out
    stopped = await valise(stage.home, "broker", "up")
    assert stopped.code == 1
    ended = json.loads(stopped.err.splitlines()[-1])
    assert ended["code"] == "input-lost"
    assert f"{STREAM} ends at {place - 3}, and was taken up to {place}" in ended["said"]
    assert f"`valise broker up --lost {STREAM}:{place} --home {stage.home}`" in ended["then"]

    command = [sys.executable, "-m", "cli.main", "broker", "up", "--lost", f"{STREAM}:{place}"]
    pipe = asyncio.subprocess.PIPE
    broker = await asyncio.create_subprocess_exec(*command, "--home", str(stage.home), stdout=pipe, stderr=pipe)
    assert broker.stdout is not None
    assert b"is up" in await broker.stdout.readline()
    async with asyncio.timeout(60):  # before it has gone on, its place is beyond all that is sent: as if it were taken
        while (await standing(stage.operator)).lost:  # noqa: ASYNC110 -- another process moves the place
            await asyncio.sleep(LOOK_S)
    await subscribe.send(stage.member("AT/ncb"), ("organised-crime.*",))
    await settled(stage)
    broker.send_signal(signal.SIGTERM)
    await broker.communicate()

    leaves = [codec.decode(Leaf, each) for each in Trail.open(stage.operator.folder / "trail").entries()]
    assert [each.kind for each in leaves].count("subscribed") == 2
    assert [each.code for each in leaves if each.kind == "rejected"] == ["batch-refused"]
    assert not verified(stage).wrong
    assert (await standing(stage.operator)).lost == []


async def test_a_stream_of_no_such_form_is_usage(tmp_path: Path) -> None:
    await valise(tmp_path, "broker", "init")
    refused = await valise(tmp_path, "broker", "up", "--lost", STREAM)
    assert refused.code == 2
    assert "STREAM:OFFSET" in refused.err


async def test_what_was_made_again_without_its_place_is_red(tmp_path: Path) -> None:
    """So it goes on Kafka, where a place goes with its topic; here the places alone are taken away."""
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    draft = tmp_path / "draft.json"
    draft.write_text(json.dumps(DRAFT | {"audience": {"to": ["AT/ncb"]}, "deny": [], "topics": ["sought.red"],
                                         "purpose": "criminal-investigation"}), encoding="utf-8")  # fmt: skip
    async with running(stage):
        await subscribe.send(stage.member("AT/ncb"), ("sought.*",))
        sent = await valise(stage.home, "publish", str(draft), "--wait", "45", "--bureau", "LV/ncb")
        assert sent.code == 0, sent.err
        await settled(stage)
    assert (await standing(stage.operator)).lost == []
    with closing(sqlite3.connect(stage.home / "bus.db")) as file, file:
        lost = "SELECT id FROM streams WHERE name IN (?, ?, ?)"
        names = (STREAM, streams.notices("LV"), streams.ROUTED)  # AT has but subscribed
        file.execute(f"DELETE FROM places WHERE stream IN ({lost})", names)
        file.execute("UPDATE streams SET next = 0, start = 0 WHERE name = ?", (streams.ROUTED,))
    assert sorted((await standing(stage.operator)).lost) == sorted(f"{each}:0" for each in names)
    assert f"RED       {STREAM}:0 is lost" in (await valise(stage.home, "broker", "status")).out
    assert (await valise(stage.home, "broker", "up")).code == 1  # as it says


async def test_what_has_waited_for_twenty_days_is_red(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    await subscribe.send(stage.member("AT/ncb"), ("sought.*",))
    assert (await standing(stage.operator)).late == {}
    with closing(sqlite3.connect(stage.home / "bus.db")) as file, file:
        (number,) = file.execute("SELECT id FROM streams WHERE name = ?", (STREAM,)).fetchone()
        file.execute(f"UPDATE s{number} SET at = at - ?", (21 * streams.DAY_MS,))
    assert list((await standing(stage.operator)).late) == [STREAM]
    assert f"RED       {STREAM} waits since" in (await valise(stage.home, "broker", "status")).out


async def test_every_input_of_the_broker_is_looked_at(tmp_path: Path) -> None:
    """Not the notices alone: what was asked to be seen in clear is an input, too."""
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    async with running(stage):
        await settled(stage)
    async with stage.operator.bus(streams.ROUTER) as bus:
        for name in stage.operator.world().inputs():
            await bus.keep_place("0", name, await bus.end(name) + 3)
    lost = [each.partition(":")[0] for each in (await standing(stage.operator)).lost]
    assert sorted(lost) == sorted(
        ["asks", "versions", *(f"{kind}.{m}" for kind in ("notices", "receipts") for m in ("at", "ge", "lv"))]
    )


async def test_what_was_sent_is_not_called_lost_while_its_mark_is_still_to_be_shown() -> None:
    """On Kafka the end of a stream may be told a moment after a step was committed, and sent."""

    class Late(FakeBus):
        async def end(self, stream: str, *, partition: int = 0) -> int:
            return await super().end(stream, partition=partition) - 1

    bus = Late()
    await bus.append(streams.ROUTED, [(b"", b"")])
    await bus.keep_place(GROUP, streams.ROUTED, 1)
    waiting = _Waiting()
    await _unsent(bus, 0, waiting)
    assert waiting == _Waiting()
    await bus.keep_place(GROUP, streams.ROUTED, 2)
    await _unsent(bus, 0, waiting)
    assert waiting == _Waiting(lost=[f"{streams.ROUTED}:2"])


@pytest.mark.parametrize(("stream", "group"), [(streams.ASKS, "0"), (streams.ROUTED, GROUP)])
async def test_what_waits_and_is_lost_of_asks_and_of_what_was_decided_is_red(
    tmp_path: Path, stream: str, group: str
) -> None:
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    assert (await standing(stage.operator)).waiting == {streams.VERSIONS: 2}
    with closing(sqlite3.connect(stage.home / "bus.db")) as file, file:
        (number,) = file.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchone()
        file.execute(f"INSERT INTO s{number} (at, key, value) VALUES (?, x'', x'')", (clock() - 21 * streams.DAY_MS,))
        file.execute("UPDATE streams SET next = next + 1 WHERE id = ?", (number,))
    found = await standing(stage.operator)
    assert found.waiting == {streams.VERSIONS: 2, stream: 1}
    assert list(found.late) == [stream]
    async with stage.operator.bus(streams.ROUTER) as bus:
        await bus.keep_place(group, stream, 9)
    assert (await standing(stage.operator)).lost == [f"{stream}:9"]
