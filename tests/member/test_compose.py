from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from adapters.adapter import Draft, Pointer
from adapters.compose import Maker, Place, compose, notice_id, sign
from broker import avro, codec, members
from broker.errors import (
    AlreadyExpiredError,
    EmptyAudienceError,
    InvalidFieldError,
    NoticeRejectedError,
    TooLargeError,
    UnknownHandlingError,
    UnknownKeyError,
    UnknownKindError,
    UnknownPurposeError,
    UnreadableError,
)
from broker.notice import HEADER_TYPE, KINDS, Audience, Header
from broker.signing import SigningKey, compartment_digest, pae
from tests.honest_broker import directory
from tests.making import NOW, key_of
from tests.member.conftest import draft

PLACE = Place("AT/ncb", 1, (), b"series-1", 1)


def maker(key: Callable[[str], SigningKey] = key_of) -> Maker:
    return Maker(members.parse(members.canonical(directory())), key, lambda: NOW, os.urandom)


def test_what_was_drafted_is_what_is_signed() -> None:
    made = compose(draft(), PLACE, maker())
    header = codec.decode(Header, made.envelope.header)
    assert (header.record, header.version, header.issuer, header.kind) == ("R-1", 1, "AT/ncb", "person")
    assert header.issued == NOW
    opened = {each.name: each.opened for each in made.compartments}
    identity = opened["identity"]
    assert identity is not None
    came = avro.read("person.identity", identity.data)
    assert [each["script"] for each in came["names"]] == [
        each["script"] for each in draft().compartments["identity"]["names"]
    ]
    assert (made.routing.series, made.routing.number) == (b"series-1", 1)


def test_every_compartment_of_the_kind_is_listed_and_an_empty_one_travels_as_null() -> None:
    made = compose(draft(), PLACE, maker())
    assert tuple(slot.name for slot in made.header.compartments) == ("routing", *KINDS["person"])
    assert [each.name for each in made.compartments if each.opened] == ["routing", "identity", "warnings", "narrative"]
    assert len({slot.digest for slot in made.header.compartments}) == 1 + len(KINDS["person"])


def test_an_empty_compartment_is_the_digest_of_a_fresh_salt_and_no_bytes() -> None:
    salts: list[bytes] = []

    def random(size: int) -> bytes:
        salts.append(os.urandom(size))
        return salts[-1]

    made = compose(draft(), PLACE, replace(maker(), random=random))
    place = 1 + KINDS["person"].index("biometrics")
    assert made.header.compartments[place].digest == compartment_digest("biometrics", salts[place], b"")


def test_the_signature_covers_the_exact_header_bytes() -> None:
    made = compose(draft(), PLACE, maker())
    key_of("AT/ncb").public.check(made.envelope.signature, pae(HEADER_TYPE, made.envelope.header))
    anew = sign(made.envelope.header, made.envelope.compartments, key_of("AT/ncb", 1))
    assert anew.header == made.envelope.header
    assert anew.key_id != made.envelope.key_id


def test_a_notice_id_is_a_uuid_of_version_7_in_order_of_time() -> None:
    first, second = notice_id(NOW, os.urandom), notice_id(NOW + 1, os.urandom)
    made = uuid.UUID(bytes=first)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert first < second
    assert int.from_bytes(first[:6], "big") == NOW


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (draft(audience=Audience(everyone=False)), EmptyAudienceError),
        (draft(audience=Audience(everyone=False, to=("XX",))), InvalidFieldError),
        (draft(kind="rumour"), UnknownKindError),
        (draft(purpose="curiosity"), UnknownPurposeError),
        (draft(handling=("H9",)), UnknownHandlingError),
        (draft(topics=()), InvalidFieldError),
        (draft(expires=NOW - 1), AlreadyExpiredError),
        (draft(compartments={"rumours": {"text": "x"}}), InvalidFieldError),
        (draft(compartments={"identity": {"names": 7}}), UnreadableError),
        (
            draft(compartments={"identity": {"names": [{"script": "Latn", "kind": "primary", "nmae": "x"}]}}),
            InvalidFieldError,
        ),
    ],
)
def test_what_the_broker_would_reject_is_refused_here(changed: Draft, error: type[NoticeRejectedError]) -> None:
    with pytest.raises(error):
        compose(changed, PLACE, maker())


def test_a_notice_over_the_limit_is_refused_here() -> None:
    identity = {"names": [{"whole": "x" * 300_000, "script": "Latn", "kind": "primary"}]}
    with pytest.raises(TooLargeError):
        compose(draft(compartments={"identity": identity}), PLACE, maker())


def test_a_key_that_the_directory_does_not_know_is_refused_here() -> None:
    with pytest.raises(UnknownKeyError):
        compose(draft(), PLACE, maker(lambda bureau: key_of(bureau, 9)))


def test_a_pointer_says_nothing_by_itself() -> None:
    made = compose(draft(pointers=(Pointer("AT/ncb", "R-0", "cites"),)), PLACE, maker())
    assert made.header.references == ()
