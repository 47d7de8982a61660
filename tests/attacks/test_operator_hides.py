"""The operator drops, delays, reorders or denies what he should have carried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker import codec
from broker.notice import RECEIPT_TYPE, Envelope, Leaf, Receipt, ReceiptItem, Shared, Statement
from broker.signing import header_digest
from tests.attacks.scene import ALL, Scene, leaf_but, same
from tests.honest_broker import LOG_KEY
from tests.making import FEDERATION, NOW, key_of, receipt
from tests.member.conftest import draft

HOUR = 3_600_000


async def test_the_operator_drops_a_delivery(scene: Scene) -> None:
    """He keeps a delivery from LV. The next one's number shows it (alarm `gap`), and AT's trace names LV as silent."""
    lost, came = await scene.publish(draft("R-1"), draft("R-2"))
    operator = scene.operator
    dropped, delivered = operator.record(lost, {"LV/ncb": ALL}), operator.record(came, {"LV/ncb": ALL})
    await operator.seal()
    outcome = operator.routes[dropped].outcome
    assert outcome is not None
    await operator.tell("AT", outcome)
    await operator.deliver(delivered)
    seen = await scene.collect()
    assert (seen.records, seen.alarms, seen.missing) == (["R-2"], ["gap"], 1)
    assert (await scene.story(lost)).silent == ("LV/ncb",)


async def test_the_operator_drops_the_last_delivery(scene: Scene) -> None:
    """No later number shows the gap at LV; AT's trace says that LV was to have it and has signed nothing."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ALL})
    await operator.seal()
    outcome = operator.routes[number].outcome
    assert outcome is not None
    await operator.tell("AT", outcome)
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], [])
    assert (await scene.story(data)).silent == ("LV/ncb",)


async def test_the_operator_drops_a_notice(scene: Scene) -> None:
    """He never records R-1 and carries R-2 on. AT's trace says of R-1 that it was sent and never decided."""
    dropped, carried = await scene.publish(draft("R-1"), draft("R-2"))
    await scene.operator.route(carried, {"LV/ncb": ALL})
    story, other = await scene.story(dropped), await scene.story(carried)
    assert (story.outcome, story.reached, other.outcome) == (None, (), "routed")
    assert story.sent_at is not None


async def test_the_operator_rejects_an_honest_notice(scene: Scene) -> None:
    """He must tell AT a reason, in a leaf. AT is alarmed with the code, and holds the proof that it is untrue."""
    (data,) = await scene.publish(draft())
    outcome = scene.operator.reject(data, "unknown-purpose")
    await scene.operator.seal()
    await scene.operator.tell("AT", outcome)
    assert await scene.learn() == ["unknown-purpose"]
    assert (await scene.story(data)).outcome == "rejected"


async def test_the_operator_calls_a_new_notice_a_repetition(scene: Scene) -> None:
    """He records R-2 as a copy of what he took in before and delivers it to nobody. AT was never told of such a
    leaf: alarm `wrong-leaf`, and the trace still says that R-2 is not decided."""
    first, second = await scene.publish(draft("R-1"), draft("R-2"))
    operator = scene.operator
    original = await operator.route(first, {"LV/ncb": ALL})
    digest = header_digest(codec.decode(Envelope, second).header)
    outcome = operator.reject(second, "routed")
    leaf = operator.leaves[outcome.leaf_number] = leaf_but(
        operator.leaves[outcome.leaf_number], kind="repeated", code="routed", header_digest=digest, about=original
    )
    await operator.seal()
    await operator.tell("AT", replace(outcome, kind="repeated", code="routed", original=original, leaf=leaf))
    assert await scene.learn() == ["wrong-leaf"]
    assert (await scene.story(second)).outcome is None


