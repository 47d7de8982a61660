"""A restored backup does not run before it was compared; it goes on only if nobody outside saw more."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from broker import notes, sqlite_pages, streams, submit, up
from broker.bus import Bus, Owned, Record, Writes
from broker.errors import CopiedError, FencedError, LostLeavesError, TrailError, UnavailableError
from broker.fetch import Place
from broker.notes import Checkpoint
from broker.notice import Entry
from broker.owner import Known, Witnesses
from broker.records import Records
from broker.register import Register
from broker.resume import Outside, Restored, Resumed, resume
from broker.seal import Sealer
from broker.signing import SigningKey
from broker.sqlite import SqliteBus
from broker.streams import World
from broker.trail import Trail
from broker.witness import Witness
from cli import broker as broker_command
from cli import copied, exits, subscribe
from cli.composing import entered
from cli.operator_home import OperatorHome, operator_home
from cli.stage import Stage, running, set_up, settled, verified
from cli.standing import standing
from cli.trust import proposing
from tests.fake_bus import START, still_owned
from tests.journeys.test_operator import BUREAUS, small, valise
from tests.steps.ledger import KEY, ORIGIN, VKEY, Ledger
from tests.witness.log import answering_on, cosigner, identity

pytestmark = pytest.mark.slow


@dataclass
class Site:
    """A federation of two on one machine, and a backup of its operator's files, bus included."""

    stage: Stage

    @property
    def home(self) -> Path:
        return self.stage.home

    @property
    def backup(self) -> Path:
        return self.home.parent / "backup"

    @property
    def trail(self) -> Path:
        return self.home / "operator" / "trail"

    async def live(self, *patterns: str) -> None:
        """Run the broker for a while: members say what they want, and collect heads and outcomes."""
        async with running(self.stage):
            for bureau in BUREAUS:
                await subscribe.send(self.stage.member(bureau), patterns)
            await settled(self.stage)

    async def collected(self) -> list[str]:
        """Let both members collect; give the alarms that rang."""
        rung = []
        for bureau in BUREAUS:
            member = self.stage.member(bureau)
            async with member.bus() as bus:
                await member.versions.follow(bus)
            async with member.inbox_bus() as bus:
                with member.inbox() as inbox:
                    await member.collector(bus, inbox).drain()
                    rung += [each.code for each in inbox.journal.alarms()]
        return rung

    def save(self, *names: str) -> None:
        shutil.rmtree(self.backup, ignore_errors=True)
        self.backup.mkdir()
        for name in names or ("operator", "bus.db"):
            copy(self.home / name, self.backup / name)

    def restore(self, *names: str) -> None:
        for name in names or ("operator", "bus.db"):
            for each in self.home.glob(f"{name}*"):
                shutil.rmtree(each) if each.is_dir() else each.unlink()
            copy(self.backup / name, self.home / name)

    def restore_in_place(self, *names: str) -> None:
        """Write over the files that are there, as `cp -a BACKUP/. HOME/` does: their inodes and births stay."""
        for each in names or ("operator", "bus.db"):
            source, target = self.backup / each, self.home / each
            for log in target.parent.glob(f"{target.name}-*"):  # what lies there would be played into it
                log.unlink()
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)

    def kept(self, name: str = "outside") -> Path:
        """Keep today's checkpoint outside, as a member or auditor does."""
        file = self.home.parent / f"{name}.checkpoint"
        shutil.copy(self.trail / "checkpoint", file)
        return file

    def state(self) -> tuple[str, int]:
        return (self.trail / "checkpoint").read_text(encoding="utf-8"), Trail.open(self.trail).size

    async def up(self) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(valise, "broker", "up", "--home", str(self.home))

    async def resume(self, *seen: Path) -> subprocess.CompletedProcess[str]:
        named: Sequence[str] = [each for path in seen for each in ("--seen", str(path))]
        return await asyncio.to_thread(valise, "broker", "resume", "--home", str(self.home), "--json", *named)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Give the code under which `resume --json` refused."""
    code: str = json.loads(done.stderr)["error"]
    return code


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
        return
    with closing(sqlite3.connect(source)) as whole, closing(sqlite3.connect(target)) as made:
        whole.backup(made)  # with what its write-ahead log holds


async def _made(folder: Path) -> Site:
    site = Site(await set_up(folder / "home", small(*BUREAUS), "sqlite", BUREAUS, lambda _: None))
    await site.live("sought.*")
    assert await site.collected() == []
    return site


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return asyncio.run(_made(tmp_path_factory.mktemp("made")))


@pytest.fixture
async def site(made: Site, tmp_path: Path) -> Site:
    """A copy of what was made, for one test, which its broker knows for its own; and a backup of it."""
    home = tmp_path / made.home.name
    shutil.copytree(made.home, home)
    site = Site(Stage(home, made.stage.federation, operator_home(home)))
    async with site.stage.operator.bus(streams.ROUTER) as bus:
        await copied.keep(site.stage.operator, bus)
    site.save()
    return site


async def test_a_restored_home_is_refused_then_runs_on_once_it_was_compared_with_the_newest_head(site: Site) -> None:
    outside = site.kept()
    site.restore()
    before = site.state()

    refused = await site.up()
    assert (refused.returncode, '"code": "copied"' in refused.stderr) == (exits.VERIFICATION_FAILED, True)
    assert "broker resume --seen" in refused.stderr
    compared_with_nothing = await site.resume()
    assert compared_with_nothing.returncode == exits.PARTLY
    assert site.state() == before
    assert (await site.up()).returncode == exits.VERIFICATION_FAILED

    resumed = await site.resume(outside)
    assert (resumed.returncode, resumed.stderr) == (exits.DONE, "")
    assert json.loads(resumed.stdout)["newest"] == json.loads(resumed.stdout)["size"] == before[1]
    await site.live("sought.*", "wanted.*")
    assert await site.collected() == []
    assert Trail.open(site.trail).size > before[1]
    assert not verified(site.stage).wrong


async def test_a_backup_copied_in_place_over_what_it_was_made_of_is_refused(site: Site) -> None:
    site.restore_in_place()  # nothing ran since: nothing is lost
    await site.live("wanted.*")
    whole = site.state()
    site.restore_in_place()
    assert site.state() != whole
    before, refused = site.state(), await site.up()
    assert (refused.returncode, '"code": "copied"' in refused.stderr) == (exits.VERIFICATION_FAILED, True)
    assert site.state() == before


async def test_a_bus_and_trail_copied_in_place_are_known_by_the_leaves_that_they_lack(site: Site) -> None:
    await site.live("wanted.*")
    outside = site.kept()
    await site.live("sought.*")
    shutil.rmtree(site.trail)
    site.restore_in_place("bus.db", "operator/trail", "operator/records.db")
    refused = await site.up()
    assert (refused.returncode, '"code": "copied"' in refused.stderr) == (exits.VERIFICATION_FAILED, True)
    resumed = await site.resume(outside)
    assert (resumed.returncode, refusal(resumed)) == (exits.VERIFICATION_FAILED, "lost-leaves")


async def test_a_running_broker_keeps_how_far_its_bus_file_goes(site: Site) -> None:
    home, world = site.stage.operator, site.stage.operator.world()
    async with home.bus(streams.ROUTER, world) as bus, bus.own(0, [streams.VERSIONS]) as shard:
        await copied.check(home, bus)
        site.save("bus.db")
        await shard.commit([], Writes([(streams.TRAIL, b"head", b"1")]))
        await copied.check(home, bus)  # as it does every minute
    site.restore_in_place("bus.db")
    async with home.bus(streams.ROUTER, world) as bus:
        with pytest.raises(CopiedError):
            await copied.check(home, bus)


async def test_a_home_on_which_another_broker_begins_meanwhile_is_not_called_copied(site: Site) -> None:
    home = site.stage.operator
    (home.folder / copied.BIRTH).unlink()
    begun: list[int] = []

    @dataclass
    class Meanwhile:
        """A bus on which another broker of this home has begun since its note was looked for."""

        bus: Bus

        async def end(self, stream: str, *, partition: int = 0) -> int:
            if not begun:
                begun.append(1)
                await copied.keep(home, self.bus)
            return await self.bus.end(stream, partition=partition)

    async with home.bus(streams.ROUTER) as bus:
        with pytest.raises(CopiedError):
            await copied.check(home, bus)
        await copied.check(home, cast("Bus", Meanwhile(bus)))


async def test_a_home_that_takes_no_writes_ends_no_broker_and_keeps_what_was_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, note = site.stage.operator, site.home / "operator" / copied.BIRTH
    kept, working = note.read_bytes(), asyncio.get_running_loop().create_future()
    monkeypatch.setattr(broker_command, "KEEP_LOOKS", 1)
    monkeypatch.setattr(broker_command, "LOOK_S", 0.01)
    in_the_way = note.with_name(f"{note.name}.new")
    in_the_way.mkdir()  # refused as by a full disk, whoever runs the test
    async with home.bus(streams.ROUTER, home.world()) as bus:
        with pytest.raises(UnavailableError, match=copied.BIRTH):
            await copied.check(home, bus)
        watching = asyncio.ensure_future(broker_command._watch(home, bus, working))
        async with asyncio.timeout(60):
            with capture_logs() as said:
                while len(said) < 3:
                    done, _ = await asyncio.wait([watching], timeout=0.01)
                    assert (done, note.read_bytes()) == (set(), kept)
            assert {(each["event"], each["code"]) for each in said} == {("bus-file.not-checked", "unavailable")}
            in_the_way.rmdir()
            while note.read_bytes() == kept:
                done, _ = await asyncio.wait([watching], timeout=0.01)
                assert done == set()
        watching.cancel()


@dataclass
class Line:
    """The line to a bus: what is asked of it while it is `down` is not answered; `other` streams come once."""

    down: bool = False
    other: bool = False

    def ask(self) -> None:
        if self.down:
            raise UnavailableError("no answer")


@dataclass
class OnLine:
    """A bus at the end of a line."""

    bus: Bus
    line: Line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bus, name)

    async def read(self, *args: Any, **more: Any) -> list[Record]:
        self.line.ask()
        return await self.bus.read(*args, **more)

    async def append(self, *args: Any, **more: Any) -> int:
        self.line.ask()
        return await self.bus.append(*args, **more)


@dataclass(frozen=True, slots=True)
class Remote(OperatorHome):
    """An operator's home whose bus lies elsewhere."""

    line: Line = field(default_factory=Line)

    @asynccontextmanager
    async def bus(self, principal: str, world: World | None = None, owned: Owned | None = None) -> AsyncIterator[Bus]:
        self.line.ask()
        async with OperatorHome.bus(self, principal, world, owned) as bus:
            yield cast("Bus", OnLine(bus, self.line))

    def world(self) -> World:
        other, self.line.other = self.line.other, False
        return World((), ()) if other else OperatorHome.world(self)


