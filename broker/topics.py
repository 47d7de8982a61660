"""The topics and access rules of a federation on Kafka: derived from the table of streams, and applied with `setup`.

What the table does not name is denied: the nodes refuse whatever no binding allows. Only `setup`, a super user whose
certificate is kept in a safe, creates topics, changes their settings or changes bindings.

How prompt an erasure is: a deleted or replaced record is gone from the disk of every node after retention (or
max.compaction.lag.ms) + segment.ms + the node's next look + file.delete.delay.ms, and the last segment of a stream is
closed only when something is written after it. `Pace` sets the three that are the topic's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its __init__ offers them without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from broker.errors import ForbiddenStreamError, UnavailableError
from broker.streams import AUDITOR, FAMILIES, FOR_EVER, OPERATOR, ROUTER, SETUP, Family, World, family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from broker.certificates import Credentials

ANSWER_LIMIT_S = 30.0
LOOK_S = 0.05
PARTITIONS, COPIES = "partitions", "copies"
"""What no setting of a topic mends: Kafka's own kafka-topics.sh and kafka-reassign-partitions.sh do."""
THREE, MIN_INSYNC = 3, "2"
"""With so many nodes each record lies on three of them, and is acknowledged once it is on two."""
INTERNAL = ("__consumer_offsets", "__transaction_state")
"""Kafka's own topics, which the places and the steps of a shard rest on."""
CLUSTER = "kafka-cluster"
EVERY = "*"


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """One thing that one principal may do. `prefixed` names end in a dot: `notices.a` would cover `notices.at`.

    We make none for a single host and none that denies; somebody's hands may have, and then they are to go.
    """

    principal: str
    resource: str
    """topic, group, transactional_id or cluster"""
    name: str
    operation: str
    """read, write, describe or describe_configs; read and write imply describe"""
    prefixed: bool = False
    host: str = "*"
    denies: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon a node may let go of what has passed its time; in ms."""

    segment: int
    compaction_lag: int
    tombstones: int
    file_delete: int


STEADY = Pace(segment=3_600_000, compaction_lag=3_600_000, tombstones=86_400_000, file_delete=10_000)
"""An hour for a segment, an hour until compaction is due, a day in which a reader may find a removal, ten seconds."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """What a topic has and the table of streams wants: one of Kafka's settings, or PARTITIONS or COPIES at least."""

    topic: str
    name: str
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What `establish` had to change: empty lists where everything stood already."""

    created: tuple[str, ...]
    added: tuple[Binding, ...]
    removed: tuple[Binding, ...]
    differs: tuple[Difference, ...] = ()
    """What topics that existed have otherwise; nothing of it was changed."""


def bindings(world: World) -> list[Binding]:
    """Derive every binding of a federation from the table of streams, and nothing beside it."""
    found = {*_stream_bindings(world), *_operator_bindings()}
    # The daily certificate of the operator describes groups and joins none.
    joining = set(world.principals()) - {OPERATOR}
    found |= {Binding(principal, "group", f"{principal}.", "read", prefixed=True) for principal in joining}
    # Members get none: with one they could hold up every read_committed reader of their topics.
    found.add(Binding(ROUTER, "transactional_id", f"{ROUTER}.", "write", prefixed=True))
    return sorted(found)


def _stream_bindings(world: World) -> Iterator[Binding]:
    for stream in world.streams():
        for operation, allowed in (("write", world.writers(stream)), ("read", world.readers(stream))):
            for principal in allowed:
                yield _on_stream(principal, operation, stream)


def _on_stream(principal: str, operation: str, stream: str) -> Binding:
    family = family_of(stream)
    if principal in {ROUTER, AUDITOR, OPERATOR} and family.per:
        # Whoever is named for one stream of such a family is named for all: members that come later are covered.
        return Binding(principal, "topic", f"{family.name}.", operation, prefixed=True)
    return Binding(principal, "topic", stream, operation)


def _operator_bindings() -> Iterator[Binding]:
    """Lags and names, never a record."""
    yield Binding(OPERATOR, "topic", EVERY, "describe")
    yield Binding(OPERATOR, "topic", EVERY, "describe_configs")
    yield Binding(OPERATOR, "group", EVERY, "describe")
    yield Binding(OPERATOR, "cluster", CLUSTER, "describe")


def partitions(stream: str, shards: int) -> int:
    """Tell how many partitions a stream has: one for each shard, or one in all."""
    return shards if family_of(stream).sharded else 1


def topic_config(family: Family, pace: Pace = STEADY) -> dict[str, str]:
    """Spell a family's row as settings of a Kafka topic; everything that erasure depends on is explicit."""
    # Never both: compaction merges old segments with new ones, and the merged one is as young as its newest record, so
    # that in a stream that goes on nothing would ever pass its retention.
    policy = "compact" if family.compacted and family.retention_ms == FOR_EVER else "delete"
    return {
        # Kafka trusts the sender's clock otherwise: a record stamped 1970 would vanish early.
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": policy,
        "retention.ms": str(family.retention_ms),
        "retention.bytes": "-1",
        "segment.ms": str(pace.segment),
        "max.compaction.lag.ms": str(pace.compaction_lag),
        "delete.retention.ms": str(pace.tombstones),
        "file.delete.delay.ms": str(pace.file_delete),
    }


