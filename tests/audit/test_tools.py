"""The auditor's commands beside a broker that runs: looks, search, proofs, bundles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker import bundle, notes
from broker.bundle import Bundle, Manifest
from broker.index import Index
from broker.merkle import check_inclusion, leaf_hash
from broker.sqlite import SqliteBus
from cli.auditor import export
from cli.auditor.looks import Looked
from cli.auditor.opened import opened_about
from cli.home import clock
from tests import federation as world
from tests.audit.conftest import AUDITOR
from tests.audit.homes import BASIS, SECRET, Homes, person, standing
from tests.making import key_of

REASON = "request 2026/17"
LOOK = ("--reason", REASON, "--wait", "60")
"""Why, and how long the broker may take to put the look on record: on a busy machine longer than commands wait."""


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    with standing(tmp_path_factory.mktemp("audit") / "home") as made:
        yield made


@pytest.fixture(scope="module")
def notice(homes: Homes) -> tuple[str, int]:
    """A notice that LV has read: its id and leaf number."""
    made = homes.published("r-1")
    homes.read(made[0])
    homes.published("r-2")
    return made


# Looks


def test_a_story_without_its_content_needs_no_look(homes: Homes, notice: tuple[str, int]) -> None:
    before = homes.kinds().count("look")
    shown = homes.audit("show", notice[0])
    assert shown.code == 0
    assert SECRET not in shown.out
    assert homes.kinds().count("look") == before


def test_content_is_shown_after_the_look_is_a_leaf(homes: Homes, notice: tuple[str, int]) -> None:
    before = homes.kinds().count("look")
    shown = homes.audit("show", notice[0], "--content", *LOOK, "--json")
    assert shown.code == 0
    (routed,) = [each for each in shown.value if each["kind"] == "routed"]
    assert routed["content"]["narrative"]["items"][0]["text"] == SECRET
    assert homes.kinds().count("look") == before + 1
    told = homes.audit("show", str(routed["shown_under"]), "--json").value
    assert (told[0]["kind"], told[0]["look"]["reason"]) == ("look", REASON)


def test_a_key_that_lies_elsewhere_signs_a_look_once_it_was_agreed_to(
    homes: Homes, notice: tuple[str, int], tmp_path: Path
) -> None:
    own = tmp_path / "auditor.pem"
    key_of(AUDITOR).save(own)
    look = ("show", notice[0], "--content", *LOOK, "--key", str(own), "--json")
    before = homes.kinds().count("look")
    assert homes.audit(*look).code == 130  # nobody says yes
    assert homes.kinds().count("look") == before
    assert homes.audit(*look, "--yes").code == 0
    assert homes.kinds().count("look") == before + 1


def test_content_without_a_reason_is_refused(homes: Homes, notice: tuple[str, int]) -> None:
    shown = homes.audit("show", notice[0], "--content")
    assert shown.code == 1
    assert "--reason" in shown.err
    assert SECRET not in shown.out


def test_whoever_the_directory_does_not_name_sees_nothing(homes: Homes, notice: tuple[str, int]) -> None:
    stranger = str(homes.folder / "members" / "AT" / "keys" / "ncb.pem")
    before = len(homes.kinds())
    shown = homes.audit("show", notice[0], "--content", "--reason", REASON, "--key", stranger)
    assert shown.code == 1
    assert "directory does not name the key" in shown.err
    assert SECRET not in shown.out
    assert len(homes.kinds()) == before


def test_the_issuer_is_told_that_its_notice_was_looked_at(homes: Homes, notice: tuple[str, int]) -> None:
    assert homes.audit("show", notice[0], "--content", *LOOK).code == 0
    traced = homes.valise("trace", notice[0], "--bureau", "AT/ncb")
    assert traced.code == 0
    assert "looked at in clear by auditor-1 on " in traced.out
    assert REASON in traced.out
    (look, *_) = homes.valise("trace", notice[0], "--bureau", "AT/ncb", "--json").value["looks"]
    assert (look["by"], look["reason"]) == ("auditor-1", REASON)
    told = homes.audit("search", "--outcome", "look", "--member", "AT", "--json").value
    assert told["total"] >= 1


# Search


def found(homes: Homes, *options: str) -> list[int]:
    said = homes.audit("search", *options, "--json")
    assert said.code == 0, said
    return [each["leaf"] for each in said.value["leaves"]]


def test_every_word_finds_the_notice_and_its_receipts(homes: Homes, notice: tuple[str, int]) -> None:
    leaf = notice[1]
    for options in (
        ("--notice", notice[0], "--outcome", "routed"),
        ("--bureau", "LV/ncb", "--outcome", "routed"),
        ("--member", "at", "--outcome", "routed"),
        ("--issuer", "AT/ncb", "--recipient", "LV/ncb"),
        ("--purpose", "criminal-investigation"),
        ("--since", "2020-01-01", "--until", "2099-01-01T12:30", "--outcome", "routed"),
    ):
        assert leaf in found(homes, *options), options
    assert found(homes, "--bureau", "GE/ncb") == []
    assert found(homes, "--until", "2020-01-01") == []
    (read,) = found(homes, "--notice", notice[0], "--outcome", "read")
    assert homes.audit("show", str(read), "--json").value[0]["receipt"]["case_digest"]


def test_what_a_bureau_was_given_and_never_answered_is_found_for_its_issuers(homes: Homes) -> None:
    """Its inbox may have been lost and made again: nobody sends it again by itself."""
    answered = homes.published("r-answered")
    assert answered[1] in found(homes, "--silent", "LV/ncb")
    homes.read(answered[0])
    lost = [homes.published(f"r-lost-{number}")[1] for number in (1, 2)]
    assert found(homes, "--silent", "LV/ncb") == lost[::-1]
    assert found(homes, "--silent", "LV/ncb", "--silent", "GE/ncb", "--issuer", "AT/ncb") == lost[::-1]
    assert found(homes, "--silent", "LV/ncb", "--notice", answered[0]) == found(homes, "--silent", "AT/ncb") == []
    said = homes.audit("search", "--silent", "LV/ncb", "--limit", "1").out.splitlines()
    assert (said[0], said[-1].startswith("valise audit search --silent LV/ncb --before ")) == (
        "2 leaves fit; the newest 1 of them, 1 more",
        True,
    )


def test_what_could_not_even_be_read_is_found_by_the_member_on_whose_stream_it_came(homes: Homes) -> None:
    async def send() -> None:
        async with SqliteBus(homes.folder / "bus.db", "at.adapter", world.world(), clock) as bus:
            await bus.append("notices.at", [(b"", b"what is this")])

    asyncio.run(send())
    homes.published("r-behind")  # in its turn: what came before it is on record

    (leaf,) = found(homes, "--member", "AT", "--outcome", "unknown-schema")
    assert "notices.at" in homes.audit("search", "--outcome", "unknown-schema").out.splitlines()[2]
    assert "came on      notices.at" in homes.audit("show", str(leaf)).out
    assert found(homes, "--member", "LV", "--outcome", "unknown-schema") == []


def test_a_rule_that_decided_is_found_by_its_id(homes: Homes, notice: tuple[str, int]) -> None:
    (chapter,) = [each for each in homes.audit("show", notice[0], "--json").value if each["kind"] == "routed"]
    assert notice[1] in found(homes, "--rule", chapter["rules"][0]["rule"])


def test_a_page_says_how_many_more_there_are_and_how_to_go_on(homes: Homes, notice: tuple[str, int]) -> None:
    first = homes.audit("search", "--member", "AT", "--limit", "2", "--json").value
    rest = homes.audit("search", "--member", "AT", "--before", str(first["leaves"][-1]["leaf"]), "--json").value
    assert first["more"] == first["total"] - 2 == rest["total"]
    said = homes.audit("search", "--member", "AT", "--limit", "2").out.splitlines()
    assert f"{first['more']:,} more" in said[0]
    assert f"--before {first['leaves'][-1]['leaf']}" in said[-1]
    assert notice


def test_what_was_signed_under_a_key_is_found_by_it(homes: Homes, notice: tuple[str, int]) -> None:
    at, lv = (key_of(each).public.id.hex() for each in ("AT/ncb", "LV/ncb"))
    found = homes.audit("search", "--key-id", at[:8], "--json").value
    assert [each["leaf"] for each in found["leaves"] if each.get("notice") == notice[0]] == [notice[1]]
    assert {each["kind"] for each in homes.audit("search", "--key-id", lv, "--json").value["leaves"]} == {"receipt"}
    assert homes.audit("search", "--key-id", "0" * 64, "--json").value["total"] == 0
    for wrong in ("", "LV/ncb", "0" * 65):
        assert homes.audit("search", "--key-id", wrong, "--json").code == 1
    page = homes.audit("search", "--key-id", at[:8], "--limit", "1").out.splitlines()
    assert page[-1].startswith(f"valise audit search --key-id {at[:8]} --before ")
    assert homes.audit("show", str(notice[1]), "--json").value[0]["key_id"] == at
    assert f"signed under {at}" in homes.audit("show", notice[0]).out


def test_there_is_no_search_by_name(homes: Homes) -> None:
    said = homes.audit("search", "Vardomelidze")
    assert said.code == 3
    assert "no index of whom notices speak of" in said.err
    assert "Vardomelidze" not in said.err + said.out


def test_an_unknown_word_is_answered_with_those_that_there_are(homes: Homes, notice: tuple[str, int]) -> None:
    said = homes.audit("search", "--outcome", "lost")
    assert said.code == 0
    assert "no leaf fits: there is no outcome 'lost' on record, but adopted" in said.out
    assert notice


def test_what_is_no_time_is_refused(homes: Homes) -> None:
    said = homes.audit("search", "--since", "yesterday")
    assert said.code == 1
    assert "2026-11-01" in said.err


def test_the_index_holds_nothing_of_a_body_and_can_be_made_again(homes: Homes, notice: tuple[str, int]) -> None:
    before = homes.audit("search", "--member", "AT", "--json").value
    file = homes.operator / "records.index.db"
    raw = b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    assert SECRET.encode() not in raw
    assert BASIS.encode() not in raw
    file.write_bytes(b"not a database" * 100)
    assert homes.audit("search", "--member", "AT", "--json").value["total"] == before["total"]
    assert homes.audit("search", "--member", "AT", "--rebuild", "--json").value["total"] == before["total"]
    index = Index(file)
    index.forget()
    assert index.size == 0
    index.close()
    assert homes.audit("search", "--member", "AT", "--json").value["total"] == before["total"]
    assert notice


# Proofs


def test_a_proof_holds_for_any_reader_with_the_public_key(homes: Homes, notice: tuple[str, int]) -> None:
    text = homes.audit("prove", notice[0]).out
    proof = notes.parse_proof(text)
    head = notes.open_checkpoint(proof.checkpoint, world.LOG)
    entry = homes.trail.entry(proof.number)
    check_inclusion(leaf_hash(entry), proof.number, head.size, proof.proof, head.root)
    assert proof.number == notice[1]


def test_a_proof_is_checked_offline_by_one_command(homes: Homes, notice: tuple[str, int], tmp_path: Path) -> None:
    file = tmp_path / "leaf.tlog-proof"
    assert homes.audit("prove", str(notice[1]), "--to", str(file)).code == 0
    said = homes.audit("verify", str(file), "--vkey", homes.vkey)
    assert said.code == 0
    assert said.out.startswith(f"Leaf {notice[1]} (routed")
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[4]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert homes.audit("verify", str(file), "--vkey", homes.vkey).code == 4


def test_there_is_no_proof_of_a_notice_that_is_not_there(homes: Homes) -> None:
    assert homes.audit("prove", "0197a000-0000-7000-8000-000000000000").code == 1
    assert homes.audit("prove", "999999").code == 1


# Bundles


@pytest.fixture(scope="module")
def clear(homes: Homes, notice: tuple[str, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bundles") / "clear.json"
    said = homes.audit("export", notice[0], "--to", str(file), *LOOK)
    assert said.code == 0, said
    assert "the look is on record" in said.out
    return file


def test_a_bundle_with_data_says_who_read_what_when_and_for_which_case(homes: Homes, clear: Path) -> None:
    said = homes.audit("verify", str(clear), "--vkey", homes.vkey, "--json")
    assert said.code == 0, said
    value = said.value
    assert value["good"] is True
    leaves = {each["kind"] + (each["code"] or ""): each for each in value["leaves"]}
    assert leaves["routed"]["signed"] is True
    assert leaves["routed"]["legal_basis"] == BASIS
    assert leaves["routed"]["content"]["narrative"]["items"][0]["text"] == SECRET
    assert [each["bureau"] for each in leaves["routed"]["recipients"]] == ["LV/ncb"]
    assert leaves["receiptread"]["receipt"]["bureau"] == "LV/ncb"
    assert len(leaves["receiptread"]["receipt"]["case_digest"]) == 64
    assert leaves["look"]["look"] == {"by": "auditor-1", "reason": REASON}


def test_every_record_of_a_notice_in_a_bundle_is_named_by_a_look(homes: Homes, notice: tuple[str, int]) -> None:
    """Also what came on record while the looks were asked for, and what ended a notice that nobody released."""
    with opened_about(homes.folder, notice[0]) as home:
        leaves = export._leaves(home, [notice[0]])
        (own,) = [each for each in leaves if each.own]
        ended = replace(own, number=own.number + 1, own=False, leaf=replace(own.leaf, kind="not-released"))
        assert export._by_member([*leaves, ended]) == {"AT": [own.number, ended.number]}
        look = Looked(own.number + 9, "auditor-1", REASON, (own.number + 9,))
        parts = export._bundle(home, leaves, [look]).parts
    assert f"leaf/{own.number}" in parts
    assert f"decision/{own.number}" not in parts
    assert not any(word.encode() in b"".join(parts.values()) for word in (SECRET, BASIS))


def test_a_bundle_of_no_look_is_one_of_digests_and_says_so(homes: Homes, notice: tuple[str, int]) -> None:
    with opened_about(homes.folder, notice[0]) as home:
        leaves = export._leaves(home, [notice[0]])
        made = export._bundle(home, leaves, [])
    assert made.manifest.data == "digests"
    assert not any(f"decision/{each.number}" in made.parts for each in leaves if each.decision.header)


def test_a_bundle_of_digests_holds_nothing_that_the_issuer_wrote(
    homes: Homes, notice: tuple[str, int], tmp_path: Path
) -> None:
    file, before = tmp_path / "digests.json", homes.kinds().count("look")
    said = homes.audit("export", notice[0], "--to", str(file), "--digests-only")
    assert said.code == 0, said
    assert homes.kinds().count("look") == before
    parts = bundle.read(file.read_bytes()).parts
    raw = b"".join(parts.values())
    for word in (SECRET, BASIS, "sought.red", "criminal-investigation", "suspect", "Vardomelidze"):
        assert word.encode() not in raw.replace(b'"criminal-investigation"', b""), word  # mandates in the directory
    value = homes.audit("verify", str(file), "--vkey", homes.vkey, "--json").value
    assert value["good"] is True
    (routed,) = [each for each in value["leaves"] if each["kind"] == "routed"]
    assert [each["bureau"] for each in routed["recipients"]] == ["LV/ncb"]
    assert "notice" not in routed
    assert any(each["kind"] == "receipt" and each["receipt"]["act"] == "read" for each in value["leaves"])


def test_a_bundle_goes_through_no_link_that_was_put_there_and_no_look_is_on_record_for_it(
    homes: Homes, notice: tuple[str, int], tmp_path: Path
) -> None:
    file, before = tmp_path / "bundle.json", homes.kinds().count("look")
    file.symlink_to(tmp_path / "elsewhere")
    assert homes.audit("export", notice[0], "--to", str(file), "--reason", REASON).code == 1
    assert (homes.kinds().count("look"), list(tmp_path.iterdir())) == (before, [file])


def test_the_answer_comes_first_and_what_a_bundle_cannot_show_is_said(homes: Homes, clear: Path) -> None:
    lines = homes.audit("verify", str(clear), "--vkey", homes.vkey).out.splitlines()
    assert lines[0].startswith("The bundle is good: 1 notice,")
    assert any("that nothing was left out" in each for each in lines)


def test_a_bundle_is_checked_with_a_key_from_elsewhere_or_not_at_all(homes: Homes, clear: Path, tmp_path: Path) -> None:
    assert homes.audit("verify", str(clear)).code == 1
    other = tmp_path / "vkey"
    other.write_text(str(notes.vkey(world.ORIGIN, key_of("other").public.raw)), encoding="utf-8")
    assert homes.audit("verify", str(clear), "--vkey", str(other)).code == 4


def test_a_bundle_is_never_written_over_another_file(homes: Homes, notice: tuple[str, int], clear: Path) -> None:
    before = clear.read_bytes()
    assert homes.audit("export", notice[0], "--to", str(clear), "--digests-only").code == 1
    assert clear.read_bytes() == before


def test_an_unknown_notice_is_no_such_notice(homes: Homes, tmp_path: Path) -> None:
    for name in ("0197a000-0000-7000-8000-000000000000", "0", "x" * 10_000, "9" * 30):
        said = homes.audit("export", name, "--to", str(tmp_path / "none.json"), "--reason", REASON)
        assert said.code == 1
        assert "no-such-notice" in said.err
    assert not (tmp_path / "none.json").exists()


def test_json_and_people_are_told_the_same(homes: Homes, clear: Path) -> None:
    value = homes.audit("verify", str(clear), "--vkey", homes.vkey, "--json").value
    lines = homes.audit("verify", str(clear), "--vkey", homes.vkey).out
    assert value["answer"] in lines
    assert json.dumps(value)


# What others make of a bundle.


def changed(clear: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> bytes:
    """Write the bundle again with something changed in its parts or manifest."""
    made = bundle.read(clear.read_bytes())
    parts, manifest = dict(made.parts), made.manifest.model_dump()
    change(parts, manifest)
    return Bundle(Manifest(**manifest), parts).written()


def flip(name: str, at: int = -1) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    """Change one byte of the first part whose name begins so."""

    def change(parts: dict[str, bytes], _: dict[str, Any]) -> None:
        found = next(each for each in sorted(parts) if each.startswith(name))
        data = bytearray(parts[found])
        data[at] ^= 1
        parts[found] = bytes(data)

    return change


def without(name: str) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    """Leave out the first part whose name begins so."""

    def change(parts: dict[str, bytes], _: dict[str, Any]) -> None:
        del parts[next(each for each in sorted(parts) if each.startswith(name))]

    return change


def swapped(one: str, other: str) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    """Put the first part of one kind in the place of the last of another."""

    def change(parts: dict[str, bytes], _: dict[str, Any]) -> None:
        first = next(each for each in sorted(parts) if each.startswith(one))
        last = next(each for each in sorted(parts, reverse=True) if each.startswith(other))
        parts[first], parts[last] = parts[last], parts[first]

    return change


def added(name: str) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    """Add a part that nothing speaks of."""
    return lambda parts, _: parts.update({name: b"anything"})


def manifest(**changes: Any) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
    """Say something else in the manifest."""
    return lambda _, told: told.update(changes)


@pytest.mark.parametrize(
    "change",
    [
        *(
            flip(name, at)
            for name in ("leaf/", "proof/", "decision/", "envelope/", "directory/", "checkpoint")
            for at in (-1, 12, 60)
        ),
        *(without(name) for name in ("leaf/", "proof/", "directory/", "checkpoint")),
        *(swapped(name, name) for name in ("leaf/", "proof/", "decision/")),
        swapped("leaf/", "proof/"),
        swapped("decision/", "envelope/"),
        added("leaf/0"),
        added("leaf/-1"),
        added("leaf/" + "9" * 5000),
        added("row/0/0"),
        added("envelope/999"),
        added("../../etc/passwd"),
        added(""),
        manifest(notices=(0,)),
        manifest(size=1),
        manifest(origin="another/trail"),
    ],
)
def test_a_bundle_in_which_anything_was_changed_does_not_hold(
    homes: Homes, clear: Path, tmp_path: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]
) -> None:
    file = tmp_path / "changed.json"
    file.write_bytes(changed(clear, change))
    said = homes.audit("verify", str(file), "--vkey", homes.vkey, "--json")
    assert said.code == 4, said
    assert said.value["wrong"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"format":"valise-bundle/1"}',
        b'{"format":"valise-bundle/1","format":"valise-bundle/1"}',
        b"PK\x03\x04" + bytes(100),
        b"\xff\xfe",
        b'{"format":"valise-bundle/1","manifest":{"origin":"x","data":"clear","notices":[1],"size":1},"parts":{"a":"?"}}',
        b'{"format":"valise-bundle/1","manifest":{"origin":"x","data":"clear","notices":[1],"size":1},"parts":{"a":1}}',
        b"c2sp.org/tlog-proof@v1\nextra AAAA\nindex 0\n\nnothing\n",
        b"c2sp.org/tlog-proof@v1",
        b"c2sp.org/tlog-proof@v1\xff",
    ],
)
def test_what_is_no_bundle_is_refused_with_a_reason(homes: Homes, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "none"
    file.write_bytes(data)
    said = homes.audit("verify", str(file), "--vkey", homes.vkey)
    assert said.code == 4, said
    assert "proof-failed" in said.err


def test_another_s_receipt_cannot_be_hung_on_a_notice(homes: Homes, notice: tuple[str, int], tmp_path: Path) -> None:
    other, _ = homes.published("r-3")
    homes.read(other)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert homes.audit("export", notice[0], "--to", str(first), "--digests-only").code == 0
    assert homes.audit("export", notice[0], other, "--to", str(second), "--digests-only").code == 0
    both, alone = bundle.read(second.read_bytes()), bundle.read(first.read_bytes())
    file = tmp_path / "hung.json"
    told = Manifest(**{**both.manifest.model_dump(), "notices": alone.manifest.notices})
    file.write_bytes(Bundle(told, both.parts).written())
    said = homes.audit("verify", str(file), "--vkey", homes.vkey, "--json")
    assert said.code == 4
    assert any("speaks of none of the notices" in each for each in said.value["wrong"])


# Without the broker


def test_without_the_broker_nothing_in_clear_is_shown_and_digests_still_go_out(tmp_path: Path) -> None:
    with standing(tmp_path / "home") as homes:
        name, _ = homes.published("r-1")
    shown = homes.audit("show", name, "--content", "--reason", REASON, "--wait", "0.5")
    assert shown.code == 5
    assert "start it with `valise broker up`" in shown.err
    assert SECRET not in shown.out
    file = tmp_path / "bundle.json"
    assert homes.audit("export", name, "--to", str(file), "--reason", REASON, "--wait", "0.5").code == 5
    assert not file.exists()
    assert homes.audit("export", name, "--to", str(file), "--digests-only").code == 0
    assert homes.audit("verify", str(file), "--vkey", homes.vkey).code == 0


def test_what_a_record_is_called_begins_no_line_of_its_own_in_its_story(homes: Homes) -> None:
    notice, leaf = homes.published("r-9\n  leaf 1        2026-11-30T10:00:00.000+00:00  withdrawn\nThe trail is good")
    shown = homes.audit("show", notice).out.splitlines()
    assert [each.split()[1] for each in shown if each.startswith("  leaf ")][:1] == [str(leaf)]
    assert not [each for each in shown if "withdrawn" in each and not each.startswith("      record ")]
    assert not [each for each in shown if each.startswith("The trail is good")]


def test_what_a_notice_says_of_its_basis_begins_no_line_of_its_own_in_what_is_said_of_a_bundle(
    homes: Homes, tmp_path: Path
) -> None:
    basis = "a law\n  leaf 1        2026-11-30T10:00:00.000+00:00  withdrawn\nThe trail is good"
    made = json.dumps({**json.loads(person("r-basis")), "legal_basis": basis})
    sent = homes.valise("publish", "-", "--bureau", "AT/ncb", "--json", "--wait", "60", given=made)
    (notice,) = sent.value["notices"]
    assert notice["state"] == "routed"
    file = tmp_path / "basis.bundle"
    assert homes.audit("export", notice["notice"], "--to", str(file), *LOOK).code == 0
    said = homes.audit("verify", str(file), "--vkey", homes.vkey)
    assert (said.code, "a law" in said.out) == (0, True)
    assert all(each.startswith("      notice ") for each in said.out.splitlines() if "withdrawn" in each)
    assert not [each for each in said.out.splitlines() if each.startswith("The trail is good")]
