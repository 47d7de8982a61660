"""Who may do what on Kafka, cell by cell: every principal, every stream, every act, and the impostors."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from broker import authorities, bindings, certificates, kafka_admin, principals, topics
from broker.bus import Copies, Record, Shard, Writes
from broker.certificates import FEDERATION, Credentials
from broker.errors import ConfigurationError, ForbiddenStreamError, TopicGoneError, UnavailableError
from broker.kafka import LIMIT_S, KafkaBus
from broker.streams import World
from tests.kafka import bare, impostors
from tests.kafka.attempts import ACTS, Attempts, Outcome
from tests.kafka_world import WORLD, KafkaWorld, running_kafka

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.kafka

STREAMS = tuple(WORLD.streams())
MEMBERS = ("at.adapter", "lv.adapter", "at.ncb", "lv.ncb")
NAMED = (*MEMBERS, "router", "operator", "auditor")
IMPOSTORS = ("wrong country", "foreign root", "no certificate")
PATIENCE_S, IMPOSTOR_PATIENCE_S = 60.0, 2.0


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaWorld]:
    """A node of their own: `setup` really deletes here."""
    with running_kafka(WORLD) as running:
        yield running


def expected(principal: str, act: str, stream: str) -> Outcome:
    """What the table of DESIGN section 7 says, read from `World` and not from the bindings."""
    if principal in IMPOSTORS:
        return Outcome.UNREACHABLE
    reads, writes = principal in WORLD.readers(stream), principal in WORLD.writers(stream)
    allowed = {"read": reads, "write": writes, "describe": reads or writes or principal == "operator"}.get(act, False)
    return Outcome.ALLOWED if allowed or principal == "setup" else Outcome.REFUSED


@dataclass
class Tried:
    cells: dict[str, dict[str, dict[str, Outcome]]]
    listed: dict[str, set[str]]
    before: Any
    after: Any


@pytest.fixture(scope="module")
def tried(kafka: KafkaWorld, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    folder, pki, setup = tmp_path_factory.mktemp("impostors"), kafka.cluster.pki, kafka.credentials("setup")
    ca = str(pki / "nodes-ca.pem")
    false: dict[str, Credentials | None] = {
        "wrong country": impostors.wrong_country(pki, folder / "country"),
        "foreign root": impostors.foreign_root(pki, folder / "root"),
        "no certificate": None,
    }
    # A record everywhere, so that a read that is allowed gives something.
    master = Attempts(kafka.bootstrap, ca, setup, PATIENCE_S)
    assert set(master.write(STREAMS).values()) == {Outcome.ALLOWED}
    before = state(kafka)
    clients = {name: Attempts(kafka.bootstrap, ca, kafka.credentials(name), PATIENCE_S) for name in NAMED}
    clients |= {name: Attempts(kafka.bootstrap, ca, who, IMPOSTOR_PATIENCE_S) for name, who in false.items()}
    with ThreadPoolExecutor(max_workers=len(clients)) as pool:
        running = {name: pool.submit(client.try_all, STREAMS) for name, client in clients.items()}
        cells = {name: done.result() for name, done in running.items()}
    listed = {name: clients[name].listed() for name in NAMED}
    after = state(kafka)
    cells["setup"] = master.try_all(STREAMS)
    # The node learns a moment later of what it has had deleted: it would be taken for there, and not made again.
    kafka_admin.until(lambda: not topics.existing(kafka.bootstrap, setup).keys() & set(STREAMS), "they are still there")
    kafka.establish(WORLD)
    return Tried(cells, listed, before, after)


def state(kafka: KafkaWorld) -> Any:
    """Everything that only `setup` may change."""
    setup = kafka.credentials("setup")
    resources = [topics.config_resource(stream) for stream in STREAMS]
    admin = AdminClient(kafka_admin.client_settings(kafka.bootstrap, setup))
    described = {
        resource.name: {entry.name: entry.value for entry in done.result(timeout=PATIENCE_S).values()}
        for resource, done in admin.describe_configs(resources).items()
    }
    return described, topics.existing(kafka.bootstrap, setup), bindings.standing(kafka.bootstrap, setup)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("principal", [*NAMED, "setup", *IMPOSTORS])
def test_each_cell_is_as_the_table_of_streams_says(tried: Tried, principal: str, act: str) -> None:
    assert tried.cells[principal][act] == {stream: expected(principal, act, stream) for stream in STREAMS}


@pytest.mark.parametrize("principal", NAMED)
def test_a_listing_shows_nobody_a_topic_that_is_not_theirs(tried: Tried, principal: str) -> None:
    theirs = {stream for stream in STREAMS if expected(principal, "describe", stream) is Outcome.ALLOWED}
    assert tried.listed[principal] - {"__consumer_offsets", "__transaction_state"} == theirs


def test_nothing_that_was_refused_has_left_a_trace(tried: Tried) -> None:
    assert tried.after == tried.before


def test_the_adapter_reads_for_the_bureau_that_holds_no_certificate(tried: Tried) -> None:
    allowed = {name for name in NAMED if tried.cells[name]["read"]["inbox.at.organised-crime"] is Outcome.ALLOWED}
    assert allowed == {"at.adapter"}
    allowed = {name for name in NAMED if tried.cells[name]["read"]["inbox.at.ncb"] is Outcome.ALLOWED}
    assert allowed == {"at.ncb"}


# --- beside the streams: groups, transactions, bindings ---------------------------------------------------------------


def settings(kafka: KafkaWorld, principal: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(kafka_admin.client_settings(kafka.bootstrap, kafka.credentials(principal)))
    return found | {"log_level": 0, "log.connection.close": False, "error_cb": lambda _: None}


NOT_YET = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
"""What a node says while it makes the topic in which groups are kept, at the first use of any."""


def joins(kafka: KafkaWorld, principal: str, group: str, topic: str) -> int:
    """Commit an offset in a group, and tell Kafka's code."""
    admin, deadline = AdminClient(settings(kafka, principal)), time.monotonic() + PATIENCE_S
    while (code := commits(admin, group, topic)) in NOT_YET and time.monotonic() < deadline:
        continue
    return code


