"""`valise kafka`: start, stop and show the Kafka nodes of an operator's home."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from broker import certificates, durable, kafka_quota, node, topics
from broker import settings as settings_file
from broker.errors import ConfigurationError
from broker.streams import OPERATOR, SETUP
from cli import answer, disks, exits
from cli import nodes as nodes_of
from cli.operator_home import OperatorHome, credentials, operator_folder, operator_home
from cli.operator_streams import differences, gone, not_made_again, told
from cli.options import Everywhere, Group, everywhere
from cli.trust import proposing

SOON_DAYS = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operator's home keeps what the nodes need; `folder` is HOME/operator."""

    folder: Path

    @property
    def pki(self) -> Path:
        """The certificates that `valise broker init` made."""
        return certificates.pki_of(self.folder)

    @property
    def data(self) -> Path:
        """What the nodes store, and their logs."""
        return self.folder / "kafka"


def _place(home: Path) -> Place:
    """Find where the nodes of a home lie. Raises ConfigurationError where it is made for the embedded bus."""
    place = Place(operator_folder(home))
    made = (place.folder / "settings.toml").is_file() and not (place.data / node.CONFIG).is_file()
    if made and settings_file.load(place.folder).bus_kind != "kafka":
        new = "make a home on it, `valise broker init --bus kafka --home NEW`"
        raise ConfigurationError(f"the bus of {place.folder} is no Kafka: {new}")
    return place


@click.group(cls=Group)
def kafka() -> None:
    """Run Apache Kafka on this machine: one node or three, mutual TLS, deny by default."""


@kafka.command()
@click.option("--nodes", type=click.Choice(["1", "3"]), help="How many nodes; 1 for a new cluster.")
@everywhere
def up(given: Everywhere, nodes: str | None) -> None:
    """Start the nodes that do not run yet; those that run stay as they are."""
    place = _place(given.home)
    if not (place.pki / "root.pem").is_file():
        raise ConfigurationError(f"there are no certificates in {place.pki}: make them with `valise broker init`")
    durable.make_private(place.folder)  # one of before was open to every account
    known = (place.data / node.CONFIG).is_file()
    _check_ours(place, known=known)
    _check_not_emptied(place, known=known)
    if known and (place.folder / "settings.toml").is_file():
        _tell_scarce(place.folder)
    before = node.load(place.data, place.pki) if known else None
    if before:
        _check_not_ended(before, datetime.now(UTC))
    size = int(nodes) if nodes else (len(before.config.nodes) if before else 1)
    cluster, started = nodes_of.start(place.folder, size, answer.aside)
    first = f"Kafka serves at {cluster.bootstrap}" if started else f"Kafka is already running at {cluster.bootstrap}"
    _show(cluster, first, given.again("valise kafka status"), as_json=given.as_json, changed=started)


def _check_ours(place: Place, *, known: bool) -> None:
    """Refuse to start nodes beside those that the home was made for. Raises ConfigurationError."""
    if known or not (place.folder / "settings.toml").is_file():
        return
    settings = settings_file.load(place.folder)
    if settings.bus_kind == "kafka":
        message = f"{place.folder} is made for the nodes at {settings.bus_address}, which you run yourself"
        ours = f"if `valise kafka up` ran them, {place.data / node.CONFIG} is lost: put that of a backup in its place"
        new = "for new nodes that we run, make another home with `valise broker init --bus kafka --home NEW`"
        raise ConfigurationError(f"{message}; {ours}; {new}")


def _check_not_emptied(place: Place, *, known: bool) -> None:
    """Refuse to begin empty nodes where there is a trail: a broker on them would have forgotten what is in force.

    So it is after a restore, or without the disk that the nodes store on. Raises ConfigurationError.
    """
    begun = any(place.folder.glob("trail*/checkpoint"))
    if known and begun and not node.has_data(node.load(place.data, place.pki)):
        message = f"the trail in {place.folder} has leaves, but {place.data} holds no data of a node"
        raise ConfigurationError(f"{message}: put the nodes' folders there, or mount their disk")


def _check_not_ended(cluster: node.Cluster, now: datetime) -> None:
    """Refuse to start nodes that would refuse each other, and be refused by everybody. Raises ConfigurationError."""
    ends = {each.number: certificates.expiry(cluster.pki / f"node-{each.number}.crt") for each in cluster.config.nodes}
    if ended := [f"node-{number} ({end:%Y-%m-%d %H:%M} UTC)" for number, end in ends.items() if end <= now]:
        message = (
            f"the certificate of {', '.join(ended)} has ended: make the next one with `valise broker init`, `--from` "
            "and passphrase as before"
        )
        raise ConfigurationError(message)


@kafka.command()
@everywhere
def down(given: Everywhere) -> None:
    """Stop all nodes; what they store stays."""
    place = _place(given.home)
    cluster = node.load(place.data, place.pki)
    stopped = node.stop(cluster)
    first = "Kafka has stopped" if stopped else "Kafka was not running"
    _show(cluster, first, given.again("valise kafka up"), as_json=given.as_json, changed=stopped)


