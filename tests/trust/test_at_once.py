"""Several people act for one home, or one federation, at once: each is told the truth, nothing of theirs is lost."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from broker import durable, streams
from broker.bus import Bus, Owned
from broker.errors import UnavailableError, VersionRefusedError
from broker.rules import PolicySet
from broker.streams import OPERATOR, SETUP, World
from broker.trust import draft
from broker.trust.bundle import Opened
from broker.trust.draft import Draft, read_draft
from cli import challenges
from cli.officer import activating
from cli.operator_home import OperatorHome, make, operator_home
from cli.stage import Stage
from cli.trust import issuing, policies, proposing, signing
from tests.trust.test_commands import BUREAUS, federation, made, valise

Act = Callable[[], Awaitable[object]]
AT_ONCE = 8
LATE = r"it was written, and is not in force: .*two different versions 2"


class Stopped:
    """A bus whose writer is stopped before it writes a version, while something else happens."""

    def __init__(self, bus: Bus, meanwhile: Act) -> None:
        self._bus, self._meanwhile = bus, meanwhile

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        if stream == streams.VERSIONS:
            await self._meanwhile()
        return await self._bus.append(stream, values, partition=partition)


@dataclass(frozen=True, slots=True)
class Held(OperatorHome):
    """An operator's home whose command is stopped before it writes a version."""

    meanwhile: Act = field(kw_only=True)

    @asynccontextmanager
    async def bus(self, principal: str, world: World | None = None, owned: Owned | None = None) -> AsyncIterator[Bus]:
        async with OperatorHome.bus(self, principal, world, owned) as bus:
            yield Stopped(bus, self.meanwhile)  # type: ignore[misc] # it has all that a bus has


def held(home: OperatorHome, meanwhile: Act) -> Held:
    return Held(home.folder, home.settings, meanwhile=meanwhile)


def elsewhere(stage: Stage) -> OperatorHome:
    """A second home of the operator, as on another machine, on the same bus."""
    other = stage.home / "elsewhere"
    shutil.copytree(stage.operator.folder, other)
    return operator_home(other)


def base_of(home: OperatorHome) -> Opened:
    opened = home.versions.guard().opened
    assert opened is not None
    return opened


async def suspending(stage: Stage, member: str) -> Draft:
    """A draft that suspends a member, signed by all."""
    base = base_of(stage.operator)
    wanted = json.loads(base.plain)
    next(each for each in wanted["members"] if each["id"] == member)["status"] = "suspended"
    path = await proposing.change(stage.operator, f"suspend {member}", wanted, base)
    return signed_by_all(stage, path, base)


def signed_by_all(stage: Stage, path: Path, base: Opened) -> Draft:
    found = read_draft(path.read_bytes())
    for each in stage.members:
        found, _ = signing.sign(stage.home / "members" / each, each, found, base)
    return found


def changed(word: str) -> PolicySet:
    """The packaged policy set, and a remark."""
    files = PolicySet.packaged().files
    first = min(each for each in files if each.endswith(".cedar"))
    return PolicySet.of({**files, first: f"{files[first]}// {word}\n"})


def allowing(stage: Stage, found: PolicySet) -> bytes:
    """The policy set, drafted and signed by all."""
    path, base = policies.propose(stage.operator, found.content, OPERATOR)
    return draft.allowed(signed_by_all(stage, path, base), base)


def suspended(home: OperatorHome) -> list[str]:
    return [each["id"] for each in json.loads(base_of(home).plain)["members"] if each["status"] == "suspended"]


async def seen_by_a_member(stage: Stage) -> tuple[int, str]:
    at = stage.member("AT/ncb")
    await at.follow()
    return at.versions.newest().version, at.versions.refused()


