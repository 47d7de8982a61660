"""The operator's home: where its files lie, who it is on the bus, what it writes there."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.versions import Versions
from broker import authorities, certificates, durable, notes
from broker import settings as settings_file
from broker.bus import Bus, Owned
from broker.certificates import Credentials, pki_of
from broker.errors import ConfigurationError, LogNotNamedError, ProofError
from broker.owner import Owner, Pace
from broker.settings import Settings, Tls
from broker.signing import SigningKey
from broker.streams import OPERATOR, ROUTER, SETUP, World
from cli import passphrases, restoring, witnessing
from cli.home import clock, open_bus, tls, world_of
from cli.seed import Federation

if TYPE_CHECKING:
    from broker.node import Cluster

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
        directory = self.versions.newest_if_any()
        ours = str(notes.vkey(owner.origin, owner.key.public.raw))
        if directory is not None and directory.logs.get(self.settings.shard, ours) != ours:
            message = f"the newest directory names another log than {ours}: no member would follow it"
            raise LogNotNamedError(message)

    def world(self) -> World:
        """Give the streams of the newest directory. Raises ConfigurationError where that is lost here."""
        directory = self.versions.newest_if_any()
        return NOBODY if directory is None else world_of(directory)

    @asynccontextmanager
    async def bus(self, principal: str, world: World | None = None, owned: Owned | None = None) -> AsyncIterator[Bus]:
        """Open the bus in the name of one of the operator's principals; who owns a shard on several gives `owned`."""
        async with open_bus(self.folder, self.settings, principal, world or self.world(), owned) as bus:
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
        if (home / "settings.toml").is_file():
            message = f"{home} is one member's home, not the operator's: name the folder that holds `operator`"
        raise ConfigurationError(message)
    settings = settings_file.load(folder)
    if settings.role != "operator":
        message = f"{folder} is the home of {settings.member}, not the operator's"
        raise ConfigurationError(message)
    return OperatorHome(folder, settings)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where members find the nodes that `valise kafka up` runs: a name or address, and what they listen on for it."""

    advertised: str
    listen: str = ""


def make(
    home: Path,
    federation: Federation,
    bus: str,
    *,
    setup: bool = False,
    passphrase: bytes | None = None,
    reach: Reach | None = None,
) -> OperatorHome:
    """Make the operator's home: settings, log key, the trail's folder with its vkey, certificates for Kafka.

    What is there stays. No member's key is made here; `setup` says that another super user is to be made, `reach` where
    clients are to reach the nodes of this home. The authorities' keys are encrypted under `passphrase`; without one,
    where VALISE_PASSPHRASE_FILE names one. Raises ConfigurationError where another federation's home is, or the
    passphrase is not that of the authorities here.
    """
    folder = home / "operator"
    durable.make_private(folder)
    _check_same(folder, federation, bus)
    passphrase = passphrase or passphrases.for_new(None, ask=False)
    if passphrase is None and bus.startswith("kafka"):  # asked for while nobody has to wait
        passphrase = authorities.passphrase_of(pki_of(folder), passphrases.for_old())
    # From the look for settings until they are there: another would make all of it for another federation or bus.
    with durable.alone(folder):
        _check_same(folder, federation, bus)
        settings = _settings(folder, federation, bus, passphrase, reach, setup=setup)
        if not (folder / "settings.toml").is_file():
            settings_file.save(folder, settings)
    made = OperatorHome(folder, settings_file.load(folder))
    if (made.settings.federation, made.settings.bus) != (settings.federation, settings.bus):
        message = f"{folder} is the broker of {made.settings.federation} on {made.settings.bus}: name another --home"
        raise ConfigurationError(message)
    key = own_key(made.key_path)
    vkey = f"{notes.vkey(made.owner().origin, key.public.raw)}\n"
    durable.make_lasting(made.vkey_path.parent)
    if not _is_whole(made.vkey_path):  # a kill or power cut of a version before left half of it
        durable.put(made.vkey_path, vkey.encode())
    return made


def own_key(path: Path) -> SigningKey:
    """Give a key of the operator's; the first to ask makes it. Raises ConfigurationError if it cannot be read."""
    if not path.exists():
        with suppress(FileExistsError):  # another was first, and has told its public half already, perhaps
            SigningKey.new().save(path, passphrases.for_new(None, ask=False))
    durable.remove_left(path)
    return SigningKey.load(path, passphrases.for_old())


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


def _settings(
    folder: Path, federation: Federation, bus: str, passphrase: bytes | None, reach: Reach | None, *, setup: bool
) -> Settings:
    if not bus.startswith("kafka"):
        return Settings(role="operator", federation=federation.federation, bus="sqlite:../bus.db")
    from broker import node, node_address  # noqa: PLC0415 -- only a Kafka home needs them

    members, now = federation.world.members, datetime.now(UTC)
    data, address = folder / "kafka", bus.partition(":")[2]
    known = node.load(data, pki_of(folder)) if (data / node.CONFIG).is_file() else None
    if reach:
        if address and known is None:
            message = f"you run the nodes at {address} yourself: where they listen is said in their own settings"
            raise ConfigurationError(message)
        node_address.check_reach(reach.advertised, reach.listen)
    elsewhere = reach.advertised if reach else known.config.advertised if known else ""
    hosts = [*authorities.LOOPBACK, *([elsewhere] if elsewhere and elsewhere not in authorities.LOOPBACK else [])]
    pki = authorities.init_pki(folder, members, now, hosts=hosts, setup=setup, passphrase=passphrase)
    own = known if known or address else node.prepare(data, pki)
    if own and reach:
        own = node.reach(own, reach.advertised, reach.listen)
    if own and (reach or not address or own.is_at(address)):
        name_all(folder, own)
        address = own.bootstrap
    files = {each: tls_of(each) for each in (ROUTER, OPERATOR, SETUP)}
    return Settings(role="operator", federation=federation.federation, bus=f"kafka:{address}", tls=files)


def name_all(folder: Path, cluster: Cluster) -> None:
    """Let the home name all nodes of its own, where they are now, if it names some, or where they were."""
    if not (folder / "settings.toml").is_file():
        return
    settings = settings_file.load(folder)
    ours = settings.bus_kind == "kafka" and cluster.is_at(settings.bus_address)
    if ours and {*settings.bus_address.split(",")} != {*cluster.bootstrap.split(",")}:
        settings_file.save(folder, settings.model_copy(update={"bus": f"kafka:{cluster.bootstrap}"}))


def tls_of(principal: str) -> Tls:
    """Name a principal's PEM files as they lie in a home."""
    pki = Path("pki")
    return Tls(ca=pki / "nodes-ca.pem", certificate=pki / f"{principal}.crt", key=pki / f"{principal}.key")


def credentials(home: OperatorHome, principal: str) -> Credentials:
    """Find one principal's files where the settings name them, as the bus does. Raises ConfigurationError."""
    return certificates.present(Credentials(*map(Path, tls(home.folder, home.settings, principal))), principal)