@kafka.command()
@everywhere
def status(given: Everywhere) -> None:
    """Show which nodes run, until when their certificates are in force, a full disk (exit code 5 if a node is down)."""
    place = _place(given.home)
    cluster = node.load(place.data, place.pki)
    running = sum(found.pid is not None for found in node.statuses(cluster))
    first = f"{running} of {len(cluster.config.nodes)} Kafka nodes are running"
    whole = running == len(cluster.config.nodes)
    _show(cluster, first, given.again(f"valise kafka {'down' if whole else 'up'}"), as_json=given.as_json, changed=[])
    if not whole:
        raise click.exceptions.Exit(exits.UNAVAILABLE)


@kafka.command()
@click.option(
    "--mend",
    is_flag=True,
    help="Make and set what differs as the table says (what is past its retention then goes), who may read and write "
    "what, and how fast members write. A topic that is gone is made again, empty.",
)
@everywhere
def check(given: Everywhere, mend: bool) -> None:
    """Compare every topic and who may use it with the table of streams (exit code 1 where they differ)."""
    home = operator_home(given.home)
    if home.settings.bus_kind != "kafka":
        message = f"the bus of {home.folder} is no Kafka: there is nothing to compare"
        raise ConfigurationError(message)
    if mend:
        asyncio.run(_mend(home))
    found = differences(home)
    lines = [f"  {told(each)}" for each in found]
    if kept := sorted(gone(found) & not_made_again(home)):
        lines.append(
            f"{' and '.join(kept)}: never made again, for empty what is in force would be forgotten, or what comes "
            "refused by every member; put the nodes' data there that have it"
        )
    if any(each.name in (topics.PARTITIONS, topics.COPIES) for each in found):
        lines.append("partitions and copies: use Kafka's own kafka-topics.sh and kafka-reassign-partitions.sh")
    compared = topics.copies_known(home.settings.bus_address, credentials(home, OPERATOR))
    if not compared:
        lines.append("copies and min.insync.replicas were not compared: fewer than three nodes answer or are named")
    differ = f"{answer.count(len(found), 'thing differs', 'things differ')} from the table of streams"
    first = differ if found else "every topic is as the table says"
    answer.show(
        "\n".join([first, *lines]),
        {"differs": [asdict(each) for each in found], "copies_compared": compared},
        as_json=given.as_json,
        then=given.again("valise kafka check --mend" if found else "valise broker status"),
    )
    if found:
        raise click.exceptions.Exit(exits.FAILED)


async def _mend(home: OperatorHome) -> None:
    """Make what is gone and may be made again, by the directory in force, then set what differs."""
    setup = certificates.credentials(certificates.pki_of(home.folder), SETUP)
    await proposing.bring_up(home)
    await asyncio.to_thread(topics.mend, home.settings.bus_address, setup, home.world())
    await kafka_quota.bound(home.settings.bus_address, setup)


def _show(cluster: node.Cluster, first: str, then: str, *, as_json: bool, changed: list[int]) -> None:
    rows = [_row(cluster, found) for found in node.statuses(cluster)]
    if as_json:
        answer.say(answer.in_json({"bootstrap": cluster.bootstrap, "changed": changed, "nodes": rows}))
        return
    answer.say(first)
    for row in rows:
        state = f"runs (pid {row['pid']})" if row["pid"] else "is down"
        soon = "  RENEW IT: valise broker init" if row["days_left"] < SOON_DAYS else ""
        soon = soon or ("  RUNS WITH THE ONE BEFORE: valise kafka down, then up" if row["outdated"] else "")
        answer.say(f"  node-{row['node']}  {row['address']:<22} {state:<18} certificate until {row['until']}{soon}")
        answer.say(f"          log {row['log']}")
        if row["scarce"]:
            answer.say(f"          RED {row['disk']}; {disks.MAKE_ROOM}")
    answer.say(then)


def _disk(cluster: node.Cluster, number: int) -> disks.Disk:
    """Look at the disk of a node, which may have one of its own."""
    data = cluster.folder(number) / "data"
    return disks.look(data if data.is_dir() else cluster.data)


def _tell_scarce(folder: Path) -> None:
    """Say which disks are full before nodes start there: what they say themselves of it names no disk."""
    for each in disks.of_home(folder, settings_file.load(folder)):
        if each.scarce:
            answer.aside(f"{disks.said(each)}; {disks.MAKE_ROOM}")


def _row(cluster: node.Cluster, found: node.NodeStatus) -> dict[str, Any]:
    until = certificates.expiry(cluster.pki / f"node-{found.number}.crt")
    disk = _disk(cluster, found.number)
    return {
        "node": found.number,
        "address": found.address,
        "pid": found.pid,
        "until": until.date().isoformat(),
        "days_left": (until - datetime.now(UTC)).days,
        "outdated": found.pid is not None and node.is_outdated(cluster, found.number),
        "log": str(found.log),
        "disk": disks.said(disk),
        "scarce": disk.scarce,
    }
