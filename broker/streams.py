"""The streams, who writes and reads each: the one table behind ACLs and checks.

A stream is a channel of the bus: a Kafka topic, a table of the embedded bus. What this table does not name is denied.
Names are lower case; a family such as `notices.<member>` has one stream for each member or bureau.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from broker.errors import ForbiddenStreamError

ROUTER = "router"
OPERATOR = "operator"
AUDITOR = "auditor"
SETUP = "setup"
SERVICES = (ROUTER,)
PEOPLE = (OPERATOR, AUDITOR, SETUP)

DAY_MS = 86_400_000
FOR_EVER = -1


class Party(Enum):
    """A column of the table: whom a cell speaks of, relative to the stream's member and bureau."""

    ADAPTER = "the member's adapter"
    BUREAUS = "the member's bureaus that hold a certificate"
    BUREAU = "that bureau, or the member's adapter where the bureau holds no certificate"
    ROUTER = ROUTER
    OPERATOR = OPERATOR
    AUDITOR = AUDITOR
    EVERYONE = "everyone that the directory names"


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table. `retention_ms` is -1 for ever."""

    name: str
    per: str  # "", "member" or "bureau"
    writers: frozenset[Party]
    readers: frozenset[Party]
    retention_ms: int
    compacted: bool = False
    sharded: bool = True


def _row(name: str, writers: Iterable[Party], readers: Iterable[Party], days: int, **more: bool | str) -> Family:
    keep = FOR_EVER if days == FOR_EVER else days * DAY_MS
    return Family(
        name,
        per=str(more.get("per", "")),
        writers=frozenset(writers),
        readers=frozenset(readers),
        retention_ms=keep,
        compacted=bool(more.get("compacted", False)),
        sharded=bool(more.get("sharded", True)),
    )


TABLE: tuple[Family, ...] = (
    _row("notices", [Party.ADAPTER], [Party.ROUTER], 30, per="member"),
    _row("receipts", [Party.ADAPTER, Party.BUREAUS], [Party.ROUTER], 30, per="member"),
    _row("versions", [Party.OPERATOR], [Party.EVERYONE], FOR_EVER, sharded=False),
    _row("annexes", [Party.OPERATOR], [Party.ROUTER, Party.AUDITOR], FOR_EVER, sharded=False),
    _row("asks", [Party.OPERATOR, Party.AUDITOR], [Party.ROUTER], 30),
    _row("routed", [Party.ROUTER], [Party.ROUTER], 30),
    _row("register", [Party.ROUTER], [Party.ROUTER], FOR_EVER, compacted=True),
    _row("trail", [Party.ROUTER], [Party.ROUTER, Party.AUDITOR], 365),
    _row("checkpoints", [Party.ROUTER], [Party.EVERYONE], FOR_EVER),
    _row("inbox", [Party.ROUTER], [Party.BUREAU], 30, per="bureau", compacted=True),
    _row("outcomes", [Party.ROUTER], [Party.ADAPTER], 30, per="member"),
)
FAMILIES = {family.name: family for family in TABLE}
VERSIONS, ANNEXES, ASKS = "versions", "annexes", "asks"
ROUTED, REGISTER, TRAIL, CHECKPOINTS = "routed", "register", "trail", "checkpoints"
INPUTS = ("versions", "asks", "receipts", "notices")
"""Families that ingest consumes: it has a place in each of their streams. Annexes are looked up by their digest."""


def notices(member: str) -> str:
    """Name the stream on which a member's notices and statements travel."""
    return f"notices.{member.lower()}"


def receipts(member: str) -> str:
    """Name the stream on which a member's receipts travel."""
    return f"receipts.{member.lower()}"


def outcomes(member: str) -> str:
    """Name the stream on which a member learns what became of its notices."""
    return f"outcomes.{member.lower()}"


@lru_cache(maxsize=4096)
def inbox(bureau: str) -> str:
    """Name the stream of one bureau's deliveries; `bureau` is written `AT/ncb`."""
    return "inbox." + bureau.lower().replace("/", ".")


def adapter(member: str) -> str:
    """Name the principal of a member's adapter."""
    return f"{member.lower()}.adapter"


def principal_of(bureau: str) -> str:
    """Name the principal of a bureau that holds a certificate of its own."""
    return bureau.lower().replace("/", ".")


def family_of(stream: str) -> Family:
    """Find the row for a stream name. Raises KeyError if no row names it."""
    return FAMILIES[stream.partition(".")[0]]


def member_of(stream: str) -> str:
    """Name the member whose stream this is, or "" for a stream of the whole federation."""
    parts = stream.split(".")
    return parts[1].upper() if len(parts) > 1 else ""


@dataclass(frozen=True, slots=True)
class World:
    """Who takes part, as far as streams care: `certified` are bureaus (`AT/ncb`) with a certificate of their own."""

    members: tuple[str, ...]
    bureaus: tuple[str, ...]
    certified: frozenset[str] = frozenset()

    def streams(self) -> Iterator[str]:
        """Name every stream of this federation."""
        for family in TABLE:
            if family.per == "member":
                yield from (f"{family.name}.{member.lower()}" for member in self.members)
            elif family.per == "bureau":
                yield from (inbox(bureau) for bureau in self.bureaus)
            else:
                yield family.name

    def inputs(self) -> Iterator[str]:
        """Name every stream that ingest consumes."""
        return (name for name in self.streams() if family_of(name).name in INPUTS)

    def principals(self) -> Iterator[str]:
        """Name every principal that the table speaks of (not `setup`, which stays in a safe)."""
        yield from (ROUTER, OPERATOR, AUDITOR)
        yield from (adapter(member) for member in self.members)
        yield from (principal_of(bureau) for bureau in sorted(self.certified))

    def writers(self, stream: str) -> frozenset[str]:
        """Name the principals that may write a stream."""
        return self._resolve(stream, family_of(stream).writers)

    def readers(self, stream: str) -> frozenset[str]:
        """Name the principals that may read a stream."""
        return self._resolve(stream, family_of(stream).readers)

    def check(self, principal: str, act: str, stream: str) -> Family:
        """Find the row of a stream that `principal` may `read` or `write`; ForbiddenStreamError if it may not."""
        if stream not in _names(self):
            raise ForbiddenStreamError(principal, act, stream)
        if principal not in (self.writers(stream) if act == "write" else self.readers(stream)):
            raise ForbiddenStreamError(principal, act, stream)
        return family_of(stream)

    def _resolve(self, stream: str, parties: frozenset[Party]) -> frozenset[str]:
        named: set[str] = set()
        for party in parties:
            named |= self._named(stream, party)
        return frozenset(named)

    def _named(self, stream: str, party: Party) -> set[str]:
        member = member_of(stream)
        if party is Party.EVERYONE:
            return set(self.principals())
        if party is Party.ADAPTER:
            return {adapter(member)}
        if party is Party.BUREAUS:
            return {principal_of(b) for b in self.certified if b.startswith(member + "/")}
        if party is Party.BUREAU:
            name = stream.removeprefix("inbox.")
            return {name} if name in map(principal_of, self.certified) else {adapter(member)}
        return {party.value}


@lru_cache(maxsize=4)
def _names(world: World) -> frozenset[str]:
    """Name every stream, to look one up: a bus that opens asks for each, and of 1,000 bureaus there are 1,600."""
    return frozenset(world.streams())
