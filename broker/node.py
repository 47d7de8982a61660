"""One or three Kafka nodes on this machine: prepared, started, stopped, and told apart from other processes.

A cluster lives in one data folder: `cluster.json` (ids and ports, made once), and for each node `node-N/` with its
server.properties, pid, logs and data. The nodes outlive whoever started them. Broker and controller share a process
(KRaft, combined): for tests and small sites; production keeps three controllers of their own.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from broker import certificates, durable, node_log, node_process
from broker.errors import ConfigurationError, UnavailableError
from broker.jars import DEPLOY, found_java, jars
from broker.node_address import check_reach, claimed, free_ports, in_address, is_claimed, is_free
from broker.streams import SETUP

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

READY = "Kafka Server started"
CONFIG = "cluster.json"
"""Ids and ports of a cluster, in its folder: without it the nodes' data are not theirs any more."""
START_LIMIT_S = 90.0
STOP_LIMIT_S = 20.0
FORMAT_LIMIT_S = 60.0
LOOK_S = 0.05
_FRESH = {
    "meta.properties",
    "bootstrap.checkpoint",
    "__cluster_metadata-0",
    "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint",
}
"""What formatting leaves in a node's data folder, and nothing else does; half written with .tmp or .part behind it."""
_LOST_FOUND = "lost+found"
"""What a file system has at its root: nothing that a node served."""
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
"""Of every Java process: the caller's says nothing, and file names are UTF-8 in any locale."""


class PortHeldError(ConfigurationError):
    """Another process has a port of a node that does not run; nothing of it was made."""


class NodeConfig(BaseModel):
    """What is fixed for one node when the cluster is prepared."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    number: int
    directory_id: str
    client_port: int
    internal_port: int
    controller_port: int

    @property
    def ports(self) -> tuple[int, int, int]:
        """All three."""
        return self.client_port, self.internal_port, self.controller_port


class ClusterConfig(BaseModel):
    """What `cluster.json` keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cluster_id: str
    host: str
    nodes: tuple[NodeConfig, ...]
    advertised: str = ""
    """Name or address under which clients reach the nodes, where that is not `host`."""
    listen: str = ""
    """Address on which they are served then; between themselves the nodes stay on `host`."""
    was: tuple[str, ...] = ()
    """Where clients reached them before: the home's settings name it until they are written, too."""

    @property
    def client_host(self) -> str:
        """Where clients connect, and what the nodes' certificates name."""
        return self.advertised or self.host

    @property
    def client_bound(self) -> str:
        """The address that the clients' ports are bound to."""
        return self.listen or self.host


@dataclass(frozen=True, slots=True)
class Cluster:
    """A prepared cluster: its folder, its certificates and what was fixed when it was made."""

    data: Path
    pki: Path
    config: ClusterConfig

    @property
    def bootstrap(self) -> str:
        """Where clients connect: HOST:PORT of every node, comma separated."""
        return ",".join(f"{in_address(self.config.client_host)}:{node.client_port}" for node in self.config.nodes)

    def is_at(self, address: str) -> bool:
        """Say whether these nodes are at an address as `bootstrap` is, or were."""
        return set(address.split(",")) <= {*self.bootstrap.split(","), *self.config.was}

    def folder(self, number: int) -> Path:
        """Tell where one node keeps its files."""
        return self.data / f"node-{number}"

    def node(self, number: int) -> NodeConfig:
        """Find one node's fixed settings."""
        return next(node for node in self.config.nodes if node.number == number)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a node is run, as far as it may differ between a site and a test; times in ms."""

    java: tuple[str, ...]
    rebalance_delay: int
    retention_check: int
    cleaner_backoff: int


# Parallel, not G1: what a node allocates is mostly whole requests, which G1 keeps apart; it took four times the work.
STEADY = Tuning(
    ("-Xmx512m", "-XX:+UseParallelGC"), rebalance_delay=3000, retention_check=60_000, cleaner_backoff=15_000
)
QUICK = Tuning(
    ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    rebalance_delay=0,
    retention_check=1000,
    cleaner_backoff=1000,
)
"""Starts in half the time and runs slower: for tests."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as it is now; `pid` is None where it is down."""

    number: int
    address: str
    pid: int | None
    log: Path


