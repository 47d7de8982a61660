"""What a policy officer does: reads, drafts, checks, compares, activates, goes back; and what others may see."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.versions import Versions
from broker import codec, notes
from broker.notice import DecisionRecord, Leaf, Verified
from broker.register import Register
from broker.trail import Trail
from cli import drafts, exits, seed, subscribe
from cli.main import main
from cli.officer import activating, in_force, trying
from cli.officer.sets import of_folder
from cli.operator_home import operator_home
from cli.stage import Stage, running, set_up, settled
from tests.fake_bus import still_owned

pytestmark = pytest.mark.slow
BUREAUS = ("LV/ncb", "GE/organised-crime", "RU/ncb", "AT/ncb")
PERSON: dict[str, Any] = {
    "kind": "person",
    "topics": ["organised-crime.eurasian"],
    "purpose": "criminal-investigation",
    "legal_basis": "Invented act, section 4",
    "audience": {"agreements": ["project-millennium"]},
    "deny": ["RU"],
    "subject_categories": ["suspect"],
    "minor": "no",
    "compartments": {
        "identity": {"names": [{"family": "Zvirbulauskis", "given": "Avtandil", "script": "Latn", "kind": "primary"}]},
        "warnings": {"items": [{"code": "violent"}]},
    },
}
MORE_RULE = """// Nothing goes to Georgia's unit on organised crime.
@id("not-to-ge")
@owner("general secretariat, legal service")
@basis("Invented (federation rules, rule 1)")
forbid (principal == Bureau::"GE/organised-crime", action in [Action::"receive", Action::"see"], resource);
"""
FOR_ENDS = MORE_RULE.replace("resource);", 'resource) when { resource.kind == "withdrawal" };')
MORE_CASES = """[tricky]
one-bureau = "the bureau, not its member"

[world.bureaus]
"AT/ncb" = ["criminal-investigation"]
"GE/ncb" = ["criminal-investigation"]
"GE/organised-crime" = ["criminal-investigation"]

