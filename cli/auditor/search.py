"""`valise audit search`: find leaves by what is on record about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from broker import codec
from broker.errors import ConfigurationError, NoticeRejectedError
from broker.index import Found, leaf_at, look_in, receipt_in
from broker.notice import DecisionRecord, Header, Leaf
from cli import answer, exits
from cli.auditor.opened import Opened, opened
from cli.options import Everywhere, everywhere

MOST = 10_000
END = 1 << 62
NO_NAMES = (
    "persons cannot be searched for here: the broker keeps no index of whom notices speak of. Find the person at the"
    " member that issued (name, record, notice id), then search for the notice's id with --notice"
)
_KEY_ID = re.compile("[0-9a-fA-F]{1,64}")
PREFIXES = {"outcome": "outcome:", "rule": "rule:", "purpose": "purpose:", "policies": "policies:"}


@click.command()
@click.argument("words", nargs=-1)
@click.option("--notice", help="A notice id.")
@click.option("--member", multiple=True, help="Issuer, recipient, signer of a receipt, whose stream it came on: AT.")
@click.option("--bureau", multiple=True, help="Issuer, recipient or signer of a receipt, as AT/ncb.")
@click.option("--issuer", multiple=True, help="Bureau that issued.")
@click.option("--recipient", multiple=True, help="Bureau that was given it.")
@click.option(
    "--silent", multiple=True, metavar="BUREAU", help="Bureau that was given it, and of which no receipt is on record."
)
@click.option("--rule", multiple=True, help="Id of a rule that decided.")
@click.option(
    "--outcome",
    multiple=True,
    help="Kind of leaf (rejected), its code (bad-signature), its warning (glass-broken), or what a receipt says.",
)
@click.option("--purpose", multiple=True, help="Purpose of the notice.")
@click.option(
    "--key-id",
    multiple=True,
    help="Id of a key, or its first digits: what it signed, or was rejected and named it while the directory did.",
)
@click.option("--policies", multiple=True, help="Digest of the policy set in force.")
@click.option("--since", help="From this time on, as 2026-11-01 or 2026-11-01T12:30 (UTC).")
@click.option("--until", help="Before this time.")
@click.option("--before", type=click.IntRange(min=0), help="Only leaves before this number: the next page.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, MOST), help="Leaves on one page.")
@click.option("--shard", default=0, type=click.IntRange(min=0), help="Which shard's trail.")
@click.option(
    "--rebuild",
    is_flag=True,
    help="Make the index again from trail and decision records first: once in a home that was handed over.",
)
@everywhere
def search(given: Everywhere, words: tuple[str, ...], *, limit: int, shard: int, rebuild: bool, **asked: Any) -> None:
    """Find leaves, newest first. What is asked for twice may be either; different things must all fit.

    There is no search by name: the broker has no index of persons.
    """
    if words:
        refused = {"error": "no-search-by-name", "detail": NO_NAMES}
        answer.aside(answer.in_json(refused) if given.as_json else ": ".join(refused.values()))
        raise click.exceptions.Exit(exits.DENIED)
    with opened(given.home, shard, rebuild=rebuild) as home:
        found = _find(home, asked, limit)
        lines = [_line(home, each) for each in found.leaves]
        hint = "" if found.total else _hint(home, asked)
    more = found.total - len(lines)
    answer.show(
        _first(found, lines, hint),
        {"total": found.total, "more": more, "leaves": lines},
        as_json=given.as_json,
        table=answer.Table(("leaf", "at", "outcome", "notice", "from", "to"), [_cells(each) for each in lines]),
        then=_then(given, asked, lines, more),
    )


def _find(home: Opened, asked: dict[str, Any], limit: int) -> Found:
    end = home.trail.size if asked["before"] is None else min(home.trail.size, asked["before"])
    begin = leaf_at(home.trail, moment(asked["since"])) if asked["since"] else 0
    if asked["until"]:
        end = min(end, leaf_at(home.trail, moment(asked["until"])))
    if asked["notice"] or asked["silent"]:
        found = _of_notice(home, asked, begin, end) if asked["notice"] else _all(home, _groups(home, asked), begin, end)
        return _first_of(_unanswered(home, asked["silent"], found) if asked["silent"] else found, limit)
    return home.index.search(_groups(home, asked), begin, end, limit)


def _of_notice(home: Opened, asked: dict[str, Any], begin: int, end: int) -> Sequence[int]:
    """Find among the leaves of one notice, which are few."""
    leaves = [each for each in home.stories.find(asked["notice"]) if begin <= each < end]
    groups = _groups(home, asked)
    return [each for each in reversed(leaves) if not groups or home.index.search(groups, each, each + 1, 1).total]


def _all(home: Opened, groups: list[list[str]], begin: int, end: int) -> Sequence[int]:
    return home.index.search(groups, begin, end, end).leaves


def _unanswered(home: Opened, bureaus: Sequence[str], leaves: Sequence[int]) -> Sequence[int]:
    """Give the leaves that were given to one of these bureaus, and of which none of its receipts speaks."""
    asked, silent = set(leaves), set[int]()
    for bureau in bureaus:
        given = asked.intersection(_all(home, [[f"to:{bureau}"]], 0, home.trail.size))
        receipts = set(_all(home, [[f"by:{bureau}"], ["outcome:receipt"]], 0, home.trail.size))
        silent |= {each for each in given if receipts.isdisjoint(home.index.leaves_about(each))}
    return [each for each in leaves if each in silent]


def _first_of(leaves: Sequence[int], limit: int) -> Found:
    return Found(tuple(leaves[:limit]), len(leaves))


def _groups(home: Opened, asked: dict[str, Any]) -> list[list[str]]:
    """Give the words of the index that are asked for: one of each group must fit."""
    groups = [[f"{prefix}{each}" for each in asked[name]] for name, prefix in PREFIXES.items()]
    groups.append([f"member:{each.upper()}" for each in asked["member"]])
    groups.append([f"{role}:{each}" for each in asked["bureau"] for role in ("issuer", "to", "by")])
    groups.append([f"issuer:{each}" for each in asked["issuer"]])
    groups += [[f"to:{each}" for each in asked[name]] for name in ("recipient", "silent")]
    groups.append([f"key:{each}" for begin in asked["key_id"] for each in _keys(home, begin)])
    return [each for each in groups if each]


def _keys(home: Opened, begin: str) -> list[str]:
    """Name the keys on record whose ids begin so; where there is none it fits no leaf. Raises ConfigurationError."""
    if not _KEY_ID.fullmatch(begin):
        message = f"{begin!r} is no key id: write its first digits, as `valise key list` or `audit show` has them"
        raise ConfigurationError(message)
    return [each for each in home.index.words("key:") if each.startswith(begin.lower())] or [begin]


def moment(text: str) -> int:
    """Read a time in UTC; give it in ms since the epoch. Raises ConfigurationError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no time: write 2026-11-01 or 2026-11-01T12:30 (UTC)"
        raise ConfigurationError(message) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _line(home: Opened, number: int) -> dict[str, Any]:
    """Say of one leaf what a list shows: ids, codes and counts."""
    leaf = codec.decode(Leaf, home.trail.entry(number))
    kept = home.records.get(number)
    decision = _decision(kept[1]) if kept else None
    line: dict[str, Any] = {
        "leaf": number,
        "at": answer.iso(leaf.now),
        "kind": leaf.kind,
        "code": leaf.code,
        "about": leaf.about,
    }
    if decision is None:
        return line | {"decision": "missing or unreadable: see `valise audit verify --records`"}
    line["came_on"] = decision.stream or None
    if decision.header:
        header = codec.decode(Header, decision.header)
        line |= {"notice": str(UUID(bytes=header.notice_id)), "issuer": header.issuer, "recipients": len(decision.rows)}
    if receipt := receipt_in(decision):
        line |= {"by": receipt.bureau, "result": receipt.result, "notices": len(receipt.items)}
    if look := look_in(decision):
        line |= {"by": look.by, "reason": look.reason, "notices": len(look.leaves)}
    return line