def prepare(
    data: Path, pki: Path, *, nodes: int = 1, host: str = "127.0.0.1", ports: Sequence[int] | None = None
) -> Cluster:
    """Fix the ids and ports of a cluster, or read them if it was prepared before.

    `ports` are three for each node (client, internal, controller), free ones by default. A cluster that was never
    started may still get another size; its first node stays where it is, unless another process has come to hold one of
    its ports. Raises ConfigurationError if it was started: nodes are not added to a cluster that holds data; and for a
    path that Kafka would take for another.
    """
    if nodes not in {1, 3}:
        raise ConfigurationError("a cluster has 1 node or 3")
    for path in (str(data.resolve()), str(pki.resolve())):
        if "," in path or not path.isprintable():
            message = f"Kafka would take {path!r} for another path, for a comma or a sign that cannot be printed"
            raise ConfigurationError(f"{message}: make or move the home elsewhere")
    if found := _prepared(data, pki, nodes):
        return found
    durable.make_private(data)
    # Two would fix two sets of ids and ports; and whoever starts nodes formats them with the ids that it knows.
    with _alone(data):
        if found := _prepared(data, pki, nodes):
            return found
        if (data / CONFIG).is_file():
            return _resized(load(data, pki), nodes)
        drawn = free_ports(host, 3 * nodes) if ports is None else ports
        return _keep(Cluster(data, pki, _fixed(nodes, host, drawn)))


def _prepared(data: Path, pki: Path, nodes: int) -> Cluster | None:
    """Read a cluster if it has this size, and its ports or its data; None where there is none such."""
    found = load(data, pki) if (data / CONFIG).is_file() else None
    fits = found is not None and len(found.config.nodes) == nodes
    # Two that were prepared at once may have drawn the same ports: who starts first has them.
    return found if found and fits and (not _taken(found) or has_data(found)) else None


def _resized(cluster: Cluster, nodes: int) -> Cluster:
    had = len(cluster.config.nodes)
    if has_data(cluster):
        raise ConfigurationError(f"{cluster.data} holds a cluster of {had}: say --nodes {had}, or give another folder")
    config, first = cluster.config, cluster.config.nodes[0]
    own = () if _taken(cluster) else first.ports
    others = [each for each in free_ports(config.host, 3 * nodes) if each not in own][: 3 * nodes - len(own)]
    made = _fixed(nodes, config.host, [*own, *others])
    return _moved(cluster, made, {"advertised": config.advertised, "listen": config.listen})


def _taken(cluster: Cluster) -> list[str]:
    """Name the addresses of a cluster, none of whose nodes runs, that another process holds or claims."""
    held = [each for node in cluster.config.nodes for each in _held(cluster, node)]
    return [*held, *(f"{cluster.config.host}:{port}" for port in _ports(cluster) if is_claimed(port))]


def _held(cluster: Cluster, node: NodeConfig) -> list[str]:
    config = cluster.config
    bound = [(config.client_bound, node.client_port)]
    bound += [(config.host, port) for port in (node.internal_port, node.controller_port)]
    return [f"{host}:{port}" for host, port in bound if not is_free(host, port)]


def _ports(cluster: Cluster) -> list[int]:
    return [port for node in cluster.config.nodes for port in node.ports]


def reach(cluster: Cluster, advertised: str, listen: str = "") -> Cluster:
    """Let clients reach the nodes under another name or address, from their next start on.

    They are served on `listen`, by default on the address that `advertised` stands for; between themselves the nodes
    stay where they are. Raises ConfigurationError for what cannot be connected to, for what is no address of this
    machine, and while a node runs.
    """
    check_reach(advertised, listen)
    with _alone(cluster.data):
        found = load(cluster.data, cluster.pki)
        if any(each.pid is not None for each in statuses(found)):
            raise ConfigurationError("the nodes run: stop them first with `valise kafka down`")
        return _moved(found, found.config, {"advertised": advertised, "listen": listen or advertised})


def _moved(before: Cluster, config: ClusterConfig, reached: Mapping[str, str]) -> Cluster:
    """Keep where the nodes are, and where they were: a kill may have kept the home's settings from saying so."""
    after = replace(before, config=config.model_copy(update=reached))
    was = {*before.config.was, *before.bootstrap.split(",")} - {*after.bootstrap.split(",")}
    return _keep(replace(after, config=after.config.model_copy(update={"was": tuple(sorted(was))})))


def _keep(cluster: Cluster) -> Cluster:
    said = cluster.config.model_dump_json(indent=1, exclude_defaults=True)  # versions of before refuse what they lack
    durable.put(cluster.data / CONFIG, (said + "\n").encode())
    return cluster


def _formatted(cluster: Cluster, number: int) -> Path:
    """Name the mark of a node that may hold data."""
    return cluster.folder(number) / "formatted"


