"""Two owners of one home: whoever is stopped, woken or started twice, the log has one head of one size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker import codec, notes, streams
from broker.bus import Writes
from broker.errors import FencedError
from broker.notice import Delivery, Shared
from broker.rules import PolicySet
from broker.sqlite import SqliteBus
from broker.trail import Trail
from broker.writing import WAIT_S
from cli import exits
from tests import federation as world
from tests.faults.broker_process import clock
from tests.faults.test_broker_killed import BATCH, POINTS, Site, check

LIMIT_S = 90


class Home(Site):
    """A home on the embedded bus, and every text that any process ever signed with its log's key."""

    @property
    def signed(self) -> Path:
        return self.folder / "signed"

    def copied(self, folder: Path) -> Home:
        """The same home, nobody's work as yet, in another folder."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        home = at(folder)
        home._number = self._number
        return home

    async def owner(self, stop: str = "") -> asyncio.subprocess.Process:
        """Start a broker, to stop at a point."""
        command = [sys.executable, "-m", "tests.faults.broker_process", str(self.folder), self.address]
        return await asyncio.create_subprocess_exec(
            *command, "--stop", stop, "--signed", str(self.signed), stdout=asyncio.subprocess.PIPE
        )


def _stopped(process: asyncio.subprocess.Process) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"


async def stopped(process: asyncio.subprocess.Process) -> None:
    """Return once a process stands still."""
    async with asyncio.timeout(LIMIT_S):
        while not _stopped(process):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.02)


async def stop_between_commits(home: Home, process: asyncio.subprocess.Process) -> None:
    """Stop a process, or leave it stopped, but not inside SQLite's commit: there it holds the file, and all wait."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            os.kill(process.pid, signal.SIGSTOP)
            await stopped(process)
            if not _is_locked(home.folder / "bus.db"):
                return
            os.kill(process.pid, signal.SIGCONT)
            await asyncio.sleep(0.003)


