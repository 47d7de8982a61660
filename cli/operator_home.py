"""The operator's home: where its files lie, who it is on the bus, what it writes there."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.versions import Versions
from broker import certificates, codec, durable, notes, possession, streams
from broker import settings as settings_file
from broker.bus import Bus
from broker.certificates import Credentials, pki_of
from broker.directory import Directory, Key
from broker.errors import ConfigurationError, ForbiddenStreamError, LogNotNamedError, ProofError
from broker.ingest import Pace
from broker.members import WrittenKey, WrittenLog
from broker.notice import CLOCK_SKEW_MS, Version
from broker.possession import KeyRequest
from broker.register import Register
from broker.settings import Settings, Tls
from broker.signing import PublicKey, SigningKey
from broker.streams import OPERATOR, ROUTER, SETUP, World
from broker.up import Owner, register_of
from cli import challenges, passphrases, restoring, seed, witnessing
from cli.auditor import enrolled
from cli.home import clock, open_bus, tls, world_of
from cli.seed import Federation

if TYPE_CHECKING:
    from broker.topics import Difference

KEY_LIFE_MS = 2 * 365 * streams.DAY_MS
"""How long a member's key is in force once the operator has put it into the directory."""
REVOKED = "revoked/"
"""How the register's entries of revoked keys begin."""
NOBODY = World((), ())
"""The streams before there is a directory: those of the whole federation."""


@dataclass(frozen=True, slots=True)
class OperatorHome:
    """The operator's home; `folder` is HOME/operator."""

    folder: Path
    settings: Settings

    @property
    def key_path(self) -> Path:
        """Where the key lies that signs the log's heads."""
        return self.folder / "log.key"

    @property
    def vkey_path(self) -> Path:
        """The log's public key, for everybody."""
        return self.folder / "trail" / "vkey"

    @property
    def versions(self) -> Versions:
        """What was published, by digest."""
        return Versions(self.folder / "versions")

    def owner(self) -> Owner:
        """Give what a shard is run with. Raises ConfigurationError if the log key cannot be read."""
        pace = Pace(self.settings.step_limit, self.settings.step_pause_ms / 1000, self.settings.judge_limit_s)
        key = SigningKey.load(self.key_path, passphrases.for_old())
        federation, shard = self.settings.federation, self.settings.shard
        return Owner(
            self.folder,
            federation,
            shard,
            key,
            pace,
            clock,
            os.urandom,
            witnessing.named(self.folder, self.settings),
            int(self.settings.review_alarm_h * 3_600_000),
        )

    def check_log(self, owner: Owner) -> None:
        """Check that the newest directory, if there is one, names our log. Raises LogNotNamedError."""
        digest = self.versions.newest_digest("directory")
        directory = self.versions.directory(digest) if digest else None
        ours = str(notes.vkey(owner.origin, owner.key.public.raw))
        if directory is not None and directory.logs.get(self.settings.shard, ours) != ours:
            message = f"the newest directory names another log than {ours}: no member would follow it"
            raise LogNotNamedError(message)

    def world(self) -> World:
        """Give the streams of the newest directory."""
        digest = self.versions.newest_digest("directory")
        directory = self.versions.directory(digest) if digest else None
        return NOBODY if directory is None else world_of(directory)

    @asynccontextmanager
    async def bus(self, principal: str, world: World | None = None) -> AsyncIterator[Bus]:
        """Open the bus in the name of one of the operator's principals."""
        async with open_bus(self.folder, self.settings, principal, world or self.world()) as bus:
            yield bus


def operator_folder(home: Path) -> Path:
    """Find the operator's folder: `home` itself, or the one in it."""
    return home if (home / "log.key").is_file() else home / "operator"


def operator_home(home: Path) -> OperatorHome:
    """Find the operator's home. Raises ConfigurationError that says what to do."""
    folder = operator_folder(home)
    if not (folder / "settings.toml").is_file():
        message = f"no broker in {home}: make one with `valise broker init --home {shlex.quote(str(home))}`"
        if left := restoring.left(folder.parent):
            message = f"no broker in {home}: {restoring.said_of(left)}; restore again, which removes it"
        raise ConfigurationError(message)
    settings = settings_file.load(folder)
    if settings.role != "operator":
        message = f"{folder} is the home of {settings.member}, not the operator's"
        raise ConfigurationError(message)
    return OperatorHome(folder, settings)