async def test_the_operator_delays_a_delivery_past_its_end(scene: Scene) -> None:
    """He records a notice in time and hands it over when it has run out, with nothing open. LV sees when it was
    recorded and what it should have been shown, and AT when LV's receipt came."""
    (data,) = await scene.publish(draft(expires=NOW + HOUR))
    number = scene.operator.record(data, {"LV/ncb": ALL})
    await scene.operator.seal()
    late = scene.delivery(number, expired=True)
    lv = scene.home("LV/ncb")
    lv.now = NOW + 2 * HOUR
    await scene.put("LV/ncb", late)
    seen = await scene.collect()
    assert (seen.records, scene.body(1)) == (["R-1"], {})
    recorded = codec.decode(Leaf, codec.decode(Shared, late.shared).leaf).now
    inbox = lv.inbox()
    line = inbox.line(1)
    inbox.close()
    assert line is not None
    assert recorded < NOW + HOUR < line.taken_at


async def test_the_operator_reorders_deliveries(scene: Scene) -> None:
    """He hands the correction over before what it corrects. The gap shows at once; the old body never appears."""
    (first,) = await scene.publish(draft())
    (second,) = await scene.publish(draft(action_sought="arrest"))
    operator = scene.operator
    one = operator.record(first, {"LV/ncb": ALL})
    two = operator.record(second, {"LV/ncb": ALL}, {"LV/ncb": ("replaces", 1)})
    await operator.seal()
    await scene.hand(two, same)
    await scene.hand(one, same)
    seen = await scene.collect()
    assert (seen.alarms, seen.missing) == (["gap"], 0)
    assert scene.body(1) is None
    assert scene.body(2) is not None


async def test_the_operator_suppresses_a_withdrawal(scene: Scene) -> None:
    """He never records it. AT's trace says that the withdrawal is not decided; LV has erased nothing and says so."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    withdrawal = await scene.withdraw("R-1")
    await scene.collect()
    assert (await scene.story(withdrawal)).outcome is None


async def test_the_operator_records_a_withdrawal_and_tells_no_holder(scene: Scene) -> None:
    """He records it as one that reaches nobody. AT knows who was given the notice: its trace names LV as silent,
    with the alarm `holders-not-told`."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL, "GE/ncb": ALL})
    withdrawal = await scene.withdraw("R-1")
    await scene.operator.route(withdrawal, {"GE/ncb": ("reason",)}, {"GE/ncb": ("erases", 1)})
    assert await scene.learn() == ["holders-not-told"]
    assert (await scene.story(withdrawal)).silent == ("GE/ncb", "LV/ncb")


async def test_the_operator_strips_a_withdrawal_of_its_order(scene: Scene) -> None:
    """He hands AT's withdrawal over without the numbers that it erases, so that LV would answer `erased` and keep the
    body. LV's collector knows itself which deliveries are of that record: the body goes."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    await scene.operator.route(await scene.withdraw("R-1"), {"LV/ncb": ("reason",)})
    assert (await scene.collect()).alarms == []
    assert scene.body(1) is None
    erased = codec.decode(Receipt, codec.decode(Statement, (await scene.receipts())[-1]).payload)
    assert (erased.act, [each.leaf_number for each in erased.items]) == ("erased", [1, 0])


async def test_the_operator_delivers_after_the_withdrawal_what_it_withdrew(scene: Scene) -> None:
    """He keeps the notice back until its withdrawal, stripped of its order, is there. It comes without a body."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    one = operator.record(data, {"LV/ncb": ALL})
    two = operator.record(await scene.withdraw("R-1"), {"LV/ncb": ("reason",)})
    await operator.seal()
    await scene.hand(two, same)
    await scene.hand(one, same)
    assert (await scene.collect()).records == ["R-1", "R-1"]
    assert scene.body(1) is None


async def test_the_operator_leaves_the_old_version_beside_the_new(scene: Scene) -> None:
    """He strips a correction of the number that it replaces, so that officers go on with the old name. LV's collector
    takes the old body away all the same."""
    (first,) = await scene.publish(draft())
    (second,) = await scene.publish(draft(action_sought="arrest"))
    for data in (first, second):
        await scene.operator.route(data, {"LV/ncb": ALL})
        await scene.collect()
    assert (scene.body(1), scene.body(2) is None) == (None, False)


