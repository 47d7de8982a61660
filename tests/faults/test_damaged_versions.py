"""Whichever file of a home's `versions` is damaged, lost or of before, a command mends it or says truly what to do."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.bus import Owned
from broker.errors import ConfigurationError, UnavailableError
from cli import broker as broker_command
from cli.operator_home import operator_home
from cli.stage import Stage, joined, running, set_up, settled
from cli.trust import proposing
from tests.journeys.member_homes import Answer, Homes, person
from tests.trust.test_commands import federation

pytestmark = pytest.mark.slow
FIRST, SECOND = ("AT/ncb", "LV/ncb"), ("AT/ncb", "LV/ncb", "GE/ncb")
COMMANDS = {
    "status": ("directory", "status", "--json"),
    "inbox": ("inbox", "--bureau", "AT/ncb", "--json"),
    "publish": ("publish", "-", "--dry-run", "--bureau", "AT/ncb", "--json"),
}
AT, OPERATOR = Path("members/AT/versions"), Path("operator/versions")
Damage = Callable[[Path], None]
LOST = "is missing or damaged: `valise directory status` takes it from the bus once more"
NEWEST = "newest is damaged: remove newest from"
DAMAGED_NEWEST = ("newest cut", "newest emptied")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _lost(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES: dict[str, Damage] = {"cut": _cut, "emptied": _emptied, "lost": _lost}


class Whole:
    """A federation whose second directory took a third member in, and a copy of it as it was before that."""

    def __init__(self, folder: Path) -> None:
        self.home, self.before = folder / "home", folder / "before"

    async def make(self) -> None:
        stage = await set_up(self.home, federation(*FIRST), "sqlite", FIRST, lambda _: None)
        await self._lived(stage)
        shutil.copytree(self.home, self.before)
        await self._lived(await joined(stage, federation(*SECOND), ["GE/ncb"]))

    async def _lived(self, stage: Stage) -> None:
        async with running(stage):
            await settled(stage)
        for each in FIRST:
            await stage.member(each).follow()

    def names(self, versions: Path) -> list[str]:
        found = sorted((self.home / versions).rglob("*"))
        return [str(each.relative_to(self.home / versions)) for each in found]

    def copy(self, to: Path) -> Homes:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.home, to)
        return Homes(to)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    made = Whole(tmp_path_factory.mktemp("whole"))
    asyncio.run(made.make())
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def states(whole: Whole, versions: Path) -> Iterator[tuple[str, Damage]]:
    """All that may have become of a folder. Of an empty file only the name says anything."""

    def of(name: str, damage: Damage) -> Damage:
        return lambda folder: damage(folder / name)

    for name in whole.names(versions):
        file = whole.home / versions / name
        for how, damage in DAMAGES.items():
            if damage is _lost or (file.is_file() and file.stat().st_size):
                yield f"{name} {how}", of(name, damage)
    before = whole.before / versions

    def newest_of_before(folder: Path) -> None:
        shutil.copy(before / "newest", folder / "newest")

    def others_of_before(folder: Path) -> None:
        newest = (folder / "newest").read_bytes()
        all_of_before(folder)
        (folder / "newest").write_bytes(newest)

    def all_of_before(folder: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(before, folder)

    def no_empty_files(folder: Path) -> None:
        for each in folder.rglob("*"):
            if each.is_file() and not each.stat().st_size:
                each.unlink()

    yield "newest of before", newest_of_before
    yield "all else of before", others_of_before
    yield "all of before", all_of_before
    yield "no empty files", no_empty_files
    yield "all lost", _lost


def test_a_member_goes_on_or_is_told_what_to_do(
    whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, wrong, count = tmp_path / "home", dict[str, object](), 0
    right = {name: run(whole.copy(home), name) for name in COMMANDS}
    assert {each.code for each in right.values()} == {0}
    files = contents(whole.home / AT)
    for state, damage in states(whole, AT):
        for name in COMMANDS:
            homes, count = whole.copy(home), count + 1
            damage(home / AT)
            capsys.readouterr()
            done, said = run(homes, name), capsys.readouterr().err
            if state in DAMAGED_NEWEST and done.code and NEWEST in said:
                (home / AT / "newest").unlink()
                done, said = run(homes, name), capsys.readouterr().err
            if (done.code, answered(done), said) != (0, answered(right[name]), ""):
                wrong[f"{state}: {name}"] = (done, said)
            elif name == "status" and contents(home / AT) != files:
                wrong[f"{state}: after {name}"] = contents(home / AT).keys() ^ files.keys()
    assert wrong == {}
    assert count > 80


def test_a_member_whose_bus_does_not_answer_is_told_what_is_lost_and_shown_nothing_older(
    whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, wrong, failed = tmp_path / "home", dict[str, object](), 0

    def away() -> Homes:
        homes = whole.copy(home)
        (home / "bus.db").unlink()
        return homes

    right = {name: answered(run(away(), name)) for name in COMMANDS}
    for state, damage in states(whole, AT):
        homes = away()
        damage(home / AT)
        for name in COMMANDS:
            capsys.readouterr()
            done, said = run(homes, name), capsys.readouterr().err
            if "Traceback" in said or (done.out and answered(done) != right[name] and "of before" not in state):
                wrong[f"{state}: {name}"] = (done, said)
            elif not done.out:
                failed += 1
                lost = LOST in said or "takes in what the bus holds, and what was lost or damaged here" in said
                lost |= state in DAMAGED_NEWEST and NEWEST in said
                lost |= state == "all lost" and "directory has" in said  # as in a home that is new
                if not lost:
                    wrong[f"{state}: {name}"] = (done, said)
    assert wrong == {}
    assert failed > 10


def test_an_operator_goes_on_or_is_told_what_to_do(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    """After `broker up` the home has all that an auditor is given."""
    homes, wrong = Homes(whole.home), dict[str, object]()
    names = {"directory": ("directory", "status", "--json"), "broker": ("broker", "status", "--json")}
    right = {name: operated(homes.valise(*words)) for name, words in names.items()}
    folder = whole.home / OPERATOR  # in its place: a copy of a home is not run
    files, listed = contents(folder), [*states(whole, OPERATOR)]
    shutil.copytree(folder, kept := whole.home / "kept")

    def damaged(damage: Damage) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
        damage(folder)
        capsys.readouterr()

    for state, damage in listed:
        for name, words in names.items():
            damaged(damage)
            done, said = homes.valise(*words), capsys.readouterr().err
            told = state in DAMAGED_NEWEST and NEWEST in said
            # To look at the broker reads nothing in.
            told |= name == "broker" and LOST in said
            if operated(done) != right[name] and not (done.code == 1 and told):
                wrong[f"{state}: {name}"] = (done, said)
        damaged(damage)
        said = asyncio.run(up(whole.home))
        if state in DAMAGED_NEWEST and NEWEST in said:
            (folder / "newest").unlink()
            said = asyncio.run(up(whole.home))
        if said or contents(folder) != files:
            wrong[f"{state}: up"] = (said, contents(folder).keys() ^ files.keys())
    assert wrong == {}


@pytest.mark.parametrize("left", ["all", "newest", "signed"])
async def test_an_operator_whose_bus_is_lost_is_given_no_new_one_in_its_place(
    whole: Whole, tmp_path: Path, left: str
) -> None:
    """Whatever of the versions that came by it is lost, too."""
    home = whole.copy(tmp_path / "home").folder
    (home / "bus.db").unlink()
    for each in (home / OPERATOR).iterdir() if left != "all" else ():
        if each.name != left:
            _lost(each)
    for act in (proposing.ready, proposing.standing):
        with pytest.raises(UnavailableError, match="there is no bus at"):
            await act(operator_home(home))
    assert not (home / "bus.db").exists()


async def up(home: Path) -> str:
    """Run the broker until it is up; give what it ended with instead."""
    ready, operator = asyncio.Event(), operator_home(home)
    running = broker_command._run_until_other_streams(operator, operator.owner(), Owned(), ready.set)
    working = asyncio.ensure_future(running)
    waiting = asyncio.ensure_future(ready.wait())
    await asyncio.wait([working, waiting], timeout=60, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    working.cancel()
    (ended,) = await asyncio.gather(working, return_exceptions=True)
    if isinstance(ended, Exception) and not isinstance(ended, ConfigurationError):
        raise ended
    assert ready.is_set() or isinstance(ended, ConfigurationError)
    return "" if ready.is_set() else str(ended)


def operated(done: Answer) -> object:
    """What does not change from look to look."""
    value = json.loads(done.out) if done.out else {}
    return done.code, {each: value.get(each) for each in ("version", "digest", "root", "waiting", "late")}


def run(homes: Homes, name: str) -> Answer:
    words = COMMANDS[name] if name != "status" else (*COMMANDS[name], "--bureau", "AT/ncb")
    return homes.valise(*words, given=person("R-1", audience={"to": ["LV/ncb"]}))


def answered(done: Answer) -> object:
    return done.value if done.out else None
