"""What a signed directory says, and what nobody can make it say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from securesystemslib.signer import Key  # type: ignore[attr-defined] # not in __all__
from tuf.api.dsse import SimpleEnvelope
from tuf.api.metadata import (  # type: ignore[attr-defined] # not in __all__
    DelegatedRole,
    Delegations,
    Targets,
)

from broker.errors import VersionRefusedError
from broker.notice import CLOCK_SKEW_MS
from broker.streams import DAY_MS
from broker.trust import bundle, draft, roles
from broker.trust.bundle import Opened, Trust, WrittenBundle
from tests.making import NOW, key_of
from tests.trust import signed_world as world
from tests.trust.signed_world import changed_name, content, first_content, first_draft, next_draft, opened, signed_by


@pytest.fixture(scope="module")
def first() -> Opened:
    return opened(first_content())


def test_a_bundle_adds_up_to_the_directory_that_was_proposed(first: Opened) -> None:
    def order(each: dict[str, str]) -> str:
        return each["bureau"]

    wanted = world.plain() | {"version": 1}
    assert json.loads(first.plain) == wanted | {"keys": sorted(wanted["keys"], key=order)}
    assert first.directory.key(key_of("AT/ncb").public.id) is not None
    assert first.entered == {"AT", "LV", "GE"}


def test_the_same_signatures_make_the_same_bytes() -> None:
    assert first_content() == first_content()


def test_the_operator_has_no_other_role_than_snapshot_and_timestamp(first: Opened) -> None:
    assert {roles.owner(each) for each in delegations(first).keys.values()} == {"AT", "LV", "GE"}
    owners = {role: {roles.owner(first.root.keys[each]) for each in given.keyids}
              for role, given in first.root.roles.items()}  # fmt: skip
    assert owners == {
        "root": {"AT", "LV", "GE"},
        "targets": {"AT", "LV", "GE"},
        "snapshot": {"operator"},
        "timestamp": {"operator"},
    }


def test_one_signature_too_few_is_refused() -> None:
    with pytest.raises(VersionRefusedError, match="root: 1 more must sign: GE, LV"):
        content(first_draft(), signers=["AT"])


def test_two_keys_of_one_member_are_one_signature(first: Opened) -> None:
    pens = [roles.Pen(world.seeded(f"AT/{each}"), "AT") for each in "ab"]
    keys = [each.public_key for each in pens] + [roles.listed(world.member_key("LV").public, "LV")]
    given = delegations(first)
    changed = replace_policies(given, roles.delegated("policies", keys, 2), keys)
    envelope = roles.written(draft._signing("policies", b"{}", 0, NOW))
    for pen in pens:
        envelope.sign(pen)
    with pytest.raises(VersionRefusedError, match="policies: signed by AT: 1 more of 2 different members"):
        roles.check_signed(changed, "policies", envelope)


def test_a_role_whose_keys_are_all_one_members_is_no_joint_role(first: Opened) -> None:
    keys = [roles.listed(world.seeded(f"AT/{each}").public, "AT") for each in "ab"]
    with pytest.raises(VersionRefusedError, match="policies: asks for 2 members' signatures, but has fewer members"):
        roles.check_delegations(replace_policies(delegations(first), roles.delegated("policies", keys, 2), keys))


def test_one_key_under_two_ids_is_refused(first: Opened) -> None:
    key = roles.listed(world.member_key("AT").public, "AT")
    twin = roles.listed(world.member_key("AT").public, "LV")
    twin.keyid = "ab" * 32
    with pytest.raises(VersionRefusedError, match="no Ed25519 key of a member"):
        roles.check_delegations(
            replace_policies(delegations(first), roles.delegated("policies", [key, twin], 2), [key, twin])
        )


def delegations(of: Opened) -> Delegations:
    assert of.targets.delegations is not None
    return of.targets.delegations


def replace_policies(given: Delegations, policies: DelegatedRole, keys: list[Key]) -> Targets:
    changed = Delegations(
        given.keys | {each.keyid: each for each in keys}, (given.roles or {}) | {"policies": policies}
    )
    return Targets(9, None, roles.at(NOW + DAY_MS), {}, changed)


def test_a_signature_given_twice_counts_once() -> None:
    signed = signed_by(first_draft(), None, "AT", "AT")
    assert [each.missing for each in draft.standings(signed, None) if each.role == "root"] == [1]


def test_two_copies_signed_apart_make_one_draft() -> None:
    apart = [signed_by(first_draft(), None, each) for each in ("AT", "LV", "GE")]
    assert content(draft.merge(apart), signers=()) == first_content()


def test_roles_that_are_not_ones_own_to_sign_are_not_merged_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member signs a role or two of hundreds: what it costs grows with their number, not with its square."""
    made, read = first_draft(), list[str]()
    envelope_of = roles.envelope_of

    def counted(text: str, role: str) -> SimpleEnvelope[Any]:
        read.append(role)
        return envelope_of(text, role)

    monkeypatch.setattr(roles, "envelope_of", counted)
    assert draft.sign(made, None, "RU", [world.root_key("RU"), world.member_key("RU")]) == (made, [])
    assert len(read) <= 4 * (len(made.roles) + len(made.roots))


