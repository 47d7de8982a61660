"""`valise key`: make, take over from, list and revoke signing keys. Private keys never leave this machine or token."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from adapters.versions import Versions
from broker import durable, possession
from broker import settings as settings_file
from broker.directory import Directory, Key
from broker.errors import ConfigurationError, ValiseError
from broker.possession import REQUEST_TYPE, Asked, canonical
from broker.signing import Passphrase, SigningKey
from cli import answer, challenges, exits, key_use, keyring, passphrases, revoke
from cli.home import MemberHome, clock, if_it_answers, member_home, say_called_lost, settling
from cli.keyring import Kept, TokenPlace
from cli.options import Everywhere, Group, bureau, everywhere
from cli.trust import signatories

__all__ = ["REQUEST_TYPE", "canonical", "key", "key_request", "make_key"]
_BARE = (
    "{} lie here without a passphrase: the token has the bureau's key only, not those for directories and policies; "
    "`openssl pkcs8 -topk8` encrypts them, VALISE_PASSPHRASE_FILE does so when they are made"
)


@click.group(cls=Group)
def key() -> None:
    """Make, take over from, list and revoke signing keys."""


key.add_command(revoke.revoke)
key.add_command(revoke.list_revoked)
key.add_command(challenges.challenge)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a new key is to be kept, and what its request answers. `token` None: in a file."""

    challenge: str = ""
    passphrase: bytes | None = None
    token: TokenPlace | None = None


def _how(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how a new key is kept."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--challenge", default="", help="What the operator gave to sign (`valise key challenge`)."),
        click.option(
            "--pin-file", type=path, help=f"With --pkcs11: file with the PIN. Default: {passphrases.PIN_VARIABLE}."
        ),
        click.option(
            "--module", type=path, help="With --pkcs11: the token's library. Default: SoftHSM, where it is found."
        ),
        click.option("--pkcs11", "token", metavar="TOKEN", help="Make the key in the PKCS#11 token of this label."),
        passphrases.prompted,
        passphrases.passphrase_file,
    ):
        command = option(command)
    return command


@key.command()
@_how
@bureau
@everywhere
def new(given: Everywhere, bureau: str | None, **how: Any) -> None:
    """Make a bureau's first key, and the request with which the operator puts it into the directory."""
    folder, name, federation = _where(given.home, bureau)
    if unnamed := _unnamed(given.home, folder, name):
        answer.aside(unnamed)
    wanted = _wanted(folder, name, 1, **how)
    _settle_in(given.home, folder, name)
    # What a member signs with when directories and policies are decided; made once, with its first bureau's key, and
    # before it: a second run after a kill makes what is missing.
    signatory = signatories.make(folder, name.partition("/")[0], federation, wanted.passphrase)
    there = keyring.kept(folder, name)
    path, request = make_key(folder, name, federation, wanted)
    if wanted.token and (bare := signatories.bare(folder)):
        answer.aside(_BARE.format(" and ".join(map(str, bare))))
    first = _asked_for(there[-1]) if there else f"made the key of {name} in {path}"
    _show_made(given, first, path, request, signatory)


@key.command()
@passphrases.prompted
@passphrases.passphrase_file
@bureau
@everywhere
def signatory(given: Everywhere, bureau: str | None, passphrase_file: Path | None, *, ask: bool) -> None:
    """Make the next two keys with which a member signs directories and policies, and the request for them.

    Those before sign, too, until the directory has the new ones.
    """
    home = member_home(given.home, bureau)
    secret = passphrases.for_new(passphrase_file, ask=ask)
    request = signatories.rotate(home.folder, home.member, home.settings.federation, secret)
    answer.show(
        f"made the next keys of {home.member} in {request.parent}; those before still sign",
        {"request": str(request), **json.loads(request.read_bytes())},
        as_json=given.as_json,
        then=f"send {request} to the operator, who drafts `valise member rekey {home.member}` and, where it holds the "
        "root, `valise directory root`; remove the keys before once that is in force",
    )


