"""The operator bends what bureaus say in signed statements; the auditor follows each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

import pytest
import pytest_asyncio

from broker import codec
from broker.notice import LOOK_TYPE, DecisionRecord, Leaf, Look, Revocation, Statement
from tests.attacks.bench import Bench, notice
from tests.attacks.test_review import Books, said
from tests.making import FEDERATION, NOW, key_of, receipt, statement, subscription

pytestmark = pytest.mark.asyncio(loop_scope="module")
LV = "LV/ncb"


@dataclass
class Told:
    """The leaves of what was said: AT's notice, LV's receipt for it, its two subscriptions, RU's revocation."""

    notice: int
    receipt: int
    first: int
    second: int
    revocation: int


def revocation(bureau: str, generation: int) -> bytes:
    """A bureau takes one of its keys out of force, with the other one."""
    made = Revocation(FEDERATION, bureau, key_of(bureau, generation).public.id, "lost", NOW)
    return statement(made, key_of(bureau))


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    """Numbers that were used so far: all tests share one broker."""
    return {"receipt": 0, "subscription": 0}


@pytest_asyncio.fixture(loop_scope="module")
async def told(shared: Bench, numbers: dict[str, int]) -> Told:
    """Have all of it on record, and each of it once more."""
    got = await shared.delivered(notice("AT/ncb"))
    numbers["receipt"] += 1
    numbers["subscription"] += 2
    answer = receipt(LV, got.delivery.leaf_number, got.leaf.header_digest or b"", "AT", number=numbers["receipt"])
    older, newer = (
        subscription(LV, topic, number=numbers["subscription"] - back) for topic, back in (("a", 1), ("b", 0))
    )
    revoked = revocation("AT/ncb", 1)
    await shared.federation.append("receipts.lv", answer)
    await shared.put("LV", older)
    await shared.put("LV", newer)
    for again in (newer, revoked, revoked):
        await shared.federation.append("notices.lv" if again == newer else "notices.at", again)
    await shared.federation.append("receipts.lv", answer)
    await shared.publish(got.envelope)
    await shared.federation.settled()
    kinds = [leaf.kind for leaf in await shared.federation.leaves()]

    def last(kind: str, back: int = 1) -> int:
        return [number for number, each in enumerate(kinds) if each == kind][-back]

    return Told(got.delivery.leaf_number, last("receipt"), last("subscribed", 2), last("subscribed"), last("revoked"))


async def test_what_an_honest_broker_records_of_statements_is_called_honest(shared: Bench, told: Told) -> None:
    """The stories below would mean nothing if this did not hold; nor is anything said of what came twice."""
    books = Books.of(shared)
    assert [codec.decode(Leaf, each.leaf).kind for each in books.entries].count("repeated") >= 4
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    assert told.receipt > told.notice


def forged(record: DecisionRecord) -> DecisionRecord:
    """The same statement under a signature of the operator's."""
    made = codec.decode(Statement, record.statement)
    key = key_of("the operator's own")
    signature = key.sign_payload(made.payload_type, made.payload)
    return replace(record, statement=codec.encode(replace(made, signature=signature)))


async def test_the_operator_calls_a_new_receipt_repeated(shared: Bench, told: Told) -> None:
    """It is on record, and AT hears nothing of it: exit 4, though nobody brings LV's own copy."""
    books = Books.of(shared)
    leaf, record = books.find(told.receipt)
    books.put(told.receipt, replace(leaf, kind="repeated", code=None, about=None), record)
    with books.checked() as (_, found):
        assert said(found, told.receipt) == "is called repeated, and no such receipt is on record before it"


async def test_the_operator_calls_a_notice_a_receipt_that_came_again(shared: Bench, told: Told) -> None:
    """A new notice of AT's reaches nobody: the leaf holds LV's receipt, which is on record before it. Exit 4."""
    number = (await shared.publish(notice("AT/ncb"))).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    (leaf, record), (_, before) = books.find(number), books.find(told.receipt)
    false = replace(leaf, kind="repeated", code=None, header_digest=None, about=None, rows=None)
    bare = DecisionRecord(record.stream, record.partition, record.offset, record.at, record.record_digest)
    books.put(number, false, replace(bare, statement=before.statement))
    with books.checked() as (_, found):
        assert said(found, number) == "holds another statement than what came"


async def test_the_operator_invents_a_receipt(shared: Bench, told: Told) -> None:
    """LV signed nothing of it. Or it did, and said something else, of another notice, or once only: exit 4."""
    books = Books.of(shared)
    leaf, record = books.find(told.receipt)
    books.put(told.receipt, leaf, forged(record))
    with books.checked() as (_, found):
        assert said(found, told.receipt) == "the receipt of LV/ncb was not signed by it"
    for false in (replace(leaf, code="erased"), replace(leaf, about=told.notice - 1)):
        books.put(told.receipt, false, record)
        with books.checked() as (_, found):
            assert said(found, told.receipt) == "says something else than the receipt of LV/ncb that it records"
    books.put(told.receipt, leaf, record)
    with copied(books, told.receipt).checked() as (_, found):
        assert "whose number is not free" in said(found, len(books.entries) - 1)


