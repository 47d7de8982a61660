"""What is wrong is refused with a stable code, one leaf and an outcome, and the loop goes on (issue: bad input)."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker import avro, by_hand, codec
from broker.notice import HEADER_TYPE, Audience, Envelope, Header, Revocation
from tests import federation as world
from tests.federation import Federation
from tests.making import FEDERATION, NOW, Draft, key_of, statement

DAY = 86_400_000
OTHER = Draft("AT/ncb").to("GE/ncb")


def _wrong_signature() -> bytes:
    return codec.encode(replace(OTHER.envelope(), signature=bytes(64)))


def _changed_header() -> bytes:
    envelope = OTHER.envelope()
    return codec.encode(replace(envelope, header=envelope.header[:-1] + bytes([envelope.header[-1] ^ 1])))


def _truncated() -> bytes:
    return codec.encode(OTHER.envelope())[:-7]


def _signed(header: bytes, envelope: Envelope) -> bytes:
    """Put another header into an envelope, signed by its issuer."""
    key = key_of("AT/ncb")
    return codec.encode(replace(envelope, header=header, signature=key.sign_payload(HEADER_TYPE, header)))


def _boolean_of_two() -> bytes:
    """An `exercise` that is true to one reader and false to the next."""
    envelope = OTHER.envelope()
    listed = codec.decode(Header, envelope.header).compartments
    place = envelope.header.index(by_hand.blob(b"routing")) - len(by_hand.long(len(listed))) - 1
    assert envelope.header[place] == 0
    return _signed(envelope.header[:place] + b"\x02" + envelope.header[place + 1 :], envelope)


def _number_of_eleven_bytes() -> bytes:
    envelope = OTHER.envelope()
    version = envelope.header.index(b"\x02" + by_hand.blob(b"AT/ncb"))
    return _signed(envelope.header[:version] + b"\x82" + b"\x80" * 9 + b"\0" + envelope.header[version + 1 :], envelope)


def _swapped_compartments() -> bytes:
    return codec.encode(replace(OTHER.envelope(), compartments=OTHER.envelope().compartments))


def _null_bomb() -> bytes:
    """An array that claims ten million items in a few bytes."""
    return avro.prefix("envelope") + by_hand.long(20) + b"\xc3\x01" + bytes(8) + by_hand.long(10_000_000) + b"\0"


BAD: list[tuple[str, Callable[[], bytes]]] = [
    ("bad-signature", _wrong_signature),
    ("bad-signature", _changed_header),
    ("key-of-another", lambda: codec.encode(replace(OTHER, issuer="LV/ncb", key=key_of("AT/ncb")).envelope())),
    ("key-of-another", lambda: codec.encode(replace(OTHER, key=key_of("AT/organised-crime")).envelope())),
    ("key-of-another", lambda: codec.encode(replace(OTHER, issuer="XX/ncb", key=key_of("AT/ncb")).envelope())),
    ("unknown-key", lambda: codec.encode(replace(OTHER, key=key_of("XX/ncb")).envelope())),
    ("stream-of-another", lambda: codec.encode(replace(OTHER, issuer="LV/ncb").envelope())),
    ("unknown-kind", lambda: codec.encode(replace(OTHER, kind="rumour", parts=()).envelope())),
    ("unknown-purpose", lambda: codec.encode(OTHER.but(purpose="curiosity").envelope())),
    ("unknown-handling", lambda: codec.encode(OTHER.but(handling=("H9",)).envelope())),
    ("other-federation", lambda: codec.encode(OTHER.but(federation="another").envelope())),
    ("unknown-schema", lambda: b"\xc3\x01" + bytes(8) + b"what is this"),
    ("unknown-schema", lambda: b""),
    ("leftover-bytes", lambda: codec.encode(OTHER.envelope()) + b"\0"),
    ("unreadable", _truncated),
    ("unreadable", _null_bomb),
    ("unreadable", _boolean_of_two),
    ("unreadable", _number_of_eleven_bytes),
    ("too-large", lambda: os.urandom(300 * 1024)),
    ("unknown-schema", lambda: gzip.compress(bytes(50_000_000))),
    ("empty-audience", lambda: codec.encode(OTHER.routed(audience=Audience(everyone=False)).envelope())),
    ("invalid-field", lambda: codec.encode(OTHER.to("NOWHERE").envelope())),
    ("invalid-field", lambda: codec.encode(OTHER.routed(deny=("RUS",)).envelope())),
    ("issued-in-future", lambda: codec.encode(OTHER.but(issued=NOW + DAY).envelope())),
    ("already-expired", lambda: codec.encode(OTHER.but(expires=NOW - DAY).envelope())),
    ("compartment-mismatch", _swapped_compartments),
]


MEMBERS = world.directory().members
SUSPENDED = world.directory(
    members=tuple(each.model_copy(update={"status": "suspended"} if each.id == "RU" else {}) for each in MEMBERS)
)


@pytest.mark.parametrize(("code", "make"), BAD, ids=[f"{code}-{place}" for place, (code, _) in enumerate(BAD)])
async def test_it_is_refused_with_its_code_one_leaf_and_an_outcome(
    federation: Federation, code: str, make: Callable[[], bytes]
) -> None:
    before = len(await federation.leaves())
    await federation.append("notices.at", make())
    (told,) = await federation.outcomes("AT", 1)
    assert (told.kind, told.code) == ("rejected", code)
    (leaf,) = (await federation.leaves())[before:]
    assert (leaf.kind, leaf.code) == ("rejected", code)
    # The loop goes on.
    await federation.publish(OTHER.numbered(1, b"series-2").envelope())
    assert len(await federation.inbox("GE/ncb", 1)) == 1


@pytest.mark.parametrize("written", [SUSPENDED])
async def test_a_member_that_takes_no_part_is_unknown_and_told_so(federation: Federation) -> None:
    before = len(await federation.leaves())
    await federation.publish(Draft("RU/ncb").to("GE/ncb").envelope())
    (told,) = await federation.outcomes("RU", 1)
    (leaf,) = (await federation.leaves())[before:]
    assert (told.kind, told.code) == (leaf.kind, leaf.code) == ("rejected", "unknown-member")
    await federation.publish(OTHER.envelope())
    assert len(await federation.inbox("GE/ncb", 1)) == 1


async def test_a_clock_a_day_behind_is_accepted(federation: Federation) -> None:
    await federation.publish(OTHER.but(issued=NOW - DAY).envelope())
    assert len(await federation.inbox("GE/ncb", 1)) == 1


async def test_a_revoked_key_signs_nothing_any_more(federation: Federation) -> None:
    key = key_of("AT/ncb").public.id
    await federation.append(
        "notices.at",
        statement(Revocation(FEDERATION, "AT/organised-crime", key, "stolen", NOW), key_of("AT/organised-crime")),
    )
    await federation.publish(OTHER.envelope())
    told = await federation.outcomes("AT", 2)
    assert [(each.kind, each.code) for each in told] == [("revoked", None), ("rejected", "key-revoked")]


async def test_a_number_used_twice_is_refused(federation: Federation) -> None:
    await federation.publish(OTHER.envelope())
    await federation.publish(OTHER.envelope())
    told = await federation.outcomes("AT", 2)
    assert [each.code for each in told] == [None, "number-reused"]


async def test_the_same_id_with_other_bytes_is_refused_and_the_first_stays(federation: Federation) -> None:
    notice_id = os.urandom(16)
    first = OTHER.but(notice_id=notice_id).envelope()
    await federation.publish(first)
    await federation.publish(OTHER.but(notice_id=notice_id).numbered(2).envelope())
    await federation.publish(first)
    told = await federation.outcomes("AT", 3)
    assert [(each.kind, each.code) for each in told] == [
        ("routed", None),
        ("rejected", "id-reused"),
        ("repeated", "routed"),
    ]


async def test_a_copy_whose_signature_fails_burns_nothing(federation: Federation) -> None:
    envelope: Envelope = OTHER.envelope()
    await federation.append("notices.at", codec.encode(replace(envelope, signature=bytes(64))))
    await federation.publish(envelope)
    told = await federation.outcomes("AT", 2)
    assert [each.kind for each in told] == ["rejected", "routed"]


async def test_a_refused_notice_stays_refused(federation: Federation) -> None:
    envelope = OTHER.but(issued=NOW + DAY).envelope()
    await federation.publish(envelope)
    await federation.outcomes("AT", 1)
    federation.clock.now += 2 * DAY
    await federation.publish(envelope)
    told = await federation.outcomes("AT", 2)
    assert [(each.kind, each.code) for each in told] == [("rejected", "issued-in-future"), ("repeated", "refused")]


async def test_a_notice_on_the_receipts_stream_is_refused(federation: Federation) -> None:
    await federation.append("receipts.at", codec.encode(OTHER.envelope()))
    (told,) = await federation.outcomes("AT", 1)
    assert (told.kind, told.code) == ("rejected", "unknown-kind")
