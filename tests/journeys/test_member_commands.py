from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from adapters.collect import Collector
from adapters.inbox import Inbox
from broker import codec, settings, streams
from broker.bus import Bus
from broker.errors import ConfigurationError, UnavailableError
from broker.notice import KINDS, RELATION_OF_KIND, Envelope
from broker.sqlite import SqliteBus
from cli import drafts
from cli import inbox as inbox_command
from cli import main as command
from cli.home import MemberHome, clock, member_home
from cli.named import whole_id
from cli.options import Everywhere
from schemas import loader
from tests import federation as world
from tests.journeys.member_homes import EUROPOL, Homes, notices, person, publish
from tests.making import Draft as Made


def test_a_notice_goes_from_a_file_to_a_reader_and_the_issuer_learns_of_it(homes: Homes) -> None:
    (sent,) = notices(publish(homes, person("R-1")))
    assert (sent["state"], sent["bureaus"]) == ("routed", 2)
    inbox = homes.valise("inbox", "--bureau", "LV/ncb", "--json")
    assert [(each["record"], each["state"]) for each in notices(inbox)] == [("R-1", "new")]
    assert inbox.value["alarms"] == []
    told = homes.valise("inbox", "--bureau", "LV/ncb").out
    assert any(sent["notice"] in each and each.rstrip().endswith("R-1") for each in told.splitlines())
    read = homes.valise("read", sent["notice"], "--case", "17/26", "--bureau", "LV/ncb", "--json")
    assert set(read.value["compartments"]) == {"identity", "warnings"}
    story = _until(homes, sent["notice"], "read")
    reached = {each["bureau"]: {one["act"] for one in each["answers"]} for each in story["reached"]}
    assert reached == {"LV/ncb": {"received", "read"}, "GE/ncb": set()}
    assert story["silent"] == ["GE/ncb"]
    assert story["alarms"] == 0


def _until(homes: Homes, notice: str, act: str) -> dict[str, Any]:
    """Trace until somebody has answered with this act: the broker takes receipts in beside us."""
    deadline = time.monotonic() + 60
    while True:
        story: dict[str, Any] = homes.valise("trace", notice, "--bureau", "AT/ncb", "--json").value
        if any(one["act"] == act for each in story["reached"] for one in each["answers"]):
            return story
        assert time.monotonic() < deadline, story


async def _forge_for(homes: Homes, bureau: str) -> None:
    async with SqliteBus(homes.folder / "bus.db", "router", world.world(), clock) as bus:
        await bus.append(streams.inbox(bureau), [(b"", b"no delivery")])


async def _hand_in(homes: Homes, envelope: Envelope) -> None:
    async with SqliteBus(homes.folder / "bus.db", streams.adapter("AT"), world.world(), clock) as bus:
        await bus.append(streams.notices("AT"), [(b"", codec.encode(envelope))])


def test_of_a_notice_a_part_of_which_cannot_be_read_the_rest_is_shown_and_the_command_ends_with_6(homes: Homes) -> None:
    made = Made("AT/ncb", bodies={"warnings": loader.example("person.warnings")}).to("LV/ncb")
    asyncio.run(_hand_in(homes, made.but(record="R-unreadable", issued=clock()).envelope()))
    deadline, came = time.monotonic() + 60, list[str]()
    while not came:
        assert time.monotonic() < deadline
        listed = notices(homes.valise("inbox", "--bureau", "LV/ncb", "--json"))
        came = [each["notice"] for each in listed if each["record"] == "R-unreadable"]
    read = homes.valise("read", came[0], "--case", "K-6", "--bureau", "LV/ncb", "--json")
    assert (read.code, list(read.value["compartments"])) == (6, ["warnings"])
    assert "identity" in read.value["unreadable"]
    assert "identity" not in read.value["not_shown"]
    said = homes.valise("read", came[0], "--case", "K-6", "--bureau", "LV/ncb")
    assert (said.code, "IDENTITY: cannot be read" in said.out) == (6, True)


def test_what_is_held_is_opened_released_and_arrives(homes: Homes, capsys: pytest.CaptureFixture[str]) -> None:
    reviewer = ("--bureau", "EUROPOL/analysis")
    (sent,) = notices(publish(homes, person("R-20", topics=["wanted.red"])))
    (other,) = notices(publish(homes, person("R-21", topics=["warning.green"])))
    assert (sent["state"], other["state"]) == ("held", "held")
    assert homes.valise("trace", sent["notice"], "--bureau", "AT/ncb").code == 7
    listed = homes.valise("review", "list", *reviewer, "--json").value["waiting"]
    assert [each["notice"] for each in listed] == [sent["notice"], other["notice"]]
    said = homes.valise("review", "list", *reviewer, "--limit", "1").out
    assert "2 notices wait for EUROPOL/analysis" in said
    assert "; the oldest 1 are listed, `--limit 2` lists all" in said
    assert (sent["notice"] in said, other["notice"] in said) == (True, False)
    assert homes.valise("review", "list", *reviewer, "--limit", "1", "--json").value["left_off"] == 1
    assert homes.valise("review", "release", sent["notice"], *reviewer, "--yes").code != 0, "nobody has opened it"
    for each in (sent, other):
        assert homes.valise("read", each["notice"], "--case", "R", *reviewer, "--json").code == 0
    asyncio.run(_forge_for(homes, "EUROPOL/analysis"))
    released = homes.valise("review", "release", sent["notice"], *reviewer, "--yes", "--json", "--wait", "60")
    refused = homes.valise(
        "review", "refuse", other["notice"], "--reason", "not ours", *reviewer, "--yes", "--json", "--wait", "60"
    )
    assert ([each["state"] for each in notices(released)], released.code) == (["routed"], 4), "a delivery did not hold"
    assert refused.code == 0
    assert homes.valise("review", "list", *reviewer, "--json").value["waiting"] == []
    assert homes.valise("review", "release", sent["notice"], *reviewer, "--yes").code == 1
    assert f"{sent['notice']} does not wait for EUROPOL/analysis, or no longer" in capsys.readouterr().err
    inbox = homes.valise("inbox", "--bureau", "LV/ncb", "--json")
    assert [each["record"] for each in notices(inbox) if each["record"] in ("R-20", "R-21")] == ["R-20"]
    stories = [homes.valise("trace", each["notice"], "--bureau", "AT/ncb", "--json").value for each in (sent, other)]
    assert [each["outcome"] for each in stories] == ["routed", "refused"]


