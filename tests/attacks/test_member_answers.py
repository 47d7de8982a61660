"""A member says of notices what is not so: that it had them, or that it never did."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters import doubts
from broker import codec
from broker.notice import RECEIPT_TYPE, Envelope, Receipt, ReceiptItem, Revocation, Statement
from broker.signing import header_digest, pae
from tests.attacks.bench import Bench, notice
from tests.attacks.scene import ALL, Scene
from tests.federation import Opened
from tests.making import FEDERATION, NOW, key_of, statement
from tests.member.conftest import draft

shared_loop = pytest.mark.asyncio(loop_scope="module")


def answer(got: Opened, bureau: str, **changes: object) -> bytes:
    """What a bureau says of a delivery, with its own key."""
    digest = header_digest(got.envelope.header)
    made = Receipt(
        FEDERATION, bureau, "AT", "received", (ReceiptItem(got.delivery.leaf_number, digest),), None, None, 1, NOW
    )
    return statement(replace(made, **changes), key_of(bureau))  # type: ignore[arg-type] # by name


@shared_loop
async def test_a_member_confirms_what_it_was_never_given(shared: Bench) -> None:
    """RU signs a receipt for LV's delivery, to seem to be among the recipients: `unknown-delivery`; AT is not told."""
    got = await shared.delivered(notice("AT/ncb"))
    told = len(await shared.federation.outcomes("AT"))
    assert (await shared.put("RU", answer(got, "RU/ncb"), "receipts")).code == "unknown-delivery"
    assert len(await shared.federation.outcomes("AT")) == told


@shared_loop
async def test_a_member_confirms_in_anothers_name(shared: Bench) -> None:
    """RU signs with its own key that LV has read it, on its own stream and on LV's: refused, `key-of-another`."""
    got = await shared.delivered(notice("AT/ncb"))
    payload = codec.encode(replace(_said(answer(got, "LV/ncb")), act="read"))
    key = key_of("RU/ncb")
    false = codec.encode(Statement(RECEIPT_TYPE, payload, key.public.id, key.sign_payload(RECEIPT_TYPE, payload)))
    for member in ("RU", "LV"):
        assert (await shared.put(member, false, "receipts")).code == "key-of-another"


@shared_loop
@pytest.mark.parametrize(
    "changed",
    [
        {"items": (ReceiptItem(0, bytes(32)),)},
        {"items": (ReceiptItem(10_000, bytes(32)),)},
        {"issuer_member": "RU"},
    ],
    ids=["another leaf", "no leaf", "another issuer"],
)
async def test_a_member_confirms_something_else_than_it_was_given(shared: Bench, changed: dict[str, object]) -> None:
    """LV bends its receipt to another leaf, another digest or another issuer: `unknown-delivery`."""
    got = await shared.delivered(notice("AT/ncb"))
    assert (await shared.put("LV", answer(got, "LV/ncb", number=50, **changed), "receipts")).code == "unknown-delivery"


@shared_loop
async def test_a_member_says_erased_without_saying_what_became_of_it(shared: Bench) -> None:
    """An answer to a withdrawal is `erased` or `kept-under-national-law`. Nothing in between: `invalid-field`."""
    got = await shared.delivered(notice("AT/ncb"))
    for result in (None, "perhaps"):
        false = answer(got, "LV/ncb", act="erased", result=result, number=60)
        assert (await shared.put("LV", false, "receipts")).code == "invalid-field"


@shared_loop
async def test_a_member_replays_a_receipt(shared: Bench) -> None:
    """Somebody puts LV's receipt on its stream a second time. AT is told once; the second leaf says `repeated`."""
    got = await shared.delivered(notice("AT/ncb"))
    sent = answer(got, "LV/ncb", number=70)
    told = len(await shared.federation.outcomes("AT"))
    for _ in range(2):
        await shared.federation.append("receipts.lv", sent)
    await shared.federation.settled()
    kinds = [each.kind for each in (await shared.federation.outcomes("AT"))[told:]]
    assert kinds.count("receipt") == 1
    assert "repeated" in [each.kind for each in (await shared.federation.leaves())[-3:]]


@shared_loop
async def test_a_member_hands_its_receipt_in_as_a_notice(shared: Bench) -> None:
    """LV puts a receipt on its stream of notices, where nobody looks for one: `stream-of-another`."""
    got = await shared.delivered(notice("AT/ncb"))
    assert (await shared.put("LV", answer(got, "LV/ncb", number=80))).code == "stream-of-another"


async def test_a_member_claims_that_it_never_received(scene: Scene) -> None:
    """LV took it in, and says that nothing came. AT holds what LV's collector signed, leaf and header by digest, and
    anybody can check it with LV's public key."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    await scene.confirm((await scene.receipts())[-1])
    reached = (await scene.story(data)).reached[0]
    assert (reached.bureau, reached.at("received")) == ("LV/ncb", NOW)
    outbox = scene.home("AT/ncb").outbox()
    (kept,) = outbox.database.execute("SELECT statement FROM outcomes WHERE kind = 'receipt'").fetchone()
    outbox.close()
    signed = codec.decode(Statement, kept)
    key_of("LV/ncb").public.check(signed.signature, pae(RECEIPT_TYPE, signed.payload))
    assert _said(kept).items[0].header_digest == header_digest(codec.decode(Envelope, data).header)


async def test_a_member_never_answers(scene: Scene) -> None:
    """LV takes it in and keeps its receipts back. AT's trace names LV as silent, with its delivery number."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL, "GE/ncb": ALL})
    await scene.collect()
    await scene.collect("GE/ncb")
    await scene.confirm((await scene.receipts("GE"))[-1])
    story = await scene.story(data)
    assert story.silent == ("LV/ncb",)
    assert story.reached[0].delivery_number == 1


async def test_a_member_denies_its_receipt_by_calling_its_key_stolen(scene: Scene) -> None:
    """It must revoke the key, signed and on record, from before the receipt on: all are told, AT lists the receipt as
    in doubt, and every notice that LV signed since is in doubt with it."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    await scene.confirm((await scene.receipts())[-1])
    key = key_of("LV/ncb")
    value = statement(Revocation(FEDERATION, "LV/ncb", key.public.id, "stolen", NOW, NOW - 1), key)
    before = await scene.learn()
    await scene.revoke(value, "AT")
    assert await scene.learn() == [*before, "key-revoked"]
    outbox = scene.home("AT/ncb").outbox()
    (found,) = doubts.revocations(outbox.database, scene.home("AT/ncb").versions.directory)
    assert [(each.bureau, each.act) for each in doubts.answered(outbox.database, found)] == [("LV/ncb", "received")]
    outbox.close()


async def test_an_officer_reads_and_pulls_the_plug(scene: Scene) -> None:
    """He opens LV's delivery and kills the machine before the receipt leaves. It was signed and kept before anything
    was shown: the next run sends it."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    lv = scene.home("LV/ncb")
    inbox = lv.inbox()
    assert lv.collector(inbox).read(1, "case 17/26") is not None
    inbox.close()
    assert [_said(each).act for each in await scene.receipts()] == ["received"]
    await scene.collect()
    assert [_said(each).act for each in await scene.receipts()] == ["received", "read"]


def _said(data: bytes) -> Receipt:
    return codec.decode(Receipt, codec.decode(Statement, data).payload)