def test_copies_of_different_drafts_are_not_merged(first: Opened) -> None:
    one, other = (next_draft(first, changed_name(first, "AT", each)) for each in ("A", "B"))
    with pytest.raises(VersionRefusedError, match="not copies of one draft"):
        draft.merge([one, other])


def test_a_member_alone_changes_its_bureaus(first: Opened) -> None:
    made = next_draft(first, changed_name(first, "AT", "Vienna"))
    assert list(made.roles) == ["AT"]
    after = opened(content(made, first, ["AT"]), first)
    assert after.directory.bureaus["AT/ncb"].name == "Vienna"
    assert (after.directory.version, first.directory.version) == (2, 1)


def test_nobody_else_changes_a_members_bureaus(first: Opened) -> None:
    made = next_draft(first, changed_name(first, "AT", "Vienna"))
    with pytest.raises(VersionRefusedError, match="AT: 1 more must sign: AT"):
        content(made, first, ["LV", "GE"])


def _with_file(of: bytes, role: str, key: str, change: Callable[[dict[str, list[dict[str, object]]]], None]) -> bytes:
    """The operator's forgery: another file for a role, signed with `key`, and all that the operator can sign anew."""
    written = bundle.read_bundle(of)
    said = json.loads(written.files[roles.path_of(role)])
    change(said)
    text = roles.canonical(said)
    old = json.loads(roles.envelope_of(written.roles[role], role).payload)
    envelope = roles.written(draft._signing(role, text, old["version"], NOW))
    envelope.sign(roles.Pen(world.seeded(key), role))
    return _restamped(written, {role: roles.text_of(envelope)}, {roles.path_of(role): text.decode()})


def _restamped(
    written: WrittenBundle, envelopes: dict[str, str], files: dict[str, str] | None = None, base: Opened | None = None
) -> bytes:
    """The bundle with these parts, snapshot and timestamp signed over them as only the operator can."""
    kept = {role: text for role, text in (written.roles | envelopes).items() if role not in ("snapshot", "timestamp")}
    base = base or opened(first_content())
    fake = draft.Draft(title="", by="operator", roles={}, files={})
    forged = Opened(**{name: getattr(base, name) for name in base.__slots__} | {
        "written": written.model_copy(update={"roles": kept, "files": written.files | (files or {})})
    })  # fmt: skip
    return draft.assemble(fake, forged, world.SNAPSHOT, world.TIMESTAMP, NOW)


def test_the_operator_cannot_give_a_bureau_a_key_of_its_own(first: Opened) -> None:
    def add(said: dict[str, list[dict[str, object]]]) -> None:
        public = world.seeded("operator's own").public
        said["keys"].append(
            {
                "key_id": public.id.hex(),
                "bureau": "AT/ncb",
                "algorithm": "ed25519",
                "public": public.raw.hex(),
                "valid_from": NOW - CLOCK_SKEW_MS,
                "valid_until": NOW + DAY_MS,
            }
        )

    with pytest.raises(VersionRefusedError, match="AT: signed by nobody"):
        opened(_with_file(first_content(), "AT", "snapshot", add), first)


