"""Makes the records that tests put on the bus: honest ones, and ones that are wrong in exactly one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from broker import avro, codec, notice
from broker.notice import (
    Audience,
    Compartment,
    Envelope,
    Header,
    Look,
    Opened,
    Origin,
    Receipt,
    ReceiptItem,
    Reference,
    Revocation,
    Routing,
    Slot,
    Statement,
    Subscription,
)
from broker.signing import SigningKey, compartment_digest, header_digest

FEDERATION = "test-federation"
NOW = 1_795_000_000_000


def key_of(bureau: str, generation: int = 0) -> SigningKey:
    """The key of a bureau, the same in every run."""
    return SigningKey.from_seed(sha256(f"{bureau}/{generation}".encode()).digest())


def body(kind: str, name: str, value: dict[str, Any] | None = None) -> bytes:
    """Bytes of one compartment: a schema fingerprint, then something that the broker never opens."""
    if value is not None:
        return avro.write(f"{kind}.{name}", value)
    return avro.prefix(f"{kind}.{name}") + f"{kind}.{name} {os.urandom(4).hex()}".encode()


@dataclass
class Draft:
    """A notice in the making; every part can be made wrong."""

    issuer: str
    kind: str = "person"
    routing: Routing = field(
        default_factory=lambda: Routing(Audience(everyone=True), (), (), ("suspect",), "no", (), (), b"series-1", 1)
    )
    parts: tuple[str, ...] = ("identity", "warnings")
    header: dict[str, Any] = field(default_factory=dict)
    key: SigningKey | None = None
    salt: bytes | None = None
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What parts say that somebody is to read; of the others nothing can be made."""

    def opened(self) -> dict[str, Opened]:
        """Salt and bytes of each compartment that is there."""
        made = {"routing": Opened(os.urandom(32), codec.encode(self.routing))}
        return made | {
            name: Opened(os.urandom(32), body(self.kind, name, self.bodies.get(name))) for name in self.parts
        }

    def envelope(self) -> Envelope:
        """Sign it."""
        opened = self.opened()
        names = ("routing", *notice.KINDS.get(self.kind, ()))
        slots = tuple(
            Slot(name, compartment_digest(name, opened[name].salt, opened[name].data))
            if name in opened
            else Slot(name, compartment_digest(name, os.urandom(32), b""))
            for name in names
        )
        header = codec.encode(self.make_header(slots))
        compartments = codec.encode_compartments(tuple(Compartment(name, opened.get(name)) for name in names))
        key = self.key or key_of(self.issuer)
        return Envelope(header, key.public.id, key.sign_payload(notice.HEADER_TYPE, header), compartments)

    def make_header(self, slots: tuple[Slot, ...]) -> Header:
        """The header, with what the test wants to be otherwise."""
        honest = Header(
            federation=FEDERATION,
            notice_id=os.urandom(16),
            record=os.urandom(8).hex(),
            version=1,
            issuer=self.issuer,
            kind=self.kind,
            conversation=None,
            references=(),
            topics=("sought.red",),
            action_sought=None,
            urgency="routine",
            acknowledge_by=None,
            answer_by=None,
            purpose="criminal-investigation",
            legal_basis="invented",
            handling=("H0",),
            handling_text=None,
            confidentiality="restricted",
            source_evaluation="A",
            information_evaluation=1,
            issued=NOW - 1000,
            expires=None,
            retain_until=None,
            review_due=None,
            languages=("en",),
            exercise=False,
            compartments=slots,
        )
        return replace(honest, **self.header)

    def to(self, *names: str) -> Draft:
        """The same, addressed to these members or bureaus."""
        return replace(self, routing=replace(self.routing, audience=Audience(everyone=False, to=names)))

    def numbered(self, number: int, series: bytes = b"series-1") -> Draft:
        """The same, with this number of this series."""
        return replace(self, routing=replace(self.routing, number=number, series=series))

    def but(self, **header: Any) -> Draft:
        """The same, but for these fields of the header."""
        return replace(self, header=self.header | header)

    def routed(self, **routing: Any) -> Draft:
        """The same, but for these fields of the routing."""
        return replace(self, routing=replace(self.routing, **routing))


def reference(envelope: Envelope, relation: str) -> Reference:
    """Refer to a notice."""
    header = codec.decode(Header, envelope.header)
    return Reference(header.issuer, header.notice_id, header_digest(envelope.header), relation)


def statement(payload: Receipt | Subscription | Revocation | Look, key: SigningKey) -> bytes:
    """Sign a statement."""
    kind = {
        Receipt: notice.RECEIPT_TYPE,
        Subscription: notice.SUBSCRIPTION_TYPE,
        Revocation: notice.REVOCATION_TYPE,
        Look: notice.LOOK_TYPE,
    }[type(payload)]
    data = codec.encode(payload)
    return codec.encode(Statement(kind, data, key.public.id, key.sign_payload(kind, data)))


def subscription(bureau: str, *patterns: str, number: int = 1) -> bytes:
    """A bureau's subscription."""
    return statement(Subscription(FEDERATION, bureau, number, patterns, NOW), key_of(bureau))


def receipt(bureau: str, leaf_number: int, digest: bytes, issuer: str, act: str = "received", number: int = 1) -> bytes:
    """A bureau's receipt for one notice."""
    item = ReceiptItem(leaf_number, digest)
    made = Receipt(FEDERATION, bureau, issuer, act, (item,), None, None, number, NOW)
    return statement(made, key_of(bureau))


__all__ = [
    "FEDERATION",
    "NOW",
    "Draft",
    "Origin",
    "body",
    "key_of",
    "receipt",
    "reference",
    "statement",
    "subscription",
]
