"""Directories are drafted by one party, signed by others and activated, with the commands that they use."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broker.errors import ConfigurationError
from broker.signing import SigningKey
from broker.trust import draft
from cli import keyring, seed, subscribe
from cli.home import clock
from cli.operator_home import operator_home
from cli.seed import Federation, Order
from cli.stage import Stage, running, set_up, settled
from cli.trust import proposing, signatories, signing
from tests.journeys.test_by_hand import DRAFT

BUREAUS = ("AT/ncb", "LV/ncb", "GE/ncb")
CIRCLE = {"id": "circle", "title": "Circle", "basis": "invented", "members": ["AT", "LV"]}


@dataclass(frozen=True)
class Result:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)


async def valise(home: Path, *words: str) -> Result:
    command = [sys.executable, "-m", "cli.main", *words, "--home", str(home)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def federation(*bureaus: str) -> Federation:
    """The first federation, cut down to the members of these bureaus, and one agreement."""
    whole = seed.seed()
    names = [each.partition("/")[0] for each in bureaus]
    circle = whole.agreements[0].model_copy(update=CIRCLE | {"members": ("AT", "LV")})
    return whole.model_copy(
        update={
            "order": Order(bureaus=bureaus),
            "bureau": {},
            "members": tuple(each for each in whole.members if each.id in names),
            "agreements": (circle,),
            "transfers": (seed.Clause(between=tuple(names), basis="adequacy", reference="invented"),),
            "annex": seed.Annex(),
            "reviewers": (),
            "authorities": (),
        }
    )


async def made(tmp_path: Path) -> Stage:
    return await set_up(tmp_path / "home", federation(*BUREAUS), "sqlite", BUREAUS, lambda _: None)


async def signed(home: Path, path: str, *bureaus: str) -> Result:
    for bureau in bureaus:
        done = await valise(home, "directory", "sign", path, "--bureau", bureau, "--yes")
        assert done.code == 0, done.err
    return await valise(home, "directory", "activate", path)


async def test_an_agreement_is_suspended_by_its_members_and_not_by_the_operator(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    drafted = await valise(home, "agreement", "suspend", "circle", "--json")
    path = drafted.value["draft"]
    assert drafted.value["changes"] == ["agreement circle: status active becomes suspended"]
    assert [(each["role"], each["missing"], each["could"]) for each in drafted.value["roles"]] == [
        ("agreement-circle", "2 of 2", "AT, LV")
    ]
    stranger = await valise(home, "directory", "sign", path, "--bureau", "GE/ncb", "--yes")
    assert "GE has no part in this draft" in stranger.err
    early = await valise(home, "directory", "activate", path)
    assert (early.code, early.err.strip()) == (1, "version-refused: agreement-circle: 2 more must sign: AT, LV")
    assert (await signed(home, path, "AT/ncb", "LV/ncb")).code == 0
    (circle,) = (await valise(home, "agreement", "list", "--bureau", "GE/ncb", "--json")).value["agreements"]
    assert circle["status"] == "suspended"


async def test_a_member_joins_an_agreement_with_its_own_signature(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    path = (await valise(home, "agreement", "join", "circle", "GE", "--json")).value["draft"]
    without = await signed(home, path, "AT/ncb", "LV/ncb")
    assert "agreement-circle: 1 more must sign: GE" in without.err
    assert (await signed(home, path, "GE/ncb")).code == 0
    shown = await valise(home, "member", "show", "GE", "--bureau", "AT/ncb", "--json")
    assert shown.value["agreements"] == ["circle"]


async def test_a_draft_that_is_in_force_or_was_overtaken_says_so(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    first = (await valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    second = (await valise(home, "agreement", "join", "circle", "GE", "--json")).value["draft"]
    done = await signed(home, first, "AT/ncb", "LV/ncb")
    assert done.out.startswith("wrote directory version 2")
    assert done.out.splitlines()[-1].startswith("valise directory status"), "a broker that runs takes it by itself"
    again = await valise(home, "directory", "activate", first)
    assert again.code == 0
    assert again.out.startswith("nothing was written, all of this draft is in force: directory version 2, 3 members")
    for path, what in ((first, "was activated already"), (second, "the draft was overtaken by another")):
        for words in (("show", path), ("sign", path, "--bureau", "AT/ncb", "--yes")):
            said = await valise(home, "directory", *words)
            assert (said.code, what in said.err) == (1, True), said


async def test_a_directory_that_may_be_stale_is_not_called_done_and_nothing_is_drafted_from_it(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    path = (await valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    mine = ("--bureau", "AT/ncb")
    looks = [
        (*each, *whose, "--json")
        for each in (("directory", "status"), ("directory", "show", path), ("member", "list"), ("agreement", "list"))
        for whose in ((), mine)
    ] + [("broker", "status", "--json")]

    async def seen() -> set[tuple[int, bool]]:
        told = [await valise(home, *each) for each in looks]
        return {(each.code, each.value["stale"]) for each in told}

    assert await seen() == {(0, False)}
    for each in home.glob("bus.db*"):
        each.unlink()
    assert await seen() == {(5, True)}
    assert "the bus does not answer" in (await valise(home, "directory", "status")).err
    assert (await valise(home, "directory", "root", "AT", "LV")).code == 5
    signed_on = await valise(home, "directory", "sign", path, *mine, "--yes")
    assert (signed_on.code, "the bus does not answer" in signed_on.err) == (0, True)


async def test_a_new_agreement_needs_as_many_signatures_as_it_names(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    words = ("--title", "Three", "--basis", "invented", "--member", "AT", "--member", "LV", "--member", "GE")
    drafted = await valise(home, "agreement", "add", "three", *words, "--signatures", "3", "--json")
    two = await signed(home, drafted.value["draft"], "AT/ncb", "LV/ncb")
    assert "agreement-three: 1 more must sign: GE" in two.err
    assert (await signed(home, drafted.value["draft"], "GE/ncb")).code == 0


async def test_copies_that_were_signed_apart_are_put_together(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    path = (await valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    copies = []
    for bureau in ("AT/ncb", "LV/ncb"):
        copies.append(str(tmp_path / f"{bureau[:2]}.json"))
        await valise(home, "directory", "sign", path, "--to", copies[-1], "--bureau", bureau, "--yes")
    assert (await valise(home, "directory", "activate", *copies)).code == 0


def test_a_draft_is_whole_at_every_moment_while_it_is_signed(tmp_path: Path) -> None:
    """The signatures of others are in it: killed while it writes its own, a member must not lose them."""
    home = asyncio.run(made(tmp_path)).home
    path = Path(asyncio.run(valise(home, "agreement", "suspend", "circle", "--json")).value["draft"])
    whole = path.read_bytes()
    with path.open("rb") as before:
        assert asyncio.run(valise(home, "directory", "sign", str(path), "--bureau", "AT/ncb", "--yes")).code == 0
        assert (before.read(), path.read_bytes() != whole) == (whole, True)


async def test_a_member_does_not_sign_a_key_that_is_not_its_own(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    base = stage.operator.versions.guard().opened
    assert base is not None
    wanted, forged, now = json.loads(base.plain), SigningKey.new().public, clock()
    key = {"key_id": forged.id.hex(), "bureau": "AT/ncb", "algorithm": "ed25519", "public": forged.raw.hex()}
    wanted["keys"].append(key | {"valid_from": now, "valid_until": now + 1000})
    path = await proposing.change(stage.operator, "keys of AT", wanted, base)
    with pytest.raises(ConfigurationError, match="do not sign it"):
        signing.sign(stage.home / "members" / "AT", "AT", draft.read_draft(path.read_bytes()), base)
    other, done = signing.sign(stage.home / "members" / "LV", "LV", draft.read_draft(path.read_bytes()), base)
    assert done == []
    assert [each.missing for each in draft.standings(other, base)] == [1]


async def test_a_member_enters_with_its_own_keys_and_a_root_that_another_told_it(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    root = (await valise(home, "directory", "status", "--json")).value["root"]
    nobody = await valise(home, "member", "add", "FR")
    assert "FR has not asked to enter" in nobody.err
    await valise(home, "key", "new", "--bureau", "FR/ncb")
    larger = federation(*BUREAUS, "FR/ncb")
    stage = replace(await _reopened(home), federation=larger)
    proposed = await proposing.propose(stage.operator, larger, [home / "members"])
    blind = await valise(home, "directory", "sign", str(proposed.path), "--bureau", "FR/ncb", "--yes")
    assert "valise directory trust FINGERPRINT" in blind.err
    assert (await valise(home, "directory", "trust", root, "--bureau", "FR/ncb")).code == 0
    early = await valise(home, "inbox", "--bureau", "FR/ncb")
    assert (early.code, "nobody may before a directory in force names it" in early.err) == (5, True)
    assert (await signed(home, str(proposed.path), "FR/ncb", "AT/ncb", "LV/ncb")).code == 0
    (key,) = (await valise(home, "key", "list", "--bureau", "FR/ncb", "--json")).value
    assert key["state"] == "in force"
    told = (await valise(home, "directory", "status", "--bureau", "FR/ncb", "--json")).value
    assert ("FR", ["FR"]) in [(each["role"], each["holders"]) for each in told["roles"]]


async def test_a_member_that_has_entered_is_not_added_again_and_what_is_meant_is_named(tmp_path: Path) -> None:
    """A request of another's lay there: without a word of AT, its draft had come of it."""
    home = (await made(tmp_path)).home
    await valise(home, "key", "new", "--bureau", "FR/ncb")
    added = await valise(home, "member", "add", "AT")
    assert (added.code, "AT has entered already: `valise directory draft`" in added.err) == (1, True)
    assert "`valise member rekey AT`" in added.err
    assert not (home / "operator" / "drafts" / "2.draft.json").exists()