@key.command()
@_how
@bureau
@everywhere
def rotate(given: Everywhere, bureau: str | None, **how: Any) -> None:
    """Make a bureau's next key. The one before signs until the directory has the new one, and is good till it ends."""
    home = member_home(given.home, bureau)
    keys = keyring.kept(home.folder, home.bureau)
    if not keys:
        message = f"{home.bureau} has no key yet: valise key new --bureau {home.bureau}"
        raise ConfigurationError(message)
    _check_entered(home, keys[-1])
    generation = keys[-1].generation + 1
    wanted, old = _wanted(home.folder, home.bureau, generation, **how), passphrases.for_old(how["passphrase_file"])
    if left := _request_left(home.folder, home.settings.federation, keys, wanted.challenge, old):
        _show_made(given, _asked_for(keys[-1]), keys[-1].path, left)
        return
    before = _before(home.folder, keys, old)
    path, request = _make(home.folder, home.bureau, home.settings.federation, generation, wanted, before)
    _show_made(given, f"made the next key of {home.bureau} in {path}; the one before still signs", path, request)


def _asked_for(kept: Kept) -> str:
    return f"{kept.path} ({kept.keeping()}) lay there without its request, which was made now"


def _show_made(given: Everywhere, first: str, path: Path, request: Path, signatory: Path | None = None) -> None:
    in_token, beside = path.suffix == ".token", {"signatory": str(signatory)} if signatory else {}
    leave = f"{request} and, unless it entered before, {signatory}" if signatory else str(request)
    answer.show(
        first,
        {"key": str(path), "request": str(request), **beside, **json.loads(request.read_text(encoding="utf-8"))},
        as_json=given.as_json,
        then=f"send {leave} to the operator; the key itself stays {'in the token' if in_token else 'here'}",
    )


def _wanted(
    folder: Path, name: str, generation: int, *, challenge: str, token: str | None, module: Path | None,
    pin_file: Path | None, passphrase_file: Path | None, ask: bool,
) -> Wanted:  # fmt: skip
    if token is None:
        if module or pin_file:
            message = "--module and --pin-file go with --pkcs11 TOKEN"
            raise click.UsageError(message)
        return Wanted(challenge, passphrases.for_new(passphrase_file, ask=ask))
    if passphrase_file or ask:
        message = "a key in a token has a PIN and no passphrase"
        raise click.UsageError(message)
    keys = folder / "keys"
    beside = [Path(os.path.relpath(each.absolute(), keys.absolute())) if each else None for each in (module, pin_file)]
    return Wanted(
        challenge, token=TokenPlace(token=token, key=f"{name} {generation}", module=beside[0], pin_file=beside[1])
    )


def _check_entered(home: MemberHome, newest: Kept) -> None:
    """Refuse a third key while the second still waits: nobody would know which of them is meant."""
    if newest.generation > 1 and newest.request.is_file() and _waits(home.folder, newest.key_id()):
        message = f"the directory does not have the last one yet: send {newest.request} to the operator first"
        raise ConfigurationError(message)


def _waits(folder: Path, key_id: bytes) -> bool:
    """Say whether the operator is still to enter a key: the directory does not have it, and nobody has revoked it."""
    return _directory_key(folder, key_id) is None and key_id not in keyring.revoked(folder)


def _before(folder: Path, keys: Sequence[Kept], passphrase: Passphrase) -> SigningKey | None:
    """Load the key that is to be followed; None if every one was revoked: the new one then stands for itself."""
    gone = keyring.revoked(folder)
    left = [each for each in keys if each.key_id() not in gone]
    return left[-1].load(passphrase) if left else None


