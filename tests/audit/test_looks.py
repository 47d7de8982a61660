"""Every look at clear data is a leaf of its own, signed by whoever looks, and its issuer is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from broker import codec, streams
from broker.errors import VersionRefusedError
from broker.index import look_in
from broker.members import parse
from broker.notice import LOOK_TYPE, DecisionRecord, Entry, Leaf, Look, Statement
from broker.signing import SigningKey
from tests.audit.conftest import AUDITOR, written_auditor
from tests.federation import Federation, directory, written_key
from tests.making import FEDERATION, NOW, Draft, key_of

HONEST = Look(FEDERATION, AUDITOR, b"look-0000000001!", "AT", (0,), "request 2026/17", NOW)


def look(made: Look, key: SigningKey | None = None) -> bytes:
    """Sign a look."""
    signer, payload = key or key_of(AUDITOR), codec.encode(made)
    return codec.encode(Statement(LOOK_TYPE, payload, signer.public.id, signer.sign_payload(LOOK_TYPE, payload)))


async def published(federation: Federation, number: int = 1) -> int:
    """Publish a notice of AT's to GE; give its leaf number."""
    before = len(await federation.inbox("GE/ncb"))
    await federation.publish(Draft("AT/ncb").to("GE/ncb").numbered(number).envelope())
    return (await federation.inbox("GE/ncb", before + 1))[-1].delivery.leaf_number


async def taken_in(federation: Federation, record: bytes, stream: str = streams.ASKS) -> tuple[Leaf, DecisionRecord]:
    """Put a record on a stream; give the leaf that came of it."""
    before = len(await federation.leaves())
    await federation.append(stream, record)
    while len(await federation.leaves()) == before:
        await federation.bus.read(streams.TRAIL, await federation.bus.end(streams.TRAIL), wait=0.05)
    records = await federation.bus.read(streams.TRAIL, 0, limit=10_000)
    entry = [codec.decode(Entry, each.value or b"") for each in records if each.key == b"entry"][-1]
    return codec.decode(Leaf, entry.leaf), codec.decode(DecisionRecord, entry.decision)


async def test_a_look_is_a_leaf_about_the_notice_that_says_who_and_why(federation: Federation) -> None:
    number = await published(federation)
    leaf, decision = await taken_in(federation, look(replace(HONEST, leaves=(number,))))
    assert (leaf.kind, leaf.about) == ("look", number)
    made = look_in(decision)
    assert made is not None
    assert (made.by, made.reason, made.leaves) == (AUDITOR, "request 2026/17", (number,))


async def test_the_issuer_is_told_who_looked_and_nobody_else_is(federation: Federation) -> None:
    number = await published(federation)
    told = len(await federation.outcomes("AT"))
    await federation.append(streams.ASKS, look(replace(HONEST, leaves=(number,))))
    outcome = (await federation.outcomes("AT", told + 1))[-1]
    assert outcome.kind == "look"
    assert await federation.outcomes("GE") == []


async def test_the_same_look_is_recorded_once(federation: Federation) -> None:
    number = await published(federation)
    record = look(replace(HONEST, leaves=(number,)))
    assert (await taken_in(federation, record))[0].kind == "look"
    assert (await taken_in(federation, record))[0].kind == "repeated"


@pytest.mark.parametrize(
    ("made", "key", "code"),
    [
        (replace(HONEST, by="auditor-2"), None, "key-of-another"),
        (HONEST, key_of("AT/ncb"), "unknown-key"),
        (replace(HONEST, federation="another"), None, "other-federation"),
        (replace(HONEST, at=NOW + 3_600_000), None, "issued-in-future"),
        (replace(HONEST, leaves=()), None, "invalid-field"),
        (replace(HONEST, reason=""), None, "invalid-field"),
        (replace(HONEST, reason="x" * 201), None, "invalid-field"),
        (replace(HONEST, leaves=(99_999,)), None, "unknown-delivery"),
        (replace(HONEST, leaves=(0,)), None, "unknown-delivery"),
        (replace(HONEST, leaves=(-1,)), None, "unknown-delivery"),
    ],
)
async def test_a_look_that_is_not_right_is_refused_and_on_record(
    federation: Federation, made: Look, key: SigningKey | None, code: str
) -> None:
    leaf, _ = await taken_in(federation, look(made, key))
    assert (leaf.kind, leaf.code) == ("rejected", code)


async def test_a_look_at_one_member_s_notice_cannot_be_told_to_another(federation: Federation) -> None:
    number = await published(federation)
    leaf, _ = await taken_in(federation, look(replace(HONEST, leaves=(number,), issuer_member="LV")))
    assert (leaf.kind, leaf.code) == ("rejected", "unknown-delivery")


async def test_a_look_travels_on_no_other_stream(federation: Federation) -> None:
    leaf, _ = await taken_in(federation, look(HONEST), streams.notices("AT"))
    assert (leaf.kind, leaf.code) == ("rejected", "stream-of-another")


async def test_an_auditor_s_key_signs_nothing_else(federation: Federation) -> None:
    leaf, _ = await taken_in(
        federation, codec.encode(Draft("AT/ncb", key=key_of(AUDITOR)).envelope()), streams.notices("AT")
    )
    assert (leaf.kind, leaf.code) == ("rejected", "unknown-key")


def test_a_key_is_a_bureau_s_or_an_auditor_s_never_both() -> None:
    shared = written_key("AT/ncb")
    auditor = written_auditor().model_copy(update={"key_id": shared.key_id, "public": shared.public})
    written = directory().model_dump(mode="json") | {"auditors": [auditor.model_dump(mode="json")]}
    with pytest.raises(VersionRefusedError, match="given twice"):
        parse(json.dumps(written).encode())
