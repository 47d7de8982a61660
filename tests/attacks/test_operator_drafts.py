"""The operator drafts what members sign: nobody signs what it was not shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, Targets  # type: ignore[attr-defined] # not in __all__

from broker.errors import ConfigurationError, VersionRefusedError
from broker.rules import PolicySet
from broker.signing import PublicKey, SigningKey
from broker.trust import draft, roles
from broker.trust.bundle import Opened, WrittenBundle
from broker.trust.draft import Draft
from broker.trust.guard import Guard
from cli.trust import signing, wording
from tests.making import NOW
from tests.trust import signed_world as world
from tests.trust.signed_world import first_content, next_draft, opened
from tests.trust.test_bundle import _restamped


@pytest.fixture(scope="module")
def first() -> Opened:
    return opened(first_content())


def envelope(role: str, text: bytes, version: int) -> str:
    return roles.text_of(roles.written(draft._signing(role, text, version - 1, NOW)))


def targets_of(made: Draft | WrittenBundle) -> Targets:
    """The delegations of a draft or bundle, to be changed."""
    return roles.read(Targets, roles.envelope_of(made.roles["targets"], "targets"), "targets")


def given_by(targets: Targets) -> dict[str, DelegatedRole]:
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    return targets.delegations.roles


def rekeyed(base: Opened, **keys: PublicKey) -> Draft:
    """Delegations under which these members speak with other keys than before, and nothing else changes."""
    targets = targets_of(base.written)
    assert targets.delegations is not None
    listed = targets.delegations.keys
    for member, public in keys.items():
        old, new = base.targets.get_delegated_role(member).keyids[0], roles.listed(public, member)
        listed[new.keyid] = new
        del listed[old]
        for each in given_by(targets).values():
            each.keyids = [new.keyid if keyid == old else keyid for keyid in each.keyids]
    targets.version += 1
    return Draft(title="renewed", by="operator", roles={"targets": roles.text_of(roles.written(targets))})


def with_stranger(base: Opened) -> Draft:
    """Delegations by which XX, whom no file names as a member, speaks for itself and counts in what is joint."""
    targets, key = targets_of(base.written), roles.listed(world.member_key("XX").public, "XX")
    assert targets.delegations is not None
    targets.delegations.keys[key.keyid] = key
    given_by(targets)["XX"] = roles.delegated("XX", [key], 1)
    given_by(targets)["federation"].keyids.append(key.keyid)
    targets.version += 1
    file = draft.json_of({"bureaus": [], "keys": []})
    signs = {"targets": roles.text_of(roles.written(targets)), "XX": envelope("XX", file, 1)}
    return Draft(title="renewed", by="operator", roles=signs, files={"members/XX.json": file.decode()})


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
    """New delegations leave it out, so its file is never looked at; its envelope would count under the old ones."""
    made = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    targets = targets_of(made)
    del given_by(targets)["agreement-circle"]
    evil = json.loads(first.written.files["agreements/circle.json"])
    with_one_signature(evil)
    text = draft.json_of(evil)
    signs = {
        "targets": roles.text_of(roles.written(targets)),
        "agreement-circle": envelope("agreement-circle", text, 2),
    }
    made = Draft(title="RU enters", by="operator", roles=signs, files={"agreements/circle.json": text.decode()})
    nobody_signs(made, first, "agreement-circle: nobody was given this role")


# What the directory says


def test_the_operator_has_a_transfer_signed_among_others(first: Opened) -> None:
    """That data of LV's may go to RU is told by name, however many change: from whom, to whom, on what ground."""
    wanted = json.loads(first.plain)
    kept = {(each["source"], each["target"]): each for each in wanted["transfers"]}
    gone = kept.pop(("AT", "GE"))
    kept["AT", "LV"]["reference"] = "another"
    added = {"source": "LV", "target": "RU", "basis": "derogation", "reference": "invented", "agreement": None}
    changes = wording.changes(next_draft(first, wanted | {"transfers": [*kept.values(), added]}), first)
    by = gone["basis"]
    assert f"transfers from AT to GE by {by}: taken out" in changes
    assert f"transfers from AT to LV by {by}: reference {gone['reference']} becomes another" in changes
    assert "transfers from LV to RU by derogation: added, under invented" in changes
    assert sum(each.startswith("transfers") for each in changes) == 3


def test_the_operator_has_a_key_signed_behind_many_others(first: Opened) -> None:
    """Each key that enters is told, the last of a long list, too."""
    wanted = json.loads(first.plain)
    like = wanted["keys"][0]
    added = [like | {"key_id": f"{number:016x}{0:048x}"} for number in range(1, 20)]
    changes = list(wording.changes(next_draft(first, wanted | {"keys": [*wanted["keys"], *added]}), first))
    for each in added:
        assert any(change.startswith(f"key {each['key_id'][:16]} of ") for change in changes)


