"""The next directory of a federation: its file, the keys it has and those that members ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker import notes, possession, reading, streams
from broker.directory import Directory, Key
from broker.errors import ConfigurationError, ProofError
from broker.members import WrittenKey, WrittenLog
from broker.notice import CLOCK_SKEW_MS
from broker.owner import register_of
from broker.possession import KeyRequest
from broker.register import Register
from broker.signing import PublicKey
from broker.streams import ROUTER
from cli import challenges, seed
from cli.auditor import enrolled
from cli.home import clock
from cli.operator_home import OperatorHome
from cli.seed import Federation

if TYPE_CHECKING:
    from pathlib import Path

KEY_LIFE_MS = 2 * 365 * streams.DAY_MS
"""How long a member's key is in force once the operator has put it into the directory."""
REVOKED = "revoked/"
"""How the register's entries of revoked keys begin."""


def read_request(path: Path, federation: Federation, now: int, old: Entered | None = None) -> WrittenKey:
    """Read a member's key request and check that whoever made it has the private key and may ask for it.

    Raises ConfigurationError that names the file.
    """
    try:
        found = possession.check_request(reading.read(path, possession.REQUEST_LIMIT), federation.federation)
        _check_wanted(found, federation, now, old)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigurationError(message) from error
    except ConfigurationError as error:
        message = f"{path}: {error}"
        raise ConfigurationError(message) from error
    return WrittenKey(
        key_id=found.public.id.hex(),
        bureau=found.asked.bureau,
        public=found.public.raw.hex(),
        valid_from=now - CLOCK_SKEW_MS,
        valid_until=now + KEY_LIFE_MS,
    )


def _check_wanted(found: KeyRequest, federation: Federation, now: int, old: Entered | None) -> None:
    bureau = found.asked.bureau
    if bureau not in federation.order.bureaus:
        message = f"the federation has no bureau {bureau}: add it to its file first"
        raise ConfigurationError(message)
    if old is not None and old.directory.key(found.public.id) is None:
        found.check_entry(old.challenges.get(bureau), old.in_force(bureau, now))


@dataclass(frozen=True, slots=True)
class Entered:
    """What a new key is held against: the directory before, the keys revoked since, the challenges given."""

    directory: Directory
    revoked: frozenset[bytes]
    challenges: Mapping[str, str]

    def in_force(self, bureau: str, now: int) -> dict[bytes, PublicKey] | None:
        """Give the keys with which a bureau can ask for its next one; None if it never had any."""
        keys = [each for each in self.directory.keys.values() if each.bureau == bureau]
        good = (each for each in keys if each.in_force(now) and each.key_id not in self.revoked)
        return {each.key_id: each.public for each in good} if keys else None


async def entered(home: OperatorHome, directory: Directory | None) -> Entered | None:
    """Look up what new keys are held against; None before there is a directory. Raises UnavailableError."""
    if directory is None:
        return None
    return Entered(directory, await _revoked(home), challenges.outstanding(home.folder))


async def _revoked(home: OperatorHome) -> frozenset[bytes]:
    """Name the keys that were revoked: what the register's cache has, and what its stream says beyond.

    The cache may be behind, or not there (after a restore); it is its owner's to bring further, not ours.
    """
    cache, place, found = register_of(home.folder, home.settings.shard), 0, set[str]()
    if cache.is_file():
        with closing(Register(cache)) as register:
            place, keys = register.looked_at(REVOKED)
            found = set(keys)
    async with home.bus(ROUTER) as bus:
        end = await bus.end(streams.REGISTER, partition=home.settings.shard)
        if place > end:  # the cache belongs to another past
            place, found = 0, set()
        while place < end:
            records = await bus.read(streams.REGISTER, place, partition=home.settings.shard)
            if not records:
                break
            place = records[-1].offset + 1
            for each in records:
                (found.discard if each.value is None else found.add)(each.key.decode())
    return frozenset(bytes.fromhex(each.removeprefix(REVOKED)) for each in found if each.startswith(REVOKED))


def requests_in(folders: Sequence[Path]) -> list[Path]:
    """Find the key requests in folders, however deep."""
    return sorted({path for folder in folders for path in folder.rglob("*.request.json")})


@dataclass(frozen=True, slots=True)
class Composed:
    """What the next directory is to say, and the annex that it commits to; nobody has signed it."""

    plain: bytes
    annex: bytes
    new_keys: int


async def compose_next(
    home: OperatorHome, federation: Federation, requests: Sequence[Path], say: Callable[[str], None]
) -> Composed:
    """Compose the next directory of the federation's file, the keys known so far and those that are asked for.

    A request that is refused is passed over, and `say` is told why: it must not keep out others. Whether a member or an
    agreement is suspended stands in the directory: the file says it for new ones only.
    """
    old = home.versions.newest_if_any()
    before = await entered(home, old)
    asked = list(_asked(requests, federation, before, say))
    known = [_ended(_written(each), before, clock()) for each in old.keys.values()] if old else []
    new = [each for each in asked if each.key_id not in {one.key_id for one in known}]
    auditors = enrolled.written(
        home.folder / "auditors", old.auditors.values() if old else (), federation.federation, clock()
    )
    kept = federation if old is None else _as_it_stands(federation, old)
    plain, annex = seed.compose(kept, [*known, *new], [_log(home)], old.version + 1 if old else 1, auditors)
    return Composed(plain, annex, len(new))


def _asked(
    requests: Sequence[Path], federation: Federation, before: Entered | None, say: Callable[[str], None]
) -> Iterator[WrittenKey]:
    for path in requests:
        try:
            yield read_request(path, federation, clock(), before)
        except ConfigurationError as error:
            say(str(error))


def _ended(key: WrittenKey, before: Entered | None, now: int) -> WrittenKey:
    """End a key in the directory that its bureau has revoked by a statement: its member signs that, too."""
    if before is None or bytes.fromhex(key.key_id) not in before.revoked or key.valid_until <= now:
        return key
    return key.model_copy(update={"valid_until": max(now, key.valid_from + 1)})


def _as_it_stands(federation: Federation, old: Directory) -> Federation:
    members = {each.id: each.status for each in old.members.values()}
    circles = {each.id: each.status for each in old.agreements.values()}
    return federation.model_copy(
        update={
            "members": tuple(
                each.model_copy(update={"status": members.get(each.id, each.status)}) for each in federation.members
            ),
            "agreements": tuple(
                each.model_copy(update={"status": circles.get(each.id, each.status)}) for each in federation.agreements
            ),
        }
    )


def _written(key: Key) -> WrittenKey:
    return WrittenKey(
        key_id=key.key_id.hex(),
        bureau=key.bureau,
        public=key.public.raw.hex(),
        valid_from=key.valid_from,
        valid_until=key.valid_until,
    )


def _log(home: OperatorHome) -> WrittenLog:
    try:
        vkey = notes.parse_vkey(home.vkey_path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ProofError) as error:
        message = f"{home.vkey_path} is missing or damaged: make it again with `valise broker init`"
        raise ConfigurationError(message) from error
    return WrittenLog(shard=home.settings.shard, vkey=str(vkey))
