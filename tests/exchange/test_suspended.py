"""A suspended agreement permits nothing new, but what went out under it can still be corrected and withdrawn."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from broker import codec, members, redecide, streams
from broker.directory import NO_ANNEX, Directory
from broker.notice import Audience, DecisionRecord, Entry, Envelope, Leaf
from broker.recheck import Grounds, recheck
from broker.recorded import Recorded, remember
from broker.records import Records
from broker.rules import PolicySet, Rules
from broker.signing import decision_digest
from broker.trail import Trail
from tests import federation as world
from tests.attacks.scene import write_records, write_trail
from tests.federation import Federation
from tests.making import Draft, reference

POLICIES = PolicySet.packaged()
(CIRCLE,) = world.directory().agreements
CASE = "case.one"
HOLDERS, LATE = ("GE/ncb", "LV/ncb"), "LV/organised-crime"
"""Who was given the first version, and who is of the circle and subscribed after it."""
SUSPENDED = world.directory(2, agreements=(CIRCLE.model_copy(update={"status": "suspended"}),))


def one(number: int, of: Envelope | None = None, relation: str = "corrects", **more: object) -> Draft:
    """A version of a record that is meant for the circle only."""
    made = Draft("AT/ncb", **more)  # type: ignore[arg-type] # kind and parts
    made = made.routed(audience=Audience(everyone=False, agreements=(CIRCLE.id,)))
    refers = (reference(of, relation),) if of else ()
    return made.numbered(number).but(record="r-1", version=number, topics=(CASE,), references=refers)


async def corrected(federation: Federation) -> tuple[Envelope, Envelope]:
    """Publish two versions, between which the circle is suspended and one more of it subscribes."""
    for bureau in HOLDERS:
        await federation.subscribe(bureau, CASE)
    first = one(1).envelope()
    await federation.publish(first)
    await federation.inbox(HOLDERS[0], 1)
    await federation.subscribe(LATE, CASE)
    await world.write_versions(federation.bus, SUSPENDED)
    second = one(2, first).envelope()
    await federation.publish(second)
    await federation.inbox(HOLDERS[0], 2)
    return first, second


async def entries(federation: Federation) -> list[Entry]:
    """Everything on the trail, with its decision records."""
    found = await federation._records(streams.TRAIL, 0)
    return [codec.decode(Entry, value) for key, value in found if key == b"entry"]


def decided(found: list[Entry]) -> list[Recorded]:
    """What was decided on the record of these tests."""
    every = (remember(each.leaf_number, each.leaf, each.decision_salt, each.decision) for each in found)
    return [each for each in every if each and each.header.record == "r-1"]


def directories() -> dict[bytes, Directory]:
    """Both directories, by digest."""
    parsed = [members.parse(members.canonical(each)) for each in (world.directory(), SUSPENDED)]
    return {each.digest: each for each in parsed}


def examined(folder: Path, found: list[Entry], *, policies: bool = True) -> list[str]:
    """What the auditor finds wrong with these books."""
    known = directories() if policies else {}
    grounds = {digest: Grounds(each, Rules.load(POLICIES, each, NO_ANNEX)) for digest, each in known.items()}
    write_trail(folder / "books", [each.leaf for each in found], world.LOG_KEY)
    write_records(folder / "decisions.db", found)
    with closing(Records(folder / "decisions.db")) as records:
        told = recheck(Trail.open(folder / "books"), records, lambda leaf: grounds.get(leaf.directory), {})
    return [f"{each.place}: {each.what}" for each in told.findings]


async def test_a_correction_reaches_those_of_the_circle_who_hold_what_it_corrects_and_nobody_else(
    federation: Federation,
) -> None:
    await corrected(federation)
    await federation.publish(one(3).but(record="r-2", version=1).envelope())
    await federation.settled()
    for bureau in HOLDERS:
        had, got = await federation.inbox(bureau)
        assert got.delivery.replaces == (had.delivery.delivery_number,)
        assert (had.header.version, got.header.version) == (1, 2)
    assert await federation.inbox(LATE) == []


async def test_a_withdrawal_reaches_all_who_hold_it(federation: Federation) -> None:
    _, second = await corrected(federation)
    await federation.publish(one(3, second, "withdraws", kind="withdrawal", parts=("reason",)).envelope())
    for bureau in HOLDERS:
        _, _, end = await federation.inbox(bureau, 3)
        assert end.delivery.erases != ()
    assert await federation.inbox(LATE) == []


async def test_what_was_decided_can_be_repeated_and_the_auditor_finds_it_good(
    federation: Federation, tmp_path: Path
) -> None:
    await corrected(federation)
    await federation.settled()
    found = await entries(federation)
    (before, after), known = decided(found), directories()
    for each, subscribed in ((before, HOLDERS), (after, (*HOLDERS, LATE))):
        patterns = dict.fromkeys(subscribed, (CASE,))
        grounds = redecide.Grounds(known[each.leaf.directory], NO_ANNEX, POLICIES, patterns)
        assert redecide.redecide(each, grounds).differences == ()
    assert (before.record.holders, after.record.holders) == (None, before.terms.receivers)
    assert examined(tmp_path, found) == []
    assert examined(tmp_path, found, policies=False) == []


def bent(found: list[Entry], holders: int | None) -> list[Entry]:
    """Books in which the correction names these holders, and receivers as they follow from them."""
    number = decided(found)[1].leaf_number
    entry = found[number]
    record = codec.decode(DecisionRecord, entry.decision)
    decision = codec.encode(replace(record, holders=holders))
    leaf = replace(codec.decode(Leaf, entry.leaf), decision=decision_digest(entry.decision_salt, decision))
    return [*found[:number], replace(entry, leaf=codec.encode(leaf), decision=decision), *found[number + 1 :]]


@pytest.mark.parametrize("policies", [True, False])
async def test_an_operator_who_names_a_holder_too_many_is_found_out(
    federation: Federation, tmp_path: Path, *, policies: bool
) -> None:
    await corrected(federation)
    await federation.settled()
    found = await entries(federation)
    before = decided(found)[1].record.holders or 0
    late = 1 << world.BUREAUS.index(LATE)
    told = examined(tmp_path, bent(found, before | late), policies=policies)
    assert any("said to hold what it corrects, and was never given it" in each for each in told)
    assert any(LATE in each for each in told) is policies


@pytest.mark.parametrize("left", [0, None])
async def test_an_operator_who_leaves_a_holder_out_is_found_out(
    federation: Federation, tmp_path: Path, left: int | None
) -> None:
    first, second = await corrected(federation)
    assert first != second
    await federation.publish(one(3, second).envelope())
    await federation.settled()
    found = await entries(federation)
    told = examined(tmp_path, bent(found, left))
    assert any("GE/ncb" in each and "in the audience" in each for each in told)
    assert any("is not said to hold it" in each for each in told) is (left is not None)
