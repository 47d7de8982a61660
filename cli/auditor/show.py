"""`valise audit show`: tell one notice's story from the trail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from broker.few import few
from cli import answer, exits
from cli.auditor import cases as told_cases
from cli.auditor import content as bodies
from cli.auditor.cases import Cases
from cli.auditor.looks import Why, asks, looked
from cli.auditor.opened import opened_about
from cli.officer import repeating
from cli.officer.repeating import Repeated, repeat
from cli.operator_home import operator_home
from cli.options import Everywhere, everywhere

RECORDED = ("routed", "held")
"""Leaves of notices whose content the broker may hold."""


@click.command()
@click.argument("notice")
@click.option("--content", is_flag=True, help="Also what it says, where the broker still holds it: a look on record.")
@asks
@click.option("--redecide", is_flag=True, help="Decide it again from the record, with Cedar itself: same or different.")
@click.option("--shard", type=click.IntRange(min=0), help="Which shard's trail; of a leaf number, 0 if not named.")
@told_cases.told
@everywhere
def show(
    given: Everywhere,
    notice: str,
    *,
    content: bool,
    why: Why,
    redecide: bool,
    shard: int | None,
    case_files: tuple[Path, ...],
) -> None:
    """Tell the story of NOTICE, a notice id or a leaf number: who got what, why, and what became of it.

    With --content the broker first records who looks, and why, as a leaf of the trail; the issuer is told. This alone
    opens the bus that the home's settings name, and asks first where the key does not lie in that home.
    """
    known = told_cases.read(case_files)
    with opened_about(given.home, notice, shard) as home:
        chapters = _with_cases(home.stories.tell(home.stories.find(notice)), known)
        again = repeat(home, [each["leaf"] for each in chapters]) if redecide else []
    if not chapters:
        raise home.no_such_notice()
    if redecide:
        _repeated(given, again)
        return
    if content:
        chapters = _with_content(given, chapters, why)
    then = given.again("valise audit verify")
    answer.say(answer.in_json(chapters) if given.as_json else _told(chapters, then))
    if not all(each["decision_holds"] for each in chapters):
        raise click.exceptions.Exit(exits.VERIFICATION_FAILED)


def _with_cases(chapters: list[dict[str, Any]], known: Cases) -> list[dict[str, Any]]:
    """Open the digests of case numbers that bureaus told."""
    for each in chapters:
        if "receipt" in each:
            each["receipt"]["case"] = known.get(each["receipt"]["case_digest"] or "")
    return chapters


def _repeated(given: Everywhere, again: list[Repeated]) -> None:
    if given.as_json:
        answer.say(answer.in_json(repeating.value(again)))
    else:
        answer.say("\n".join([*repeating.lines(again), given.again("valise audit verify")]))
    if not all(each.repetition.same for each in again):
        raise click.exceptions.Exit(exits.VERIFICATION_FAILED)


def _with_content(given: Everywhere, chapters: list[dict[str, Any]], why: Why) -> list[dict[str, Any]]:
    """Have the look recorded, and only then open what the broker holds."""
    home = operator_home(given.home)
    leaves: dict[str, list[int]] = {}
    for each in chapters:
        if each["kind"] in RECORDED and "issuer" in each:
            leaves.setdefault(each["issuer"].partition("/")[0], []).append(each["leaf"])
    looks = looked(home, leaves, why, yes=given.yes)
    for each in chapters:
        if each["kind"] in RECORDED and "issuer" in each:
            held = bodies.envelope(home.folder, each["issuer"], UUID(each["notice"]).bytes)
            each["content"] = bodies.opened(held) if held else None
            each["shown_under"] = next(one.leaf_number for one in looks if each["leaf"] in one.leaves)
    return chapters


def _told(chapters: list[dict[str, Any]], then: str) -> str:
    first = next((each for each in chapters if "notice" in each), chapters[0])
    lines = [_headline(first, len(chapters))]
    for chapter in chapters:
        lines += _chapter(chapter)
    wrong = [str(each["leaf"]) for each in chapters if not each["decision_holds"]]
    if wrong:
        lines.insert(0, f"The decision record of leaf {', '.join(wrong)} is not what the leaf says")
    lines.append(then)
    return "\n".join(lines)


def _headline(first: dict[str, Any], count: int) -> str:
    if "notice" not in first:
        return answer.one_line(f"Leaf {first['leaf']}: {first['kind']}")
    state = f"{first['kind']} {first['code'] or ''}".rstrip()  # a code alone could say anything
    held = f"{answer.count(len(first['recipients']), 'recipient')}, {answer.count(count, 'leaf', 'leaves')}"
    return answer.one_line(f"Notice {first['notice']} of {first['issuer']}: {state}, {held}")


def _chapter(chapter: dict[str, Any]) -> list[str]:
    said = answer.one_line(f"{chapter['kind']} {chapter['code'] or ''}".rstrip())  # whoever holds the log writes any
    lines = [f"  leaf {chapter['leaf']:<8} {chapter['at']}  {said}"]
    told: list[tuple[str, str]] = []
    if chapter["kind"] == "rejected":
        told.append(("came on", str(chapter["came_on"])))
    if chapter["key_id"]:
        named = chapter["kind"] == "rejected" and not chapter["header_digest"]
        told.append(("names key" if named else "signed under", chapter["key_id"]))
    if "receipt" in chapter:
        receipt = chapter["receipt"]
        told.append(("receipt", f"{receipt['bureau']} {receipt['act']} {receipt['result'] or ''}".rstrip()))
        if receipt["case_digest"]:
            told.append(("case", receipt["case"] or f"{receipt['case_digest']} (digest; the bureau opens it: --cases)"))
    if "look" in chapter:
        told.append(("look", f"{chapter['look']['by']}: {chapter['look']['reason']}"))
    if "notice" in chapter:
        told += _notice(chapter)
    if "content" in chapter:
        told += _content(chapter)
    told += [("warning", each) for each in chapter["warnings"]]
    if chapter["detail"]:
        told.append(("detail", chapter["detail"]))
    told.append(("policies", chapter["policies"][:16]))
    return [*lines, *(f"      {name:<12} {answer.one_line(value)}" for name, value in told)]


def _notice(chapter: dict[str, Any]) -> list[tuple[str, str]]:
    told = [
        ("notice", f"{chapter['notice']} ({chapter['notice_kind']}, {chapter['urgency']}, {chapter['purpose']})"),
        ("record", f"{chapter['record']} version {chapter['version']}"),
    ]
    told += [(each["relation"], each["notice"]) for each in chapter["relations"]]
    if routing := chapter["routing"]:
        told.append(("audience", _audience(routing)))
        told.append(("denied", ", ".join(routing.get("deny", [])) or "nobody"))
    for each in chapter["recipients"]:
        told.append(
            ("to", f"{each['bureau']}, delivery {each['delivery']}: {', '.join(each['shown']) or 'header only'}")
        )
    told += [("rule", f"{each['rule']}: {few(each['bureaus'], 6)}") for each in chapter["rules"]]
    return told


def _content(chapter: dict[str, Any]) -> list[tuple[str, str]]:
    if chapter["content"] is None:
        return [("content", "the broker holds it no more")]
    told = [("content", f"shown under look {chapter['shown_under']}")]
    return told + [
        (name, json.dumps(bodies.brief(body), ensure_ascii=False, default=answer.plain))
        for name, body in chapter["content"].items()
    ]


def _audience(routing: dict[str, Any]) -> str:
    if "unreadable" in routing:
        return f"cannot be read ({routing['unreadable']})"
    named = [*routing["agreements"], *routing["to"]]
    return "everyone" if routing["everyone"] else ", ".join(named) or "nobody"
