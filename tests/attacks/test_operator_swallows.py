"""The operator swallows what was sent, and has it stand on record in a leaf of something else."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from broker.notice import BEGUN, DecisionRecord, Envelope
from broker.recheck import Rechecked, Sent
from broker.recorded import key_in
from broker.signing import header_digest
from tests.attacks.bench import Bench, notice
from tests.attacks.test_rejections import bare, copy_of
from tests.attacks.test_review import Books, said
from tests.making import Draft, receipt

pytestmark = pytest.mark.asyncio(loop_scope="module")
AT, LV = "AT/ncb", "LV/ncb"


def told(found: Rechecked) -> list[str]:
    """All that is said, and of what."""
    return [f"{each.place}: {each.what}" for each in found.findings]


@pytest.fixture(scope="module")
def numbers() -> list[int]:
    """Numbers of LV's receipts that were used so far."""
    return [0]


@pytest.mark.parametrize("other", ["a start", "a version", "a statement that came again"])
async def test_the_operator_records_a_notice_as_something_else(shared: Bench, numbers: list[int], other: str) -> None:
    """AT's notice reaches nobody, and AT hears nothing of it; a leaf that is of no notice bears its digest: exit 4
    where AT's outbox says that it was sent."""
    series = os.urandom(8)
    first, second = (notice(AT).numbered(number, series).envelope() for number in (1, 2))
    got = await shared.delivered(first)
    await shared.publish(second)
    answer = receipt(LV, got.delivery.leaf_number, got.leaf.header_digest or b"", "AT", number=numbers[0] + 1)
    numbers[0] += 1
    for _ in range(2):
        await shared.federation.append("receipts.lv", answer)
    await shared.federation.settled()
    books = Books.of(shared)
    number = got.delivery.leaf_number
    kept = {header_digest(first.header): Sent(AT, 1, "AT/outbox.db", series)}
    with books.checked(sent=kept) as (findings, found):
        assert (findings, found.findings) == ([], [])
    leaf, record = books.find(number)
    if other == "a statement that came again":  # in a place behind what it repeats
        books.put(number, replace(leaf, kind="resumed", rows=None, header_digest=None), resumed(leaf.now))
        number = _last(books, "repeated")
        came, its = books.find(number)
        books.put(number, replace(came, header_digest=leaf.header_digest), its)
    else:
        kind = "resumed" if other == "a start" else "adopted"
        books.put(number, replace(leaf, kind=kind, rows=None), replace(bare(record), key_id=None))
    with books.checked(sent=kept) as (_, found):
        assert "notice 1 of AT/ncb: AT/outbox.db sent it, and no leaf records it" in told(found)


@pytest.mark.parametrize("other", ["a start", "a start that holds it", "a notice that came again"])
async def test_the_operator_records_a_receipt_as_something_else(shared: Bench, numbers: list[int], other: str) -> None:
    """AT never hears that LV got its notice; a leaf that is of no receipt says that LV's bytes came: exit 4 where LV's
    inbox says that it was sent."""
    got = await shared.delivered(notice(AT))
    digest, numbers[0] = got.leaf.header_digest or b"", numbers[0] + 2
    first, second = (
        receipt(LV, got.delivery.leaf_number, digest, "AT", number=each) for each in (numbers[0] - 1, numbers[0])
    )
    again = (await shared.publish(got.envelope)).leaf_number
    for each in (first, second):
        await shared.federation.append("receipts.lv", each)
    await shared.federation.settled()
    kept = {sha256(first).digest(): Sent(LV, numbers[0] - 1, "LV/inbox.ncb.db", statement=lambda _: first)}
    books = Books.of(shared)
    with books.checked(sent=kept) as (findings, found):
        assert (findings, found.findings, found.receipts) == ([], [], 1)
    number = _last(books, "receipt") - 1
    leaf, record = books.find(number)
    held = record.statement if other == "a start that holds it" else b""
    false = replace(leaf, kind="resumed", code=None, about=None)
    changed = replace(bare(record), key_id=None, statement=held)
    if other == "a notice that came again":
        repeated, its = books.find(again)
        false, changed = replace(repeated, now=leaf.now), replace(changed, key_id=key_in(its))
    books.put(number, false, changed)
    with books.checked(sent=kept) as (_, found):
        words = f"receipt {numbers[0] - 1} of LV/ncb: LV/inbox.ncb.db sent it, and no leaf records it"
        assert (told(found), found.receipts) == ([words], 0)


def resumed(now: int) -> DecisionRecord:
    """The record of a start."""
    return DecisionRecord("", 0, 0, now, bytes(32))


def _last(books: Books, kind: str) -> int:
    """The last leaf of this kind."""
    return [place for place in range(len(books.entries)) if books.find(place)[0].kind == kind][-1]


async def rejected(shared: Bench, sent: Draft | Envelope, code: str, **changes: Any) -> tuple[Books, int]:
    """A lawful notice that the operator rejects, in a record with these changes; its leaf."""
    number = (await shared.publish(sent)).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    leaf, record = books.find(number)
    false = replace(leaf, kind="rejected", code=code, header_digest=None, about=None, rows=None)
    books.put(number, false, replace(bare(record), **changes))
    return books, number


@pytest.mark.parametrize("code", ["unknown-member", "key-of-another", "other-federation", "stream-of-another"])
async def test_the_operator_does_not_say_for_which_key_he_rejects(shared: Bench, code: str) -> None:
    """What such a code says of the key would be held against the directory: he names none. Exit 4, and nobody need
    bring anything."""
    books, number = await rejected(shared, notice(AT), code, key_id=None)
    with books.checked() as (_, found):
        assert said(found, number) == "does not say under which key it was signed, as leaves before it do"


async def test_the_operator_says_that_a_notice_came_where_none_travels(shared: Bench) -> None:
    """There he would have rejected it as that, and for nothing else: exit 4 where AT's outbox has it."""
    for code, finding in (
        ("bad-signature", "is bad-signature, and what AT/outbox.db kept of it does not travel there"),
        ("unknown-kind", ""),
    ):
        draft = notice(AT)
        sent = draft.envelope()
        books, number = await rejected(shared, sent, code, stream="receipts.at")
        with books.checked(copies=[copy_of(draft, sent)]) as (_, found):
            assert (said(found, number), found.on_word.get(code, 0)) == (finding, 0 if finding else 1)


async def test_the_operator_gives_out_what_he_has_rejected(shared: Bench) -> None:
    """He tells AT that its notice was rejected, for what stays his word; later LV is given it behind AT's back, and AT,
    for whom it never was, cannot end it. Exit 4, and nobody need bring anything."""
    before = (await shared.publish(replace(notice(AT).envelope(), signature=bytes(64)))).leaf_number
    number = (await shared.publish(notice(AT))).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    leaf, record = books.find(number)
    told, _ = books.find(before)
    books.put(before, replace(told, code="invalid-field", header_digest=leaf.header_digest), bare(record))
    with books.checked() as (_, found):
        assert said(found, number) == f"takes in the notice that leaf {before} had rejected"
    lost, its = books.find(before - 1)
    books.put(before - 1, replace(lost, kind=BEGUN, code=None, header_digest=None, about=None, rows=None), bare(its))
    with books.checked() as (_, found):
        assert said(found, number) == ""
