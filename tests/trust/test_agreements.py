"""An agreement changes by the word of as many of its members as it names, whoever joins, leaves or hands out roles."""

from __future__ import annotations

import json

import pytest
from tuf.api.metadata import Targets  # type: ignore[attr-defined] # not in __all__

from broker.errors import VersionRefusedError
from broker.signing import SigningKey
from broker.trust import draft, roles
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from broker.trust.guard import Guard
from cli.trust import wording
from tests.making import NOW
from tests.trust import signed_world as world
from tests.trust.signed_world import content, first_content, first_draft, next_draft, opened
from tests.trust.test_bundle import _restamped

CIRCLE = "agreement-circle"


@pytest.fixture(scope="module")
def entered() -> Opened:
    """AT, LV and GE are in the circle; RU has entered the federation and is not."""
    first = opened(first_content())
    made = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    return opened(content(made, first, ["AT", "LV", "GE", "RU"]), first)


def without_roots(made: Draft, base: Opened, *signers: str) -> Draft:
    """Signed by all holders of the root, who hand out roles, and for the rest by these members."""
    for holder in world.ENTERED:
        made, _ = draft.sign(made, base, holder, [world.root_key(holder)])
    for member in signers:
        made, _ = draft.sign(made, base, member, [world.member_key(member)])
    return made


def joining(base: Opened) -> Draft:
    wanted = json.loads(base.plain)
    wanted["agreements"][0]["members"].append("RU")
    return next_draft(base, wanted)


def leaving(base: Opened, *members: str) -> Draft:
    wanted = json.loads(base.plain)
    kept = [each for each in wanted["agreements"][0]["members"] if each not in members]
    wanted["agreements"][0]["members"] = kept
    return next_draft(base, wanted)


def assembled(made: Draft, base: Opened) -> bytes:
    return draft.assemble(made, base, world.SNAPSHOT, world.TIMESTAMP, NOW)


def test_one_member_and_the_joiner_admit_nobody(entered: Opened) -> None:
    made = without_roots(joining(entered), entered, "AT", "RU")
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: 1 more must sign: GE, LV"):
        assembled(made, entered)
    after = opened(assembled(without_roots(joining(entered), entered, "AT", "LV", "RU"), entered), entered)
    assert "RU" in after.directory.agreements["circle"].members


def test_who_leaves_may_sign_that_it_leaves(entered: Opened) -> None:
    made = without_roots(leaving(entered, "GE"), entered, "GE")
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: 1 more must sign: AT, LV"):
        assembled(made, entered)
    after = opened(assembled(without_roots(leaving(entered, "GE"), entered, "AT", "LV"), entered), entered)
    assert after.directory.agreements["circle"].members == {"AT", "LV"}


def test_nobody_is_put_out_by_fewer_than_the_agreement_names(entered: Opened) -> None:
    made = without_roots(leaving(entered, "LV", "GE"), entered, "AT")
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: 1 more must sign: GE, LV"):
        assembled(made, entered)


def lowered(base: Opened) -> Draft:
    return next_draft(base, json.loads(base.plain), signatures={"circle": 1})


def test_whoever_hands_out_roles_lowers_no_threshold_of_an_agreement(entered: Opened) -> None:
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: 1 more must sign: GE, LV"):
        assembled(without_roots(lowered(entered), entered, "AT"), entered)
    assert opened(assembled(without_roots(lowered(entered), entered, "AT", "GE"), entered), entered)


def test_a_lower_threshold_is_told_to_who_signs(entered: Opened) -> None:
    assert f"{CIRCLE}: 1 member must sign a change, 2 had to before" in wording.changes(lowered(entered), entered)


def test_whoever_has_seen_the_agreement_refuses_a_change_that_too_few_signed(entered: Opened) -> None:
    made = without_roots(lowered(entered), entered, "AT")
    forged = _restamped(entered.written, dict(made.roles), dict(made.files), entered)
    guard = Guard(world.root(), entered.seen, entered)
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: signed by AT: 1 more of 2 different members"):
        guard.take("directory", forged, NOW)
    fair = assembled(without_roots(lowered(entered), entered, "AT", "GE"), entered)
    _, after = guard.take("directory", fair, NOW)
    assert after.opened is not None
    assert roles.thresholds(after.opened.targets)[CIRCLE] == 1


# Members get other keys


def rekeying(base: Opened, *members: str) -> Draft:
    wanted = json.loads(base.plain)
    signatories = [draft.Signatory(each, world.root_key(each).public, new_key(each).public) for each in members]
    return next_draft(base, wanted, signatories=signatories)


def new_key(member: str) -> SigningKey:
    return world.seeded(f"{member}/member/2")


def with_new_keys(made: Draft, base: Opened, *signers: str) -> Draft:
    for member in signers:
        made, _ = draft.sign(made, base, member, [new_key(member)])
    return made


