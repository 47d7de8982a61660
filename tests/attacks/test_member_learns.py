"""A member asks the broker, its own deliveries and the bus for what it is not to know."""

from __future__ import annotations

import os
from dataclasses import replace
from hashlib import sha256

import pytest

from broker import codec, streams
from broker.errors import ForbiddenStreamError
from broker.merkle import EMPTY_TAG
from broker.notice import Compartment, Delivery, Envelope, Header, Receipt, ReceiptItem, Reference, Shared
from broker.signing import compartment_digest, header_digest
from tests import federation as world
from tests.attacks.bench import Bench, notice
from tests.attacks.scene import ALL, Scene
from tests.fake_bus import FakeBus
from tests.making import FEDERATION, NOW, key_of, reference, statement
from tests.member.conftest import draft

shared_loop = pytest.mark.asyncio(loop_scope="module")


def windows(data: bytes) -> set[bytes]:
    """Every 32 bytes in a row: each might be a salt or a seed."""
    return {data[place : place + 32] for place in range(len(data) - 31)}


async def given(scene: Scene, *shows: tuple[str, tuple[str, ...]]) -> tuple[bytes, Delivery]:
    """A notice as it was sent, and the delivery of it to LV."""
    (data,) = await scene.publish(draft(os.urandom(4).hex()))
    number = scene.operator.record(data, dict(shows))
    await scene.operator.seal()
    return data, scene.delivery(number)


async def test_a_member_guesses_a_withheld_compartment_from_its_digest(scene: Scene) -> None:
    """LV knows the very words of the narrative that it is not shown, and tries them with every 32 bytes of what it
    got as a salt. No digest fits; it cannot even tell that there is a narrative and no contact."""
    data, delivery = await given(scene, ("LV/ncb", ("identity", "warnings")))
    sent = codec.decode(Envelope, data)
    whole = {each.name: each.opened for each in codec.decode_compartments(sent.compartments)}
    words = whole["narrative"]
    assert words is not None
    slots = {each.name: each.digest for each in codec.decode(Header, sent.header).compartments}
    assert compartment_digest("narrative", words.salt, words.data) == slots["narrative"]
    for salt in windows(codec.encode(delivery)):
        assert compartment_digest("narrative", salt, words.data) != slots["narrative"]
        for name in ("narrative", "contact"):
            assert compartment_digest(name, salt, b"") != slots[name]


async def test_a_member_asks_whether_something_is_withheld(scene: Scene) -> None:
    """To LV the narrative that it may not see and the contact that does not exist look the same: a digest, no bytes."""
    _, delivery = await given(scene, ("LV/ncb", ("identity",)))
    envelope = codec.decode(Envelope, codec.decode(Shared, delivery.shared).envelope)
    kept = {each.name: each for each in codec.decode_compartments(envelope.compartments)}
    assert kept["narrative"] == Compartment("narrative", None)
    assert kept["contact"] == Compartment("contact", None)
    slots = codec.decode(Header, envelope.header).compartments
    assert len({each.digest for each in slots}) == len(slots)


async def test_a_member_counts_who_else_received(scene: Scene) -> None:
    """LV compares a delivery that it got alone with one that three bureaus got. Its path is as long, names nobody,
    and no 32 bytes that it holds make out an empty place beside it."""
    _, alone = await given(scene, ("LV/ncb", ALL))
    _, among = await given(scene, ("LV/ncb", ALL), ("GE/ncb", ALL), ("AT/border", ALL))
    assert [len(each) for each in (among.row, among.path)] == [len(each) for each in (alone.row, alone.path)]
    for delivery in (alone, among):
        mine = codec.encode(delivery)
        assert b"GE/ncb" not in mine
        assert b"AT/border" not in mine
        beside = {delivery.path[place : place + 32] for place in range(0, len(delivery.path), 32)}
        position = (delivery.index ^ 1).to_bytes(4, "big")
        for seed in windows(mine):
            assert sha256(EMPTY_TAG + seed + b"\0" + position).digest() not in beside


@shared_loop
async def test_a_member_looks_for_the_deny_list(shared: Bench) -> None:
    """AT keeps a notice from RU. GE, who gets it, finds no word of RU in what it got, and RU gets what a bureau gets
    that nobody thought of: nothing."""
    got = await shared.delivered(notice("AT/ncb", "GE/ncb").routed(deny=("RU",), protected_from=("RU",)), "GE/ncb")
    assert "routing" not in got.shown
    # Ids, digests and salts are random: two letters stand in one of them once in some two hundred runs.
    slots = tuple(replace(each, digest=bytes(32)) for each in got.header.compartments)
    assert b"RU" not in codec.encode(replace(got.header, notice_id=bytes(16), compartments=slots))
    assert not any(b"RU" in each.opened.data for each in got.compartments if each.opened)
    assert b"RU" not in got.delivery.row
    before = await shared.inboxes()
    await shared.publish(notice("AT/ncb", "GE/ncb"))
    assert (await shared.inboxes())["RU/ncb"] == before["RU/ncb"]


