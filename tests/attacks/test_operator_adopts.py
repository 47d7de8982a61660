"""The operator's own broker puts in force what members never signed: the auditor, who holds their root, finds it."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from adapters.versions import Versions
from broker import members
from broker.notice import Leaf
from broker.rules import PolicySet
from broker.signing import SigningKey
from broker.trust import draft, roles
from broker.trust.adopted import Adopted
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from broker.trust.guard import ROOT_FILE
from cli import main as command
from tests import federation
from tests.fake_bus import Clock, FakeBus, Memory
from tests.making import NOW
from tests.trust import signed_world as world
from tests.trust.signed_world import changed_name, content, first_content, next_draft, opened
from tests.trust.test_adopted import Site, allowed
from tests.trust.test_bundle import _restamped

PACKAGED = PolicySet.packaged()


def with_remark(remark: str) -> PolicySet:
    """The packaged set, but not byte for byte."""
    files = dict(PACKAGED.files)
    files["01-owner.cedar"] += f"// {remark}\n"
    return PolicySet.of(files)


def signed(policies: PolicySet, number: int) -> bytes:
    """A set that two members signed."""
    first = opened(first_content())
    made = draft.propose_policies(policies.content, number, "AT", NOW)
    return draft.allowed(world.signed_by(made, first, "AT", "LV"), first)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    """A broker that has adopted what was signed, and a member."""
    clock = Clock(NOW)
    made = Site(tmp_path, FakeBus(Memory(clock=clock)), clock)
    for home in (made.operator, tmp_path / "member"):
        Versions(home / "versions").pin(world.root())
    await made.write("directory", first_content())
    await made.write("policies", allowed(opened(first_content())))
    await made.leaves(2)
    return made


async def put_in_force(site: Site, kind: str, value: bytes) -> Leaf:
    """Have a broker that asks for no signature adopt this; the member follows the stream all along."""
    (site.operator / ROOT_FILE).unlink(missing_ok=True)
    before = len(await site.leaves(2))
    await site.write(kind, value)
    leaf = (await site.leaves(before + 1))[-1]
    assert (leaf.kind, leaf.code) == ("adopted", kind)
    await site.member.follow(site.bus)
    return leaf


async def verified(site: Site, root: str) -> tuple[int, Any]:
    """What `audit verify` says to somebody who holds the log's key and the federation's root."""
    await site.leaves(1)  # the next start finishes the trail on disk
    await Versions(site.operator / "versions").follow(site.bus)
    key = site.folder / "vkey"
    key.write_text(f"{federation.LOG}\n", encoding="utf-8")
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        command.main(
            [
                "audit", "verify", str(site.operator / "trail"), "--vkey", str(key), "--root", root,
                "--seen", str(site.folder / "member"), "--json",
            ]
        )  # fmt: skip
    return int(ended.value.code or 0), json.loads(out.getvalue())


async def test_what_was_signed_is_found_for_every_version_in_force(site: Site) -> None:
    first = opened(first_content())
    refreshed = draft.refresh(first, world.TIMESTAMP, NOW)
    fresh = opened(refreshed, first)
    await site.write("directory", refreshed)
    await site.write("directory", content(next_draft(fresh, changed_name(first, "AT", "Vienna")), fresh, ["AT"]))
    await site.write("policies", signed(with_remark("new"), 2))
    await site.leaves(5)
    code, value = await verified(site, world.root())
    assert (code, value["signatures"]["checked"], value["findings"]) == (6, 4, [])


def with_another_key(base: Opened, key: SigningKey, *, asked: bool) -> Draft:
    """AT's next key, by the word of all who hold the root; they call the one before lost, or AT has signed, too."""
    signatories = [draft.Signatory("AT", world.root_key("AT").public, key.public)]
    rotated = frozenset(["AT"] if asked else ())
    made = next_draft(base, json.loads(base.plain), signatories=signatories, rotated=rotated)
    for member in ("LV", "GE"):
        made = world.signed_by(made, base, member)
    return draft.sign(made, base, "AT", [key, *([world.member_key("AT")] if asked else ())])[0]