def test_what_was_held_and_withdrawn_waits_for_no_reviewer(homes: Homes) -> None:
    (sent,) = notices(publish(homes, person("R-26", topics=["wanted.red"])))
    (end,) = notices(homes.valise("withdraw", "R-26", "--bureau", "AT/ncb", "--yes", "--json", "--wait", "60"))
    assert (sent["state"], end["state"]) == ("held", "routed")
    told = homes.valise("trace", sent["notice"], "--bureau", "AT/ncb")
    assert told.code == 0
    assert "its record has been withdrawn since" in told.out
    assert homes.valise("trace", sent["notice"], "--bureau", "AT/ncb", "--json").value["unreviewed"] is True


def test_h3_is_opened_only_on_its_terms(homes: Homes) -> None:
    terms = {"handling": ["H1", "H3"], "handling_text": "Ask AT before any act."}
    (sent,) = notices(publish(homes, person("R-22", **terms)))
    words = ("read", sent["notice"], "--case", "1", "--bureau", "LV/ncb")
    assert homes.valise(*words).code == 1
    (line,) = [
        each for each in notices(homes.valise("inbox", "--bureau", "LV/ncb", "--json")) if each["record"] == "R-22"
    ]
    assert line["state"] == "new", "asking for the terms opens nothing"
    opened = homes.valise(*words, "--accept")
    assert opened.code == 0
    assert "no evidence without the owner's consent" in opened.out
    assert "Ask AT before any act." in opened.out


