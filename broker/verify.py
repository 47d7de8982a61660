"""Checks what arrived, signature first, and makes a `Verified` of it.

Pure. The order is part of the promise (DESIGN §3.4): size, outer form, signature over the bytes as they arrived, key in
force and bound to its bureau and stream, and only then what is inside.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker import avro, codec, notice, strict
from broker.errors import (
    AlreadyExpiredError,
    BatchRefusedError,
    CompartmentMismatchError,
    EmptyAudienceError,
    InvalidFieldError,
    InvalidReferenceError,
    IssuedInFutureError,
    KeyNotInForceError,
    KeyOfAnotherError,
    KeyRevokedError,
    NoticeRejectedError,
    OtherFederationError,
    StreamOfAnotherError,
    TooLargeError,
    UnknownHandlingError,
    UnknownKeyError,
    UnknownKindError,
    UnknownMemberError,
    UnknownPurposeError,
    UnknownSchemaError,
)
from broker.notice import (
    ROUTING,
    Compartment,
    Envelope,
    Header,
    Opened,
    Reference,
    Routing,
    Signed,
    Statement,
    Verified,
)
from broker.quick import quick
from broker.signing import compartment_digest, header_digest, pae

if TYPE_CHECKING:
    from broker.bus import Record
    from broker.directory import Directory, Key

_TOPIC = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
_PATTERN = re.compile(r"\*|[a-z0-9-]+(\.[a-z0-9-]+)*(\.\*)?")
_SUBJECT_CATEGORIES = frozenset(notice.SUBJECT_CATEGORIES)
_SPECIAL_CATEGORIES = frozenset(notice.SPECIAL_CATEGORIES)
_PAYLOADS: Mapping[str, tuple[type[notice.Receipt | notice.Subscription | notice.Revocation], str]] = {
    notice.RECEIPT_TYPE: (notice.Receipt, "receipts"),
    notice.SUBSCRIPTION_TYPE: (notice.Subscription, "notices"),
    notice.REVOCATION_TYPE: (notice.Revocation, "notices"),
}
"""Payload type → the statement and the family of streams it travels on."""


@quick
@dataclass(frozen=True, slots=True)
class Arrival:
    """Where and when a record arrived, and what was in force then. `now` is the `now` of its leaf."""

    stream: str
    now: int
    directory: Directory
    revoked: Container[bytes]


@dataclass(slots=True)
class Keys:
    """What verification needs of the present state: the directory and the keys taken out of force."""

    directory: Directory
    revoked: set[bytes]


def check(
    record: Record, now: int, keys: Keys
) -> Verified | notice.Receipt | notice.Subscription | notice.Revocation | notice.Look:
    """Check one notice or statement as it arrived. Raises NoticeRejectedError."""
    if record.value is None:
        raise BatchRefusedError(record.fault)
    arrived = outer(record.value)
    try:
        return _check(arrived, Arrival(record.stream, now, keys.directory, keys.revoked))
    except NoticeRejectedError as error:
        error.key_id = arrived.key_id
        raise


def _check(
    arrived: Envelope | Statement, arrival: Arrival
) -> Verified | notice.Receipt | notice.Subscription | notice.Revocation | notice.Look:
    if isinstance(arrived, Statement):
        return verify_statement(arrived, arrival)
    if not arrival.stream.startswith("notices."):
        message = "a notice does not travel on this stream"
        raise UnknownKindError(message)
    return verify(arrived, arrival)


def outer(data: bytes) -> Envelope | Statement:
    """Read the outer form. Raises TooLargeError, UnknownSchemaError, UnreadableError, LeftoverBytesError."""
    if len(data) > notice.SIZE_LIMIT:
        raise TooLargeError(len(data), notice.SIZE_LIMIT)
    name = avro.name_of(data)
    if name == "envelope":
        return codec.decode(Envelope, data)
    if name == "statement":
        return codec.decode(Statement, data)
    message = f"a record of schema {name} does not travel by itself"
    raise UnknownSchemaError(message)


def verify(envelope: Envelope, arrival: Arrival) -> Verified:
    """Check a notice. Raises NoticeRejectedError, one class per reason."""
    header = signed_header(envelope, arrival)
    digest = header_digest(envelope.header)
    routing: Routing | None = None
    try:
        _check_header(header, arrival)
        compartments = codec.decode_compartments(envelope.compartments)
        present = _check_compartments(header, compartments, arrival.directory)
        opened = _routing_of(compartments)
        routing = codec.decode(Routing, opened.data)
        _check_routing(header, routing, arrival.directory)
        _check_audience(header, routing, arrival.directory)
        _check_grants(header, routing, arrival.directory)
        strict.check_header(header, envelope.header)
        strict.check_routing(routing, opened.data)
    except NoticeRejectedError as error:
        error.signed = Signed(header, digest, routing or _signed_routing(header, envelope.compartments))
        raise
    return Verified(header, digest, routing, opened, compartments, present, envelope)


def signed_header(envelope: Envelope, arrival: Arrival) -> Header:
    """Check who signed a notice, and on whose stream it came. Raises NoticeRejectedError, one class per reason."""
    key = _signed(envelope.key_id, envelope.signature, pae(notice.HEADER_TYPE, envelope.header), arrival)
    header = codec.decode(Header, envelope.header)
    _bind(header.federation, header.issuer, key, arrival, "notices")
    return header


def _signed_routing(header: Header, data: bytes) -> Routing | None:
    """Read the routing of a notice that is rejected for something else, if it is what the header commits to.

    Its number is burnt whatever the decision (DESIGN §7), or another notice could take it later.
    """
    with suppress(NoticeRejectedError):
        first = codec.decode_compartments(data)[:1]
        for slot, each in zip(header.compartments, first, strict=False):
            if slot.name == each.name == ROUTING and each.opened:
                _check_opened(slot.digest, ROUTING, each.opened)
                return codec.decode(Routing, each.opened.data)
    return None


def reopen(envelope: Envelope) -> Verified:
    """Make again what `verify` made of an envelope that the register keeps; it was checked when it was taken in."""
    header = codec.decode(Header, envelope.header)
    compartments = codec.decode_compartments(envelope.compartments)
    opened = _routing_of(compartments)
    present = sum(1 << place for place, each in enumerate(compartments) if each.opened is not None)
    routing = codec.decode(Routing, opened.data)
    return Verified(header, header_digest(envelope.header), routing, opened, compartments, present, envelope)


def _routing_of(compartments: tuple[Compartment, ...]) -> Opened:
    opened = compartments[0].opened
    if opened is None:
        message = "the routing compartment is missing"
        raise CompartmentMismatchError(message)
    return opened


def verify_statement(
    statement: Statement, arrival: Arrival
) -> notice.Receipt | notice.Subscription | notice.Revocation | notice.Look:
    """Check a statement. Raises NoticeRejectedError, one class per reason."""
    if statement.payload_type == notice.LOOK_TYPE:
        return _look(statement, arrival)
    found = _PAYLOADS.get(statement.payload_type)
    if found is None:
        message = "no such kind of statement"
        raise UnknownKindError(message)
    kind, family = found
    key = _signed(statement.key_id, statement.signature, pae(statement.payload_type, statement.payload), arrival)
    payload = codec.decode(kind, statement.payload)
    _bind(payload.federation, payload.bureau, key, arrival, family)
    if payload.at > arrival.now + notice.CLOCK_SKEW_MS:
        raise IssuedInFutureError
    if isinstance(payload, notice.Receipt):
        _check_receipt(payload)
    if isinstance(payload, notice.Subscription):
        _check_patterns(payload)
    if isinstance(payload, notice.Revocation):
        _check_revocation(payload, arrival.now)
    return payload


def _look(statement: Statement, arrival: Arrival) -> notice.Look:
    """Check a look: signed by an auditor's key, which signs nothing else, on the stream that only people write."""
    key = arrival.directory.auditors.get(statement.key_id)
    _in_force(key, statement.signature, pae(statement.payload_type, statement.payload), arrival)
    look = codec.decode(notice.Look, statement.payload)
    if look.federation != arrival.directory.federation:
        raise OtherFederationError
    if key is None or look.by != key.bureau:
        raise KeyOfAnotherError
    if arrival.stream != "asks":
        raise StreamOfAnotherError
    if look.at > arrival.now + notice.CLOCK_SKEW_MS:
        raise IssuedInFutureError
    if not 1 <= len(look.leaves) <= notice.LOOK_LEAVES or not 1 <= len(look.reason) <= 200 or len(look.look_id) != 16:
        message = "leaves, reason, look_id"
        raise InvalidFieldError(message)
    return look


