"""Nodes start once, say what is wrong, survive kill -9, and are never taken for another process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from broker import authorities, certificates, kafka_admin, node, node_address, settings, topics
from broker.errors import ConfigurationError
from broker.node_address import free_ports
from broker.settings import Settings
from broker.streams import World
from cli import operator_home, seed, stage
from cli.broker import broker
from cli.kafka import kafka as command
from tests.kafka_world import WORLD, KafkaWorld, quick, running_kafka

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def prepared(tmp_path: Path) -> node.Cluster:
    pki = authorities.init_pki(tmp_path / "operator", [], datetime.now(UTC))
    return node.prepare(tmp_path / "operator" / "kafka", pki)


def test_a_cluster_keeps_its_ports_and_ids(prepared: node.Cluster) -> None:
    assert node.prepare(prepared.data, prepared.pki) == prepared


def test_a_cluster_that_was_never_started_may_get_another_size(prepared: node.Cluster) -> None:
    larger = node.prepare(prepared.data, prepared.pki, nodes=3)
    assert len({each.client_port for each in larger.config.nodes}) == 3
    assert larger.bootstrap.split(",")[0] == prepared.bootstrap
    assert node.load(prepared.data, prepared.pki) == larger


def test_who_prepares_a_cluster_beside_another_waits_and_has_the_same_ports(tmp_path: Path) -> None:
    """Else the settings name nodes that nobody starts."""
    data, pki = tmp_path / "kafka", tmp_path / "pki"
    data.mkdir()
    with ThreadPoolExecutor(1) as other:
        with node._alone(data):
            second = other.submit(node.prepare, data, pki)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            fixed = node._fixed(1, "127.0.0.1", free_ports("127.0.0.1", 3))
            first = node._keep(node.Cluster(data, pki, fixed))
        assert second.result() == first == node.load(data, pki)


def test_a_cluster_does_not_change_its_size_while_another_starts_it(prepared: node.Cluster) -> None:
    with ThreadPoolExecutor(1) as other:
        with node._alone(prepared.data):
            second = other.submit(node.prepare, prepared.data, prepared.pki, nodes=3)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            served(prepared, "trail-0")
        with pytest.raises(ConfigurationError, match="holds a cluster of 1"):
            second.result()
    assert node.load(prepared.data, prepared.pki) == prepared


def test_a_node_is_not_formatted_with_ids_that_are_not_its_clusters_any_more(prepared: node.Cluster) -> None:
    node.prepare(prepared.data, prepared.pki, nodes=3)
    with pytest.raises(ConfigurationError, match="another number of nodes meanwhile: give the command again"):
        node.start(prepared, tuning=quick())
    assert not prepared.folder(1).exists()


def test_a_cluster_that_was_started_does_not_change_its_size(prepared: node.Cluster) -> None:
    prepared.folder(1).mkdir()
    (prepared.folder(1) / "formatted").touch()
    with pytest.raises(ConfigurationError, match="holds a cluster of 1: say --nodes 1"):
        node.prepare(prepared.data, prepared.pki, nodes=3)


def served(cluster: node.Cluster, *more: str) -> Path:
    """What a node that served has left where its mark was lost; without `more` only what formatting leaves."""
    data = cluster.folder(1) / "data"
    (data / "__cluster_metadata-0").mkdir(parents=True)
    for name in ("meta.properties", "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint", *more):
        (data / name).write_bytes(b"kept")
    return data


@pytest.mark.parametrize(
    "more", ["__cluster_metadata-0/00000000000000000000.log", ".kafka_cleanshutdown", "trail-0"]
)  # fmt: skip
def test_without_its_mark_what_a_node_served_is_kept_and_the_node_refused(prepared: node.Cluster, more: str) -> None:
    data = served(prepared, more)
    before = sorted(data.rglob("*"))
    with pytest.raises(ConfigurationError, match=r"formatted is missing.*Nothing was touched.*`touch "):
        node.start(prepared, tuning=quick())
    with pytest.raises(ConfigurationError, match="holds a cluster of 1"):
        node.prepare(prepared.data, prepared.pki, nodes=3)
    assert sorted(data.rglob("*")) == before


def test_half_of_a_formatting_is_no_data(prepared: node.Cluster) -> None:
    served(prepared, "bootstrap.checkpoint.tmp")
    assert not node.has_data(prepared)


def test_the_root_of_a_disk_holds_nothing_of_a_node_and_is_no_place_for_its_data(prepared: node.Cluster) -> None:
    found = prepared.folder(1) / "data" / "lost+found"
    found.mkdir(parents=True)
    (found / "#12").touch()
    assert not node.has_data(prepared)
    with pytest.raises(ConfigurationError, match=rf"root of a disk.*Mount the disk at {prepared.folder(1)}"):
        node.start(prepared, tuning=quick())
    assert (found / "#12").exists()


@pytest.mark.parametrize("name", ["a,b", "a\nb", os.fsdecode(b"a\xff")])
def test_a_path_that_kafka_would_take_for_another_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="make or move the home elsewhere"):
        node.prepare(tmp_path / name / "kafka", tmp_path / "pki")


def test_a_damaged_cluster_says_what_to_do(prepared: node.Cluster) -> None:
    (prepared.data / "cluster.json").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="put that of a backup in its place"):
        node.load(prepared.data, prepared.pki)


def test_no_empty_nodes_are_started_where_a_trail_has_leaves(tmp_path: Path) -> None:
    """So a restored home is, or one whose disk for the nodes is not there."""
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    (made.folder / "trail" / "checkpoint").touch()
    result = CliRunner().invoke(command, ["up", "--home", str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
    assert "holds no data of a node" in str(result.exception)
    assert not (made.folder / "kafka" / "node-1").exists()


def test_the_home_names_all_nodes_once_their_number_is_said(tmp_path: Path) -> None:
    """`broker init` knows one; `kafka up --nodes 3` makes three of it."""
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    larger = node.prepare(made.folder / "kafka", certificates.pki_of(made.folder), nodes=3)
    assert made.settings.bus != f"kafka:{larger.bootstrap}"
    operator_home.name_all(made.folder, larger)
    assert operator_home.operator_home(tmp_path).settings.bus == f"kafka:{larger.bootstrap}"


def test_no_nodes_are_started_beside_those_that_the_home_was_made_for(tmp_path: Path) -> None:
    operator_home.make(tmp_path, seed.seed(), "kafka:127.0.0.1:9092")
    result = CliRunner().invoke(command, ["up", "--home", str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
    assert "which you run yourself" in str(result.exception)
    assert not (tmp_path / "operator" / "kafka").exists()


def test_a_port_that_another_process_holds_is_named(prepared: node.Cluster) -> None:
    port = prepared.node(1).client_port
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(ConfigurationError, match=f"cannot have 127.0.0.1:{port}, another process holds it"),
    ):
        node.start(prepared, tuning=quick())


def test_two_clusters_that_drew_the_same_ports_have_others_before_the_second_starts(tmp_path: Path) -> None:
    """Each was prepared before the other had started, which is when a port is held."""
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    data, pki = made.folder / "kafka", certificates.pki_of(made.folder)
    before = node.load(data, pki)
    with socket.create_server(("127.0.0.1", before.node(1).internal_port)):
        after = node.prepare(data, pki)
        operator_home.name_all(made.folder, after)
        assert before.node(1).internal_port not in ports(after)
        assert operator_home.operator_home(tmp_path).settings.bus == f"kafka:{after.bootstrap}"
        served(after, "trail-0")
    with socket.create_server(("127.0.0.1", after.node(1).client_port)):
        assert node.prepare(data, pki) == after  # it has served there: members know it by these


def ports(cluster: node.Cluster) -> list[int]:
    return [port for each in cluster.config.nodes for port in each.ports]


def test_a_port_on_which_another_home_is_starting_its_node_is_neither_drawn_nor_started_on(
    prepared: node.Cluster,
) -> None:
    """A node binds its ports seconds after it was started; until then they look free."""
    port = prepared.node(1).controller_port
    with node_address.claimed([port]) as others:
        assert others == []
        with pytest.raises(node.PortHeldError, match=f"127.0.0.1:{port}, another process holds it"):
            node.start(prepared, tuning=quick())
        assert not (prepared.folder(1) / "formatted").exists()
        after = node.prepare(prepared.data, prepared.pki)
    assert port not in ports(after)


@pytest.mark.kafka
def test_two_homes_that_drew_the_same_ports_and_start_at_once_both_serve(tmp_path: Path) -> None:
    first, second = (operator_home.make(tmp_path / each, seed.seed(), "kafka").folder for each in ("a", "b"))
    drawn = json.loads((first / "kafka" / "cluster.json").read_bytes())
    (second / "kafka" / "cluster.json").write_text(json.dumps(drawn), encoding="utf-8")
    settings.save(second, settings.load(second).model_copy(update={"bus": settings.load(first).bus}))
    command = [sys.executable, "-m", "cli.main", "kafka", "up", "--home"]
    both = [subprocess.Popen([*command, str(each.parent)]) for each in (first, second)]
    try:
        assert [each.wait(180) for each in both] == [0, 0]
        buses = {settings.load(each).bus for each in (first, second)}
        loaded = [node.load(each / "kafka", certificates.pki_of(each)) for each in (first, second)]
        assert buses == {f"kafka:{each.bootstrap}" for each in loaded}
        assert not {*ports(loaded[0])} & {*ports(loaded[1])}
    finally:
        for each in (first, second):
            node.stop(node.load(each / "kafka", certificates.pki_of(each)), limit=0)


@pytest.mark.kafka
def test_a_demo_whose_first_ports_are_taken_draws_others_and_goes_on_with_these(tmp_path: Path) -> None:
    """Another process takes a port between its drawing and the start."""
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    drawn = node.load(made.folder / "kafka", certificates.pki_of(made.folder))
    with socket.create_server(("127.0.0.1", drawn.node(1).client_port)):
        opened = stage._serving(tmp_path, made, lambda _: None)
        serving = node.load(made.folder / "kafka", certificates.pki_of(made.folder))
        node.stop(serving, limit=0)
    assert serving.bootstrap != drawn.bootstrap
    assert opened.settings.bus == settings.load(made.folder).bus == f"kafka:{serving.bootstrap}"


KILLED = """
import os, signal, sys
from broker import settings
from cli.main import main