def _is_locked(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(file, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


async def ready(process: asyncio.subprocess.Process) -> None:
    """Return once a broker works."""
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        assert await process.stdout.readline()


@asynccontextmanager
async def ending(*processes: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Leave none of these processes behind."""
    try:
        yield
    finally:
        for each in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGCONT)
                each.terminate()
        for each in processes:
            await each.wait()


def _texts(file: Path) -> Iterator[notes.Checkpoint]:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    for begin in range(0, len(lines), 3):
        yield notes.parse_checkpoint("".join(lines[begin : begin + 3]))


async def one_head_of_each_size(home: Home) -> None:
    """All that was ever signed, announced or delivered is one history, and the disk bears it."""
    heads = list(_texts(home.signed))
    for key, value in await home.records(streams.ROUTER, streams.CHECKPOINTS):
        assert key in (b"", b"cosigned")
        heads.append(notes.open_checkpoint(notes.parse_advance(value).checkpoint, world.LOG))
    for _, value in await home.records(streams.adapter("GE"), streams.inbox("GE/ncb")):
        proof = codec.decode(Shared, codec.decode(Delivery, value).shared).proof
        heads.append(notes.open_checkpoint(notes.parse_proof(proof).checkpoint, world.LOG))
    assert len({each.size for each in heads}) > 2
    trail = Trail.open(home.folder / "trail", world.ORIGIN)
    assert {(each.size, each.root) for each in heads} == {(each.size, trail.root_of(each.size)) for each in heads}


def at(folder: Path) -> Home:
    return Home(folder, f"sqlite:{folder / 'bus.db'}", None)


async def begun(folder: Path) -> Home:
    """A home with directory and policies, on which no broker has worked."""
    home = at(folder)
    async with SqliteBus(folder / "bus.db", streams.ROUTER, world.world(), clock) as bus:
        await bus.create(list(world.world().streams()))
    async with home.bus(streams.OPERATOR) as operator:
        await world.write_versions(operator, world.directory(), PolicySet.packaged())
    return home


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    return await begun(tmp_path)


async def _worked(folder: Path) -> Home:
    home = await begun(folder)
    first = await home.owner()
    async with ending(first):
        await home.publish(BATCH)
        await home.told(first)
    return home


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that an owner has worked on and left."""
    return asyncio.run(_worked(tmp_path_factory.mktemp("left")))


@pytest.fixture
def worked(left: Home, tmp_path: Path) -> Home:
    """A copy of what the first owner left, for one test."""
    return left.copied(tmp_path)


async def test_who_lost_the_shard_does_not_take_it_back(home: Home) -> None:
    """An owner that finds the file busy owns anew: not if another has owned the shard meanwhile."""
    async with home.bus(streams.ROUTER) as old, home.bus(streams.ROUTER) as new:
        for _ in range(2):
            async with old.own(0, []):
                pass
        async with new.own(0, []) as shard:
            with pytest.raises(FencedError):
                async with old.own(0, []):
                    pass
            await shard.commit([], Writes())


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_an_owner_stopped_at_any_point_and_woken_after_its_successor_turns_nothing_back(
    worked: Home, point: str
) -> None:
    home = worked
    await home.publish(BATCH)
    old = await home.owner(point)
    async with ending(old):
        await stopped(old)
        await stop_between_commits(home, old)
        new = await home.owner()
        async with ending(new):
            with contextlib.suppress(TimeoutError):  # stopped while it writes the checkpoint it keeps the other waiting
                async with asyncio.timeout(15):
                    await ready(new)
            await home.publish(BATCH)
            old.send_signal(signal.SIGCONT)
            await home.told(new)
            await home.publish(BATCH)
            await home.told(new)
            async with asyncio.timeout(LIMIT_S):
                assert await old.wait() == exits.UNAVAILABLE
            assert new.returncode is None
    await check(home)
    await one_head_of_each_size(home)


@pytest.mark.slow
async def test_a_file_that_another_process_keeps_is_waited_for(left: Home, tmp_path: Path) -> None:
    """As an owner does that was stopped inside a transaction; most of it is waiting, so the files share the time."""
    async with asyncio.TaskGroup() as both:
        for name in ("records.db", "register.db"):
            both.create_task(_works_once_it_is_let_go(left.copied(tmp_path / name), name))


async def _works_once_it_is_let_go(home: Home, name: str) -> None:
    await home.publish(BATCH)
    with contextlib.closing(sqlite3.connect(home.folder / name, isolation_level=None)) as keeping:
        keeping.execute("BEGIN IMMEDIATE")
        new = await home.owner()
        async with ending(new):
            await asyncio.sleep(2 * WAIT_S)
            keeping.execute("ROLLBACK")
            await home.told(new)
    await check(home)


@pytest.mark.slow
async def test_of_two_brokers_started_at_once_on_one_home_one_works_and_the_other_ends_as_fenced(home: Home) -> None:
    for _ in range(3):
        await home.publish(BATCH)
        both = await asyncio.gather(home.owner(), home.owner())
        async with ending(*both):
            async with asyncio.timeout(LIMIT_S):
                while all(each.returncode is None for each in both):
                    await home.publish(1)
                    await asyncio.sleep(0.1)
            (left,) = [each for each in both if each.returncode is None]
            assert {each.returncode for each in both} == {None, exits.UNAVAILABLE}
            await home.publish(BATCH)
            await home.told(left)
    await check(home)
    await one_head_of_each_size(home)


@pytest.mark.slow
async def test_owners_stopped_and_woken_under_load_leave_one_history(home: Home) -> None:
    """Stopped wherever they are, ten times; who loses is started anew, as systemd would."""
    running = [await home.owner()]
    await ready(running[0])
    for turn in range(10):
        await home.publish(BATCH)
        await asyncio.sleep(0.01 * turn)
        await stop_between_commits(home, running[-1])
        running.append(await home.owner())
        await home.publish(BATCH)
        begun = False
        with contextlib.suppress(TimeoutError):  # who was stopped while it writes the checkpoint keeps it waiting
            async with asyncio.timeout(5):
                await ready(running[-1])
                begun = True
        os.kill(running[-2].pid, signal.SIGCONT)
        # Stopped before it has owned anything, it would take the shard from its successor once it is woken.
        if not begun:
            await ready(running[-1])
    async with ending(*running):
        await home.publish(BATCH)
        await home.told(running[-1])
        async with asyncio.timeout(LIMIT_S):
            assert {await each.wait() for each in running[:-1]} == {exits.UNAVAILABLE}
    await check(home)
    await one_head_of_each_size(home)