def make(
    home: Path, federation: Federation, bus: str, *, setup: bool = False, passphrase: bytes | None = None
) -> OperatorHome:
    """Make the operator's home: settings, log key, the trail's folder with its vkey, certificates for Kafka.

    What is there stays. No member's key is made here; `setup` says that another super user is to be made. The
    authorities' keys are encrypted under `passphrase`; without one, where VALISE_PASSPHRASE_FILE names one. Raises
    ConfigurationError where another federation's home is, or the passphrase is not that of the authorities here.
    """
    folder = home / "operator"
    durable.make_private(folder)
    _check_same(folder, federation, bus)
    settings = _settings(folder, federation, bus, passphrase or passphrases.for_new(None, ask=False), setup=setup)
    if not (folder / "settings.toml").is_file():
        settings_file.save(folder, settings)
    made = OperatorHome(folder, settings_file.load(folder))
    if (made.settings.federation, made.settings.bus) != (settings.federation, settings.bus):
        message = f"{folder} is the broker of {made.settings.federation} on {made.settings.bus}: name another --home"
        raise ConfigurationError(message)
    if not made.key_path.exists():
        SigningKey.new().save(made.key_path, passphrases.for_new(None, ask=False))
    vkey = f"{notes.vkey(made.owner().origin, SigningKey.load(made.key_path, passphrases.for_old()).public.raw)}\n"
    made.vkey_path.parent.mkdir(parents=True, exist_ok=True)
    if not _is_whole(made.vkey_path):  # a kill or power cut of a version before left half of it
        durable.put(made.vkey_path, vkey.encode())
    return made


def _check_same(folder: Path, federation: Federation, bus: str) -> None:
    """Refuse before anything is made: certificates of another federation's members would stay. ConfigurationError."""
    if not (folder / "settings.toml").is_file():
        return
    found, kind = settings_file.load(folder), "kafka" if bus.startswith("kafka") else "sqlite"
    if (found.federation, found.bus_kind) != (federation.federation, kind):
        message = (
            f"{folder} is the broker of {found.federation} on {found.bus}: name another --home, or --from its file"
        )
        raise ConfigurationError(message)


def _is_whole(vkey: Path) -> bool:
    """Say whether there is a log's public key; if it is not ours, that is for the broker to refuse, not to be lost."""
    try:
        notes.parse_vkey(vkey.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, ProofError):
        return False
    return True


def _settings(folder: Path, federation: Federation, bus: str, passphrase: bytes | None, *, setup: bool) -> Settings:
    if not bus.startswith("kafka"):
        return Settings(role="operator", federation=federation.federation, bus="sqlite:../bus.db")
    from broker import node  # noqa: PLC0415 -- only a Kafka home needs it

    if passphrase is None:
        passphrase = certificates.passphrase_of(pki_of(folder), passphrases.for_old())
    members, now = federation.world.members, datetime.now(UTC)
    pki = certificates.init_pki(folder, members, now, setup=setup, passphrase=passphrase)
    address = bus.partition(":")[2] or node.prepare(folder / "kafka", pki).bootstrap
    files = {each: tls_of(each) for each in (ROUTER, OPERATOR, SETUP)}
    return Settings(role="operator", federation=federation.federation, bus=f"kafka:{address}", tls=files)


def tls_of(principal: str) -> Tls:
    """Name a principal's PEM files as they lie in a home."""
    pki = Path("pki")
    return Tls(ca=pki / "nodes-ca.pem", certificate=pki / f"{principal}.crt", key=pki / f"{principal}.key")


# What members ask for


def read_request(path: Path, federation: Federation, now: int, old: Entered | None = None) -> WrittenKey:
    """Read a member's key request and check that whoever made it has the private key and may ask for it.

    Raises ConfigurationError that names the file.
    """
    try:
        found = possession.check_request(path.read_bytes(), federation.federation)
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
            place, found = register.place, set(register.keys(REVOKED))
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


# What the operator writes


@dataclass(frozen=True, slots=True)
class Composed:
    """What the next directory is to say, and the annex that it commits to; nobody has signed it."""

    plain: bytes
    annex: bytes
    new_keys: int


