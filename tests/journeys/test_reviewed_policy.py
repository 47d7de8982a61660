"""What the policy officer, the issuer, the reviewer and the auditor are told of notices that wait or were released."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli import seed, subscribe
from cli.stage import set_up, settled
from tests.journeys.test_policy_commands import BUREAUS, PERSON, World

pytestmark = pytest.mark.slow
REVIEWER = "INTERPOL/review"
POLICIES = Path(__file__).parent.parent.parent / "policies"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """LV has published two wanted notices; the reviewing bureau has released the second and is silent on the first."""
    home = tmp_path_factory.mktemp("reviewed") / "home"
    made = World(asyncio.run(set_up(home, seed.seed(), "sqlite", (*BUREAUS, REVIEWER), lambda _: None)))

    async def run(*arguments: str) -> Any:
        return (await asyncio.to_thread(made.valise, *arguments, "--json")).value

    async def happen() -> None:
        await subscribe.send(made.stage.member("GE/organised-crime"), ("wanted.*",))
        await settled(made.stage)
        for name in ("waits", "released"):
            file = made.home / f"{name}.json"
            file.write_text(json.dumps({**PERSON, "record": name, "topics": ["wanted.red"]}), encoding="utf-8")
            sent = await run("publish", str(file), "--bureau", "LV/ncb", "--wait", "60")
            assert sent["notices"][0]["state"] == "held"
            made.notices[name] = sent["notices"][0]["notice"]
        await settled(made.stage)
        await run("inbox", "--bureau", REVIEWER)
        await run("read", made.notices["released"], "--case", "R", "--bureau", REVIEWER)
        await run("review", "release", made.notices["released"], "--bureau", REVIEWER, "--yes", "--wait", "60")
        await settled(made.stage)

    made.with_broker(happen)
    return made


def test_what_was_held_and_what_was_released_are_repeated_and_are_the_same(reviewed: World) -> None:
    (held,) = reviewed.valise("audit", "show", reviewed.notices["waits"], "--redecide", "--json").value
    assert (held["how"], held["same"]) == ("by-review", True)
    story = reviewed.valise("audit", "show", reviewed.notices["released"], "--redecide")
    assert (story.code, story.first.startswith("decided again: the same")) == (0, True)
    ways = [each["how"] for each in reviewed.valise(
        "audit", "show", reviewed.notices["released"], "--redecide", "--json"
    ).value]  # fmt: skip
    assert ways == ["by-review", "by-reviewed", "by-policy"]


def test_of_what_waits_the_issuer_is_told_who_reviews_it_and_what_others_wait_for(reviewed: World) -> None:
    said = reviewed.valise("policy", "explain", reviewed.notices["waits"], home="members/LV")
    assert said.first.startswith("held for review: 1 of 64 bureaus received it to review it, nobody else does yet")
    told = {
        each["bureau"]: each
        for each in reviewed.valise(
            "policy", "explain", reviewed.notices["waits"], "--json", home="members/LV"
        ).value["bureaus"]
    }  # fmt: skip
    assert told["GE/organised-crime"]["code"] == "wanted-or-warning"
    assert told[REVIEWER]["rules"] == ["wanted-or-warning-review"]


def test_the_reviewing_bureau_is_told_by_which_rule_it_reviews_and_nothing_of_others(reviewed: World) -> None:
    said = reviewed.valise("policy", "explain", reviewed.notices["waits"], home="members/INTERPOL").said
    assert "rule wanted-or-warning-review" in said
    assert f"{REVIEWER} is a reviewing bureau" in said
    assert "RU" not in said
    assert "GE/" not in said


def test_without_review_what_waits_would_go_out_and_what_was_released_stays_as_it_is(
    reviewed: World, tmp_path: Path
) -> None:
    folder = tmp_path / "unreviewed"
    shutil.copytree(POLICIES, folder, ignore=shutil.ignore_patterns("08-review.*"))
    value = reviewed.valise("policy", "compare", str(folder), "--json").value
    assert (value["decisions"], value["in_force"], value["changed"], value["changed_in_force"]) == (3, 3, 1, 1)
    assert value["lines"] == [
        {
            "member": "GE", "way": "gains", "what": "receive", "rule": "wanted-or-warning", "notices": 1, "in_force": 1,
            "bureaus": ["GE/organised-crime"],
        },
        {
            "member": "INTERPOL", "way": "loses", "what": "review", "rule": "wanted-or-warning-review", "notices": 1,
            "in_force": 1, "bureaus": [REVIEWER],
        },
    ]  # fmt: skip
    assert value["refused"].startswith("policies: cases/")
