"""Somebody withdraws by order who may not, or the operator invents an order, or keeps one from whom it concerns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker import codec
from broker.notice import Envelope, Header, Leaf
from broker.signing import header_digest
from tests.attacks.bench import AUTHORITY, Bench, notice
from tests.attacks.scene import ALL, Scene
from tests.attacks.test_review import Books, said, signed_as
from tests.making import Draft, reference
from tests.member.conftest import draft

pytestmark = pytest.mark.asyncio(loop_scope="module")


def order(of: Envelope, record: str, issuer: str = AUTHORITY) -> Draft:
    """The end of another's notice."""
    made = notice(issuer, kind="withdrawal", parts=("reason",))
    return made.but(references=(reference(of, "withdraws"),), record=record, version=2)


async def ended(shared: Bench) -> int:
    """Have an authority end a notice of AT's; give the leaf of its order."""
    made = notice("AT/ncb").but(record="ended-by-order" + str(len(await shared.federation.leaves())))
    got = await shared.delivered(made)
    outcome = await shared.publish(order(got.envelope, got.header.record))
    assert outcome.kind == "routed"
    await shared.federation.settled()
    return outcome.leaf_number


async def test_an_honest_order_is_called_honest(shared: Bench) -> None:
    """The stories below would mean nothing if this did not hold."""
    number = await ended(shared)
    books = Books.of(shared)
    assert books.find(number + 1)[0].kind == "withdrawn-by-order"
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])


async def test_the_operator_records_an_order_and_ends_nothing(shared: Bench) -> None:
    """No leaf says that AT's notice has ended by it: exit 4."""
    number = await ended(shared)
    books = Books.of(shared)
    del books.entries[number + 1 :]
    with books.checked() as (_, found):
        assert said(found, number) == "is the word on which a notice is withdrawn-by-order, and none is"


async def test_the_operator_tells_an_issuer_of_an_order_that_nobody_gave(shared: Bench) -> None:
    """He records the end of AT's notice with no order before it; then after an ordinary notice: exit 4."""
    number = await ended(shared)
    books = Books.of(shared)
    leaf, record = books.find(number + 1)
    books.entries.append(replace(books.entries[number + 1], leaf_number=len(books.entries)))
    with books.checked() as (findings, _):
        assert "is withdrawn-by-order without the word that says so before it" in findings
    books.entries.pop()
    kinds = [codec.decode(Leaf, each.leaf).kind for each in books.entries]
    ordinary, other = books.find(kinds.index("routed"))
    books.put(number, replace(ordinary, about=leaf.about, now=leaf.now), other)
    with books.checked() as (_, found):
        assert "is withdrawn-by-order, and nobody has ordered it" in said(found, number + 1)
    assert record.header


async def test_the_operator_lets_anybody_order(shared: Bench) -> None:
    """He takes in RU's withdrawal of AT's notice as if RU were an authority: exit 4, and no collector obeys (below)."""
    number = await ended(shared)
    books = Books.of(shared)
    leaf, record = books.find(number)
    sent = order(notice("AT/ncb").envelope(), "any", "RU/ncb").envelope()
    about = codec.decode(Leaf, books.entries[leaf.about or 0].leaf)
    assert about.header_digest
    books.put(number, replace(leaf, header_digest=header_digest(sent.header)), signed_as(record, sent))
    with books.checked() as (_, found):
        assert "withdraws another's notice, and RU/ncb is no authority" in said(found, number)


async def test_the_operator_keeps_an_order_from_whose_notice_it_ends(shared: Bench) -> None:
    """He strikes AT from those who get the order, so that AT believes its notice stands: exit 4."""
    number = await ended(shared)
    books = Books.of(shared)
    leaf, record = books.find(number)
    rows = tuple(each for each in record.rows if each.bureau != "AT/ncb")
    assert len(rows) == len(record.rows) - 1
    mask = sum(1 << each.index for each in rows)
    terms = replace(record.terms, allowed=mask, audience=mask, reached=mask)
    books.put(number, leaf, replace(record, rows=rows, terms=terms))
    with books.checked() as (_, found):
        assert "does not tell AT/ncb" in said(found, number)


async def test_the_operator_has_an_order_end_another_record(shared: Bench) -> None:
    """He records it as the end of a corrected notice of AT's that LV does not hold, and says that this came of the one
    that is named; so LV keeps it. What a correction corrects is signed: exit 4."""
    got = await shared.delivered(notice("AT/ncb"))
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    record = codec.decode(Header, first.header).record
    second = notice("AT/ncb", "GE/ncb").but(record=record, version=2, references=(reference(first, "corrects"),))
    other = (await shared.delivered(second, "GE/ncb")).delivery.leaf_number
    outcome = await shared.publish(order(got.envelope, got.header.record))
    await shared.federation.settled()
    books = Books.of(shared)
    for number, about in ((other, got.delivery.leaf_number), (outcome.leaf_number, other)):
        leaf, decision = books.find(number)
        books.put(number, replace(leaf, about=about), decision)
    with books.checked() as (_, found):
        assert "does not say that it ends the notice of leaf" in said(found, outcome.leaf_number)


async def test_a_member_poses_as_an_authority_and_the_operator_helps(scene: Scene) -> None:
    """GE signs the withdrawal of AT's notice and the operator delivers it to LV with the order to erase. Only an
    authority of the signed directory may: `unrelated`, and LV keeps what it has."""
    (first,) = await scene.publish(draft("R-1"))
    await scene.operator.route(first, {"LV/ncb": ALL})
    end = order(codec.decode(Envelope, first), "R-1", "GE/ncb").envelope()
    await scene.operator.route(codec.encode(end), {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    assert (await scene.collect()).alarms == ["unrelated"]
    assert scene.body(1) is not None