# Whose keys speak


LOST = "is called LOST: another takes over without its signature"


def test_the_operator_swaps_the_key_with_which_a_member_speaks(first: Opened) -> None:
    """The delegations name his key as LV's: who is asked to sign sees key and roles, and what LV loses."""
    old, his = world.member_key("LV").public.id.hex()[:16], SigningKey.new().public
    shared = "LV, agreement-circle, federation, policies"
    swapped = [draft.Signatory("LV", world.root_key("LV").public, his)]
    made = next_draft(first, json.loads(first.plain), signatories=swapped)
    assert sorted(wording.changes(made, first)) == sorted(
        [
            f"LV (key {his.id.hex()[:16]}) may sign from now on: {shared}",
            f"LV (key {old}) may not sign any more: {shared}",
            f"LV (key {old}) {LOST}; ask LV by another way whether that is so",
        ]
    )


def test_the_operator_has_his_key_entered_as_a_joiners(first: Opened) -> None:
    """Whoever signs that RU enters sees with which key; RU compares it with its own."""
    made = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    key = world.member_key("RU").public.id.hex()[:16]
    assert f"RU (key {key}) enters: it alone speaks for its bureaus and keys from now on" in wording.changes(
        made, first
    )


def test_the_operator_has_somebody_enter_who_is_no_member(first: Opened) -> None:
    """His voice would be one of the two that allow policies: no member signs that, not at the founding either."""
    with pytest.raises(VersionRefusedError, match="XX: has a voice and is no member"):
        next_draft(first, json.loads(first.plain), signatories=[world.signatory("XX")])
    nobody_signs(with_stranger(first), first, "XX: has a voice and is no member")
    founding = world.first_draft()
    joint = json.loads(founding.files["federation.json"])
    joint["members"] = [each for each in joint["members"] if each["id"] != "GE"]
    text = draft.json_of(joint)
    without = founding.model_copy(
        update={
            "files": founding.files | {"federation.json": text.decode()},
            "roles": founding.roles | {"federation": envelope("federation", text, 1)},
        }
    )
    with pytest.raises(VersionRefusedError, match="GE: has a voice and is no member"):
        draft.sign(without, None, "AT", [world.root_key("AT"), world.member_key("AT")])
    for hostile in ("[]", "{}", '{"members": 7}', '{"members": [7, {"id": 7}]}', "{"):
        broken = founding.files | {"federation.json": hostile}
        roles_with = founding.roles | {"federation": envelope("federation", hostile.encode(), 1)}
        with pytest.raises(VersionRefusedError):
            draft.check_shown(founding.model_copy(update={"files": broken, "roles": roles_with}), None)


def test_the_operator_has_his_key_hold_the_root_in_a_members_name(first: Opened) -> None:
    """The draft of a root names each holder's key, and counts how many must sign for root and targets."""
    his = draft.Signatory("LV", SigningKey.new().public, world.member_key("LV").public)
    operator = (world.SNAPSHOT.public, world.TIMESTAMP.public)
    changes = list(wording.changes(draft.propose_root([world.signatory("AT"), his], first, operator, NOW), first))
    at, lv = world.root_key("AT").public.id.hex()[:16], his.root.id.hex()[:16]
    assert changes[0] == f"root 2: held by AT (key {at}), LV (key {lv}); 2 of them must sign a change"
    assert f"LV (key {lv}) may sign from now on: root, targets" in changes
    old = world.root_key("LV").public.id.hex()[:16]
    assert f"LV (key {old}) may not sign any more: root, targets" in changes


def test_the_operator_lowers_what_the_root_asks_for_delegations(first: Opened) -> None:
    """A root of five asks for three: that its draft lets two hand out roles is told."""
    holders = [world.signatory(each) for each in ("AT", "LV", "GE", "RU", "EUROPOL")]
    operator = (world.SNAPSHOT.public, world.TIMESTAMP.public)
    made = draft.propose_root(holders, first, operator, NOW)
    assert "targets: 3 members must sign a change, 2 had to before" in wording.changes(made, first)


def test_the_operator_calls_a_key_of_his_own_a_members(first: Opened, tmp_path: Path) -> None:
    """Asked to sign such a draft itself, the member's own tool says that this is not its key."""
    for name, key in (("root", world.root_key("AT")), ("member", world.member_key("AT"))):
        key.save(tmp_path / "trust" / f"{name}.pem")
    with pytest.raises(ConfigurationError, match="AT's own, and it is not: do not sign it"):
        signing.sign(tmp_path, "AT", rekeyed(first, AT=SigningKey.new().public), first)
    _, done = signing.sign(tmp_path, "AT", rekeyed(first, LV=SigningKey.new().public), first)
    assert done == ["targets"]