[[case]]
name = "the unit is left out, its member is not"
tricky = ["one-bureau"]
notice = { issuer = "AT/ncb", to = ["GE"] }
receive = ["GE/ncb"]
"""


@dataclass(frozen=True)
class Result:
    """A command that ran to its end."""

    code: int
    said: str
    errors: str

    @property
    def value(self) -> Any:
        """What it printed as JSON."""
        assert self.said, self.errors
        return json.loads(self.said)

    @property
    def first(self) -> str:
        """The answer."""
        assert self.said, self.errors
        return self.said.splitlines()[0]


class World:
    """A home in which three notices were decided, and the command as a user runs it."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.home = stage, stage.home
        self.notices: dict[str, str] = {}

    def valise(self, *arguments: str, home: str = "") -> Result:
        """Run the command on the whole home, or on one party's."""
        said, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(errors):
            try:
                main([*arguments, "--home", str(self.home / home)])
            except SystemExit as end:
                return Result(int(end.code or 0), said.getvalue(), errors.getvalue())
        raise AssertionError

    async def publish(self, name: str, bureau: str, **fields: Any) -> None:
        """Publish a draft and remember its notice."""
        file = self.home / f"{name}.json"
        file.write_text(json.dumps({**PERSON, "record": name, **fields}), encoding="utf-8")
        words = ("publish", str(file), "--bureau", bureau, "--json", "--wait", "60")
        said = await asyncio.to_thread(self.valise, *words)
        (notice,) = said.value["notices"]
        assert notice["state"] == "routed", said.said
        self.notices[name] = notice["notice"]

    def with_broker(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run the broker while something happens."""

        async def both() -> None:
            async with running(self.stage):
                await act()
                await settled(self.stage)

        asyncio.run(both())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Four bureaus; LV has published to the circle without RU, of a minor, and a first version that it corrected."""
    home = tmp_path_factory.mktemp("policy") / "home"
    made = World(asyncio.run(set_up(home, seed.seed(), "sqlite", BUREAUS, lambda _: None)))

    async def happen() -> None:
        for bureau in BUREAUS:
            await subscribe.send(made.stage.member(bureau), ("organised-crime.*",))
        await settled(made.stage)
        await made.publish("circle", "LV/ncb")
        await made.publish("minor", "LV/ncb", minor="yes", deny=[])
        await made.publish("named", "AT/ncb", audience={"to": ["GE/organised-crime"]}, deny=[])
        await settled(made.stage)
        await asyncio.to_thread(made.valise, "inbox", "--bureau", "GE/organised-crime")

    made.with_broker(happen)
    return made


@pytest.fixture
def drafted(world: World, tmp_path: Path) -> Path:
    """A folder with the packaged policies and one rule more."""
    folder = tmp_path / "drafted"
    shutil.copytree(Path(__file__).parent.parent.parent / "policies", folder)
    (folder / "30-not-to-ge.cedar").write_text(MORE_RULE, encoding="utf-8")
    (folder / "cases" / "30-not-to-ge.toml").write_text(MORE_CASES, encoding="utf-8")
    assert world.home.is_dir()
    return folder


# Reading


def test_the_rules_in_force_are_read_as_sentences(world: World) -> None:
    said = world.valise("policy", "list").said
    assert "rules in force, version" in said.splitlines()[0]
    assert "owner-denial (forbid)  Whom the issuer has excluded receives and sees nothing" in said
    assert "  place  01-owner.cedar:12" in said
    (denial,) = (
        each for each in world.valise("policy", "list", "--json").value["rules"] if each["id"] == "owner-denial"
    )
    assert denial["owner"] == "general secretariat, legal service"
    assert "cases/01-owner.toml: denial beats being addressed" in denial["cases"]


def test_what_rests_on_an_agreement_is_listed(world: World) -> None:
    value = world.valise("policy", "list", "--agreement", "project-millennium", "--json").value
    assert (value["status"], value["notices_in_force"]) == ("active", {"LV/ncb": 2})
    assert "LV>RU" in value["transfers_only"]
    assert "LV>AT" in value["transfers_also"]
    assert {"agreement-in-force", "transfer-basis"} <= set(value["rules"])
    unknown = world.valise("policy", "list", "--agreement", "entente")
    assert (unknown.code, "there is no agreement entente" in unknown.errors) == (1, True)


def test_a_member_reads_the_same_rules(world: World) -> None:
    theirs = world.valise("policy", "list", "--json", home="members/LV").value
    assert theirs["digest"] == world.valise("policy", "list", "--json").value["digest"]


# Explaining


def test_the_operator_is_told_for_every_bureau_yes_or_no_and_by_what(world: World) -> None:
    value = world.valise("policy", "explain", world.notices["circle"], "--json").value
    told = {each["bureau"]: each for each in value["bureaus"]}
    assert told["GE/organised-crime"]["receives"]
    assert told["RU/ncb"]["code"] == "denied-by-you"
    assert told["LV/ncb"]["code"] == "issuer"
    assert len(told) == 64
    first = world.valise("policy", "explain", world.notices["circle"]).first
    assert first.startswith("2 of 64 bureaus received it: person of LV/ncb, routed, decided ")


def test_for_one_bureau_facts_and_what_would_have_to_change_are_told_in_sentences(world: World) -> None:
    said = world.valise("policy", "explain", world.notices["circle"], "--bureau", "RU/ncb").said
    assert said.splitlines()[0].startswith("RU/ncb: no, decided ")
    assert "    fact    the issuer denied RU" in said
    assert "    change  the issuer would have to take RU off its deny list" in said
    assert said.splitlines()[-1].startswith("valise audit show")


def test_an_issuer_sees_the_explanation_of_its_own_notice_at_its_own_home(world: World) -> None:
    said = world.valise(
        "policy", "explain", world.notices["minor"], "--bureau", "GE/organised-crime", home="members/LV"
    )
    assert said.first.startswith("GE/organised-crime: yes")
    assert "  withheld  identity, by minor-identity" in said.said


def test_a_recipient_sees_why_it_got_a_notice_and_nothing_about_others(world: World) -> None:
    said = world.valise("policy", "explain", world.notices["circle"], home="members/GE")
    assert said.first.startswith(f"GE/organised-crime received person {world.notices['circle']} of LV/ncb")
    assert "rule mandate-receive: A bureau receives what serves a purpose that it has a mandate for." in said.said
    assert not [word for word in ("RU", "deny", "denied", "AT/") if word in said.said]


@pytest.mark.parametrize(
    ("home", "notice", "more"),
    [
        ("members/RU", "circle", ()),
        ("members/RU", "named", ()),
        ("members/LV", "named", ()),
        ("members/GE", "circle", ("--bureau", "RU/ncb")),
    ],
)
def test_anothers_notice_is_no_such_notice(world: World, home: str, notice: str, more: tuple[str, ...]) -> None:
    said = world.valise("policy", "explain", world.notices[notice], *more, home=home)
    assert (said.code, said.said, said.errors) == (1, "", "no-such-notice: no such notice\n")


def test_where_no_rule_was_asked_it_is_said_what_happened_instead(world: World) -> None:
    said = world.valise("policy", "explain", "0")
    assert (said.code, "no rule was asked about it: resumed in leaf 0" in said.errors) == (1, True)


def test_what_is_no_notice_is_no_such_notice(world: World) -> None:
    for name in ("9999999", "no", "01a20b6e-3b8c-7005-b238-c3370b1217f7"):
        assert world.valise("policy", "explain", name).code == 1


def test_a_dry_run_tells_as_much_and_where_the_annex_could_still_change_it(world: World) -> None:
    file = world.home / "try.json"
    file.write_text(json.dumps({**PERSON, "record": "try", "confidentiality": "confidential"}), encoding="utf-8")
    value = world.valise("publish", "--dry-run", str(file), "--json", home="members/LV").value
    told = {each["bureau"]: each for each in value}
    assert told["RU/ncb"]["obstacles"][0]["change"] == "the issuer would have to take RU off its deny list"
    assert any("annex" in doubt for doubt in told["GE/organised-crime"]["doubts"])
    said = world.valise("publish", "--dry-run", str(file), home="members/LV").said
    assert "the annex, which you may not know, could still change it (rule clearance)" in said
    assert said.splitlines()[-1].startswith(f"valise publish {file} --bureau LV/ncb")
    rows = {each.split()[0]: each.split()[1] for each in said.splitlines()[2:66]}
    assert (rows["RU/ncb"], rows["GE/organised-crime"]) == ("no", "maybe")
    maybe = list(rows.values()).count("maybe")
    assert f", {maybe} more may" in said.splitlines()[0]


def test_many_drafts_are_summed_up_by_bureau_as_each_of_them_is_told(world: World, tmp_path: Path) -> None:
    """The sum agrees with the whole list, draft by draft, and names the drafts that do not simply arrive."""
    kinds: tuple[dict[str, Any], ...] = (
        {"audience": {"to": ["AT/ncb", "GE/ncb"]}},
        {"topics": ["wanted.red"]},
        {"confidentiality": "confidential"},
        {"audience": {"to": ["LV/ncb"]}, "deny": []},
    )
    drafts = [{**PERSON, **kinds[place % 4], "record": f"sum-{place}"} for place in range(12)]
    file = tmp_path / "many.json"
    file.write_text(json.dumps(drafts), encoding="utf-8")
    tried = ("publish", "--dry-run", str(file), "--bureau", "LV/ncb")
    each = tuple(word for draft in drafts for word in ("--record", draft["record"]))
    singly = world.valise(*tried, *each, "--json", home="members/LV").value
    summed = world.valise(*tried, "--json", home="members/LV").value
    assert {one["record"] for one in singly} == {one["record"] for one in drafts}
    assert (summed["drafts"], summed["more"], summed["stale"]) == (12, 12, False)
    for row in summed["bureaus"]:
        own = [one for one in singly if one["bureau"] == row["bureau"]]
        assert row["receives"] == sum(one["receives"] and not one["held"] for one in own)
        assert row["reviews"] == sum(one["receives"] and one["held"] for one in own)
        assert row["maybe"] == sum(one["uncertain"] for one in own if not one["receives"])
        assert row["receives"] + row["reviews"] + row["maybe"] + row["no"] == len(own) == 12
        codes = Counter(code for one in own for code in {bar["code"] for bar in one["obstacles"]})
        codes["held"] = sum(one["held"] and not one["receives"] for one in own)
        assert Counter(row["in_the_way"]) == +codes
        assert Counter(row["withheld"]) == Counter(name for one in own for name in one["withheld"])
        assert list(row["in_the_way"]) == sorted(row["in_the_way"], key=lambda code: (-codes[code], code)), "each time"
        assert set(row["in_the_way"]) <= set(summed["codes"])
        assert row["rules"] == Counter(", ".join(one["rules"]) for one in own if one["receives"])
        assert row["uncertain"] == sum(one["uncertain"] for one in own if one["receives"])
    receiving = {(", ".join(one["rules"]), one["sentence"]) for one in singly if one["receives"]}
    assert {(rules, said) for rules, told in summed["rules"].items() for said in told} == receiving
    assert summed["codes"]["mandate-receive"].startswith("no rule permits it: "), "a rule that lets others have it"
    assert "mandate-receive" in summed["rules"]
    assert {fate: records[0] for fate, records in summed["fates"].items() if records} == {
        "reached": "sum-0", "held": "sum-1", "maybe": "sum-2", "nobody": "sum-3",
    }  # fmt: skip


def test_a_sum_says_what_it_leaves_off_and_how_one_draft_is_shown(world: World, tmp_path: Path) -> None:
    file = tmp_path / "many.json"
    drafts = [{**PERSON, "audience": {"to": ["LV/ncb"]}, "deny": [], "record": f"own-{each}"} for each in range(11)]
    file.write_text(json.dumps(drafts), encoding="utf-8")
    tried = ("publish", "--dry-run", str(file), "--bureau", "LV/ncb")
    said = world.valise(*tried, home="members/LV").said.splitlines()
    assert said[0] == "11 drafts: 11 would reach nobody"
    assert any(each.startswith("would reach nobody: own-0, ") and each.endswith("own-9 and 1 more") for each in said)
    assert said[-2].startswith("none of the 11 is shown by itself; one of them in full: valise publish ")
    assert said[-2].endswith(" --record RECORD")
    assert any(each.startswith("LV/ncb") and "issuer:11" in each for each in said)
    one = world.valise(*tried, "--record", "own-10", home="members/LV")
    assert (one.code, one.said.splitlines()[1].split()[:2]) == (0, ["bureau", "receives"])
    unknown = world.valise(*tried, "--record", "own-1", "--record", "own-11", home="members/LV")
    assert (unknown.code, "has no draft of own-11" in unknown.errors) == (1, True)
    assert world.valise("publish", str(file), "--record", "own-1", home="members/LV").code == 2


def test_a_dry_run_of_a_record_that_is_out_tries_its_correction_on_those_who_hold_it(world: World) -> None:
    names = ("circle", "never published")
    tried = [{**PERSON, "record": each, "action_sought": "watch"} for each in names]
    with world.stage.member("LV/ncb").outbox() as outbox:
        made = outbox.rehearse(drafts.read(json.dumps(tried), "-"))
        correction, new = (each for each in made if isinstance(each, Verified))
        assert (correction.header.version, [each.relation for each in correction.header.references]) == (
            2,
            ["corrects"],
        )
        assert set(trying._holders(outbox, correction)) == {"AT/ncb", "GE/organised-crime"}
        assert (new.header.version, trying._holders(outbox, new)) == (1, ())


# Deciding again


def test_a_decision_is_repeated_from_its_record_and_is_the_same(world: World) -> None:
    said = world.valise("audit", "show", world.notices["minor"], "--redecide")
    assert (said.code, said.first.startswith("decided again: the same")) == (0, True)
    (value,) = world.valise("audit", "show", world.notices["minor"], "--redecide", "--json").value
    assert value["same"]
    assert value["asked"] == 64 * 12


def test_a_record_that_was_bent_is_not_repeated_but_found_out(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.home, copy)
    with sqlite3.connect(copy / "operator" / "records.db") as database:
        for number, data in database.execute("SELECT leaf_number, record FROM decision").fetchall():
            record = codec.decode(DecisionRecord, data)
            fewer = codec.encode(replace(record, rows=record.rows[1:]))
            database.execute("UPDATE decision SET record = ? WHERE leaf_number = ?", (fewer, number))
    bent = World(replace(world.stage, home=copy))
    said = bent.valise("audit", "show", world.notices["minor"], "--redecide")
    assert (said.code, "is not the one that the leaf commits to" in said.errors) == (4, True)


# Checking, comparing


def test_the_policies_in_force_have_no_finding(world: World) -> None:
    said = world.valise("policy", "check")
    assert (said.code, said.first.startswith("no finding: ")) == (0, True), said.said
    assert said.said.splitlines()[-1].startswith("valise policy compare DIR")


def test_a_draft_is_checked_and_each_finding_has_a_place_and_says_what_to_do(world: World, drafted: Path) -> None:
    (drafted / "30-not-to-ge.cedar").write_text(MORE_RULE.replace("GE/organised-crime", "AT/border"), encoding="utf-8")
    said = world.valise("policy", "check", str(drafted), "--json")
    assert said.code == 1
    findings = {(each["file"], each["code"]) for each in said.value["findings"]}
    assert ("cases/30-not-to-ge.toml", "broken") in findings
    assert all(each["todo"] for each in said.value["findings"])
    usage = world.valise("policy", "compare", str(drafted), "--since", "yesterday")
    assert (usage.code, "12h, 90d, 4w" in usage.errors) == (2, True)


def test_a_draft_is_compared_with_what_was_decided(world: World, drafted: Path) -> None:
    value = world.valise("policy", "compare", str(drafted), "--json").value
    assert (value["decisions"], value["in_force"], value["changed"]) == (3, 3, 3)
    assert value["lines"] == [
        {
            "member": "GE", "way": "loses", "what": "receive", "rule": "not-to-ge", "notices": 3, "in_force": 3,
            "bureaus": ["GE/organised-crime"],
        }
    ]  # fmt: skip
    said = world.valise("policy", "compare", str(drafted)).said
    assert said.splitlines()[0].startswith("3 notices would come out otherwise, 3 of them in force: 1 member loses")
    none = world.valise("policy", "compare", str(drafted), "--since", "all", "--json").value
    assert none["changed"] == 3
    assert none["refused"] is None


def test_what_rests_on_a_register_that_was_emptied_is_not_answered(world: World, drafted: Path, tmp_path: Path) -> None:
    """As `broker resume` leaves it until the next start: nothing would be revoked, in force or signed for."""
    home = tmp_path / "copied"
    shutil.copytree(world.home, home)
    copied = World(Stage(home, world.stage.federation, operator_home(home)))

    async def empty() -> None:
        with closing(Register(home / "operator" / "register.db")) as register:
            await register.take_over(still_owned)
            register.forget()

    asyncio.run(empty())
    resting = (("policy", "compare", str(drafted)), ("policy", "list", "--agreement", "project-millennium"))
    for command in (*resting, ("key", "list"), ("key", "revoked")):
        done = copied.valise(*command)
        assert (done.code, "next start" in done.errors) == (exits.UNAVAILABLE, True), command
    status = copied.valise("broker", "status", "--json")
    assert (status.code, status.value["old_keys"], status.value["stale"]) == (exits.UNAVAILABLE, None, True)


def test_a_draft_whose_cases_do_not_hold_yet_is_compared_and_told_why_it_cannot_be_activated(
    world: World, drafted: Path
) -> None:
    (drafted / "cases" / "30-not-to-ge.toml").write_text(MORE_CASES.replace('["GE/ncb"]\n', "[]\n"), encoding="utf-8")
    value = world.valise("policy", "compare", str(drafted), "--json").value
    assert (value["changed"], value["refused"].split(": ")[1]) == (3, "cases/30-not-to-ge.toml:9")
    said = world.valise("policy", "compare", str(drafted)).said
    assert "it cannot be activated: policies: cases/30-not-to-ge.toml:9: case 'the unit is left out" in said
    assert f"valise policy check {drafted}" in said.splitlines()[-1]


# Several shards


def with_second_shard(world: World, folder: Path, policies: bytes | None = None) -> World:
    """Copy the home, and put the same history beside itself as that of a second shard, perhaps under another set."""
    other = World(world.stage)
    other.home = folder / "home"
    shutil.copytree(world.home, other.home)
    operator, key = other.home / "operator", world.stage.operator.owner().key
    first, origin = Trail.open(operator / "trail"), f"{world.stage.operator.owner().origin}-1"
    entries = list(first.entries())
    if policies:
        last = replace(codec.decode(Leaf, entries[-1]), policies=policies)
        entries.append(codec.encode(last))
    second = Trail.open(operator / "trail-1", origin)
    staged = second.stage(entries)
    second.write(staged)
    second.publish(staged, notes.sign_checkpoint(notes.Checkpoint(origin, staged.size, staged.root), key))
    for name in ("records", "register"):
        shutil.copy(operator / f"{name}.db", operator / f"{name}-1.db")
    return other


def test_what_all_shards_decided_is_compared_and_counted(world: World, drafted: Path, tmp_path: Path) -> None:
    both = with_second_shard(world, tmp_path)
    (both.home / "operator" / "trail-2").mkdir()  # of a third that never ran
    compared = both.valise("policy", "compare", str(drafted), "--json")
    assert (compared.code, compared.value["decisions"], compared.value["in_force"]) == (0, 6, 6)
    assert compared.value["left_out"] == {}
    digest = both.valise("policy", "list", "--json").value["digest"]
    assert both.valise("policy", "list", "--json").value["shards"] == {"0": digest, "1": digest}
    assert "another version" not in both.valise("policy", "list").said
    resting = both.valise("policy", "list", "--agreement", "project-millennium", "--json").value
    assert resting["notices_in_force"] == {"LV/ncb": 4}
    assert {row["shard"] for row in both.valise("policy", "list", "--versions", "--json").value} == {0, 1}


def test_a_shard_that_has_another_set_in_force_is_named(world: World, drafted: Path, tmp_path: Path) -> None:
    there = of_folder(drafted)
    both = with_second_shard(world, tmp_path, there.digest)
    Versions(both.home / "operator" / "versions").keep(there.content)
    said = both.valise("policy", "list").said.splitlines()
    assert said[1].startswith(f"shard 1 has another version in force, {there.digest.hex()[:16]}: valise policy list ")
    assert both.valise("policy", "list", "--json").value["shards"]["1"] == there.digest.hex()
    compared = both.valise("policy", "compare", str(drafted), "--json")
    assert (compared.code, compared.value["decisions"]) == (exits.PARTLY, 3)
    assert compared.value["left_out"] == {"1": there.digest.hex()}
    assert "shard 1 is left out" in both.valise("policy", "compare", str(drafted)).said


def test_a_set_that_the_homes_own_shard_adopts_meanwhile_leaves_nothing_out(
    world: World, drafted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "by_shard", lambda _: {0: of_folder(drafted).digest})
    compared = world.valise("policy", "compare", str(drafted), "--json")
    assert (compared.code, compared.value["decisions"], compared.value["left_out"]) == (0, 3, {})


def test_what_became_of_a_set_is_read_in_the_records_of_the_homes_own_shard(world: World, tmp_path: Path) -> None:
    both = with_second_shard(world, tmp_path)
    home = operator_home(both.home)
    home = replace(home, settings=home.settings.model_copy(update={"shard": 1}))
    (both.home / "operator" / "records.db").unlink()  # the other shard's
    assert activating._record(home, 0) is not None


# Activating


def test_who_is_to_sign_a_set_is_told_which_rules_come_go_and_change(world: World, drafted: Path) -> None:
    (drafted / "03-h1.cedar").write_text(
        (drafted / "03-h1.cedar").read_text("utf-8").replace('"extradition"', '"sanctions"'), encoding="utf-8"
    )
    (drafted / "cases" / "03-h1.toml").write_text(
        (drafted / "cases" / "03-h1.toml").read_text("utf-8").replace('"extradition"', '"sanctions"'), encoding="utf-8"
    )
    (drafted / "20-clearance.cedar").unlink()
    (drafted / "cases" / "20-clearance.toml").unlink()
    draft = world.valise("policy", "activate", str(drafted), "--yes", "--json").value["draft"]
    told = world.valise("policy", "show", draft, "--bureau", "GE/organised-crime").said
    assert "+ not-to-ge: Nothing goes to Georgia's unit on organised crime." in told
    assert "- clearance: Nothing goes to a bureau whose clearance is below the notice's confidentiality." in told
    assert "~ h1-evidence: " in told
    assert "The words are the same, the rule is another: 03-h1.cedar:1" in told
    assert "owner-denial" not in told


def test_a_draft_is_activated_decides_and_is_taken_back(world: World, drafted: Path) -> None:
    before = world.valise("policy", "list", "--json").value["digest"]

    async def act() -> None:
        done = await asyncio.to_thread(_activated, world, str(drafted))
        assert done["state"] == "in-force"
        assert done["changes"] == ["+ not-to-ge: Nothing goes to Georgia's unit on organised crime."]
        file = world.home / "later.json"
        file.write_text(json.dumps({**PERSON, "record": "later", "deny": []}), encoding="utf-8")
        words = ("publish", str(file), "--bureau", "LV/ncb", "--json", "--wait", "60")
        said = await asyncio.to_thread(world.valise, *words)
        world.notices["later"] = said.value["notices"][0]["notice"]
        back = await asyncio.to_thread(_activated, world, before[:16])
        assert (back["state"], back["digest"]) == ("in-force", before)

    world.with_broker(act)

    told = world.valise("policy", "explain", world.notices["later"], "--bureau", "GE/organised-crime", "--json").value
    assert told["bureaus"][0]["code"] == "not-to-ge"
    assert told["policies"] != before
    assert world.valise("policy", "list", "--json").value["digest"] == before
    assert world.valise("audit", "show", world.notices["later"], "--redecide").code == 0
    versions = world.valise("policy", "list", "--versions", "--json").value
    assert [each["digest"] for each in versions[-2:]] == [told["policies"], before]
    assert versions[-1]["changes"] == ["- not-to-ge: Nothing goes to Georgia's unit on organised crime."]
    assert world.valise("policy", "activate", before[:16], "--yes").first == f"{before[:16]} is in force already"


def test_a_set_that_no_broker_has_adopted_is_not_called_done(world: World, drafted: Path, tmp_path: Path) -> None:
    copy = World(world.stage)
    copy.home = tmp_path / "home"
    shutil.copytree(world.home, copy.home)
    draft = _signed(copy, str(drafted))
    for _ in range(2):  # the second finds it written, and waits again
        done = copy.valise("policy", "activate", draft, "--yes", "--json", "--wait", "0")
        assert (done.code, done.value["state"]) == (8, "written"), done.errors
    shown = copy.valise("policy", "show", draft)
    assert (shown.code, "was activated already" in shown.errors) == (1, True)


def _activated(world: World, name: str) -> Any:
    """Draft, have two members sign, activate."""
    draft = _signed(world, name)
    return world.valise("policy", "activate", draft, "--yes", "--json", "--wait", "60").value


def _signed(world: World, name: str) -> str:
    draft: str = world.valise("policy", "activate", name, "--yes", "--json").value["draft"]
    for bureau in ("LV/ncb", "GE/organised-crime"):
        signed = world.valise("policy", "sign", draft, "--bureau", bureau, "--yes")
        assert signed.code == 0, signed.errors
    return draft


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"01-owner.cedar": None}, "not in the audience"),
        ({"02-mandate.cedar": "permit (principal"}, "02-mandate.cedar:1"),
        (
            {"30-not-to-ge.cedar": FOR_ENDS},
            "30-not-to-ge.cedar:1: rule not-to-ge is made to stop withdrawal notices",
        ),
    ],
)  # fmt: skip
def test_a_set_that_must_not_be_in_force_is_not_even_drafted(
    world: World, drafted: Path, change: dict[str, str | None], said: str
) -> None:
    for name, text in change.items():
        if text is None:
            (drafted / name).unlink()
        else:
            (drafted / name).write_text(text, encoding="utf-8")
    before = world.valise("policy", "list", "--json").value["digest"]
    refused = world.valise("policy", "activate", str(drafted), "--yes")
    assert (refused.code, refused.said) == (1, "")
    assert said in refused.errors
    assert f"Nothing was written; {before[:16]} stays in force" in refused.errors


def test_what_is_no_set_is_refused_with_what_there_is(world: World) -> None:
    assert "neither a folder of policies nor the digest" in world.valise("policy", "activate", "nowhere").errors
    assert "there are" in world.valise("policy", "activate", "abcdef1234").errors
