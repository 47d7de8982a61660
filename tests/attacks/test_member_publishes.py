"""A member, with all its own keys and its own streams, publishes what is not its to publish."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker import avro, by_hand, codec, streams
from broker.errors import ForbiddenStreamError
from broker.notice import (
    LOOK_TYPE,
    Audience,
    Compartment,
    Envelope,
    Header,
    Look,
    Opened,
    Revocation,
    Statement,
    Subscription,
)
from tests import federation as world
from tests.attacks.bench import Bench, notice
from tests.fake_bus import FakeBus
from tests.making import FEDERATION, NOW, key_of, reference, statement, subscription

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY = 86_400_000


async def test_a_member_steals_a_neighbours_series(shared: Bench) -> None:
    """LV uses series and number of AT's next notice. A series is its issuer's: AT's own notice is routed, no number of
    it is burnt or missing."""
    ours = notice("AT/ncb", "GE/ncb")
    stolen = replace(notice("LV/ncb", "GE/ncb"), routing=replace(ours.routing, number=2))
    assert (await shared.publish(stolen)).kind == "routed"
    first, second = await shared.publish(ours), await shared.publish(notice("AT/ncb", "GE/ncb").numbered(
        2, ours.routing.series
    ))  # fmt: skip
    assert (first.kind, first.missing, second.kind, second.missing) == ("routed", (), "routed", ())


async def test_a_member_publishes_on_anothers_stream(shared: Bench) -> None:
    """LV writes to `notices.at`: the bus denies it. On a bus that does not, what LV signed there is rejected:
    `stream-of-another`, and LV's key speaks for nobody else: `key-of-another`."""
    bus = FakeBus(principal=streams.adapter("LV"), world=world.world())
    with pytest.raises(ForbiddenStreamError):
        await bus.append(streams.notices("AT"), [(b"", codec.encode(notice("LV/ncb").envelope()))])
    assert (await shared.publish(notice("LV/ncb"), "AT")).code == "stream-of-another"
    assert (await shared.publish(notice("AT/ncb", key=key_of("LV/ncb")), "AT")).code == "key-of-another"


async def test_a_member_signs_as_a_bureau_of_another(shared: Bench) -> None:
    """LV writes AT/ncb as the issuer and signs with its own key, on its own stream: `key-of-another`."""
    assert (await shared.publish(notice("AT/ncb", key=key_of("LV/ncb")), "LV")).code == "key-of-another"


async def test_a_member_signs_as_another_bureau_of_its_own(shared: Bench) -> None:
    """AT's national bureau speaks for its organised crime unit: `key-of-another`, although both are AT's."""
    assert (await shared.publish(notice("AT/organised-crime", key=key_of("AT/ncb")))).code == "key-of-another"


async def test_a_member_passes_anothers_notice_off_as_its_own(shared: Bench) -> None:
    """LV takes the envelope that AT sent it and puts it on its own stream, to be seen as its source:
    `stream-of-another`. With LV as the issuer AT's signature is gone: `bad-signature`."""
    envelope = notice("AT/ncb").envelope()
    assert (await shared.publish(envelope, "LV")).code == "stream-of-another"
    header = codec.encode(replace(codec.decode(Header, envelope.header), issuer="LV/ncb"))
    assert (await shared.publish(replace(envelope, header=header), "LV")).code == "bad-signature"


async def test_a_member_replays_an_exercise_as_real(shared: Bench) -> None:
    """LV takes AT's exercise, takes the flag off and hands it to the broker as AT's. The flag is signed:
    `bad-signature`."""
    exercise = notice("AT/ncb", "GE/ncb").but(exercise=True).envelope()
    before = await shared.inboxes()
    real = codec.encode(replace(codec.decode(Header, exercise.header), exercise=False))
    assert (await shared.publish(replace(exercise, header=real), "AT")).code == "bad-signature"
    assert (await shared.inboxes())["GE/ncb"] == before["GE/ncb"]


async def test_a_member_replays_an_exercise_as_it_was(shared: Bench) -> None:
    """AT's exercise comes once more, months later, when nobody remembers it. It is on record: `repeated`, and nobody
    gets it again."""
    exercise = notice("AT/ncb", "GE/ncb").but(exercise=True).envelope()
    first = await shared.delivered(exercise, "GE/ncb")
    before = await shared.inboxes()
    again = await shared.publish(exercise)
    assert (again.kind, again.original) == ("repeated", first.delivery.leaf_number)
    assert (await shared.inboxes())["GE/ncb"] == before["GE/ncb"]


