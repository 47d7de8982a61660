"""An authority withdraws by order what another published: whom it reaches, who may, and what it never says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker import codec
from broker.notice import DecisionRecord, Envelope, Header, Outcome
from broker.rules import PolicySet
from tests import federation as world
from tests.exchange.test_held import TO, one, publish, word
from tests.fake_bus import Clock, FakeBus, Memory
from tests.federation import Federation
from tests.making import NOW, Draft, reference

AUTHORITY = REVIEWER = "EUROPOL/analysis"
BUREAU = "RU/ncb"


@pytest.fixture
async def ordered(tmp_path: Path) -> AsyncIterator[Federation]:
    """A running federation in which EUROPOL/analysis is reviewer and authority."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(
        bus, world.directory(reviewers=(REVIEWER,), authorities=(AUTHORITY,)), PolicySet.packaged()
    )
    made = Federation(tmp_path, bus, clock)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await made.adopted()
        yield made


def order(of: Envelope, issuer: str = AUTHORITY, kind: str = "withdrawal", relation: str = "withdraws") -> Draft:
    """The end of another's notice."""
    parts = ("reason",) if kind in ("withdrawal", "restriction") else ("identity",)
    made = one(issuer, kind=kind, parts=parts)
    record = codec.decode(Header, of.header).record
    return made.but(references=(reference(of, relation),), record=record, version=9)


async def told_at_home(federation: Federation) -> Outcome:
    """The last outcome that the notice's own member was told, once it speaks of an order."""
    for many in range(1, 20):
        outcome = (await federation.outcomes("RU", many))[many - 1]
        if outcome.kind == "withdrawn-by-order":
            return outcome
    raise AssertionError


async def test_it_reaches_every_holder_and_the_bureau_whose_notice_it_ends(ordered: Federation) -> None:
    envelope, sent = await publish(ordered, one(BUREAU))
    (held,) = await ordered.inbox(TO, 1)
    end, told = await publish(ordered, order(envelope))
    assert (told.kind, told.warnings) == ("routed", ())
    holder, issuer = (await ordered.inbox(TO, 2))[1], (await ordered.inbox(BUREAU, 1))[0]
    assert holder.delivery.erases == (held.delivery.delivery_number,)
    assert (issuer.delivery.erases, issuer.shown) == ((), {"reason"})
    assert holder.envelope.signature == issuer.envelope.signature == end.signature
    outcome = await told_at_home(ordered)
    assert (outcome.notice_id, outcome.leaf_number) == (sent.notice_id, told.leaf_number + 1)


async def test_what_its_member_is_told_of_the_broker_is_of_its_own_notice_only(ordered: Federation) -> None:
    envelope, _ = await publish(ordered, one(BUREAU))
    await publish(ordered, order(envelope).routed(protected_from=("RU",)))
    record = codec.decode(DecisionRecord, (await told_at_home(ordered)).decision)
    assert (record.header, record.rows) == (envelope.header, ())
    assert b"".join((record.header, record.routing)).find(b"EUROPOL") == -1


@pytest.mark.parametrize("issuer", ["AT/ncb", "LV/ncb"])
async def test_nobody_else_may(ordered: Federation, issuer: str) -> None:
    envelope, _ = await publish(ordered, one(BUREAU))
    _, told = await publish(ordered, order(envelope, issuer))
    assert (told.kind, told.code) == ("rejected", "invalid-reference")
    await ordered.settled()
    assert len(await ordered.inbox(TO, 1)) == 1


@pytest.mark.parametrize(("kind", "relation"), [("restriction", "restricts"), ("person", "corrects")])
async def test_an_authority_neither_restricts_nor_corrects(ordered: Federation, kind: str, relation: str) -> None:
    envelope, _ = await publish(ordered, one(BUREAU))
    _, told = await publish(ordered, order(envelope, kind=kind, relation=relation))
    assert (told.kind, told.code) == ("rejected", "invalid-reference")


async def test_it_names_a_notice_that_is_on_record_and_its_very_header(ordered: Federation) -> None:
    envelope, _ = await publish(ordered, one(BUREAU))
    never = one(BUREAU).envelope()
    other = replace(reference(envelope, "withdraws"), header_digest=bytes(32))
    for each in (order(never), order(envelope).but(references=(other,)), order(envelope).but(record="another")):
        _, told = await publish(ordered, each)
        assert (told.kind, told.code) == ("rejected", "invalid-reference")


async def test_it_ends_the_version_that_stands_whichever_it_names(ordered: Federation) -> None:
    first, _ = await publish(ordered, one(BUREAU))
    record = codec.decode(Header, first.header).record
    second, _ = await publish(
        ordered, one(BUREAU).but(references=(reference(first, "corrects"),), record=record, version=2)
    )
    _, told = await publish(ordered, order(first))
    assert told.kind == "routed"
    assert (await told_at_home(ordered)).notice_id == codec.decode(Header, second.header).notice_id
    old, new, end = await ordered.inbox(TO, 3)
    assert set(end.delivery.erases) >= {new.delivery.delivery_number}
    assert new.delivery.replaces == (old.delivery.delivery_number,)


async def test_what_was_ended_cannot_be_corrected_nor_sent_again(ordered: Federation) -> None:
    first, _ = await publish(ordered, one(BUREAU))
    record = codec.decode(Header, first.header).record
    await publish(ordered, order(first))
    correction = one(BUREAU).but(references=(reference(first, "corrects"),), record=record, version=10)
    _, told = await publish(ordered, correction)
    assert (told.kind, told.code) == ("rejected", "invalid-reference")
    _, told = await publish(ordered, first)
    assert told.kind == "repeated"
    await ordered.settled()
    assert len(await ordered.inbox(TO, 2)) == 2


async def test_what_waits_for_its_review_can_be_ended_too(ordered: Federation) -> None:
    envelope, told = await publish(ordered, one(BUREAU).but(topics=("wanted.red",)))
    assert told.kind == "held"
    await publish(ordered, order(envelope))
    assert (await told_at_home(ordered)).notice_id == told.notice_id
    _, told = await publish(ordered, word(envelope))
    assert (told.kind, told.code) == ("rejected", "invalid-reference")
    assert await ordered.inbox(TO) == []
