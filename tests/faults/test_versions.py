"""What a home keeps of `versions` fits together, whoever is at it at once and wherever one of them was killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters import versions
from adapters.versions import Versions
from broker import durable, streams
from broker.bus import Record
from broker.errors import ConfigurationError, UnavailableError
from broker.trust import draft
from broker.trust.bundle import Opened
from tests.fake_bus import Clock, FakeBus, Memory
from tests.making import NOW
from tests.trust import signed_world as world
from tests.trust.signed_world import changed_name, content, first_content, next_draft, opened
from tests.trust.test_adopted import Site, allowed

Act = Callable[[], Awaitable[object]]


class Interrupted(FakeBus):
    """A bus whose reader is stopped after what it has read last while something else happens."""

    def __init__(self, memory: Memory, *meanwhile: Act | None) -> None:
        super().__init__(memory)
        self._meanwhile = list(meanwhile)

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        found = await super().read(stream, offset, limit=limit, wait=wait, partition=partition)
        if stream == streams.VERSIONS and self._meanwhile and (act := self._meanwhile.pop(0)):
            await act()
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(versions, "PAGE", 1)  # each version comes in a page of its own
    clock = Clock(NOW)
    return Site(tmp_path, FakeBus(Memory(clock=clock)), clock)


async def published(site: Site) -> list[Opened]:
    """Publish three directories, and a policy set after the first; give the directories."""
    found = [opened(first_content())]
    await site.write("directory", first_content())
    await site.write("policies", allowed(found[0]))
    for name in ("Latvia, renamed", "Latvia, renamed again"):
        made = content(next_draft(found[-1], changed_name(found[-1], "LV", name)), found[-1])
        found.append(opened(made, found[-1]))
        await site.write("directory", made)
    return found


def folder_of(site: Site) -> Path:
    return site.folder / "member" / "versions"


def told(found: Versions) -> dict[str, object]:
    """All that a home says of what it has read."""
    guard = found.guard()
    directory, policies = found.newest_digest("directory"), found.newest_digest("policies")
    assert guard.opened is not None
    assert directory is not None
    return {
        "directory": directory,
        "policies": policies and found.content(policies),
        "opened": guard.opened.directory.digest,
        "read": found.directory(directory) is not None,
        "seen": dict(guard.seen),
        "refused": found.refused(),
        "overdue": found.overdue(),
    }


async def test_a_root_pinned_while_another_follows_leaves_no_home_without_a_directory(site: Site) -> None:
    newest = (await published(site))[-1]

    async def pin() -> None:
        site.member.pin(world.root())

    await site.member.follow(Interrupted(site.bus.memory, None, None, pin))
    assert site.member.newest().digest == newest.directory.digest
    assert site.member.refused() == ""


async def test_a_newest_version_that_is_gone_is_taken_once_more(site: Site) -> None:
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    whole = {each: site.member.newest_digest(each) for each in ("directory", "policies")}
    for digest in whole.values():
        assert digest is not None
        (folder_of(site) / digest.hex()).unlink()
    again = Versions(folder_of(site))
    with pytest.raises(ConfigurationError, match="is gone from"):
        again.newest()
    await again.follow(site.bus)
    assert {each: again.newest_digest(each) for each in whole} == whole
    assert again.newest().digest == whole["directory"]


async def test_of_two_roots_pinned_at_once_one_stays(site: Site) -> None:
    def pin(root: str) -> bool:
        try:
            site.member.pin(root)
        except ConfigurationError:
            return False
        return True

    roots = [f"{each:064}" for each in range(8)]
    with ThreadPoolExecutor(len(roots)) as threads:
        done = list(threads.map(pin, roots))
    assert done.count(True) == 1
    assert (site.folder / "member" / "root.sha256").read_text(encoding="utf-8").strip() == roots[done.index(True)]


async def test_who_was_stopped_amid_a_follow_takes_nothing_back_when_it_goes_on(site: Site) -> None:
    """It is killed before it has read on."""
    first, second, newest = await published(site)
    site.member.pin(world.root())

    async def others_follow() -> None:
        await site.member.follow(site.bus)

    async def killed() -> None:
        raise UnavailableError

    with pytest.raises(UnavailableError):
        await site.member.follow(Interrupted(site.bus.memory, None, None, others_follow, killed))
    assert told(site.member)["opened"] == newest.directory.digest == site.member.newest().digest
    assert all(site.member.directory(each.directory.digest) for each in (first, second))


async def test_a_follow_that_was_killed_at_any_write_ends_with_what_one_has_that_was_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all came in one page."""
    await published(site)
    site.member.pin(world.root())
    shutil.copytree(site.folder / "member", site.folder / "new")
    await site.member.follow(site.bus)
    whole, put, left = told(site.member), durable.put, 0

    def until_killed(file: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        put(file, data)

    monkeypatch.setattr(durable, "put", until_killed)
    for page in (1, 100):
        monkeypatch.setattr(versions, "PAGE", page)
        writes, killed = 0, True
        while killed:
            shutil.rmtree(site.folder / "member")
            shutil.copytree(site.folder / "new", site.folder / "member")
            left, killed = writes, False
            try:
                await site.member.follow(site.bus)
            except KeyboardInterrupt:
                killed = True
            left, writes = 1000, writes + 1
            await site.member.follow(site.bus)
            assert told(site.member) == whole
        assert writes > 8


async def test_a_copy_made_while_a_home_follows_is_of_before_or_after(site: Site) -> None:
    """As a backup copies one file after the other."""
    first = opened(first_content())
    site.member.pin(world.root())
    await site.write("directory", first_content())
    await site.member.follow(site.bus)
    before, said = (folder_of(site) / "newest").read_bytes(), told(site.member)
    site.clock.now += 1000
    await site.write("directory", draft.refresh(first, world.TIMESTAMP, site.clock.now))
    await site.member.follow(site.bus)
    assert told(site.member) != said
    (folder_of(site) / "newest").write_bytes(before)
    assert told(site.member) == said


async def test_nothing_is_written_where_nothing_is_new(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for anybody, either: every round of a collector follows."""
    monkeypatch.setattr(durable, "ALONE_S", 0.0)
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    before = {each: each.stat() for each in folder_of(site).rglob("*")}
    with durable.alone(folder_of(site)):
        assert await site.member.follow(site.bus) == 0
    assert {each: each.stat() for each in folder_of(site).rglob("*")} == before


async def test_the_newest_directory_that_was_lost_as_it_was_signed_is_read_once_more(site: Site) -> None:
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    said = told(site.member)
    (folder_of(site) / "signed" / json.loads((folder_of(site) / "newest").read_bytes())["bundle"]).unlink()
    with pytest.raises(ConfigurationError, match="is not there"):
        site.member.guard()
    assert await site.member.follow(site.bus) == 0
    assert told(site.member) == said


async def test_what_a_home_of_before_had_in_files_of_their_own_counts_until_the_next_directory(site: Site) -> None:
    _, _, last = await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    said, newest = told(site.member), json.loads((folder_of(site) / "newest").read_bytes())
    earlier = {
        "bundle": (folder_of(site) / "signed" / newest.pop("bundle")).read_bytes(),
        "seen": json.dumps(newest.pop("seen")).encode(),
        "expires": json.dumps(newest.pop("expires")).encode(),
        "newest": json.dumps(newest).encode(),
    }
    for name, each in earlier.items():
        (folder_of(site) / name).write_bytes(each)
    assert told(site.member) == said
    await site.write("policies", allowed(last, 2))
    await site.member.follow(site.bus)
    assert told(site.member)["opened"] == said["opened"]
    await site.write("directory", draft.refresh(last, world.TIMESTAMP, NOW + 1000))
    await site.member.follow(site.bus)
    assert told(site.member)["opened"] == said["opened"]
    assert not any((folder_of(site) / name).exists() for name in ("bundle", "seen", "expires"))


def test_one_file_is_kept_by_many_at_once(tmp_path: Path) -> None:
    """Processes of several containers may have one number; so have threads."""
    with ThreadPoolExecutor(4) as threads:
        kept = set(threads.map(lambda _: Versions(tmp_path).keep(b"an annex"), range(50)))
    assert Versions(tmp_path).kept() == [each.hex() for each in kept]
    assert [each.name for each in tmp_path.iterdir()] == Versions(tmp_path).kept()
