"""`valise audit reads`: who read what, when, for which case; looks by operator and auditors among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from broker import codec
from broker.index import leaf_at, look_in, receipt_in
from broker.notice import DecisionRecord, Header, Leaf
from cli import answer
from cli.auditor import cases as told_cases
from cli.auditor.cases import Cases
from cli.auditor.opened import Opened, opened
from cli.auditor.search import MOST, moment
from cli.options import Everywhere, everywhere

READ, LOOK = "read", "look"


@click.command()
@click.argument("notice", required=False)
@click.option("--bureau", "by", help="Who read: a bureau, as AT/ncb, or an auditor's pseudonym.")
@click.option("--since", help="From this time on, as 2026-11-01 or 2026-11-01T12:30 (UTC).")
@click.option("--until", help="Before this time.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, MOST), help="Leaves at most, newest.")
@told_cases.told
@everywhere
def reads(given: Everywhere, notice: str | None, case_files: tuple[Path, ...], limit: int, **asked: str | None) -> None:
    """List who read what, when, and for which case: of NOTICE, or of all.

    On record is a digest of each case number; the bureau that read opens it: `valise cases --to FILE`, then --cases.
    """
    known = told_cases.read(case_files)
    with opened(given.home) as home:
        total, numbers = _leaves(home, notice, limit, asked)
        of = set(home.stories.find(notice)) if notice else None
        rows = [row for each in numbers for row in _rows(home, each, known) if of is None or row["of_leaf"] in of]
    more = f"; the newest {len(numbers)} leaves of {total:,}" if total > len(numbers) else ""
    closed = sum(1 for each in rows if each["case_digest"] and not each["case"])
    answer.show(
        f"{answer.count(len(rows), 'time')} a notice was read or looked at; {answer.count(closed, 'case number')} its "
        f"bureau has not told{more}",
        rows,
        as_json=given.as_json,
        table=answer.Table(
            ("at", "who", "what", "notice", "of", "shown", "case", "leaf"), [_cells(each) for each in rows]
        ),
        then=given.again(f"valise audit show {rows[0]['notice'] or rows[0]['of_leaf'] if rows else 'NOTICE'}"),
        beside={"more": total - len(numbers)},
    )


def _leaves(home: Opened, notice: str | None, limit: int, asked: dict[str, str | None]) -> tuple[int, list[int]]:
    """Find the leaves of reads and looks, newest first, and count them all. Raises NoSuchNoticeError."""
    begin = leaf_at(home.trail, moment(asked["since"])) if asked["since"] else 0
    end = leaf_at(home.trail, moment(asked["until"])) if asked["until"] else home.trail.size
    wanted = [[f"outcome:{READ}", f"outcome:{LOOK}"], *([[f"by:{asked['by']}"]] if asked["by"] else [])]
    if notice is None:
        found = home.index.search(wanted, begin, end, limit)
        return found.total, list(found.leaves)
    story = home.stories.find(notice)
    if not story:
        raise home.no_such_notice()
    fitting = [each for each in story if begin <= each < end and home.index.search(wanted, each, each + 1, 1).total]
    return len(fitting), list(reversed(fitting))[:limit]


def _rows(home: Opened, number: int, known: Cases) -> Iterator[dict[str, Any]]:
    """Tell of each notice that a leaf of a read or look speaks of."""
    leaf, decision = codec.decode(Leaf, home.trail.entry(number)), _decision(home, number)
    receipt, look = (receipt_in(decision), look_in(decision)) if decision else (None, None)
    if receipt:
        digest = receipt.case_digest.hex() if receipt.case_digest else None
        said = {"who": receipt.bureau, "what": READ, "case": known.get(digest or ""), "case_digest": digest}
        about = [each.leaf_number for each in receipt.items]
    elif look:
        said = {"who": look.by, "what": LOOK, "case": look.reason, "case_digest": None}
        about = list(look.leaves)
    else:
        return
    for each in about:
        yield {"at": answer.when(leaf.now), **said, **_notice(home, each, str(said["who"])), "leaf": number}


def _decision(home: Opened, number: int) -> DecisionRecord | None:
    kept = home.records.get(number)
    return codec.decode(DecisionRecord, kept[1]) if kept else None


def _notice(home: Opened, number: int, who: str) -> dict[str, Any]:
    """Name the notice of a record leaf, and what its reader was shown of it by which row."""
    decision = _decision(home, number)
    if decision is None or not decision.header:
        return {"of_leaf": number, "notice": None, "issuer": None, "shown": []}
    header = codec.decode(Header, decision.header)
    mask = next((each.shown for each in decision.rows if each.bureau == who), 0)
    return {
        "of_leaf": number,
        "notice": str(UUID(bytes=header.notice_id)),
        "issuer": header.issuer,
        "purpose": header.purpose,
        "legal_basis": header.legal_basis,
        "shown": [each.name for bit, each in enumerate(header.compartments) if mask >> bit & 1],
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    case = row["case"] or (f"digest {row['case_digest'][:16]}" if row["case_digest"] else "")
    shown = ", ".join(row["shown"])
    return (
        row["at"], row["who"], row["what"], row["notice"] or f"leaf {row['of_leaf']}", row["issuer"] or "", shown, case,
        str(row["leaf"]),
    )  # fmt: skip