def client_settings(bootstrap: str, who: Credentials) -> dict[str, str | int | float | bool]:
    """Spell a principal's way to the nodes as librdkafka wants it."""
    return {
        "bootstrap.servers": bootstrap,
        "security.protocol": "ssl",
        "ssl.ca.location": str(who.ca),
        "ssl.certificate.location": str(who.chain),
        "ssl.key.location": str(who.key),
        "log_level": 0,  # what fails is raised; lines on stderr would stand between answer and reader
    }


def establish(
    bootstrap: str,
    setup: Credentials,
    world: World,
    *,
    shards: int = 1,
    pace: Pace = STEADY,
    overrides: Mapping[str, Mapping[str, str]] | None = None,
    take_away: bool = True,
    stopped: Collection[str] = (),
) -> Applied:
    """Make what the world has and the nodes lack, and take away the bindings that the world no longer has.

    Without `take_away` only those of `stopped` go: for who does not know yet what the world is. `stopped` are
    principals that may do nothing, whatever the world says: their keys may be in other hands.

    `overrides` are topic settings by family name, for tests. Topics that the world no longer names stay, and so do the
    settings of those that exist, which are told: either would destroy what they hold. Returns once the nodes show the
    new state. Raises UnavailableError if they do not answer, ForbiddenStreamError if the certificate is not `setup`'s.
    """
    wants = _Wants(world, shards, pace, overrides or {}, _named(bootstrap))
    admin = AdminClient(client_settings(bootstrap, setup))
    wanted = {each for each in bindings(world) if each.principal not in stopped}
    # Bindings first: a client waits for a topic that is not there yet, and gives up on one that it may not use.
    added, removed = _bind(admin, wanted, lambda each: take_away or each.principal in stopped)
    created = _create(admin, wants)
    _await_topics(admin, set(world.streams()))
    _await_bindings(bootstrap, setup, wanted, lambda each: take_away or each.principal in stopped)
    return Applied(tuple(created), tuple(added), tuple(removed), tuple(_differences(admin, wants)))


def differences(bootstrap: str, who: Credentials, world: World, *, shards: int = 1) -> list[Difference]:
    """Compare the topics that exist with what the world wants of them (`setup` and `operator` may)."""
    wants = _Wants(world, shards, STEADY, {}, _named(bootstrap))
    return _differences(AdminClient(client_settings(bootstrap, who)), wants)


def copies_known(bootstrap: str, who: Credentials) -> bool:
    """Say whether copies are compared: not where fewer than three nodes answer, and the address names no more."""
    known = _metadata(AdminClient(client_settings(bootstrap, who)))
    return max(len(known.brokers), _named(bootstrap)) >= THREE


def mend(bootstrap: str, setup: Credentials, world: World, *, shards: int = 1) -> list[Difference]:
    """Set what differs and can be set; return what cannot. Returns once the nodes show it."""
    admin, wants = AdminClient(client_settings(bootstrap, setup)), _Wants(world, shards, STEADY, {}, _named(bootstrap))
    _set(admin, [each for each in _differences(admin, wants) if each.name not in (PARTITIONS, COPIES)])
    left: list[Difference] = []

    def mended() -> bool:
        left[:] = _differences(admin, wants)
        return all(each.name in (PARTITIONS, COPIES) for each in left)

    _await(mended, "the settings are not in force yet")
    return left


def config_resource(stream: str) -> ConfigResource:
    """Name a stream's topic as the owner of settings."""
    return ConfigResource(ResourceType.TOPIC, stream)


