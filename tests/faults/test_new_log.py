"""Where leaves are lost for good the log ends, and another begins that names it; everybody sees what was lost."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.heads import Alarm
from broker import begun, notes
from broker import settings as settings_file
from broker.settings import Witness as Named
from broker.trail import Trail
from broker.witness import Witness
from cli import exits
from cli.operator_home import operator_home
from cli.seed import Clause, Federation, seed
from cli.stage import Stage, agree, joined, running, set_up, settled
from tests.fake_bus import START
from tests.faults.test_restored import Site, refusal
from tests.journeys.test_by_hand import DRAFT
from tests.journeys.test_operator import small, valise
from tests.witness.log import answering_on, cosigner, identity

pytestmark = pytest.mark.slow
BEYOND = "in a log that lost leaves, numbers may begin beyond the lost ones"
LV, GE, UA = "LV/organised-crime", "GE/organised-crime", "UA/organised-crime"
FILE = "project-millennium"
PLAIN = DRAFT | {"deny": []}
"""A draft that bars nobody: whom it would bar takes no part here."""


def cut_to(*bureaus: str) -> Federation:
    """The first federation, cut down to these bureaus and the file that they share: a start takes half the time."""
    cut = small(*bureaus)
    members = tuple(sorted(each.id for each in cut.members))
    (whole,) = (each for each in seed().agreements if each.id == FILE)
    clause = Clause(between=members, basis="agreement", reference="invented", agreement=FILE)
    return cut.model_copy(
        update={"agreements": (whole.model_copy(update={"members": members}),), "transfers": (clause,)}
    )


@dataclass
class Exchange(Site):
    """A federation in which one bureau publishes what another has subscribed to."""

    async def said(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(valise, *words, "--home", str(self.home))

    async def published(self, *records: str, wait: int = 45, seen_more: bool = False) -> None:
        """Publish; an issuer who saw more than the new log admits may know the number of its leaf for another's."""
        async with running(self.stage):
            for record in records:
                file = self.home.parent / f"{record}.json"
                file.write_text(json.dumps(PLAIN | {"record": record}), encoding="utf-8")
                done = await self.said("publish", str(file), "--bureau", LV, "--wait", str(wait))
                assert done.returncode in {exits.DONE, *([exits.UNDECIDED] if seen_more else [])}, done.stderr
            await settled(self.stage)
            await self.learned()

    async def learned(self, bureau: str = GE) -> tuple[list[Alarm], list[Alarm]]:
        """Let the issuer take in its outcomes and the other its deliveries; give the alarms of both."""
        publisher, receiver = self.stage.member(LV), self.stage.member(bureau)
        async with publisher.bus() as bus:
            with publisher.outbox() as outbox:
                outcomes = publisher.outcomes(bus, outbox)
                await outcomes.drain()
                issuer = outcomes.journal.alarms()
        async with receiver.inbox_bus() as bus:
            with receiver.inbox() as inbox:
                await receiver.collector(bus, inbox).drain()
                return issuer, inbox.journal.alarms()

    def received(self, bureau: str = GE) -> list[tuple[int, str, str]]:
        with self.stage.member(bureau).inbox() as inbox:
            return [(each.number, each.record, each.state) for each in inbox.lines()]

    async def new_log(self, *seen: Path) -> subprocess.CompletedProcess[str]:
        named = [each for path in seen for each in ("--seen", str(path))]
        return await self.said("broker", "resume", "--new-log", "--json", *named)

    async def audited(self) -> tuple[int, dict[str, Any]]:
        done = await self.said("audit", "verify", "--json")
        return done.returncode, json.loads(done.stdout)


async def _made(folder: Path) -> Exchange:
    site = Exchange(await set_up(folder / "home", cut_to(LV, GE), "sqlite", (LV, GE), lambda _: None))
    async with running(site.stage):
        assert (await site.said("subscribe", "organised-crime.*", "--bureau", GE)).returncode == exits.DONE
    await site.published("lv-1")
    site.save()
    await site.published("lv-2")
    site.kept("middle")
    await site.published("lv-3")
    return site


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    """Yesterday's backup has one notice; two more were published, delivered and witnessed since."""
    return asyncio.run(_made(tmp_path_factory.mktemp("made")))


@pytest.fixture
def site(made: Exchange, tmp_path: Path) -> Exchange:
    """A copy of what was made, for one test: it runs no more, as any copy, before the backup is restored over it."""
    shutil.copytree(made.home.parent, tmp_path, dirs_exist_ok=True)
    home = tmp_path / made.home.name
    return Exchange(Stage(home, made.stage.federation, operator_home(home)))


async def lost(site: Exchange) -> tuple[Path, int, int]:
    """Lose what came after the backup; give the checkpoint that was kept outside, its size, and that of the rest.

    The rest may grow: the record of the backup may have leaves that were not sealed yet.
    """
    outside, whole = site.kept(), site.state()[1]
    site.restore()
    return outside, whole, site.state()[1]