# Round the member whose key it is


@pytest.fixture(scope="module")
def entered(first: Opened) -> Opened:
    """RU has entered, too, and is in no agreement: nobody but RU could object."""
    made = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    return opened(world.content(made, first, [*world.ENTERED, "RU"]), first)


def by_holders(base: Opened, made: Draft, **signers: SigningKey) -> bytes:
    """What operator and holders of the root make of a draft with software of their own, and these keys."""
    for holder in world.ENTERED:
        targets = roles.envelope_of(made.roles["targets"], "targets")
        targets.sign(roles.Pen(world.root_key(holder), holder))
        made = draft.merge([made, made.model_copy(update={"roles": made.roles | {"targets": roles.text_of(targets)}})])
    signed = base.written.roles | made.roles
    for role in ("federation", *signers):
        found = roles.envelope_of(signed[role], role)
        for member, key in signers.items():
            found.sign(roles.Pen(key, member))
        signed[role] = roles.text_of(found)
    return _restamped(base.written, signed, dict(made.files), base)


def naming(base: Opened, member: str, key: SigningKey) -> Draft:
    """Delegations under which a member speaks with this key, and a file of it that names the key."""
    said = json.loads(base.written.files[f"members/{member}.json"])
    file = draft.json_of(said | {"voices": [key.public.id.hex()]})
    made = rekeyed(base, **{member: key.public})
    signs = made.roles | {member: envelope(member, file, base.seen[member][0] + 1)}
    return made.model_copy(update={"roles": signs, "files": {f"members/{member}.json": file.decode()}})


def calling_lost(made: Draft, member: str, *keyids: str) -> Draft:
    """The same, where the delegation calls these keys of a member lost."""
    targets = targets_of(made)
    given_by(targets)[member].unrecognized_fields[roles.LOST] = sorted(keyids)
    return made.model_copy(update={"roles": made.roles | {"targets": roles.text_of(roles.written(targets))}})


def refused(base: Opened, forged: bytes) -> str:
    """Why every machine that has seen what was in force refuses this; empty if it takes it."""
    try:
        Guard(world.root(), base.seen, base).take("directory", forged, NOW)
    except VersionRefusedError as error:
        return str(error)
    return ""


def test_the_operator_and_the_root_holders_give_a_member_another_key_unasked(entered: Opened) -> None:
    """Neither under its file of before, nor under one that names the key and that only the key itself has signed."""
    his, own = SigningKey.new(), world.member_key("RU")
    silent = by_holders(entered, rekeyed(entered, RU=his.public), RU=his)
    assert "its file does not name it" in refused(entered, silent)
    named = naming(entered, "RU", his)
    assert "which has not signed that, nor is it called lost" in refused(entered, by_holders(entered, named, RU=his))
    forged = by_holders(entered, calling_lost(named, "RU", "00" * 32), RU=his)
    assert "which has not signed that, nor is it called lost" in refused(entered, forged)
    with_own, _ = draft.sign(named, entered, "RU", [own])
    assert refused(entered, by_holders(entered, with_own, RU=his)) == ""


def test_the_operator_and_the_root_holders_hide_that_they_called_a_members_key_lost(entered: Opened) -> None:
    """It stands in the directory for good, and no key comes back that was lost."""
    his, old = SigningKey.new(), world.member_key("RU").public.id.hex()
    taken = by_holders(entered, calling_lost(naming(entered, "RU", his), "RU", old), RU=his)
    assert refused(entered, taken) == ""
    after = opened(taken, entered)
    assert roles.lost(after.targets, "RU") == {old}
    hidden = rekeyed(after)  # nobody has another key
    targets = targets_of(hidden)
    given_by(targets)["RU"].unrecognized_fields[roles.LOST] = []
    hidden = hidden.model_copy(update={"roles": {"targets": roles.text_of(roles.written(targets))}})
    assert "RU: hides which of its keys were lost" in refused(after, by_holders(after, hidden))
    back = by_holders(after, naming(after, "RU", world.member_key("RU")), RU=world.member_key("RU"))
    assert "RU: is to speak with a key that was lost" in refused(after, back)


