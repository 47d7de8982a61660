"""An activation that was cut off is gone through with by the same command, and nobody loses what he has on the bus."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker import streams, topics
from broker.bindings import Binding, standing
from broker.certificates import credentials, pki_of
from broker.errors import VersionRefusedError
from broker.trust.draft import Draft, read_draft
from broker.trust.guard import ROOT_FILE
from cli import challenges
from cli.operator_home import NOBODY, operator_home
from cli.operator_streams import stopped
from cli.stage import Stage, set_up
from cli.trust import proposing, signing
from tests.trust.on_node import served
from tests.trust.test_commands import BUREAUS, federation, valise

KAFKA = pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.timeout(300)])


def activated(home: Path, bus: str) -> Stage:
    return asyncio.run(set_up(home, federation(*BUREAUS), bus, BUREAUS, lambda _: None))


@pytest.fixture(scope="module")
def with_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One node for all tests: each leaves versions and bindings as it found them."""
    with served(tmp_path_factory.mktemp("made") / "home") as made:
        yield made


@pytest.fixture(params=["sqlite", KAFKA])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    home = tmp_path / "home"
    if request.param == "sqlite":
        return activated(home, request.param)
    made: Stage = request.getfixturevalue("with_node")
    shutil.copytree(made.home, home, ignore=shutil.ignore_patterns("kafka"))  # the node's own folder
    return Stage(home, made.federation, operator_home(home))


on_kafka = pytest.mark.parametrize("stage", [KAFKA], indirect=True)


def first_draft(stage: Stage) -> Draft:
    """The draft that is in force, as all have signed it."""
    made = read_draft((stage.operator.folder / "drafts" / "1.draft.json").read_bytes())
    for member in stage.members:
        made, _ = signing.sign(stage.home / "members" / member, member, made, None)
    return made


def forget(stage: Stage, *names: str) -> None:
    """Take the operator's home back to before the first activation was followed, or written."""
    for each in (stage.operator.folder / name for name in names):
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def bindings(stage: Stage) -> list[Binding]:
    """Who may do what on the bus; nothing on the embedded one."""
    if stage.operator.settings.bus_kind == "sqlite":
        return []
    who = credentials(pki_of(stage.operator.folder), streams.SETUP)
    return standing(stage.operator.settings.bus_address, who)


def named(found: Iterable[Binding]) -> list[Binding]:
    """Give bindings without the time in a name (`certificates.on_bus`)."""
    return sorted(replace(each, principal=each.called) for each in found)


async def written(stage: Stage) -> int:
    async with stage.operator.bus(streams.OPERATOR, NOBODY) as bus:
        return await bus.end(streams.VERSIONS)


@pytest.mark.parametrize("lost", [["versions"], ["versions", ROOT_FILE]])
async def test_an_activation_that_was_killed_before_it_was_followed_is_finished_by_the_same_command(
    stage: Stage, lost: list[str]
) -> None:
    """Also where the home was restored from before it: `versions` and the pinned root are gone."""
    draft, before, count = first_draft(stage), bindings(stage), await written(stage)
    digest = stage.operator.versions.newest_digest("directory")
    assert digest
    forget(stage, *lost)
    done = await proposing.activate(stage.operator, [draft])
    assert (done.version, done.digest, done.policies) == (1, digest.hex(), True)
    assert (bindings(stage), await written(stage)) == (before, count)
    assert stage.operator.versions.newest_digest("policies")


async def test_a_command_that_only_looks_takes_no_binding_from_anybody(stage: Stage) -> None:
    before = bindings(stage)
    forget(stage, "versions")
    shown = await valise(stage.home, "directory", "status", "--json")
    assert json.loads(shown.out)["version"] == 1
    assert bindings(stage) == before


async def test_bindings_that_were_taken_away_come_back_with_the_next_activation(stage: Stage) -> None:
    draft, before = first_draft(stage), bindings(stage)
    if before:
        who = credentials(pki_of(stage.operator.folder), streams.SETUP)
        topics.establish(stage.operator.settings.bus_address, who, NOBODY)
        assert len(bindings(stage)) < len(before)
    await proposing.activate(stage.operator, [draft])
    assert bindings(stage) == before


async def test_a_draft_that_is_refused_is_refused_without_setup(stage: Stage) -> None:
    base = stage.operator.versions.guard().opened
    assert base
    path = proposing.pass_root(stage.operator, base, stage.members, [stage.home / "members"])
    for each in pki_of(stage.operator.folder).glob("setup.*"):
        each.unlink()
    with pytest.raises(VersionRefusedError, match="more must sign"):
        await proposing.activate(stage.operator, [read_draft(path.read_bytes())])


async def test_a_challenge_is_answered_once_though_the_activation_is_cut_off(tmp_path: Path) -> None:
    stage = await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)
    challenges.give(stage.operator.folder, BUREAUS[0])
    draft = first_draft(stage)
    forget(stage, "versions", *(f"../{each.name}" for each in stage.home.glob("bus.db*")))
    with pytest.raises(VersionRefusedError, match="annex"):  # where it would be written
        await proposing.activate(stage.operator, [draft])
    assert challenges.outstanding(stage.operator.folder) == {}


@on_kafka
@pytest.mark.parametrize("lost", [["versions"], ["versions", ROOT_FILE]])
async def test_who_is_stopped_loses_its_bindings_and_nobody_else_does(stage: Stage, lost: list[str]) -> None:
    """Also by a home that was restored from before anybody entered. No activation gives them back.

    `resume` gives them to its next name, or with `--old-keys` to the one that it has.
    """
    draft, before = first_draft(stage), bindings(stage)
    without = [each for each in before if each.called != "at.adapter"]
    forget(stage, *lost)
    assert (await valise(stage.home, "certificate", "stop", "at.adapter", "--yes")).code == 0
    assert bindings(stage) == without
    await proposing.activate(stage.operator, [draft])
    assert bindings(stage) == without
    assert (await valise(stage.home, "certificate", "resume", "at.adapter", "--old-keys", "--yes")).code == 0
    had = bindings(stage)  # the home is one of before the test that ran here before: it knows no later name
    assert named(had) == named(before)
    assert (await valise(stage.home, "certificate", "stop", "at.adapter", "--yes")).code == 0
    assert (await valise(stage.home, "certificate", "resume", "at.adapter", "--yes")).code == 0
    back = bindings(stage)
    assert {each for each in back if each.called == "at.adapter"}.isdisjoint(had)
    assert named(back) == named(before)


@on_kafka
async def test_a_name_that_nobody_has_is_neither_stopped_nor_resumed(stage: Stage) -> None:
    """A slip of the pen that was answered with success would leave the thief in."""
    before = bindings(stage)
    for command in ("stop", "resume"):
        done = await valise(stage.home, "certificate", command, "at.adaptr", "--yes")
        assert "nobody is called at.adaptr on the bus" in done.err
    assert (bindings(stage), stopped(stage.operator)) == (before, frozenset())