def codes(alarms: list[Alarm]) -> list[str]:
    return [each.code for each in alarms]


async def test_a_new_log_names_the_old_and_everybody_sees_what_was_lost(site: Exchange) -> None:
    outside, whole, left = await lost(site)
    refused = await site.resume(outside)
    assert (refused.returncode, refusal(refused)) == (exits.VERIFICATION_FAILED, "lost-leaves")
    assert "--new-log" in refused.stderr

    for _ in range(2):  # the second time it has begun already
        began = await site.new_log(outside)
        assert (began.returncode, began.stderr) == (exits.DONE, "")
        told = json.loads(began.stdout)
        assert (told["size"] >= left, told["seen"], told["lost"]) == (True, whole, whole - told["size"])
    left = told["size"]
    assert (told["origin"], begun.after(told["ended"])) == (f"{told['ended']}.2", told["origin"])
    unnamed = await site.up()
    assert (unnamed.returncode, '"code": "log-not-named"' in unnamed.stderr) == (exits.VERIFICATION_FAILED, True)

    await agree(site.stage)
    await site.published("lv-4")
    issuer, holder = await site.learned()
    assert codes(issuer) == ["new-log", "series-gap"]
    assert codes(holder) == ["new-log", "gap"]
    assert f"leaves {left} to {whole - 1} of {told['ended']} are lost" in holder[0].about
    numbers = [number for number, _, _ in site.received()]
    assert numbers == [1, 2, 3, 2 + whole - left]  # whatever the lost leaves used, no number is used again

    async with running(site.stage):
        waiting = ("--bureau", LV, "--wait", "45")
        assert (await site.said("withdraw", "lv-1", *waiting, "--yes")).returncode == exits.DONE
        await settled(site.stage)
        await site.learned()
        # Nobody can know that what was lost is on record: it is corrected all the same.
        corrected = site.home.parent / "lv-2.json"
        corrected.write_text(json.dumps(PLAIN | {"record": "lv-2", "action_sought": "arrest"}), encoding="utf-8")
        assert (await site.said("correct", "lv-2", str(corrected), *waiting)).returncode == exits.DONE
        await settled(site.stage)
        await site.learned()
    assert {(1, "lv-1", "erased"), (2, "lv-2", "replaced")} <= set(site.received())

    code, report = await site.audited()
    assert (code, report["wrong"], report["good"]) == (exits.PARTLY, 0, False)
    assert report["lost"]["gaps"] == [{"origin": told["ended"], "first": left, "last": whole - 1}]
    assert set(report["lost"]["held"]) >= {"LV/outbox.db", "GE/inbox.organised-crime.db"}
    assert f"{left:,} to {whole - 1:,} of {told['ended']}" in report["answer"]
    repeated = await site.said("audit", "verify", "--policy", "policies")  # receipts of lost leaves are lost with them
    assert (repeated.returncode, "WRONG" in repeated.stdout) == (exits.PARTLY, False)
    status = await site.said("broker", "status")
    assert status.returncode == exits.DONE, status.stderr
    assert f" {told['lost'] - 1:,} lost" in status.stdout  # a leaf that begins the log stands in the place of the first


async def test_a_bureau_that_entered_in_the_lost_stretch_gets_its_next_deliveries_under_new_numbers(
    tmp_path: Path,
) -> None:
    site = Exchange(await set_up(tmp_path / "home", cut_to(LV, GE), "sqlite", (LV, GE), lambda _: None))
    await site.published("lv-1")
    site.save()
    site.stage = await joined(site.stage, cut_to(LV, GE, UA), [UA])
    subscribe = ("subscribe", "organised-crime.*", "--bureau", UA)
    async with running(site.stage):
        assert (await site.said(*subscribe)).returncode == exits.DONE
        await settled(site.stage)
    await site.published("lv-2", "lv-3")
    assert codes((await site.learned(UA))[1]) == []
    assert [number for number, _, _ in site.received(UA)] == [1, 2]

    # What all have signed outlasts the bus: the next directory goes on from it.
    versions, kept = site.home / "operator" / "versions", tmp_path / "versions"
    shutil.copytree(versions, kept)
    outside, _, _ = await lost(site)
    shutil.copytree(kept, versions, dirs_exist_ok=True)
    told = json.loads((await site.new_log(outside)).stdout)
    await agree(site.stage)
    async with running(site.stage):
        assert (await site.said(*subscribe)).returncode == exits.DONE
        await settled(site.stage)
    await site.published("lv-4")
    assert {"new-log", "gap"} <= set(codes((await site.learned(UA))[1]))
    assert [number for number, _, _ in site.received(UA)] == [1, 2, 1 + told["lost"]]

    for each in site.stage.member(UA).folder.glob("inbox.*.db*"):  # as for whoever enters later, this is its first
        each.unlink()
    rung = [each.about for each in (await site.learned(UA))[1] if each.code == "gap"]
    assert rung == [f"{UA} deliveries 1 to {told['lost']}, before the first: {BEYOND}"]