@pytest.mark.parametrize(
    ("kind", "parts", "relation"),
    [
        ("withdrawal", ("reason",), "withdraws"),
        ("restriction", ("reason",), "restricts"),
        ("person", ("identity",), "corrects"),
    ],
)
async def test_a_member_withdraws_restricts_or_corrects_anothers_notice(
    shared: Bench, kind: str, parts: tuple[str, ...], relation: str
) -> None:
    """LV, who holds AT's notice, signs the end of it: `invalid-reference`, and GE keeps what it has."""
    theirs = notice("AT/ncb", "LV/ncb", "GE/ncb").envelope()
    got = await shared.delivered(theirs)
    before = await shared.inboxes()
    false = notice("LV/ncb", "GE/ncb", kind=kind, parts=parts)
    ended = false.but(record=got.header.record, version=2, references=(reference(theirs, relation),))
    assert (await shared.publish(ended)).code == "invalid-reference"
    assert (await shared.inboxes())["GE/ncb"] == before["GE/ncb"]


async def test_a_member_corrects_another_record_of_its_own_out_of_sight(shared: Bench) -> None:
    """AT points a correction at another record of its own, so that GE's copy of that one goes: `invalid-reference`."""
    other = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(other, "GE/ncb")
    false = notice("AT/ncb", "GE/ncb").but(record="another", version=2, references=(reference(other, "corrects"),))
    assert (await shared.publish(false)).code == "invalid-reference"


def after(of: Envelope, relation: str, kind: str, version: int, *to: str, **header: Any) -> Envelope:
    """What AT says next of a record."""
    parts = {"person": ("identity",), "withdrawal": (), "restriction": ("reason",)}[kind]
    record = codec.decode(Header, of.header).record
    made = notice("AT/ncb", *to, kind=kind, parts=parts)
    return made.but(record=record, version=version, references=(reference(of, relation),), **header).envelope()


async def test_a_member_ends_a_version_that_was_rejected(shared: Bench) -> None:
    """The holders are those of the version before; a withdrawal that reached nobody would leave it with them."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    second = after(first, "corrects", "person", 2, "GE/ncb", expires=1)
    assert (await shared.publish(second)).code == "already-expired"
    assert (await shared.publish(after(second, "withdraws", "withdrawal", 3, "GE/ncb"))).code == "invalid-reference"
    assert (await shared.publish(after(second, "corrects", "person", 3, "GE/ncb"))).code == "invalid-reference"
    before = await shared.inboxes()
    assert (await shared.publish(after(first, "withdraws", "withdrawal", 4, "GE/ncb"))).kind == "routed"
    assert (await shared.inboxes())["GE/ncb"] == before["GE/ncb"] + 1


@pytest.mark.parametrize(("relation", "kind"), [("withdraws", "withdrawal"), ("corrects", "person")])
async def test_a_member_ends_a_rejected_correction_that_calls_itself_the_first(
    shared: Bench, relation: str, kind: str
) -> None:
    """As if no version stood before it, so that the end is taken in and reaches nobody."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    false = after(first, "corrects", "person", 1, "GE/ncb")
    assert (await shared.publish(false)).code == "invalid-reference"
    assert (await shared.publish(after(false, relation, kind, 2, "GE/ncb"))).code == "invalid-reference"
    end = await shared.delivered(after(first, "withdraws", "withdrawal", 2, "GE/ncb"), "GE/ncb")
    assert len(end.delivery.erases) == 1


