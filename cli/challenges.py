"""`valise key challenge`: give a member something to sign, so that its key request is of today and meant for us."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path

import click

from broker import durable
from broker.errors import ConfigurationError
from broker.settings import load
from cli import answer
from cli.options import Everywhere, everywhere


@click.command()
@click.argument("bureau")
@everywhere
def challenge(given: Everywhere, bureau: str) -> None:
    """Make a challenge for BUREAU: its next key request is taken only if it answers it (operator)."""
    folder = given.home if (given.home / "log.key").is_file() else given.home / "operator"
    if load(folder).role != "operator":
        message = f"{folder} is a member's home: the operator gives challenges"
        raise ConfigurationError(message)
    made = give(folder, bureau)
    answer.show(
        f"{bureau} is to answer {made}",
        {"bureau": bureau, "challenge": made},
        as_json=given.as_json,
        then=f"tell them: valise key new --bureau {bureau} --challenge {made}",
    )


def give(folder: Path, bureau: str) -> str:
    """Make and keep a challenge; it replaces the one before."""
    made = secrets.token_hex(32)
    _keep(folder, outstanding(folder) | {bureau: made})
    return made


def outstanding(folder: Path) -> dict[str, str]:
    """Give the challenges that wait for an answer, by bureau."""
    try:
        found: dict[str, str] = json.loads((folder / "challenges.json").read_bytes())
    except FileNotFoundError:
        return {}
    return found


def answered(folder: Path, bureaus: Iterable[str]) -> None:
    """Let nobody answer a challenge twice."""
    waiting, done = outstanding(folder), set(bureaus)
    if done & waiting.keys():
        _keep(folder, {bureau: each for bureau, each in waiting.items() if bureau not in done})


def _keep(folder: Path, given: dict[str, str]) -> None:
    durable.put(folder / "challenges.json", json.dumps(given, indent=1).encode())
