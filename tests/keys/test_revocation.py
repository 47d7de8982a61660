"""A revocation ends a key at its leaf, everybody is told, and what it puts in doubt can be found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from broker import codec
from broker.key_use import KeyUse
from broker.members import canonical, parse
from broker.notice import Outcome, Revocation, Statement
from broker.records import Records
from broker.register import Register
from broker.streams import notices
from broker.trail import Trail
from tests import federation as world
from tests.federation import Federation
from tests.making import FEDERATION, NOW, Draft, key_of, receipt, statement

OLD, SECOND, SIBLING = key_of("AT/ncb"), key_of("AT/ncb", 1), key_of("AT/organised-crime")
HOUR = 3_600_000


def revocation(signer: str = "AT/organised-crime", generation: int = 0, **changed: object) -> bytes:
    """A revocation of the first key of AT/ncb."""
    said: dict[str, object] = {
        "federation": FEDERATION, "bureau": signer, "key_id": OLD.public.id, "reason": "stolen", "at": NOW,
        "compromised_since": None,
    }  # fmt: skip
    return statement(Revocation(**(said | changed)), key_of(signer, generation))  # type: ignore[arg-type] # by name


async def said(federation: Federation, value: bytes, member: str = "AT") -> Outcome:
    """Put a statement on a member's stream; give what the member is told."""
    before = len(await federation.outcomes(member))
    await federation.append(notices(member), value)
    return (await federation.outcomes(member, before + 1))[before]


async def published(federation: Federation, number: int, generation: int = 0, at: int = NOW) -> Outcome:
    """Publish a notice of AT/ncb to GE and LV at a time; give its outcome."""
    federation.clock.now = max(federation.clock.now, at)
    before = len(await federation.outcomes("AT"))
    draft = Draft("AT/ncb", key=key_of("AT/ncb", generation)).to("GE/ncb", "LV/ncb").numbered(number)
    await federation.publish(draft.envelope())
    return (await federation.outcomes("AT", before + 1))[before]


@pytest.mark.parametrize(
    ("signer", "generation"),
    [("AT/organised-crime", 0), ("AT/ncb", 1), ("AT/ncb", 0)],
    ids=["sibling", "next", "itself"],
)
async def test_a_member_revokes_with_any_key_in_force(federation: Federation, signer: str, generation: int) -> None:
    assert (await said(federation, revocation(signer, generation))).kind == "revoked"
    assert (await published(federation, 1)).code == "key-revoked"
    assert (await published(federation, 1, generation=1)).kind == "routed"


async def test_another_member_revokes_nothing(federation: Federation) -> None:
    assert (await said(federation, revocation("LV/ncb"), "LV")).code == "unknown-key"
    assert (await published(federation, 1)).kind == "routed"


async def test_a_revoked_key_revokes_no_other(federation: Federation) -> None:
    """A thief who is found out cannot take the rest of the member's keys with him."""
    assert (await said(federation, revocation())).kind == "revoked"
    assert (await said(federation, revocation("AT/ncb", 0, key_id=SIBLING.public.id))).code == "key-revoked"
    assert (await said(federation, revocation("AT/ncb", 0, key_id=SECOND.public.id))).code == "key-revoked"


async def test_a_thief_who_revokes_every_other_key_is_still_ended(federation: Federation) -> None:
    """The member has the stolen key, too: it revokes itself."""
    for key in (SECOND, SIBLING):
        assert (await said(federation, revocation("AT/ncb", 0, key_id=key.public.id))).kind == "revoked"
    assert (await said(federation, revocation("AT/ncb", 0))).kind == "revoked"
    assert (await published(federation, 1)).code == "key-revoked"


async def test_a_revocation_holds_from_its_leaf_on_and_not_before(federation: Federation) -> None:
    assert (await published(federation, 1)).kind == "routed"
    await federation.append("notices.at", revocation())
    await federation.publish(Draft("AT/ncb").numbered(2).envelope())
    told = [(each.kind, each.code) for each in await federation.outcomes("AT", 3)]
    assert told == [("routed", None), ("revoked", None), ("rejected", "key-revoked")]