@pytest.mark.parametrize(("kind", "part"), [("person", "identity"), ("answer", "reply")])
async def test_a_member_ends_another_first_version_that_was_rejected_in_the_place_of_its_record(
    shared: Bench, kind: str, part: str
) -> None:
    """It would be taken in, reach nobody, and leave the record with its holders."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    record = codec.decode(Header, first.header).record
    second = notice("AT/ncb", "GE/ncb", kind=kind, parts=(part,)).but(record=record, expires=1).envelope()
    assert (await shared.publish(second)).code == "already-expired"
    assert (await shared.publish(after(second, "withdraws", "withdrawal", 2, "GE/ncb"))).code == "invalid-reference"
    end = await shared.delivered(after(first, "withdraws", "withdrawal", 2, "GE/ncb"), "GE/ncb")
    assert len(end.delivery.erases) == 1


@pytest.mark.parametrize(("relation", "kind"), [("withdraws", "withdrawal"), ("restricts", "restriction")])
@pytest.mark.parametrize(
    "end", [("withdraws", "withdrawal"), ("corrects", "person"), ("restricts", "restriction")], ids=lambda each: each[0]
)
async def test_a_member_ends_a_rejected_restriction_or_withdrawal(
    shared: Bench, relation: str, kind: str, end: tuple[str, str]
) -> None:
    """In the place of its record, though it calls itself the first version: the end would reach nobody."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    rejected = after(first, relation, kind, 1, "GE/ncb", purpose="curiosity")
    assert (await shared.publish(rejected)).code == "unknown-purpose"
    assert (await shared.publish(after(rejected, *end, 2, "GE/ncb"))).code == "invalid-reference"
    last = await shared.delivered(after(first, "withdraws", "withdrawal", 2, "GE/ncb"), "GE/ncb")
    assert len(last.delivery.erases) == 1


@pytest.mark.parametrize(
    ("relation", "kind"), [("withdraws", "withdrawal"), ("corrects", "person"), ("restricts", "restriction")]
)
async def test_a_member_ends_a_restriction_in_the_place_of_its_record(shared: Bench, relation: str, kind: str) -> None:
    """A restriction names no version before it: what ends it would leave the record with its holders."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    restriction = after(first, "restricts", "restriction", 2, "GE/ncb")
    await shared.delivered(restriction, "GE/ncb")
    assert (await shared.publish(after(restriction, relation, kind, 3, "GE/ncb"))).code == "invalid-reference"
    end = await shared.delivered(after(first, "withdraws", "withdrawal", 3, "GE/ncb"), "GE/ncb")
    assert len(end.delivery.erases) == 1


async def test_a_member_takes_a_withdrawal_back(shared: Bench) -> None:
    """What was withdrawn is over: neither a restriction nor the withdrawal of its withdrawal lets it live again."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    await shared.delivered(first, "GE/ncb")
    end = after(first, "withdraws", "withdrawal", 2, "GE/ncb")
    assert (await shared.publish(end)).kind == "routed"
    assert (await shared.publish(after(first, "restricts", "restriction", 3, "GE/ncb"))).code == "invalid-reference"
    assert (await shared.publish(after(end, "withdraws", "withdrawal", 3, "GE/ncb"))).code == "invalid-reference"
    assert (await shared.publish(after(first, "corrects", "person", 4, "GE/ncb"))).code == "invalid-reference"


@pytest.mark.parametrize(("relation", "kind"), [("corrects", "person"), ("restricts", "restriction")])
async def test_a_member_changes_what_is_not_on_record(shared: Bench, relation: str, kind: str) -> None:
    """AT publishes the second version first, so that the first, which comes later, stands as the newer one:
    `invalid-reference`, in one leaf of which AT is told once. The first is routed, and can be changed from then on."""
    first = notice("AT/ncb", "GE/ncb").envelope()
    early = after(first, relation, kind, 2, "GE/ncb")
    leaves, told = len(await shared.federation.leaves()), len(await shared.federation.outcomes("AT"))
    assert (await shared.publish(early)).code == "invalid-reference"
    (leaf,) = (await shared.federation.leaves())[leaves:]
    assert (leaf.kind, leaf.code) == ("rejected", "invalid-reference")
    assert len(await shared.federation.outcomes("AT")) == told + 1
    await shared.delivered(first, "GE/ncb")
    assert (await shared.publish(early)).kind == "repeated"
    assert (await shared.publish(after(first, relation, kind, 3, "GE/ncb"))).kind == "routed"


async def test_a_member_reuses_an_id_with_other_bytes(shared: Bench) -> None:
    """AT says first this, then that, under one id, and would deny the first: `id-reused`, and the first stands."""
    name = os.urandom(16)
    first = notice("AT/ncb").but(notice_id=name).envelope()
    got = await shared.delivered(first)
    assert (await shared.publish(notice("AT/ncb").but(notice_id=name))).code == "id-reused"
    again = await shared.publish(first)
    assert (again.kind, again.original) == ("repeated", got.delivery.leaf_number)


