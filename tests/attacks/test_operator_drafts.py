"""The operator drafts what members sign: nobody signs what it was not shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.errors import VersionRefusedError
from broker.rules import PolicySet
from broker.signing import SigningKey
from broker.trust import draft, roles
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from cli.trust import wording
from tests.making import NOW
from tests.trust import signed_world as world
from tests.trust.signed_world import first_content, next_draft, opened


@pytest.fixture(scope="module")
def first() -> Opened:
    return opened(first_content())


def envelope(role: str, text: bytes, version: int) -> str:
    return roles.text_of(roles.written(draft._signing(role, text, version - 1, NOW)))


def nobody_signs(made: Draft, base: Opened, reason: str) -> None:
    """Neither shown nor signed by anybody, whatever keys lie there."""
    with pytest.raises(VersionRefusedError, match=reason):
        wording.changes(made, base)
    with pytest.raises(VersionRefusedError, match=reason):
        draft.plain_after(made, base)
    for member in world.ENTERED:
        with pytest.raises(VersionRefusedError, match=reason):
            draft.sign(made, base, member, [world.root_key(member), world.member_key(member)])


def with_another_key(said: dict[str, Any]) -> None:
    public = SigningKey.new().public
    key = {"key_id": public.id.hex(), "bureau": "AT/ncb", "algorithm": "ed25519", "public": public.raw.hex()}
    said["keys"].append(key | {"valid_from": NOW, "valid_until": NOW + 1000})


def with_one_signature(said: dict[str, Any]) -> None:
    said["agreement"]["title"] = "mine"


def with_another_reviewer(said: dict[str, Any]) -> None:
    said["reviewers"] = ["RU/ncb"]


@pytest.mark.parametrize(
    ("role", "change"),
    [("AT", with_another_key), ("agreement-circle", with_one_signature), ("federation", with_another_reviewer)],
)
def test_the_operator_has_a_member_sign_another_file_than_it_is_shown(
    first: Opened, role: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """The envelope signs his file, the file beside it is the genuine one: `is not the one that is listed`."""
    genuine = first.written.files[roles.path_of(role)]
    evil = json.loads(genuine)
    change(evil)
    signs = {role: envelope(role, draft.json_of(evil), first.seen[role][0] + 1)}
    made = Draft(title="renewed", by="operator", roles=signs, files={roles.path_of(role): genuine})
    nobody_signs(made, first, f"{role}: is not the one that is listed")


def test_the_operator_has_members_sign_another_policy_set_than_they_are_shown(first: Opened) -> None:
    """He swaps the set beside the envelope; or adds a set that no envelope is for."""
    made = draft.propose_policies(PolicySet.packaged().content, 1, "AT", NOW)
    nobody_signs(made.model_copy(update={"policies": "{}"}), first, "policies: is not the one that is listed")
    bare = next_draft(first, world.changed_name(first, "AT", "Vienna"))
    nobody_signs(bare.model_copy(update={"policies": "{}"}), first, "policies: the set is signed by nobody")


def test_the_operator_hides_a_second_file_under_one_signature(first: Opened) -> None:
    """The envelope lists the file that is shown and another member's, or hands roles on."""
    text = first.written.files["members/AT.json"]
    both = draft._signing("AT", text.encode(), first.seen["AT"][0], NOW)
    both.targets |= draft._signing("GE", b"{}", 0, NOW).targets
    handed = draft._signing("AT", text.encode(), first.seen["AT"][0], NOW)
    handed.delegations = first.targets.delegations
    for signed in (both, handed):
        signs = {"AT": roles.text_of(roles.written(signed))}
        made = Draft(title="renewed", by="operator", roles=signs, files={"members/AT.json": text})
        nobody_signs(made, first, "AT: signs members/AT.json and nothing else")


def test_the_operator_shows_a_file_that_nobody_is_asked_to_sign(first: Opened) -> None:
    """What is shown as changed would not be: `is signed by nobody`."""
    made = next_draft(first, world.changed_name(first, "AT", "Vienna"))
    files = made.files | {"members/GE.json": first.written.files["members/GE.json"]}
    nobody_signs(made.model_copy(update={"files": files}), first, "members/GE.json: is signed by nobody")


def test_the_operator_has_a_member_sign_over_a_number_that_is_in_force(first: Opened) -> None:
    """Whoever has not seen the one in force yet could be given the other: `does not follow version 1`."""
    made = next_draft(first, world.changed_name(first, "AT", "Vienna"))
    signs = {"AT": envelope("AT", made.files["members/AT.json"].encode(), first.seen["AT"][0])}
    nobody_signs(made.model_copy(update={"roles": signs}), first, "AT: version 1 does not follow version 1")


def test_the_operator_has_an_agreement_signed_that_he_does_not_show(first: Opened) -> None:
    """New delegations leave it out, so that its file is never looked at; its envelope would count under the old ones."""
    made = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    targets = roles.read(type(first.targets), roles.envelope_of(made.roles["targets"], "targets"), "targets")
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    del targets.delegations.roles["agreement-circle"]
    evil = json.loads(first.written.files["agreements/circle.json"])
    with_one_signature(evil)
    text = draft.json_of(evil)
    signs = {
        "targets": roles.text_of(roles.written(targets)),
        "agreement-circle": envelope("agreement-circle", text, 2),
    }
    made = Draft(title="RU enters", by="operator", roles=signs, files={"agreements/circle.json": text.decode()})
    nobody_signs(made, first, "agreement-circle: nobody was given this role")