def copied(books: Books, number: int) -> Books:
    """Record a leaf once more at the end."""
    leaf, record = books.find(number)
    at, (last, _) = len(books.entries), books.find(len(books.entries) - 1)
    books.entries.append(replace(books.entries[number], leaf_number=at))
    books.put(at, replace(leaf, now=last.now), record)
    return books


async def test_the_operator_records_a_receipt_before_it_was_signed(shared: Bench, told: Told) -> None:
    """He backdates the leaf as far as the one before lets him. LV wrote the time into what it signed: exit 4."""
    books = Books.of(shared)
    del books.entries[told.receipt + 1 :]
    leaf, record = books.find(told.receipt)
    books.put(told.receipt, replace(leaf, now=NOW - 3_600_000), record)
    with books.checked() as (_, found):
        assert said(found, told.receipt) == "is older than the receipt that it records"


async def test_the_operator_puts_a_subscription_of_before_in_the_place_of_the_last(shared: Bench, told: Told) -> None:
    """LV signed it, and another one since: exit 4. So it is where the last one is called a repetition of it."""
    books = Books.of(shared)
    with copied(books, told.first).checked() as (_, found):
        assert said(found, len(books.entries) - 1) == (
            "puts an older subscription of LV/ncb in the place of its last one"
        )
    books = Books.of(shared)
    leaf, record = books.find(told.second)
    books.put(told.second, replace(leaf, kind="repeated"), record)
    with books.checked() as (_, found):
        assert said(found, told.second) == "is called repeated, and no such subscription is on record before it"


async def test_the_operator_leaves_a_key_in_force_that_was_revoked(shared: Bench, told: Told) -> None:
    """He calls AT's revocation a repetition: exit 4."""
    books = Books.of(shared)
    for number in range(told.revocation + 1):
        leaf, record = books.find(number)
        if leaf.kind == "revoked":
            books.put(number, replace(leaf, kind="repeated"), record)
    with books.checked() as (_, found):
        assert said(found, told.revocation) == "is called repeated, and no such revocation is on record before it"


async def test_the_operator_answers_by_a_key_that_its_bureau_has_revoked(shared: Bench, told: Told) -> None:
    """The thief of LV's second key signs a receipt after LV has revoked it, and the operator takes it: exit 4."""
    books = Books.of(shared)
    leaf, record = books.find(told.receipt)
    revoked = replace(record, stream="notices.lv", statement=revocation(LV, 1))
    books.put(told.first, replace(books.find(told.first)[0], kind="revoked", code=None), revoked)
    made = codec.decode(Statement, record.statement)
    stolen = key_of(LV, 1)
    signature = stolen.sign_payload(made.payload_type, made.payload)
    by_thief = replace(made, key_id=stolen.public.id, signature=signature)
    books.put(
        told.second,
        replace(leaf, now=books.find(told.second)[0].now),
        replace(record, statement=codec.encode(by_thief)),
    )
    books.put(
        told.receipt,
        replace(books.find(told.notice)[0], kind="resumed", header_digest=None, rows=None),
        DecisionRecord("", 0, 0, NOW, b""),
    )
    with books.checked() as (_, found):
        assert said(found, told.second) == "the receipt of LV/ncb was not signed by it"


async def test_the_operator_calls_a_notice_a_repetition_of_another(shared: Bench, told: Told) -> None:
    """AT's second notice reaches nobody, as if it had come before: exit 4, though nobody brings AT's own copy."""
    number = (await shared.publish(notice("AT/ncb"))).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    leaf, record = books.find(number)
    for about in (told.notice, None):
        false = replace(leaf, kind="repeated", code="routed", about=about, rows=None)
        again = DecisionRecord(record.stream, 0, 0, record.at, record.record_digest, key_id=record.key_id)
        books.put(number, false, again)
        with books.checked() as (_, found):
            assert said(found, number) == "is called repeated, and no such notice is on record before it"


@pytest.mark.parametrize("member", ["AT", "RU"])
async def test_the_operator_and_an_auditor_have_another_member_told_of_a_look(
    shared: Bench, told: Told, member: str
) -> None:
    """The auditor names RU as the issuer of what it looks at, so that AT hears nothing of it: exit 4."""
    books = Books.of(shared)
    leaf, record = books.find(told.receipt)
    payload = codec.encode(Look(FEDERATION, "auditor-1", bytes(16), member, (told.notice,), "case 1", NOW))
    look = codec.encode(Statement(LOOK_TYPE, payload, bytes(32), bytes(64)))
    asked = replace(record, stream="asks", statement=look, record_digest=sha256(look).digest())
    books.put(told.receipt, replace(leaf, kind="look", code=None), asked)
    with books.checked(lambda _: None) as (_, found):
        finding = f"looks at leaf {told.notice}, which is no notice of RU, who is told of it"
        assert said(found, told.receipt) == ("" if member == "AT" else finding)
