"""`valise key`: make and list a member's signing keys. Private keys never leave this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from broker import settings as settings_file
from broker.errors import ConfigurationError, ValiseError
from broker.settings import Settings
from broker.signing import SigningKey
from cli import answer
from cli.home import MemberHome, clock, member_home
from cli.options import Everywhere, bureau, everywhere

REQUEST_TYPE = "application/vnd.valise.key-request.v1+json"
"""DSSE payload type of the proof of possession; the payload is the request without `proof`, as canonical JSON."""
_BUREAU = re.compile(r"[A-Z][A-Z0-9]*/[a-z0-9-]+")


@click.group()
def key() -> None:
    """Make and list signing keys."""


@key.command()
@bureau
@everywhere
def new(given: Everywhere, bureau: str | None) -> None:
    """Make a bureau's key, and the request with which the operator puts it into the directory."""
    folder, name, federation = _place(given.home, bureau)
    path, request = make_key(folder, name, federation)
    _settle_in(given.home, folder, name)
    answer.show(
        f"made the key of {name} in {path}",
        {"key": str(path), "request": str(request), **json.loads(request.read_text(encoding="utf-8"))},
        as_json=given.as_json,
        then=f"send {request} to the operator; the key itself stays here",
    )


def make_key(folder: Path, bureau: str, federation: str) -> tuple[Path, Path]:
    """Make a key and its request in a member's home; give their paths. Raises ConfigurationError if there is one."""
    unit = bureau.partition("/")[2]
    path, request = folder / "keys" / f"{unit}.pem", folder / "keys" / f"{unit}.request.json"
    made = SigningKey.new()
    try:
        made.save(path)
    except FileExistsError as error:
        message = f"{bureau} has a key already, {path}: it is never overwritten"
        raise ConfigurationError(message) from error
    request.write_text(json.dumps(key_request(made, bureau, federation), indent=2) + "\n", encoding="utf-8")
    return path, request


def key_request(made: SigningKey, bureau: str, federation: str) -> dict[str, str]:
    """Write what the operator needs, signed with the key itself: whoever asks has the private key."""
    wanted = {
        "federation": federation,
        "bureau": bureau,
        "algorithm": "ed25519",
        "key_id": made.public.id.hex(),
        "public": made.public.raw.hex(),
    }
    return wanted | {"proof": made.sign_payload(REQUEST_TYPE, canonical(wanted)).hex()}


def canonical(wanted: dict[str, str]) -> bytes:
    """Write the bytes that the proof covers."""
    return json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _place(home: Path, bureau: str | None) -> tuple[Path, str, str]:
    """Find the member's home; a key may be made before the home has any settings."""
    try:
        found = member_home(home, bureau)
    except ConfigurationError:
        if bureau is None or (home / "settings.toml").is_file():
            raise
    else:
        return found.folder, found.bureau, found.settings.federation
    if not _BUREAU.fullmatch(bureau):
        message = f"{bureau} is no bureau: write it as AT/ncb"
        raise ConfigurationError(message)
    return home / "members" / bureau.partition("/")[0], bureau, _federation(home)


def _federation(home: Path) -> str:
    try:
        return settings_file.load(home / "operator").federation
    except ConfigurationError:
        return ""


def _settle_in(home: Path, folder: Path, bureau: str) -> None:
    """Give a new member's home its settings where the operator's home lies beside it on an embedded bus."""
    if (folder / "settings.toml").is_file() or not (home / "operator" / "settings.toml").is_file():
        return
    operator = settings_file.load(home / "operator")
    if operator.bus_kind == "sqlite":
        member = bureau.partition("/")[0]
        bus = "sqlite:../../bus.db"
        made = Settings(role="member", federation=operator.federation, bus=bus, member=member, bureau=bureau)
        settings_file.save(folder, made)


@key.command("list")
@bureau
@everywhere
def list_keys(given: Everywhere, bureau: str | None) -> None:
    """List the keys of this home, and whether the directory has them in force."""
    home = member_home(given.home, bureau or _any_bureau(given.home))
    rows = [_row(home, path) for path in sorted((home.folder / "keys").glob("*.pem"))]
    answer.show(
        f"{len(rows)} keys of {home.member}",
        rows,
        as_json=given.as_json,
        table=answer.Table(
            ("bureau", "key id", "state", "until"),
            [(row["bureau"], row["key_id"][:16], row["state"], row["until"]) for row in rows],
        ),
        then=given.again(f"valise key new --bureau {home.member}/NAME"),
    )


def _any_bureau(home: Path) -> str | None:
    """Name any bureau of a member's own home: listing is for all of them."""
    path = home / "settings.toml"
    member = settings_file.load(home).member if path.is_file() else None
    return f"{member}/any" if member else None


def _row(home: MemberHome, path: Path) -> dict[str, Any]:
    name = f"{home.member}/{path.stem}"
    public = SigningKey.load(path).public
    try:
        found = home.versions.newest().key(public.id)
    except ValiseError:
        found = None
    if found is None:
        state, until = "not in the directory", "–"
    else:
        state = "in force" if found.in_force(clock()) else "not in force"
        until = answer.when(found.valid_until)
    return {"bureau": name, "key_id": public.id.hex(), "state": state, "until": until, "path": str(path)}