async def test_everybody_is_told_with_the_members_own_signature(federation: Federation) -> None:
    value = revocation(compromised_since=NOW - HOUR)
    await said(federation, value)
    for member in world.MEMBERS:
        (told,) = [each for each in await federation.outcomes(member, 1) if each.kind == "revoked"]
        assert told.statement == value
        assert told.proof


async def test_a_second_revocation_that_reaches_further_back_counts_another_does_not(federation: Federation) -> None:
    kinds = [
        (await said(federation, revocation(compromised_since=since, at=NOW + number))).kind
        for number, since in enumerate([None, NOW - HOUR, NOW - HOUR, NOW, None, NOW - 2 * HOUR])
    ]
    assert kinds == ["revoked", "revoked", "repeated", "repeated", "repeated", "revoked"]


@pytest.mark.parametrize("changed", [{"compromised_since": NOW + HOUR}, {"compromised_since": -1}, {"reason": "dull"}])
async def test_a_revocation_that_makes_no_sense_is_refused(federation: Federation, changed: dict[str, object]) -> None:
    assert (await said(federation, revocation("AT/organised-crime", 0, **changed))).code == "invalid-field"
    assert (await published(federation, 1)).kind == "routed"


async def test_what_was_recorded_since_the_key_was_compromised_is_listed_with_its_holders(
    federation: Federation,
) -> None:
    await published(federation, 1, at=NOW)
    doubted = [await published(federation, 2, at=NOW + HOUR), await published(federation, 3, at=NOW + 2 * HOUR)]
    await published(federation, 4, generation=1, at=NOW + 2 * HOUR)
    await said(federation, revocation(compromised_since=NOW + HOUR))

    with looking(federation) as use:
        (found,) = use.revocations().values()
        listed = use.in_doubt(found, parse(canonical(world.directory())))

    assert [(each.leaf_number, each.issuer) for each in listed] == [(each.leaf_number, "AT/ncb") for each in doubted]
    assert {each.holders for each in listed} == {("LV/ncb", "GE/ncb")}
    assert [each.recorded_at for each in listed] == [NOW + HOUR, NOW + 2 * HOUR]


async def test_who_signs_with_which_key_is_known(federation: Federation) -> None:
    await published(federation, 1, at=NOW)
    held = await published(federation, 2, generation=1, at=NOW + HOUR)
    digest = (await federation.leaves())[held.leaf_number].header_digest
    assert digest
    federation.clock.now = NOW + 2 * HOUR
    await federation.append("receipts.ge", receipt("GE/ncb", held.leaf_number, digest, "AT"))
    await federation.settled()

    looked_at = list[int]()
    with looking(federation) as use:
        ever, lately = use.since(0, lambda done, _: looked_at.append(done)), use.since(NOW + HOUR)
        of_at, of_ge = (use.since(0, members=[each]) for each in ("AT", "GE"))

    assert (ever[OLD.public.id].last, ever[SECOND.public.id].last) == (NOW + 2 * HOUR, NOW + HOUR)
    assert ever[key_of("GE/ncb").public.id].last == NOW + 2 * HOUR
    # `settled` publishes with the old key, once.
    assert (ever[OLD.public.id].signed, lately[OLD.public.id].signed) == (2, 1)
    assert of_at == ever, "where a member is named the notices of others are not looked at, their statements are"
    assert (OLD.public.id in of_ge, key_of("GE/ncb").public.id in of_ge) == (False, True)
    assert looked_at == list(range(1, len(looked_at) + 1))
    assert len(looked_at) > sum(each.signed for each in ever.values()), "what nobody signed is looked at, too"


@contextmanager
def looking(federation: Federation) -> Iterator[KeyUse]:
    """Look at the broker's files while it runs."""
    folder = federation.folder
    with closing(Register(folder / "register.db")) as register, closing(Records(folder / "records.db")) as records:
        yield KeyUse(register, records, Trail.open(federation.trail))


def test_the_statement_travels_as_it_was_signed() -> None:
    payload = codec.decode(Revocation, codec.decode(Statement, revocation(compromised_since=NOW)).payload)
    assert payload.compromised_since == NOW