MUTE = "witness.example/mute"


@asynccontextmanager
async def one_of_two_witnesses_answers(site: Exchange) -> AsyncIterator[None]:
    home = site.stage.operator
    vkey = notes.parse_vkey(home.vkey_path.read_text(encoding="utf-8"))
    witness = Witness(site.home.parent / "witness.db", identity(), [vkey], lambda: START)
    async with answering_on(witness) as known:
        places = ((known.cosigner, known.place.port), (cosigner(MUTE), 1))
        named = tuple(Named(vkey=str(each), url=f"http://127.0.0.1:{port}") for each, port in places)
        settings_file.save(home.folder, home.settings.model_copy(update={"witnesses": named, "witness_quorum": 1}))
        yield


async def test_a_witness_that_was_silent_when_the_log_ended_is_named(site: Exchange) -> None:
    outside, _, _ = await lost(site)
    async with one_of_two_witnesses_answers(site):
        began = await site.new_log(outside)
    assert (json.loads(began.stdout)["silent"], f"{MUTE} did not answer" in began.stderr) == ([MUTE], True)


async def test_a_silent_witness_is_named_before_a_cut_and_nobody_is_said_to_have_answered_after_it(
    site: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, _, _ = await lost(site)
    monkeypatch.setenv("VALISE_CRASH_AT", "begin.named")
    async with one_of_two_witnesses_answers(site):
        killed = await site.new_log(outside)
        monkeypatch.delenv("VALISE_CRASH_AT")
        began = await site.new_log(outside)
    assert (killed.returncode, f"{MUTE} did not answer" in killed.stderr) == (-signal.SIGKILL, True)
    assert json.loads(began.stdout)["silent"] is None


POINTS = (
    "begin.compared",
    "begin.named",
    "begin.begun",
    "begin.whole",
    "begin.put-aside",
    "seal.records-written",
    "seal.checkpoint-renamed",
    "begin.sealed",
)


async def test_a_new_log_that_was_cut_off_is_gone_on_with(site: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, whole, left = await lost(site)
    for point in POINTS:
        monkeypatch.setenv("VALISE_CRASH_AT", point)
        killed = await site.new_log(outside)
        monkeypatch.delenv("VALISE_CRASH_AT")
        assert killed.returncode == -signal.SIGKILL, point
        assert (await site.up()).returncode == exits.VERIFICATION_FAILED, point
    done = json.loads((await site.new_log(outside)).stdout)
    assert (done["size"] >= left, done["lost"]) == (True, whole - done["size"])
    assert Trail.open(site.trail).size == whole
    await agree(site.stage)
    await site.published("lv-4")
    assert (await site.audited())[0] == exits.PARTLY


async def test_a_new_log_is_not_begun_where_nothing_is_lost_or_nothing_is_compared(site: Exchange) -> None:
    outside = site.kept()
    site.save()
    site.restore()
    before = site.state()
    whole = await site.new_log(outside)
    assert (whole.returncode, refusal(whole)) == (exits.VERIFICATION_FAILED, "nothing-lost")
    alone = await site.new_log()
    assert (alone.returncode, refusal(alone)) == (exits.PARTLY, "nothing-to-compare")
    assert site.state() == before
    assert (await site.resume(outside)).returncode == exits.DONE


async def test_a_head_of_another_history_begins_no_new_log(site: Exchange) -> None:
    outside, _, _ = await lost(site)
    head = notes.parse_checkpoint(notes.parse(outside.read_text(encoding="utf-8")).text)
    other = site.home.parent / "other.checkpoint"
    key = site.stage.operator.owner().key
    other.write_text(notes.sign_checkpoint(replace(head, size=2, root=bytes(32)), key), encoding="utf-8")
    refused = await site.new_log(outside, other)
    assert (refused.returncode, "another history" in refused.stderr) == (exits.VERIFICATION_FAILED, True)
    assert Trail.open(site.trail).origin == head.origin


async def test_who_saw_more_than_the_operator_admits_is_told_so_and_so_is_the_auditor(site: Exchange) -> None:
    await lost(site)
    middle = site.home.parent / "middle.checkpoint"
    began = json.loads((await site.new_log(middle)).stdout)
    await agree(site.stage)
    await site.published("lv-4", wait=10, seen_more=True)
    issuer, holder = await site.learned()
    assert "lost-more" in codes(issuer)
    assert "lost-more" in codes(holder)
    code, report = await site.audited()
    assert (code, report["wrong"] > 0) == (exits.VERIFICATION_FAILED, True)
    assert [each["last"] - each["first"] + 1 for each in report["lost"]["gaps"]] == [began["lost"]]