def test_a_member_cannot_speak_of_anothers_bureau(first: Opened) -> None:
    def steal(said: dict[str, list[dict[str, object]]]) -> None:
        said["bureaus"][0]["id"] = "LV/ncb"

    with pytest.raises(VersionRefusedError, match="AT: speaks of LV/ncb, which is not its own"):
        opened(_with_file(first_content(), "AT", "AT/member", steal), first)


def test_the_joint_file_cannot_speak_for_a_member_that_has_entered(first: Opened) -> None:
    said = json.loads(first.written.files["federation.json"])
    said["bureaus"].append(json.loads(first.written.files["members/AT.json"])["bureaus"][0] | {"index": 40})
    files = {"federation": json.dumps(said).encode(), "AT": first.written.files["members/AT.json"].encode()}
    with pytest.raises(VersionRefusedError, match="speaks for AT, which speaks for itself"):
        bundle.added_up(files, first.targets, 2)


def test_an_older_bundle_is_refused_by_whoever_saw_a_newer(first: Opened) -> None:
    after = opened(content(next_draft(first, changed_name(first, "AT", "Vienna")), first, ["AT"]), first)
    with pytest.raises(VersionRefusedError, match="timestamp: version 1 is older than version 2"):
        opened(first_content(), after)


def test_one_role_rolled_back_inside_a_new_bundle_is_refused(first: Opened) -> None:
    after = opened(content(next_draft(first, changed_name(first, "AT", "Vienna")), first, ["AT"]), first)
    old = first.written
    mixed = _restamped(after.written, {"AT": old.roles["AT"]}, {"members/AT.json": old.files["members/AT.json"]}, after)
    with pytest.raises(VersionRefusedError, match="AT: version 1 is older than version 2"):
        opened(mixed, after)


def test_parts_of_two_bundles_do_not_make_one(first: Opened) -> None:
    after = opened(content(next_draft(first, changed_name(first, "AT", "Vienna")), first, ["AT"]), first)
    mixed = after.written.model_copy(update={"roles": after.written.roles | {"AT": first.written.roles["AT"]}})
    with pytest.raises(VersionRefusedError, match="AT: is not the one that is listed"):
        opened(mixed.content(), first)


def test_two_changes_with_one_number_cannot_be_swapped(first: Opened) -> None:
    one, other = (content(next_draft(first, changed_name(first, "AT", each)), first, ["AT"]) for each in ("A", "B"))
    seen = opened(one, first)
    with pytest.raises(VersionRefusedError, match="two different versions 2"):
        opened(other, seen)


def test_a_role_cannot_vanish(first: Opened) -> None:
    kept = {role: text for role, text in first.written.roles.items() if role != "GE"}
    files = {path: text for path, text in first.written.files.items() if path != "members/GE.json"}
    gone = _restamped(first.written.model_copy(update={"roles": kept, "files": files}), {})
    with pytest.raises(VersionRefusedError, match="GE: was there before and is gone"):
        opened(gone, first)
    with pytest.raises(VersionRefusedError, match="GE: is not in the bundle"):
        opened(gone)


def test_a_bundle_under_another_root_is_refused() -> None:
    theirs = [world.signatory(each) for each in ("RU", "EUROPOL")]
    other = draft.found(theirs, (world.SNAPSHOT.public, world.TIMESTAMP.public), NOW, None)
    made = draft.propose(draft.Wanted(world.plain(keys=()), theirs), None, other, NOW, "a coup", "operator")
    forged = content(made, signers=("RU", "EUROPOL"))
    with pytest.raises(VersionRefusedError, match="that is pinned here is not in the chain"):
        opened(forged)


def test_the_root_passes_on_with_signatures_of_the_old_and_the_new_holders(first: Opened) -> None:
    holders = [world.signatory(each) for each in ("GE", "RU")]
    made = draft.propose_root(holders, first, (world.SNAPSHOT.public, world.TIMESTAMP.public), NOW)
    with pytest.raises(VersionRefusedError, match="root"):
        content(made, first, ["GE", "RU"])
    with pytest.raises(VersionRefusedError, match="root"):
        content(made, first, ["AT", "LV"])
    after = opened(content(made, first, ["AT", "GE", "RU"]), first)
    assert after.root.version == 2
    assert after.directory.members.keys() == first.directory.members.keys()
    with pytest.raises(VersionRefusedError, match="older"):
        opened(first_content(), after)