settings.save = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
"""Killed once the cluster says where its nodes are, before the home's settings do."""


def killed(*command: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, *command], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_settings_that_a_kill_left_behind_other_ports_are_mended_by_the_same_command(tmp_path: Path) -> None:
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    data, pki = made.folder / "kafka", certificates.pki_of(made.folder)
    before = node.load(data, pki)
    with socket.create_server(("127.0.0.1", before.node(1).client_port)):
        killed("kafka", "up", "--home", str(tmp_path))
        after = node.load(data, pki)
        assert settings.load(made.folder).bus == f"kafka:{before.bootstrap}" != f"kafka:{after.bootstrap}"
        operator_home.name_all(made.folder, node.prepare(data, pki))
    assert settings.load(made.folder).bus == f"kafka:{after.bootstrap}"


@pytest.mark.parametrize("again", [("--advertise", "127.0.0.2"), (), ("--bus", "kafka")])
def test_settings_that_a_kill_left_behind_where_members_reach_the_nodes_are_mended_by_the_next_command(
    tmp_path: Path, again: tuple[str, ...]
) -> None:
    assert initialised(tmp_path, "--bus", "kafka").exit_code == 0
    first = operator_home.operator_home(tmp_path).settings.bus
    killed("broker", "init", "--advertise", ELSEWHERE, "--home", str(tmp_path))
    assert operator_home.operator_home(tmp_path).settings.bus == first
    assert initialised(tmp_path, *again).exit_code == 0
    assert operator_home.operator_home(tmp_path).settings.bus == first.replace("127.0.0.1", ELSEWHERE)