def _signed(key_id: bytes, signature: bytes, message: bytes, arrival: Arrival) -> Key:
    return _in_force(arrival.directory.key(key_id), signature, message, arrival)


def _in_force(key: Key | None, signature: bytes, message: bytes, arrival: Arrival) -> Key:
    if key is None:
        raise UnknownKeyError
    key.public.check(signature, message)
    if not key.valid_from <= arrival.now < key.valid_until:
        raise KeyNotInForceError
    if key.key_id in arrival.revoked:
        raise KeyRevokedError
    return key


def _bind(federation: str, bureau: str, key: Key, arrival: Arrival, family: str) -> None:
    if federation != arrival.directory.federation:
        raise OtherFederationError
    if bureau != key.bureau:
        raise KeyOfAnotherError
    member = bureau.partition("/")[0]
    if arrival.stream != f"{family}.{member.lower()}":
        raise StreamOfAnotherError
    if not arrival.directory.is_active(member):
        raise UnknownMemberError


def _check_header(header: Header, arrival: Arrival) -> None:
    _check_header_words(header)
    _check_references(header, arrival.directory)
    _check_verdict(header)
    if header.issued > arrival.now + notice.CLOCK_SKEW_MS:
        raise IssuedInFutureError
    expired = header.expires is not None and header.expires <= arrival.now
    if expired and header.kind != notice.WITHDRAWAL:  # which must reach the holders, however late it comes
        raise AlreadyExpiredError