async def _up(working: asyncio.Future[Any], ready: asyncio.Event) -> None:
    """Wait until the broker is up; raise what it ends with before."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(ready.wait())
    try:
        async with asyncio.timeout(60):
            await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if working.done():
        working.result()


@asynccontextmanager
async def brokering(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Line, Callable[[str], Any]]]:
    """Run the broker on a bus that lies elsewhere; give the line there, and what waits for a log event."""
    home = Remote(site.stage.operator.folder, site.stage.operator.settings)
    ready = asyncio.Event()
    monkeypatch.setattr(broker_command, "LOOK_S", 0.01)
    monkeypatch.setattr(broker_command, "_say_ready", lambda *_, **__: ready.set())
    with capture_logs() as said:
        working = asyncio.ensure_future(broker_command._run(home, {}, as_json=True))

        async def logged(event: str) -> None:
            while event not in {each["event"] for each in said}:
                await asyncio.wait([working], timeout=0.01)
                assert not working.done()

        try:
            await _up(working, ready)
            yield home.line, logged
            assert not working.done()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def goes_on(stage: Stage) -> None:
    """See that the broker takes in and sends out what a member says now."""
    await subscribe.send(stage.member(BUREAUS[0]), ("wanted.*",))
    await settled(stage)


async def test_a_bus_that_is_away_for_a_moment_ends_no_broker_and_is_logged(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with brokering(site, monkeypatch) as (line, logged):
        line.down = True
        await logged("versions.not-followed")
        with monkeypatch.context() as due:
            due.setattr(proposing, "REFRESH_MS", 1 << 50)
            due.setattr(broker_command, "REFRESH_LOOKS", 1)
            await logged("timestamp.not-signed")
        line.down = False
        await goes_on(site.stage)


async def test_a_broker_that_is_stopped_while_its_bus_goes_away_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way fails as it is stopped, and a task group raises that instead of the stop."""
    started = asyncio.Event()

    async def under_way() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise UnavailableError("no answer") from error

    async def work(*_: Any) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(under_way())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    monkeypatch.setattr(up, "_own_and_work", work)
    working = asyncio.ensure_future(up.run(site.stage.operator.owner(), cast("Bus", None), lambda: None))
    await started.wait()
    working.cancel()
    await asyncio.wait([working], timeout=60)
    assert working.cancelled()