def commits(admin: AdminClient, group: str, topic: str) -> int:
    place = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 0)])
    try:
        [done] = admin.alter_consumer_group_offsets([place], request_timeout=PATIENCE_S).values()
        answer = done.result(timeout=PATIENCE_S)
    except KafkaException as error:
        return int(error.args[0].code())
    fault = answer.topic_partitions[0].error
    return int(fault.code() if fault else KafkaError.NO_ERROR)


@pytest.mark.parametrize(
    ("principal", "group", "topic"),
    [
        ("at.ncb", "at.ncb.reader", "inbox.at.ncb"),
        ("at.adapter", "at.adapter.reader", "inbox.at.organised-crime"),
        ("router", "router.shard-0", "notices.at"),
        ("auditor", "auditor.reader", "trail"),
    ],
)
def test_a_reader_commits_in_a_group_of_its_own_name(kafka: KafkaWorld, principal: str, group: str, topic: str) -> None:
    assert joins(kafka, principal, group, topic) == KafkaError.NO_ERROR


@pytest.mark.parametrize(
    ("principal", "group", "topic"),
    [
        ("at.ncb", "lv.ncb.reader", "inbox.at.ncb"),
        ("at.ncb", "at.ncb2.reader", "inbox.at.ncb"),
        ("at.ncb", "at.ncb", "inbox.at.ncb"),
        ("at.adapter", "router.shard-0", "inbox.at.organised-crime"),
        ("operator", "operator.reader", "checkpoints"),
        ("operator", "router.shard-0", "checkpoints"),
    ],
)
def test_nobody_commits_in_a_group_of_another_name(kafka: KafkaWorld, principal: str, group: str, topic: str) -> None:
    assert joins(kafka, principal, group, topic) == KafkaError.GROUP_AUTHORIZATION_FAILED


def transaction(kafka: KafkaWorld, principal: str, transactional_id: str, topic: str) -> int:
    """Write one record in a transaction, and tell Kafka's code."""
    producer = Producer(settings(kafka, principal) | {"transactional.id": transactional_id})
    try:
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
        producer.produce(topic, b"invented")
        producer.commit_transaction(PATIENCE_S)
    except KafkaException as error:
        return int(error.args[0].code())
    return int(KafkaError.NO_ERROR)


