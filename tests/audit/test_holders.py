"""Who must be told of an end follows from the decisions on record; of an honest broker's nothing is ever said."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace

import pytest

from broker import codec
from broker.few import few
from broker.holders import LOOKS_A_LEAF, Holders
from broker.notice import DecisionRecord, Envelope, Header, Leaf, Recipient, Reference
from broker.recheck import UNFOLLOWED, recheck
from broker.recorded import Recorded
from broker.records import Records
from broker.signing import header_digest
from broker.trail import Trail
from cli.auditor.decisions import Decisions
from tests.attacks.bench import AUTHORITY, Bench, notice
from tests.federation import Federation
from tests.making import NOW, Draft, reference


def end(of: Envelope | Reference, kind: str = "withdrawal", record: str = "") -> Draft:
    """The end of a notice of AT's."""
    relation = "withdraws" if kind == "withdrawal" else "restricts"
    subject = of if isinstance(of, Reference) else reference(of, relation)
    named = record or codec.decode(Header, of.header).record if isinstance(of, Envelope) else record
    return notice("AT/ncb", kind=kind, parts=("reason",)).but(record=named, version=9, references=(subject,))


async def test_of_whatever_an_honest_broker_records_nothing_is_said(federation: Federation) -> None:
    bench = Bench(federation)
    first = notice("AT/ncb", "LV/ncb", "GE/ncb").envelope()
    await bench.publish(first)
    record = codec.decode(Header, first.header).record
    corrected = notice("AT/ncb", "GE/ncb").but(record=record, version=2, references=(reference(first, "corrects"),))
    second = corrected.envelope()
    await bench.publish(second)
    rejected = notice("AT/ncb").but(purpose="curiosity").envelope()
    told = [
        await bench.publish(each)
        for each in (
            end(second, "restriction"),
            end(second),  # LV holds the version before, GE this one
            end(second),  # once more: nobody holds it
            rejected,
            end(rejected),  # nobody ever held it
            end(Reference("AT/ncb", bytes(16), os.urandom(32), "withdraws"), record="elsewhere"),  # it may come later
        )
    ]
    late = notice("AT/ncb").envelope()
    told += [await bench.publish(each) for each in (end(late), end(late), late)]
    assert [each.kind for each in told] == ["routed"] * 3 + ["rejected"] * 2 + ["routed"] * 3 + ["rejected"]
    assert await findings(federation) == []


async def findings(federation: Federation) -> list[str]:
    """What an auditor finds in the decisions of this federation's broker."""
    await federation.settled()
    with closing(Records(federation.folder / "records.db")) as records:
        found = recheck(Trail.open(federation.trail), records, lambda _: None, {})
    assert found.wrong == len(found.findings)
    return [f"{each.place}: {each.what}" for each in found.findings]


def corrected(of: Envelope, version: int) -> Envelope:
    """The next version of a notice of AT's."""
    record = codec.decode(Header, of.header).record
    return notice("AT/ncb").but(record=record, version=version, references=(reference(of, "corrects"),)).envelope()


async def test_nor_of_an_order_that_names_a_version_which_was_rejected_and_then_corrected(
    federation: Federation,
) -> None:
    """The authority knows any version; no decision is on record of the first, and the last is what stands."""
    bench = Bench(federation)
    first = notice("AT/ncb").but(expires=1).envelope()
    second = corrected(first, 2)
    record = codec.decode(Header, first.header).record
    order = notice(AUTHORITY, kind="withdrawal", parts=("reason",)).but(record=record, version=9)
    named = order.but(references=(reference(first, "withdraws"),)).envelope()
    told = [await bench.publish(each) for each in (first, second, corrected(second, 3), named)]
    assert [each.kind for each in told] == ["rejected", "routed", "routed", "routed"]
    assert await findings(federation) == []


def told(log: list[Recorded], envelope: Envelope, about: int | None, *to: str) -> Recorded:
    """Record a decision in the next leaf; it reaches these bureaus."""
    header, number = codec.decode(Header, envelope.header), len(log)
    leaf = Leaf("routed", NOW, None, header_digest(envelope.header), about, 0, bytes(32), bytes(32), bytes(32), b"")
    rows = tuple(Recipient(index, each, 0) for index, each in enumerate(to))
    log.append(Recorded(number, leaf, DecisionRecord("", 0, 0, 0, b"", rows=rows), header, notice().routing))
    return log[-1]


def test_nor_of_one_that_took_in_changes_of_what_it_never_had() -> None:
    """Brokers of before 29 November 2026 did, and their trails are checked by today's auditor."""
    gone, log = notice("AT/ncb").envelope(), list[Recorded]()
    holders = Holders(lambda number: log[number].leaf, lambda number: log[number])
    assert holders.take(told(log, corrected(gone, 2), None, "GE/ncb")) == ""
    restriction = notice("AT/ncb", kind="restriction", parts=("reason",))
    assert holders.take(told(log, restriction.but(references=(reference(gone, "restricts"),)).envelope(), None)) == ""


