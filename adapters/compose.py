"""Makes a signed envelope of a draft.

Pure: clock, randomness and keys are arguments. What the broker would reject is refused here, by its own `verify` and
with its error classes, before a number is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.adapter import Draft, Pointer
from broker import avro, codec, streams
from broker.directory import Directory
from broker.errors import (
    CannotSignError,
    ConfigurationError,
    InvalidFieldError,
    InvalidReferenceError,
    UnknownKindError,
)
from broker.notice import (
    HEADER_TYPE,
    KINDS,
    RELATIONS,
    ROUTING,
    Compartment,
    Envelope,
    Header,
    Opened,
    Reference,
    Routing,
    Slot,
    Verified,
)
from broker.signing import SigningKey, compartment_digest
from broker.verify import Arrival, outer, verify

NO_KEY = (ConfigurationError, CannotSignError)
"""What keeps a bureau from signing; the other bureaus of its member go on."""
OF_ONE_RECORD = frozenset({"corrects", "withdraws", "restricts"})
"""Relations to an earlier version of the same record, of the same bureau's but where an authority withdraws it."""


@dataclass(frozen=True, slots=True)
class Maker:
    """With what envelopes are made: `clock` tells ms since the epoch, `random` gives that many random bytes."""

    directory: Directory
    key: Callable[[str], SigningKey]
    """The signing key of a bureau; raises one of NO_KEY if this home has none, or it cannot be used now."""
    clock: Callable[[], int]
    random: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a notice stands: its bureau, its version of the record, what it refers to, its number in the series."""

    bureau: str
    version: int
    references: tuple[Reference, ...]
    series: bytes
    number: int
    exercise: bool = False


def compose(draft: Draft, place: Place, maker: Maker) -> Verified:
    """Make and sign an envelope. Raises NoticeRejectedError where the broker would reject it."""
    now = maker.clock()
    encoded = [codec.encode(_routing(draft, place)), *bodies(draft)]
    salts = [maker.random(32) for _ in encoded]
    names = (ROUTING, *KINDS[draft.kind])
    slots = tuple(
        Slot(name, compartment_digest(name, salt, body)) for name, salt, body in zip(names, salts, encoded, strict=True)
    )
    header = codec.encode(_header(draft, place, slots, notice_id(now, maker.random), now, maker.directory.federation))
    compartments = codec.encode_compartments(
        tuple(
            Compartment(name, Opened(salt, body) if body else None)
            for name, salt, body in zip(names, salts, encoded, strict=True)
        )
    )
    return check(sign(header, compartments, maker.key(place.bureau)), place.bureau, maker)


def sign(header: bytes, compartments: bytes, key: SigningKey) -> Envelope:
    """Sign header bytes, new ones or those of an envelope whose key has changed."""
    return Envelope(header, key.public.id, key.sign_payload(HEADER_TYPE, header), compartments)


def check(envelope: Envelope, bureau: str, maker: Maker) -> Verified:
    """Check an envelope as the broker will. Raises NoticeRejectedError."""
    found = outer(codec.encode(envelope))
    assert isinstance(found, Envelope)
    stream = streams.notices(bureau.partition("/")[0])
    return verify(found, Arrival(stream, maker.clock(), maker.directory, frozenset()))


def notice_id(now: int, random: Callable[[int], bytes]) -> bytes:
    """Make a UUIDv7 of our own clock and randomness (RFC 9562 §5.7)."""
    raw = bytearray((now & (1 << 48) - 1).to_bytes(6, "big") + random(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def _routing(draft: Draft, place: Place) -> Routing:
    return Routing(
        audience=draft.audience,
        deny=draft.deny,
        origins=draft.origins,
        subject_categories=draft.subject_categories,
        minor=draft.minor,
        special_categories=draft.special_categories,
        protected_from=draft.protected_from,
        series=place.series,
        number=place.number,
        grants=draft.grants,
        derogation=draft.derogation,
    )


def check_pointer(pointer: Pointer, record: str) -> None:
    """Check a pointer of a record's draft before it is looked up. Raises InvalidReferenceError."""
    if pointer.relation not in RELATIONS:
        message = f"no pointer has the relation {pointer.relation!r}: it is one of {', '.join(RELATIONS)}"
        raise InvalidReferenceError(message)
    if pointer.relation in OF_ONE_RECORD and pointer.record != record:
        message = f"what {pointer.relation} a record is a version of that record"
        raise InvalidReferenceError(message)


def bodies(draft: Draft) -> list[bytes]:
    """Encode the compartments of the kind, in schema order; an empty one has no bytes. Raises NoticeRejectedError."""
    if draft.kind not in KINDS:
        raise UnknownKindError
    unknown = draft.compartments.keys() - set(KINDS[draft.kind])
    if unknown:
        message = f"kind {draft.kind}: it has no compartment {', '.join(sorted(unknown))}"
        raise InvalidFieldError(message)
    return [_body(draft.kind, name, draft.compartments.get(name)) for name in KINDS[draft.kind]]


def _body(kind: str, name: str, value: Mapping[str, Any] | None) -> bytes:
    if not value:
        return b""
    schema = f"{kind}.{name}"
    data = avro.write(schema, value)
    lost = next(_lost(value, avro.read(schema, data), schema), None)
    if lost:
        message = f"the schema has no field {lost}"
        raise InvalidFieldError(message)
    return data


def _lost(given: Any, came: Any, place: str) -> Iterator[str]:
    """Name the fields that Avro passed over in silence, because their name is in no schema."""
    if isinstance(given, Mapping) and isinstance(came, Mapping):
        for name, value in given.items():
            if name in came:
                yield from _lost(value, came[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}"
    elif isinstance(given, list | tuple) and isinstance(came, list):
        for position, (one, other) in enumerate(zip(given, came, strict=True)):
            yield from _lost(one, other, f"{place}.{position}")


def _header(draft: Draft, place: Place, slots: tuple[Slot, ...], identity: bytes, now: int, federation: str) -> Header:
    return Header(
        federation=federation,
        notice_id=identity,
        record=draft.record,
        version=place.version,
        issuer=place.bureau,
        kind=draft.kind,
        conversation=draft.conversation,
        references=place.references,
        topics=draft.topics,
        action_sought=draft.action_sought,
        urgency=draft.urgency,
        acknowledge_by=draft.acknowledge_by,
        answer_by=draft.answer_by,
        purpose=draft.purpose,
        legal_basis=draft.legal_basis,
        handling=draft.handling,
        handling_text=draft.handling_text,
        confidentiality=draft.confidentiality,
        source_evaluation=draft.source_evaluation,
        information_evaluation=draft.information_evaluation,
        issued=now,
        expires=draft.expires,
        retain_until=draft.retain_until,
        review_due=draft.review_due,
        languages=draft.languages,
        exercise=place.exercise,
        compartments=slots,
    )