async def test_a_member_gives_two_notices_one_number(shared: Bench) -> None:
    """AT signs two notices with one number, to show each bureau another: `number-reused` for the second."""
    first = notice("AT/ncb", "LV/ncb")
    assert (await shared.publish(first)).kind == "routed"
    assert (await shared.publish(first.to("GE/ncb").but(record="other"))).code == "number-reused"


@pytest.mark.parametrize(
    ("changes", "code"), [({"expires": 1}, "already-expired"), ({"purpose": "idle-curiosity"}, "unknown-purpose")]
)
async def test_a_member_gives_the_number_of_a_rejected_notice_to_another(
    shared: Bench, changes: dict[str, Any], code: str
) -> None:
    """What is wrong in the header is found before the routing is read. The number is burnt all the same: the next one
    leaves no gap, and nothing comes back to it."""
    series = os.urandom(8)
    assert (await shared.publish(notice("AT/ncb").numbered(1, series).but(**changes))).code == code
    next_one = await shared.publish(notice("AT/ncb").numbered(2, series))
    assert (next_one.kind, next_one.missing, next_one.warnings) == ("routed", (), ())
    assert (await shared.publish(notice("AT/ncb").numbered(1, series))).code == "number-reused"


async def test_a_member_burns_a_number_by_a_routing_that_it_did_not_sign(shared: Bench) -> None:
    """The routing is another's than the header commits to: whoever put it there says nothing of the series."""
    series = os.urandom(8)
    wrong = notice("AT/ncb").numbered(1, series).but(expires=1).envelope()
    other = notice("AT/ncb").numbered(1, series).envelope()
    assert (await shared.publish(replace(wrong, compartments=other.compartments))).code == "already-expired"
    assert (await shared.publish(replace(wrong, compartments=b"none"))).kind == "repeated"
    assert (await shared.publish(notice("AT/ncb").numbered(1, series))).kind == "routed"


async def test_a_member_leaves_a_number_out_to_come_back_to_it(shared: Bench) -> None:
    """AT skips a number, to slip a notice in later as if it had come before. It may, but the leaf of the later one
    says how many are missing, and the slipped one's leaf stands where and when it came."""
    first, series = notice("AT/ncb"), os.urandom(8)
    await shared.publish(first.numbered(1, series))
    gap = await shared.publish(notice("AT/ncb").numbered(3, series))
    late = await shared.publish(notice("AT/ncb").numbered(2, series))
    assert (gap.missing, "series-gap" in gap.warnings) == ((2,), True)
    assert late.kind == "routed"
    assert late.leaf_number > gap.leaf_number


async def test_a_member_joins_an_audience(shared: Bench) -> None:
    """RU subscribes to everything, to hear what AT says within an agreement of which RU is no party. The audience is
    signed by AT: RU gets nothing."""
    before = len(await shared.federation.outcomes("RU"))
    await shared.federation.append("notices.ru", subscription("RU/ncb", "*"))
    await shared.federation.outcomes("RU", before + 1)
    had = (await shared.inboxes())["RU/ncb"]
    within = notice("AT/ncb").routed(audience=Audience(everyone=False, agreements=("circle",)))
    assert (await shared.publish(within)).kind == "routed"
    assert (await shared.publish(notice("AT/ncb", "GE/ncb"))).kind == "routed"
    assert (await shared.inboxes())["RU/ncb"] == had


async def test_a_member_subscribes_for_another(shared: Bench) -> None:
    """LV has GE unsubscribed from everything, with its own key and on its own stream: `key-of-another`."""
    false = statement(Subscription(FEDERATION, "GE/ncb", 99, (), NOW), key_of("LV/ncb"))
    assert (await shared.put("LV", false)).code == "key-of-another"


async def test_a_member_replays_an_old_subscription(shared: Bench) -> None:
    """Somebody puts LV's subscription of last year on its stream again. Its number is lower: `stale-statement`."""
    old = subscription("LV/organised-crime", "*", number=1)
    for value in (old, subscription("LV/organised-crime", "vehicles.*", number=2)):
        assert (await shared.put("LV", value)).kind == "subscribed"
    assert (await shared.put("LV", old)).code == "stale-statement"


async def test_a_member_revokes_a_neighbours_key(shared: Bench) -> None:
    """LV calls AT's key stolen, to silence AT: `unknown-key`. AT goes on."""
    false = Revocation(FEDERATION, "LV/ncb", key_of("AT/ncb").public.id, "stolen", NOW)
    assert (await shared.put("LV", statement(false, key_of("LV/ncb")))).code == "unknown-key"
    assert (await shared.publish(notice("AT/ncb"))).kind == "routed"