def make_key(folder: Path, bureau: str, federation: str, wanted: Wanted = Wanted()) -> tuple[Path, Path]:
    """Make a bureau's first key and its request in a member's home; give their paths.

    Of a key that a kill has left without its request the request is made. Raises ConfigurationError if there is one
    that has its own.
    """
    if not (keys := keyring.kept(folder, bureau)):
        return _make(folder, bureau, federation, 1, wanted, None)
    secret = wanted.passphrase
    old = passphrases.for_old() if secret is None else lambda _: secret
    if left := _request_left(folder, federation, keys, wanted.challenge, old):
        return keys[-1].path, left
    message = (
        f"{bureau} has a key already, {keys[-1].path}: it is never overwritten; "
        f"`valise key rotate --bureau {bureau}` makes the next"
    )
    raise ConfigurationError(message)


def _request_left(
    folder: Path, federation: str, keys: Sequence[Kept], challenge: str, passphrase: Passphrase
) -> Path | None:
    """Make the request of the newest key if a kill came before it; None if it has one, or needs none any more."""
    *before, newest = keys
    durable.remove_left(newest.path)
    if newest.request.is_file():
        return None
    made = newest.load(passphrase)
    if not _waits(folder, made.public.id):
        return None
    asked = _asked(folder, federation, newest.bureau, challenge)
    _put_request(newest, possession.request(asked, made, _before(folder, before, passphrase)), only_if_none=True)
    return newest.request


def _make(
    folder: Path, bureau: str, federation: str, generation: int, wanted: Wanted, before: SigningKey | None
) -> tuple[Path, Path]:
    path = keyring.path_of(folder, bureau, generation, "token" if wanted.token else "pem")
    asked = _asked(folder, federation, bureau, wanted.challenge)
    if wanted.token:
        made = keyring.make_in_token(path, wanted.token)
    else:
        made = SigningKey.new()
        made.save(path, wanted.passphrase)
    # Killed here, the key has no request: the same command makes it.
    kept = Kept(bureau, generation, path)
    _put_request(kept, possession.request(asked, made, before), only_if_none=False)
    return path, kept.request


def _asked(folder: Path, federation: str, bureau: str, challenge: str) -> Asked:
    return Asked(federation, bureau, challenge, _knows(folder), made=answer.when(clock()))


def _put_request(kept: Kept, request: dict[str, str], *, only_if_none: bool) -> None:
    """Keep a request. That of who made the key stands, whoever found it without: he may have had a challenge."""
    with durable.alone(kept.request.parent):
        if not only_if_none or not kept.request.is_file():
            durable.put(kept.request, json.dumps(request, indent=2).encode() + b"\n")


def _knows(folder: Path) -> str:
    digest = Versions(folder / "versions").named_newest("directory")
    return digest.hex() if digest else ""


def key_request(made: SigningKey, bureau: str, federation: str) -> dict[str, str]:
    """Write the request for a first key: signed with the key itself, so that whoever asks has the private key."""
    return possession.request(Asked(federation, bureau), made)


def _where(home: Path, bureau: str | None) -> tuple[Path, str, str]:
    """Find the member's home; the operator's beside it may know the federation where it has no settings yet."""
    folder, name, known = settling(home, bureau)
    if known is None and not (home / "operator" / "settings.toml").is_file():
        message = (
            f"no settings.toml in {folder}: take in what the operator sent first, `valise member accept FILE --bureau "
            f"{name}`; on the embedded bus name the folder of the operator's home with --home"
        )
        raise ConfigurationError(message)
    return folder, name, (known or settings_file.load(home / "operator")).federation


def _unnamed(home: Path, folder: Path, bureau: str) -> str:
    """Say that the directory known here, or at the operator's home beside, has no such bureau; "" where it has.

    Who joins makes its keys before it is named: nothing is refused.
    """
    directory = _newest(folder) or _newest(home / "operator")
    if directory is None or bureau in directory.bureaus:
        return ""
    return (
        f"directory version {directory.version}, which is known here, has no bureau {bureau}: check how it is written; "
        "where it is to join, the operator adds it to the federation's file before the request is taken"
    )