def _check_header_words(header: Header) -> None:
    """Check what needs no directory: kind, purpose, handling and fields. Raises NoticeRejectedError."""
    if header.kind not in notice.KINDS:
        raise UnknownKindError
    if header.purpose not in notice.PURPOSES:
        raise UnknownPurposeError
    if any(code not in notice.HANDLING_CODES for code in header.handling):
        raise UnknownHandlingError
    _check_fields(header)


def _check_fields(header: Header) -> None:
    _refuse_wrong(
        ("record", 1 <= len(header.record) <= notice.RECORD_LIMIT),
        ("version", header.version >= 1),
        ("topics", 1 <= len(header.topics) <= 16 and all(map(_TOPIC.fullmatch, header.topics))),
        ("urgency", header.urgency in notice.URGENCIES),
        ("legal_basis", 1 <= len(header.legal_basis) <= 1000),
        ("confidentiality", header.confidentiality in notice.CONFIDENTIALITIES),
        ("source_evaluation", header.source_evaluation in (None, *notice.SOURCE_EVALUATIONS)),
        ("information_evaluation", header.information_evaluation in (None, 1, 2, 3, 4)),
    )


def _check_references(header: Header, directory: Directory) -> None:
    """Keep DESIGN §5: the three kinds carry exactly one reference of their own relation, no other kind may use it."""
    own = notice.RELATION_OF_KIND.get(header.kind)
    relations = [each.relation for each in header.references]
    if any(relation not in notice.RELATIONS for relation in relations):
        message = "unknown relation"
        raise InvalidReferenceError(message)
    reserved = [each for each in relations if each in notice.RELATION_OF_KIND.values()]
    if reserved != ([own] if own else []):
        message = f"kind {header.kind}: {_one_reference(own) if own else 'it withdraws, restricts or approves nothing'}"
        raise InvalidReferenceError(message)
    if own and len(relations) != 1:
        message = f"kind {header.kind}: {_one_reference(own)}"
        raise InvalidReferenceError(message)
    if relations.count("corrects") > 1:
        message = "a notice corrects one other"
        raise InvalidReferenceError(message)
    changed = subject_of(header)
    if changed is None or changed.relation == "approves" or changed.issuer == header.issuer:
        return
    if not (is_order(header) and directory.may_order(header.issuer)):
        message = "only its issuer corrects, withdraws or restricts a notice, and an authority withdraws it"
        raise InvalidReferenceError(message)


def _one_reference(relation: str) -> str:
    return f"it carries one reference, which {relation} a notice, and no other"


def _check_verdict(header: Header) -> None:
    """Check that an approval says what it decides: the broker opens no compartment to learn it."""
    if header.kind == notice.APPROVAL and header.action_sought not in notice.REVIEW_VERDICTS:
        message = f"action_sought: an approval says one of {', '.join(notice.REVIEW_VERDICTS)}"
        raise InvalidFieldError(message)


def subject_of(header: Header) -> Reference | None:
    """Find the notice that this one changes: what it corrects, withdraws, restricts or approves."""
    changing = ("corrects", "withdraws", "restricts", "approves")
    return next((each for each in header.references if each.relation in changing), None)


def is_order(header: Header) -> bool:
    """Say whether a notice withdraws what another bureau issued, as only an authority may."""
    subject = subject_of(header)
    return subject is not None and subject.relation == "withdraws" and subject.issuer != header.issuer


def _check_compartments(header: Header, compartments: tuple[Compartment, ...], directory: Directory) -> int:
    """Check names, digests and schemas; return the mask of compartments that carry bytes."""
    names = [ROUTING, *notice.KINDS[header.kind]]
    slots = header.compartments
    if [slot.name for slot in slots] != names:
        message = "the header does not list the compartments of its kind"
        raise CompartmentMismatchError(message)
    if [each.name for each in compartments] != names:
        message = "the compartments are not those that the header lists"
        raise CompartmentMismatchError(message)
    present = 0
    for position, each in enumerate(compartments):
        if each.opened is None:
            continue
        _check_opened(slots[position].digest, each.name, each.opened)
        if position:
            _check_schema(f"{header.kind}.{each.name}", each.opened.data, directory)
        present |= 1 << position
    return present