def test_a_lost_key_is_replaced_by_the_word_of_those_who_have_theirs(entered: Opened) -> None:
    made = with_new_keys(without_roots(rekeying(entered, "AT"), entered, "LV"), entered, "AT")
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: 1 more must sign"):
        assembled(made, entered)
    made, _ = draft.sign(made, entered, "GE", [world.member_key("GE")])
    _, guard = Guard(world.root(), entered.seen, entered).take("directory", assembled(made, entered), NOW)
    assert guard.opened is not None
    assert new_key("AT").public.id.hex() in guard.opened.targets.get_delegated_role(CIRCLE).keyids
    changed = with_new_keys(without_roots(leaving(guard.opened, "GE"), guard.opened, "LV"), guard.opened, "AT")
    _, after = guard.take("directory", assembled(changed, guard.opened), NOW)
    assert after.opened is not None
    assert after.opened.directory.agreements["circle"].members == {"AT", "LV"}


def test_an_agreement_whose_members_lost_too_many_keys_stays_and_they_get_theirs(entered: Opened) -> None:
    made = with_new_keys(without_roots(rekeying(entered, "AT", "LV"), entered, "GE"), entered, "AT", "LV")
    assert CIRCLE not in made.roles
    _, guard = Guard(world.root(), entered.seen, entered).take("directory", assembled(made, entered), NOW)
    base = guard.opened
    assert base is not None
    assert base.targets.get_delegated_role("AT").keyids == [new_key("AT").public.id.hex()]
    assert base.targets.get_delegated_role(CIRCLE) == entered.targets.get_delegated_role(CIRCLE)
    late = NOW + draft.LIFE_MS
    assert CIRCLE not in next_draft(base, json.loads(base.plain), late).roles
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: too few of its members have the key"):
        leaving(base, "GE")


def test_who_has_keys_of_before_changes_no_agreement_that_hangs_on_them(entered: Opened) -> None:
    """Two keys from which others took over, and the operator: nobody speaks with them any more."""
    made = with_new_keys(without_roots(rekeying(entered, "AT", "LV"), entered, "GE"), entered, "AT", "LV")
    _, guard = Guard(world.root(), entered.seen, entered).take("directory", assembled(made, entered), NOW)
    base = guard.opened
    assert base is not None
    said = json.loads(base.written.files["agreements/circle.json"])
    said["agreement"]["title"] = "another"
    text = draft.json_of(said)
    envelope = roles.text_of(roles.written(draft._signing(CIRCLE, text, base.seen[CIRCLE][0], NOW)))
    made = Draft(title="", by="operator", roles={CIRCLE: envelope}, files={"agreements/circle.json": text.decode()})
    for thief in ("AT", "LV"):
        made, done = draft.sign(made, base, thief, [world.member_key(thief)])
        assert done == [CIRCLE]
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: signed by nobody: 2 more of 2"):
        guard.take("directory", assembled(made, base), NOW)
    made, _ = draft.sign(made, base, "GE", [world.member_key("GE")])
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: signed by GE: 1 more of 2"):
        guard.take("directory", assembled(made, base), NOW)


def test_who_enters_gets_its_voice_in_an_agreement_from_those_who_have_theirs() -> None:
    """RU is bound before it enters; its key counts there once two of the others have signed that it does."""
    wanted = world.plain()
    wanted["agreements"][0]["members"].append("RU")
    signatories = [world.signatory(each) for each in world.ENTERED]
    root = draft.found(signatories, (world.SNAPSHOT.public, world.TIMESTAMP.public), NOW, None)
    first = opened(content(draft.propose(draft.Wanted(wanted, signatories), None, root, NOW, "first", "operator")))
    made = next_draft(first, json.loads(first.plain), signatories=[world.signatory("RU")])
    with pytest.raises(VersionRefusedError, match=f"{CIRCLE}: 1 more must sign: GE, LV"):
        assembled(without_roots(made, first, "AT", "RU"), first)
    assert opened(assembled(without_roots(made, first, "AT", "LV", "RU"), first), first)


# A member gets another key


def test_a_member_that_has_its_key_signs_with_it_that_another_takes_over(entered: Opened) -> None:
    """And from then on with the new one alone; its file names that one, for the next to take over from."""
    signatories = [draft.Signatory("RU", world.root_key("RU").public, new_key("RU").public)]
    made = next_draft(entered, json.loads(entered.plain), signatories=signatories, rotated=frozenset(["RU"]))
    made = with_new_keys(without_roots(made, entered, *world.ENTERED), entered, "RU")
    (waiting,) = [each for each in draft.standings(made, entered) if each.missing]
    assert waiting.role == "RU"
    assert waiting.could == {"RU"}
    with pytest.raises(VersionRefusedError, match="RU: 1 more must sign: RU"):
        assembled(made, entered)
    made, _ = draft.sign(made, entered, "RU", [world.member_key("RU")])
    _, guard = Guard(world.root(), entered.seen, entered).take("directory", assembled(made, entered), NOW)
    base = guard.opened
    assert base is not None
    assert roles.lost(base.targets, "RU") == frozenset()
    said = json.loads(base.written.files["members/RU.json"])
    assert said["voices"] == [new_key("RU").public.id.hex()]
    renamed = next_draft(base, world.changed_name(base, "RU", "Moscow"))
    assert json.loads(renamed.files["members/RU.json"])["voices"] == said["voices"]
    _, later = guard.take("directory", assembled(with_new_keys(renamed, base, "RU"), base), NOW)
    assert later.opened is not None
    again = world.seeded("RU/member/3")
    signatories = [draft.Signatory("RU", world.root_key("RU").public, again.public)]
    third = next_draft(later.opened, json.loads(later.opened.plain), signatories=signatories)
    lost = world.signed_by(third, later.opened, *world.ENTERED)
    lost, _ = draft.sign(lost, later.opened, "RU", [again])
    _, last = later.take("directory", assembled(lost, later.opened), NOW)
    assert last.opened is not None
    assert roles.lost(last.opened.targets, "RU") == {new_key("RU").public.id.hex()}