async def test_a_key_that_waits_is_to_be_sent_and_no_other_is_made_before(tmp_path: Path) -> None:
    """Its list named `key rotate`, which refuses while that key waits."""
    home, mine = (await made(tmp_path)).home, ("--bureau", "AT/ncb")
    assert (await valise(home, "key", "list", *mine)).out.splitlines()[-1].startswith("valise key rotate")
    request = (await valise(home, "key", "rotate", *mine, "--json")).value["request"]
    assert (await valise(home, "key", "list", *mine)).out.splitlines()[-1] == f"send {request} to the operator"
    (key, _) = (await valise(home, "key", "list", *mine, "--json")).value
    keyring.forget(home / "members" / "AT", bytes.fromhex(key["key_id"]))  # as once its revocation is on record
    example = tmp_path / "draft.json"
    example.write_text((await valise(home, "schema", "show", "person", "--example")).out, encoding="utf-8")
    refused = await valise(home, "publish", str(example), *mine)
    assert (refused.code, "in the directory. `valise key list` says what is to be done" in refused.out) == (1, True)


async def test_a_request_of_nobody_in_the_federation_is_passed_over_and_keeps_nobody_else_out(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    stray = await valise(home, "key", "new", "--bureau", "XX/ncb")
    assert (stray.code, "has no bureau XX/ncb: check how it is written" in stray.err) == (0, True)
    stage, said = await _reopened(home), list[str]()
    with pytest.raises(ConfigurationError, match="there is nothing to sign"):
        await proposing.propose(stage.operator, stage.federation, [home / "members"], said.append)
    assert len(said) == 2
    assert "file has no member XX" in (await valise(home, "member", "add", "XX")).err
    await valise(home, "key", "new", "--bureau", "FR/ncb")
    drafted = await valise(home, "directory", "draft", "--json")
    assert drafted.code == 6, drafted.err
    assert drafted.value["new_keys"] == 1
    member, bureau = drafted.value["passed_over"]
    assert member.endswith("XX.signatory.json: the federation has no member XX: add it to its file first")
    assert bureau.endswith("ncb.request.json: the federation has no bureau XX/ncb: add it to its file first")
    assert drafted.err.count("passed over: ") == 2
    assert "XX" not in json.dumps(drafted.value["changes"])


async def test_a_request_that_is_refused_is_told_and_keeps_nobody_else_out(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    request = (await valise(home, "key", "rotate", "--bureau", "AT/ncb", "--json")).value["request"]
    key_id = unendorsed(Path(request))
    await valise(home, "key", "new", "--bureau", "FR/ncb")
    drafted = await valise(home, "member", "add", "FR", "--json")
    assert (drafted.code, drafted.value["new_keys"]) == (6, 1)
    (said,) = drafted.value["passed_over"]
    assert said.startswith(f"{request}: ")
    assert said.endswith("did not sign that this one follows it: refused")
    assert key_id not in json.dumps(drafted.value["changes"])


def unendorsed(request: Path) -> str:
    """Spoil the endorsement of a key request; return the id of the key that it asks for."""
    asked: dict[str, str] = json.loads(request.read_text(encoding="utf-8"))
    request.write_text(json.dumps(asked | {"endorsement": "00" * 64}), encoding="utf-8")
    return asked["key_id"]


async def test_a_member_that_has_just_entered_may_say_at_once_what_it_wants(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    root = (await valise(home, "directory", "status", "--json")).value["root"]
    await valise(home, "key", "new", "--bureau", "FR/ncb")
    stage = replace(await _reopened(home), federation=federation(*BUREAUS, "FR/ncb"))
    await valise(home, "directory", "trust", root, "--bureau", "FR/ncb")
    proposed = await proposing.propose(stage.operator, stage.federation, [home / "members"])
    assert (await signed(home, str(proposed.path), "FR/ncb", "AT/ncb", "LV/ncb")).code == 0
    wanted = await valise(home, "subscribe", "sought.*", "--bureau", "FR/ncb")
    assert wanted.code == 0, wanted.err


async def _reopened(home: Path) -> Stage:
    return Stage(home, federation(*BUREAUS), operator_home(home))


async def test_a_member_is_suspended_only_after_it_has_executed_every_withdrawal(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    home = stage.home
    person = tmp_path / "person.json"
    person.write_text(json.dumps(DRAFT | {"audience": {"to": ["AT/ncb"]}, "deny": [], "topics": ["sought.red"],
                                          "purpose": "criminal-investigation"}), encoding="utf-8")  # fmt: skip
    async with running(stage):
        await subscribe.send(stage.member("AT/ncb"), ("sought.*",))
        await settled(stage)
        waiting = ("--wait", "45", "--bureau")
        sent = await valise(home, "publish", str(person), *waiting, "LV/ncb", "--json")
        (notice,) = sent.value["notices"]
        assert notice["state"] == "routed", sent
        assert (await valise(home, "inbox", "--bureau", "AT/ncb")).code == 0
        assert (await valise(home, "withdraw", notice["notice"], *waiting, "LV/ncb", "--yes")).code == 0
        await settled(stage)
        early = await valise(home, "member", "suspend", "AT")
        assert early.code == 1
        assert "AT has not executed 1 withdrawal;" in early.err
        assert "AT/ncb: " in early.err
        await valise(home, "inbox", "--bureau", "AT/ncb")
        await settled(stage)
        drafted = await valise(home, "member", "suspend", "AT", "--json")
        assert drafted.value["changes"] == ["member AT: status active becomes suspended"]
        assert (await signed(home, drafted.value["draft"], "LV/ncb", "GE/ncb")).code == 0
        await settled(stage)
        refused = await valise(home, "publish", str(person), *waiting, "AT/ncb", "--json")
        assert refused.code == 1
    back = await valise(home, "member", "activate", "AT", "--json")
    assert back.value["changes"] == ["member AT: status suspended becomes active"]


async def test_the_root_passes_on_and_members_follow_without_pinning_anew(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    drafted = await valise(home, "directory", "root", "LV", "GE", "--json")
    path = drafted.value["draft"]
    held, *moved = drafted.value["changes"]
    ids = {each: sorted(signatories.own(home / "members" / each, each)) for each in ("AT", "GE", "LV")}
    key = re.match(r"root 2: held by GE \(key (\w{16})\), LV \(key (\w{16})\); 2 of them must sign a change$", held)
    assert key is not None
    assert all(any(each.startswith(key[place]) for each in ids[name]) for place, name in ((1, "GE"), (2, "LV")))
    assert [each for each in moved if "may not sign any more: root, targets" in each] == [
        f"AT (key {each[:16]}) may not sign any more: root, targets"
        for each in ids["AT"]
        if each[:16] in "".join(moved)
    ]
    early = await signed(home, path, "GE/ncb")
    assert early.code == 1
    assert (await signed(home, path, "LV/ncb")).code == 0
    told = (await valise(home, "directory", "status", "--bureau", "AT/ncb", "--json")).value
    (row,) = [each for each in told["roles"] if each["role"] == "root"]
    assert row["holders"] == ["GE", "LV"]
    assert all(each["key_id"] in ids[each["member"]] for each in row["keys"])
    alone = await valise(home, "directory", "root", "GE")
    assert "members" in alone.err


async def test_a_member_takes_other_keys_and_signs_with_these_alone_from_then_on(tmp_path: Path) -> None:
    """Its word for itself, for what is joint, for an agreement and for the root; whoever has the old keys is nobody."""
    home = (await made(tmp_path)).home
    trust, mine = home / "members" / "AT" / "trust", ("--bureau", "AT/ncb")
    nothing = await valise(home, "member", "rekey", "GE", "--requests", str(trust))
    assert "GE has not asked for other keys" in nothing.err
    signatories.make(tmp_path / "stranger", "RU", "operator")
    stranger = await valise(home, "member", "rekey", "RU", "--requests", str(tmp_path / "stranger"))
    assert (stranger.code, "RU has not entered: `valise member add RU`" in stranger.err) == (1, True)
    made_next = await valise(home, "key", "signatory", *mine, "--json")
    assert {each.name for each in trust.iterdir()} == {
        "root.pem", "member.pem", "root.2.pem", "member.2.pem", "AT.2.signatory.json", "AT.signatory.json.before",
    }  # fmt: skip
    lost = await valise(home, "member", "rekey", "AT", "--lost", "--json")  # the circle is AT's and LV's
    assert "agreement-circle" not in {each["role"] for each in lost.value["roles"]}
    old = SigningKey.load(trust / "member.pem").public.id.hex()
    assert f"AT (key {old[:16]}) is called LOST" in "\n".join(lost.value["changes"])
    drafted = await valise(home, "member", "rekey", "AT", "--json")
    assert [each["role"] for each in drafted.value["roles"]].count("AT") == 2  # the old key and the new one sign
    assert "LOST" not in "\n".join(drafted.value["changes"])
    new = SigningKey.load(trust / "member.2.pem").public.id.hex()
    assert f"AT (key {new[:16]}) may sign from now on" in "\n".join(drafted.value["changes"])
    assert (await signed(home, drafted.value["draft"], "AT/ncb", "LV/ncb", "GE/ncb")).code == 0
    rooted = await valise(home, "directory", "root", "AT", "LV", "GE", "--json")
    assert (await signed(home, rooted.value["draft"], "AT/ncb", "LV/ncb", "GE/ncb")).code == 0
    told = (await valise(home, "directory", "status", *mine, "--json")).value
    assert (told["refused"], any(each["lost"] for each in told["roles"])) == ("", False)
    keys = {role["role"]: {each["key_id"] for each in role["keys"] if each["member"] == "AT"} for role in told["roles"]}
    root = SigningKey.load(trust / "root.2.pem").public.id.hex()
    assert keys.pop("root") == keys.pop("targets") == {root}
    assert {role: found for role, found in keys.items() if found} == {
        "AT": {new}, "agreement-circle": {new}, "federation": {new},
    }  # fmt: skip
    thief = tmp_path / "thief" / "members" / "AT"
    shutil.copytree(trust.parent, thief)
    for each in ("root", "member"):
        (thief / "trust" / f"{each}.2.pem").unlink()
        (trust / f"{each}.pem").unlink()
    path = (await valise(home, "agreement", "suspend", "circle", "--json")).value["draft"]
    stolen = await valise(thief.parent.parent, "directory", "sign", path, *mine, "--yes")
    assert "AT has no part in this draft, or not with the keys that lie here" in stolen.err
    assert (await signed(home, path, "AT/ncb", "LV/ncb")).code == 0
    again = await valise(home, "key", "signatory", *mine, "--json")
    assert [each.name for each in trust.glob("*.json")] == ["AT.3.signatory.json"]
    assert again.value["request"] != made_next.value["request"]


async def test_the_operator_takes_other_keys_with_the_word_of_the_roots_holders(tmp_path: Path) -> None:
    """As README says: until it is activated it signs no snapshot and no timestamp, and afterwards with these alone."""
    home = (await made(tmp_path)).home
    trust = home / "operator" / "trust"
    old = {name: (trust / f"{name}.pem").rename(tmp_path / name) for name in ("snapshot", "timestamp")}
    path = (await valise(home, "directory", "root", "AT", "LV", "GE", "--json")).value["draft"]
    assert (await signed(home, path, "AT/ncb", "LV/ncb", "GE/ncb")).code == 0
    told = (await valise(home, "directory", "status", "--bureau", "GE/ncb", "--json")).value
    keys = {role["role"]: [each["key_id"] for each in role["keys"]] for role in told["roles"]}
    new = {name: [SigningKey.load(trust / f"{name}.pem").public.id.hex()] for name in old}
    assert ({name: keys[name] for name in old}, told["refused"], told["stale"]) == (new, "", False)


async def test_policies_are_drafted_by_one_and_signed_by_two_members(tmp_path: Path) -> None:
    stage = await made(tmp_path)
    home = stage.home
    changed = tmp_path / "policies"
    shutil.copytree(Path(__file__).parents[2] / "policies", changed)
    first = min(changed.glob("*.cedar"))
    first.write_text(first.read_text(encoding="utf-8") + "// one more word\n", encoding="utf-8")
    async with running(stage):
        await settled(stage)
        drafted = await valise(home, "policy", "activate", str(changed), "--yes", "--author", "AT", "--json")
        path = drafted.value["draft"]
        assert (await valise(home, "policy", "sign", path, "--bureau", "AT/ncb", "--yes")).code == 0
        alone = await valise(home, "policy", "activate", path, "--yes")
        assert (alone.code, alone.err.strip()) == (1, "version-refused: policies: 1 more must sign: GE, LV")
        assert (await valise(home, "policy", "sign", path, "--bureau", "LV/ncb", "--yes")).code == 0
        done = await valise(home, "policy", "activate", path, "--yes", "--json", "--wait", "60")
        assert done.value["state"] == "in-force", done


async def test_a_member_leaves_an_agreement_that_goes_on_without_it(tmp_path: Path) -> None:
    home = (await made(tmp_path)).home
    alone = await valise(home, "agreement", "leave", "circle", "LV")
    assert "valise agreement suspend circle" in alone.err
    path = (await valise(home, "agreement", "join", "circle", "GE", "--json")).value["draft"]
    assert (await signed(home, path, "AT/ncb", "LV/ncb", "GE/ncb")).code == 0
    path = (await valise(home, "agreement", "leave", "circle", "LV", "--json")).value["draft"]
    assert (await signed(home, path, "AT/ncb", "LV/ncb")).code == 1  # GE must sign what it is bound by
    assert (await signed(home, path, "GE/ncb")).code == 0
    shown = await valise(home, "member", "show", "LV", "--bureau", "AT/ncb", "--json")
    assert shown.value["agreements"] == []
    assert "LV is not in circle" in (await valise(home, "agreement", "leave", "circle", "LV")).err


async def test_a_member_whose_key_root_holders_call_lost_unasked_is_told_by_its_own_commands(tmp_path: Path) -> None:
    """They give AT's voice to a key of their own: AT reads it at once, and what to do, until its voice is its own."""
    home, at = (await made(tmp_path)).home, ("--bureau", "AT/ncb")
    trust = home / "members" / "AT" / "trust"
    thief = tmp_path / "thief" / "members" / "AT"
    await valise(home, "directory", "status", *at)
    shutil.copytree(trust.parent, thief, ignore=shutil.ignore_patterns("trust"))
    signatories.make(thief, "AT", json.loads((trust / "AT.signatory.json").read_bytes())["federation"])
    old, new = (SigningKey.load(each / "member.pem").public.id.hex() for each in (trust, thief / "trust"))
    drafted = await valise(home, "member", "rekey", "AT", "--lost", "--requests", str(thief / "trust"), "--json")
    path = drafted.value["draft"]
    assert (await valise(thief.parent.parent, "directory", "sign", path, *at, "--yes")).code == 0
    assert (await signed(home, path, "LV/ncb", "GE/ncb")).code == 0
    for words in ("key list", "member show AT", "directory status", "inbox", "subscribe --list"):
        told = await valise(home, *words.split(), *at)
        said = " ".join(told.err.split())
        assert told.code == 0
        assert (
            f"have called AT's key for directories lost ({old[:16]}), and {new[:16]}, which was not made here" in said
        )
        assert "valise member rekey AT --lost" in said
    (rung,) = (await valise(home, "inbox", *at, "--json")).value["alarms"]
    assert (rung["code"], old[:16] in rung["about"], new[:16] in rung["about"]) == ("key-called-lost", True, True)
    assert (await valise(home, "member", "show", "AT", "--bureau", "LV/ncb", "--json")).value["lost"] == [old]
    others = await valise(home, "key", "list", "--bureau", "LV/ncb")
    assert "lost" not in others.out + others.err
    # Its voice is given back: nothing is red any more, and that it was taken stays said.
    await valise(home, "key", "signatory", *at)
    back = (await valise(home, "member", "rekey", "AT", "--lost", "--json")).value["draft"]
    done = await signed(home, back, "AT/ncb", "LV/ncb")
    assert done.code == 0, done.err
    listed = await valise(home, "key", "list", *at)
    assert ("RED" in listed.err, old[:16] in listed.out, new[:16] in listed.out) == (False, True, True), listed
    await valise(home, "key", "signatory", *at)  # the next, which nobody has entered yet
    assert "RED" not in (await valise(home, "key", "list", *at)).err
    rung = [each["about"].split()[2] for each in (await valise(home, "inbox", *at, "--json")).value["alarms"]]
    assert rung == [old[:16], new[:16]]  # once for each key, whoever speaks since