def _check_opened(digest: bytes, name: str, opened: Opened) -> None:
    if compartment_digest(name, opened.salt, opened.data) != digest:
        message = f"the digest of {name} does not fit"
        raise CompartmentMismatchError(message)


def _check_schema(name: str, data: bytes, directory: Directory) -> None:
    if bytes(data[2:10]) not in directory.compartment_schemas or avro.name_of(data) != name:
        message = f"the schema of {name} is not on the allow-list"
        raise UnknownSchemaError(message)


def _check_routing(header: Header, routing: Routing, directory: Directory) -> None:
    """Check the words, and whom it names; a withdrawal goes to the holders, whoever has left meanwhile (rule 8)."""
    if header.kind == notice.WITHDRAWAL:
        _check_routing_words(routing)
        return
    audience = routing.audience
    whom, *words = _routing_words(routing)  # the fields are named in the order of the schema
    _refuse_wrong(
        whom,
        ("agreements", all(map(directory.has_agreement, audience.agreements))),
        ("to", directory.names_all(audience.to)),
        ("deny", directory.names_all(routing.deny)),
        ("protected_from", directory.names_all(routing.protected_from)),
        *words,
    )


def _check_routing_words(routing: Routing) -> None:
    """Check what needs no directory. Raises EmptyAudienceError, InvalidFieldError."""
    _refuse_wrong(*_routing_words(routing))


def _routing_words(routing: Routing) -> tuple[tuple[str, bool], ...]:
    """Say of each field whether it is right. Raises EmptyAudienceError."""
    audience = routing.audience
    listed = (*audience.agreements, *audience.to)
    if not audience.everyone and not listed:
        raise EmptyAudienceError
    return (
        ("audience", not (audience.everyone and listed)),
        ("subject_categories", _SUBJECT_CATEGORIES.issuperset(routing.subject_categories)),
        ("special_categories", _SPECIAL_CATEGORIES.issuperset(routing.special_categories)),
        ("minor", routing.minor in notice.MINOR),
        ("number", routing.number >= 1),
        ("derogation", routing.derogation is None or routing.derogation in notice.DEROGATIONS),
    )


def _refuse_wrong(*fields: tuple[str, bool]) -> None:
    wrong = [name for name, right in fields if not right]
    if wrong:
        raise InvalidFieldError(", ".join(wrong))


def _check_audience(header: Header, routing: Routing, directory: Directory) -> None:
    """Check that what the issuer denies leaves somebody; what follows a notice reaches its holders anyway (rule 1)."""
    if not routing.deny or header.kind in notice.RELATION_OF_KIND:
        return
    meant = directory.everyone if routing.audience.everyone else directory.mask(routing.audience.to)
    for agreement in routing.audience.agreements:
        meant |= directory.circle_mask(agreement)
    if meant and not meant & ~directory.mask((*routing.deny, header.issuer)):
        raise EmptyAudienceError("what is denied leaves nobody of the audience")


def _check_grants(header: Header, routing: Routing, directory: Directory) -> None:
    """Check that each grant names a bureau, compartments of the kind and an end, and that the notice is H2.

    Of a withdrawal the bureau may have left meanwhile: it goes to the holders (rule 8).
    """
    if not routing.grants:
        return
    names = set(notice.KINDS[header.kind])
    sound = notice.H2 in header.handling and all(
        each.compartments and set(each.compartments) <= names and each.until > 0 for each in routing.grants
    )
    if header.kind != notice.WITHDRAWAL:
        sound = sound and all(each.bureau in directory.bureaus for each in routing.grants)
    if not sound:
        message = "grants: each names a bureau, compartments of the kind and an end, and the notice is H2"
        raise InvalidFieldError(message)


def _check_receipt(receipt: notice.Receipt) -> None:
    if receipt.act not in notice.RECEIPT_ACTS or receipt.result not in notice.RECEIPT_RESULTS[receipt.act]:
        message = "act, result"
        raise InvalidFieldError(message)
    if receipt.number < 1:  # it would pass for one that was used before, and nobody be told
        message = "number"
        raise InvalidFieldError(message)
    if not 1 <= len(receipt.items) <= notice.RECEIPT_ITEMS:
        message = "items"
        raise InvalidFieldError(message)


def _check_patterns(subscription: notice.Subscription) -> None:
    patterns = subscription.patterns
    if len(patterns) > 100 or not all(map(_PATTERN.fullmatch, patterns)):
        message = "patterns"
        raise InvalidFieldError(message)


def _check_revocation(revocation: notice.Revocation, now: int) -> None:
    since = revocation.compromised_since
    if revocation.reason not in notice.REVOCATION_REASONS or (since is not None and not 0 <= since <= now):
        message = "reason, compromised_since"
        raise InvalidFieldError(message)
