"""A federation's Kafka for tests and benches: real nodes, certificates, topics and bindings in a folder of their own.

`with running_kafka(world) as kafka:` gives one node (or three) with everything that `world` names; the fixture
`federation_kafka` starts one node once for the whole session, for `WORLD`.
"""

from __future__ import annotations

import fcntl
import functools
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from broker import authorities, certificates, node, topics
from broker.jars import DEPLOY, found_java, jars
from broker.streams import PEOPLE, SERVICES, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WORLD = World(
    members=("AT", "LV"),
    bureaus=("AT/ncb", "AT/organised-crime", "LV/ncb"),
    certified=frozenset({"AT/ncb", "LV/ncb"}),
)
"""Two members and three bureaus, one of them without a certificate: its member's adapter reads for it."""

Overrides: TypeAlias = "Mapping[str, Mapping[str, str]]"
QUICK_TOPICS = topics.Pace(segment=1000, compaction_lag=1000, tombstones=1000, file_delete=100)


class KafkaWorld:
    """Running nodes and the certificates of everyone in a world, each party's in a home of its own."""

    def __init__(
        self, world: World, folder: Path, cluster: node.Cluster, tuning: node.Tuning, overrides: Overrides
    ) -> None:
        self.world, self.folder, self.cluster, self.tuning = world, folder, cluster, tuning
        self._overrides = overrides

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap

    def credentials(self, principal: str) -> certificates.Credentials:
        """The PEM files of one principal; a member's are made from its own request when first asked for."""
        if principal in (*SERVICES, *PEOPLE):
            return certificates.credentials(self.cluster.pki, principal)
        return enrol(self.folder, principal)

    def pki(self, principal: str) -> tuple[str, str, str]:
        """(cafile, certfile, keyfile), as an ssl context wants them."""
        found = self.credentials(principal)
        return str(found.ca), str(found.chain), str(found.key)

    def establish(self, world: World, *, shards: int = 1) -> topics.Applied:
        """Bring topics and bindings to another world, for example one with a member more."""
        operator = self.folder / "operator"
        authorities.init_pki(operator, world.members, datetime.now(UTC))
        self.world = world
        setup = self.credentials("setup")
        pace = QUICK_TOPICS if self.tuning.retention_check == node.QUICK.retention_check else topics.STEADY
        return topics.establish(self.bootstrap, setup, world, shards=shards, pace=pace, overrides=self._overrides)

    def kill(self, number: int = 1) -> None:
        """kill -9 of one node."""
        node.kill(self.cluster, number)

    def restart(self, number: int = 1) -> None:
        """Start one node that is down, and return once it serves."""
        node.start(self.cluster, [number], tuning=self.tuning)

    def stop(self) -> None:
        """End all nodes at once; what they hold is thrown away afterwards, so nothing waits for a clean end."""
        node.stop(self.cluster, limit=0)


def enrol(folder: Path, principal: str) -> certificates.Credentials:
    """Go the whole way of a member's certificate: its own key and request, the operator's signature, the check."""
    member, unit = principal.split(".", 1)
    home = certificates.pki_of(folder / "members" / member.upper())
    operator = certificates.pki_of(folder / "operator")
    if (home / f"{principal}.crt").is_file():
        return certificates.credentials(home, principal)
    asked = certificates.request(home, member.upper(), unit)
    now, root = datetime.now(UTC), (operator / "nodes-ca.pem").read_bytes()
    chain = authorities.sign_request(operator, member.upper(), unit, asked, now)
    return certificates.accept(home, member.upper(), unit, chain, root, now)


@contextmanager
def running_kafka(
    world: World = WORLD,
    nodes: int = 1,
    *,
    shards: int = 1,
    tuning: node.Tuning | None = None,
    overrides: Overrides | None = None,
    properties: Mapping[str, str] | None = None,
) -> Iterator[KafkaWorld]:
    """Start `nodes` nodes with a world's certificates, topics and bindings; end them and remove all at the end.

    Quick ones where `tuning` says nothing else. `overrides` are topic settings by family name, `properties` settings of
    the nodes that differ from a site's.
    """
    tuning = tuning or quick()
    folder = Path(tempfile.mkdtemp(prefix="valise-kafka-"))
    try:
        pki = authorities.init_pki(folder / "operator", world.members, datetime.now(UTC))
        cluster = node.prepare(folder / "operator" / "kafka", pki, nodes=nodes)
        kafka = KafkaWorld(world, folder, cluster, tuning, overrides or {})
        try:
            node.start(cluster, tuning=tuning, deploy=_deploy(folder, properties) if properties else DEPLOY)
            kafka.establish(world, shards=shards)
            yield kafka
        finally:
            kafka.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def quick() -> node.Tuning:
    """Give `node.QUICK` with an archive of the classes that a node loads, so that half of a start's work is left.

    Java makes the archive (JEP 350), once; it is good for this Java, these jars and their place.
    """
    libs, java = jars(), found_java()
    said = subprocess.run([java, "-version"], capture_output=True, check=True).stderr
    made_of = sha256(said + (DEPLOY / "jars.sha256").read_bytes() + str(libs).encode()).hexdigest()[:16]
    archive = libs.parent / f"classes-{made_of}.jsa"
    with (libs.parent / "archiving").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the run may be making it
        if not archive.exists():
            _archive_classes(archive)
    return _with(f"-XX:SharedArchiveFile={archive}")


def _archive_classes(archive: Path) -> None:
    """Have a node serve for a moment, and write what it loaded as it ends."""
    part = archive.with_suffix(".part")
    with running_kafka(WORLD, tuning=_with(f"-XX:ArchiveClassesAtExit={part}")) as kafka:
        node.stop(kafka.cluster, limit=60)
    part.rename(archive)


def _with(option: str) -> node.Tuning:
    return replace(node.QUICK, java=(*node.QUICK.java, option))


@contextmanager
def quick_nodes() -> Iterator[None]:
    """Have commands and `node.start` start quick nodes in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "start", functools.partial(node.start, tuning=quick()))
        yield


def _deploy(folder: Path, properties: Mapping[str, str]) -> Path:
    """Lay out the node's template once more, with other settings; the jars are the same."""
    made = folder / "deploy"
    made.mkdir()
    jars(DEPLOY)
    for each in DEPLOY.iterdir():
        (made / each.name).symlink_to(each)
    lines = [f"{name}={value}\n" for name, value in properties.items()]  # of two lines of one name the last holds
    template = made / "server.properties.in"
    template.unlink()
    template.write_text((DEPLOY / template.name).read_text(encoding="utf-8") + "".join(lines), encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def federation_kafka() -> Iterator[KafkaWorld]:
    """One node for the whole session, with the topics and bindings of `WORLD`."""
    with running_kafka(WORLD) as kafka:
        yield kafka
