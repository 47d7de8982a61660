"""The keys that sign looks at clear data: made here, asked into the directory, named by a pseudonym."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker import durable, reading, streams
from broker.directory import Directory, Key
from broker.errors import ConfigurationError, SignatureError
from broker.members import WrittenAuditor
from broker.notice import CLOCK_SKEW_MS
from broker.possession import REQUEST_LIMIT
from broker.signing import PublicKey, SigningKey, key_id, pae
from cli import passphrases

REQUEST_TYPE = "application/vnd.valise.auditor-request.v1+json"
"""DSSE payload type of the proof of possession; the payload is the request without `proof`, as canonical JSON."""
REQUEST = "*.auditor.json"
KEY_LIFE_MS = 365 * streams.DAY_MS
_ID = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Auditor:
    """Who signs looks, and where the key lies."""

    id: str
    key: SigningKey
    file: Path


def make_key(folder: Path, name: str, federation: str) -> tuple[Path, Path]:
    """Make an auditor's key and its request in a folder; give their paths. Raises ConfigurationError.

    Of a key that a kill has left without its request the request is made.
    """
    if not _ID.fullmatch(name):
        message = f"{name!r} is no auditor's id: small letters, digits and hyphens; a pseudonym, nobody's name"
        raise ConfigurationError(message)
    path, request, made = folder / f"{name}.pem", folder / f"{name}.auditor.json", SigningKey.new()
    durable.remove_left(path)
    try:
        if path.is_file() and not request.is_file():
            made = SigningKey.load(path, passphrases.for_old())
        else:
            made.save(path, passphrases.for_new(None, ask=False))
    except FileExistsError as error:
        message = f"{name} has a key already, {path}: it is never overwritten"
        raise ConfigurationError(message) from error
    asked = {
        "federation": federation,
        "auditor": name,
        "algorithm": "ed25519",
        "key_id": made.public.id.hex(),
        "public": made.public.raw.hex(),
    }
    proof = made.sign_payload(REQUEST_TYPE, _canonical(asked)).hex()
    durable.put(request, json.dumps(asked | {"proof": proof}, indent=2).encode() + b"\n")
    return path, request


def _canonical(asked: dict[str, str]) -> bytes:
    return json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def written(folder: Path, known: Iterable[Key], federation: str, now: int) -> tuple[WrittenAuditor, ...]:
    """List the auditors' keys of the next directory: those in force, and those that `folder` asks for."""
    kept = {each.key_id.hex(): _kept(each) for each in known}
    for path in sorted(folder.glob(REQUEST)):
        asked = _read(path, federation, now)
        kept.setdefault(asked.key_id, asked)
    return tuple(sorted(kept.values(), key=lambda each: (each.id, each.valid_from, each.key_id)))


def _kept(key: Key) -> WrittenAuditor:
    return WrittenAuditor(
        id=key.bureau,
        key_id=key.key_id.hex(),
        public=key.public.raw.hex(),
        valid_from=key.valid_from,
        valid_until=key.valid_until,
    )


def _read(path: Path, federation: str, now: int) -> WrittenAuditor:
    """Read a request and check that whoever made it has the private key. Raises ConfigurationError."""
    try:
        asked: dict[str, str] = json.loads(reading.read(path, REQUEST_LIMIT))
        proof = bytes.fromhex(asked.pop("proof"))
        public = PublicKey.of(bytes.fromhex(asked["public"]))
        public.check(proof, pae(REQUEST_TYPE, _canonical(asked)))
        right = asked["federation"] == federation and asked["key_id"] == key_id(public.raw).hex()
        name = asked["auditor"]
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigurationError(message) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, SignatureError) as error:
        message = f"{path} is no auditor's request: have it made again with `valise audit enrol`"
        raise ConfigurationError(message) from error
    if not right or not _ID.fullmatch(name):
        message = f"{path} asks for another federation than {federation}, or its key id does not fit"
        raise ConfigurationError(message)
    return WrittenAuditor(
        id=name,
        key_id=public.id.hex(),
        public=public.raw.hex(),
        valid_from=now - CLOCK_SKEW_MS,
        valid_until=now + KEY_LIFE_MS,
    )


def auditor(folder: Path, file: Path | None, directory: Directory) -> Auditor:
    """Find who looks: the key in `file`, or the only one in `folder` that the directory names.

    Raises ConfigurationError that says what to do.
    """
    found = [file] if file else _keys(folder, directory)
    if len(found) != 1:
        what = f"there are {len(found)} keys in {folder}" if found else "there is no auditor's key here"
        message = f"{what}: name one with --key, or make one with `valise audit enrol NAME`"
        raise ConfigurationError(message)
    key = SigningKey.load(found[0], passphrases.for_old())
    known = directory.auditors.get(key.public.id)
    if known is None:
        message = f"the directory does not name the key {found[0]}: let the operator run `valise directory draft`"
        raise ConfigurationError(message)
    return Auditor(known.bureau, key, found[0])


def _keys(folder: Path, directory: Directory) -> list[Path]:
    """List the keys that a directory names, by their requests; all of them where it names none."""
    keys = sorted(folder.glob("*.pem"))
    return [each for each in keys if _asked_for(each) in directory.auditors] or keys


def _asked_for(key: Path) -> bytes:
    """Tell a key's id by its request, which needs no passphrase; nothing where there is none."""
    try:
        return bytes.fromhex(json.loads(key.with_name(f"{key.stem}.auditor.json").read_bytes())["key_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return b""
