"""A policy set is adopted or refused as a whole, by the broker itself; meanwhile and whatever it says, ends arrive."""

from __future__ import annotations

import pytest

from broker.notice import Leaf
from broker.rules import PolicySet
from tests import federation as world
from tests.federation import Federation
from tests.making import Draft, reference
from tests.policy.remembered import PACKAGED

HEAD = '// A rule.\n@id("more") @owner("o") @basis("b")\n'
NOTHING = PolicySet.of(
    {
        "schema.cedarschema": PACKAGED.files["schema.cedarschema"],
        "none.cedar": f"{HEAD}forbid (principal, action, resource);",
        "cases/none.toml": '[world.bureaus]\n"AT/ncb" = []\n"GE/ncb" = []\n[[case]]\nname = "n"\n'
        'notice = { issuer = "AT/ncb", everyone = true }\nreceive = []',
    }
)
WIDE_OPEN = PolicySet.of(
    {
        "schema.cedarschema": PACKAGED.files["schema.cedarschema"],
        "all.cedar": '// All is permitted.\n@id("all") @owner("o") @basis("b")\npermit (principal, action, resource);',
        "cases/all.toml": '[world.bureaus]\n"AT/ncb" = []\n"GE/ncb" = []\n[[case]]\nname = "n"\n'
        'notice = { issuer = "AT/ncb", everyone = true }\nreceive = ["GE/ncb"]',
    }
)
BROKEN = PolicySet.of({**PACKAGED.files, "02-mandate.cedar": "permit (principal"})


async def written(federation: Federation, policies: PolicySet) -> Leaf:
    """Write a set as the operator does; give the leaf that says what became of it."""
    before = len([each for each in await federation.leaves() if each.kind in ("adopted", "version-refused")])
    await world.write_versions(federation.bus, policies=policies)
    await federation.settled("LV/organised-crime")
    found = [each for each in await federation.leaves() if each.kind in ("adopted", "version-refused")]
    assert len(found) == before + 1
    return found[-1]


@pytest.mark.parametrize("policies", [WIDE_OPEN, BROKEN], ids=["lets everybody in", "does not parse"])
async def test_a_bad_set_is_refused_by_the_broker_and_the_old_one_stays_in_force(
    federation: Federation, policies: PolicySet
) -> None:
    leaf = await written(federation, policies)
    assert (leaf.kind, leaf.policies) == ("version-refused", PACKAGED.digest)
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    await federation.settled()
    assert len(await federation.inbox("GE/ncb")) == 1
    assert await federation.inbox("RU/ncb") == []
    assert (await federation.leaves())[-1].policies == PACKAGED.digest


async def test_a_withdrawal_arrives_under_a_set_that_forbids_everything_and_after_a_broken_one(
    federation: Federation,
) -> None:
    first = Draft("AT/ncb").to("GE/ncb", "LV/ncb").but(record="r-1").envelope()
    await federation.publish(first)
    await federation.inbox("LV/ncb", 1)
    assert (await written(federation, BROKEN)).kind == "version-refused"

    await world.write_versions(federation.bus, policies=NOTHING)
    withdrawal = Draft("AT/ncb", kind="withdrawal", parts=("reason",)).numbered(2)
    refers = withdrawal.but(record="r-1", version=2, references=(reference(first, "withdraws"),))
    await federation.publish(refers.envelope())
    for bureau in ("GE/ncb", "LV/ncb"):
        (had, end) = await federation.inbox(bureau, 2)
        assert end.delivery.erases == (had.delivery.delivery_number,)
        assert end.leaf.policies == NOTHING.digest


async def test_going_back_is_writing_the_old_version_again(federation: Federation) -> None:
    await world.write_versions(federation.bus, policies=NOTHING)
    await world.write_versions(federation.bus, policies=PACKAGED)
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    assert got.leaf.policies == PACKAGED.digest
    adopted = [each.policies for each in await federation.leaves() if each.kind == "adopted"]
    assert adopted[-2:] == [NOTHING.digest, PACKAGED.digest]