def existing(bootstrap: str, who: Credentials) -> dict[str, int]:
    """List the topics that this principal may see, and their partitions."""
    admin = AdminClient(client_settings(bootstrap, who))
    return {name: len(topic.partitions) for name, topic in _topics(admin).items()}


def standing_bindings(bootstrap: str, who: Credentials) -> list[Binding]:
    """List the bindings in force (`setup` and `operator` may see them)."""
    return sorted(_standing(AdminClient(client_settings(bootstrap, who))))


# --- topics -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wants:
    """What a world wants of its topics."""

    world: World
    shards: int
    pace: Pace
    overrides: Mapping[str, Mapping[str, str]]
    named: int
    """How many nodes the address names."""

    def nodes(self, known: Any) -> int:
        """Count the nodes: one that is down is in the address only."""
        return max(len(known.brokers), self.named)

    def config(self, stream: str, nodes: int) -> dict[str, str]:
        """Give a topic's settings; on fewer than three nodes how many copies there are is left to these."""
        family = FAMILIES[family_of(stream).name]
        durable = {"min.insync.replicas": MIN_INSYNC} if nodes >= THREE else {}
        return topic_config(family, self.pace) | durable | dict(self.overrides.get(family.name, {}))

    def topic(self, stream: str, nodes: int) -> Any:
        """Make a topic. Never one copy where three nodes are known, whatever these have as their default."""
        config, count = self.config(stream, nodes), partitions(stream, self.shards)
        return NewTopic(stream, num_partitions=count, replication_factor=THREE if nodes >= THREE else -1, config=config)


def _named(bootstrap: str) -> int:
    return len(set(bootstrap.split(",")))


def _create(admin: AdminClient, wants: _Wants) -> list[str]:
    known = _metadata(admin)
    missing = [stream for stream in wants.world.streams() if stream not in known.topics]
    if not missing:
        return []
    wanted = [wants.topic(stream, wants.nodes(known)) for stream in missing]
    for stream, done in admin.create_topics(wanted, request_timeout=ANSWER_LIMIT_S).items():
        _settle(done, "create", stream, tolerate=KafkaError.TOPIC_ALREADY_EXISTS)
    return missing


def _differences(admin: AdminClient, wants: _Wants) -> list[Difference]:
    known = _metadata(admin)
    nodes, there = wants.nodes(known), [each for each in wants.world.streams() if each in known.topics]
    found = [each for stream in there for each in _short(stream, known.topics[stream], wants)]
    for name in (*there, *INTERNAL):
        copies = min((len(each.replicas) for each in _partitions(known, name)), default=THREE)
        if nodes >= THREE > copies:
            found.append(Difference(name, COPIES, str(copies), str(THREE)))
    if not there:
        return found
    asked = admin.describe_configs([config_resource(each) for each in there], request_timeout=ANSWER_LIMIT_S)
    for resource, done in asked.items():
        has = {each.name: str(each.value) for each in _settle(done, "describe", str(resource.name)).values()}
        for name, wanted in wants.config(str(resource.name), nodes).items():
            if has.get(name) != wanted:
                found.append(Difference(str(resource.name), name, has.get(name, "nothing"), wanted))
    return sorted(found)


def _partitions(known: Any, name: str) -> list[Any]:
    return list(known.topics[name].partitions.values()) if name in known.topics else []


def _short(stream: str, topic: Any, wants: _Wants) -> Iterator[Difference]:
    found, wanted = len(topic.partitions), partitions(stream, wants.shards)
    if found < wanted:
        yield Difference(stream, PARTITIONS, str(found), str(wanted))


def _set(admin: AdminClient, differing: Sequence[Difference]) -> None:
    changes: dict[str, list[Any]] = {}
    for each in differing:
        entry = ConfigEntry(each.name, each.wanted, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(each.topic, []).append(entry)
    if not changes:
        return
    wanted = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=each) for name, each in changes.items()]
    for resource, done in admin.incremental_alter_configs(wanted, request_timeout=ANSWER_LIMIT_S).items():
        _settle(done, "set", str(resource.name))


def _metadata(admin: AdminClient) -> Any:
    try:
        return admin.list_topics(timeout=ANSWER_LIMIT_S)
    except KafkaException as error:
        raise UnavailableError(f"the Kafka nodes do not answer: {error}") from error


def _topics(admin: AdminClient) -> dict[str, Any]:
    found: dict[str, Any] = _metadata(admin).topics
    return found


