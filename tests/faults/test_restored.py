"""A restored backup does not run before it was compared; it goes on only if nobody outside saw more."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from broker import notes
from broker.notes import Checkpoint
from broker.signing import SigningKey
from broker.trail import Trail
from cli import exits, subscribe
from cli.stage import Stage, running, set_up, settled, verified
from tests.journeys.test_operator import BUREAUS, small, valise

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
                    rung += [each.code for each in inbox.alarms()]
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


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
        return
    assert not source.with_name(f"{source.name}-wal").exists()
    shutil.copy2(source, target)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    site = Site(await set_up(tmp_path / "home", small(*BUREAUS), "sqlite", BUREAUS, lambda _: None))
    await site.live("sought.*")
    assert await site.collected() == []
    site.save()
    return site


async def test_a_restored_home_is_refused_then_runs_on_once_it_was_compared_with_the_newest_head(site: Site) -> None:
    outside = site.kept()
    site.restore()
    before = site.state()

    refused = await site.up()
    assert (refused.returncode, refused.stderr.startswith("copied: ")) == (exits.VERIFICATION_FAILED, True)
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
        assert (refused.returncode, refused.stderr.startswith("lost-leaves: ")) == (exits.VERIFICATION_FAILED, True)
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
    site.restore("operator")
    await site.live("sought.*")
    assert await site.collected() == []
    head = notes.parse_checkpoint(notes.parse(today).text)
    assert Trail.open(site.trail).root_of(head.size) == head.root
    assert not verified(site.stage).wrong


async def test_decision_records_of_a_later_time_are_refused(site: Site) -> None:
    outside = site.kept()
    await site.live("wanted.*")
    later = site.home / "operator" / "records.db"
    kept = site.home.parent / "records.db"
    shutil.copy(later, kept)
    site.restore()
    shutil.copy(kept, later)
    refused = await site.resume(outside)
    assert (refused.returncode, "decision records go to" in refused.stderr) == (exits.VERIFICATION_FAILED, True)


async def test_a_resume_ends_a_broker_that_still_runs(site: Site) -> None:
    outside = site.kept()
    owned = replace(site.stage)
    async with asyncio.timeout(60):
        with pytest.raises(Exception, match="has ended by itself"):
            async with running(owned):
                assert (await site.resume(outside)).returncode == exits.DONE
                await subscribe.send(site.stage.member("AT/ncb"), ("sought.*",))
                while "another process" not in (site.home / "operator" / "broker.log").read_text(encoding="utf-8"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
