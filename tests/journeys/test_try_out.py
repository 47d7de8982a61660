"""What a new user tries: a person invented, a circle, a member that must not know, one changed byte."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker import streams
from cli import seed, subscribe
from cli.stage import Stage, running, set_up, settled

pytestmark = pytest.mark.slow
RULE = "No hint of it: nothing that RU can read holds a byte of the notice or of its being denied."
BUREAUS = ("LV/ncb", "GE/organised-crime", "RU/ncb", "RU/organised-crime")
PERSON: dict[str, Any] = {
    "record": "lv-invented-77",
    "kind": "person",
    "topics": ["organised-crime.eurasian"],
    "purpose": "criminal-investigation",
    "legal_basis": "Invented act, section 4",
    "audience": {"agreements": ["project-millennium"]},
    "deny": ["RU"],
    "subject_categories": ["suspect"],
    "minor": "no",
    "compartments": {
        "identity": {"names": [{"family": "Zvirbulauskis", "given": "Avtandil", "script": "Latn", "kind": "primary"}]},
    },
}


class Result:
    """A command that ran to its end."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.said, self.errors = done.returncode, done.stdout, done.stderr

    @property
    def value(self) -> Any:
        assert self.code == 0, self.errors
        return json.loads(self.said)


async def valise(*arguments: str) -> Result:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    return Result(await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60))


@asynccontextmanager
async def federation(home: Path) -> AsyncIterator[Stage]:
    """The first federation, four of its bureaus with a home; all of them want to know of Eurasian organised crime."""
    stage = await set_up(home, seed.seed(), "sqlite", BUREAUS, lambda _: None)
    async with running(stage):
        for bureau in BUREAUS:
            await subscribe.send(stage.member(bureau), ("organised-crime.*",))
        await settled(stage)
        yield stage


async def published(stage: Stage, draft: dict[str, Any]) -> str:
    """Publish for LV and give the notice's id."""
    file = stage.home / "person.json"
    file.write_text(json.dumps(draft, ensure_ascii=False), encoding="utf-8")
    words = ("publish", str(file), "--bureau", "LV/ncb", "--wait", "45", "--home", str(stage.home), "--json")
    said = (await valise(*words)).value
    assert [each["state"] for each in said["notices"]] == ["routed"]
    await settled(stage)
    return str(said["notices"][0]["notice"])


async def listed(stage: Stage, bureau: str) -> list[str]:
    said = (await valise("inbox", "--bureau", bureau, "--home", str(stage.home), "--json")).value
    assert said["alarms"] == []
    return [each["notice"] for each in said["notices"]]


async def readable(stage: Stage, member: str) -> list[bytes]:
    """Every byte on the bus and in its home that a member can read."""
    found = [path.read_bytes() for path in (stage.home / "members" / member).rglob("*") if path.is_file()]
    home = stage.member(f"{member}/ncb")
    async with home.bus() as bus:
        world, principal = home.world(), streams.adapter(member)
        for name in (each for each in world.streams() if principal in world.readers(each)):
            place = 0
            while records := await bus.read(name, place):
                found += [part for each in records for part in (each.key, each.value or b"")]
                place = records[-1].offset + 1
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def test_what_latvia_denies_to_russia_arrives_in_georgia_and_leaves_no_hint_in_russia(home: Path) -> None:
    async with federation(home) as stage:
        notice = await published(stage, PERSON)

        assert await listed(stage, "GE/organised-crime") == [notice]
        assert await listed(stage, "RU/ncb") == await listed(stage, "RU/organised-crime") == []
        absent = await valise("read", notice, "--case", "X", "--bureau", "RU/ncb", "--home", str(home))
        assert (absent.code, absent.errors) == (1, "no-such-notice: no such notice\n")

        hints = [notice.encode(), uuid.UUID(notice).bytes, b"lv-invented-77", b"Zvirbulauskis", b"Invented act"]
        held = await readable(stage, "RU")
        assert len(held) > 10
        assert [hint for hint in hints for data in held if hint in data] == [], RULE
        assert [data for data in await readable(stage, "GE") if uuid.UUID(notice).bytes in data] != []


async def test_without_the_denial_russia_would_have_received_it(home: Path) -> None:
    async with federation(home) as stage:
        notice = await published(stage, PERSON | {"deny": []})

        assert await listed(stage, "RU/organised-crime") == [notice]


async def test_the_issuer_sees_who_received_and_who_has_read(home: Path) -> None:
    async with federation(home) as stage:
        notice = await published(stage, PERSON)
        await listed(stage, "GE/organised-crime")
        await valise("read", notice, "--case", "GE-1", "--bureau", "GE/organised-crime", "--home", str(home))
        await settled(stage)

        said = (await valise("trace", notice, "--bureau", "LV/ncb", "--home", str(home), "--json")).value

        (reached,) = said["reached"]
        assert reached["bureau"] == "GE/organised-crime"
        assert [each["act"] for each in reached["answers"]] == ["received", "read"]


@pytest.mark.parametrize("where", ["tile/0", "tile/entries"])
async def test_one_changed_byte_of_a_tile_is_named_and_the_exit_code_is_four(home: Path, where: str) -> None:
    async with federation(home) as stage:
        await published(stage, PERSON)
        await listed(stage, "GE/organised-crime")
    trail = home / "operator" / "trail"
    assert (await valise("audit", "verify", str(trail))).code == 0
    parts = sorted((path for path in (trail / where).rglob("*") if path.is_file()), key=lambda path: int(path.name))
    for tile in (parts[0], parts[-1]):  # one that an earlier head needs, and the one that is in force
        data = tile.read_bytes()
        tile.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])

        found = await valise("audit", "verify", str(trail))

        assert found.code == 4
        assert str(tile.relative_to(trail)) in found.said.splitlines()[0]
        tile.write_bytes(data)


async def test_the_status_tells_who_was_heard_of(home: Path) -> None:
    async with federation(home) as stage:
        await published(stage, PERSON)
        said = (await valise("broker", "status", "--home", str(home), "--json")).value

    assert said["kinds"]["routed"] == 1
    assert said["waiting"] == {}
    assert said["last_seen"]["LV"] is not None
    assert said["last_seen"]["AT"] is None