async def test_two_drafts_activated_at_once_one_is_in_force_and_the_other_is_refused(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    drafts = [await suspending(stage, each) for each in ("LV", "GE")]
    done = await asyncio.gather(
        *(proposing.activate(stage.operator, [each]) for each in drafts), return_exceptions=True
    )
    (refused,) = [each for each in done if isinstance(each, BaseException)]
    assert isinstance(refused, VersionRefusedError)
    assert len(suspended(stage.operator)) == 1
    assert await seen_by_a_member(stage) == (2, "")


async def test_while_one_activates_nobody_else_of_that_home_writes_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an activation nor the running broker's timestamp, nor a policy set."""
    stage = await made(tmp_path)
    first, second = [await suspending(stage, each) for each in ("LV", "GE")]
    other = changed("by one word")
    allowed = allowing(stage, other)
    monkeypatch.setattr(durable, "ALONE_S", 0.0)
    monkeypatch.setattr(proposing, "TURN_S", 0.0)
    monkeypatch.setattr(proposing, "REFRESH_MS", draft.LIFE_MS)  # it is time

    async def others() -> None:
        with pytest.raises(UnavailableError, match="end it if it is stopped"):
            await proposing.activate(stage.operator, [second])
        with pytest.raises(UnavailableError, match="end it if it is stopped"):
            await activating._write(stage.operator, other, allowed, 0)
        async with stage.operator.bus(OPERATOR) as bus:
            with pytest.raises(UnavailableError, match="end it if it is stopped"):
                await proposing.refresh(stage.operator, bus)

    await proposing.activate(held(stage.operator, others), [first])
    assert suspended(stage.operator) == ["LV"]
    async with stage.operator.bus(OPERATOR) as bus:
        assert await proposing.refresh(stage.operator, bus)
    assert await seen_by_a_member(stage) == (2, "")


async def test_only_who_writes_versions_or_sets_bindings_waits_while_the_nodes_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a thief's principal is stopped, and a challenge given, is kept at once."""
    home = make(tmp_path, federation(*BUREAUS), "kafka")
    monkeypatch.setattr(durable, "ALONE_S", 0.0)
    monkeypatch.setattr(proposing, "TURN_S", 0.0)
    async with proposing.in_turn(home):
        challenges.give(home.folder, "AT/ncb")
        issuing.stop(home, "at.ncb")
        make(tmp_path, federation(*BUREAUS), "kafka")
        with pytest.raises(UnavailableError, match="end it if it is stopped"):
            await proposing.bring_up(home)  # before it looks: no node runs


@dataclass(frozen=True, slots=True)
class Binding(OperatorHome):
    """An operator's home that notes for which worlds it makes streams and sets bindings."""

    worlds: list[World] = field(kw_only=True)

    @asynccontextmanager
    async def bus(self, principal: str, world: World | None = None, owned: Owned | None = None) -> AsyncIterator[Bus]:
        if principal == SETUP and world is not None:
            self.worlds.append(world)
        async with OperatorHome.bus(self, principal, world, owned) as bus:
            yield bus


async def test_who_binds_while_another_activates_waits_and_binds_by_what_is_in_force_then(tmp_path: Path) -> None:
    """What was in force when he came would cut off who enters, and give back to who leaves."""
    stage = await made(tmp_path)
    larger = replace(stage, federation=federation(*BUREAUS, "FR/ncb"))
    assert (await valise(stage.home, "key", "new", "--bureau", "FR/ncb")).code == 0
    stage.member("FR/ncb").versions.pin(str(stage.operator.versions.guard().root))
    proposed = await proposing.propose(stage.operator, larger.federation, [stage.home / "members"])
    wider = signed_by_all(larger, proposed.path, base_of(stage.operator))
    second, bound = Binding(stage.operator.folder, stage.operator.settings, worlds=[]), list[asyncio.Task[None]]()

    async def meanwhile() -> None:
        bound.append(asyncio.create_task(proposing.bring_up(second)))
        await asyncio.sleep(0.3)
        assert (bound[0].done(), second.worlds) == (False, [])

    await proposing.activate(held(stage.operator, meanwhile), [wider])
    await bound[0]
    assert ["FR/ncb" in each.bureaus for each in second.worlds] == [True]


async def test_who_activates_on_another_machine_at_the_same_time_is_told_that_it_is_not_in_force(
    tmp_path: Path,
) -> None:
    """No lock reaches there."""
    stage = await made(tmp_path)
    first, second = [await suspending(stage, each) for each in ("LV", "GE")]
    other = elsewhere(stage)

    async def faster() -> None:
        await proposing.activate(other, [second])

    with pytest.raises(VersionRefusedError, match=LATE):
        await proposing.activate(held(stage.operator, faster), [first])
    assert suspended(stage.operator) == suspended(other) == ["GE"]


async def test_who_was_slower_than_another_machine_drafts_anew_and_nothing_rings_any_more(tmp_path: Path) -> None:
    """What he had written stays in the stream, refused: nobody repairs it, and nobody has to."""
    stage = await made(tmp_path)
    first, second = [await suspending(stage, each) for each in ("LV", "GE")]
    other = elsewhere(stage)

    async def faster() -> None:
        await proposing.activate(other, [second])

    with pytest.raises(VersionRefusedError, match="the same command again, or draft it anew"):
        await proposing.activate(held(stage.operator, faster), [first])
    assert "two different versions 2" in (await seen_by_a_member(stage))[1]
    with pytest.raises(VersionRefusedError, match=r"no version was written.*since this was drafted, draft it anew"):
        await proposing.activate(stage.operator, [first])
    await proposing.activate(stage.operator, [await suspending(stage, "LV")])
    assert suspended(stage.operator) == ["GE", "LV"]
    assert await seen_by_a_member(stage) == (3, "")
    await proposing.standing(other)
    assert (suspended(other), other.versions.refused()) == (["GE", "LV"], "")


async def test_a_challenge_waits_on_where_the_directory_that_answered_it_is_not_in_force(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    other, theirs = elsewhere(stage), await suspending(stage, "GE")
    larger = replace(stage, federation=federation(*BUREAUS, "FR/ncb"))
    assert (await valise(stage.home, "key", "new", "--bureau", "FR/ncb")).code == 0
    stage.member("FR/ncb").versions.pin(str(stage.operator.versions.guard().root))
    proposed = await proposing.propose(stage.operator, larger.federation, [stage.home / "members"])
    ours = signed_by_all(larger, proposed.path, base_of(stage.operator))
    given = challenges.give(stage.operator.folder, "FR/ncb")

    async def faster() -> None:
        assert challenges.outstanding(stage.operator.folder) == {}
        await proposing.activate(other, [theirs])

    with pytest.raises(VersionRefusedError, match=LATE):
        await proposing.activate(held(stage.operator, faster), [ours])
    assert challenges.outstanding(stage.operator.folder) == {"FR/ncb": given}


def test_a_challenge_that_waits_again_replaces_none_that_was_given_since(tmp_path: Path) -> None:
    given = {each: challenges.give(tmp_path, each) for each in ("AT/ncb", "LV/ncb")}
    used = challenges.answered(tmp_path, ["AT/ncb", "LV/ncb", "GE/ncb"])
    assert (used, challenges.outstanding(tmp_path)) == (given, {})
    newer = challenges.give(tmp_path, "LV/ncb")
    challenges.wait_again(tmp_path, used)
    assert challenges.outstanding(tmp_path) == {"AT/ncb": given["AT/ncb"], "LV/ncb": newer}


async def test_a_policy_set_that_another_machine_was_faster_with_is_not_called_written(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    other, (ours, theirs) = elsewhere(stage), [changed(each) for each in ("ours", "theirs")]
    allowed = {each.digest: allowing(stage, each) for each in (ours, theirs)}

    async def faster() -> None:
        await activating._write(other, theirs, allowed[theirs.digest], 0)

    with pytest.raises(VersionRefusedError, match=LATE):
        await activating._write(held(stage.operator, faster), ours, allowed[ours.digest], 0)
    assert stage.operator.versions.newest_digest("policies") == theirs.digest


async def test_a_policy_set_is_held_against_what_is_in_force_when_it_is_written(tmp_path: Path) -> None:
    """Not only against what its writer compared it with."""
    stage = await made(tmp_path)
    first, second = [changed(each) for each in ("first", "second")]
    allowed = [allowing(stage, each) for each in (first, second)]
    await activating._write(stage.operator, first, allowed[0], 0)
    async with stage.operator.bus(OPERATOR) as bus:
        end = await bus.end(streams.VERSIONS)
        with pytest.raises(VersionRefusedError, match=r"two different versions 2; no version .* draft it anew"):
            await activating._write(stage.operator, second, allowed[1], 0)
        assert await bus.end(streams.VERSIONS) == end


async def test_a_member_who_reads_a_draft_while_another_signs_it_loses_no_signature(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    path = (await valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    command = (sys.executable, "-m", "cli.main", "directory", "sign", path, "--bureau", "AT/ncb", "--home", str(home))
    reading = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE)
    assert reading.stdin is not None
    assert reading.stderr is not None
    async with asyncio.timeout(60):
        await reading.stderr.readuntil(b"sign this as AT?")
        assert (await valise(home, "directory", "sign", path, "--bureau", "LV/ncb", "--yes")).code == 0
        await reading.communicate(b"y\n")
    assert reading.returncode == 0
    assert (await valise(home, "directory", "activate", path)).code == 0


async def test_members_who_sign_one_file_at_once_have_all_signed_it(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    path = (await valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    sign = ("directory", "sign", path, "--yes", "--bureau")
    done = await asyncio.gather(*(valise(home, *sign, each) for each in ("AT/ncb", "LV/ncb")))
    assert [each.code for each in done] == [0, 0]
    assert (await valise(home, "directory", "activate", path)).code == 0


def test_a_draft_that_lies_in_anothers_place_is_not_written_over(tmp_path: Path) -> None:
    home = asyncio.run(made(tmp_path)).home
    circle = asyncio.run(valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    member = asyncio.run(valise(home, "member", "suspend", "GE", "--json")).value["draft"]
    there = Path(member).read_bytes()
    sign = ("directory", "sign", circle, "--to", member, "--yes", "--bureau", "AT/ncb")
    refused = asyncio.run(valise(home, *sign))
    assert (refused.code, "is no copy of this draft" in refused.err) == (1, True)
    assert Path(member).read_bytes() == there


async def test_drafts_that_are_made_at_once_lie_in_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 60.0)  # the others may take that long on a busy machine
    stage = await made(tmp_path)
    one = await suspending(stage, "LV")
    drafts = [one.model_copy(update={"title": f"draft {number}"}) for number in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        paths = list(threads.map(lambda each: proposing.keep(stage.operator, each), drafts))
    assert [read_draft(each.read_bytes()).title for each in paths] == [each.title for each in drafts]
    paths[0].unlink()
    assert proposing.keep(stage.operator, one) not in paths
    assert [read_draft(each.read_bytes()).title for each in paths[1:]] == [each.title for each in drafts[1:]]


def test_challenges_that_are_given_and_answered_at_once_are_kept_as_they_were_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 60.0)  # the others may take that long on a busy machine
    old = [f"AT/old-{number}" for number in range(AT_ONCE)]
    for each in old:
        challenges.give(tmp_path, each)
    new = [f"AT/new-{number}" for number in range(AT_ONCE)]
    with ThreadPoolExecutor(2 * AT_ONCE) as threads:
        answers = threads.map(lambda each: challenges.answered(tmp_path, [each]), old)
        told = dict(zip(new, threads.map(lambda each: challenges.give(tmp_path, each), new), strict=True))
        assert [len(each) for each in answers] == [1] * AT_ONCE
    assert challenges.outstanding(tmp_path) == told
