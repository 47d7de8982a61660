"""The broker and a member that have pinned a root take nothing but what was signed under it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from adapters.versions import Versions
from broker import codec, members, streams
from broker.errors import ConfigurationError
from broker.notice import Leaf, Version
from broker.rules import PolicySet
from broker.trust import draft
from broker.trust.bundle import Opened
from broker.trust.guard import ROOT_FILE, pinned
from tests import federation as testing
from tests.fake_bus import Clock, FakeBus, Memory
from tests.making import NOW
from tests.trust import signed_world as world
from tests.trust.signed_world import changed_name, content, first_content, next_draft, opened


@dataclass
class Site:
    """A broker and a member, each with a home of its own, on one bus."""

    folder: Path
    bus: FakeBus
    clock: Clock

    @property
    def operator(self) -> Path:
        return self.folder / "operator"

    @property
    def member(self) -> Versions:
        return Versions(self.folder / "member" / "versions", lambda: self.clock.now)

    async def write(self, kind: str, value: bytes) -> None:
        await self.bus.append(streams.VERSIONS, [(b"", codec.encode(Version(kind, value)))])

    async def leaves(self, count: int) -> list[Leaf]:
        """What became of the versions, once there are so many; also of a broker that was started anew."""
        made = testing.Federation(self.operator, self.bus, self.clock)
        async with testing.running(self.operator, self.bus, lambda: self.clock.now):
            while len(found := [each for each in await made.leaves() if each.kind != "resumed"]) < count:
                await self.bus.read(streams.TRAIL, await self.bus.end(streams.TRAIL), wait=0.05)
        return found


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    clock = Clock(NOW)
    made = Site(tmp_path, FakeBus(Memory(clock=clock)), clock)
    for home in (made.operator, tmp_path / "member"):
        Versions(home / "versions").pin(world.root())
    return made


def allowed(base: Opened, number: int = 1, *signers: str) -> bytes:
    """The packaged policy set, as AT drafted it and these members signed it."""
    made = draft.propose_policies(PolicySet.packaged().content, number, "AT", NOW)
    return draft.allowed(world.signed_by(made, base, *(signers or ("AT", "LV"))), base)


async def test_an_unsigned_directory_is_refused_by_the_broker_and_the_member(site: Site) -> None:
    await site.write("directory", members.canonical(testing.directory()))
    (leaf,) = await site.leaves(1)
    assert (leaf.kind, leaf.code) == ("version-refused", "version-refused")
    assert await site.member.follow(site.bus) == 0
    assert "it is not signed" in site.member.refused()


async def test_a_signed_directory_and_policy_set_are_adopted_by_both(site: Site) -> None:
    first = opened(first_content())
    await site.write("directory", first_content())
    await site.write("policies", allowed(first))
    leaves = await site.leaves(2)
    assert [each.kind for each in leaves] == ["adopted", "adopted"]
    assert (leaves[1].directory, leaves[1].policies) == (first.directory.digest, PolicySet.packaged().digest)
    assert await site.member.follow(site.bus) == 2
    assert site.member.newest().digest == first.directory.digest
    assert site.member.newest_digest("policies") == PolicySet.packaged().digest


async def test_policies_without_two_members_are_refused(site: Site) -> None:
    first = opened(first_content())
    await site.write("directory", first_content())
    await site.write("policies", PolicySet.packaged().content)
    with pytest.raises(Exception, match="policies: 1 more must sign: GE, LV"):
        allowed(first, 1, "AT", "AT")
    alone = draft.propose_policies(PolicySet.packaged().content, 1, "AT", NOW)
    forged = {"bundle": "valise/policies/1", "role": world.signed_by(alone, first, "AT").roles["policies"],
              "policies": alone.policies}  # fmt: skip
    await site.write("policies", json.dumps(forged, separators=(",", ":")).encode())
    assert [each.kind for each in await site.leaves(3)] == ["adopted", "version-refused", "version-refused"]
    await site.member.follow(site.bus)
    assert site.member.newest_digest("policies") is None


async def test_policies_cannot_be_swapped_and_swapped_back(site: Site) -> None:
    first = opened(first_content())
    await site.write("directory", first_content())
    for number in (1, 2, 1):
        await site.write("policies", allowed(first, number))
    leaves = await site.leaves(4)
    assert [each.kind for each in leaves] == ["adopted", "adopted", "adopted", "version-refused"]
    await site.member.follow(site.bus)
    assert "policies: version 1 is older than version 2" in site.member.refused()


async def test_other_policies_than_were_signed_are_refused(site: Site) -> None:
    first = opened(first_content())
    await site.write("directory", first_content())
    swapped = json.loads(allowed(first))
    swapped["policies"] = swapped["policies"].replace("permit", "permit ", 1)
    await site.write("policies", json.dumps(swapped, sort_keys=True, separators=(",", ":")).encode())
    assert [each.kind for each in await site.leaves(2)] == ["adopted", "version-refused"]


async def test_a_broker_that_starts_again_remembers_what_it_has_seen(site: Site) -> None:
    first = opened(first_content())
    after = content(next_draft(first, changed_name(first, "AT", "Vienna")), first, ["AT"])
    await site.write("directory", first_content())
    await site.write("directory", after)
    await site.leaves(2)
    await site.write("directory", first_content())
    site.clock.now += draft.LIFE_MS * 2
    leaves = await site.leaves(3)
    assert [each.kind for each in leaves] == ["adopted", "adopted", "version-refused"]
    assert leaves[2].directory == opened(after).directory.digest


async def test_an_expired_timestamp_is_red_at_the_member_and_a_fresh_one_mends_it(site: Site) -> None:
    first = opened(first_content())
    await site.write("directory", first_content())
    site.clock.now += draft.TIMESTAMP_LIFE_MS + 1000
    assert await site.member.follow(site.bus) == 1
    assert site.member.overdue() == ["timestamp"]
    await site.write("directory", draft.refresh(first, world.TIMESTAMP, site.clock.now))
    await site.member.follow(site.bus)
    assert site.member.overdue() == []
    assert [each.kind for each in await site.leaves(2)] == ["adopted", "adopted"]


async def test_an_expired_directory_is_known_but_not_the_newest(site: Site) -> None:
    await site.write("directory", first_content())
    site.clock.now += draft.LIFE_MS + 1000
    await site.member.follow(site.bus)
    assert site.member.directory(opened(first_content()).directory.digest) is not None
    assert site.member.newest_digest("directory") is None
    assert "has expired" in site.member.refused()


async def test_a_home_without_a_root_believes_no_bundle(site: Site) -> None:
    bare = Versions(site.folder / "bare" / "versions")
    await site.write("directory", first_content())
    assert await bare.follow(site.bus) == 0
    assert "no root is pinned here" in bare.refused()
    bare.pin(world.root())
    assert await bare.follow(site.bus) == 1


async def test_another_root_is_never_pinned_over_the_first(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="pins another root"):
        site.member.pin("ab" * 32)


async def test_a_home_that_kept_nothing_signed_takes_it_in_from_the_bus(site: Site) -> None:
    await site.write("directory", first_content())
    await site.write("policies", allowed(opened(first_content())))
    await site.member.follow(site.bus)
    kept = site.member.signed()
    assert list(kept.values()) == [first_content(), allowed(opened(first_content()))]
    shutil.rmtree(site.folder / "member" / "versions" / "signed")
    assert await site.member.follow(site.bus) == 0
    assert site.member.signed() == kept


async def test_a_home_takes_in_the_annexes_that_the_bus_holds(site: Site) -> None:
    """Also of directories that were drafted elsewhere; what cannot be read is passed over."""
    first, second = (f'{{"annex": {each}}}'.encode() for each in range(2))
    written = [codec.encode(Version("annex", each)) for each in (first, second)]
    await site.bus.append(streams.ANNEXES, [(b"", each) for each in (written[0], b"?", written[1])])
    operator = Versions(site.operator / "versions")
    for _ in range(2):
        await operator.take_annexes(site.bus)
        assert [operator.content(sha256(each).digest()) for each in (first, second)] == [first, second]


@pytest.mark.parametrize("left", [None, b"damaged"])
async def test_what_was_taken_and_is_lost_or_damaged_is_taken_once_more(site: Site, left: bytes | None) -> None:
    """An old directory, one that is the newest, and an old policy set; nothing else becomes a directory by it."""
    first = opened(first_content())
    policies = allowed(first)
    await site.write("directory", first_content())
    await site.write("policies", policies)
    second = content(next_draft(first, changed_name(first, "LV", "Latvia, renamed")), first)
    await site.write("directory", second)
    await site.member.follow(site.bus)
    folder = site.folder / "member" / "versions"
    whole = {each: (folder / each).read_bytes() for each in site.member.kept()}
    assert len(whole) == 3
    for each in whole:
        (folder / each).unlink() if left is None else (folder / each).write_bytes(left)
    other = Versions(folder)
    await other.follow(site.bus)
    await other.take_missing(site.bus)
    assert {each: (folder / each).read_bytes() for each in other.kept()} == whole
    assert other.newest().digest == opened(second, first).directory.digest
    (folder / "directories" / world.root() / first.directory.digest.hex()).unlink()
    (folder / first.directory.digest.hex()).unlink()
    await other.take_missing(site.bus)
    assert other.directory(first.directory.digest) is None, "what the home does not say that it took"


async def test_a_home_that_listed_no_directories_makes_the_list_of_what_was_signed(site: Site) -> None:
    await site.write("directory", first_content())
    await site.write("policies", allowed(opened(first_content())))
    await site.member.follow(site.bus)
    listed = site.folder / "member" / "versions" / "directories"
    kept = sorted(each.relative_to(listed) for each in listed.rglob("*"))
    shutil.rmtree(listed)
    assert site.member.newest().digest == opened(first_content()).directory.digest
    assert await site.member.follow(site.bus) == 0
    assert sorted(each.relative_to(listed) for each in listed.rglob("*")) == kept


async def test_what_a_home_never_took_is_not_listed_afterwards(site: Site) -> None:
    """As a directory that it refused when it came."""
    await site.write("directory", first_content())
    await site.member.follow(site.bus)
    digest = opened(first_content()).directory.digest
    folder = site.folder / "member" / "versions"
    shutil.rmtree(folder / "directories")
    (folder / digest.hex()).unlink()
    said = json.loads((folder / "newest").read_bytes())
    assert said.pop("directory") == digest.hex()
    (folder / "newest").write_text(json.dumps(said), encoding="utf-8")
    again = Versions(folder)
    await again.follow(site.bus)
    assert again.directory(digest) is None
    assert not (folder / "directories").exists()


async def test_several_processes_follow_for_one_home(site: Site) -> None:
    """Each has its own memory of it, and the place in the stream is one."""
    folder = site.folder / "member" / "versions"
    one, other, third = (Versions(folder, lambda: NOW) for _ in range(3))
    first = opened(first_content())
    await site.write("directory", first_content())
    assert other.directory(first.directory.digest) is None
    await one.follow(site.bus)
    assert other.directory(first.directory.digest) is not None
    made = next_draft(first, changed_name(first, "LV", "Latvia, renamed"))
    second = content(made, first)
    await site.write("directory", second)
    await other.follow(site.bus)
    for each in (one, other, third):
        assert each.directory(first.directory.digest) is not None
        assert each.newest().digest == opened(second, first).directory.digest


def test_what_is_no_fingerprint_is_no_root(tmp_path: Path) -> None:
    """It would be shown, and be part of a path."""
    for said in ("../../elsewhere", "\x1b[2J", "AB" * 32, "ab" * 33):
        (tmp_path / ROOT_FILE).write_text(said, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="no fingerprint"):
            pinned(tmp_path)


async def test_an_empty_root_lets_nothing_pass_and_the_root_is_pinned_over_it(site: Site) -> None:
    """What a kill left of it while it was written in place."""
    bare = site.folder / "bare"
    bare.mkdir()
    (bare / "root.sha256").touch()
    await site.write("directory", first_content())
    assert await Versions(bare / "versions").follow(site.bus) == 0
    Versions(bare / "versions").pin(world.root())
    assert await Versions(bare / "versions").follow(site.bus) == 1