def test_notices_that_meet_in_one_bucket_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million notices many do."""
    monkeypatch.setattr("broker.holders.BUCKETS", 1)
    log = list[Recorded]()
    holders = Holders(lambda number: log[number].leaf, lambda number: log[number])
    first, second, third = (notice("AT/ncb").envelope() for _ in range(3))
    for each in (first, second, third):
        assert holders.take(told(log, each, None, "GE/ncb")) == ""
    for leaf, each in ((2, third), (0, first), (1, second)):
        said = holders.take(told(log, end(each).envelope(), None, "GE/ncb"))
        assert said == f"does not say that it ends the notice of leaf {leaf}"


@pytest.mark.parametrize(("lost", "said"), [(False, "is taken in although leaf 0 had corrected it"), (True, "")])
def test_nor_where_leaves_were_lost_of_what_corrects_one_of_them_and_comes_once_more(*, lost: bool, said: str) -> None:
    """An order then ends the notice that came again, and not its correction, of which the broker knows no more."""
    first, log = notice("AT/ncb").envelope(), list[Recorded]()
    holders = Holders(lambda number: log[number].leaf, lambda number: log[number])
    holders.has_lost = lost
    assert holders.take(told(log, corrected(first, 2), None, "GE/ncb")) == ""
    assert holders.take(told(log, first, None, "LV/ncb")) == said
    order = replace(end(first), issuer=AUTHORITY).envelope()
    assert holders.take(told(log, order, 1, "LV/ncb", "AT/ncb")) == ""


async def test_from_where_holders_are_not_followed_any_more_is_told_and_how_many_decisions_come_after(
    federation: Federation,
) -> None:
    bench = Bench(federation)
    first = notice("AT/ncb").envelope()
    second = corrected(first, 2)
    leaves = [(await bench.publish(each)).leaf_number for each in (first, second, corrected(second, 3), notice())]
    await federation.settled()
    with closing(Records(federation.folder / "records.db")) as records:
        trail = Trail.open(federation.trail)
        whole = recheck(trail, records, lambda _: None, {})
        found = recheck(trail, records, lambda _: None, {}, looks=-2 * LOOKS_A_LEAF)
    assert (whole.findings, whole.unfollowed) == ([], 0)
    assert [(each.place, each.what) for each in found.findings] == [(f"leaf {leaves[0]}", UNFOLLOWED)]
    assert (found.wrong, found.unfollowed) == (1, len(leaves) + 1)  # the last one is `settled`
    # Its finding may come after a hundred others, and is not listed then.
    said = dict(Decisions(found, ()).lines())["not followed"]
    assert said.startswith(f"{len(leaves) + 1} decisions from leaf {leaves[0]} on: ")


def test_a_member_cannot_use_up_the_looks_of_an_honest_log_however_long_its_records_become() -> None:
    """It corrects and restricts a record again and again; then each version is ended by order, the oldest last."""
    log, looks = list[Recorded](), list[int]()

    def find(number: int) -> Recorded:
        looks.append(number)
        return log[number]

    holders = Holders(lambda number: log[number].leaf, find)
    versions = [notice("AT/ncb").envelope()]
    said = [holders.take(told(log, versions[0], None, "LV/ncb"))]
    for number in range(2, 300):
        about = len(log) - 2 if number > 2 else 0
        versions.append(corrected(versions[-1], number))
        said.append(holders.take(told(log, versions[-1], about, "LV/ncb")))
        said.append(holders.take(told(log, end(versions[-1], "restriction").envelope(), len(log) - 1, "LV/ncb")))
    tip = len(log) - 2
    for each in reversed(versions):
        order = replace(end(each), issuer=AUTHORITY).envelope()
        holding = ("LV/ncb",) if each is versions[-1] else ()
        said.append(holders.take(told(log, order, tip, *holding, "AT/ncb")))
    assert set(said) == {""}
    assert len(looks) < 4 * len(log)


@pytest.mark.parametrize("lie", ["row", "end"])
def test_one_lie_costs_no_walk_through_all_versions_of_another_record(lie: str) -> None:
    """ZZ stands once at the index of LV, whose record a member then corrects and restricts for ever; or the end of its
    first version, which was replaced, comes again and again."""
    log, looks = list[Recorded](), list[int]()

    def find(number: int) -> Recorded:
        looks.append(number)
        return log[number]

    holders = Holders(lambda number: log[number].leaf, find)
    other = notice("AT/ncb").envelope()
    holders.take(told(log, other, None, "ZZ/ncb" if lie == "row" else "LV/ncb"))
    holders.take(told(log, end(other).envelope(), 0, "ZZ/ncb" if lie == "row" else "LV/ncb"))
    first = last = notice("AT/ncb").envelope()
    said, about = [holders.take(told(log, first, None, "LV/ncb"))], len(log) - 1
    begun = about
    for version in range(2, 450):
        last = corrected(last, version)
        said.append(holders.take(told(log, last, about, "LV/ncb")))
        about = len(log) - 1
        if lie == "row":
            said.append(holders.take(told(log, end(last, "restriction").envelope(), about, "LV/ncb")))
        else:
            to = ("LV/ncb",) if version == 2 else ()
            said.append(holders.take(told(log, end(first).envelope(), begun, *to)))
    assert set(said) == {""}
    assert len(looks) < 4 * len(log)
    assert holders.goes_on()


def test_who_was_given_a_notice_under_anothers_index_is_a_holder_beside_the_other() -> None:
    first, log = notice("AT/ncb").envelope(), list[Recorded]()
    holders = Holders(lambda number: log[number].leaf, lambda number: log[number])
    second = corrected(first, 2)
    assert holders.take(told(log, first, None, "ZZ/ncb", "GE/ncb")) == ""
    correction = told(log, second, 0, "LV/ncb")
    assert holders.holding(correction) == 0b11
    assert holders.take(correction) == ""
    withdrawal = told(log, end(second).envelope(), 1, "LV/ncb")
    assert holders.take(withdrawal) == "ends the notice of leaf 1 and does not tell ZZ/ncb, GE/ncb"


def test_who_is_not_told_is_named_and_those_beyond_the_first_are_counted() -> None:
    assert (few(()), few("abcde"), few("abcdefg")) == ("", "a, b, c, d, e", "a, b, c, d, e and 2 more")
