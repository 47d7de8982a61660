"""A bureau's keys, oldest first, and which of them signs now.

`keys/ncb.pem` is the first key of `ncb`, `keys/ncb.2.pem` the next; a key in a token is a file `keys/ncb.2.token` that
says where it is. Beside each lies its request. `keys/revoked` names those that sign nothing any more.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker import durable
from broker.errors import ConfigurationError
from broker.signing import Passphrase, SigningKey, is_encrypted, key_id
from cli import passphrases

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.token import Token

MARK_BYTES = 16
_FILE = re.compile(r"([a-z0-9-]+)(?:\.([1-9][0-9]*))?\.(pem|token)")


class TokenPlace(BaseModel):
    """Where a key in a PKCS#11 token is; paths are relative to the folder `keys`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    token: str = Field(description="label of the token", min_length=1)
    key: str = Field(description="label of the key in it", min_length=1)
    module: Path | None = Field(
        default=None, description="the token's PKCS#11 library; none: SoftHSM, where it is found"
    )
    pin_file: Path | None = Field(
        default=None, description="file with the PIN; none: VALISE_PIN_FILE, or it is asked for"
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """One key of a bureau, in a file or a token."""

    bureau: str
    generation: int
    path: Path

    @property
    def request(self) -> Path:
        """The request that was made with it."""
        return self.path.with_suffix(".request.json")

    @property
    def in_token(self) -> bool:
        """Whether a token holds it."""
        return self.path.suffix == ".token"

    def load(self, passphrase: Passphrase | None = None) -> SigningKey:
        """Load it. Raises ConfigurationError, or CannotSignError for a token that is not there."""
        if not self.in_token:
            return SigningKey.load(self.path, passphrase or passphrases.for_old())
        place = _place(self.path)
        return token_of(place, self.path.parent).key(place.key)

    def keeping(self) -> str:
        """Say in words how it is kept."""
        if self.in_token:
            return "token"
        return "encrypted file" if is_encrypted(self.path.read_bytes()) else "file"

    def key_id(self) -> bytes:
        """Tell its id; from its request where there is one, which needs neither passphrase nor token."""
        try:
            return key_id(bytes.fromhex(json.loads(self.request.read_bytes())["public"]))
        except (OSError, ValueError, KeyError, TypeError):
            return self.load().public.id


def kept(folder: Path, bureau: str) -> list[Kept]:
    """List the keys of one bureau in a member's home, oldest first."""
    return [each for each in all_kept(folder, bureau.partition("/")[0]) if each.bureau == bureau]


def all_kept(folder: Path, member: str) -> list[Kept]:
    """List all keys of a member's home."""
    return sorted(_found(folder, member), key=lambda each: (each.bureau, each.generation))


def _found(folder: Path, member: str) -> Iterator[Kept]:
    for path in (folder / "keys").glob("*.*"):
        if parts := _FILE.fullmatch(path.name):
            yield Kept(f"{member}/{parts[1]}", int(parts[2] or 1), path)


def path_of(folder: Path, bureau: str, generation: int, suffix: str) -> Path:
    """Say where a key of this generation lies."""
    unit = bureau.partition("/")[2]
    return folder / "keys" / (f"{unit}.{suffix}" if generation == 1 else f"{unit}.{generation}.{suffix}")


def signing(folder: Path, bureau: str, directory: Directory | None, now: int) -> Kept:
    """Give the key that a bureau signs with: the newest in force; where none is, the oldest that is left.

    A key that was made but not entered yet signs nothing, so that both lie here while one takes over from the other.
    Raises ConfigurationError that says what to do.
    """
    keys = kept(folder, bureau)
    if not keys:
        message = f"{bureau} has no key here: make one with `valise key new --bureau {bureau}`"
        raise ConfigurationError(message)
    gone = revoked(folder) if (folder / "keys" / "revoked").exists() else frozenset()
    left = [each for each in keys if not gone or each.key_id() not in gone]
    if not left:
        message = f"every key of {bureau} was revoked: make the next with `valise key rotate --bureau {bureau}`"
        raise ConfigurationError(message)
    if len(left) == 1 or directory is None:
        return left[0]
    return next((each for each in reversed(left) if _in_force(each, directory, now)), left[0])


def _in_force(each: Kept, directory: Directory, now: int) -> bool:
    found = directory.key(each.key_id())
    return found is not None and found.bureau == each.bureau and found.in_force(now)


def revoked(folder: Path) -> frozenset[bytes]:
    """Tell which keys this home knows to be revoked."""
    try:
        lines = (folder / "keys" / "revoked").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return frozenset()
    return frozenset(map(bytes.fromhex, lines))


def forget(folder: Path, key_id: bytes) -> None:
    """Sign nothing with a key from now on."""
    if key_id in revoked(folder):
        return
    durable.make_lasting(folder / "keys")
    with durable.alone(folder / "keys"):  # a collector may be told of one key while a person revokes another
        lines = [f"{each.hex()}\n" for each in sorted(revoked(folder) | {key_id})]
        durable.put(folder / "keys" / "revoked", "".join(lines).encode())


# Tokens


def token_of(place: TokenPlace, folder: Path) -> Token:
    """Open the token that a key is in. Raises ConfigurationError."""
    from broker.token import Token, find_module  # noqa: PLC0415 -- only who has a token loads PKCS#11

    module = _beside(folder, place.module) if place.module else find_module()
    pin = passphrases.pin(_beside(folder, place.pin_file) if place.pin_file else None)
    return Token(module, place.token, partial(pin, place.token))


def _beside(folder: Path, path: Path) -> Path:
    """Follow a path from a folder that may not be there yet."""
    return Path(os.path.normpath(folder.absolute() / path))


def make_in_token(path: Path, place: TokenPlace) -> SigningKey:
    """Make a key in a token, and write down in `path` where it is; what a kill between the two has left is taken up.

    Raises FileExistsError rather than overwrite, ConfigurationError where the token holds such a key that this home did
    not begin.
    """
    token, begun = token_of(place, path.parent), path.with_suffix(".begun")
    durable.make_lasting(path.parent)
    mark = _mark(begun, place)
    if mark and token.has(place.key, mark):
        made = token.key(place.key)
    else:
        # Another home of this bureau calls its key so, too: what has the name alone is never taken for what we began.
        mark = os.urandom(MARK_BYTES)
        if not token.has(place.key):
            durable.put(begun, _begun(place, mark))
        made = token.new_key(place.key, mark)
    durable.put_new(path, _written(place))
    begun.unlink(missing_ok=True)
    return made


def _begun(place: TokenPlace, mark: bytes) -> bytes:
    return _written(place) + f'id = "{mark.hex()}"\n'.encode()


def _mark(begun: Path, place: TokenPlace) -> bytes:
    """Tell under which id (CKA_ID) this home has begun to make a key in this place; empty if it has not."""
    content = begun.read_bytes() if begun.is_file() else b""
    found = re.fullmatch(re.escape(_written(place)) + rb'id = "([0-9a-f]+)"\n', content)
    return bytes.fromhex(found[1].decode()) if found else b""


def _written(place: TokenPlace) -> bytes:
    lines = [
        f"{name} = {json.dumps(value)}\n" for name, value in place.model_dump(mode="json", exclude_none=True).items()
    ]
    return "".join(lines).encode()


def _place(path: Path) -> TokenPlace:
    try:
        return TokenPlace.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
