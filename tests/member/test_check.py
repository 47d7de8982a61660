from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from adapters.check import Known, check
from adapters.heads import Head
from adapters.refusals import (
    AlteredError,
    IssuerKeyError,
    NotAsShownError,
    NotInTrailError,
    OtherBureauError,
    OtherFederationError,
    RefusedError,
    SplitViewError,
    UnknownDirectoryError,
    UnknownHeadError,
    UnreadableDeliveryError,
    WrongLeafError,
    WrongRowError,
)
from broker import codec, notes
from broker.notice import Compartment, Delivery, Envelope, Leaf, Opened, Row, Shared
from broker.signing import SigningKey, compartment_digest
from tests.honest_broker import LOG, HonestBroker
from tests.making import FEDERATION, NOW, key_of
from tests.making import Draft as Sent
from tests.member.conftest import World, draft

SHOWN = ("identity", "warnings")
Change = Callable[[Delivery, Shared], tuple[Delivery, Shared]]


def known(broker: HonestBroker, bureau: str = "LV/ncb") -> Known:
    head = broker.head()
    heads = {head.size: Head(head.root, notes.sign_checkpoint(head, broker.key))}
    directories = {broker.directory.digest: broker.directory}
    return Known(FEDERATION, bureau, 0, directories.get, heads.get, LOG, NOW)


def delivered(broker: HonestBroker, number: int, bureau: str = "LV/ncb", **how: bool) -> bytes:
    stream = "inbox." + bureau.lower().replace("/", ".")
    return next(own + copy.shared for copy in broker.copies(number, **how) for name, own in copy.own if name == stream)


def changed(data: bytes, change: Change) -> bytes:
    delivery = codec.decode(Delivery, data)
    delivery, shared = change(delivery, codec.decode(Shared, delivery.shared))
    return codec.encode(replace(delivery, shared=codec.encode(shared)))


async def made(world: World) -> tuple[HonestBroker, bytes, bytes]:
    """Two routed notices: the delivery of the first to LV, and that of the second."""
    first, second = await world.publish(draft("R-1"), draft("R-2"))
    one = world.broker.record(first, {"LV/ncb": SHOWN, "GE/ncb": ("identity",)})
    two = world.broker.record(second, {"LV/ncb": SHOWN})
    return world.broker, delivered(world.broker, one), delivered(world.broker, two)


async def test_an_honest_delivery_is_taken(world: World) -> None:
    broker, data, _ = await made(world)
    checked = check(data, known(broker))
    assert [each.name for each in checked.compartments if each.opened] == list(SHOWN)
    assert (checked.header.record, checked.header.issuer, checked.row.bureau) == ("R-1", "AT/ncb", "LV/ncb")


def other_bureau(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, bureau="GE/ncb"), shared


def other_number(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, delivery_number=delivery.delivery_number + 1), shared


def other_salt(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, salt=os.urandom(32)), shared


def other_path(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, path=os.urandom(32) + delivery.path[32:]), shared


def short_path(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, path=delivery.path[32:]), shared


def other_index(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, index=delivery.index ^ 1), shared