def test_a_member_writes_to_the_officers_terminal_instead_of_to_the_officer(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    """AT's terms rename the window, clear it and turn the text around; a line of them poses as one of ours."""
    evil = "\x1b]0;mine\x07\x1b[2J\x1b[31m\u202e\x9b31m\nvalise read X --accept"
    words = {"handling": ["H3"], "handling_text": evil, "legal_basis": evil, "action_sought": evil}
    (sent,) = notices(publish(homes, person("R-23", **words)))
    read = ("read", sent["notice"], "--case", "1", "--bureau", "LV/ncb")
    for arguments, code in (
        (read, 1),
        ((*read, "--json"), 1),
        ((*read, "--accept"), 0),
        ((*read, "--accept", "--json"), 0),
    ):
        capsys.readouterr()
        said = homes.valise(*arguments)
        shown = said.out + capsys.readouterr().err
        assert said.code == code
        assert "31m" in shown, "what it says is told all the same"
        assert [each for each in shown if not each.isprintable() and each != "\n"] == []
        assert [line for line in shown.splitlines() if line.startswith("valise read X")] == []
    header = homes.valise(*read, "--accept", "--json").value["header"]
    assert header["handling_text"] == evil, "a machine is told what was signed"


def test_absent_and_not_for_you_look_the_same(homes: Homes) -> None:
    (sent,) = notices(publish(homes, person("R-2", audience={"to": ["LV/ncb"]})))
    nobody = "0190aaaa-0000-7000-8000-000000000000"
    answers = [
        homes.valise("read", notice, "--case", "1", "--bureau", "RU/ncb", "--json")
        for notice in (sent["notice"], nobody)
    ]
    answers.append(homes.valise("trace", sent["notice"], "--bureau", "LV/ncb", "--json"))
    assert [(each.code, each.out) for each in answers] == [(1, "")] * 3


def test_a_correction_replaces_and_a_withdrawal_erases(homes: Homes) -> None:
    (first,) = notices(publish(homes, person("R-3")))
    homes.valise("inbox", "--bureau", "GE/ncb", "--json")
    corrected = homes.valise(
        "correct", first["notice"], "-", "--bureau", "AT/ncb", "--json", "--wait", "60",
        given=person("R-3", action_sought="arrest"),
    )  # fmt: skip
    assert [(each["record"], each["version"], each["state"]) for each in notices(corrected)] == [("R-3", 2, "routed")]
    assert _states(homes, "GE/ncb", "R-3") == ["replaced", "new"]
    withdrawn = homes.valise(
        "withdraw", "R-3", "--reason", "arrested", "--yes", "--bureau", "AT/ncb", "--json", "--wait", "60"
    )
    (withdrawal,) = notices(withdrawn)
    assert _states(homes, "GE/ncb", "R-3") == ["replaced", "erased", "new"]
    second = notices(corrected)[0]["notice"]
    read = homes.valise("read", second, "--case", "1", "--bureau", "GE/ncb")
    assert read.code == 1
    story = _until(homes, withdrawal["notice"], "erased")
    assert story["silent"] == ["LV/ncb"]
    chain = [homes.valise("trace", each, "--bureau", "AT/ncb", "--json").value for each in (first["notice"], second)]
    assert [each["newest"] for each in (*chain, story)] == [withdrawal["notice"]] * 2 + [None]
    end = homes.valise("read", withdrawal["notice"], "--case", "1", "--bureau", "GE/ncb")
    assert f"withdraws {second} of AT/ncb" in end.out.splitlines()


def test_a_correction_that_changes_nothing_is_not_sent(homes: Homes) -> None:
    publish(homes, person("R-9"))
    for asked in (("correct", "R-9", "-"), ("publish", "-")):
        again = homes.valise(*asked, "--bureau", "AT/ncb", "--json", "--wait", "60", given=person("R-9"))
        assert [(each["record"], each["state"]) for each in notices(again)] == [("R-9", "unchanged")]


def test_a_correction_that_changes_nothing_is_sent_to_who_has_lost_what_he_had_of_it(homes: Homes) -> None:
    publish(homes, person("R-11"))
    again = ("correct", "R-11", "-", "--again", "--bureau", "AT/ncb", "--json", "--wait", "60")
    for version in (2, 3):
        (sent,) = notices(homes.valise(*again, given=person("R-11")))
        assert (sent["state"], sent["version"], sent["bureaus"]) == ("routed", version, 2)
    assert notices(publish(homes, person("R-11")))[0]["state"] == "unchanged"


def test_nor_is_one_by_another_bureau_of_its_member(homes: Homes) -> None:
    theirs, others = ("--bureau", "AT/organised-crime"), ("--bureau", "AT/ncb")
    wait, draft = ("--json", "--wait", "60"), person("R-10")
    (first,) = notices(homes.valise("publish", "-", *theirs, *wait, given=draft))
    for topics, state in ((["sought.red"], "unchanged"), (["sought.blue"], "routed")):
        draft = person("R-10", topics=topics)
        (corrected,) = notices(homes.valise("correct", first["notice"], "-", *others, *wait, given=draft))
        (again,) = notices(homes.valise("publish", "-", *theirs, *wait, given=draft))
        assert (corrected["state"], again["state"]) == (state, "unchanged")


def _with_a_correction_that_never_arrives(homes: Homes, record: str) -> None:
    """Publish a record, and a correction of it that the outbox takes to be on the bus."""
    publish(homes, person(record))
    homes.valise("inbox", "--bureau", "GE/ncb")
    with member_home(homes.folder, "AT/ncb").outbox() as outbox:
        outbox.publish(drafts.load(io.StringIO(person(record, action_sought="arrest"))))
        outbox.database.execute("UPDATE envelopes SET sent_at = 1 WHERE sent_at IS NULL")


def test_who_withdraws_is_told_what_follows_where_that_told_nobody(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_a_correction_that_never_arrives(homes, "R-F1")
    done = homes.valise("withdraw", "R-F1", "--yes", "--bureau", "AT/ncb", "--json", "--wait", "60")
    assert [(each["version"], each["state"], each["bureaus"]) for each in notices(done)] == [
        (3, "routed", 0), (4, "routed", 2),
    ]  # fmt: skip
    assert f"withdrawal {notices(done)[1]['notice']}, version 4, follows it" in capsys.readouterr().err
    assert _states(homes, "GE/ncb", "R-F1") == ["erased", "new"]


async def _withdraw_unheard(homes: Homes, record: str) -> None:
    home = member_home(homes.folder, "AT/ncb")
    async with home.bus() as bus:
        with home.outbox() as outbox:
            outbox.withdraw(record)
            await outbox.flush(bus)


@pytest.mark.parametrize("arguments", [("trace", "R-F2"), ("inbox",), ("key", "revoked")])
def test_what_follows_a_withdrawal_is_sent_by_whichever_command_hears_that_it_told_nobody(
    homes: Homes, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    record = f"R-F2-{arguments[0]}"
    _with_a_correction_that_never_arrives(homes, record)
    asyncio.run(_withdraw_unheard(homes, record))
    command = tuple(each.replace("R-F2", record) for each in arguments)
    deadline, version, said = time.monotonic() + 60, 3, ""
    while version == 3:
        assert time.monotonic() < deadline
        homes.valise(*command, "--bureau", "AT/ncb", "--json")
        said += capsys.readouterr().err
        with member_home(homes.folder, "AT/ncb").outbox() as outbox:
            found = outbox.find(record)
            assert found is not None
            version, waits = found.version, outbox.waits()
    assert (version, waits) == (4, False)
    assert f"withdrawal of {record} told nobody" in said


def test_a_correction_is_one_draft_of_the_record_that_it_corrects(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(homes, person("R-80"))
    for given, said in (
        ("[]", "- holds 0 drafts: a correction is one"),
        (f"[{person('R-80')}, {person('R-80')}]", "- holds 2 drafts: a correction is one"),
        (person("R-81"), "- is record R-81, and R-80 of AT/ncb is to be corrected"),
        (person("R-80", bureau="AT/border"), "- is record R-80 of AT/border, and R-80 of AT/ncb is to be corrected"),
    ):
        assert homes.valise("correct", "R-80", "-", "--bureau", "AT/ncb", given=given).code == 1
        assert f"bad-file: {said}" in capsys.readouterr().err
    assert homes.valise("trace", "R-80", "--bureau", "AT/ncb", "--json").value["version"] == 1


def test_a_record_of_another_bureau_is_not_touched(homes: Homes, capsys: pytest.CaptureFixture[str]) -> None:
    (ours,) = notices(publish(homes, person("R-N")))
    for action in ("watch", "arrest"):
        draft = person("R-N", action_sought=action)
        homes.valise("publish", "-", "--bureau", "AT/organised-crime", "--json", "--wait", "60", given=draft)
    publish(homes, person("R-M"))
    withdraw = ("withdraw", "--yes", "--json", "--wait", "60", "--bureau")
    wrong = homes.valise(*withdraw, "AT/organised-crime", "R-M")
    assert (wrong.code, wrong.out) == (1, "")
    assert "AT/organised-crime has published no record R-M; there is one of AT/ncb" in capsys.readouterr().err
    (withdrawn,) = notices(homes.valise(*withdraw, "AT/ncb", "R-N"))
    assert withdrawn["version"] == 2
    told = homes.valise("trace", ours["notice"], "--bureau", "AT/ncb", "--json").value
    assert told["outcome"] == "routed"
    theirs = homes.valise("trace", "R-N", "--bureau", "AT/organised-crime", "--json").value
    assert (theirs["bureau"], theirs["version"], theirs["kind"]) == ("AT/organised-crime", 2, "person")


def test_an_id_means_its_notice_though_a_record_of_another_bureau_is_called_like_it(homes: Homes) -> None:
    (ours,) = notices(publish(homes, person("R-I")))
    homes.valise("publish", "-", "--bureau", "AT/organised-crime", "--wait", "60", given=person(ours["notice"]))
    ended = homes.valise("withdraw", ours["notice"], "--yes", "--json", "--wait", "60", "--bureau", "AT/ncb")
    assert [each["record"] for each in notices(ended)] == ["R-I"]


def test_who_follows_is_told_of_new_alarms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = Inbox(tmp_path / "inbox.db")
    box.journal.alarm(0, "gap", "LV/ncb deliveries 2 to 3")
    assert inbox_command._ring(box, 0) == 1
    assert "ALARM gap (LV/ncb deliveries 2 to 3)" in capsys.readouterr().err
    box.journal.alarm(0, "split-view", "leaf 9")
    assert inbox_command._ring(box, 1) == 2
    assert capsys.readouterr().err.count("ALARM") == 1
    box.close()


def test_a_list_for_people_is_the_newest_and_says_so_and_a_machine_gets_all(homes: Homes) -> None:
    for each in ("R-90", "R-91", "R-92"):
        publish(homes, person(each))
    whole = homes.valise("inbox", "--bureau", "GE/ncb", "--json").value["notices"]
    some = homes.valise("inbox", "--bureau", "GE/ncb", "--json", "--limit", "2").value["notices"]
    assert some == whole[-2:]
    assert len(whole) > 2
    told = homes.valise("inbox", "--bureau", "GE/ncb", "--limit", "2").out
    assert f"{len(whole)} notices for GE/ncb" in told
    assert f"the newest 2 are listed, `--limit {len(whole)}` lists all" in told
    assert [each["notice"] in told for each in whole] == [False] * (len(whole) - 2) + [True] * 2
    assert "are listed" not in homes.valise("inbox", "--bureau", "GE/ncb", "--limit", str(len(whole))).out


class _EndedError(Exception):
    """Who followed has been interrupted."""


class _Once(MemberHome):
    """A home whose inbox is followed until nothing more comes."""

    def collector(self, bus: Bus, inbox: Inbox) -> Collector:
        if (self.folder / "followed").exists():
            raise _EndedError
        (self.folder / "followed").touch()
        return super().collector(bus, inbox)


@pytest.mark.parametrize(("limit", "said"), [(1, True), (10_000, False)])
def test_who_follows_an_inbox_is_told_that_what_is_here_already_is_not_all_listed(
    homes: Homes, capsys: pytest.CaptureFixture[str], limit: int, said: bool
) -> None:
    for each in ("R-93", "R-94"):
        publish(homes, person(each))
    whole = homes.valise("inbox", "--bureau", "GE/ncb", "--json").value["notices"]
    home = member_home(homes.folder, "GE/ncb")
    once, given = _Once(home.folder, home.settings, home.bureau), Everywhere(homes.folder, as_json=False, yes=True)
    (home.folder / "followed").unlink(missing_ok=True)
    with pytest.raises(_EndedError):
        asyncio.run(inbox_command._follow(given, once, limit))
    told = capsys.readouterr().out
    assert (f"{len(whole)} notices here already; the newest 1 are listed, `--limit {len(whole)}`" in told) == said
    assert sum(each["notice"] in told for each in whole) == min(limit, len(whole))


class _Kept(MemberHome):
    """A home whose inbox another process keeps when it is opened first."""

    def inbox(self) -> NoReturn:
        if (self.folder / "tried").exists():
            raise _EndedError
        (self.folder / "tried").touch()
        raise UnavailableError("another process may keep it")


def test_who_follows_an_inbox_that_another_process_keeps_tries_again(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    home = member_home(homes.folder, "GE/ncb")
    given = Everywhere(homes.folder, as_json=True, yes=True)
    with pytest.raises(_EndedError):
        asyncio.run(inbox_command._follow(given, _Kept(home.folder, home.settings, home.bureau)))
    assert "nothing can be taken in now (another process may keep it); trying again" in capsys.readouterr().err


class _Losing(MemberHome):
    """A home that loses its newest directory while its inbox is followed."""

    def collector(self, bus: Bus, inbox: Inbox) -> Collector:
        path = self.folder / "versions" / (self.versions.newest_digest("directory") or b"").hex()
        if (self.folder / "lost").exists():
            assert path.is_file()
            super().collector(bus, inbox)
            raise _EndedError
        made = super().collector(bus, inbox)
        path.rename(self.folder / "lost")
        return made


def test_who_follows_an_inbox_and_loses_the_newest_directory_takes_it_once_more(homes: Homes) -> None:
    home, given = member_home(homes.folder, "GE/ncb"), Everywhere(homes.folder, as_json=True, yes=True)
    with pytest.raises(_EndedError):
        asyncio.run(inbox_command._follow(given, _Losing(home.folder, home.settings, home.bureau), 1))
    (home.folder / "lost").unlink()


def _states(homes: Homes, bureau: str, record: str) -> list[str]:
    listed = notices(homes.valise("inbox", "--bureau", bureau, "--json"))
    return [each["state"] for each in listed if each["record"] == record]


def test_what_did_not_change_is_not_published_again(homes: Homes) -> None:
    publish(homes, person("R-4"))
    (again,) = notices(publish(homes, person("R-4")))
    assert again["state"] == "unchanged"
    said = homes.valise("publish", "-", "--bureau", "AT/ncb", given=person("R-4"))
    assert said.out.splitlines()[-1] == f"valise trace R-4 --bureau AT/ncb --home {homes.folder}"


def test_each_version_of_a_schema_is_listed_with_a_fingerprint_of_its_own(homes: Homes) -> None:
    listed = homes.valise("schema", "list", "--json").value
    assert len({each["fingerprint"] for each in listed}) == len(listed)


def test_what_is_named_next_of_a_trace_can_be_done_at_the_home_at_hand(homes: Homes) -> None:
    (sent,) = notices(publish(homes, person("R-T1")))
    with pytest.raises(SystemExit), redirect_stdout(io.StringIO()) as said:
        command.main(["trace", "R-T1", "--bureau", "AT/ncb", "--home", str(homes.folder / "members" / "AT")])
    assert said.getvalue().splitlines()[-1].startswith(f"valise policy explain {sent['notice']} --home ")


def test_what_is_named_next_can_be_typed_as_it_stands(homes: Homes, tmp_path: Path) -> None:
    file = tmp_path / "draft.json"
    file.write_text(person("R-T2"), encoding="utf-8")
    checked = homes.valise("schema", "check", str(file)).out.splitlines()
    assert checked[0] == "1 draft, 0 with problems"
    assert checked[-1].startswith(f"valise publish {file} --dry-run --bureau MEMBER/NAME")
    file.write_text(person("R-T2", bureau="AT/ncb"), encoding="utf-8")
    assert "--bureau AT/ncb" in homes.valise("schema", "check", str(file)).out.splitlines()[-1]
    told = homes.valise("cases", "--bureau", "LV/ncb").out.splitlines()[-1]
    assert told.startswith("valise cases --bureau LV/ncb --to FILE")


def test_the_beginning_of_an_id_is_enough_where_one_notice_only_begins_so(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,), _ = (notices(publish(homes, person(each))) for each in ("R-P1", "R-P2"))
    begin = first["notice"][:18]
    assert homes.valise("trace", begin, "--bureau", "AT/ncb", "--json").value["notice"] == first["notice"]
    for bureau in ("LV/ncb", "GE/ncb"):
        opened = homes.valise("read", begin, "--case", "R", "--bureau", bureau, "--json")
        assert opened.value["notice"] == first["notice"]
    assert homes.valise("trace", begin[:7], "--bureau", "AT/ncb").code == 1
    assert "no such notice" in capsys.readouterr().err


def test_the_beginning_of_several_ids_names_none_of_them() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE known (notice_id BLOB)")
    ids = [bytes.fromhex(f"0193a7c0{each:024x}") for each in (1, 2)]
    database.executemany("INSERT INTO known VALUES (?)", [(each,) for each in ids])
    with pytest.raises(ConfigurationError, match="several notices begin with 0193A7C0-: give more digits"):
        whole_id(database, "known", "0193A7C0-")
    assert whole_id(database, "known", "0193a7c1") is None
    database.close()


def test_a_pointer_that_leads_nowhere_is_named(homes: Homes) -> None:
    for issuer, relation, said in (
        ("GE/ncb", "cites", "a pointer cites the record none of GE/ncb, which is not known here"),
        ("", "cites", "a pointer cites the record none of AT/ncb, which is not known here"),
        ("GE/ncb", "connects", "no pointer has the relation 'connects': it is one of corrects, "),
    ):
        pointer = {"issuer": issuer, "record": "none", "relation": relation}
        (refused,) = notices(publish(homes, person("R-6", pointers=[pointer])))
        assert refused["detail"].startswith(f"invalid-reference: {said}"), refused


def test_what_the_broker_would_reject_is_refused_before_it_leaves(homes: Homes) -> None:
    answer = publish(homes, person("R-5", purpose="curiosity"))
    assert (answer.code, notices(answer)[0]["state"]) == (1, "refused-here")
    assert notices(answer)[0]["detail"] == "unknown-purpose: No such purpose: 'curiosity'"
    nowhere = notices(publish(homes, person("R-5", audience={"to": ["LV/ncb", "ZZ"]})))[0]["detail"]
    assert nowhere == "invalid-field: to 'LV/ncb ZZ': not all of it is in the directory"


def test_a_dry_run_names_each_draft_that_is_refused_and_what_is_wrong_with_it(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    """What says something of a person is not printed."""
    wrong: tuple[dict[str, Any], ...] = ({"urgency": "soon", "topics": ["Sought!"]}, {"minor": "17"}, {})
    text = json.dumps([json.loads(person(f"R-5{place}", **each)) for place, each in enumerate(wrong)])
    assert homes.valise("publish", "-", "--dry-run", "--bureau", "AT/ncb", given=text).code == 1
    said = "refused-here: R-50: invalid-field: topics 'Sought!', urgency 'soon'; R-51: invalid-field: minor\n"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [("NOPE",), ("0199d3a0-0000-7000-8000-000000000000",), ("NOPE", "--order")])
def test_nobody_is_asked_whether_to_withdraw_what_there_is_not(
    homes: Homes, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    bureau = EUROPOL if "--order" in words else "AT/ncb"
    assert homes.valise("withdraw", *words, "--bureau", bureau, given="y\n").code == 1
    errors = capsys.readouterr().err
    assert ("no such notice" in errors, "Go on?" in errors) == (True, False)


def test_nobody_is_asked_whether_to_withdraw_what_was_withdrawn(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(homes, person("R-W"))
    for code in (0, 1):
        said = homes.valise("withdraw", "R-W", "--bureau", "AT/ncb", "--wait", "60", given="y\n")
        errors = capsys.readouterr().err
        assert (said.code, "Go on?" in errors) == (code, code == 0)


def test_a_dry_run_sends_nothing_and_says_why_not(homes: Homes) -> None:
    answer = publish(homes, person("R-6", deny=["GE"]), "--dry-run")
    found = {each["bureau"]: each["code"] for each in answer.value}
    assert found["LV/ncb"] == "receives"
    assert found["GE/ncb"] == "denied-by-you"
    assert found["RU/ncb"] == "not-in-audience"
    assert notices(publish(homes, person("R-6", deny=["GE"])))[0]["version"] == 1


def test_a_dry_run_says_what_publishing_then_does(homes: Homes, capsys: pytest.CaptureFixture[str]) -> None:
    publish(homes, person("R-60", audience={"to": ["LV/ncb"]}))
    lost = person("R-61", pointers=[{"issuer": "", "record": "NOPE", "relation": "cites"}])
    assert publish(homes, lost, "--dry-run").code == publish(homes, lost).code == 1
    assert "R-61: invalid-reference" in capsys.readouterr().err
    same = publish(homes, person("R-60", audience={"to": ["LV/ncb"]}), "--dry-run")
    assert [(each["record"], each["code"]) for each in same.value] == [("R-60", "unchanged")]
    publish(homes, person("R-62", topics=["wanted.red"]))
    homes.valise("inbox", "--bureau", EUROPOL, "--json")
    approval = person(
        "REVIEW-62", kind="approval", topics=["review.decision"], action_sought="release", compartments={},
        audience={"to": ["AT/ncb"]}, pointers=[{"issuer": "AT/ncb", "record": "R-62", "relation": "approves"}],
    )  # fmt: skip
    foretold = homes.valise("publish", "-", "--dry-run", "--bureau", EUROPOL, "--json", given=approval).value
    homes.valise("publish", "-", "--bureau", EUROPOL, "--json", "--wait", "60", given=approval)
    told = homes.valise("trace", "REVIEW-62", "--bureau", EUROPOL, "--json").value
    assert [each["bureau"] for each in foretold if each["receives"]] == [each["bureau"] for each in told["reached"]]
    assert [each["bureau"] for each in told["reached"]] == ["AT/ncb"]


def test_a_subscription_is_needed_where_nobody_is_addressed(homes: Homes) -> None:
    draft = {"audience": {"agreements": ["circle"]}, "topics": ["missing.yellow"]}
    (before,) = notices(publish(homes, person("R-7", **draft)))
    assert before["bureaus"] == 0
    said = homes.valise("subscribe", "missing.*", "--bureau", "LV/organised-crime")
    assert said.out.splitlines()[0] == "LV/organised-crime subscribes to missing.*, once the broker has taken that in"
    deadline = time.monotonic() + 60
    for number in itertools.count():
        (after,) = notices(publish(homes, person(f"R-8-{number}", **draft)))
        if after["bureaus"] == 1:
            break
        assert time.monotonic() < deadline


def test_members_and_keys_are_listed(homes: Homes) -> None:
    listed = homes.valise("member", "list", "--bureau", "AT/ncb", "--json").value
    assert [each["id"] for each in listed["members"]] == sorted(world.MEMBERS)
    shown = homes.valise("member", "show", "LV", "--bureau", "AT/ncb")
    assert shown.out.startswith("LV: LV, state, active; agreements: circle")
    keys = homes.valise("key", "list", "--bureau", "AT/ncb", "--json").value
    assert {each["bureau"]: each["state"] for each in keys} == {
        "AT/ncb": "in force",
        "AT/organised-crime": "in force",
    }


def test_a_new_key_stays_here_and_its_request_proves_possession(homes: Homes) -> None:
    from broker.signing import PublicKey, pae
    from cli.keys import REQUEST_TYPE, canonical

    made = homes.valise("key", "new", "--bureau", "AT/border", "--json").value
    path = Path(made["key"])
    assert path.stat().st_mode & 0o777 == 0o600
    request = json.loads(Path(made["request"]).read_text())
    proof = bytes.fromhex(request.pop("proof"))
    PublicKey.of(bytes.fromhex(request["public"])).check(proof, pae(REQUEST_TYPE, canonical(request)))
    assert homes.valise("key", "new", "--bureau", "AT/border").code == 1


def test_the_example_of_a_schema_can_be_published(homes: Homes, tmp_path: Path) -> None:
    records = [homes.valise("schema", "show", kind, "--example", "--json").value["record"] for kind in KINDS]
    assert len(set(records)) == len(KINDS), "published one after the other they would be versions of one record"
    for kind in KINDS:
        example = homes.valise("schema", "show", kind, "--example", "--json").out
        file = tmp_path / f"{kind}.json"
        file.write_text(example)
        assert homes.valise("schema", "check", str(file)).code == 0
        file.write_text(json.dumps(json.loads(example) | {"pointers": []}))
        assert homes.valise("schema", "check", str(file)).code == (1 if kind in RELATION_OF_KIND else 0)
    file.write_text(json.dumps(json.loads(example) | {"compartments": {"terms": {"nonsense": 1}}}))
    assert homes.valise("schema", "check", str(file)).code == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"audience": {"to": ["LV/ncb"], "deny": ["GE"]}}, "audience.deny"),
        ({"audience": {"agreement": "project-millennium"}}, "audience.agreement"),
        ({"origins": [{"owner": "AT", "releasable": ["LV"]}]}, "origins.0.releasable"),
        ({"pointers": [{"issuer": "AT/ncb", "nonsense": 1}]}, "pointers.0.nonsense"),
        ({"denied": ["GE"]}, "denied"),
        ({"record": "\ud800"}, "surrogate"),
    ],
)
def test_a_draft_with_a_field_that_nothing_reads_is_refused(
    homes: Homes, capsys: pytest.CaptureFixture[str], wrong: dict[str, Any], named: str
) -> None:
    said = homes.valise("publish", "-", "--bureau", "AT/ncb", given=json.dumps(json.loads(person("R-40")) | wrong))
    assert (said.code, named in capsys.readouterr().err) == (1, True)


def test_a_field_given_twice_is_refused(homes: Homes, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps(json.loads(person("R-41")) | {"deny": ["GE"]})[:-1] + ', "deny": []}'
    assert homes.valise("publish", "-", "--dry-run", "--bureau", "AT/ncb", given=text).code == 1
    assert "deny is given twice" in capsys.readouterr().err


def test_a_file_in_another_encoding_is_refused_and_a_byte_order_mark_passed_over(homes: Homes, tmp_path: Path) -> None:
    text, file = person("R-42"), tmp_path / "draft.json"
    file.write_text(text, encoding="utf-16")
    assert homes.valise("schema", "check", str(file)).code == 1
    file.write_text(text, encoding="utf-8-sig")
    assert homes.valise("schema", "check", str(file)).code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"purpose": "curiosity"}, {"handling": ["H9"]}, {"confidentiality": "cosmic"}, {"minor": "maybe"},
        {"topics": []}, {"subject_categories": ["alien"]}, {"urgency": "now"}, {"legal_basis": ""},
        {"audience": {"to": []}},
    ],
)  # fmt: skip
def test_a_word_that_no_notice_may_have_is_found_without_a_home(
    homes: Homes, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    file = tmp_path / "draft.json"
    file.write_text(json.dumps(json.loads(person("R-43")) | wrong))
    said = homes.valise("schema", "check", str(file), "--json")
    assert (said.code, [each["record"] for each in said.value["problems"]]) == (1, ["R-43"])


def test_a_name_that_nobody_can_have_is_found_without_a_home(homes: Homes, tmp_path: Path) -> None:
    file = tmp_path / "draft.json"
    file.write_text(person("R-44", audience={"to": ["LV/ncb", "ge/ncb"]}))
    (problem,) = homes.valise("schema", "check", str(file), "--json").value["problems"]
    assert problem["detail"] == "to 'LV/ncb ge/ncb': no directory can have all of it"


@pytest.mark.parametrize("case", ["", "  ", "two\nlines", "\x1b[2J", "9" * 201])
def test_a_case_reference_is_one_that_can_be_found_again(homes: Homes, case: str) -> None:
    assert homes.valise("read", "nothing", "--case", case, "--bureau", "LV/ncb").code == 2


def test_a_directory_that_is_gone_from_a_home_is_read_once_more(homes: Homes) -> None:
    versions = member_home(homes.folder, "GE/ncb").versions
    homes.valise("inbox", "--bureau", "GE/ncb")
    digest = versions.newest_digest("directory")
    assert digest is not None
    (homes.folder / "members" / "GE" / "versions" / digest.hex()).unlink()
    assert homes.valise("inbox", "--bureau", "GE/ncb").code == 0
    assert versions.newest_digest("directory") == digest


def test_who_has_no_key_leaves_no_inbox_behind(homes: Homes) -> None:
    assert homes.valise("inbox", "--bureau", "LV/nobody").code == 1
    assert not list(homes.folder.rglob("inbox.nobody.db*"))


def test_a_bus_that_is_not_there_is_made_by_no_member(
    homes: Homes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "members" / "LV"
    shutil.copytree(homes.folder / "members" / "LV", home)
    with pytest.raises(SystemExit) as ended:
        command.main(["read", "ID", "--case", "1", "--bureau", "LV/ncb", "--home", str(tmp_path)])
    assert (ended.value.code, "there is no bus at" in capsys.readouterr().err) == (5, True)
    assert not list(tmp_path.rglob("bus.db*"))


def test_a_trace_of_what_was_rejected_ends_as_publishing_it_did(homes: Homes) -> None:
    (sent,) = notices(publish(homes, person("R-70", audience={"to": [EUROPOL]})))
    assert homes.valise("inbox", "--bureau", EUROPOL, "--json").code == 0
    approval = person(
        "REVIEW-70", kind="approval", topics=["review.decision"], action_sought="release", compartments={},
        audience={"to": ["AT/ncb"]}, pointers=[{"issuer": "AT/ncb", "record": "R-70", "relation": "approves"}],
    )  # fmt: skip
    rejected = homes.valise("publish", "-", "--bureau", EUROPOL, "--json", "--wait", "60", given=approval)
    traced = homes.valise("trace", "REVIEW-70", "--bureau", EUROPOL, "--json")
    assert (sent["state"], notices(rejected)[0]["state"], rejected.code) == ("routed", "rejected", 1)
    assert (traced.code, traced.value["outcome"]) == (1, "rejected")


def test_what_this_machine_refuses_is_said_without_a_traceback(
    homes: Homes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = homes.valise("cases", "--bureau", "LV/ncb", "--to", str(tmp_path / "no" / "folder" / "x"))
    assert (said.code, "refused-here: No such file or directory" in capsys.readouterr().err) == (1, True)


def test_a_question_that_nobody_answers_changes_nothing_and_says_so(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert homes.valise("withdraw", "R-1", "--bureau", "AT/ncb").code == 130
    assert "nothing was done; --yes" in capsys.readouterr().err
    assert homes.valise("withdraw", "R-1", "--bureau", "AT/ncb", "--json").code == 130
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"] == "interrupted"


def test_a_usage_error_is_json_where_json_was_asked_for(homes: Homes, capsys: pytest.CaptureFixture[str]) -> None:
    assert homes.valise("inbox", "--nonsense", "--json").code == 2
    assert json.loads(capsys.readouterr().err)["error"] == "usage"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("inbox",), 1),
        (("inbox", "--bureau", "XX/ncb"), 1),
        (("inbox", "--bureau", "nonsense"), 1),
        (("inbox", "--nonsense"), 2),
        (("nonsense",), 2),
        (("subscribe", "Not A Pattern", "--bureau", "AT/ncb"), 2),
        (("withdraw", "R-1", "--reason", "found", "--bureau", "AT/ncb", "--yes"), 2),
    ],
)
def test_a_mistake_ends_with_its_exit_code(homes: Homes, arguments: Sequence[str], code: int) -> None:
    assert homes.valise(*arguments).code == code


def test_help_is_there_at_once() -> None:
    begin = _used_by_children()
    said = subprocess.run([sys.executable, "-m", "cli.main", "--help"], check=True, capture_output=True, text=True)
    assert re.search(r"^  publish", said.stdout, re.MULTILINE)
    assert _used_by_children() - begin < 2.0  # 0.1 s on an idle machine


def _used_by_children() -> float:
    """Seconds of the processor, not of the clock: a busy machine is no failure."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


PRESSED = """
import signal, sys
when, sys.argv[1:] = sys.argv[1], ["demo", "--help"]

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
sys.meta_path.insert(0, Pressed())
from cli.start import main
main()
"""


@pytest.mark.parametrize("module", ["cli.main", "click", "broker.errors", "cli.demo"])
def test_an_interrupt_while_modules_are_read_ends_the_command_without_a_traceback(module: str) -> None:
    said = subprocess.run([sys.executable, "-c", PRESSED, module], check=False, capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr.strip()) == (130, "", "")


def test_every_command_has_its_help() -> None:
    listed = command.valise.list_commands(command.valise.make_context("valise", ["--help"], resilient_parsing=True))
    for name in listed:
        said = CliRunner().invoke(command.valise, [name, "--help"])
        assert said.exit_code == 0
        assert "..." not in said.output.partition("Commands:")[2], "what a command does is cut off"


def test_a_command_whose_output_was_closed_ends_as_it_would_otherwise(homes: Homes) -> None:
    inbox = [sys.executable, "-c", "from cli.start import main; main()", "inbox", "--bureau", "LV/ncb"]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *inbox, "--home", str(homes.folder)]
    assert subprocess.run(closed, check=False).returncode == 0


def test_an_authority_withdraws_by_order_what_another_published(homes: Homes) -> None:
    (sent,) = notices(publish(homes, person("R-30", audience={"to": ["LV/ncb", EUROPOL]})))
    order = ("withdraw", sent["notice"], "--order", "--yes", "--wait", "60")
    refused = homes.valise(*order, "--bureau", "LV/ncb")
    assert refused.code == 1
    assert homes.valise(*order, "--reason", "mistaken", "--bureau", EUROPOL).code == 2
    for action in ("watch", "arrest", "locate"):  # a record of its own of that name is another
        own = person("R-30", action_sought=action, audience={"to": ["GE/ncb"]})
        homes.valise("publish", "-", "--bureau", EUROPOL, "--wait", "0", given=own)
    (ordered,) = notices(homes.valise(*order, "--bureau", EUROPOL, "--json"))
    story = homes.valise("trace", ordered["notice"], "--bureau", EUROPOL, "--json")
    assert (ordered["state"], story.code, story.value["newest"]) == ("routed", 0, None)
    (line,) = [
        each
        for each in notices(homes.valise("inbox", "--bureau", "LV/ncb", "--json"))
        if each["record"] == "R-30" and each["kind"] == "person"
    ]
    assert line["state"] == "erased"
    assert homes.valise("read", sent["notice"], "--case", "1", "--bureau", "LV/ncb").code == 1
    (told,) = [
        each for each in notices(homes.valise("inbox", "--bureau", "AT/ncb", "--json")) if each["record"] == "R-30"
    ]
    assert (told["kind"], told["issuer"]) == ("withdrawal", EUROPOL)
    assert (
        homes.valise("trace", sent["notice"], "--bureau", "AT/ncb", "--json").value["outcome"] == "withdrawn-by-order"
    )
    assert "by order" in homes.valise("trace", sent["notice"], "--bureau", "AT/ncb").out
    again = publish(homes, person("R-30", legal_basis="once more"))
    assert (again.code, notices(again)[0]["state"]) == (1, "refused-here")


def test_a_members_home_of_before_is_closed_to_other_accounts_by_its_next_command(tmp_path: Path) -> None:
    folder = tmp_path / "members" / "AT"
    settings.save(
        folder, settings.Settings(role="member", federation="f.example", bus="sqlite:../../bus.db", member="AT")
    )
    folder.chmod(0o755)
    valise = [sys.executable, "-m", "cli.main", "inbox", "--bureau", "AT/ncb", "--home", str(tmp_path)]
    subprocess.run(valise, capture_output=True, check=False, timeout=60)
    assert folder.stat().st_mode & 0o077 == 0
