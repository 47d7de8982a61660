"""Policy sets that would end the broker's process, or never end, are refused; the old one stays in force."""

from __future__ import annotations

import pytest

from broker.rules import SCHEMA, PolicySet
from tests import federation as world
from tests.federation import Federation
from tests.making import Draft

PACKAGED = PolicySet.packaged()
RULE = (
    '\n// It says something.\n@id("r{}") @owner("o") @basis("b")\npermit (principal, action, resource) when {{ {} }};'
)


def with_rules(*conditions: str) -> PolicySet:
    """Our own set and more rules in its last file."""
    last = PACKAGED.policy_files[-1]
    more = "".join(RULE.format(place, condition) for place, condition in enumerate(conditions))
    return PolicySet.of({**PACKAGED.files, last: PACKAGED.files[last] + more})


KILLING = {
    "brackets that overflow the stack of Cedar's reader": with_rules(f"{'(' * 5_000}true{')' * 5_000}"),
    "a chain that does": with_rules(f"{'true && ' * 20_000}true"),
    "what Cedar does not look at behind a constant": with_rules("false && resource.kind < 3"),
    "ten thousand rules": with_rules(*["true"] * 10_000),
    "a cyclic group": PolicySet.of(
        {**PACKAGED.files, SCHEMA: PACKAGED.files[SCHEMA].replace("action see;", "action see in [see];")}
    ),
    "half a character": PolicySet({}, b'{"files":{"one.cedar":"\\ud800"}}', b""),
}


@pytest.mark.parametrize("policies", KILLING.values(), ids=KILLING)
async def test_a_set_that_would_kill_is_refused_and_the_old_one_stays(
    federation: Federation, policies: PolicySet
) -> None:
    await world.write_versions(federation.bus, policies=policies)
    await federation.publish(Draft("AT/ncb").to("GE/ncb").envelope())
    (got,) = await federation.inbox("GE/ncb", 1)
    assert got.leaf.policies == PACKAGED.digest
    assert [each.kind for each in await federation.leaves()].count("version-refused") == 1