async def compose_next(home: OperatorHome, federation: Federation, requests: Sequence[Path]) -> Composed:
    """Compose the next directory of the federation's file, the keys known so far and those that are asked for.

    Whether a member or an agreement is suspended stands in the directory: the file says it for new ones only.
    """
    digest = home.versions.newest_digest("directory")
    old = home.versions.directory(digest) if digest else None
    before = await entered(home, old)
    asked = [read_request(path, federation, clock(), before) for path in requests]
    known = [_ended(_written(each), before, clock()) for each in old.keys.values()] if old else []
    new = [each for each in asked if each.key_id not in {one.key_id for one in known}]
    auditors = enrolled.written(
        home.folder / "auditors", old.auditors.values() if old else (), federation.federation, clock()
    )
    kept = federation if old is None else _as_it_stands(federation, old)
    plain, annex = seed.compose(kept, [*known, *new], [_log(home)], old.version + 1 if old else 1, auditors)
    return Composed(plain, annex, len(new))


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


async def make_streams(home: OperatorHome, world: World, *, take_away: bool = True) -> tuple[Difference, ...]:
    """Make the streams that a world needs and the bus lacks; on Kafka the bindings, too, which become the world's.

    Without `take_away` nobody loses a binding but who was stopped. Returns which settings of Kafka's topics are not the
    table's.
    """
    if home.settings.bus_kind == "kafka":
        from broker import kafka_quota, topics  # noqa: PLC0415 -- only a Kafka home needs it

        setup = certificates.credentials(pki_of(home.folder), SETUP)
        address = home.settings.bus_address
        # On new nodes, and before their first stream: after a kill this is a new node still. What is set later stays.
        if streams.VERSIONS not in topics.existing(address, setup):
            await kafka_quota.bound(address, setup)
        # One after the other: an older list of who was stopped would give back what a newer one has just taken away.
        with durable.alone(home.folder):
            return topics.establish(address, setup, world, take_away=take_away, stopped=stopped(home)).differs
    async with home.bus(SETUP, world) as bus:
        await bus.create(list(world.streams()))
    return ()


def credentials(home: OperatorHome, principal: str) -> Credentials:
    """Find one principal's files where the settings name them, as the bus does. Raises ConfigurationError."""
    return certificates.present(Credentials(*map(Path, tls(home.folder, home.settings, principal))), principal)


def differences(home: OperatorHome) -> list[Difference]:
    """Compare the settings of Kafka's topics with the table of streams; raises UnavailableError."""
    if home.settings.bus_kind != "kafka":
        return []
    from broker import topics  # noqa: PLC0415 -- only a Kafka home needs it

    who = credentials(home, OPERATOR)
    return topics.differences(home.settings.bus_address, who, home.world())


def told(each: Difference) -> str:
    """Say how a topic differs from the table of streams."""
    return f"{each.topic}: {each.name} is {each.found}, and should be {each.wanted}"


async def has_streams(home: OperatorHome) -> bool:
    """Say whether the bus shows the operator a stream of versions; changes nothing there. Raises UnavailableError."""
    if home.settings.bus_kind == "kafka":
        from broker import topics  # noqa: PLC0415 -- only a Kafka home needs it

        who = credentials(home, OPERATOR)
        return streams.VERSIONS in topics.existing(home.settings.bus_address, who)
    if home.versions.newest_digest("directory") is None and not (home.folder / home.settings.bus_address).is_file():
        return False  # not made yet; where a directory was published, it is lost
    async with home.bus(OPERATOR, NOBODY) as bus:
        with suppress(ForbiddenStreamError):
            await bus.end(streams.VERSIONS)
            return True
    return False


def stopped(home: OperatorHome) -> frozenset[str]:
    """Name the principals that were stopped (`valise certificate stop`): no node lets them do anything.

    Raises ConfigurationError where that cannot be read: nobody is let in again for that.
    """
    path = stopped_path(home)
    try:
        return frozenset(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        message = f"{path} cannot be read: write the names that were stopped into it, as a JSON list"
        raise ConfigurationError(message) from error


def stopped_path(home: OperatorHome) -> Path:
    """Where the principals stand that were stopped."""
    return pki_of(home.folder) / "stopped.json"


def record(kind: str, content: bytes) -> tuple[bytes, bytes]:
    """Write a version as its stream carries it."""
    return b"", codec.encode(Version(kind, content))


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