async def test_a_key_that_was_called_lost_is_named_to_the_auditor_for_good(site: Site) -> None:
    first = opened(first_content())
    made, key = with_another_key(first, SigningKey.new(), asked=False), world.member_key("AT").public.id.hex()
    second = draft.assemble(made, first, world.SNAPSHOT, world.TIMESTAMP, NOW)
    after = opened(second, first)
    await site.write("directory", second)
    await site.write("directory", content(next_draft(after, changed_name(after, "GE", "Tbilisi")), after, ["GE"]))
    assert [each.kind for each in await site.leaves(4)] == ["adopted"] * 4
    code, value = await verified(site, world.root())
    assert (code, value["findings"], value["signatures"]["lost"]) == (6, [], [{"member": "AT", "key_id": key}])


async def test_the_operator_adopts_a_key_for_a_member_that_root_holders_signed_unasked(site: Site) -> None:
    """Every other machine refuses it; a broker of his own does not: `audit verify` names the leaf, exit 4."""
    first, his = opened(first_content()), SigningKey.new()
    asked = with_another_key(first, his, asked=True)
    whole = opened(draft.assemble(asked, first, world.SNAPSHOT, world.TIMESTAMP, NOW), first)
    without = roles.envelope_of(asked.roles["AT"], "AT")
    del without.signatures[world.member_key("AT").public.id.hex()]
    silent = _restamped(whole.written, {"AT": roles.text_of(without)}, base=first)
    await site.write("directory", silent)
    (refused,) = [each for each in await site.leaves(3) if each.kind == "version-refused"]
    assert refused
    await site.member.follow(site.bus)
    assert "which has not signed that, nor is it called lost" in site.member.refused()
    leaf = await put_in_force(site, "directory", whole.plain)
    code, value = await verified(site, world.root())
    assert (code, leaf.directory.hex()[:16] in value["findings"][0]["what"]) == (4, True)
    assert "which has not signed that, nor is it called lost" in value["findings"][0]["what"]


async def test_the_operator_puts_policies_in_force_that_nobody_signed(site: Site) -> None:
    """Members' machines refuse the set; `audit verify` names the leaf that puts it in force, exit 4."""
    leaf = await put_in_force(site, "policies", with_remark("his own").content)
    assert "it is not signed" in site.member.refused()
    code, value = await verified(site, world.root())
    assert code == 4
    (finding,) = value["findings"]
    assert finding["what"] == f"puts policies {leaf.policies.hex()[:16]} in force: nobody signed it"


async def test_the_operator_puts_a_directory_in_force_that_nobody_signed(site: Site) -> None:
    """He names a bureau's key of his own in it: no member signed that, `audit verify` says so, exit 4."""
    keys = federation.directory().keys
    forged = members.canonical(federation.directory(version=9, keys=keys))
    await put_in_force(site, "directory", forged)
    code, value = await verified(site, world.root())
    assert code == 4
    assert [each["what"].partition(": ")[2] for each in value["findings"]] == ["nobody signed it"]


async def test_the_operator_puts_policies_in_force_again_that_were_replaced(site: Site) -> None:
    """Two members once signed the old set, and then the new one: after the new one their word for the old is spent."""
    await site.write("policies", signed(with_remark("new"), 2))
    await site.leaves(3)
    await put_in_force(site, "policies", PACKAGED.content)
    code, value = await verified(site, world.root())
    assert code == 4
    assert [each["what"].partition(": ")[2] for each in value["findings"]] == ["nobody signed it"]


async def test_the_operator_shows_the_auditor_a_root_of_his_own(site: Site) -> None:
    """All that he has was signed under another root than the one that the auditor was told by a member: exit 4."""
    code, value = await verified(site, "ab" * 32)
    assert code == 4
    assert "is not in the chain" in value["findings"][0]["what"]