def test_whoever_pinned_the_new_root_does_not_go_back_to_the_old(first: Opened) -> None:
    holders = [world.signatory(each) for each in ("GE", "RU")]
    made = draft.propose_root(holders, first, (world.SNAPSHOT.public, world.TIMESTAMP.public), NOW)
    second = opened(content(made, first, ["AT", "GE", "RU"]), first).written.roots[1]
    with pytest.raises(VersionRefusedError, match="that is pinned here is not in the chain"):
        bundle.open_bundle(first_content(), Trust(bundle.fingerprint(second)), NOW)


def test_an_expired_timestamp_shows_and_stops_nothing() -> None:
    late = NOW + draft.TIMESTAMP_LIFE_MS + 1000
    assert opened(first_content(), None, late).overdue(late) == ["timestamp"]


def test_a_fresh_timestamp_changes_no_directory(first: Opened) -> None:
    late = NOW + draft.TIMESTAMP_LIFE_MS + 1000
    after = opened(draft.refresh(first, world.TIMESTAMP, late), first, late)
    assert after.directory.digest == first.directory.digest
    assert after.overdue(late) == []


@pytest.mark.parametrize("role", ["root", "targets", "federation"])
def test_what_has_expired_is_not_adopted_anew_but_stays_in_force(first: Opened, role: str) -> None:
    late = first.expires[role] + 1
    with pytest.raises(VersionRefusedError, match="has expired"):
        opened(first_content(), None, late)
    assert role in opened(first_content(), None, None).overdue(late)


def test_a_silent_member_blocks_nobody(first: Opened) -> None:
    near = NOW + draft.LIFE_MS - DAY_MS
    made = next_draft(first, json.loads(first.plain), near)
    without = made.model_copy(update={
        "roles": {role: text for role, text in made.roles.items() if role != "AT"},
        "files": {path: text for path, text in made.files.items() if path != "members/AT.json"},
    })  # fmt: skip
    with pytest.raises(VersionRefusedError, match="root: has expired"):
        opened(content(without, first, now=near), first, NOW + draft.LIFE_MS)
    late = opened(content(without, first, now=near), first, near)
    assert late.overdue(NOW + draft.LIFE_MS)[:1] == ["AT"]


def test_an_agreement_needs_the_signatures_that_it_names(first: Opened) -> None:
    wanted = json.loads(first.plain)
    wanted["agreements"][0]["status"] = "suspended"
    made = next_draft(first, wanted)
    assert list(made.roles) == ["agreement-circle"]
    with pytest.raises(VersionRefusedError, match="agreement-circle: 1 more must sign"):
        content(made, first, ["AT"])
    assert not opened(content(made, first, ["AT", "GE"]), first).directory.agreements["circle"].active


def test_a_member_joins_an_agreement_only_with_its_own_signature(first: Opened) -> None:
    wanted = json.loads(first.plain)
    wanted["agreements"][0]["members"].append("RU")
    made = next_draft(first, wanted, signatories=[world.signatory("RU")])
    with pytest.raises(VersionRefusedError, match="RU"):
        content(made, first, ["AT", "LV", "GE"])
    after = opened(content(made, first, ["AT", "LV", "RU"]), first)
    assert "RU" in after.directory.agreements["circle"].members
    assert "RU" in after.entered


@pytest.mark.parametrize("place", range(7))
def test_bytes_of_any_shape_are_refused(first: Opened, place: int) -> None:
    whole = json.loads(first_content())
    broken: list[object] = [
        [], {"bundle": 1}, whole | {"more": 1}, whole | {"roots": []}, whole | {"roots": ["{}"]},
        whole | {"roles": whole["roles"] | {"snapshot": '{"payload":"!","payloadType":3,"signatures":0}'}},
        whole | {"files": whole["files"] | {"members/RU.json": "{}"}},
    ]  # fmt: skip
    with pytest.raises(VersionRefusedError):
        opened(roles.canonical(broken[place]), first)