async def test_a_bus_that_is_away_while_it_is_opened_for_other_streams_is_opened_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with brokering(site, monkeypatch) as (line, logged):
        line.down = line.other = True
        await logged("broker.unavailable")
        line.down = False
        await goes_on(site.stage)


async def test_a_bus_file_that_another_keeps_while_it_is_opened_for_other_streams_is_opened_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with brokering(site, monkeypatch) as (line, logged):
        with (
            closing(sqlite3.connect(site.home / "bus.db", isolation_level=None)) as other,
            monkeypatch.context() as soon,
        ):
            soon.setattr(sqlite_pages, "BUSY_MS", 50)
            other.execute("BEGIN IMMEDIATE")
            line.other = True
            await logged("broker.unavailable")
            other.execute("ROLLBACK")
        await goes_on(site.stage)


async def test_a_running_broker_whose_shard_another_takes_ends_and_does_not_take_it_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Remote(site.stage.operator.folder, site.stage.operator.settings)
    ready = asyncio.Event()
    monkeypatch.setattr(broker_command, "_say_ready", lambda *_, **__: ready.set())
    async with asyncio.timeout(60):
        working = asyncio.ensure_future(broker_command._run(home, {}, as_json=True))
        await _up(working, ready)
        async with home.bus(streams.ROUTER) as bus, bus.own(0, [streams.VERSIONS]) as shard:
            await subscribe.send(site.stage.member(BUREAUS[0]), ("wanted.*",))
            with pytest.raises(FencedError):
                await working
            await shard.now()