def test_the_operator_hands_the_auditor_signed_policies_out_of_order() -> None:
    """He publishes the old signed set once more behind the new one: `version 1 is older than version 2`."""
    first = opened(first_content())
    old, new = allowed(first), signed(with_remark("new"), 2)
    adopted = Adopted(world.root(), [first_content(), old, new, old])
    assert adopted.take("directory", first.directory.digest) == ""
    assert adopted.take("policies", PACKAGED.digest) == ""
    assert adopted.take("policies", with_remark("new").digest) == ""
    assert "version 1 is older than version 2" in adopted.take("policies", PACKAGED.digest)


async def test_the_operator_keeps_what_was_signed_to_himself(site: Site) -> None:
    """Nothing that was signed is to be had: what the auditor asked for with --root was not done, and is not good."""
    for home in ("operator", "member"):
        folder = site.folder / home / "versions" / "signed"
        for each in folder.glob("*") if folder.is_dir() else ():
            each.unlink()
    key = site.folder / "vkey"
    key.write_text(f"{federation.LOG}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        command.main(
            ["audit", "verify", str(site.operator / "trail"), "--vkey", str(key), "--root", world.root(),
             "--seen", str(site.folder / "member")]
        )  # fmt: skip
    assert ended.value.code == 6


async def test_replaced_root_holders_and_the_operator_lead_the_root_elsewhere(site: Site) -> None:
    """AT and LV hold the first root and not the second; they sign on from the first, as if there were no second."""
    operator, first = (world.SNAPSHOT.public, world.TIMESTAMP.public), opened(first_content())
    passed = draft.propose_root([world.signatory(each) for each in ("GE", "RU")], first, operator, NOW)
    await site.write("directory", content(passed, first, ["AT", "GE", "RU"]))
    assert (await site.leaves(3))[-1].kind == "adopted"
    forked = first
    for _ in range(2):
        back = draft.propose_root([world.signatory(each) for each in ("AT", "LV")], forked, operator, NOW)
        forked = opened(content(back, forked, ["AT", "LV"]), forked)
    await site.write("directory", forked.written.content())
    assert (await site.leaves(4))[-1].kind == "version-refused"
    await site.member.follow(site.bus)
    assert "that was seen before is not in the chain" in site.member.refused()
    adopted = Adopted(world.root(), site.member.signed().values())
    after = opened(content(passed, first, ["AT", "GE", "RU"]), first)
    assert adopted.take("directory", after.directory.digest) == ""
    assert "is not in the chain" in adopted.take("directory", forked.directory.digest)


async def test_the_operator_has_a_directory_of_before_the_root_stand(tmp_path: Path) -> None:
    """A member that had pinned nothing yet followed his unsigned one: a leaf that names it finds no directory."""
    site = Site(tmp_path, FakeBus(Memory(clock=Clock(NOW))), Clock(NOW))
    forged = members.canonical(federation.directory(version=9))
    await site.write("directory", forged)
    early = site.member
    await early.follow(site.bus)
    assert early.directory(sha256(forged).digest()) is not None
    await site.write("directory", first_content())
    site.member.pin(world.root())  # another process than the one that has read it
    await early.follow(site.bus)
    for member in (early, site.member):
        assert member.directory(sha256(forged).digest()) is None
        assert member.newest().digest == opened(first_content()).directory.digest


async def test_the_operator_passes_signed_policies_off_as_a_directory(site: Site) -> None:
    """Two members sign whatever a policy set's file holds; here a directory's JSON, and a leaf names it as one."""
    forged, first = members.canonical(federation.directory(version=9)), opened(first_content())
    made = world.signed_by(draft.propose_policies(forged, 2, "AT", NOW), first, "AT", "LV")
    await site.write("policies", draft.allowed(made, first))
    await site.member.follow(site.bus)
    assert site.member.content(sha256(forged).digest()) == forged
    assert site.member.directory(sha256(forged).digest()) is None
    assert site.member.directory(first.directory.digest) is not None