def test_another_number_of_nodes_is_reached_where_the_operator_said(prepared: node.Cluster) -> None:
    node.reach(prepared, ELSEWHERE)
    larger = node.prepare(prepared.data, prepared.pki, nodes=3)
    assert {each.split(":")[0] for each in larger.bootstrap.split(",")} == {ELSEWHERE}
    assert larger.is_at(prepared.bootstrap)


ELSEWHERE = "127.0.0.2"
"""An address of every Linux machine that no certificate names by itself."""


def initialised(home: Path, *options: str) -> Result:
    return CliRunner().invoke(broker, ["init", "--home", str(home), *options])


@pytest.mark.kafka
def test_members_reach_the_nodes_where_the_operator_says_and_nowhere_else(tmp_path: Path) -> None:
    assert initialised(tmp_path, "--bus", "kafka").exit_code == 0
    first = operator_home.operator_home(tmp_path).settings.bus
    assert initialised(tmp_path, "--advertise", ELSEWHERE).exit_code == 0
    home = operator_home.operator_home(tmp_path)
    assert home.settings.bus == first.replace("127.0.0.1", ELSEWHERE)
    pki = certificates.pki_of(home.folder)
    cluster = node.load(home.folder / "kafka", pki)
    try:
        node.start(cluster, tuning=quick())
        assert initialised(tmp_path).exit_code == 0  # the certificates still name it
        with pytest.raises(ConfigurationError, match="the nodes run: stop them first"):
            node.reach(cluster, "127.0.0.1")
        setup = certificates.credentials(pki, "setup")
        found = kafka_admin.metadata(AdminClient(kafka_admin.client_settings(home.settings.bus_address, setup)))
        assert [(each.host, each.port) for each in found.brokers.values()] == [(ELSEWHERE, cluster.node(1).client_port)]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", cluster.node(1).client_port), timeout=5)
        for port in (cluster.node(1).internal_port, cluster.node(1).controller_port):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((ELSEWHERE, port), timeout=5)
    finally:
        node.stop(cluster, limit=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--advertise", "0.0.0.0"], "no name or address that members could connect to"),
        (["--advertise", "bus.example:9092"], "no name or address that members could connect to"),
        (["--advertise", "bus.example,other.example"], "no name or address that members could connect to"),
        (["--advertise", "198.51.100.1"], "198.51.100.1 is no address of this machine: --listen names one"),
        (["--advertise", "198.51.100.1", "--listen", "198.51.100.2"], "198.51.100.2 is no address of this machine"),
        (["--listen", "0.0.0.0"], "--advertise, and with it --listen"),
    ],
)
def test_what_members_could_not_reach_is_refused_and_nothing_changes(
    tmp_path: Path, options: list[str], said: str
) -> None:
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    files = {each: each.read_bytes() for each in made.folder.rglob("*") if each.is_file()}
    result = initialised(tmp_path, *options)
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)
    assert {each: each.read_bytes() for each in made.folder.rglob("*") if each.is_file()} == files


