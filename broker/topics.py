"""The topics of a federation on Kafka: derived from the table of streams, made, compared and mended with `setup`.

`setup` is a super user whose certificate is kept in a safe: nobody else creates topics or changes their settings.

How prompt an erasure is: a deleted or replaced record is gone from the disk of every node after retention (or
max.compaction.lag.ms) + segment.ms + the node's next look + file.delete.delay.ms, and the last segment of a stream is
closed only when something is written after it. `Pace` sets the three that are the topic's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its __init__ offers them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from broker.bindings import Binding, await_bindings, bind, derived, named
from broker.kafka_admin import ANSWER_LIMIT_S, client_settings, metadata, settle, until
from broker.streams import FAMILIES, FOR_EVER, Family, World, family_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from broker.certificates import Credentials

PARTITIONS, COPIES = "partitions", "copies"
"""What no setting of a topic mends: Kafka's own kafka-topics.sh and kafka-reassign-partitions.sh do."""
TOPIC, GONE, THERE = "topic", "gone", "there"
"""Of a stream without a topic: whoever writes or reads it waits, until it is made again, empty."""
THREE, MIN_INSYNC = 3, "2"
"""With so many nodes each record lies on three of them, and is acknowledged once it is on two."""
_NOT_SET = (TOPIC, PARTITIONS, COPIES)
INTERNAL = ("__consumer_offsets", "__transaction_state")
"""Kafka's own topics, which the places and the steps of a shard rest on."""


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
    """What a topic has and the table of streams wants: TOPIC, a setting of Kafka's, PARTITIONS or COPIES at least."""

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


def establish(
    bootstrap: str,
    setup: Credentials,
    world: World,
    *,
    shards: int = 1,
    pace: Pace = STEADY,
    overrides: Mapping[str, Mapping[str, str]] | None = None,
    take_away: bool = True,
    names: Mapping[str, str | None] | None = None,
    not_made: Collection[str] = (),
) -> Applied:
    """Make what the world has and the nodes lack, and take away the bindings that the world no longer has.

    `names` are principals whose keys were in other hands: by which name on the bus such a one may do what the world
    says, and no other; None: it may do nothing, whatever the world says. Without `take_away` only what these have under
    other names goes: for who does not know yet what the world is. Of `not_made` no topic is made where it is gone.

    `overrides` are topic settings by family name, for tests. Topics that the world no longer names stay, and so do the
    settings of those that exist, which are told: either would destroy what they hold. Returns once the nodes show the
    new state. Raises UnavailableError if they do not answer, ForbiddenStreamError if the certificate is not `setup`'s.
    """
    wants = _Wants(world, shards, pace, overrides or {}, _named(bootstrap))
    admin = AdminClient(client_settings(bootstrap, setup))
    known = names or {}

    def goes(each: Binding) -> bool:
        return take_away or known.get(each.called, each.principal) != each.principal

    wanted = set(named(derived(world), known))
    # Bindings first: a client waits for a topic that is not there yet, and gives up on one that it may not use.
    added, removed = bind(admin, wanted, goes)
    created = _create(admin, wants, not_made)
    _await_topics(admin, set(world.streams()) - set(not_made), created)
    await_bindings(bootstrap, setup, wanted, goes)
    return Applied(tuple(created), tuple(added), tuple(removed), tuple(_differences(admin, wants)))


def differences(bootstrap: str, who: Credentials, world: World, *, shards: int = 1) -> list[Difference]:
    """Compare the topics with what the world wants of them (`setup` and `operator` may)."""
    wants = _Wants(world, shards, STEADY, {}, _named(bootstrap))
    return _differences(AdminClient(client_settings(bootstrap, who)), wants)


def copies_known(bootstrap: str, who: Credentials) -> bool:
    """Say whether copies are compared: not where fewer than three nodes answer, and the address names no more."""
    known = metadata(AdminClient(client_settings(bootstrap, who)))
    return max(len(known.brokers), _named(bootstrap)) >= THREE


