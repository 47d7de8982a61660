"""One notice, from its issuer's stream to the bureaus that may have it, and what its issuer learns."""

from __future__ import annotations

from broker import codec
from broker.merkle import check_inclusion, check_row, leaf_hash
from broker.notes import open_checkpoint, parse_proof
from broker.notice import DecisionRecord, Shared
from broker.signing import decision_digest, header_digest
from tests.federation import LOG, Federation
from tests.making import Draft, receipt, reference


async def test_an_addressed_bureau_gets_the_notice_and_nobody_else_does(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    assert got.shown == {"identity", "warnings"}
    assert await federation.inbox("RU/ncb") == []
    assert await federation.inbox("LV/ncb") == []


async def test_everyone_means_those_who_subscribe(federation: Federation) -> None:
    await federation.subscribe("GE/ncb", "sought.*")
    await federation.subscribe("LV/ncb", "border.*")
    await federation.publish(Draft("AT/ncb").envelope())
    await federation.settled()
    assert len(await federation.inbox("GE/ncb")) == 1
    assert await federation.inbox("LV/ncb") == []


async def test_flash_reaches_those_who_did_not_subscribe(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").but(urgency="flash").envelope())
    assert len(await federation.inbox("GE/ncb", 1)) == 1
    assert len(await federation.inbox("RU/ncb", 1)) == 1


async def test_an_agreement_bounds_the_audience_and_needs_a_subscription(federation: Federation) -> None:
    for bureau in ("GE/ncb", "RU/ncb"):
        await federation.subscribe(bureau, "*")
    draft = Draft("LV/ncb")
    audience = type(draft.routing.audience)(everyone=False, agreements=("circle",))
    await federation.publish(draft.routed(audience=audience).envelope())
    await federation.settled()
    assert len(await federation.inbox("GE/ncb")) == 1
    assert await federation.inbox("RU/ncb") == []
    assert await federation.inbox("AT/ncb") == []


async def test_who_is_denied_gets_nothing_whatever_else_holds(federation: Federation) -> None:
    await federation.subscribe("RU/ncb", "*")
    await federation.publish(Draft("AT/ncb").but(urgency="flash").routed(deny=("RU",)).envelope())
    await federation.settled()
    assert await federation.inbox("RU/ncb") == []


async def test_a_delivery_carries_its_leaf_its_row_and_the_proof(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    shared = codec.decode(Shared, got.delivery.shared)
    proof = parse_proof(shared.proof)
    head = open_checkpoint(proof.checkpoint, LOG)
    check_inclusion(leaf_hash(shared.leaf), got.delivery.leaf_number, head.size, proof.proof, head.root)
    assert got.leaf.rows is not None
    check_row(got.delivery.salt, got.delivery.row, got.delivery.index, got.delivery.path, got.leaf.rows)
    assert got.leaf.header_digest == header_digest(got.envelope.header)


async def test_routing_is_never_shown(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").routed(deny=("RU",)).envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    assert "routing" not in got.shown


async def test_the_issuer_learns_the_decision_with_its_record(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (told,) = await federation.outcomes("AT", 1)
    assert told.kind == "routed"
    record = codec.decode(DecisionRecord, told.decision)
    assert [each.bureau for each in record.rows] == ["GE/ncb"]
    from broker.notice import Leaf

    assert codec.decode(Leaf, told.leaf).decision == decision_digest(told.decision_salt, told.decision)


async def test_a_retransmission_returns_the_original_outcome(federation: Federation) -> None:
    envelope = Draft("AT/ncb").to("GE/ncb").envelope()
    await federation.publish(envelope)
    await federation.publish(envelope)
    first, second = await federation.outcomes("AT", 2)
    assert (second.kind, second.original) == ("repeated", first.leaf_number)
    assert len(await federation.inbox("GE/ncb")) == 1


async def test_a_correction_replaces_what_its_receivers_had(federation: Federation) -> None:
    first = Draft("AT/ncb").to("GE/ncb", "LV/ncb").but(record="r-1").envelope()
    await federation.publish(first)
    draft = Draft("AT/ncb").to("GE/ncb").numbered(2)
    await federation.publish(draft.but(record="r-1", version=2, references=(reference(first, "corrects"),)).envelope())
    old, new = await federation.inbox("GE/ncb", 2)
    assert new.delivery.replaces == (old.delivery.delivery_number,)
    told = (await federation.outcomes("AT", 2))[1]
    assert "holders-not-reached" in told.warnings


async def test_a_withdrawal_reaches_every_holder_of_every_version(federation: Federation) -> None:
    first = Draft("AT/ncb").to("GE/ncb", "LV/ncb").but(record="r-1").envelope()
    await federation.publish(first)
    draft = Draft("AT/ncb").to("GE/ncb").numbered(2)
    second = draft.but(record="r-1", version=2, references=(reference(first, "corrects"),)).envelope()
    await federation.publish(second)
    withdrawal = Draft("AT/ncb", kind="withdrawal", parts=("reason",)).routed(deny=("GE",)).numbered(3)
    refers = withdrawal.but(record="r-1", version=3, references=(reference(second, "withdraws"),))
    await federation.publish(refers.envelope())
    at_ge, at_lv = await federation.inbox("GE/ncb", 3), await federation.inbox("LV/ncb", 2)
    assert at_ge[-1].delivery.erases == (at_ge[1].delivery.delivery_number,)
    assert at_lv[-1].delivery.erases == (at_lv[0].delivery.delivery_number,)
    assert await federation.inbox("RU/ncb") == []


async def test_a_withdrawal_may_come_before_its_notice(federation: Federation) -> None:
    notice = Draft("AT/ncb").to("GE/ncb").but(record="r-1").numbered(2).envelope()
    withdrawal = Draft("AT/ncb", kind="withdrawal", parts=()).numbered(1)
    await federation.publish(withdrawal.but(record="r-1", references=(reference(notice, "withdraws"),)).envelope())
    await federation.publish(notice)
    told = await federation.outcomes("AT", 2)
    assert told[1].code == "already-withdrawn"
    assert await federation.inbox("GE/ncb") == []


async def test_the_issuer_learns_who_has_received(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    digest = header_digest(got.envelope.header)
    await federation.append("receipts.ge", receipt("GE/ncb", got.delivery.leaf_number, digest, "AT"))
    told = (await federation.outcomes("AT", 2))[1]
    assert (told.kind, told.code, told.issuer) == ("receipt", "received", "GE/ncb")


async def test_nobody_can_confirm_what_it_was_not_given(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    digest = header_digest(got.envelope.header)
    await federation.append("receipts.ru", receipt("RU/ncb", got.delivery.leaf_number, digest, "AT"))
    (told,) = await federation.outcomes("RU", 1)
    assert (told.kind, told.code) == ("rejected", "unknown-delivery")


async def test_a_gap_in_the_series_is_accepted_and_told(federation: Federation) -> None:
    await federation.publish(Draft("AT/ncb").to("GE/ncb").numbered(1).envelope())
    await federation.publish(Draft("AT/ncb").to("GE/ncb").numbered(4).envelope())
    told = (await federation.outcomes("AT", 2))[1]
    assert (told.kind, told.missing) == ("routed", (2, 3))
    assert "series-gap" in told.warnings


async def test_every_record_has_exactly_one_leaf(federation: Federation) -> None:
    before = len(await federation.leaves())
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    await federation.append("notices.at", b"rubbish")
    await federation.outcomes("AT", 2)
    await federation.subscribe("LV/ncb", "*")
    assert [each.kind for each in (await federation.leaves())[before:]] == ["routed", "rejected", "subscribed"]


async def test_a_receipt_that_came_too_early_does_not_spoil_the_genuine_one(federation: Federation) -> None:
    first = await federation.leaves()
    leaf_number = len(first) + 1
    await federation.append("receipts.ru", receipt("RU/ncb", leaf_number, bytes(32), "AT"))
    await federation.outcomes("RU", 1)
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    assert got.delivery.leaf_number == leaf_number
    digest = header_digest(got.envelope.header)
    await federation.append("receipts.ge", receipt("GE/ncb", leaf_number, digest, "AT"))
    assert (await federation.outcomes("AT", 2))[1].kind == "receipt"
