"""What a home keeps of `versions` fits together, whoever is at it at once and wherever one of them was killed."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters import versions
from adapters.versions import Versions
from broker import durable, members, streams
from broker.bus import Record
from broker.errors import ConfigurationError, UnavailableError
from broker.rules import PolicySet
from broker.signing import SigningKey
from broker.trust import draft
from broker.trust.bundle import Opened
from cli.officer.rewritten import told_to_signers
from tests import federation as testing
from tests.attacks.test_operator_drafts import under_his_keys
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


def cut(file: Path, left: int | None) -> None:
    """Leave so many bytes of a file; None: it is gone."""
    file.unlink() if left is None else file.write_bytes(file.read_bytes()[:left])


def written(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """When each file was written; that it was read counts for nothing."""
    found = {each: each.stat() for each in folder.rglob("*")}
    return {each: (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for each, stat in found.items()}


def of_before(folder: Path) -> dict[str, bytes]:
    """What `newest` says, in the files that a home of before had."""
    newest = json.loads((folder / "newest").read_bytes())
    return {
        "bundle": (folder / "signed" / newest.pop("bundle")).read_bytes(),
        "seen": json.dumps(newest.pop("seen")).encode(),
        "expires": json.dumps(newest.pop("expires")).encode(),
        "newest": json.dumps(newest).encode(),
    }


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, each in files.items():
        (folder / name).write_bytes(each)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


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


async def test_on_a_full_disk_nothing_is_taken_and_all_of_it_once_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows waits for room as for a bus; `inbox --follow` ended."""
    newest, write, left = (await published(site))[-1], durable._write, [0]

    def full(fd: int, data: bytes) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        write(fd, data)

    home = site.member
    home.pin(world.root())
    with monkeypatch.context() as disk:
        disk.setattr(durable, "_write", full)
        for left[0] in range(4):
            with pytest.raises(UnavailableError, match="there is no room on a disk of"):
                await home.follow(site.bus)
    await home.follow(site.bus)
    assert home.newest().digest == newest.directory.digest


async def test_a_root_pinned_while_another_follows_leaves_no_home_without_a_directory(site: Site) -> None:
    newest = (await published(site))[-1]

    async def pin() -> None:
        site.member.pin(world.root())

    await site.member.follow(Interrupted(site.bus.memory, None, None, pin))
    assert site.member.newest().digest == newest.directory.digest
    assert site.member.refused() == ""


@pytest.mark.parametrize("left", [None, 100, 0])
@pytest.mark.parametrize("rooted", [True, False])
async def test_a_newest_version_that_is_lost_or_damaged_is_taken_once_more(
    site: Site, left: int | None, rooted: bool
) -> None:
    """`left`: bytes of it that are still there."""
    if rooted:
        await published(site)
        site.member.pin(world.root())
    else:
        await testing.write_versions(site.bus, testing.directory(), PolicySet.packaged())
    await site.member.follow(site.bus)
    whole = {each: site.member.newest_digest(each) for each in ("directory", "policies")}
    for digest in whole.values():
        assert digest is not None
        cut(folder_of(site) / digest.hex(), left)
    again = Versions(folder_of(site))
    assert {each: again.newest_digest(each) for each in whole} == dict.fromkeys(whole)
    assert {each: again.named_newest(each) for each in whole} == whole
    with pytest.raises(ConfigurationError, match="is missing or damaged"):
        again.newest()
    await again.follow(site.bus)
    assert {each: again.newest_digest(each) for each in whole} == whole
    assert again.newest().digest == whole["directory"]


@pytest.mark.parametrize("all_", [True, False])
async def test_a_newest_directory_whose_list_is_lost_too_is_taken_once_more(site: Site, all_: bool) -> None:
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    newest = site.member.newest()
    shutil.rmtree(folder_of(site) / "directories")
    for each in site.member.kept() if all_ else [newest.digest.hex()]:
        (folder_of(site) / each).unlink()
    await site.member.follow(site.bus)
    assert site.member.newest() == newest


async def test_a_directory_that_was_asked_for_and_is_damaged_is_taken_once_more(site: Site) -> None:
    """Also where only its name in the list is lost."""
    first, _, _ = await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    digest = first.directory.digest
    for damaged in (digest.hex(), f"directories/{world.root()}/{digest.hex()}"):
        (folder_of(site) / damaged).unlink()
        known = Versions(folder_of(site))
        assert known.directory(digest) is None
        await known.follow(site.bus)
        found = known.directory(digest)
        assert found is not None
        assert found.digest == digest


async def test_what_others_did_not_agree_to_is_no_directory_though_its_file_is_here(site: Site) -> None:
    first = world.unnamed(opened(first_content()))
    forged = under_his_keys(first, SigningKey.new())
    site.member.pin(world.root())
    for each in (first_content(), first.written.content(), forged):
        await site.write("directory", each)
    assert await site.member.follow(site.bus) == 2
    assert "is to be signed with other keys" in site.member.refused()
    digest = site.member.keep(opened(forged, first).plain)
    known = site.member
    assert known.directory(digest) is None
    await known.follow(site.bus)
    await known.take_missing(site.bus)
    assert (known.directory(digest), known.newest().digest) == (None, first.directory.digest)