@shared_loop
async def test_a_member_probes_by_receipt_which_leaves_there_are(shared: Bench) -> None:
    """RU signs receipts for LV's delivery, for another kind of leaf and for one that does not exist. Each answer is
    the same, but for the number that RU itself named."""
    got = await shared.delivered(notice("AT/ncb"))
    digest, details = header_digest(got.envelope.header), set()
    for number, leaf in enumerate((got.delivery.leaf_number, 0, 10_000_000), 100):
        made = Receipt(FEDERATION, "RU/ncb", "AT", "read", (ReceiptItem(leaf, digest),), None, None, number, NOW)
        told = await shared.put("RU", statement(made, key_of("RU/ncb")), "receipts")
        details.add((told.code, told.detail.replace(str(leaf), "N"), told.missing, told.warnings))
    assert len(details) == 1


@shared_loop
async def test_a_member_probes_by_reference_which_notices_there_are(shared: Bench) -> None:
    """RU withdraws a notice of AT's that exists and one that does not. Both answers are the same."""
    there = notice("AT/ncb").envelope()
    await shared.delivered(there)
    said = set()
    for each in (reference(there, "withdraws"), Reference("AT/ncb", os.urandom(16), os.urandom(32), "withdraws")):
        told = await shared.publish(notice("RU/ncb", kind="withdrawal", parts=("reason",)).but(references=(each,)))
        said.add((told.kind, told.code, told.detail))
    assert len(said) == 1


@shared_loop
async def test_a_member_probes_by_approval_which_notices_are_held(shared: Bench) -> None:
    """RU approves what is held, under its header digest and under a guess, what is not held, and what does not exist.
    Each answer is the same."""
    held, out = notice("AT/ncb").but(topics=("wanted.red",)).envelope(), notice("AT/ncb").envelope()
    assert [(await shared.publish(each)).kind for each in (held, out)] == ["held", "routed"]
    said = set()
    for each in (
        reference(held, "approves"),
        replace(reference(held, "approves"), header_digest=os.urandom(32)),
        reference(out, "approves"),
        Reference("AT/ncb", os.urandom(16), os.urandom(32), "approves"),
    ):
        made = notice("RU/ncb", kind="approval", parts=("terms",)).but(references=(each,), action_sought="release")
        told = await shared.publish(made)
        said.add((told.kind, told.code, told.detail))
    assert len(said) == 1


@shared_loop
async def test_a_member_takes_anothers_id_to_see_whether_it_is_taken(shared: Bench) -> None:
    """RU publishes under the id of a notice of AT's. Ids are their issuer's own: it is routed like any other."""
    there = notice("AT/ncb")
    got = await shared.delivered(there)
    assert (await shared.publish(notice("RU/ncb").but(notice_id=got.header.notice_id))).kind == "routed"
    assert (await shared.publish(got.envelope, "AT")).code != "id-reused"


@pytest.mark.parametrize(
    "stream",
    ["inbox.lv.ncb", "outcomes.at", "notices.at", "receipts.lv", "trail", "routed", "register", "annexes", "asks"],
)
async def test_a_member_reads_what_is_not_its_own(stream: str) -> None:
    """RU's adapter opens others' streams, the log's entries and the annex. The table of streams denies each."""
    bus = FakeBus(principal=streams.adapter("RU"), world=world.world())
    with pytest.raises(ForbiddenStreamError):
        await bus.read(stream, 0)


@pytest.mark.parametrize("stream", ["inbox.lv.ncb", "outcomes.ru", "checkpoints", "versions", "trail", "receipts.lv"])
async def test_a_member_writes_what_is_not_its_own(stream: str) -> None:
    """RU's adapter writes deliveries, outcomes, heads, versions. The table of streams denies each."""
    bus = FakeBus(principal=streams.adapter("RU"), world=world.world())
    with pytest.raises(ForbiddenStreamError):
        await bus.append(stream, [(b"", b"")])


def test_the_same_words_never_make_the_same_digest_twice() -> None:
    """A member publishes a guess of its own to compare digests with AT's: each compartment has a salt of its own."""
    one, other = (codec.decode(Header, notice("AT/ncb").envelope().header).compartments for _ in range(2))
    assert not {each.digest for each in one} & {each.digest for each in other}
    assert replace(one[0], digest=b"") == replace(other[0], digest=b"")
