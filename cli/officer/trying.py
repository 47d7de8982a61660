"""`valise publish --dry-run`: decides on the member's machine, from what the member may know, and sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adapters.adapter import Draft
from broker.errors import NoticeRejectedError, ValiseError
from cli import answer
from cli.home import MemberHome, clock
from cli.officer import accounts, in_force
from cli.options import Everywhere

if TYPE_CHECKING:
    from adapters.outbox import Outbox
    from broker.explain import Account
    from broker.notice import Reference

TOLD = 10
"""Refused drafts that are named."""


class DraftsRefusedError(ValiseError):
    """The broker would reject them, and this machine does."""

    code = "refused-here"


def try_out(given: Everywhere, home: MemberHome, drafts: Sequence[Draft], file: str) -> None:
    """Say for every draft who would receive it, who not and why, and where the annex could still change the answer."""
    told = [
        (draft.record, each) for draft, found in zip(drafts, _prospects(home, drafts), strict=True) for each in found
    ]
    flat = [each for _, each in told]
    answer.show(
        accounts.headline(flat, "would receive"),
        [{"record": record, **accounts.value(each)} for record, each in told],
        as_json=given.as_json,
        table=_table(told, several=len(drafts) > 1),
    )
    if given.as_json:
        return
    for line in ("", *accounts.legend(flat), "", *_doubts(flat), *_changes(flat)):
        answer.say(line)
    answer.say(given.again(f"valise publish {file} --bureau {home.bureau}"))


def _table(told: Sequence[tuple[str, Account]], *, several: bool) -> answer.Table:
    plain = accounts.table([each for _, each in told])
    if not several:
        return plain
    rows = [(record, *row) for (record, _), row in zip(told, plain.rows, strict=True)]
    return answer.Table(("record", *plain.titles), rows)


def _doubts(told: Sequence[Account]) -> list[str]:
    """Say where what this member may not know could still change the answer."""
    unsure: dict[str, list[str]] = {}
    for each in told:
        for doubt in each.doubts:
            unsure.setdefault(doubt, []).append(each.bureau)
    return [f"? {', '.join(bureaus)}: {doubt}" for doubt, bureaus in unsure.items()]


def _changes(told: Sequence[Account]) -> list[str]:
    """Say, for every bureau that one thing only keeps out, what would have to change."""
    near = [each for each in told if len(each.obstacles) == 1 and each.obstacles[0].term not in ("issuer", "reach")]
    return [f"{each.bureau} would receive it if {_lower(each.obstacles[0].change)}" for each in near]


def _lower(change: str) -> str:
    """Fit the words of a change behind `if`."""
    return change.replace(" would have to ", " were to ")


def _prospects(home: MemberHome, drafts: Sequence[Draft]) -> list[tuple[Account, ...]]:
    from adapters.compose import Place, compose  # noqa: PLC0415
    from adapters.wrong import why  # noqa: PLC0415
    from broker.decide import Subscriptions, View  # noqa: PLC0415
    from broker.explain import accounts as tell  # noqa: PLC0415
    from broker.explain import of_prospect  # noqa: PLC0415
    from broker.rules import Rules, read_rules  # noqa: PLC0415 -- cedarpy is slow to import

    basis, maker, now = in_force.at_member(home), home.maker(), clock()
    rules = Rules.load(basis.policies, basis.directory, None)
    view, read = View(basis.directory, rules, Subscriptions.unknown(basis.directory)), read_rules(basis.policies)
    found, refused = [], []
    with home.outbox() as outbox:
        for draft in drafts:
            bureau = draft.bureau or home.bureau
            version, references, holders = _before(outbox, bureau, draft.record)
            try:
                notice = compose(draft, Place(bureau, version, references, bytes(8), 1), maker)
            except NoticeRejectedError as error:
                refused.append(f"{draft.record}: {error.code}: {why(draft, error)}")
                continue
            mask = basis.directory.bureau_mask(holders)
            found.append(tell(of_prospect(notice, notice.present, view, read, now, None, mask)))
    if refused:
        more = [f"and {len(refused) - TOLD} more"] if len(refused) > TOLD else []
        raise DraftsRefusedError("; ".join(refused[:TOLD] + more))
    return found


def _before(outbox: Outbox, bureau: str, record: str) -> tuple[int, tuple[Reference, ...], tuple[str, ...]]:
    """Give the version of a publication, what it corrects, and who holds that by the decisions that came home."""
    from adapters.trace import holders  # noqa: PLC0415

    standing = outbox.standing(bureau, record)
    if standing is None:
        return 1, (), ()
    version = standing[0] + 1
    return version, (replace(standing[1], relation="corrects"),), holders(outbox.database, bureau, record, version)
