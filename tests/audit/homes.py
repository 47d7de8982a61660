"""The homes of a federation with an auditor, beside which a broker runs in a process of its own."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.versions import Versions
from broker import codec
from broker import settings as settings_file
from broker.notice import Leaf
from broker.rules import PolicySet
from broker.settings import Settings
from broker.sqlite import SqliteBus
from broker.trail import Trail
from cli import main as command
from cli.home import clock
from schemas import loader
from tests import federation as world
from tests.audit.conftest import AUDITOR, written_auditor
from tests.broker_beside import broker_beside
from tests.making import FEDERATION, key_of

SECRET = "Katzenstreu Nordbahnhof"
"""Words that stand in a body and nowhere else."""
BASIS = "article 47 of an invented law"


@dataclass(frozen=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The JSON value of --json."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Homes:
    """All homes of the federation in one folder."""

    folder: Path

    @property
    def operator(self) -> Path:
        return self.folder / "operator"

    @property
    def trail(self) -> Trail:
        return Trail.open(self.operator / "trail")

    @property
    def vkey(self) -> str:
        return str(self.operator / "trail" / "vkey")

    def valise(self, *arguments: str, given: str = "") -> Said:
        """Run a command as a person would."""
        out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(given)
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
                command.main([*arguments, "--home", str(self.folder)])
        finally:
            sys.stdin = stdin
        return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def audit(self, *arguments: str) -> Said:
        """Run `valise audit`."""
        return self.valise("audit", *arguments)

    def kinds(self) -> list[str]:
        """Name the kinds of all leaves on disk."""
        return [codec.decode(Leaf, each).kind for each in self.trail.entries()]

    def published(self, record: str) -> tuple[str, int]:
        """Publish a person of AT's to LV; give notice id and leaf number."""
        sent = self.valise("publish", "-", "--bureau", "AT/ncb", "--json", "--wait", "60", given=person(record))
        (notice,) = sent.value["notices"]
        assert notice["state"] == "routed", sent
        shown = self.audit("show", notice["notice"], "--json").value
        return notice["notice"], shown[0]["leaf"]

    def read(self, notice: str) -> None:
        """Let LV take it in and read it for a case; return once the broker has put its receipts on record."""
        assert self.valise("inbox", "--bureau", "LV/ncb", "--json").code == 0
        assert self.valise("read", notice, "--case", "K-1", "--bureau", "LV/ncb", "--json").code == 0
        deadline = time.monotonic() + 60
        while "read" not in self._answers(notice):
            assert time.monotonic() < deadline

    def _answers(self, notice: str) -> set[str]:
        story = self.valise("trace", notice, "--bureau", "AT/ncb", "--json").value
        return {one["act"] for each in story["reached"] for one in each["answers"]}


def person(record: str) -> str:
    """A draft, as an integrator writes it."""
    narrative = {"items": [{"heading": "Facts", "text": SECRET, "language": "en"}]}
    return json.dumps({
        "record": record,
        "kind": "person",
        "topics": ["sought.red"],
        "purpose": "criminal-investigation",
        "legal_basis": BASIS,
        "audience": {"to": ["LV/ncb"]},
        "subject_categories": ["suspect"],
        "minor": "no",
        "compartments": {"identity": loader.example("person.identity"), "narrative": narrative},
    })  # fmt: skip


@contextmanager
def standing(folder: Path) -> Iterator[Homes]:
    """Make the homes and run the broker until the block ends."""
    (folder / "operator").mkdir(parents=True)
    bus = "sqlite:../bus.db"
    settings_file.save(folder / "operator", Settings(role="operator", federation=FEDERATION, bus=bus))
    world.LOG_KEY.save(folder / "operator" / "log.key")
    for bureau in world.BUREAUS:
        member, _, unit = bureau.partition("/")
        home = folder / "members" / member
        if not home.exists():
            settings_file.save(
                home, Settings(role="member", federation=FEDERATION, bus=f"sqlite:../{bus[7:]}", member=member)
            )
        key_of(bureau).save(home / "keys" / f"{unit}.pem")
    key_of(AUDITOR).save(folder / "operator" / "auditors" / f"{AUDITOR}.pem")
    asyncio.run(_prepare(folder))
    with broker_beside(folder):
        (folder / "operator" / "trail" / "vkey").write_text(f"{world.LOG}\n", encoding="utf-8")
        yield Homes(folder)


async def _prepare(folder: Path) -> None:
    async with SqliteBus(folder / "bus.db", "operator", world.world(), clock) as bus:
        await bus.create(list(world.world().streams()))
        written = world.directory(auditors=(written_auditor(),))
        await world.write_versions(bus, written, PolicySet.packaged())
        await Versions(folder / "operator" / "versions").follow(bus)
