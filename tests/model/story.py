"""A story: a federation, the acts that happen in it one after another, and the leaves that come of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from hashlib import sha256
from typing import NamedTuple

from broker import avro, cases, codec
from broker.cases import World, WrittenNotice
from broker.notice import (
    HEADER_TYPE,
    KINDS,
    ROUTING,
    Compartment,
    Envelope,
    Look,
    Opened,
    Receipt,
    ReceiptItem,
    Reference,
    Revocation,
    Slot,
    Subscription,
)
from broker.signing import SigningKey, compartment_digest, header_digest
from tests import making

GENERATIONS = 3
"""Keys that each bureau has, all in force from the start."""
RELATIONS = {"withdrawal": "withdraws", "restriction": "restricts", "approval": "approves"}
"""Kind that speaks of another notice → the relation that it alone may carry, and must (DESIGN §5)."""
RESULTS: Mapping[str, tuple[str | None, ...]] = {
    "received": (None,), "read": (None,), "outcome": ("hit", "no-trace", "not-executable"),
    "erased": ("erased", "kept-under-national-law"),
}  # fmt: skip
"""What a bureau may answer → with which results."""
AUDITOR = "auditor"
CHANGES = ("corrects", *RELATIONS.values())
Key = tuple[str, bytes]
"""Issuer and notice id."""
Numbers = tuple[int, ...]
key_of = cache(making.key_of)


@dataclass(frozen=True)
class Federation:
    """What the cases' own form says of a federation, and who may withdraw what others issued."""

    world: World
    authorities: tuple[str, ...] = ()
    ends: tuple[tuple[str, int, int], ...] = ()
    """Bureau, generation of its key, and when that is no longer in force."""


@dataclass(frozen=True)
class Sent:
    """A signed notice. `written`: what the rules may know of it; `generation`: which key of its bureau signed it."""

    id: bytes
    written: WrittenNotice
    record: str
    version: int
    number: int
    present: frozenset[str]
    references: tuple[Reference, ...] = ()
    expires: int | None = None
    verdict: str | None = None
    generation: int = 0

    @property
    def issuer(self) -> str:
        return self.written.issuer

    @property
    def kind(self) -> str:
        return self.written.kind

    @property
    def key(self) -> Key:
        return self.issuer, self.id

    @property
    def subject(self) -> Reference | None:
        """The notice that this one changes."""
        return next((each for each in self.references if each.relation in CHANGES), None)

    def refers(self, relation: str) -> tuple[Reference, ...]:
        """A reference to this notice."""
        return (Reference(self.issuer, self.id, self.digest, relation),)

    @cached_property
    def envelope(self) -> Envelope:
        """Sign it; the same bytes in every run."""
        header, routing = cases.notice_of(self.written, making.FEDERATION)
        names = (ROUTING, *KINDS[self.kind])
        inside = {name: avro.prefix(f"{self.kind}.{name}") + name.encode() for name in self.present}
        inside[ROUTING] = codec.encode(replace(routing, series=b"series-1", number=self.number))
        salts = {name: sha256(self.id + name.encode()).digest() for name in names}
        slots = (Slot(name, compartment_digest(name, salts[name], inside.get(name, b""))) for name in names)
        parts = (Compartment(name, Opened(salts[name], inside[name]) if name in inside else None) for name in names)
        data = codec.encode(
            replace(
                header, notice_id=self.id, record=self.record, version=self.version, references=self.references,
                expires=self.expires, action_sought=self.verdict, compartments=tuple(slots),
            )
        )  # fmt: skip
        key: SigningKey = key_of(self.issuer, self.generation)
        signature = key.sign_payload(HEADER_TYPE, data)
        return Envelope(data, key.public.id, signature, codec.encode_compartments(tuple(parts)))

    @cached_property
    def digest(self) -> bytes:
        return header_digest(self.envelope.header)

    def __str__(self) -> str:
        about = "".join(f" {each.relation} {each.issuer} {each.notice_id[-1]}" for each in self.references)
        unusual = self.written.model_dump(exclude_defaults=True, exclude={"issuer", "kind", "corrects"})
        more = {"expires": self.expires} if self.expires else {}
        return (
            f"{self.issuer} sends {self.kind} {self.id[-1]}{about} ({self.record} v{self.version}, number {self.number}"
            f", key {self.generation}) {self.verdict or ''} {unusual | more} {sorted(self.present)}"
        )


@dataclass(frozen=True)
class Publish:
    """A notice arrives, for the first time or again."""

    notice: Sent

    def __str__(self) -> str:
        return str(self.notice)