def has_data(cluster: Cluster) -> bool:
    """Say whether any node was formatted, or holds what it served."""
    return any(
        _formatted(cluster, each.number).exists() or _has_served(cluster, each.number) for each in cluster.config.nodes
    )


def _has_served(cluster: Cluster, number: int) -> bool:
    """Say whether a node's data folder holds more than formatting leaves."""
    data = _data(cluster, number)
    top = [each for each in data.glob("*") if each.name != _LOST_FOUND]
    inner = (each.relative_to(data).as_posix() for one in top for each in (one, *one.rglob("*")))
    return any(each.removesuffix(".tmp").removesuffix(".part") not in _FRESH for each in inner)


def load(data: Path, pki: Path) -> Cluster:
    """Read a cluster that was prepared before."""
    path = data / CONFIG
    try:
        return Cluster(data, pki, ClusterConfig.model_validate_json(path.read_bytes()))
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no Kafka in {data} yet: start one with `valise kafka up`") from error
    except ValidationError as error:
        message = f"{path} is damaged ({error.error_count()} faults): put that of a backup in its place"
        raise ConfigurationError(f"{message}, or the nodes' data, which are whole, cannot be served") from error


def start(
    cluster: Cluster,
    numbers: Collection[int] = (),
    *,
    tuning: Tuning = STEADY,
    deploy: Path = DEPLOY,
    progress: Callable[[str], None] = lambda _: None,
    limit: float = START_LIMIT_S,
) -> list[int]:
    """Start the nodes (all, if `numbers` names none) that are not running; return which were, once they serve.

    Raises PortHeldError where another process has a port, ConfigurationError with the node's own words if it gave up,
    UnavailableError if it is not ready within `limit` seconds; then none that was started here is left running.
    """
    java, libs = found_java(), jars(deploy, progress)
    durable.make_private(cluster.data)  # it may be the root of a disk
    with _alone(cluster.data), claimed(_ports(cluster)) as others:
        if load(cluster.data, cluster.pki) != cluster:
            message = f"{cluster.data} was prepared for another number of nodes meanwhile: give the command again"
            raise ConfigurationError(message)
        due = [
            status.number
            for status in statuses(cluster)
            if status.pid is None and (not numbers or status.number in numbers)
        ]
        emptied = _emptied(cluster)
        for number in due:
            _check_ports(cluster, number, others)
            _fill_properties(cluster, number, tuning, deploy)
        try:
            # Who holds nothing comes after the others, and copies what they have.
            for part in (set(due) - emptied, emptied & set(due)):
                _format(cluster, sorted(part), java, libs)
                seen = {number: _spawn(cluster, number, java, libs, tuning, deploy) for number in sorted(part)}
                _await_ready(cluster, seen, limit)
        except (ConfigurationError, UnavailableError, OSError):
            _end(cluster, due, limit=0)
            raise
    return due


def stop(cluster: Cluster, *, limit: float = STOP_LIMIT_S) -> list[int]:
    """Ask every node to end, and end those by force that still run after `limit` seconds; return which ran."""
    with _alone(cluster.data):
        running = [status.number for status in statuses(cluster) if status.pid is not None]
        _end(cluster, running, limit)
    return running


def kill(cluster: Cluster, number: int) -> None:
    """End one node at once, as a power cut would (SIGKILL)."""
    with _alone(cluster.data):
        _end(cluster, [number], limit=0)


def statuses(cluster: Cluster) -> list[NodeStatus]:
    """Tell of every node whether it runs."""
    return [
        NodeStatus(
            node.number,
            f"{in_address(cluster.config.client_host)}:{node.client_port}",
            _pid(cluster, node.number),
            _log(cluster, node.number),
        )
        for node in cluster.config.nodes
    ]


def is_outdated(cluster: Cluster, number: int) -> bool:
    """Say whether a node was started before its certificate was made, which it reads at its start only."""
    try:
        started = (cluster.folder(number) / "pid").stat().st_mtime
        return (cluster.pki / f"node-{number}.crt").stat().st_mtime > started
    except FileNotFoundError:
        return False


# --- preparing --------------------------------------------------------------------------------------------------------


def _fixed(nodes: int, host: str, ports: Sequence[int]) -> ClusterConfig:
    if len(ports) != 3 * nodes:
        raise ConfigurationError(f"{nodes} nodes need {3 * nodes} ports, {len(ports)} were given")
    return ClusterConfig(
        cluster_id=_random_id(),
        host=host,
        nodes=tuple(
            NodeConfig(
                number=index + 1,
                directory_id=_random_id(),
                client_port=ports[3 * index],
                internal_port=ports[3 * index + 1],
                controller_port=ports[3 * index + 2],
            )
            for index in range(nodes)
        ),
    )


