"""An outcome that says something else than what is on record, or than was signed, tells its member nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from adapters.trace import trace
from broker import codec, streams
from broker.notice import (
    RECEIPT_TYPE,
    SUBSCRIPTION_TYPE,
    DecisionRecord,
    Envelope,
    Leaf,
    Outcome,
    Receipt,
    ReceiptItem,
    Recipient,
    Statement,
)
from broker.route import Lines, lay
from broker.signing import decision_digest, header_digest
from tests.making import NOW, key_of, statement
from tests.making import receipt as forged
from tests.member.conftest import World, draft
from tests.member.test_outcomes import SHOWS, identity, learn


def other_decision(outcome: Outcome) -> Outcome:
    decision = codec.decode(DecisionRecord, outcome.decision)
    return replace(outcome, decision=codec.encode(replace(decision, warnings=("nothing",))))


def hidden_recipient(outcome: Outcome) -> Outcome:
    decision = codec.decode(DecisionRecord, outcome.decision)
    return replace(outcome, decision=codec.encode(replace(decision, rows=decision.rows[:1])))


def other_kind(outcome: Outcome) -> Outcome:
    return replace(outcome, kind="rejected", code="unknown-kind")


def no_decision(outcome: Outcome) -> Outcome:
    return replace(outcome, decision=b"")


def other_leaf(outcome: Outcome) -> Outcome:
    return replace(outcome, leaf_number=1)


@pytest.mark.parametrize("change", [other_decision, hidden_recipient, other_kind, no_decision, other_leaf])
async def test_an_outcome_that_is_not_on_record_is_refused(world: World, change: Callable[[Outcome], Outcome]) -> None:
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    number, _ = world.broker.record(first, SHOWS), world.broker.record(second, SHOWS)
    await world.broker.seal()
    outcome = world.broker.routes[number].outcome
    assert outcome is not None
    hostile = replace(change(outcome), proof=world.broker.prove(number))
    await world.bus.append(streams.outcomes("AT"), [(b"", codec.encode(hostile))])
    outbox = world.machine("AT/ncb").outbox()
    alarms = await learn(world.machine("AT/ncb"), outbox)
    assert alarms in (["wrong-leaf"], ["not-in-trail"])
    story = trace(outbox.database, identity(first))
    assert story is not None
    assert story.outcome is None
    outbox.close()


async def put_on_record(world: World, false: Callable[[Leaf, Outcome], tuple[Leaf, Outcome]]) -> list[str]:
    """Have the broker record another leaf of a notice of AT's, and tell AT another outcome; give AT's alarms."""
    (data,) = await world.publish(draft())
    broker = world.broker
    number = broker.record(data, SHOWS)
    outcome = broker.routes[number].outcome
    broker.routes.clear()
    assert outcome is not None
    leaf, outcome = false(codec.decode(Leaf, broker.leaves[number]), outcome)
    broker.leaves[number] = codec.encode(leaf)
    await broker.seal()
    await broker.tell("AT", replace(outcome, leaf=broker.leaves[number]))
    at = world.machine("AT/ncb")
    outbox = at.outbox()
    alarms = await learn(at, outbox)
    outbox.close()
    return alarms


async def test_a_decision_whose_rows_are_not_those_of_the_leaf_is_refused(world: World) -> None:
    def with_one_hidden(leaf: Leaf, outcome: Outcome) -> tuple[Leaf, Outcome]:
        record = codec.decode(DecisionRecord, outcome.decision)
        secret = Recipient(0, "AT/ncb", 1, delivery_number=9)
        hidden = lay(Lines.numbered((*record.rows, secret)), record.seed, record.depth)
        return replace(leaf, rows=hidden.root), outcome

    assert await put_on_record(world, with_one_hidden) == ["wrong-row"]


@pytest.mark.parametrize(
    "false",
    [
        lambda record: replace(record, depth=0),
        lambda record: replace(record, depth=60),
        # The root commits to the last of those in one place only: the first was given nothing.
        lambda record: replace(record, rows=(replace(record.rows[0], bureau="XX/never-given"), *record.rows)),
    ],
)
async def test_a_decision_whose_rows_fit_into_no_tree_is_refused(
    world: World, false: Callable[[DecisionRecord], DecisionRecord]
) -> None:
    def decided(leaf: Leaf, outcome: Outcome) -> tuple[Leaf, Outcome]:
        decision = codec.encode(false(codec.decode(DecisionRecord, outcome.decision)))
        digest = decision_digest(outcome.decision_salt, decision)
        return replace(leaf, decision=digest), replace(outcome, decision=decision)

    assert await put_on_record(world, decided) == ["wrong-row"]


async def test_a_decision_that_names_recipients_of_a_leaf_without_rows_is_refused(world: World) -> None:
    """Nobody can be given such a leaf: its issuer would be told that they were."""
    assert await put_on_record(world, lambda leaf, outcome: (replace(leaf, rows=None), outcome)) == ["wrong-row"]


async def test_a_decision_that_is_about_no_notice_is_refused(world: World) -> None:
    """Who disowns the notice whose id it bears would find no header there, and nothing of its record be taken in."""

    def about_none(leaf: Leaf, outcome: Outcome) -> tuple[Leaf, Outcome]:
        record = replace(codec.decode(DecisionRecord, outcome.decision), header=b"", rows=())
        decision = codec.encode(record)
        digest = decision_digest(outcome.decision_salt, decision)
        stolen = replace(outcome, decision=decision, notice_id=os.urandom(16))
        return replace(leaf, decision=digest, header_digest=None, rows=None), stolen

    assert await put_on_record(world, about_none) == ["wrong-leaf"]


async def test_a_receipt_that_its_bureau_did_not_sign_is_refused(world: World) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    honest = codec.decode(DecisionRecord, world.broker.routes[0].decision)
    assert honest.rows
    made = forged("LV/ncb", 0, bytes(32), "AT")
    payload = codec.decode(Statement, made).payload
    thief = key_of("GE/ncb")
    stolen = Statement(RECEIPT_TYPE, payload, thief.public.id, thief.sign_payload(RECEIPT_TYPE, payload))
    outcome = world.broker.confirm(codec.encode(stolen))
    await world.broker.seal()
    await world.broker.tell("AT", outcome)
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == ["issuer-key"]
    outbox.close()


def _in_another_federation() -> bytes:
    item = (ReceiptItem(0, bytes(32)),)
    return statement(Receipt("other", "LV/ncb", "AT", "received", item, None, None, 1, NOW), key_of("LV/ncb"))


def _for_another_issuer() -> bytes:
    return forged("LV/ncb", 0, bytes(32), "GE")


def _under_another_type() -> bytes:
    honest = codec.decode(Statement, forged("LV/ncb", 0, bytes(32), "AT"))
    return codec.encode(replace(honest, payload_type=SUBSCRIPTION_TYPE))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_in_another_federation, "other-federation"),
        (_for_another_issuer, "wrong-leaf"),
        (_under_another_type, "wrong-leaf"),
    ],
)
async def test_a_receipt_that_was_meant_for_something_else_answers_nothing(
    world: World, make: Callable[[], bytes], code: str
) -> None:
    (data,) = await world.publish(draft())
    await world.broker.route(data, SHOWS)
    outcome = world.broker.confirm(make())
    await world.broker.seal()
    await world.broker.tell("AT", outcome)
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == [code]
    story = trace(outbox.database, identity(data))
    assert story is not None
    assert story.silent == ("LV/ncb", "GE/ncb")
    outbox.close()


@pytest.mark.parametrize(("about", "alarms"), [(0, []), (1, ["wrong-leaf"]), (None, ["wrong-leaf"])])
async def test_a_repetition_is_of_the_leaf_that_is_on_record_for_it(
    world: World, about: int | None, alarms: list[str]
) -> None:
    (data,) = await world.publish(draft())
    assert await world.broker.route(data, SHOWS) == 0
    digest = header_digest(codec.decode(Envelope, data).header)
    leaf = replace(world.broker._leaf("repeated", "routed", os.urandom(32), digest, None), about=about)
    told = Outcome(
        "repeated", "routed", "", identity(data), "AT/ncb", sha256(data).digest(), 0, (), (), b"", b"", b"",
        world.broker.add(leaf), codec.encode(leaf), "",
    )  # fmt: skip
    await world.broker.seal()
    await world.broker.tell("AT", told)
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == alarms
    outbox.close()


async def test_an_outcome_that_warns_of_what_the_decision_does_not_is_refused(world: World) -> None:
    def warning(leaf: Leaf, outcome: Outcome) -> tuple[Leaf, Outcome]:
        return leaf, replace(outcome, warnings=("glass-broken",))

    assert await put_on_record(world, warning) == ["wrong-leaf"]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("signer", "alarms"), [("AT/ncb", ["key-revoked"]), ("LV/ncb", ["altered"]), ("", ["key-revoked"])]
)
async def test_a_rejection_names_the_key_that_signed(
    world: World, signer: str, alarms: list[str], *, signed: bool
) -> None:
    """Else it could be for a revoked key of another, and right for the auditor. A broker of before names none."""
    (data,) = await world.publish(draft())
    told = world.broker.reject(data, "key-revoked", signed=signed)
    key = key_of(signer).public.id if signer else None
    decision = codec.encode(replace(codec.decode(DecisionRecord, told.decision), key_id=key))
    leaf = replace(codec.decode(Leaf, told.leaf), decision=decision_digest(told.decision_salt, decision))
    world.broker.leaves[told.leaf_number] = codec.encode(leaf)
    await world.broker.seal()
    await world.broker.tell("AT", replace(told, decision=decision, leaf=codec.encode(leaf)))
    outbox = world.machine("AT/ncb").outbox()
    assert await learn(world.machine("AT/ncb"), outbox) == alarms
    outbox.close()