@dataclass(frozen=True)
class Subscribe:
    """A bureau says anew which topics it wants; `number` rises."""

    bureau: str
    patterns: tuple[str, ...]
    number: int
    generation: int

    def statement(self, at: int) -> bytes:
        """Sign it."""
        payload = Subscription(making.FEDERATION, self.bureau, self.number, self.patterns, at)
        return making.statement(payload, key_of(self.bureau, self.generation))


@dataclass(frozen=True)
class Revoke:
    """A bureau takes its key of this generation out of force with the next one; or calls it compromised, too."""

    bureau: str
    generation: int
    compromised: bool

    def statement(self, at: int) -> bytes:
        """Sign it."""
        lost, since = key_of(self.bureau, self.generation).public.id, at if self.compromised else None
        payload = Revocation(making.FEDERATION, self.bureau, lost, "stolen", at, since)
        return making.statement(payload, key_of(self.bureau, self.generation + 1))


class Item(NamedTuple):
    """One delivery of which a receipt speaks."""

    leaf: int
    digest: bytes


@dataclass(frozen=True)
class Confirm:
    """A bureau signs a receipt for deliveries of one issuing member's notices; `number` rises."""

    bureau: str
    issuer: str
    act: str
    result: str | None
    items: tuple[Item, ...]
    number: int
    generation: int

    def statement(self, at: int) -> bytes:
        """Sign it."""
        items = tuple(ReceiptItem(*each) for each in self.items)
        payload = Receipt(
            making.FEDERATION, self.bureau, self.issuer, self.act, items, self.result, None, self.number, at
        )  # fmt: skip
        return making.statement(payload, key_of(self.bureau, self.generation))

    def __str__(self) -> str:
        leaves = ", ".join(str(each.leaf) for each in self.items)
        said = f"{self.act} ({self.result})" if self.result else self.act
        return f"{self.bureau} says {said} of {leaves} to {self.issuer} (number {self.number}, key {self.generation})"


@dataclass(frozen=True)
class Ask:
    """An auditor is about to look at clear data of one issuing member's notices."""

    by: str
    id: bytes
    issuer: str
    leaves: tuple[int, ...]

    def statement(self, at: int) -> bytes:
        """Sign it."""
        payload = Look(making.FEDERATION, self.by, self.id, self.issuer, self.leaves, "request", at)
        return making.statement(payload, key_of(self.by))


@dataclass(frozen=True)
class Change:
    """A new version of the directory or its annex is adopted."""

    federation: Federation
    what: str

    def __str__(self) -> str:
        return f"the directory changes: {self.what}"


@dataclass(frozen=True)
class Restart:
    """A new owner restores the register from its stream."""


Act = Publish | Subscribe | Revoke | Confirm | Ask | Change | Restart


@dataclass(frozen=True)
class Story:
    """Acts, each at its time in milliseconds."""

    federation: Federation
    acts: tuple[tuple[int, Act], ...]


@dataclass(frozen=True)
class Line:
    """What one bureau is handed: the number of the delivery, what is open in it, what it replaces and erases."""

    number: int
    shown: frozenset[str]
    replaces: Numbers = ()
    erases: Numbers = ()

    def __str__(self) -> str:
        gone = "".join(
            f" {verb} {list(each)}" for verb, each in (("replaces", self.replaces), ("erases", self.erases)) if each
        )
        return f"#{self.number} {sorted(self.shown)}{gone}"


@dataclass(frozen=True)
class Outcome:
    """A leaf and what follows from it. `about`: the leaf of what it speaks of; `tell`: the members that learn of it.

    Of a leaf that came: the `codes` that it says, none or one. Of one that is due: those of which it may say any.
    `detail` is what a leaf that came says in words; one that is `hushed` may not tell which of several reasons it was.
    """

    kind: str
    tell: tuple[str, ...]
    codes: frozenset[str] = frozenset()
    about: int | None = None
    warnings: frozenset[str] = frozenset()
    lines: Mapping[str, Line] = field(default_factory=dict)
    detail: str = field(default="", compare=False)
    hushed: bool = field(default=False, compare=False)

    def fits(self, came: Outcome) -> bool:
        """Say whether what came is what was due."""
        some = bool(self.codes) == bool(came.codes) and came.codes <= self.codes
        return some and replace(self, codes=came.codes) == came

    def __str__(self) -> str:
        parts = [self.kind, *sorted(self.codes), f"about leaf {self.about}" if self.about is not None else ""]
        parts += [f"({self.detail})" if self.detail else "", *sorted(self.warnings), "tells", *self.tell]
        return " ".join(filter(None, parts)) + "".join(f"; {each} {line}" for each, line in sorted(self.lines.items()))
