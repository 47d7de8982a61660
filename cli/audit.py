"""`valise audit`: verify a whole trail offline, show one notice's story."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import click

from broker import notes
from broker.errors import ConfigurationError, ProofError
from broker.examine import Report, examine
from broker.index import Index
from broker.notes import Vkey
from broker.records import Records
from broker.trail import Trail
from cli import answer, exits
from cli.operator_home import operator_folder
from cli.options import Everywhere, everywhere
from cli.publish import NoSuchNoticeError
from cli.seen import Seen, beside
from cli.story import Stories

PROGRESS_S = 1.0
SHOWN_FINDINGS = 20


@click.group()
def audit() -> None:
    """Check what the broker did, with public keys only."""


@audit.command()
@click.argument("trail_dir", required=False, type=click.Path(path_type=Path))
@click.option(
    "--seen",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A collector's inbox.*.db, a checkpoint file, or a folder of them. Default: the members' homes beside.",
)
@click.option("--vkey", "key_file", type=click.Path(path_type=Path), help="The log's public key from elsewhere.")
@everywhere
def verify(given: Everywhere, trail_dir: Path | None, seen: tuple[Path, ...], key_file: Path | None) -> None:
    """Check the trail in TRAIL_DIR (HOME/operator/trail) and compare it with what others kept.

    Exit code 0: good; 4: something does not hold; 6: sound in itself, but compared with nothing.
    """
    folder = trail_dir or operator_folder(given.home) / "trail"
    if not folder.is_dir():
        raise ConfigurationError(f"there is no trail in {folder}: name its folder, or the home with --home")
    key = _key(key_file or folder / "vkey")
    others = Seen(seen or beside(folder), folder)
    report = examine(folder, key, others.heads(), others.deliveries(), _progress("checked"))
    if given.as_json:
        click.echo(json.dumps(_report_value(report, others, key_file), ensure_ascii=False))
    else:
        _print_report(report, folder, others, key_file, given)
    if code := _exit_code(report):
        raise click.exceptions.Exit(code)


def _key(file: Path) -> Vkey:
    try:
        return notes.parse_vkey(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ProofError) as error:
        raise ConfigurationError(f"{file} holds no verifier key: name one with --vkey ({error})") from error


def _progress(what: str) -> Callable[[int, int], None]:
    """Say how far it is, on stderr, at most once a second and not in the first."""
    last = monotonic()

    def progress(done: int, size: int) -> None:
        nonlocal last
        if monotonic() - last >= PROGRESS_S:
            last = monotonic()
            click.echo(f"{what} {done:,} of {size:,} leaves", err=True)

    return progress


def _exit_code(report: Report) -> int:
    if report.wrong:
        return exits.VERIFICATION_FAILED
    return 0 if report.compared else exits.PARTLY


def _answer(report: Report) -> str:
    if report.wrong:
        first = report.findings[0]
        return f"The trail does not hold: {first.place}: {first.what}"
    if not report.compared:
        return f"The trail of {report.size:,} leaves is sound in itself, but was compared with nothing"
    return (
        f"The trail is good: {report.size:,} leaves, compared with {report.heads:,} heads"
        f" and {report.deliveries:,} deliveries that others kept"
    )


def _key_from(key_file: Path | None) -> str:
    return str(key_file) if key_file else "vkey in the trail's own folder: pin one from elsewhere with --vkey"


def _print_report(report: Report, folder: Path, others: Seen, key_file: Path | None, given: Everywhere) -> None:
    click.echo(answer.safe(_answer(report)))
    facts = {
        "log": report.origin,
        "leaves": f"{report.size:,}",
        "root": report.root.hex(),
        "key": _key_from(key_file),
        "compared with": f"{len(others.files)} files: {report.heads:,} heads, {report.deliveries:,} deliveries",
    }
    for name, value in facts.items():
        click.echo(f"  {name:<14} {value}")
    for finding in report.findings[:SHOWN_FINDINGS]:
        click.echo(f"  {'WRONG':<14} {answer.safe(finding.place)}: {answer.safe(finding.what)}")
    if report.wrong > SHOWN_FINDINGS:
        click.echo(f"  {'WRONG':<14} and {report.wrong - SHOWN_FINDINGS:,} more")
    click.echo(_next_command(report, folder, given))


def _next_command(report: Report, folder: Path, given: Everywhere) -> str:
    if report.wrong:
        return f"valise audit verify {folder} --json"
    if not report.compared:
        return f"valise audit verify {folder} --seen PATH"
    return given.again(f"valise audit show {max(report.size - 1, 0)}")


def _report_value(report: Report, others: Seen, key_file: Path | None) -> dict[str, Any]:
    return {
        "answer": _answer(report),
        "good": _exit_code(report) == 0,
        "exit": _exit_code(report),
        "origin": report.origin,
        "size": report.size,
        "root": report.root.hex(),
        "key": str(key_file) if key_file else "own-folder",
        "compared": {
            "files": [str(each) for each in others.files],
            "heads": report.heads,
            "deliveries": report.deliveries,
        },
        "wrong": report.wrong,
        "findings": [{"place": each.place, "what": each.what} for each in report.findings],
    }


@audit.command()
@click.argument("notice")
@everywhere
def show(given: Everywhere, notice: str) -> None:
    """Tell the story of NOTICE, a notice id or a leaf number: who got what, why, and what became of it."""
    operator = operator_folder(given.home)
    if not (operator / "records.db").is_file():
        raise ConfigurationError(f"there are no decision records in {operator}: name the home with --home")
    with ExitStack() as stack:
        records = Records(operator / "records.db")
        stack.callback(records.close)
        index = _index(operator)
        stack.callback(index.close)
        trail = Trail.open(operator / "trail")
        index.update(trail, records, _progress("indexed"))
        stories = Stories(trail, records, index, operator / "versions")
        chapters = stories.tell(stories.find(notice))
    if not chapters:
        raise NoSuchNoticeError
    then = given.again("valise audit verify")
    click.echo(json.dumps(chapters, ensure_ascii=False) if given.as_json else answer.safe(_story(chapters, then)))
    if not all(each["decision_holds"] for each in chapters):
        raise click.exceptions.Exit(exits.VERIFICATION_FAILED)


def _index(operator: Path) -> Index:
    try:
        return Index(operator / "records.index.db")
    except sqlite3.OperationalError:
        return Index(None)  # an auditor may look at what he may not write


def _story(chapters: list[dict[str, Any]], then: str) -> str:
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
        return f"Leaf {first['leaf']}: {first['kind']}"
    state = first["code"] or first["kind"]
    recipients = len(first["recipients"])
    return f"Notice {first['notice']} of {first['issuer']}: {state}, {recipients} recipients, {count} leaves"


def _chapter(chapter: dict[str, Any]) -> list[str]:
    lines = [f"  leaf {chapter['leaf']:<8} {chapter['at']}  {chapter['kind']} {chapter['code'] or ''}".rstrip()]
    told: list[tuple[str, str]] = []
    if "receipt" in chapter:
        receipt = chapter["receipt"]
        told.append(("receipt", f"{receipt['bureau']} {receipt['act']} {receipt['result'] or ''}".rstrip()))
    if "notice" in chapter:
        told += _notice(chapter)
    told += [("warning", each) for each in chapter["warnings"]]
    if chapter["detail"]:
        told.append(("detail", chapter["detail"]))
    told.append(("policies", chapter["policies"][:16]))
    return [*lines, *(f"      {name:<12} {value}" for name, value in told)]


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
    told += [("rule", f"{each['rule']}: {_some(each['bureaus'])}") for each in chapter["rules"]]
    return told


def _audience(routing: dict[str, Any]) -> str:
    if "unreadable" in routing:
        return f"cannot be read ({routing['unreadable']})"
    named = [*routing["agreements"], *routing["to"]]
    return "everyone" if routing["everyone"] else ", ".join(named) or "nobody"


def _some(names: list[str]) -> str:
    most = 6
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