def _random_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode("ascii")
        if not text.startswith("-"):  # Kafka's tool would take it for an option
            return text


def _check_ports(cluster: Cluster, number: int, claimed_by_others: Collection[int]) -> None:
    if cluster.config.advertised:  # the home may have been moved to another machine
        check_reach(cluster.config.advertised, cluster.config.listen)
    node, host = cluster.node(number), cluster.config.host
    if held := [*_held(cluster, node), *(f"{host}:{port}" for port in node.ports if port in claimed_by_others)]:
        raise PortHeldError(f"node {number} cannot have {held[0]}, another process holds it: end that process")


def _fill_properties(cluster: Cluster, number: int, tuning: Tuning, deploy: Path) -> None:
    config, node, folder = cluster.config, cluster.node(number), cluster.folder(number)
    for needed in (f"node-{number}.pem", "root.pem", "nodes-ca.pem"):
        if not (cluster.pki / needed).is_file():
            raise ConfigurationError(f"{cluster.pki / needed} is missing: make it with `valise broker init`")
    chain = cluster.pki / f"node-{number}.crt"
    if config.advertised and config.advertised not in certificates.hosts_of(chain):
        message = f"{chain} does not name {config.advertised}, where clients connect: they would refuse the node"
        raise ConfigurationError(f"{message}; make it with `valise broker init --advertise {config.advertised}`")
    copies = len(config.nodes)
    fields = {
        "node_id": str(number),
        "host": config.host,
        "client_bound": in_address(config.client_bound),
        "client_host": in_address(config.client_host),
        "client_port": str(node.client_port),
        "internal_port": str(node.internal_port),
        "controller_port": str(node.controller_port),
        "quorum": ",".join(f"{config.host}:{other.controller_port}" for other in config.nodes),
        "rf": str(copies),
        "min_isr": "2" if copies > 1 else "1",
        "data_dir": _property(_data(cluster, number).resolve()),
        "pki": _property(cluster.pki.resolve()),
        "super_users": ";".join([*(f"User:node-{other.number}" for other in config.nodes), f"User:{SETUP}"]),
        "rebalance_delay": str(tuning.rebalance_delay),
        "retention_check": str(tuning.retention_check),
        "cleaner_backoff": str(tuning.cleaner_backoff),
    }
    template = (deploy / "server.properties.in").read_text(encoding="utf-8")
    kept = [line for line in template.splitlines() if not line.startswith("#")]
    filled = re.sub(r"\{([a-z_]+)\}", lambda field: fields[field[1]], "\n".join(kept))
    (folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    _properties(cluster, number).write_text(filled + "\n", encoding="utf-8")


def _property(path: Path) -> str:
    """Write a path as java.util.Properties reads it, which takes files for ISO 8859-1: as JSON does within quotes."""
    return json.dumps(str(path))[1:-1]


def _data(cluster: Cluster, number: int) -> Path:
    return cluster.folder(number) / "data"


def _format(cluster: Cluster, numbers: Sequence[int], java: str, libs: Path) -> None:
    fresh = [number for number in numbers if not _formatted(cluster, number).exists()]
    for number in fresh:
        if _has_served(cluster, number):
            data, mark = _data(cluster, number), _formatted(cluster, number)
            message = (
                f"{data} holds what node {number} served, but {mark} is missing, as after a copy that left files out"
            )
            how = f"if the folder is whole, `touch {mark}`; to begin without it, move it away"
            raise ConfigurationError(f"{message}. Nothing was touched: {how}")
        if (_data(cluster, number) / _LOST_FOUND).exists():
            message = f"{_data(cluster, number)} is the root of a disk: Kafka takes its {_LOST_FOUND} for a partition"
            raise ConfigurationError(f"{message} and ends. Mount the disk at {cluster.folder(number)}")
    for number in fresh:
        shutil.rmtree(_data(cluster, number), ignore_errors=True)  # half of an interrupted formatting
    tools = [(number, _formatting(cluster, number, java, libs)) for number in fresh]
    for number, tool in tools:
        try:
            said, _ = tool.communicate(timeout=FORMAT_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            tool.kill()
            tool.communicate()
            raise UnavailableError(f"formatting node {number} took more than {FORMAT_LIMIT_S:.0f} s") from error
        if tool.returncode:
            raise ConfigurationError(f"formatting node {number} failed: {said.strip()}")
        durable.write(_formatted(cluster, number), f"{cluster.config.cluster_id}\n".encode())


def _emptied(cluster: Cluster) -> set[int]:
    """Name the nodes that hold nothing while others have served: their disks are lost, or not mounted.

    Raises ConfigurationError where they are the greater part: together they would take what others hold for outdated.
    """
    numbers = [each.number for each in cluster.config.nodes]
    served = {each for each in numbers if _has_served(cluster, each)}
    empty = {each for each in numbers if each not in served and not _formatted(cluster, each).exists()}
    if served and 2 * len(empty) > len(numbers):
        folders = " and ".join(str(cluster.folder(each)) for each in sorted(empty))
        message = (
            f"{folders} hold nothing, but {cluster.folder(min(served))} does: started so, the nodes would forget it"
        )
        raise ConfigurationError(f"{message}. Mount their disks there, or put the folders there")
    return empty if served else set()


def _formatting(cluster: Cluster, number: int, java: str, libs: Path) -> subprocess.Popen[str]:
    config = cluster.config
    quorum = ["--standalone"]
    if len(config.nodes) > 1:
        members = (f"{n.number}@{config.host}:{n.controller_port}:{n.directory_id}" for n in config.nodes)
        quorum = ["--initial-controllers", ",".join(members)]
    command = [java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"]
    command += ["kafka.tools.StorageTool", "format", "--cluster-id", config.cluster_id]
    command += ["--config", str(_properties(cluster, number)), *quorum]
    pipe = subprocess.PIPE
    return subprocess.Popen(  # noqa: S603 -- our own words
        command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=_ENVIRONMENT
    )


# --- processes --------------------------------------------------------------------------------------------------------


def _spawn(cluster: Cluster, number: int, java: str, libs: Path, tuning: Tuning, deploy: Path) -> int:
    """Start one node and return the size that its log had before."""
    folder, log = cluster.folder(number), _log(cluster, number)
    before = log.stat().st_size if log.exists() else 0
    command = [java, *tuning.java, f"-Dkafka.logs.dir={folder / 'logs'}"]
    command += [f"-Dlog4j2.configurationFile={deploy / 'log4j2.yaml'}", "-cp", f"{libs}/*"]
    command += ["kafka.Kafka", str(_properties(cluster, number))]
    # Not subprocess.Popen: the node is no child to wait for, it is to outlive us.
    said = str(folder / "logs" / "console.log")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(java, command, _ENVIRONMENT, file_actions=actions, setsid=True)
    (folder / "pid").write_text(f"{pid}\n", encoding="ascii")
    node_process.await_command(pid)
    return before


def _await_ready(cluster: Cluster, seen: dict[int, int], limit: float) -> None:
    waiting, deadline = dict(seen), time.monotonic() + limit
    while waiting:
        for number, before in list(waiting.items()):
            if READY in node_log.said_since(_log(cluster, number), before):
                del waiting[number]
            elif _pid(cluster, number) is None:
                raise ConfigurationError(f"node {number} gave up: {node_log.last_words(_log(cluster, number), before)}")
        if waiting and time.monotonic() > deadline:
            numbers = ", ".join(map(str, waiting))
            raise UnavailableError(
                f"node {numbers} did not serve within {limit:.0f} s: see {_log(cluster, min(waiting))}"
            )
        time.sleep(LOOK_S)


def _end(cluster: Cluster, numbers: Sequence[int], limit: float) -> None:
    deadline = time.monotonic() + limit
    for number in numbers:
        _signal(cluster, number, signal.SIGTERM if limit else signal.SIGKILL)
    while any(_pid(cluster, number) is not None for number in numbers):
        if time.monotonic() > deadline:
            for number in numbers:
                _signal(cluster, number, signal.SIGKILL)
        time.sleep(LOOK_S)
    for number in numbers:
        (cluster.folder(number) / "pid").unlink(missing_ok=True)


def _signal(cluster: Cluster, number: int, what: signal.Signals) -> None:
    pid = _pid(cluster, number)
    if pid is not None:
        os.kill(pid, what)


def _pid(cluster: Cluster, number: int) -> int | None:
    """Tell the process id of a node that runs."""
    return node_process.found(cluster.folder(number) / "pid", _properties(cluster, number))


def _properties(cluster: Cluster, number: int) -> Path:
    return cluster.folder(number).resolve() / "server.properties"


def _log(cluster: Cluster, number: int) -> Path:
    return cluster.folder(number) / "logs" / "server.log"


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Let one process at a time prepare a cluster in this folder, and start and stop its nodes."""
    with (data / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