def test_the_router_writes_in_transactions_of_its_own_name(kafka: KafkaWorld) -> None:
    assert transaction(kafka, "router", "router.0", "routed") == KafkaError.NO_ERROR


@pytest.mark.parametrize("transactional_id", ["router.0", "at.adapter.0", "at.adapter"])
def test_members_have_no_transactions(kafka: KafkaWorld, transactional_id: str) -> None:
    code = transaction(kafka, "at.adapter", transactional_id, "notices.at")
    assert code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


@pytest.mark.parametrize("topic", ["notices.at", "receipts.lv", "versions"])
def test_the_router_cannot_write_what_others_say_even_in_a_transaction(kafka: KafkaWorld, topic: str) -> None:
    assert transaction(kafka, "router", "router.1", topic) == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize("principal", NAMED)
def test_nobody_but_setup_changes_bindings_partitions_or_records(kafka: KafkaWorld, principal: str) -> None:
    before = state(kafka)
    admin = AdminClient(settings(kafka, principal))
    grab = bindings.Binding(principal, "topic", "inbox.", "read", prefixed=True)
    own = next(binding for binding in bindings.derived(WORLD) if binding.principal == principal)
    tries = [
        *admin.create_acls([bindings.acl(grab)], request_timeout=PATIENCE_S).values(),
        *admin.delete_acls([bindings.acl_filter(own)], request_timeout=PATIENCE_S).values(),
        *admin.create_partitions([NewPartitions(stream, 2) for stream in STREAMS]).values(),
        *admin.delete_records([TopicPartition(stream, 0, 1) for stream in STREAMS]).values(),
    ]
    for answer in tries:
        with pytest.raises(KafkaException) as refusal:
            answer.result(timeout=PATIENCE_S)
        assert refusal.value.args[0].code() in {
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
        }
    assert state(kafka) == before


# --- impostors --------------------------------------------------------------------------------------------------------


def knocks(kafka: KafkaWorld, who: Credentials | None) -> str:
    """Connect with a certificate and ask for a topic: "answered", or how the node ended it."""
    context = bare.client_context(str(kafka.cluster.pki / "nodes-ca.pem"), who)
    try:
        bare.fetch(kafka.bootstrap, context, ["versions"])
    except ssl.SSLError as error:
        return f"alert: {error.reason}"
    except ConnectionError:
        return "closed"
    return "answered"


def test_a_genuine_certificate_is_answered(kafka: KafkaWorld) -> None:
    assert knocks(kafka, kafka.credentials("at.ncb")) == "answered"


def test_no_certificate_is_refused_in_the_handshake(kafka: KafkaWorld) -> None:
    assert knocks(kafka, None).startswith("alert: ")


def test_a_members_authority_cannot_sign_for_another_country(kafka: KafkaWorld, tmp_path: Path) -> None:
    assert knocks(kafka, impostors.wrong_country(kafka.cluster.pki, tmp_path)).startswith("alert: ")


def test_a_foreign_root_is_refused_in_the_handshake(kafka: KafkaWorld, tmp_path: Path) -> None:
    assert knocks(kafka, impostors.foreign_root(kafka.cluster.pki, tmp_path)).startswith("alert: ")


@pytest.mark.parametrize(
    ("authority", "unit", "name"),
    [
        ("member-at-ca", "services", "router"),
        ("services-ca", "people", "setup"),
        ("people-ca", "services", "router"),
        ("people-ca", "nodes", "node-1"),
        ("services-ca", "nodes", "node-1"),
    ],
)
def test_an_authority_cannot_sign_for_another_units_names(
    kafka: KafkaWorld, tmp_path: Path, authority: str, unit: str, name: str
) -> None:
    subject = authorities._ours(unit, name)
    assert knocks(kafka, impostors.signed_by(kafka.cluster.pki, authority, subject, tmp_path)).startswith("alert: ")


@pytest.mark.parametrize(
    ("authority", "unit", "name"),
    [("services-ca", "services", "setup"), ("people-ca", "people", "node-1"), ("people-ca", "people", "router")],
)
def test_a_name_of_another_unit_within_an_authoritys_own_bounds_is_nobody(
    kafka: KafkaWorld, tmp_path: Path, authority: str, unit: str, name: str
) -> None:
    subject = authorities._ours(unit, name)
    assert knocks(kafka, impostors.signed_by(kafka.cluster.pki, authority, subject, tmp_path)) == "closed"