@pytest.mark.parametrize("said", [7, "ab", None, {}, [7], [[]], ["b", "a"], ["a", "a"]])
def test_the_operator_and_the_root_holders_write_of_lost_keys_what_nobody_can_read(
    entered: Opened, said: object
) -> None:
    """Of a member, of what is joint, or of one member less: nobody takes it, and so trips over it later."""
    for role, reason in (("RU", "does not say which of its keys are lost"), ("federation", "calls keys lost")):
        targets = targets_of(entered.written)
        given_by(targets)[role].unrecognized_fields[roles.LOST] = said
        targets.version += 1
        made = Draft(title="", by="operator", roles={"targets": roles.text_of(roles.written(targets))})
        assert f"{role}: {reason}" in refused(entered, by_holders(entered, made))
    hidden = targets_of(entered.written)
    given_by(hidden)["RU"].unrecognized_fields.clear()
    hidden.version += 1
    made = Draft(title="", by="operator", roles={"targets": roles.text_of(roles.written(hidden))})
    assert "RU: does not say which of its keys are lost" in refused(entered, by_holders(entered, made))


def test_the_operator_and_the_root_holders_have_a_key_of_theirs_count_as_a_members(entered: Opened) -> None:
    """In what is joint and among those who allow policies, while the member goes on speaking for itself."""
    for role in ("federation", "policies"):
        targets, his = targets_of(entered.written), roles.listed(SigningKey.new().public, "RU")
        assert targets.delegations is not None
        targets.delegations.keys[his.keyid] = his
        given_by(targets)[role].keyids.append(his.keyid)
        targets.version += 1
        made = Draft(title="", by="operator", roles={"targets": roles.text_of(roles.written(targets))})
        reason = refused(entered, by_holders(entered, made))
        assert reason == f"{role}: can be signed with a key with which no member speaks"


def test_the_operator_and_the_root_holders_give_who_is_no_member_a_voice(first: Opened) -> None:
    """No machine takes it, whatever they sign: it would count in all that members decide."""
    forged = by_holders(first, with_stranger(first), XX=world.member_key("XX"))
    assert refused(first, forged).startswith("XX: has a voice and is no member")


def test_the_operator_and_the_root_holders_name_a_key_that_they_do_not_list(first: Opened) -> None:
    """What is taken apart fails in no other way than by being refused, on any machine; the broker goes on."""
    for spoilt in ("AT", "federation"):
        targets = targets_of(first.written)
        if spoilt == "AT":
            given_by(targets)[spoilt].keyids.append("ab" * 32)
        else:
            del given_by(targets)[spoilt]
        targets.version += 1
        made = Draft(title="", by="operator", roles={"targets": roles.text_of(roles.written(targets))})
        assert refused(first, by_holders(first, made)).startswith(f"{spoilt}: ")


# Round the members of an agreement

CIRCLE = "agreement-circle"


def under_his_keys(base: Opened, his: SigningKey) -> bytes:
    """The operator and the holders of the root: his key speaks for AT, all else is signed again as it was."""
    made = rekeyed(base, AT=his.public)
    for holder in world.ENTERED:
        made, _ = draft.sign(made, base, holder, [world.root_key(holder)])
    signed = dict(made.roles)
    for role in ("AT", "federation", CIRCLE):
        envelope = roles.envelope_of(base.written.roles[role], role)
        envelope.sign(roles.Pen(his, "AT"))  # beside the signatures of before, which are good
        signed[role] = roles.text_of(envelope)
    forged = made.model_copy(update={"roles": signed})
    return draft.assemble(forged, base, world.SNAPSHOT, world.TIMESTAMP, NOW)


def test_the_operator_and_the_root_holders_swap_the_keys_of_an_agreement(first: Opened) -> None:
    """The first of two steps: its file stays, so that its members need not sign. The file names the keys that count."""
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: names other keys than those that may sign it"):
        Guard(world.root(), first.seen, first).take("directory", under_his_keys(first, SigningKey.new()), NOW)


def test_the_operator_and_the_root_holders_swap_the_keys_of_an_agreement_of_before(first: Opened) -> None:
    """One that was signed before its file named keys: it must be signed anew to be signed with others."""
    old = world.unnamed(first)
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: is to be signed with other keys than before"):
        Guard(world.root(), old.seen, old).take("directory", under_his_keys(old, SigningKey.new()), NOW)


def test_the_operator_binds_a_member_to_an_agreement_unheard(first: Opened) -> None:
    """As many sign as the agreement names, RU does not; his own tool would refuse it, every other does, too."""
    entering = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    entered = opened(world.content(entering, first, ["AT", "LV", "GE", "RU"]), first)
    wanted = json.loads(entered.plain)
    wanted["agreements"][0]["members"].append("RU")
    made = world.signed_by(next_draft(entered, wanted), entered, *world.ENTERED)
    forged = _restamped(entered.written, dict(made.roles), dict(made.files), entered)
    guard = Guard(world.root(), entered.seen, entered)
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: binds RU without a signature of its own"):
        guard.take("directory", forged, NOW)
    heard = draft.assemble(world.signed_by(made, entered, "RU"), entered, world.SNAPSHOT, world.TIMESTAMP, NOW)
    assert guard.take("directory", heard, NOW)
