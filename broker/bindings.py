"""Who may do what on Kafka: derived from the table of streams, and put in force with `setup`.

What the table does not name is denied: the nodes refuse whatever no binding allows. Only `setup`, a super user whose
certificate is kept in a safe, changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its __init__ offers them without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from broker.kafka_admin import ANSWER_LIMIT_S, client_settings, metadata, settle, until
from broker.streams import AUDITOR, OPERATOR, ROUTER, World, family_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from broker.certificates import Credentials

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

    @property
    def called(self) -> str:
        """Whom the table of streams calls so: without the time in its name on the bus (`certificates.on_bus`)."""
        return ".".join(self.principal.split(".")[:2])


def derived(world: World) -> list[Binding]:
    """Derive every binding of a federation from the table of streams, and nothing beside it."""
    found = {*_stream_bindings(world), *_operator_bindings()}
    # The daily certificate of the operator describes groups and joins none.
    joining = set(world.principals()) - {OPERATOR}
    found |= {Binding(principal, "group", f"{principal}.", "read", prefixed=True) for principal in joining}
    # Members get none: with one they could hold up every read_committed reader of their topics.
    found.add(Binding(ROUTER, "transactional_id", f"{ROUTER}.", "write", prefixed=True))
    return sorted(found)


def named(found: Iterable[Binding], names: Mapping[str, str | None]) -> Iterator[Binding]:
    """Give bindings for the names that principals have on the bus; none for one that has None, which was stopped."""
    for each in found:
        if (principal := names.get(each.principal, each.principal)) is not None:
            yield replace(each, principal=principal)


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


def standing(bootstrap: str, who: Credentials) -> list[Binding]:
    """List the bindings in force (`setup` and `operator` may see them)."""
    return sorted(_listed(AdminClient(client_settings(bootstrap, who))))


def bind(
    admin: AdminClient, wanted: set[Binding], goes: Callable[[Binding], bool]
) -> tuple[list[Binding], list[Binding]]:
    """Put in force what is wanted and take away what stands beside it and `goes`; return what came and what went."""
    there = _listed(admin)
    added, removed = sorted(wanted - there), sorted(filter(goes, there - wanted))
    if added:
        for binding, done in admin.create_acls(list(map(acl, added)), request_timeout=ANSWER_LIMIT_S).items():
            settle(done, "bind", str(binding.name))
    if removed:
        for found, gone in admin.delete_acls(list(map(acl_filter, removed)), request_timeout=ANSWER_LIMIT_S).items():
            settle(gone, "unbind", str(found.name))
    return added, removed


def await_bindings(bootstrap: str, setup: Credentials, wanted: set[Binding], goes: Callable[[Binding], bool]) -> None:
    """Return once every node has shown the bindings, and no other that goes: each learns of them by itself, ms apart.

    A node names any other as the controller, and a new client asks that one for the bindings: so ask until each was it.
    """
    shown: set[int] = set()

    def everywhere() -> bool:
        admin = AdminClient(client_settings(bootstrap, setup))
        known = metadata(admin)
        there = _listed(admin)
        if there >= wanted and not any(map(goes, there - wanted)):
            shown.add(known.controller_id)
        return shown >= set(known.brokers)

    until(everywhere, "the bindings are not in force yet")


def _listed(admin: AdminClient) -> set[Binding]:
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
    found: Iterable[Any] = settle(admin.describe_acls(everything), "describe bindings of", CLUSTER)
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