def test_a_node_certificate_does_not_open_the_door_of_the_clients(kafka: KafkaWorld) -> None:
    pki = kafka.cluster.pki
    node = Credentials(pki / "nodes-ca.pem", pki / "node-2.crt", pki / "node-2.key")
    assert knocks(kafka, node).startswith("alert: ")


@pytest.mark.parametrize("port", ["internal_port", "controller_port"])
@pytest.mark.parametrize("principal", ["router", "setup", "at.ncb"])
def test_the_doors_between_nodes_open_to_nodes_only(kafka: KafkaWorld, principal: str, port: str) -> None:
    address = f"{kafka.cluster.config.host}:{getattr(kafka.cluster.node(1), port)}"
    context = bare.client_context(str(kafka.cluster.pki / "nodes-ca.pem"), kafka.credentials(principal))
    with pytest.raises(ssl.SSLError):
        bare.fetch(address, context, ["versions"])


def test_every_listener_speaks_tls_1_3_and_nothing_older(kafka: KafkaWorld) -> None:
    node = kafka.cluster.node(1)
    for port in (node.client_port, node.internal_port, node.controller_port):
        context = bare.client_context(str(kafka.cluster.pki / "nodes-ca.pem"), kafka.credentials("router"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match=r"(?i)version"):
            bare.fetch(f"{kafka.cluster.config.host}:{port}", context, ["versions"])


@pytest.fixture
def false_broker(kafka: KafkaWorld, tmp_path: Path) -> Iterator[int]:
    """AT's authority signs itself a certificate for the broker's host; a server shows it to whoever connects."""
    subject = certificates.member_subject("AT", "ncb")
    shown = impostors.signed_by(kafka.cluster.pki, "member-at-ca", subject, tmp_path, hosts=authorities.LOOPBACK)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.chain, shown.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet, args=(server, context))
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