def mend(bootstrap: str, setup: Credentials, world: World, *, shards: int = 1) -> list[Difference]:
    """Set what differs and can be set, of topics that are there; return what cannot. Returns once the nodes show it."""
    admin, wants = AdminClient(client_settings(bootstrap, setup)), _Wants(world, shards, STEADY, {}, _named(bootstrap))
    _set(admin, [each for each in _differences(admin, wants) if each.name not in _NOT_SET])
    left: list[Difference] = []

    def mended() -> bool:
        left[:] = _differences(admin, wants)
        return all(each.name in _NOT_SET for each in left)

    until(mended, "the settings are not in force yet")
    return left


def config_resource(stream: str) -> ConfigResource:
    """Name a stream's topic as the owner of settings."""
    return ConfigResource(ResourceType.TOPIC, stream)


def existing(bootstrap: str, who: Credentials) -> dict[str, int]:
    """List the topics that this principal may see, and their partitions."""
    admin = AdminClient(client_settings(bootstrap, who))
    return {name: len(topic.partitions) for name, topic in _topics(admin).items()}


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


def _create(admin: AdminClient, wants: _Wants, not_made: Collection[str]) -> list[str]:
    known = metadata(admin)
    missing = [each for each in wants.world.streams() if each not in known.topics and each not in not_made]
    if not missing:
        return []
    wanted = [wants.topic(stream, wants.nodes(known)) for stream in missing]
    for stream, done in admin.create_topics(wanted, request_timeout=ANSWER_LIMIT_S).items():
        settle(done, "create", stream, tolerate=KafkaError.TOPIC_ALREADY_EXISTS)
    return missing


def _differences(admin: AdminClient, wants: _Wants) -> list[Difference]:
    found: list[Difference] = []

    def compared() -> bool:
        known = metadata(admin)
        there = [each for each in wants.world.streams() if each in known.topics]
        settings = _settings(admin, there)
        if settings is not None:
            found[:] = _found(wants, known, there, settings)
        return settings is not None

    until(compared, "the nodes do not agree yet which topics there are")
    return found


def _settings(admin: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str]] | None:
    """Ask for the settings of topics; None where the node that is asked does not know of one that another has listed.

    Each node learns by itself, ms apart, of what is made.
    """
    if not names:
        return {}
    asked = admin.describe_configs([config_resource(each) for each in names], request_timeout=ANSWER_LIMIT_S)
    settings: dict[str, dict[str, str]] = {}
    for resource, done in asked.items():
        has = settle(done, "describe", str(resource.name), tolerate=KafkaError.UNKNOWN_TOPIC_OR_PART)
        if has is None:
            return None
        settings[str(resource.name)] = {each.name: str(each.value) for each in has.values()}
    return settings


def _found(
    wants: _Wants, known: Any, there: Sequence[str], settings: Mapping[str, Mapping[str, str]]
) -> list[Difference]:
    nodes = wants.nodes(known)
    found = [Difference(stream, TOPIC, GONE, THERE) for stream in wants.world.streams() if stream not in there]
    found += [each for stream in there for each in _short(stream, known.topics[stream], wants)]
    for name in (*there, *INTERNAL):
        copies = min((len(each.replicas) for each in _partitions(known, name)), default=THREE)
        if nodes >= THREE > copies:
            found.append(Difference(name, COPIES, str(copies), str(THREE)))
    for stream, has in settings.items():
        for name, wanted in wants.config(stream, nodes).items():
            if has.get(name) != wanted:
                found.append(Difference(stream, name, has.get(name, "nothing"), wanted))
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
        settle(done, "set", str(resource.name))


def _topics(admin: AdminClient) -> dict[str, Any]:
    found: dict[str, Any] = metadata(admin).topics
    return found


def _await_topics(admin: AdminClient, wanted: set[str], made: Collection[str]) -> None:
    """Return once every topic is known, and each partition of those made now has its leader.

    One of before may have none for long: its only copy lies on a node that is down. `differences` tells of such.
    """

    def led() -> bool:
        found = _topics(admin)
        return wanted <= found.keys() and all(
            found[name].partitions and all(p.leader >= 0 for p in found[name].partitions.values()) for name in made
        )

    until(led, "the topics have no leaders yet")