@pytest.mark.parametrize("other", [None, UnavailableError("no answer")])
async def test_a_lost_shard_is_told_whatever_else_ends_the_work_at_the_same_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch, other: UnavailableError | None
) -> None:
    async def lost(*_: object) -> None:
        raise FencedError

    async def watch(_home: OperatorHome, _bus: Bus, working: asyncio.Future[None]) -> None:
        await asyncio.wait([working])
        if other:
            raise other

    monkeypatch.setattr(up, "run", lost)
    monkeypatch.setattr(broker_command, "_watch", watch)
    async with asyncio.timeout(60):
        with pytest.raises(FencedError):
            await broker_command._run(site.stage.operator, {}, as_json=True)


async def test_a_bus_that_is_away_at_the_start_ends_the_broker(site: Site) -> None:
    home = Remote(site.stage.operator.folder, site.stage.operator.settings, Line(down=True))
    with pytest.raises(UnavailableError):
        await broker_command._run(home, {}, as_json=True)


async def test_a_broker_that_its_machine_refuses_something_ends_with_a_log_event_as_ever(site: Site) -> None:
    note = site.home / "operator" / f"{copied.BIRTH}.new"
    note.mkdir()
    await _ended(site, "unavailable", exits.UNAVAILABLE)
    note.rmdir()
    (site.home / "operator" / "judging").unlink(missing_ok=True)
    (site.home / "operator" / "judging").mkdir()
    await _ended(site, "refused-here", exits.FAILED)


