"""Homes of all members of the test's federation in one folder, and what a person types in them."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker import settings as settings_file
from broker.rules import PolicySet
from broker.settings import Settings
from broker.sqlite import SqliteBus
from cli import main as command
from cli.home import clock
from schemas import loader
from tests import federation as world
from tests.broker_beside import broker_beside
from tests.making import FEDERATION, key_of

EUROPOL = "EUROPOL/analysis"


@dataclass
class Answer:
    """What a command said."""

    code: int
    out: str

    @property
    def value(self) -> Any:
        """The JSON value of --json."""
        return json.loads(self.out)


@dataclass
class Homes:
    """The homes of a federation whose broker runs beside the commands."""

    folder: Path

    def valise(self, *arguments: str, given: str | None = None) -> Answer:
        """Run a command as a person would."""

        def run() -> int:
            with pytest.raises(SystemExit) as ended:
                command.main([*arguments, "--home", str(self.folder)])
            return int(ended.value.code or 0)

        out, stdin = io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(given or "")
        try:
            with redirect_stdout(out):
                code = run()
        finally:
            sys.stdin = stdin
        return Answer(code, out.getvalue())


async def _prepare(folder: Path) -> None:
    async with SqliteBus(folder / "bus.db", "operator", world.world(), clock) as bus:
        await bus.create(list(world.world().streams()))
        await world.write_versions(
            bus, world.directory(reviewers=(EUROPOL,), authorities=(EUROPOL,)), PolicySet.packaged()
        )


def make(folder: Path) -> None:
    """Make all members' homes, and a bus with what was published for them; no broker runs on it."""
    (folder / "operator").mkdir()
    for bureau in world.BUREAUS:
        member, _, unit = bureau.partition("/")
        home = folder / "members" / member
        if not home.exists():
            settings_file.save(
                home, Settings(role="member", federation=FEDERATION, bus="sqlite:../../bus.db", member=member)
            )
        key_of(bureau).save(home / "keys" / f"{unit}.pem")
    asyncio.run(_prepare(folder))


@contextmanager
def served(folder: Path) -> Iterator[Homes]:
    """Make all members' homes; a broker runs beside the commands, in a process of its own."""
    make(folder)
    with broker_beside(folder):
        yield Homes(folder)


def person(record: str, **changes: Any) -> str:
    """A draft, as an integrator writes it."""
    made = {
        "record": record,
        "kind": "person",
        "topics": ["sought.red"],
        "purpose": "criminal-investigation",
        "legal_basis": "invented",
        "audience": {"to": ["LV/ncb", "GE/ncb"]},
        "subject_categories": ["suspect"],
        "minor": "no",
        "compartments": {name: loader.example(f"person.{name}") for name in ("identity", "warnings")},
    }
    return json.dumps(made | changes)


def notices(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.value["notices"]
    return found


def publish(homes: Homes, draft: str, *more: str) -> Answer:
    """Publish for AT/ncb and wait for the outcome."""
    return homes.valise("publish", "-", "--bureau", "AT/ncb", "--json", "--wait", "60", *more, given=draft)