def of_before(made: Draft) -> Draft:
    """The same, where the delegations do not tell yet which keys of members are lost."""
    targets = roles.read(Targets, roles.envelope_of(made.roles["targets"], "targets"), "targets")
    assert targets.delegations is not None
    for given in (targets.delegations.roles or {}).values():
        given.unrecognized_fields.pop(roles.LOST, None)
    return made.model_copy(update={"roles": made.roles | {"targets": roles.text_of(roles.written(targets))}})


def followed_silently(base: Opened) -> bytes:
    """LV speaks with another key by the word of those who hand out roles, as `member rekey` drafted it before."""
    made = rekeying(base, "LV")
    said = json.loads(made.files["members/LV.json"])
    del said["voices"]
    text = draft.json_of(said)
    signs = {"LV": roles.text_of(roles.written(draft._signing("LV", text, base.seen["LV"][0], NOW)))}
    made = made.model_copy(
        update={"roles": made.roles | signs, "files": made.files | {"members/LV.json": text.decode()}}
    )
    made = of_before(made)
    for holder in world.ENTERED:
        made, _ = draft.sign(made, base, holder, [world.root_key(holder)])
    for member, key in (("AT", None), ("LV", None), ("GE", None), ("LV", new_key("LV"))):
        made, _ = draft.sign(made, base, member, [key or world.member_key(member)])
    return _restamped(base.written, base.written.roles | made.roles, dict(made.files), base)


def test_a_federation_in_which_a_key_was_followed_before_the_rule_is_read_from_its_beginning() -> None:
    """By who joins, audits or has lost what it had seen; from the first directory on that tells, the rule counts."""
    chain = [content(of_before(first_draft()))]
    first = opened(chain[0])
    chain.append(followed_silently(first))
    second = opened(chain[1], first)
    made = with_new_keys(next_draft(second, json.loads(second.plain)), second, "LV")
    assert set(made.roles) == {"targets"}
    told = "no member's key is followed by another from now on without its own signature, unless it is called LOST"
    assert wording.changes(made, second).count(told) == 1
    chain.append(assembled(without_roots(made, second), second))
    guard = Guard(world.root())
    for each in chain:
        _, guard = guard.take("directory", each, None)
    third = guard.opened
    assert third is not None
    again = of_before(next_draft(third, world.changed_name(third, "AT", "Vienna"), now=NOW + draft.LIFE_MS))
    forged = _restamped(third.written, signed_over(again, third), dict(again.files), third)
    with pytest.raises(VersionRefusedError, match="targets: hide which keys of members were lost"):
        guard.take("directory", forged, None)


def signed_over(made: Draft, base: Opened) -> dict[str, str]:
    """All that a draft leaves in force, signed by whoever has a key for it, without a look at what it shows."""
    pens = [roles.Pen(key(each), each) for each in world.ENTERED for key in (world.root_key, world.member_key, new_key)]
    envelopes = {role: roles.envelope_of(text, role) for role, text in made.roles.items()}
    for role, envelope in envelopes.items():
        for pen in pens:
            if role != "targets" or pen.public_key.keyid in base.root.keys:
                envelope.sign(pen)
    return base.written.roles | {role: roles.text_of(envelope) for role, envelope in envelopes.items()}


def test_a_file_that_names_no_keys_yet_stays_until_something_changes(entered: Opened) -> None:
    base = world.unnamed(entered)
    assert CIRCLE not in next_draft(base, world.changed_name(base, "AT", "Vienna")).roles
    assert "keys" in json.loads(leaving(base, "GE").files["agreements/circle.json"])


def test_a_new_agreement_is_signed_by_all_that_it_binds(entered: Opened) -> None:
    wanted = json.loads(entered.plain)
    wanted["agreements"].append(wanted["agreements"][0] | {"id": "second", "members": ["AT", "LV", "RU"]})
    made = next_draft(entered, wanted)
    with pytest.raises(VersionRefusedError, match="agreement-second: 1 more must sign: RU"):
        assembled(without_roots(made, entered, "AT", "LV"), entered)
    assert assembled(without_roots(made, entered, "AT", "LV", "RU"), entered)