async def _ended(site: Site, code: str, exit_code: int) -> None:
    done = await site.up()
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["event"], last["code"]) == (exit_code, "broker.failed", code)


async def test_a_home_restored_to_yesterday_is_never_continued_where_somebody_saw_more(site: Site) -> None:
    yesterday = site.kept("yesterday")
    await site.live("wanted.*")
    today = site.kept("today")
    await site.collected()
    site.restore()
    before = site.state()

    assert (await site.up()).returncode == exits.VERIFICATION_FAILED
    for seen in ([today], [yesterday, today], [site.home / "members"]):
        refused = await site.resume(*seen)
        assert (refused.returncode, refusal(refused)) == (exits.VERIFICATION_FAILED, "lost-leaves")
    assert site.state() == before
    assert (await site.up()).returncode == exits.VERIFICATION_FAILED


async def test_a_head_of_another_history_or_under_another_key_refuses(site: Site) -> None:
    origin = notes.parse_checkpoint(notes.parse(site.state()[0]).text).origin
    log = SigningKey.load(site.home / "operator" / "log.key")
    site.restore()
    for key, said in ((log, "another history"), (SigningKey.new(), "did not sign")):
        file = site.home.parent / "other.checkpoint"
        file.write_text(notes.sign_checkpoint(Checkpoint(origin, 2, bytes(32)), key), encoding="utf-8")
        refused = await site.resume(file)
        assert (refused.returncode, said in refused.stderr) == (exits.VERIFICATION_FAILED, True)


async def test_yesterdays_bus_under_todays_trail_is_refused_whatever_was_seen(site: Site) -> None:
    await site.live("wanted.*")
    today = site.kept()
    site.restore("bus.db")
    assert (await site.up()).returncode == exits.VERIFICATION_FAILED
    refused = await site.resume(today)
    assert (refused.returncode, "lost-leaves" in refused.stderr) == (exits.VERIFICATION_FAILED, False)
    assert "more than the record" in refused.stderr


async def test_yesterdays_trail_beside_todays_bus_is_finished_from_the_record(site: Site) -> None:
    await site.live("wanted.*")
    today = site.kept().read_text(encoding="utf-8")
    site.restore("operator/trail", "operator/records.db")
    await site.live("sought.*")
    assert await site.collected() == []
    head = notes.parse_checkpoint(notes.parse(today).text)
    assert Trail.open(site.trail).root_of(head.size) == head.root
    assert not verified(site.stage).wrong


async def test_a_bus_whose_register_was_emptied_is_not_resumed_and_what_to_do_is_said(site: Site) -> None:
    with closing(sqlite3.connect(site.home / "bus.db")) as bus, bus:
        (number,) = bus.execute("SELECT id FROM streams WHERE name = 'register'").fetchone()
        bus.execute(f"DELETE FROM s{number}")
    refused = await site.resume(site.kept())
    assert (refused.returncode, refusal(refused)) == (exits.VERIFICATION_FAILED, "register-emptied")
    assert "bus file of the newest backup" in json.loads(refused.stderr)["advice"]
    await site.live("wanted.*")  # the cache has it all
    assert await site.collected() == []


