"""Each way in which a record can be wrong has its rejection, and the signature comes before anything inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker import avro, codec, errors, members, notice
from broker.errors import NoticeRejectedError
from broker.members import WrittenAgreement, WrittenBureau, WrittenDirectory, WrittenKey, WrittenMember
from broker.notice import (
    Audience,
    Compartment,
    Envelope,
    Header,
    Opened,
    Origin,
    Receipt,
    ReceiptItem,
    Reference,
    Revocation,
    Signed,
    Slot,
    Statement,
    Subscription,
    Verified,
)
from broker.signing import compartment_digest, header_digest
from broker.verify import Arrival, outer, verify, verify_statement
from tests.making import FEDERATION, NOW, Draft, body, key_of, receipt, statement, subscription

FOR_EVER = 4_000_000_000_000
BUREAUS = ("AT/ncb", "LV/ncb", "RU/ncb")
HONEST = Draft("AT/ncb")


def written_key(bureau: str, generation: int = 0, begin: int = 0, end: int = FOR_EVER) -> WrittenKey:
    public = key_of(bureau, generation).public
    return WrittenKey(key_id=public.id.hex(), bureau=bureau, public=public.raw.hex(), valid_from=begin, valid_until=end)


DIRECTORY = members.parse(
    members.canonical(
        WrittenDirectory(
            federation=FEDERATION,
            version=1,
            members=(
                WrittenMember(id="AT", name="AT", kind="state"),
                WrittenMember(id="LV", name="LV", kind="state"),
                WrittenMember(id="RU", name="RU", kind="state", status="suspended"),
            ),
            bureaus=tuple(WrittenBureau(id=each, index=index, name=each) for index, each in enumerate(BUREAUS)),
            keys=(
                *map(written_key, BUREAUS),
                written_key("AT/ncb", 1, begin=NOW + 1),
                written_key("AT/ncb", 2, end=NOW),
                written_key("AT/ncb", 3, begin=NOW, end=NOW + 1),
            ),
            agreements=(WrittenAgreement(id="circle", title="Circle", basis="invented", members=("AT", "LV")),),
            compartment_schemas=tuple(
                sorted(avro.fingerprint(each).hex() for each in notice.BODY_SCHEMAS if each != "person.narrative")
            ),
        )
    )
)


def arrival(stream: str = "notices.at", revoked: tuple[bytes, ...] = ()) -> Arrival:
    return Arrival(stream, NOW, DIRECTORY, revoked)


def rejected(envelope: Envelope, at: Arrival | None = None) -> NoticeRejectedError:
    with pytest.raises(NoticeRejectedError) as caught:
        verify(envelope, at or arrival())
    return caught.value


def test_an_honest_notice_is_verified() -> None:
    envelope = HONEST.envelope()
    verified = verify(envelope, arrival())
    assert isinstance(verified, Verified)
    assert verified.envelope is envelope
    assert verified.header_digest == header_digest(envelope.header)
    assert verified.routing == HONEST.routing
    assert [verified.header.compartments[bit].name for bit in range(11) if verified.present >> bit & 1] == [
        "routing", "identity", "warnings",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [each for each in notice.KINDS if each not in notice.RELATION_OF_KIND])
def test_a_notice_of_every_kind_is_verified(kind: str) -> None:
    assert verify(Draft("AT/ncb", kind=kind, parts=notice.KINDS[kind][:1]).envelope(), arrival()).present == 0b11


# The outer form


def test_the_size_is_checked_before_anything_is_read() -> None:
    with pytest.raises(errors.TooLargeError, match=str(notice.SIZE_LIMIT)):
        outer(bytes(notice.SIZE_LIMIT + 1))


def test_a_record_of_exactly_the_limit_is_read() -> None:
    envelope = HONEST.envelope()
    room = notice.SIZE_LIMIT - len(codec.encode(replace(envelope, compartments=bytes(2**16))))
    large = replace(envelope, compartments=bytes(2**16 + room))
    assert len(codec.encode(large)) == notice.SIZE_LIMIT
    assert outer(codec.encode(large)) == large
    with pytest.raises(errors.TooLargeError):
        outer(codec.encode(replace(large, compartments=large.compartments + b"\0")))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", errors.UnknownSchemaError),
        (b"\xc3\x01" + bytes(20), errors.UnknownSchemaError),
        (codec.encode(HONEST.routing), errors.UnknownSchemaError),
        (codec.encode(HONEST.envelope())[:-1], errors.UnreadableError),
        (codec.encode(HONEST.envelope()) + b"\0", errors.LeftoverBytesError),
    ],
    ids=["empty", "unknown fingerprint", "a routing by itself", "truncated", "leftover"],
)
def test_a_wrong_outer_form_is_refused(data: bytes, error: type[NoticeRejectedError]) -> None:
    with pytest.raises(error):
        outer(data)


# Key and signature


def other_signature(envelope: Envelope) -> Envelope:
    return replace(envelope, signature=bytes(64))


SIGNED_WRONGLY: dict[str, tuple[Callable[[], Envelope], Arrival, type[NoticeRejectedError]]] = {
    "bad signature": (lambda: other_signature(HONEST.envelope()), arrival(), errors.SignatureError),
    "no signature": (lambda: replace(HONEST.envelope(), signature=b""), arrival(), errors.SignatureError),
    "signature of another header": (
        lambda: replace(HONEST.envelope(), signature=HONEST.envelope().signature), arrival(), errors.SignatureError,
    ),
    "key id of another key": (
        lambda: replace(HONEST.envelope(), key_id=key_of("LV/ncb").public.id), arrival(), errors.SignatureError,
    ),
    "unknown key": (lambda: replace(HONEST, key=key_of("AT/ncb", 9)).envelope(), arrival(), errors.UnknownKeyError),
    "key not yet in force": (
        lambda: replace(HONEST, key=key_of("AT/ncb", 1)).envelope(), arrival(), errors.KeyNotInForceError,
    ),
    "key no longer in force": (
        lambda: replace(HONEST, key=key_of("AT/ncb", 2)).envelope(), arrival(), errors.KeyNotInForceError,
    ),
    "revoked key": (
        HONEST.envelope, arrival(revoked=(key_of("AT/ncb").public.id,)), errors.KeyRevokedError,
    ),
    "key of another bureau": (
        lambda: replace(HONEST, key=key_of("LV/ncb")).envelope(), arrival(), errors.KeyOfAnotherError,
    ),
    "another federation": (lambda: HONEST.but(federation="other").envelope(), arrival(), errors.OtherFederationError),
    "stream of another member": (HONEST.envelope, arrival("notices.lv"), errors.StreamOfAnotherError),
    "stream of receipts": (HONEST.envelope, arrival("receipts.at"), errors.StreamOfAnotherError),
    "suspended member": (Draft("RU/ncb").envelope, arrival("notices.ru"), errors.UnknownMemberError),
}  # fmt: skip


@pytest.mark.parametrize("case", SIGNED_WRONGLY)
def test_what_its_issuer_did_not_sign_is_refused_and_burns_nothing(case: str) -> None:
    make, at, expected = SIGNED_WRONGLY[case]
    error = rejected(make(), at)
    assert type(error) is expected
    assert error.signed is None


def test_a_key_is_in_force_from_its_first_millisecond() -> None:
    assert verify(replace(HONEST, key=key_of("AT/ncb", 3)).envelope(), arrival())


@pytest.mark.parametrize("inside", [b"", b"\0" * 50, b"\xc3\x01" + b"\xff" * 60], ids=["empty", "zeroes", "hostile"])
def test_the_signature_is_checked_before_the_header_is_read(inside: bytes) -> None:
    envelope = replace(HONEST.envelope(), header=inside)
    assert type(rejected(envelope)) is errors.SignatureError
    key = key_of("AT/ncb")
    resigned = replace(envelope, signature=key.sign_payload(notice.HEADER_TYPE, inside))
    assert type(rejected(resigned)) is errors.UnknownSchemaError


def test_the_signature_is_checked_before_the_compartments_are_read() -> None:
    envelope = replace(other_signature(HONEST.envelope()), compartments=b"hostile")
    assert type(rejected(envelope)) is errors.SignatureError


def test_a_bad_signature_says_nothing_of_when_its_key_was_in_force() -> None:
    envelope = other_signature(replace(HONEST, key=key_of("AT/ncb", 2)).envelope())
    assert type(rejected(envelope)) is errors.SignatureError


@pytest.mark.parametrize("changed", range(0, 900, 23))
def test_a_changed_byte_of_the_header_is_a_bad_signature(changed: int) -> None:
    envelope = HONEST.envelope()
    header = bytearray(envelope.header)
    header[changed % len(header)] ^= 1
    error = rejected(replace(envelope, header=bytes(header)))
    assert type(error) is errors.SignatureError
    assert error.signed is None


def test_a_header_of_another_payload_type_is_a_bad_signature() -> None:
    envelope = HONEST.envelope()
    signature = key_of("AT/ncb").sign_payload(notice.RECEIPT_TYPE, envelope.header)
    assert type(rejected(replace(envelope, signature=signature))) is errors.SignatureError


# The header


def cites(relation: str, issuer: str = "AT/ncb") -> Reference:
    return Reference(issuer, bytes(16), bytes(32), relation)


FAR = NOW + notice.CLOCK_SKEW_MS
HEADERS_WRONG: dict[str, tuple[dict[str, Any], type[NoticeRejectedError]]] = {
    "kind": ({"kind": "rumour"}, errors.UnknownKindError),
    "purpose": ({"purpose": "curiosity"}, errors.UnknownPurposeError),
    "handling": ({"handling": ("H0", "H9")}, errors.UnknownHandlingError),
    "no record": ({"record": ""}, errors.InvalidFieldError),
    "a long record": ({"record": "r" * 129}, errors.InvalidFieldError),
    "version 0": ({"version": 0}, errors.InvalidFieldError),
    "no topic": ({"topics": ()}, errors.InvalidFieldError),
    "a pattern as topic": ({"topics": ("wanted.*",)}, errors.InvalidFieldError),
    "a topic with a newline": ({"topics": ("wanted.red\n",)}, errors.InvalidFieldError),
    "17 topics": ({"topics": ("wanted.red",) * 17}, errors.InvalidFieldError),
    "urgency": ({"urgency": "at once"}, errors.InvalidFieldError),
    "no legal basis": ({"legal_basis": ""}, errors.InvalidFieldError),
    "confidentiality": ({"confidentiality": "cosmic"}, errors.InvalidFieldError),
    "source evaluation": ({"source_evaluation": "D"}, errors.InvalidFieldError),
    "information evaluation": ({"information_evaluation": 5}, errors.InvalidFieldError),
    "information evaluation 0": ({"information_evaluation": 0}, errors.InvalidFieldError),
    "unknown relation": ({"references": (cites("admires"),)}, errors.InvalidReferenceError),
    "a reserved relation": ({"references": (cites("withdraws"),)}, errors.InvalidReferenceError),
    "two corrections": ({"references": (cites("corrects"), cites("corrects"))}, errors.InvalidReferenceError),
    "a correction of another's": ({"references": (cites("corrects", "LV/ncb"),)}, errors.InvalidReferenceError),
    "issued a day ahead": ({"issued": NOW + 86_400_000}, errors.IssuedInFutureError),
    "issued a millisecond too far ahead": ({"issued": FAR + 1}, errors.IssuedInFutureError),
    "expired": ({"expires": NOW}, errors.AlreadyExpiredError),
}


@pytest.mark.parametrize("case", HEADERS_WRONG)
def test_a_wrong_header_is_refused_and_its_number_is_burnt(case: str) -> None:
    changes, expected = HEADERS_WRONG[case]
    envelope = HONEST.but(**changes).envelope()
    error = rejected(envelope)
    assert type(error) is expected
    header = codec.decode(Header, envelope.header)
    assert error.signed == Signed(header, header_digest(envelope.header), HONEST.routing)


@pytest.mark.parametrize(
    "changes",
    [
        {"issued": FAR}, {"issued": 0}, {"expires": NOW + 1}, {"version": 2, "references": (cites("corrects"),)},
        {"references": (cites("cites", "LV/ncb"), cites("answers", "LV/ncb"))}, {"handling": ()},
        {"source_evaluation": None, "information_evaluation": None}, {"record": "r" * 128},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_still_right_is_verified(changes: dict[str, Any]) -> None:
    assert verify(HONEST.but(**changes).envelope(), arrival())


def of_kind(kind: str) -> Draft:
    draft = Draft("AT/ncb", kind=kind, parts=notice.KINDS[kind])
    return draft.but(action_sought=notice.RELEASE) if kind == notice.APPROVAL else draft


@pytest.mark.parametrize("sought", [None, "publish", "Release"])
def test_an_approval_says_in_its_header_what_it_decides(sought: str | None) -> None:
    draft = of_kind("approval").but(references=(cites("approves", "LV/ncb"),), action_sought=sought)
    assert type(rejected(draft.envelope())) is errors.InvalidFieldError


@pytest.mark.parametrize("kind", notice.RELATION_OF_KIND)
def test_a_kind_that_changes_another_carries_exactly_its_one_reference(kind: str) -> None:
    own = notice.RELATION_OF_KIND[kind]
    draft = of_kind(kind)
    assert verify(draft.but(references=(cites(own),)).envelope(), arrival())
    others = [each for each in notice.RELATIONS if each != own]
    for references in (
        (),
        (cites(own), cites(own)),
        (cites(own), cites("cites")),
        *((cites(each),) for each in others),
    ):
        assert type(rejected(draft.but(references=references).envelope())) is errors.InvalidReferenceError


@pytest.mark.parametrize(("kind", "refused"), [("withdrawal", True), ("restriction", True), ("approval", False)])
def test_only_an_approval_speaks_of_another_bureaus_notice(kind: str, *, refused: bool) -> None:
    draft = of_kind(kind)
    envelope = draft.but(references=(cites(notice.RELATION_OF_KIND[kind], "LV/ncb"),)).envelope()
    if refused:
        assert type(rejected(envelope)) is errors.InvalidReferenceError
    else:
        assert verify(envelope, arrival())


# The compartments


def with_parts(change: Callable[[tuple[Compartment, ...]], tuple[Compartment, ...]]) -> Envelope:
    envelope = HONEST.envelope()
    return replace(
        envelope, compartments=codec.encode_compartments(change(codec.decode_compartments(envelope.compartments)))
    )


def opened(part: Compartment) -> Opened:
    assert part.opened is not None
    return part.opened


def refilled(data: bytes, position: int = 1) -> Envelope:
    """A notice, rightly signed, whose compartment at `position` holds `data`."""
    salt = os.urandom(32)
    envelope = HONEST.envelope()
    header = codec.decode(Header, envelope.header)
    parts = list(codec.decode_compartments(envelope.compartments))
    slots = list(header.compartments)
    parts[position] = replace(parts[position], opened=Opened(salt, data))
    slots[position] = Slot(slots[position].name, compartment_digest(slots[position].name, salt, data))
    key, signed = key_of("AT/ncb"), codec.encode(replace(header, compartments=tuple(slots)))
    signature = key.sign_payload(notice.HEADER_TYPE, signed)
    return Envelope(signed, key.public.id, signature, codec.encode_compartments(tuple(parts)))


def relisted(change: Callable[[tuple[Slot, ...]], tuple[Slot, ...]]) -> Envelope:
    header = codec.decode(Header, HONEST.envelope().header)
    return HONEST.but(compartments=change(header.compartments)).envelope()


def longer(part: Compartment) -> Compartment:
    return replace(part, opened=replace(opened(part), data=opened(part).data + b"\0"))


COMPARTMENTS_WRONG: dict[str, tuple[Callable[[], Envelope], type[NoticeRejectedError]]] = {
    "unreadable": (
        lambda: replace(HONEST.envelope(), compartments=avro.prefix("compartments") + b"\x02"), errors.UnreadableError,
    ),
    "leftover": (
        lambda: replace(HONEST.envelope(), compartments=HONEST.envelope().compartments + b"\0"),
        errors.LeftoverBytesError,
    ),
    "another schema": (lambda: replace(HONEST.envelope(), compartments=b""), errors.UnknownSchemaError),
    "one too few": (lambda: with_parts(lambda parts: parts[:-1]), errors.CompartmentMismatchError),
    "one too many": (
        lambda: with_parts(lambda parts: (*parts, Compartment("gossip", None))), errors.CompartmentMismatchError,
    ),
    "another order": (
        lambda: with_parts(lambda parts: (parts[0], parts[2], parts[1], *parts[3:])), errors.CompartmentMismatchError,
    ),
    "no routing": (
        lambda: with_parts(lambda parts: (Compartment("routing", None), *parts[1:])), errors.CompartmentMismatchError,
    ),
    "bytes changed": (
        lambda: with_parts(lambda parts: (parts[0], longer(parts[1]), *parts[2:])), errors.CompartmentMismatchError,
    ),
    "salt changed": (
        lambda: with_parts(
            lambda parts: (parts[0], replace(parts[1], opened=Opened(bytes(32), opened(parts[1]).data)), *parts[2:])
        ),
        errors.CompartmentMismatchError,
    ),
    "bytes of another compartment": (
        lambda: with_parts(lambda parts: (parts[0], replace(parts[1], opened=parts[2].opened), *parts[2:])),
        errors.CompartmentMismatchError,
    ),
    "routing of another notice": (
        lambda: with_parts(
            lambda parts: (codec.decode_compartments(HONEST.envelope().compartments)[0], *parts[1:])
        ),
        errors.CompartmentMismatchError,
    ),
    "the header lists too few": (lambda: relisted(lambda slots: slots[:-1]), errors.CompartmentMismatchError),
    "the header lists none": (lambda: relisted(lambda _: ()), errors.CompartmentMismatchError),
    "the header lists another": (
        lambda: relisted(lambda slots: (*slots[:-1], Slot("gossip", bytes(32)))), errors.CompartmentMismatchError,
    ),
    "a body of no bytes": (lambda: refilled(b""), errors.UnknownSchemaError),
    "a body without a schema": (lambda: refilled(b"plain text"), errors.UnknownSchemaError),
    "a body of another compartment's schema": (
        lambda: refilled(body("person", "warnings")), errors.UnknownSchemaError,
    ),
    "a body whose schema is not on the allow-list": (
        lambda: refilled(body("person", "narrative"), position=8), errors.UnknownSchemaError,
    ),
    "a routing that is none": (lambda: refilled(avro.prefix("routing") + b"\2", position=0), errors.UnreadableError),
    "a routing of another schema": (lambda: refilled(body("person", "identity"), 0), errors.UnknownSchemaError),
    "leftover bytes in routing": (
        lambda: refilled(codec.encode(HONEST.routing) + b"\0", position=0), errors.LeftoverBytesError,
    ),
}  # fmt: skip


ROUTING_LEFT = {
    "one too few", "one too many", "another order", "bytes changed", "salt changed", "bytes of another compartment",
    "a body of no bytes", "a body without a schema", "a body of another compartment's schema",
    "a body whose schema is not on the allow-list",
}  # fmt: skip
"""Cases whose routing is what the header commits to: the number in it is burnt, too."""


@pytest.mark.parametrize("case", COMPARTMENTS_WRONG)
def test_wrong_compartments_are_refused_and_the_notice_id_is_burnt(case: str) -> None:
    make, expected = COMPARTMENTS_WRONG[case]
    envelope = make()
    error = rejected(envelope)
    assert type(error) is expected
    header, routing = codec.decode(Header, envelope.header), HONEST.routing if case in ROUTING_LEFT else None
    assert error.signed == Signed(header, header_digest(envelope.header), routing)


def test_a_withheld_compartment_leaves_the_rest_good() -> None:
    envelope = with_parts(lambda parts: (parts[0], Compartment("identity", None), *parts[2:]))
    assert verify(envelope, arrival()).present == 0b101


def test_a_body_is_never_opened() -> None:
    assert verify(refilled(avro.prefix("person.identity") + b"\xff" * 40), arrival())


# The routing


ROUTINGS_WRONG: dict[str, tuple[dict[str, Any], type[NoticeRejectedError]]] = {
    "nobody": ({"audience": Audience(everyone=False)}, errors.EmptyAudienceError),
    "nobody but whom it denies": (
        {"audience": Audience(everyone=False, to=("LV/ncb",)), "deny": ("LV",)},
        errors.EmptyAudienceError,
    ),
    "everyone, and all denied": (
        {"audience": Audience(everyone=True), "deny": ("LV/ncb",)},
        errors.EmptyAudienceError,
    ),
    "everyone and somebody": ({"audience": Audience(everyone=True, to=("LV",))}, errors.InvalidFieldError),
    "an unknown agreement": ({"audience": Audience(everyone=False, agreements=("x",))}, errors.InvalidFieldError),
    "an unknown addressee": ({"audience": Audience(everyone=False, to=("XX",))}, errors.InvalidFieldError),
    "an unknown denied": ({"deny": ("XX",)}, errors.InvalidFieldError),
    "an unknown protected-from": ({"protected_from": ("XX",)}, errors.InvalidFieldError),
    "subject category": ({"subject_categories": ("villain",)}, errors.InvalidFieldError),
    "special category": ({"special_categories": ("taste",)}, errors.InvalidFieldError),
    "minor": ({"minor": "perhaps"}, errors.InvalidFieldError),
    "number 0": ({"number": 0}, errors.InvalidFieldError),
}


@pytest.mark.parametrize("case", ROUTINGS_WRONG)
def test_a_wrong_routing_is_refused_and_the_number_is_burnt(case: str) -> None:
    changes, expected = ROUTINGS_WRONG[case]
    draft = HONEST.routed(**changes)
    error = rejected(draft.envelope())
    assert type(error) is expected
    assert isinstance(error.signed, Signed)
    assert error.signed.routing == draft.routing


def test_what_readers_of_avro_differ_on_is_refused() -> None:
    """A boolean of two, which fastavro takes; which forms those are is in test_strict.py."""
    routing = bytearray(codec.encode(HONEST.routed(audience=Audience(everyone=True)).routing))
    assert routing[avro.PREFIX] == 1
    routing[avro.PREFIX] = 2
    assert type(rejected(refilled(bytes(routing), position=0))) is errors.UnreadableError
    envelope = HONEST.envelope()
    exercise = codec.encode(replace(codec.decode(Header, envelope.header), exercise=True))
    (place,) = (at for at, byte in enumerate(envelope.header) if byte != exercise[at])
    header = exercise[:place] + b"\2" + exercise[place + 1 :]
    assert codec.decode(Header, header).exercise
    signature = key_of("AT/ncb").sign_payload(notice.HEADER_TYPE, header)
    assert type(rejected(replace(envelope, header=header, signature=signature))) is errors.UnreadableError


def test_what_ends_a_notice_is_never_refused_for_whom_it_denies() -> None:
    end = Draft("AT/ncb", kind="withdrawal", parts=("reason",)).but(
        references=(Reference("AT/ncb", bytes(16), bytes(32), "withdraws"),)
    )
    assert verify(end.routed(audience=Audience(everyone=False, to=("LV/ncb",)), deny=("LV",)).envelope(), arrival())


def test_an_origin_that_the_directory_does_not_know_is_for_the_policy_to_judge() -> None:
    assert verify(HONEST.routed(origins=(Origin("XX", ("YY",)), Origin(None))).envelope(), arrival())


def test_no_rejection_tells_what_a_field_held() -> None:
    for changes, _ in HEADERS_WRONG.values():
        message = str(rejected(HONEST.but(**changes).envelope()))
        assert not any(word in message for word in ("rumour", "curiosity", "H9", "at once", "cosmic", "admires"))
    for changes, _ in ROUTINGS_WRONG.values():
        message = str(rejected(HONEST.routed(**changes).envelope()))
        assert not any(word in message for word in ("XX", "villain", "taste", "perhaps"))


# Statements


def arrived(data: bytes) -> Statement:
    found = outer(data)
    assert isinstance(found, Statement)
    return found


RECEIPT = Receipt(
    FEDERATION, "AT/ncb", "LV", "received", (ReceiptItem(0, bytes(32)),), None, None, 1, NOW
)  # fmt: skip
SUBSCRIPTION = Subscription(FEDERATION, "AT/ncb", 1, ("wanted.*",), NOW)
REVOCATION = Revocation(FEDERATION, "AT/ncb", bytes(32), "lost", NOW)
KEY = key_of("AT/ncb")


def stream_of(payload: Receipt | Subscription | Revocation) -> str:
    return "receipts.at" if isinstance(payload, Receipt) else "notices.at"


def refused(data: bytes, at: Arrival) -> type[NoticeRejectedError]:
    with pytest.raises(NoticeRejectedError) as caught:
        verify_statement(arrived(data), at)
    assert caught.value.signed is None
    return type(caught.value)


@pytest.mark.parametrize("payload", [RECEIPT, SUBSCRIPTION, REVOCATION], ids=lambda each: type(each).__name__)
class TestEveryStatement:
    def test_an_honest_one_is_taken(self, payload: Receipt | Subscription | Revocation) -> None:
        assert verify_statement(arrived(statement(payload, KEY)), arrival(stream_of(payload))) == payload

    def test_a_bad_signature_is_refused_before_the_payload_is_read(
        self, payload: Receipt | Subscription | Revocation
    ) -> None:
        made = arrived(statement(payload, KEY))
        at = arrival(stream_of(payload))
        assert refused(codec.encode(replace(made, signature=bytes(64))), at) is errors.SignatureError
        assert refused(codec.encode(replace(made, payload=b"hostile")), at) is errors.SignatureError

    def test_a_signature_under_another_type_is_refused(self, payload: Receipt | Subscription | Revocation) -> None:
        made = arrived(statement(payload, KEY))
        for kind in (notice.RECEIPT_TYPE, notice.SUBSCRIPTION_TYPE, notice.REVOCATION_TYPE):
            if kind != made.payload_type:
                again = codec.encode(replace(made, payload_type=kind))
                assert refused(again, arrival(stream_of(payload))) is errors.SignatureError

    def test_it_is_bound_to_key_stream_federation_and_time(self, payload: Receipt | Subscription | Revocation) -> None:
        stream = stream_of(payload)
        other = replace(payload, federation="other")
        late = replace(payload, at=FAR + 1)
        elsewhere = "notices.at" if stream == "receipts.at" else "receipts.at"
        lv = stream.replace(".at", ".lv")
        revoked = arrival(stream, revoked=(KEY.public.id,))
        assert refused(statement(payload, KEY), revoked) is errors.KeyRevokedError
        assert refused(statement(payload, key_of("AT/ncb", 1)), arrival(stream)) is errors.KeyNotInForceError
        assert refused(statement(payload, key_of("AT/ncb", 9)), arrival(stream)) is errors.UnknownKeyError
        assert refused(statement(payload, key_of("LV/ncb")), arrival(lv)) is errors.KeyOfAnotherError
        assert refused(statement(payload, KEY), arrival(lv)) is errors.StreamOfAnotherError
        assert refused(statement(payload, KEY), arrival(elsewhere)) is errors.StreamOfAnotherError
        assert refused(statement(other, KEY), arrival(stream)) is errors.OtherFederationError
        assert refused(statement(late, KEY), arrival(stream)) is errors.IssuedInFutureError


def test_a_statement_of_a_suspended_member_is_refused() -> None:
    assert refused(subscription("RU/ncb", "*"), arrival("notices.ru")) is errors.UnknownMemberError
    assert refused(receipt("RU/ncb", 0, bytes(32), "AT"), arrival("receipts.ru")) is errors.UnknownMemberError


@pytest.mark.parametrize("kind", ["", notice.HEADER_TYPE, "text/plain"])
def test_an_unknown_kind_of_statement_is_refused(kind: str) -> None:
    made = Statement(kind, b"payload", KEY.public.id, KEY.sign_payload(kind, b"payload"))
    assert refused(codec.encode(made), arrival()) is errors.UnknownKindError


@pytest.mark.parametrize(
    "changes",
    [
        {"act": "burnt"}, {"act": "outcome"}, {"act": "outcome", "result": "erased"}, {"act": "read", "result": "hit"},
        {"act": "erased"}, {"number": 0}, {"number": -1}, {"items": ()}, {"items": (ReceiptItem(0, bytes(32)),) * 501},
    ],
    ids=lambda changes: ", ".join(f"{name} {str(value)[:20]}" for name, value in changes.items()),
)  # fmt: skip
def test_a_receipt_outside_its_limits_is_refused(changes: dict[str, Any]) -> None:
    assert refused(statement(replace(RECEIPT, **changes), KEY), arrival("receipts.at")) is errors.InvalidFieldError


@pytest.mark.parametrize("pattern", ["", "*.red", "wanted.*.x", "Wanted", "wanted.", "wanted.red\n", "**"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    assert refused(subscription("AT/ncb", "wanted.red", pattern), arrival()) is errors.InvalidFieldError


def test_more_than_a_hundred_patterns_are_refused() -> None:
    assert verify_statement(arrived(subscription("AT/ncb", *["a"] * 100)), arrival())
    assert refused(subscription("AT/ncb", *["a"] * 101), arrival()) is errors.InvalidFieldError
