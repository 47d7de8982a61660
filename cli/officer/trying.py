"""`valise publish --dry-run`: decides on the member's machine, from what the member may know, and sends nothing."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from adapters.adapter import Draft
from broker.errors import ValiseError
from broker.few import few
from cli import answer
from cli.home import MemberHome, clock
from cli.officer import accounts, in_force, summing
from cli.options import Everywhere
from cli.progress import progress

if TYPE_CHECKING:
    from adapters.outbox import Outbox, Refusal
    from broker.explain import Account
    from broker.notice import Verified

FEW = 10
"""Drafts of which each is shown; more are summed up."""
TOLD = 10
"""Refused drafts that are named."""
UNCHANGED = "it stands published as it is, and is not sent again"


class DraftsRefusedError(ValiseError):
    """The broker would reject them, and this machine does."""

    code = "refused-here"


class NoSuchDraftError(ValiseError):
    """No draft of the file is of such a record."""

    code = "no-such-draft"

    def __init__(self, records: Sequence[str], file: str) -> None:
        super().__init__(f"{file} has no draft of {few(records)}: --record takes the `record` of a draft in it")


def try_out(
    given: Everywhere, home: MemberHome, drafts: Sequence[Draft], file: str, *, only: Sequence[str], stale: bool
) -> None:
    """Say who would receive the drafts, who not and why, and where the annex could still change the answer.

    Of few drafts, or of the records in `only`, for each of them; of more, summed up by bureau.
    `stale`: the bus does not answer, so that what is tried by may have been replaced. Raises NoSuchDraftError.
    """
    if unknown := sorted(set(only) - {draft.record for draft in drafts}):
        raise NoSuchDraftError(unknown, file)
    chosen = [each for each in drafts if _is_meant(each, only)]
    again = f"valise publish {shlex.quote(file)}"
    with closing(_prospects(home, drafts, only)) as tried:
        if only or len(drafts) <= FEW:
            _show_each(given, chosen, list(tried), stale=stale)
        else:
            summing.show(given, summing.sum_up(tried), f"{again} --dry-run --bureau {home.bureau}", stale=stale)
    if not given.as_json:
        answer.say(given.again(f"{again} --bureau {home.bureau}"))


def _show_each(
    given: Everywhere, drafts: Sequence[Draft], prospects: Sequence[tuple[str, tuple[Account, ...]]], *, stale: bool
) -> None:
    """Show for each draft what becomes of it at each bureau."""
    told = [(record, each) for record, found in prospects for each in found]
    same = [record for record, found in prospects if not found]
    flat = [each for _, each in told]
    several = summing.headline(summing.sum_up(prospects)) if len(drafts) > 1 else ""
    answer.show(
        (several or accounts.headline(flat, "would receive")) if told else f"nothing would be sent: {UNCHANGED}",
        [{"record": record, **accounts.value(each)} for record, each in told]
        + [{"record": each, "bureau": None, "receives": False, "code": "unchanged", "why": UNCHANGED} for each in same],
        as_json=given.as_json,
        table=_table(told, several=len(drafts) > 1),
        beside={"stale": stale},
    )
    if given.as_json:
        return
    unchanged = [f"{answer.one_line(each)}: {UNCHANGED}" for each in same if told]
    for line in ("", *accounts.legend(flat), "", *_doubts(flat), *_changes(flat), *unchanged):
        answer.say(line)


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


def _prospects(
    home: MemberHome, drafts: Sequence[Draft], only: Sequence[str]
) -> Generator[tuple[str, tuple[Account, ...]], None, None]:
    """Tell of every draft, by its record, who would receive it; nobody, if it stands as it is: it is not sent again.

    One after the other: what is told of a draft is some 40 kB. All are made, as one may name another; of `only`, if
    any, is told.
    """
    from adapters.outbox import Refusal  # noqa: PLC0415
    from broker.decide import Subscriptions, View  # noqa: PLC0415
    from broker.explain import accounts as tell  # noqa: PLC0415
    from broker.explain import of_prospect  # noqa: PLC0415
    from broker.notice import Verified  # noqa: PLC0415
    from broker.rules import Rules, read_rules  # noqa: PLC0415 -- cedarpy is slow to import

    basis = in_force.at_member(home)
    rules = Rules.load(basis.policies, basis.directory, None)
    view, read = View(basis.directory, rules, Subscriptions.unknown(basis.directory)), read_rules(basis.policies)
    with home.outbox() as outbox:
        made, now = outbox.rehearse(drafts, progress("made", "notices")), clock()
        chosen = [(draft.record, each) for draft, each in zip(drafts, made, strict=True) if _is_meant(draft, only)]
        _refuse([each for _, each in chosen if isinstance(each, Refusal)])
        say = progress("tried", "notices")
        for place, (record, each) in enumerate(chosen, 1):
            if isinstance(each, Verified):
                mask = basis.directory.bureau_mask(_holders(outbox, each))
                yield record, tell(of_prospect(each, each.present, view, read, now, None, mask))
            else:
                yield record, ()
            say(place, len(chosen))


def _is_meant(draft: Draft, only: Sequence[str]) -> bool:
    return not only or draft.record in only


def _refuse(refused: Sequence[Refusal]) -> None:
    """Raise DraftsRefusedError if any is."""
    if refused:
        told = [f"{each.record}: {each.code}: {each.reason}" for each in refused[:TOLD]]
        more = [f"and {len(refused) - TOLD:,} more"] if len(refused) > TOLD else []
        raise DraftsRefusedError("; ".join(told + more))


def _holders(outbox: Outbox, notice: Verified) -> tuple[str, ...]:
    """Name who holds what a notice corrects or ends, by the decisions that came home."""
    from adapters.trace import holders_of  # noqa: PLC0415
    from broker.verify import subject_of  # noqa: PLC0415

    subject = subject_of(notice.header)
    return holders_of(outbox.database, subject.notice_id) if subject else ()