def _newest(folder: Path) -> Directory | None:
    try:
        return Versions(folder / "versions").newest_if_any()
    except ValiseError:  # a home with a damaged directory says so to whoever needs it
        return None


def _settle_in(home: Path, folder: Path, bureau: str) -> None:
    """Give a new member's home its settings where the operator's home lies beside it."""
    if (folder / "settings.toml").is_file():
        return
    operator = settings_file.load(home / "operator")
    bus = "sqlite:../../bus.db" if operator.bus_kind == "sqlite" else operator.bus
    settings_file.save(folder, settings_file.of_member(bureau, operator.federation, bus))


@key.command("list")
@bureau
@everywhere
def list_keys(given: Everywhere, bureau: str | None) -> None:
    """List the keys of this home and their state; for the operator: all keys, and who still signs with an old one."""
    if bureau is None and (given.home / "operator" / "settings.toml").is_file():
        key_use.show(given)
        return
    home = member_home(given.home, bureau or _any_bureau(given.home))
    answered = _follow(home)
    say_called_lost(home.folder, home.member, home.versions)
    kept = keyring.all_kept(home.folder, home.member)
    rows = [_row(home, each) for each in kept]
    lost = home.versions.called_lost(home.member).keys
    called = f"; for directories called lost: {', '.join(each[:16] for each in lost)}" if lost else ""
    answer.show(
        f"{answer.count(len(rows), 'key')} of {home.member}{called}",
        rows,
        as_json=given.as_json,
        table=answer.Table(
            ("bureau", "key id", "state", "until", "kept"),
            [(row["bureau"], row["key_id"][:16], row["state"], row["until"], row["kept"]) for row in rows],
        ),
        then=_next(given, home, kept),
        beside={"stale": not answered, "called_lost": len(lost)},
    )
    exits.end(exits.DONE if answered else exits.UNAVAILABLE)


def _next(given: Everywhere, home: MemberHome, kept: Sequence[Kept]) -> str:
    """Name what comes next: a request that waits for the operator first, as no key can follow one that waits."""
    newest = {each.bureau: each for each in kept}.values()  # listed by generation
    waiting = [each for each in newest if each.request.is_file() and _waits(home.folder, each.key_id())]
    if waiting:
        return f"send {' and '.join(str(each.request) for each in waiting)} to the operator"
    if not kept:
        return given.again(f"valise key new --bureau {home.member}/NAME")
    return given.again(f"valise key rotate --bureau {kept[0].bureau}")


def _follow(home: MemberHome) -> bool:
    """Take in the newest directory, which may have a key by now; False where the bus does not answer."""
    if home.settings.bus_kind == "kafka" and not home.settings.tls:
        return True  # who has not entered yet has no certificate, and nobody to ask

    return asyncio.run(if_it_answers(home.follow(), "this is what was known before"))


def _any_bureau(home: Path) -> str | None:
    """Name any bureau of a member's own home: listing is for all of them."""
    path = home / "settings.toml"
    member = settings_file.load(home).member if path.is_file() else None
    return f"{member}/any" if member else None


def _directory_key(folder: Path, key_id: bytes) -> Key | None:
    """Find a key in the newest directory; None, too, where no directory has come."""
    try:
        return Versions(folder / "versions").newest().key(key_id)
    except ValiseError:
        return None


def _row(home: MemberHome, each: Kept) -> dict[str, Any]:
    key_id = each.key_id()
    found = _directory_key(home.folder, key_id)
    if key_id in keyring.revoked(home.folder):
        state = "revoked"
    elif found is None:
        state = "not in the directory"
    else:
        state = "in force" if found.in_force(clock()) else "not in force"
    return {
        "bureau": each.bureau,
        "key_id": key_id.hex(),
        "state": state,
        "until": answer.when(found.valid_until) if found else "–",
        "kept": each.keeping(),
        "path": str(each.path),
    }