def _await_topics(admin: AdminClient, wanted: set[str]) -> None:
    """Return once every topic is known and each partition has its leader."""

    def led() -> bool:
        found = _topics(admin)
        return all(
            name in found and found[name].partitions and all(p.leader >= 0 for p in found[name].partitions.values())
            for name in wanted
        )

    _await(led, "the topics have no leaders yet")


# --- bindings ---------------------------------------------------------------------------------------------------------


def _bind(
    admin: AdminClient, wanted: set[Binding], goes: Callable[[Binding], bool]
) -> tuple[list[Binding], list[Binding]]:
    standing = _standing(admin)
    added, removed = sorted(wanted - standing), sorted(filter(goes, standing - wanted))
    if added:
        for binding, done in admin.create_acls(list(map(acl, added)), request_timeout=ANSWER_LIMIT_S).items():
            _settle(done, "bind", str(binding.name))
    if removed:
        for found, gone in admin.delete_acls(list(map(acl_filter, removed)), request_timeout=ANSWER_LIMIT_S).items():
            _settle(gone, "unbind", str(found.name))
    return added, removed


def _await_bindings(bootstrap: str, setup: Credentials, wanted: set[Binding], goes: Callable[[Binding], bool]) -> None:
    """Return once every node has shown the bindings, and no other that goes: each learns of them by itself, ms apart.

    A node names any other as the controller, and a new client asks that one for the bindings: so ask until each was it.
    """
    shown: set[int] = set()

    def everywhere() -> bool:
        admin = AdminClient(client_settings(bootstrap, setup))
        known = _metadata(admin)
        standing = _standing(admin)
        if standing >= wanted and not any(map(goes, standing - wanted)):
            shown.add(known.controller_id)
        return shown >= set(known.brokers)

    _await(everywhere, "the bindings are not in force yet")


def _standing(admin: AdminClient) -> set[Binding]:
    anything: Any = None  # the library's own types forget that None means any
    everything = AclBindingFilter(
        ResourceType.ANY,
        anything,
        ResourcePatternType.ANY,
        anything,
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    found: Iterable[Any] = _settle(admin.describe_acls(everything), "describe bindings of", CLUSTER)
    return set(map(_binding, found))


def _parts(binding: Binding) -> tuple[Any, ...]:
    pattern = ResourcePatternType.PREFIXED if binding.prefixed else ResourcePatternType.LITERAL
    # librdkafka has one word for a broker and for the whole cluster.
    resource = ResourceType["BROKER" if binding.resource == "cluster" else binding.resource.upper()]
    permission = AclPermissionType.DENY if binding.denies else AclPermissionType.ALLOW
    who, what = f"User:{binding.principal}", AclOperation[binding.operation.upper()]
    return resource, binding.name, pattern, who, binding.host, what, permission


def acl(binding: Binding) -> AclBinding:
    """Spell a binding for librdkafka."""
    return AclBinding(*_parts(binding))


def acl_filter(binding: Binding) -> AclBindingFilter:
    """Spell a filter that only this binding fits."""
    return AclBindingFilter(*_parts(binding))


def _binding(acl: Any) -> Binding:
    return Binding(
        acl.principal.removeprefix("User:"),
        "cluster" if acl.restype == ResourceType.BROKER else acl.restype.name.lower(),
        acl.name,
        acl.operation.name.lower(),
        prefixed=acl.resource_pattern_type == ResourcePatternType.PREFIXED,
        host=acl.host,
        denies=acl.permission_type == AclPermissionType.DENY,
    )


# --- waiting ----------------------------------------------------------------------------------------------------------


def _settle(done: Future[Any], act: str, stream: str, tolerate: int | None = None) -> Any:
    """Wait for one answer and sort a refusal by who can mend it."""
    try:
        return done.result(timeout=ANSWER_LIMIT_S)
    except TimeoutError as error:
        raise UnavailableError(f"the Kafka nodes did not answer within {ANSWER_LIMIT_S:.0f} s") from error
    except KafkaException as error:
        code = error.args[0].code()
        if code == tolerate:
            return None
        if code in {KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED}:
            raise ForbiddenStreamError(f"the certificate given for {SETUP}", act, stream) from error
        raise UnavailableError(f"the Kafka nodes could not {act} {stream}: {error}") from error


def _await(reached: Any, otherwise: str) -> None:
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise UnavailableError(f"{otherwise}, after {ANSWER_LIMIT_S:.0f} s")
        time.sleep(LOOK_S)