def greet(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        try:
            with connection, context.wrap_socket(connection, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            continue


def shake_hands(port: int, ca: Path) -> None:
    context = bare.client_context(str(ca), None)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1"),
    ):
        return


def test_a_members_authority_cannot_pass_for_the_broker(kafka: KafkaWorld, false_broker: int) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(false_broker, kafka.cluster.pki / "nodes-ca.pem")
    # Why clients trust the nodes' root alone: with the federation root they would have been deceived.
    shake_hands(false_broker, kafka.cluster.pki / "root.pem")


def test_a_stock_client_does_not_talk_to_a_false_broker(kafka: KafkaWorld, false_broker: int) -> None:
    told: list[int] = []
    address = {"bootstrap.servers": f"127.0.0.1:{false_broker}", "error_cb": lambda error: told.append(error.code())}
    admin = AdminClient(settings(kafka, "at.ncb") | address)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=IMPOSTOR_PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while KafkaError._SSL not in told:
        admin.poll(0.1)
        assert time.monotonic() < deadline


# --- a world that changes ---------------------------------------------------------------------------------------------


def test_a_new_member_adds_only_what_is_missing_and_what_is_gone_is_unbound(kafka: KafkaWorld) -> None:
    kafka.establish(WORLD)
    wider = World((*WORLD.members, "EUROPOL"), (*WORLD.bureaus, "EUROPOL/analysis"), frozenset({"LV/ncb"}))
    changed = kafka.establish(wider)
    assert set(changed.created) == set(wider.streams()) - set(STREAMS)
    assert {binding.principal for binding in changed.added} == {"europol.adapter", "at.adapter"}
    assert {binding.principal for binding in changed.removed} == {"at.ncb"}
    assert kafka.establish(wider) == topics.Applied((), (), ())
    back = kafka.establish(WORLD)
    assert back.created == ()
    assert bindings.standing(kafka.bootstrap, kafka.credentials("operator")) == bindings.derived(WORLD)


def test_settings_that_are_not_the_tables_are_told_and_changed_only_on_demand(kafka: KafkaWorld) -> None:
    """An inbox of an earlier version keeps everything; one whose retention was lowered loses what nobody has taken."""
    setup, operator = kafka.credentials("setup"), kafka.credentials("operator")
    topics.mend(kafka.bootstrap, setup, WORLD)  # to a site's pace
    assert topics.differences(kafka.bootstrap, operator, WORLD) == []
    changed = [
        topics.Difference("inbox.at.ncb", "cleanup.policy", "delete", "compact,delete"),
        topics.Difference("notices.at", "retention.ms", "2592000000", "1000000"),
    ]
    topics._set(AdminClient(kafka_admin.client_settings(kafka.bootstrap, setup)), changed)
    found = [topics.Difference(each.topic, each.name, each.wanted, each.found) for each in changed]
    for _ in range(600):
        if topics.differences(kafka.bootstrap, operator, WORLD) == found:
            break
        time.sleep(0.1)
    told = topics.establish(kafka.bootstrap, setup, WORLD)
    assert (told.created, told.added, told.removed, list(told.differs)) == ((), (), (), found)
    with pytest.raises(ForbiddenStreamError):
        topics.mend(kafka.bootstrap, operator, WORLD)
    assert topics.mend(kafka.bootstrap, setup, WORLD, shards=2)[0].name == topics.PARTITIONS
    assert topics.differences(kafka.bootstrap, operator, WORLD) == []


def test_a_thief_of_a_principal_that_was_stopped_does_nothing_any_more(kafka: KafkaWorld) -> None:
    """Not over the connection that he has, either; and whoever may set bindings by the table does not undo it."""
    mine, setup = ["receipts.at", "inbox.at.ncb"], kafka.credentials("setup")
    ca, stolen = str(kafka.cluster.pki / "nodes-ca.pem"), kafka.credentials("at.ncb")
    thief = Attempts(kafka.bootstrap, ca, stolen, PATIENCE_S)
    assert set(thief.describe(mine).values()) == {Outcome.ALLOWED}
    for _ in range(2):
        topics.establish(kafka.bootstrap, setup, WORLD, names={"at.ncb": None})
        bound = {each.principal for each in bindings.standing(kafka.bootstrap, setup)}
        assert bound == set(WORLD.principals()) - {"at.ncb"}
        for tried in (thief.describe(mine), thief.read(mine), thief.write(mine)):
            assert set(tried.values()) == {Outcome.REFUSED}
    assert {each.principal for each in kafka.establish(WORLD).added} == {"at.ncb"}


def test_a_thief_does_nothing_once_its_principal_is_resumed_either_and_the_owners_new_certificate_does(
    kafka: KafkaWorld, tmp_path: Path
) -> None:
    """Not even before its own certificate has ended, nor where the bindings of its name have stayed after the stop."""
    mine, setup, pki = ["receipts.at", "inbox.at.ncb"], kafka.credentials("setup"), kafka.cluster.pki
    ca, stolen, now = str(pki / "nodes-ca.pem"), kafka.credentials("at.ncb"), datetime.now(UTC)
    chain = authorities.sign_request(
        pki, "AT", "ncb", certificates.request(tmp_path, "AT", "ncb"), now, resumed=1_764_499_200_000
    )
    new = certificates.accept(tmp_path, "AT", "ncb", chain, (pki / "nodes-ca.pem").read_bytes(), now)
    thief, owner = (Attempts(kafka.bootstrap, ca, each, PATIENCE_S) for each in (stolen, new))
    assert set(thief.describe(mine).values()) == {Outcome.ALLOWED}
    assert set(owner.describe(mine).values()) == {Outcome.REFUSED}
    try:
        names: dict[str, str | None] = {"at.ncb": "at.ncb.1764499200000"}
        done = topics.establish(kafka.bootstrap, setup, WORLD, take_away=False, names=names)
        assert {each.principal for each in done.added} == {"at.ncb.1764499200000"}
        assert {each.principal for each in done.removed} == {"at.ncb"}
        for tried in (thief.describe(mine), thief.read(mine), thief.write(mine)):
            assert set(tried.values()) == {Outcome.REFUSED}
        assert set(owner.describe(mine).values()) == {Outcome.ALLOWED}
        assert owner.write(["receipts.at"]) == {"receipts.at": Outcome.ALLOWED}
        topics.establish(kafka.bootstrap, setup, WORLD, take_away=False, names={"at.ncb": None})
        assert set(owner.describe(mine).values()) == {Outcome.REFUSED}
    finally:
        kafka.establish(WORLD)


def test_each_node_tells_by_what_name_it_takes_a_principal_that_is_resumed(kafka: KafkaWorld) -> None:
    """Asked before anything is changed: by the settings of a version before its member would stay outside."""
    setup, subject = kafka.credentials("setup"), "CN=ncb.1764499200000,OU=members,O=Member AT,C=AT"
    assert principals.strangers(kafka.bootstrap, setup, subject, "at.ncb.1764499200000") == []
    assert principals.strangers(kafka.bootstrap, setup, subject, "at.ncb") == [1]
    assert principals.strangers(kafka.bootstrap, setup, f"O=Other,{subject}", "at.ncb.1764499200000") == [1]


def test_nobody_else_can_establish_a_world(kafka: KafkaWorld) -> None:
    with pytest.raises(ForbiddenStreamError):
        topics.establish(kafka.bootstrap, kafka.credentials("operator"), World(("AT", "EE"), ("AT/ncb",)))


def test_the_federations_name_in_other_letters_is_no_member() -> None:
    assert FEDERATION.upper() != FEDERATION
    with pytest.raises(ConfigurationError):
        certificates.member_subject(FEDERATION.upper(), "adapter")


async def test_who_was_stopped_is_refused_at_once_and_not_told_that_no_node_answers(kafka: KafkaWorld) -> None:
    """aiokafka asks for the place of a topic that it may not see until the time is up."""
    setup = kafka.credentials("setup")
    topics.establish(kafka.bootstrap, setup, WORLD, names={"at.ncb": None})
    try:
        async with (
            KafkaBus(kafka.bootstrap, "at.ncb", kafka.pki("at.ncb"), WORLD) as bus,
            asyncio.timeout(LIMIT_S / 2),
        ):
            for asked in (bus.end("inbox.at.ncb"), bus.read("inbox.at.ncb", 0), bus.place("copy", "inbox.at.ncb")):
                with pytest.raises(ForbiddenStreamError):
                    await asked
    finally:
        kafka.establish(WORLD)


async def test_topics_that_are_gone_are_told_by_name_and_made_again(kafka: KafkaWorld) -> None:
    """Who writes or reads there would only hear, after a while, that no node answers."""
    lost, inputs = ("inbox.at.ncb", "receipts.at", "routed"), ["notices.at", "receipts.at"]
    copies = [Copies(b"k", b"shared", [("inbox.at.ncb", b"own"), ("inbox.lv.ncb", b"own")])]
    try:
        async with KafkaBus(kafka.bootstrap, "router", kafka.pki("router"), WORLD, limit=3.0) as bus:
            await bus.keep_place("0", "receipts.at", await bus.end("receipts.at"))
            async with bus.own(0, inputs) as shard:
                assert not await shard.gone()
                assert "receipts.at" not in shard.unplaced()
                await asyncio.to_thread(_take_away, kafka, lost)
                asked: list[Coroutine[Any, Any, object]] = [
                    bus.fan_out(copies),
                    shard.commit([], Writes([("routed", b"", b"v")])),
                    bus.read("routed", 0),
                    bus.keep_place("distribute", "routed", 1),
                    bus.end("receipts.at"),
                ]
                found = await asyncio.gather(*asked, return_exceptions=True)
                assert [each.streams if isinstance(each, TopicGoneError) else each for each in found] == [
                    ("inbox.at.ncb",), ("routed",), ("routed",), ("routed",), ("receipts.at",),
                ]  # fmt: skip
                assert "no node has a topic for inbox.at.ncb: " in str(found[0])
                assert "kafka check --mend" in str(found[0])
                async with asyncio.timeout(PATIENCE_S):
                    while await shard.gone() != {"receipts.at"}:
                        await shard.take(500, 0.1)  # what came before is taken first
            with pytest.raises(TopicGoneError, match=r"receipts\.at"):
                async with bus.own(0, inputs):
                    pass
            setup, operator = kafka.credentials("setup"), kafka.credentials("operator")
            topics.mend(kafka.bootstrap, setup, WORLD)  # sets, and makes nothing
            assert {each.topic for each in topics.differences(kafka.bootstrap, operator, WORLD)} == set(lost)
            assert sorted(kafka.establish(WORLD).created) == sorted(lost)
            await bus.fan_out(copies)
            async with bus.own(0, inputs, {"receipts.at": 0}) as shard:
                assert not await shard.gone()
                assert "receipts.at" in shard.unplaced()  # its place went with it
                (stands_for_it,) = [each for each in await shard.take(500, 0.1) if each.stream == "receipts.at"]
                assert (stands_for_it.offset, stands_for_it.fault) == (-1, "receipts.at was lost, and made again")
                await shard.commit([stands_for_it], Writes([("routed", b"", b"v")]))
            async with bus.own(0, inputs, {"receipts.at": 0}) as shard:
                assert "receipts.at" not in shard.unplaced()
                assert not [each for each in await shard.take(500, 0.1) if each.stream == "receipts.at"]
    finally:
        kafka.establish(WORLD)


async def test_of_an_input_made_again_while_it_is_read_nothing_is_passed_over(kafka: KafkaWorld) -> None:
    """Kafka takes an offset by the topic's name alone; the place in the one before would lie within the next."""
    stream, writes = "notices.lv", Writes([("routed", b"", b"v")])
    router = KafkaBus(kafka.bootstrap, "router", kafka.pki("router"), WORLD)
    async with router as bus, KafkaBus(kafka.bootstrap, "lv.adapter", kafka.pki("lv.adapter"), WORLD) as member:
        for value in (b"before", b"before"):
            last = await member.append(stream, [(b"", value)])
        async with bus.own(0, [stream]) as shard:
            while await bus.place("0", stream) <= last:
                await shard.commit(await shard.take(500, 0.1), writes)
            _made_again(kafka, stream, [b"%d" % each for each in range(last + 3)])  # nothing is read meanwhile
            while not (taken := await shard.take(500, 1)):
                pass
            await shard.commit(taken, writes)
            with pytest.raises(UnavailableError, match=f"{stream} was lost, and made again"):
                await shard.gone()
        assert not await bus.has_place("0", stream)
        async with bus.own(0, [stream], {stream: 0}) as shard:
            assert shard.unplaced() == {stream}
            taken = await _all(shard, last + 4)
            assert [each.value for each in taken] == [None, *(b"%d" % each for each in range(last + 3))]
            await shard.commit(taken, writes)
            assert not await shard.gone()
        assert await bus.place("0", stream) == last + 3


async def test_an_input_that_ends_before_where_it_was_read_to_is_named_by_its_place(kafka: KafkaWorld) -> None:
    """By where it had been read on to `--lost` would be refused, and name another."""
    stream = "notices.lv"
    router = KafkaBus(kafka.bootstrap, "router", kafka.pki("router"), WORLD)
    async with router as bus, KafkaBus(kafka.bootstrap, "lv.adapter", kafka.pki("lv.adapter"), WORLD) as member:
        await member.append(stream, [(b"", b"before")])
        async with bus.own(0, [stream]) as shard:
            while not await shard.take(500, 0.1):
                pass
            _made_again(kafka, stream, [])
            with pytest.raises(UnavailableError, match="what it had a moment ago"):
                await _all(shard, 1)


async def _all(shard: Shard, count: int) -> list[Record]:
    taken: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < count:
            taken += await shard.take(500, 0.1)
    return taken


def _made_again(kafka: KafkaWorld, stream: str, values: Sequence[bytes]) -> None:
    _take_away(kafka, [stream])
    kafka.establish(WORLD)
    producer = Producer(kafka_admin.client_settings(kafka.bootstrap, kafka.credentials("lv.adapter")))
    for each in values:
        producer.produce(stream, each)
    producer.flush(PATIENCE_S)


def _take_away(kafka: KafkaWorld, names: Sequence[str]) -> None:
    setup, operator = kafka.credentials("setup"), kafka.credentials("operator")
    admin = AdminClient(kafka_admin.client_settings(kafka.bootstrap, setup))
    for done in admin.delete_topics([*names]).values():
        done.result(PATIENCE_S)
    gone = {topics.Difference(each, topics.TOPIC, topics.GONE, topics.THERE) for each in names}
    kafka_admin.until(lambda: gone <= set(topics.differences(kafka.bootstrap, operator, WORLD)), "some are still there")