def test_nodes_that_we_do_not_run_are_not_told_where_to_listen(tmp_path: Path) -> None:
    operator_home.make(tmp_path, seed.seed(), "kafka:127.0.0.1:9092")
    result = initialised(tmp_path, "--advertise", ELSEWHERE)
    assert "you run the nodes at 127.0.0.1:9092 yourself" in str(result.exception)


def test_a_node_whose_certificate_does_not_name_where_clients_connect_is_not_started(prepared: node.Cluster) -> None:
    cluster = node.reach(prepared, ELSEWHERE)
    with pytest.raises(ConfigurationError, match=f"does not name {ELSEWHERE}, .*broker init --advertise {ELSEWHERE}"):
        node.start(cluster, tuning=quick())
    assert not (cluster.folder(1) / "formatted").exists()


def test_nodes_that_were_moved_to_a_machine_without_their_address_are_not_started(prepared: node.Cluster) -> None:
    moved = node._moved(prepared, prepared.config, {"advertised": "198.51.100.1", "listen": "198.51.100.1"})
    with pytest.raises(ConfigurationError, match=r"198\.51\.100\.1 is no address of this machine: --listen names one"):
        node.start(moved, tuning=quick())
    assert not (moved.folder(1) / "formatted").exists()


def test_nodes_behind_another_machines_address_listen_on_their_own(prepared: node.Cluster) -> None:
    cluster = node.reach(prepared, "bus.example", "0.0.0.0")
    assert cluster.bootstrap == f"bus.example:{prepared.node(1).client_port}"
    assert (cluster.config.client_bound, cluster.config.host) == ("0.0.0.0", "127.0.0.1")
    assert node.prepare(prepared.data, prepared.pki) == cluster


def test_a_process_that_was_given_the_pid_since_is_not_taken_for_the_node(prepared: node.Cluster) -> None:
    prepared.folder(1).mkdir()
    (prepared.folder(1) / "pid").write_text(f"{os.getpid()}\n", encoding="ascii")
    assert [status.pid for status in node.statuses(prepared)] == [None]
    assert node.stop(prepared, limit=0) == []