async def versions(scene: Scene, last: int = 3) -> list[bytes]:
    """Versions 1 to `last` of R-1, as AT put them on the bus."""
    return [(await scene.publish(draft(action_sought=f"act {each}")))[0] for each in range(1, last + 1)]


async def test_the_operator_records_the_old_version_after_the_new(scene: Scene) -> None:
    """He keeps the first version back until the third is on record; the second LV never gets. What AT signed says
    which is older: the first comes without its body, and officers go on with the third."""
    first, _, third = await versions(scene)
    for data in (third, first):
        await scene.operator.route(data, {"LV/ncb": ALL})
        await scene.collect()
    assert (scene.body(1) is None, scene.body(2)) == (False, None)


async def test_the_operator_hands_the_old_version_over_after_the_new_one(scene: Scene) -> None:
    """The same with two that are recorded in order, and no word of what the new one replaces."""
    first, second = await versions(scene, 2)
    operator = scene.operator
    one, two = operator.record(first, {"LV/ncb": ALL}), operator.record(second, {"LV/ncb": ALL})
    await operator.seal()
    for number in (two, one):
        await scene.hand(number, same)
    await scene.collect()
    assert (scene.body(1), scene.body(2) is None) == (None, False)


async def test_the_operator_has_a_correction_replace_a_later_one(scene: Scene) -> None:
    """He records the second version after the third: it is kept without its body. With the order to replace the third
    it is refused (`unrelated`), and such an order that comes first is dropped."""
    first, second, third = await versions(scene)
    operator = scene.operator
    for data in (first, third, second):
        await operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    assert (scene.body(2) is None, scene.body(3)) == (False, None)
    await operator.route(second, {"LV/ncb": ALL}, {"LV/ncb": ("replaces", 2)})
    assert (await scene.collect()).alarms == ["unrelated"]
    assert scene.body(2) is not None


async def test_the_operator_has_a_correction_replace_a_later_one_that_is_to_come(scene: Scene) -> None:
    """He names a number in the order that he means to give to the third version."""
    _, second, third = await versions(scene)
    await scene.operator.route(second, {"LV/ncb": ALL}, {"LV/ncb": ("replaces", 2)})
    await scene.operator.route(third, {"LV/ncb": ALL})
    assert (await scene.collect()).alarms == ["unrelated"]
    assert (scene.body(1), scene.body(2) is None) == (None, False)


async def test_the_operator_records_a_notice_after_its_withdrawal(scene: Scene) -> None:
    """He keeps the notice back until its withdrawal is on record. It comes without its body, and LV says `erased`."""
    (data,) = await scene.publish(draft())
    for each in (await scene.withdraw("R-1"), data):
        await scene.operator.route(each, {"LV/ncb": ALL if each is data else ("reason",)})
        await scene.collect()
    assert scene.body(2) is None
    said = codec.decode(Receipt, codec.decode(Statement, (await scene.receipts())[-1]).payload)
    assert (said.act, said.result) == ("erased", "erased")


async def test_the_operator_ends_by_an_old_withdrawal_what_was_published_anew(scene: Scene) -> None:
    """AT withdrew a record and published it again. He keeps the withdrawal back until then: it ends what AT withdrew,
    and the new notice stands."""
    (first,) = await scene.publish(draft())
    withdrawal = await scene.withdraw("R-1")
    (anew,) = await scene.publish(draft())
    for data in (first, anew, withdrawal):
        await scene.operator.route(data, {"LV/ncb": ("reason",) if data is withdrawal else ALL})
    await scene.collect()
    assert (scene.body(1), scene.body(2) is None) == (None, False)


async def test_who_has_lost_its_outbox_publishes_a_record_anew_beside_its_old_versions(scene: Scene) -> None:
    """Not an attack: versions begin again at 1, so only their dates say that they are new."""
    for data in await versions(scene):
        await scene.operator.route(data, {"LV/ncb": ALL})
    at = scene.home("AT/ncb")
    (at.folder / "outbox.db").rename(at.folder / "lost.db")
    at.now += 1
    for data in await versions(scene, 2):
        await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    assert [scene.body(each) is None for each in range(1, 6)] == [True, True, False, True, False]