async def test_a_member_looks_at_clear_data_as_an_auditor(shared: Bench) -> None:
    """LV signs a look at AT's notice. A bureau's key signs no look: `unknown-key`."""
    got = await shared.delivered(notice("AT/ncb"))
    look = Look(FEDERATION, "LV/ncb", os.urandom(16), "AT", (got.delivery.leaf_number,), "curiosity", NOW)
    payload, key = codec.encode(look), key_of("LV/ncb")
    false = codec.encode(Statement(LOOK_TYPE, payload, key.public.id, key.sign_payload(LOOK_TYPE, payload)))
    assert (await shared.put("LV", false)).code == "unknown-key"


async def test_a_member_dates_a_notice_in_the_future(shared: Bench) -> None:
    """AT signs today what is to look like next year's: `issued-in-future`, and it stays rejected."""
    early = notice("AT/ncb").but(issued=NOW + 365 * DAY).envelope()
    assert (await shared.publish(early)).code == "issued-in-future"
    assert (await shared.publish(early)).code == "refused"


async def test_a_member_shows_the_broker_another_body_than_it_signed(shared: Bench) -> None:
    """AT swaps a compartment after signing, to say later that the broker did it: `compartment-mismatch`."""
    envelope = notice("AT/ncb").envelope()
    kept = codec.decode_compartments(envelope.compartments)
    other = tuple(
        Compartment(each.name, Opened(bytes(32), each.opened.data) if each.name == "identity" and each.opened else None)
        if each.name != "routing"
        else each
        for each in kept
    )
    false = replace(envelope, compartments=codec.encode_compartments(other))
    assert (await shared.publish(false)).code == "compartment-mismatch"


def _null_bomb() -> bytes:
    """An array that claims ten million items in a few bytes."""
    return avro.prefix("envelope") + by_hand.long(20) + b"\xc3\x01" + bytes(8) + by_hand.long(10_000_000) + b"\0"


def _stuffed() -> bytes:
    envelope = notice("AT/ncb").envelope()
    return codec.encode(replace(envelope, compartments=envelope.compartments + bytes(300_000)))


@pytest.mark.parametrize(
    ("bomb", "code"),
    [
        (lambda: gzip.compress(bytes(50_000_000)), "unknown-schema"),
        (_null_bomb, "unreadable"),
        (_stuffed, "too-large"),
        (lambda: os.urandom(2_000_000), "too-large"),
    ],
    ids=["gzip", "array", "stuffed", "large"],
)
async def test_a_member_sends_a_bomb(shared: Bench, bomb: Callable[[], bytes], code: str) -> None:
    """AT sends what expands, claims or weighs too much. Each ends in one leaf with its code; the next goes on."""
    assert (await shared.put("AT", bomb())).code == code
    assert (await shared.publish(notice("AT/ncb"))).kind == "routed"


async def test_a_member_floods_its_stream(shared: Bench) -> None:
    """RU writes 2,000 records of rubbish at once. Streams get their fair share: AT's next notice is decided among the
    first of them."""
    flood = [(b"", b"rubbish %d" % each) for each in range(2_000)]
    before, told = len(await shared.federation.leaves()), len(await shared.federation.outcomes("RU"))
    bus = shared.federation.bus
    _, outcome = await asyncio.gather(bus.append("notices.ru", flood), shared.publish(notice("AT/ncb")))
    assert outcome.kind == "routed"
    assert outcome.leaf_number < before + 1_000
    await shared.federation.outcomes("RU", told + 2_000)


async def test_a_member_pushes_anothers_delivery_out_of_an_inbox(shared: Bench) -> None:
    """RU publishes to LV under the id of AT's notice, so that the inbox, which keeps one copy of each delivery, drops
    AT's while LV is away. Copies are told apart by leaf, not by an id that anybody may write: both are there."""
    got = await shared.delivered(notice("AT/ncb"))
    await shared.delivered(notice("RU/ncb").but(notice_id=got.header.notice_id))
    bus = shared.federation.bus
    assert isinstance(bus, FakeBus)
    await bus.prune()
    kept = [each.header for each in await shared.federation.inbox("LV/ncb")]
    assert [each.issuer for each in kept if each.notice_id == got.header.notice_id] == ["AT/ncb", "RU/ncb"]