def _decision(record: bytes) -> DecisionRecord | None:
    try:
        return codec.decode(DecisionRecord, record)
    except NoticeRejectedError:
        return None


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    outcome = " ".join(filter(None, (line["kind"], line["code"], line.get("result"))))
    about = f"leaf {line['about']}" if line["about"] is not None else ""
    notices = answer.count(line["notices"], "notice") if line.get("notices", 1) != 1 else ""
    return (
        str(line["leaf"]),
        line["at"][:19].replace("T", " "),
        outcome,
        line.get("notice") or notices or about,
        line.get("issuer") or line.get("by") or line.get("came_on") or "",
        answer.count(line["recipients"], "bureau") if "recipients" in line else line.get("reason", ""),
    )


def _first(found: Found, lines: list[dict[str, Any]], hint: str) -> str:
    if not found.total:
        return f"no leaf fits{hint}"
    more = found.total - len(lines)
    fit = answer.count(found.total, "leaf fits", "leaves fit")
    return fit + (f"; the newest {len(lines)} of them, {more:,} more" if more else "")


def _hint(home: Opened, asked: dict[str, Any]) -> str:
    """Name what there is, where a word was asked for that no leaf has."""
    for name, prefix in PREFIXES.items():
        known = home.index.words(prefix)
        unknown = [each for each in asked[name] if each not in known]
        if unknown:
            return f": there is no {name} {unknown[0]!r} on record, but {', '.join(known[:20]) or 'none'}"
    return ""


def _then(given: Everywhere, asked: dict[str, Any], lines: list[dict[str, Any]], more: int) -> str:
    if not lines:
        return given.again("valise audit search --limit 20")
    if not more:
        return given.again(f"valise audit show {lines[0]['leaf']}")
    options = "".join(
        f" --{name.replace('_', '-')} {each}"
        for name, value in asked.items()
        if name != "before"
        for each in (value if isinstance(value, tuple) else [value] if value else [])
    )
    return given.again(f"valise audit search{options} --before {lines[-1]['leaf']}")