def a_receipt(leaf_number: int, digest: bytes, act: str = "received") -> Receipt:
    """What LV might say of a notice of AT's."""
    item = (ReceiptItem(leaf_number, digest),)
    return Receipt(FEDERATION, "LV/ncb", "AT", act, item, "erased" if act == "erased" else None, None, 1, NOW)


@pytest.mark.parametrize("act", ["received", "read", "erased"])
async def test_the_operator_answers_for_a_bureau(scene: Scene, act: str) -> None:
    """He drops a delivery and signs the receipt himself. AT refuses it (`issuer-key`), and LV stays silent."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = operator.record(data, {"LV/ncb": ALL})
    await operator.seal()
    outcome = operator.routes[number].outcome
    assert outcome is not None
    await operator.tell("AT", outcome)
    payload = codec.encode(a_receipt(number, header_digest(codec.decode(Envelope, data).header), act))
    signature = LOG_KEY.sign_payload(RECEIPT_TYPE, payload)
    forged = Statement(RECEIPT_TYPE, payload, key_of("LV/ncb").public.id, signature)
    told = operator.confirm(codec.encode(forged))
    await operator.seal()
    await operator.tell("AT", told)
    assert await scene.learn() == ["issuer-key"]
    assert (await scene.story(data)).silent == ("LV/ncb",)


async def test_the_operator_passes_one_receipt_off_as_another(scene: Scene) -> None:
    """LV received R-1. He records its receipt once more and says that it is about R-2, which he dropped. A receipt
    names leaf and header digest: in AT's trace LV is silent about R-2."""
    first, second = await scene.publish(draft("R-1"), draft("R-2"))
    operator = scene.operator
    await operator.route(first, {"LV/ncb": ALL})
    dropped = operator.record(second, {"LV/ncb": ALL})
    await operator.seal()
    outcome = operator.routes[dropped].outcome
    assert outcome is not None
    await operator.tell("AT", outcome)
    await scene.collect()
    (genuine,) = await scene.receipts()
    told = operator.confirm(genuine)
    leaf = operator.leaves[told.leaf_number] = leaf_but(operator.leaves[told.leaf_number], about=dropped)
    await operator.seal()
    await operator.tell("AT", replace(told, leaf=leaf))
    assert (await scene.story(second)).silent == ("LV/ncb",)
    assert (await scene.story(first)).silent == ()


async def test_the_operator_makes_a_received_into_a_read(scene: Scene) -> None:
    """He records LV's `received` as `read`. The leaf says otherwise than what LV signed: `wrong-leaf`."""
    (data,) = await scene.publish(draft())
    operator = scene.operator
    number = await operator.route(data, {"LV/ncb": ALL})
    told = operator.confirm(receipt("LV/ncb", number, header_digest(codec.decode(Envelope, data).header), "AT"))
    leaf = operator.leaves[told.leaf_number] = leaf_but(operator.leaves[told.leaf_number], code="read")
    await operator.seal()
    await operator.tell("AT", replace(told, leaf=leaf, code="read"))
    assert await scene.learn() == ["wrong-leaf"]


async def test_the_operator_drops_a_receipt(scene: Scene) -> None:
    """LV signed and sent; he records nothing. AT's trace names LV as silent; LV's own copy of the receipt convicts
    him, here by hand and for a whole trail in `audit verify --records`."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    await scene.collect()
    (sent,) = await scene.receipts()
    assert (await scene.story(data)).silent == ("LV/ncb",)
    statement = codec.decode(Statement, sent)
    assert statement.key_id == key_of("LV/ncb").public.id


async def test_the_operator_records_a_notice_before_it_was_made(scene: Scene) -> None:
    """He stamps a leaf with an hour before the issuer signed, so that a key that has since ended seems in force.
    No honest leaf is older than its notice: `wrong-leaf`, at the holder."""
    (data,) = await scene.publish(draft())
    scene.operator.now = NOW - HOUR
    await scene.operator.route(data, {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == ([], ["wrong-leaf"])
