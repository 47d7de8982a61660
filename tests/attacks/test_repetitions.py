"""The operator answers what comes a second time; the auditor knows what became of it the first time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker import codec
from broker.notice import BEGUN, Envelope, Header
from tests.attacks.bench import Bench, notice
from tests.attacks.test_holders import corrected, ended
from tests.attacks.test_order import order
from tests.attacks.test_rejections import bare
from tests.attacks.test_review import Books, approval, said
from tests.making import reference

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def again(shared: Bench, state: str) -> tuple[int, int]:
    """Have a notice of AT's come to this, and come once more; give the leaves of both."""
    first = (
        notice("AT/ncb").but(topics=("wanted.red",)) if state in ("held", "refused", "released") else notice("AT/ncb")
    )
    envelope = (replace(first, routing=replace(first.routing, number=0)) if state == "rejected" else first).envelope()
    at = (await shared.publish(envelope)).leaf_number
    if state in ("refused", "released"):
        await shared.publish(approval(envelope, verdict="refuse" if state == "refused" else "release"))
    if state in ("restricted", "withdrawn"):
        await shared.publish(ended(envelope, "withdrawal" if state == "withdrawn" else "restriction"))
    if state == "replaced":
        await shared.publish(corrected(envelope))
    outcome = await shared.publish(envelope)
    assert outcome.kind == "repeated"
    return at, outcome.leaf_number


@pytest.mark.parametrize(
    ("state", "told", "false"),
    [
        ("routed", "routed", "withdrawn"),
        ("held", "held", "routed"),
        ("released", "routed", "held"),
        ("refused", "refused", "routed"),
        ("restricted", "restricted", "routed"),
        ("replaced", "replaced", None),
        ("withdrawn", "withdrawn", "routed"),
        ("rejected", "refused", "routed"),
    ],
)
async def test_the_operator_answers_a_repetition_with_another_outcome_than_stands(
    shared: Bench, state: str, told: str, false: str | None
) -> None:
    """AT lost the first outcome and sent the same once more. He says that what he rejected, or withdrew, is live; or
    that it never was: exit 4."""
    at, number = await again(shared, state)
    await shared.federation.settled()
    books = Books.of(shared)
    leaf, record = books.find(number)
    assert (leaf.code, leaf.about) == (told, at)
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    books.put(number, replace(leaf, code=false), record)
    with books.checked() as (_, found):
        assert said(found, number).startswith(f"says that the notice of leaf {at} is {false}, and it is {told}")


async def test_a_withdrawal_that_came_before_its_notice_and_twice_is_no_lie(shared: Bench) -> None:
    """What a second one names is on record as the first: that is still called routed. Nor is what its issuer sent under
    the id that it had withdrawn under other bytes: it is called withdrawn, though it was rejected."""
    early, other = notice("AT/ncb").envelope(), notice("AT/ncb").envelope()
    once, twice = (ended(early).envelope() for _ in range(2))
    assert [(await shared.publish(each)).kind for each in (once, twice, once)] == ["routed", "routed", "repeated"]
    assert (await shared.publish(early)).code == "already-withdrawn"
    named = replace(reference(other, "withdraws"), header_digest=bytes(32))
    assert (await shared.publish(ended(other).but(references=(named,)))).kind == "routed"
    rejected, same = [await shared.publish(other) for _ in range(2)]
    assert (rejected.code, same.kind, same.code) == ("id-reused", "repeated", "withdrawn")
    await shared.federation.settled()
    with Books.of(shared).checked() as (findings, found):
        assert (findings, found.findings) == ([], [])


async def test_the_operator_calls_nothing_at_all_a_repetition(shared: Bench) -> None:
    """AT's notice reaches nobody, in a leaf that says of which it is; or it is one of another repetition: exit 4."""
    _, number = await again(shared, "routed")
    assert (await shared.publish(replace(notice("AT/ncb").envelope(), signature=bytes(64)))).code == "bad-signature"
    new = (await shared.publish(notice("AT/ncb"))).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    leaf, record = books.find(number)
    for false in (replace(leaf, header_digest=None, about=number - 1), replace(leaf, header_digest=None, about=None)):
        books.put(new, false, replace(record, key_id=None))
        with books.checked() as (_, found):
            assert "is called repeated, and no such notice is on record before it" in said(found, new)
    (rejected,) = [each for each in await shared.federation.leaves() if each.code == "bad-signature"]
    unnamed = (await shared.federation.leaves()).index(rejected)
    books.put(new, replace(leaf, header_digest=None, about=unnamed), replace(record, key_id=None))
    with books.checked() as (_, found):
        assert "is called repeated, and no such notice is on record before it" in said(found, new)
    books.put(new, replace(leaf, about=number), record)
    with books.checked() as (_, found):
        assert said(found, new) == "is called repeated, and no such notice is on record before it"


async def test_where_leaves_were_lost_what_became_of_a_notice_may_be_lost_with_them(shared: Bench) -> None:
    """Its withdrawal need not be among what is left: nobody is accused."""
    _, number = await again(shared, "routed")
    await shared.federation.settled()
    books = Books.of(shared)
    (leaf, record), (before, other) = books.find(number), books.find(number - 1)
    books.entries.insert(number, replace(books.entries[number - 1], leaf_number=number))
    books.put(number, replace(before, kind=BEGUN, header_digest=None, about=None, rows=None), bare(other))
    books.entries[number + 1 :] = [replace(books.entries[number + 1], leaf_number=number + 1)]
    books.put(number + 1, replace(leaf, code="withdrawn"), record)
    with books.checked() as (_, found):
        assert said(found, number + 1) == ""


@pytest.mark.parametrize("state", ["restricted", "released"])
async def test_the_operator_has_an_order_end_nothing_of_what_was_changed_before(shared: Bench, state: str) -> None:
    """AT's notice stands, restricted or released. He takes in the authority's order, and AT hears nothing: exit 4."""
    at, _ = await again(shared, state)
    envelope = codec.decode(Envelope, (await shared.federation.bus.read("notices.at", 0))[-1].value or b"")
    end = (await shared.publish(order(envelope, codec.decode(Header, envelope.header).record))).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    assert books.find(end)[0].about == at
    with books.checked() as (_, found):
        assert said(found, end) == ""
    del books.entries[end + 1 :]
    with books.checked() as (_, found):
        assert said(found, end) == "is the word on which a notice is withdrawn-by-order, and none is"