def test_without_java_it_says_which_package_to_install(
    prepared: node.Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="apt-get install openjdk-17-jre-headless"):
        node.start(prepared)


def test_without_certificates_it_says_how_to_make_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["up", "--home", str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
    assert "valise broker init" in str(result.exception)


def test_without_nodes_it_says_how_to_start_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["status", "--home", str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
    assert "valise kafka up" in str(result.exception)


@pytest.mark.parametrize("asked", ["up", "status", "down"])
def test_a_home_of_the_embedded_bus_is_told_that_it_needs_no_nodes(tmp_path: Path, asked: str) -> None:
    settings.save(tmp_path / "operator", Settings(role="operator", federation="f", bus="sqlite:../bus.db"))
    result = CliRunner().invoke(command, [asked, "--home", str(tmp_path)])
    assert "is no Kafka: make a home on it, `valise broker init --bus kafka" in str(result.exception)


@pytest.mark.kafka
def test_a_damaged_store_gives_the_nodes_own_words(prepared: node.Cluster) -> None:
    (prepared.folder(1) / "data").mkdir(parents=True)
    (prepared.folder(1) / "formatted").touch()
    with pytest.raises(ConfigurationError, match=r"node 1 gave up: .*meta\.properties"):
        node.start(prepared, tuning=quick())
    assert [status.pid for status in node.statuses(prepared)] == [None]


@pytest.mark.kafka
def test_a_node_runs_in_a_home_of_any_letters_and_its_half_formatting_is_made_anew(tmp_path: Path) -> None:
    home = tmp_path / "josé Łódź \\ 𝄞" / "operator"
    cluster = node.prepare(home / "kafka", authorities.init_pki(home, [], datetime.now(UTC)))
    cluster.data.chmod(0o755)
    served(cluster)
    try:
        assert node.start(cluster, tuning=quick()) == [1]
        assert (cluster.folder(1) / "data" / "meta.properties").read_bytes() != b"kept"
        assert (cluster.folder(1) / "formatted").read_text(encoding="ascii").strip() == cluster.config.cluster_id
        assert cluster.data.stat().st_mode & 0o077 == 0
    finally:
        node.stop(cluster, limit=0)


@pytest.mark.kafka
def test_up_twice_starts_once_and_down_ends_it(prepared: node.Cluster, tmp_path: Path) -> None:
    home = ["--home", str(tmp_path), "--json"]
    (tmp_path / "operator").chmod(0o755)
    try:
        first, again = (json.loads(CliRunner().invoke(command, ["up", *home]).stdout) for _ in range(2))
        assert (tmp_path / "operator").stat().st_mode & 0o077 == 0
        assert (first["changed"], again["changed"]) == ([1], [])
        assert [each["pid"] for each in first["nodes"]] == [each["pid"] for each in again["nodes"]]
        assert CliRunner().invoke(command, ["status", *home]).exit_code == 0
        down = json.loads(CliRunner().invoke(command, ["down", *home]).stdout)
        assert (down["changed"], down["nodes"][0]["pid"]) == ([1], None)
        assert CliRunner().invoke(command, ["status", *home]).exit_code == 5
    finally:
        node.stop(prepared, limit=0)


def acknowledged(kafka: KafkaWorld) -> list[object]:
    """Write one record as a member would, and tell what Kafka said: [None] is an acknowledgement."""
    told: list[object] = []
    who = kafka_admin.client_settings(kafka.bootstrap, kafka.credentials("at.adapter"))
    quiet = {"log_level": 0, "log.connection.close": False, "acks": "all", "enable.idempotence": True}
    producer = Producer(who | quiet)
    producer.produce("notices.at", b"invented", on_delivery=lambda error, _: told.append(error))
    producer.flush(120)
    return told


CARELESS = {"default.replication.factor": "1", "min.insync.replicas": "1"}
"""As Kafka has it where nobody says otherwise."""


def wider(*bureaus: str) -> World:
    return World(WORLD.members, (*WORLD.bureaus, *bureaus), WORLD.certified)


def check_copies(kafka: KafkaWorld) -> None:
    """Ours lie on three nodes whatever these have as their default; a topic made by hand is told.

    Its only copy lies on the node that is killed later: it has no leader then, and nobody waits for one.
    """
    admin = AdminClient(kafka_admin.client_settings(kafka.bootstrap, kafka.credentials("setup")))
    by_hand = NewTopic("inbox.at.extra", num_partitions=1, replica_assignment=[[2]])
    admin.create_topics([by_hand])[by_hand.topic].result(timeout=60)
    wanted = {topics.COPIES: ("1", "3"), "min.insync.replicas": ("1", "2")}
    deadline = time.monotonic() + 60
    while True:
        found = topics.differences(kafka.bootstrap, kafka.credentials("operator"), wider("AT/extra"))
        durable = {each for each in found if each.name in wanted}
        if durable or time.monotonic() > deadline:
            break
    assert durable == {topics.Difference("inbox.at.extra", name, *each) for name, each in wanted.items()}


def check_copies_without_one(kafka: KafkaWorld) -> None:
    """A node that is down is one of three all the same: copies are compared, and new topics get three."""
    admin = AdminClient(kafka_admin.client_settings(kafka.bootstrap, kafka.credentials("setup")))
    deadline = time.monotonic() + 60
    while topics.copies_known(kafka.bootstrap.split(",")[0], kafka.credentials("operator")):  # each learns by itself
        assert time.monotonic() < deadline
        time.sleep(0.2)
    found = topics.differences(kafka.bootstrap, kafka.credentials("operator"), wider("AT/extra"))
    assert {each.name for each in found} >= {topics.COPIES, "min.insync.replicas"}
    assert topics.copies_known(kafka.bootstrap, kafka.credentials("operator"))
    kafka.establish(wider("AT/extra", "AT/new"))
    deadline = time.monotonic() + 60
    while "inbox.at.new" not in (known := admin.list_topics(timeout=30).topics):  # each node learns of it by itself
        assert time.monotonic() < deadline
    assert [len(each.replicas) for each in known["inbox.at.new"].partitions.values()] == [3]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_of_three_nodes_that_lost_its_disk_copies_what_the_others_have_and_two_are_not_started() -> None:
    with running_kafka(WORLD, nodes=3) as kafka:
        assert acknowledged(kafka) == [None]
        node.stop(kafka.cluster)
        shutil.rmtree(kafka.cluster.folder(3))
        assert node.start(kafka.cluster, tuning=quick()) == [1, 2, 3]
        kafka.kill(1)  # the third and the second hold all of it by now, or nothing is acknowledged
        assert acknowledged(kafka) == [None]
        assert end(kafka, "notices.at") == 2
        node.stop(kafka.cluster)
        for each in (2, 3):
            kafka.cluster.folder(each).rename(kafka.folder / f"away-{each}")
        with pytest.raises(ConfigurationError, match=r"node-2 and .*node-3 hold nothing, but .*node-1 does"):
            node.start(kafka.cluster, tuning=quick())
        assert not list(kafka.cluster.data.glob("node-[23]/data"))


def end(kafka: KafkaWorld, topic: str) -> int:
    who = kafka_admin.client_settings(kafka.bootstrap, kafka.credentials("router"))
    consumer = Consumer(who | {"group.id": "router.0"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)[1])
    finally:
        consumer.close()


@pytest.mark.kafka
def test_a_node_that_a_kill_kept_from_being_noted_is_found_and_stopped(prepared: node.Cluster) -> None:
    """Or it would keep its ports from the next one, and nothing would say that it is ours."""
    try:
        assert node.start(prepared, tuning=quick()) == [1]
        (prepared.folder(1) / "pid").unlink()
        assert node.start(prepared, tuning=quick()) == []
        assert node.stop(prepared, limit=0) == [1]
        assert [each.pid for each in node.statuses(prepared)] == [None]
    finally:
        node.stop(prepared, limit=0)


@pytest.mark.kafka
def test_three_nodes_go_on_when_one_is_killed_and_take_it_back() -> None:
    with running_kafka(WORLD, nodes=3, properties=CARELESS) as kafka:
        check_copies(kafka)
        assert acknowledged(kafka) == [None]
        kafka.kill(2)
        assert [status.pid is None for status in node.statuses(kafka.cluster)] == [False, True, False]
        assert acknowledged(kafka) == [None]
        check_copies_without_one(kafka)
        kafka.restart(2)
        assert [status.pid is None for status in node.statuses(kafka.cluster)] == [False, False, False]
        assert acknowledged(kafka) == [None]
