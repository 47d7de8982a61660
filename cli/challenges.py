"""`valise key challenge`: give a member something to sign, so that its key request is of today and meant for us."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    """Make and keep a challenge; it replaces the one before. Raises UnavailableError."""
    made = secrets.token_hex(32)
    with _changing(folder) as waiting:
        waiting[bureau] = made
    return made


def outstanding(folder: Path) -> dict[str, str]:
    """Give the challenges that wait for an answer, by bureau."""
    try:
        found: dict[str, str] = json.loads((folder / "challenges.json").read_bytes())
    except FileNotFoundError:
        return {}
    return found


def answered(folder: Path, bureaus: Iterable[str]) -> dict[str, str]:
    """Let nobody answer a challenge twice; give those that wait no longer, by bureau. Raises UnavailableError."""
    done = set(bureaus)
    if not done & outstanding(folder).keys():
        return {}
    with _changing(folder) as waiting:
        return {bureau: waiting.pop(bureau) for bureau in sorted(done & waiting.keys())}


def wait_again(folder: Path, given: Mapping[str, str]) -> None:
    """Let challenges wait that nothing has answered after all; one that was given since stays. UnavailableError."""
    if given:
        with _changing(folder) as waiting:
            waiting |= {**given, **waiting}


@contextmanager
def _changing(folder: Path) -> Iterator[dict[str, str]]:
    """Read, change and keep the challenges with nobody between: one that was told would be gone, or stand again."""
    with durable.alone(folder):
        waiting = outstanding(folder)
        yield waiting
        durable.put(folder / "challenges.json", json.dumps(waiting, indent=1).encode())