def row_that_shows_more(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    row = codec.decode(Row, delivery.row)
    return replace(delivery, row=codec.encode(replace(row, shown=row.shown | 8))), shared


def other_leaf_number(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return replace(delivery, leaf_number=delivery.leaf_number + 1), shared


def leaf_of_another_kind(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    leaf = codec.decode(Leaf, shared.leaf)
    return delivery, replace(shared, leaf=codec.encode(replace(leaf, now=leaf.now + 1)))


def proof_without_its_end(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    proof = notes.parse_proof(shared.proof)
    return delivery, replace(shared, proof=notes.format_proof(proof.number, proof.proof[:-1], proof.checkpoint))


def proof_that_is_none(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, replace(shared, proof="c2sp.org/tlog-proof@v1\n")


def _envelope(shared: Shared, change: Callable[[Envelope], Envelope]) -> Shared:
    return replace(shared, envelope=codec.encode(change(codec.decode(Envelope, shared.envelope))))


def _compartments(shared: Shared, change: Callable[[tuple[Compartment, ...]], tuple[Compartment, ...]]) -> Shared:
    def within(envelope: Envelope) -> Envelope:
        opened = change(codec.decode_compartments(envelope.compartments))
        return replace(envelope, compartments=codec.encode_compartments(opened))

    return _envelope(shared, within)


def altered_header(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _envelope(shared, lambda each: replace(each, header=each.header[:-1] + b"\x01"))


def foreign_key(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _envelope(shared, lambda each: replace(each, key_id=key_of("GE/ncb").public.id))


def other_signature(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _envelope(shared, lambda each: replace(each, signature=bytes(64)))


def withheld(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _compartments(
        shared, lambda all_: tuple(replace(each, opened=None) if each.name == "warnings" else each for each in all_)
    )


def all_withheld(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _compartments(shared, lambda all_: tuple(replace(each, opened=None) for each in all_))


def invented_compartment(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _compartments(
        shared,
        lambda all_: tuple(
            replace(each, opened=Opened(bytes(32), b"invented")) if each.name == "contact" else each for each in all_
        ),
    )


def altered_compartment(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    def alter(each: Compartment) -> Compartment:
        if each.name != "identity" or each.opened is None:
            return each
        return replace(each, opened=replace(each.opened, data=each.opened.data + b"\0"))

    return delivery, _compartments(shared, lambda all_: tuple(map(alter, all_)))


def dropped_compartment(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    return delivery, _compartments(shared, lambda all_: all_[:-1])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (other_bureau, OtherBureauError),
        (other_number, WrongRowError),
        (other_salt, WrongRowError),
        (other_path, WrongRowError),
        (short_path, WrongRowError),
        (other_index, WrongRowError),
        (row_that_shows_more, WrongRowError),
        (other_leaf_number, NotInTrailError),
        (leaf_of_another_kind, NotInTrailError),
        (proof_without_its_end, NotInTrailError),
        (proof_that_is_none, NotInTrailError),
        (altered_header, AlteredError),
        (foreign_key, IssuerKeyError),
        (other_signature, IssuerKeyError),
        (withheld, NotAsShownError),
        (all_withheld, NotAsShownError),
        (invented_compartment, AlteredError),
        (altered_compartment, AlteredError),
        (dropped_compartment, AlteredError),
    ],
)
async def test_a_delivery_that_was_changed_is_refused(world: World, change: Change, error: type[RefusedError]) -> None:
    broker, data, _ = await made(world)
    with pytest.raises(error):
        check(changed(data, change), known(broker))


async def test_the_proof_of_another_leaf_is_refused(world: World) -> None:
    broker, data, other = await made(world)
    proof = codec.decode(Shared, codec.decode(Delivery, other).shared).proof
    with pytest.raises(NotInTrailError):
        check(changed(data, lambda delivery, shared: (delivery, replace(shared, proof=proof))), known(broker))


async def test_the_leaf_and_proof_of_another_notice_are_refused(world: World) -> None:
    broker, data, other = await made(world)
    theirs = codec.decode(Delivery, other)
    shared_other = codec.decode(Shared, theirs.shared)

    def swap(_: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
        return theirs, replace(shared_other, envelope=shared.envelope)

    with pytest.raises(AlteredError):
        check(changed(data, swap), known(broker))


async def test_one_bit_anywhere_in_a_delivery_is_refused_or_changes_nothing_that_is_shown(world: World) -> None:
    broker, data, _ = await made(world)
    honest, known_now, taken = check(data, known(broker)), known(broker), list[int]()
    for place in range(len(data)):
        hostile = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        with suppress(RefusedError):
            found = check(hostile, known_now)
            taken.append(place)
            assert (found.header_digest, found.compartments, found.row) == (
                honest.header_digest, honest.compartments, honest.row,
            )  # fmt: skip
    assert len(taken) < 8, taken


async def test_what_is_no_delivery_is_refused(world: World) -> None:
    broker, data, _ = await made(world)
    for hostile in (b"", b"\xc3\x01", data[:-1], data + b"\0", os.urandom(200)):
        with pytest.raises(UnreadableDeliveryError):
            check(hostile, known(broker))


async def test_a_delivery_to_another_bureau_is_refused(world: World) -> None:
    broker, data, _ = await made(world)
    with pytest.raises(OtherBureauError):
        check(data, known(broker, "GE/ncb"))


async def test_a_head_that_we_do_not_know_is_refused(world: World) -> None:
    broker, data, _ = await made(world)
    with pytest.raises(UnknownHeadError):
        check(data, replace(known(broker), head=lambda _: None))


async def test_a_head_of_another_root_is_refused(world: World) -> None:
    broker, data, _ = await made(world)
    with pytest.raises(SplitViewError):
        check(data, replace(known(broker), head=lambda _: Head(bytes(32), "")))


async def test_a_head_that_another_key_signed_is_refused(world: World) -> None:
    broker, _, _ = await made(world)
    broker.key = SigningKey.new()
    mine = known(broker)
    broker.key = SigningKey.new()
    with pytest.raises(NotInTrailError):
        check(delivered(broker, 0), mine)


async def test_a_directory_that_was_never_published_is_refused(world: World) -> None:
    broker, data, _ = await made(world)
    with pytest.raises(UnknownDirectoryError):
        check(data, replace(known(broker), directory=lambda _: None))


async def test_a_notice_of_another_federation_is_refused(world: World) -> None:
    broker, _, _ = await made(world)
    sent = Sent("AT/ncb").but(federation="elsewhere").envelope()
    number = broker.record(codec.encode(sent), {"LV/ncb": SHOWN})
    with pytest.raises(OtherFederationError):
        check(delivered(broker, number), known(broker))


async def test_a_key_of_another_bureau_of_the_same_member_is_refused(world: World) -> None:
    broker, _, _ = await made(world)
    sent = replace(Sent("AT/ncb"), key=key_of("AT/border")).envelope()
    number = broker.record(codec.encode(sent), {"LV/ncb": SHOWN})
    with pytest.raises(IssuerKeyError):
        check(delivered(broker, number), known(broker))


async def test_a_leaf_that_is_not_routed_gives_no_delivery(world: World) -> None:
    (data,) = await world.publish(draft())
    broker = world.broker
    number = broker.record(data, {"LV/ncb": SHOWN})
    leaf = replace(codec.decode(Leaf, broker.leaves[number]), kind="rejected", code="unknown-kind")
    broker.leaves[number] = codec.encode(leaf)
    broker.routes[number] = replace(broker.routes[number], leaf=codec.encode(leaf))
    with pytest.raises(WrongLeafError):
        check(delivered(broker, number), known(broker))


async def test_a_compartment_that_the_row_does_not_show_is_refused(world: World) -> None:
    (data,) = await world.publish(draft())
    broker = world.broker
    number = broker.record(data, {"LV/ncb": ("identity",)})
    envelope = codec.decode(Envelope, data)
    narrative = next(
        each for each in codec.decode_compartments(envelope.compartments) if each.name == "narrative" and each.opened
    )

    def show_more(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
        return delivery, _compartments(
            shared, lambda all_: tuple(narrative if each.name == "narrative" else each for each in all_)
        )

    with pytest.raises(NotAsShownError):
        check(changed(delivered(broker, number), show_more), known(broker))


@pytest.mark.parametrize("field", ["expires", "retain_until", "review_due"])
async def test_what_ran_out_on_its_way_comes_with_nothing_open(world: World, field: str) -> None:
    (data,) = await world.publish(draft("R-1", **{field: NOW + 1_000_000}))
    number = world.broker.record(data, {"LV/ncb": SHOWN})
    late = delivered(world.broker, number, expired=True)
    with pytest.raises(NotAsShownError):
        check(late, known(world.broker))
    checked = check(late, replace(known(world.broker), now=NOW + 2_000_000))
    assert not any(each.opened for each in checked.compartments)


def test_the_digest_of_a_compartment_binds_its_name() -> None:
    assert compartment_digest("identity", bytes(32), b"x") != compartment_digest("warnings", bytes(32), b"x")