async def test_what_a_signer_is_told_says_that_the_newest_policies_are_lost(site: Site) -> None:
    await published(site)
    site.member.pin(world.root())
    drafted = PolicySet.packaged().content.decode()
    assert "no version is known here" in told_to_signers(drafted, site.member)[0]
    await site.member.follow(site.bus)
    digest = site.member.newest_digest("policies")
    assert digest is not None
    assert told_to_signers(drafted, site.member)[1:] == ["  nothing changes"]
    (folder_of(site) / digest.hex()).unlink()
    assert f"{digest.hex()[:16]} came last, and is missing or damaged" in told_to_signers(drafted, site.member)[0]


async def test_what_was_signed_and_is_damaged_is_kept_once_more(site: Site) -> None:
    """An auditor holds the leaves against it; the list, where it is lost, is made of it."""
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    whole, listed = site.member.signed(), sorted(folder_of(site).glob("directories/*/*"))
    for name in whole:
        cut(folder_of(site) / "signed" / name, 100)
    shutil.rmtree(folder_of(site) / "directories")
    await site.member.follow(site.bus)
    assert (site.member.signed(), sorted(folder_of(site).glob("directories/*/*"))) == (whole, listed)
    cut(folder_of(site) / "signed" / min(whole), 0)
    await site.member.take_missing(site.bus)
    assert site.member.signed() == whole


async def test_a_home_that_has_lost_its_root_lets_nothing_pass(site: Site) -> None:
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    (site.folder / "member" / "root.sha256").unlink()
    await site.write("directory", members.canonical(testing.directory()))
    with pytest.raises(ConfigurationError, match=r"root\.sha256 is gone: write into it the root"):
        await site.member.follow(site.bus)
    (site.folder / "member" / "root.sha256").write_text(world.root(), encoding="utf-8")
    assert await site.member.follow(site.bus) == 0
    assert "it is not signed" in site.member.refused()


async def test_what_was_accepted_and_is_damaged_is_said_to_be(site: Site) -> None:
    """It is not its sender's fault, and nothing older is accepted in its place."""
    first = opened(first_content())
    second = content(next_draft(first, changed_name(first, "LV", "Latvia, renamed")), first)
    federation = first.directory.federation
    for left in (100, 0):
        site.member.accept(second, federation)
        cut(site.member.given, left)
        for act in (lambda: site.member.pin(world.root()), lambda: site.member.accept(first_content(), federation)):
            with pytest.raises(ConfigurationError, match=r"given is damaged: remove it, and accept once more"):
                act()
        site.member.given.unlink()
    site.member.accept(second, federation)
    site.member.pin(world.root())
    cut(site.member.given, 100)
    assert "what was accepted is damaged" in site.member.refused()
    await site.write("directory", first_content())
    await site.member.follow(site.bus)
    assert "what was accepted is damaged" in site.member.refused()
    site.member.given.unlink()
    assert site.member.refused() == ""


@pytest.mark.parametrize("left", [10, 0])
async def test_a_damaged_file_of_a_home_of_before_is_said_to_be(site: Site, left: int) -> None:
    newest = (await published(site))[-1]
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    said, whole = told(site.member), of_before(folder_of(site))
    for name in whole:
        write(folder_of(site), whole)
        cut(folder_of(site) / name, left)
        with pytest.raises(ConfigurationError, match=f"{name} is damaged: remove newest, bundle, expires, seen from"):
            told(site.member)
        for each in whole:
            (folder_of(site) / each).unlink()
        await site.member.follow(site.bus)
        assert told(site.member) == said
    write(folder_of(site), whole)
    (folder_of(site) / "seen").unlink()
    seen = site.member.guard().seen
    assert seen == {role: each for role, each in newest.seen.items() if role != "policies"}


async def test_two_that_follow_at_once_over_a_damaged_home_mend_it(site: Site) -> None:
    newest = (await published(site))[-1]
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    said, files = told(site.member), contents(folder_of(site))
    for each in (*folder_of(site).glob("signed/*"), *map(folder_of(site).joinpath, site.member.kept())):
        cut(each, 50)
    shutil.rmtree(folder_of(site) / "directories")

    async def other() -> None:
        await site.member.follow(site.bus)

    await asyncio.gather(*(Versions(folder_of(site)).follow(Interrupted(site.bus.memory, other)) for _ in range(3)))
    await site.member.take_missing(site.bus)
    assert (told(site.member), contents(folder_of(site))) == (said, files)
    assert site.member.newest().digest == newest.directory.digest


async def test_of_two_roots_pinned_at_once_one_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 60.0)  # the others may take that long on a busy machine

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
    before = written(folder_of(site))
    with durable.alone(folder_of(site)):
        assert await site.member.follow(site.bus) == 0
    assert written(folder_of(site)) == before


async def test_the_newest_directory_that_was_lost_as_it_was_signed_is_read_once_more(site: Site) -> None:
    await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    said = told(site.member)
    (folder_of(site) / "signed" / json.loads((folder_of(site) / "newest").read_bytes())["bundle"]).unlink()
    with pytest.raises(ConfigurationError, match="is missing or damaged"):
        site.member.guard()
    assert await site.member.follow(site.bus) == 0
    assert told(site.member) == said


async def test_what_a_home_of_before_had_in_files_of_their_own_counts_until_the_next_directory(site: Site) -> None:
    _, _, last = await published(site)
    site.member.pin(world.root())
    await site.member.follow(site.bus)
    said = told(site.member)
    write(folder_of(site), of_before(folder_of(site)))
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