async def test_decision_records_of_a_later_time_are_refused(site: Site) -> None:
    outside = site.kept()
    await site.live("wanted.*")
    later = site.home / "operator" / "records.db"
    kept = site.home.parent / "records.db"
    copy(later, kept)
    site.restore()
    for each in later.parent.glob("records.db*"):
        each.unlink()
    copy(kept, later)
    refused = await site.resume(outside)
    assert (refused.returncode, "decision records go to" in refused.stderr) == (exits.VERIFICATION_FAILED, True)


@asynccontextmanager
async def still_running(site: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the broker as a process of its own."""
    command = [sys.executable, "-m", "cli.main", "broker", "up", "--home", str(site.home)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_a_resume_ends_a_broker_that_still_runs(site: Site) -> None:
    outside = site.kept()
    async with still_running(site) as process:
        resumed = await site.resume(site.trail.parent, outside)  # what lies in the trail's own folder bears nothing out
        assert (resumed.returncode, json.loads(resumed.stdout)["compared"]) == (exits.DONE, 1)
        await subscribe.send(site.stage.member("AT/ncb"), ("sought.*",))
        await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == exits.UNAVAILABLE
    await site.live("wanted.*")
    assert not verified(site.stage).wrong


async def test_a_resume_that_is_refused_leaves_the_broker_that_runs_alone(site: Site) -> None:
    outside, origin, size = site.kept(), Trail.open(site.trail).origin, site.state()[1]
    log = SigningKey.load(site.home / "operator" / "log.key")
    register = site.stage.operator.owner().register
    async with still_running(site) as process:
        later, other = (site.home.parent / f"{name}.checkpoint" for name in ("later", "other"))
        for file, leaves in ((later, size + 100), (other, 1)):
            head = Checkpoint(origin, leaves, bytes(32))
            file.write_text(notes.sign_checkpoint(head, log), encoding="utf-8")
        codes = [refusal(await site.resume(*seen)) for seen in ([], [outside, later], [outside, other])]
        assert codes == ["nothing-to-compare", "lost-leaves", "trail-contradicts"]
        new_log = ("broker", "resume", "--new-log", "--json", "--home", str(site.home), "--seen", str(outside))
        assert refusal(await asyncio.to_thread(valise, *new_log)) == "nothing-lost"
        await goes_on(site.stage)
        with closing(Register(register)) as cache:
            assert cache.keys("subscription/")  # not emptied, either
        runs = process.returncode is None
    assert (runs, process.returncode) == (True, exits.DONE)
    assert not verified(site.stage).wrong


async def test_records_that_go_further_than_the_log_are_found_before_the_shard_is_taken(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    await ledger.step(5)
    ledger.stop()
    operator = ledger.home / "operator"
    what = Restored(operator / "trail", operator / "records.db", operator / "register.db", ORIGIN, 0, KEY)
    with closing(Records(what.records)) as records:
        records.add([Entry(5, b"", bytes(32), b"")])
    outside = Outside(Checkpoint(ORIGIN, 5, ledger.frontier.root()), "AT")

    async def room() -> None:
        raise AssertionError

    async with ledger.bus.own(0, [streams.VERSIONS]) as shard:
        with pytest.raises(TrailError, match="decision records go to leaf 6"):
            await resume(what, ledger.bus, lambda _: [outside], Witnesses(), room)
        await shard.now()


async def test_readers_beyond_the_end_of_a_restored_bus_miss_nothing(tmp_path: Path) -> None:
    world = World(("AT",), ("AT/ncb",))
    file = tmp_path / "bus.db"
    async with SqliteBus(file, streams.OPERATOR, world, lambda: 1) as operator:
        await operator.create(list(world.streams()))
        await operator.append(streams.VERSIONS, [(b"", b"1"), (b"", b"2")])
    async with SqliteBus(file, streams.ROUTER, world, lambda: 1) as router, router.own(0, [streams.VERSIONS]) as shard:
        assert [each.value for each in await shard.take(1, 0.0)] == [b"1"]
        await router.leave_room()
        async with SqliteBus(file, streams.OPERATOR, world, lambda: 1) as operator:
            assert [each.value for each in await shard.take(9, 0.0)] == [b"2"]
            assert await shard.take(9, 0.05) == []
            after = await operator.append(streams.VERSIONS, [(b"", b"3")])
            read_before = 17  # in the file that was lost this reader had come further than the backup ends
            assert [each.offset for each in await operator.read(streams.VERSIONS, read_before, wait=1.0)] == [after]
        assert [each.value for each in await shard.take(9, 1.0)] == [b"3"]


async def test_a_start_after_a_restore_waits_for_nothing_in_the_room_before_the_end(site: Site) -> None:
    """One wait would not be seen: to find the last head behind that much room it looks a dozen times."""
    owner = site.stage.operator.owner()
    async with site.stage.operator.bus(streams.ROUTER) as bus:
        with closing(Records(owner.records)) as records:
            sealer = Sealer(Trail.open(owner.trail, owner.origin), records, owner.key, bus, owner.shard)
            before = await sealer.look()
            assert isinstance(bus, SqliteBus)
            await bus.leave_room()
            async with asyncio.timeout(5):
                assert await sealer.look() == before


async def test_the_room_before_the_end_of_a_restored_stream_does_not_wait(site: Site) -> None:
    home = site.stage.operator

    async def waiting() -> dict[str, int] | None:
        return (await standing(home)).waiting

    async with home.bus(streams.OPERATOR) as operator:
        await operator.append(streams.VERSIONS, [(b"", b"1")])
    async with home.bus(streams.ROUTER) as router, router.own(0, [streams.VERSIONS]) as shard:
        assert isinstance(router, SqliteBus)
        await router.leave_room()
        assert await waiting() == {streams.VERSIONS: 1}
        await shard.commit(await shard.take(1, 1.0), Writes())
        assert await waiting() == {}
    async with home.bus(streams.OPERATOR) as operator:
        await operator.append(streams.VERSIONS, [(b"", b"2"), (b"", b"3")])
    assert await waiting() == {streams.VERSIONS: 2}


async def test_new_keys_are_held_against_revocations_that_no_cache_has_since_the_restore(site: Site) -> None:
    home = site.stage.operator
    directory = home.versions.newest()
    old, late = (each.key_id for each in list(directory.keys.values())[:2])
    cache = home.owner().register

    async def revoked() -> frozenset[bytes]:
        found = await entered(home, directory)
        assert found is not None
        return found.revoked

    async def recorded(*changes: tuple[bytes, bytes | None]) -> None:
        async with home.bus(streams.ROUTER) as bus, bus.own(0, [streams.VERSIONS]) as shard:
            rows = [(streams.REGISTER, f"revoked/{key.hex()}".encode(), value) for key, value in changes]
            await shard.commit([], Writes(rows))

    assert await revoked() == frozenset()
    before = cache.read_bytes()
    await recorded((old, b"1"))
    assert await revoked() == {old}  # the cache is behind
    assert cache.read_bytes() == before  # and stays: it is the broker's to bring further
    for each in cache.parent.glob(f"{cache.name}*"):
        each.unlink()
    await recorded((late, b"1"), (old, None), (old, b"2"))
    assert await revoked() == {old, late}  # there is none
    with closing(Register(cache)) as register:
        await register.take_over(still_owned)
        register.restore([(b"revoked/ff", b"1")], 1_000_000)
    assert await revoked() == {old, late}  # it belongs to another past


async def test_streams_of_whoever_enters_after_a_restore_begin_beyond_what_was_lost(tmp_path: Path) -> None:
    file, copied, before = tmp_path / "bus.db", tmp_path / "copy.db", World(("AT",), ("AT/ncb",))
    larger = World(("AT", "EE"), ("AT/ncb", "EE/ncb"))
    member = (streams.inbox("EE/ncb"), streams.outcomes("EE"))

    async def entered(now: int) -> list[int]:
        """Let EE enter; tell the offsets of its first records."""
        async with SqliteBus(file, streams.ROUTER, larger, lambda: now) as router:
            await router.create(list(larger.streams()))
            return [await router.append(each, [(b"", b"1")]) for each in member]

    async with SqliteBus(file, streams.ROUTER, before, lambda: 1) as router:
        await router.create(list(before.streams()))
    copy(file, copied)
    last = await entered(1)
    assert last == [0, 0]
    for now in (2, START):  # the same copy restored twice
        file.unlink()
        copy(copied, file)
        async with SqliteBus(file, streams.ROUTER, before, lambda: now) as router:  # noqa: B023 - used at once
            await router.leave_room()
        first = await entered(now)
        assert all(new > old for new, old in zip(first, last, strict=True))
        last = first
    async with SqliteBus(file, streams.ROUTER, before, lambda: START) as router:  # of those that it does not know, too
        await router.leave_room()
    assert all(new > old + 1 for new, old in zip(await entered(START), last, strict=True))


async def test_resuming_waits_for_a_quorum_of_witnesses_and_heeds_what_they_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "START_S", 60.0)  # the honest one must not be late on a busy machine
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    await ledger.step(5)
    note = await ledger.step(3)
    ledger.stop()
    witness = Witness(tmp_path / "witness.db", identity(), [VKEY], lambda: START)
    witness.add(notes.format_advance(0, [], note).encode())
    rooms: list[int] = []

    async def room() -> None:
        rooms.append(1)

    async def resumed(of: Ledger, *known: Known) -> Resumed:
        folder = of.home / "operator"
        what = Restored(folder / "trail", folder / "records.db", folder / "register.db", ORIGIN, 0, KEY)
        return await resume(what, of.bus, lambda _: [], Witnesses(known, 1), room)

    yesterday = Ledger(tmp_path / "yesterday")
    await yesterday.recover()
    await yesterday.step(5)
    yesterday.stop()
    mute = Known(cosigner("witness.example/mute"), Place("127.0.0.1", 1, "", None))
    async with answering_on(witness) as known:
        with pytest.raises(LostLeavesError, match="saw 8 leaves of this log; what was restored ends at 5"):
            await resumed(yesterday, known)
        with pytest.raises(UnavailableError, match="no quorum"):
            await resumed(ledger, mute)
        assert rooms == []
        found = await resumed(ledger, known, mute)
    assert (found.size, found.newest.head.size, found.silent, rooms) == (8, 8, ["witness.example/mute"], [1])


async def test_what_the_record_committed_and_nobody_sealed_counts_before_anything_is_signed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    await ledger.step(5)
    await ledger.commit(3)
    ledger.stop()
    before = (ledger.folder / "checkpoint").read_text(encoding="utf-8")
    operator = ledger.home / "operator"
    what = Restored(operator / "trail", operator / "records.db", operator / "register.db", ORIGIN, 0, KEY)
    outside = Outside(Checkpoint(ORIGIN, 8, ledger.frontier.root()), "AT")

    async def room() -> None:
        assert (ledger.folder / "checkpoint").read_text(encoding="utf-8") == before

    other = replace(outside, head=Checkpoint(ORIGIN, 8, bytes(32)))
    with pytest.raises(TrailError, match="another head of 8 leaves"):
        await resume(what, ledger.bus, lambda _: [outside, other], Witnesses(), room)
    await room()
    found = await resume(what, ledger.bus, lambda _: [outside], Witnesses(), room)
    assert (found.size, found.newest) == (8, outside)
