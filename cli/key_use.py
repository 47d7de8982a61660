"""The operator's view of keys: their state, when each last signed, and who still signs with an old one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from broker.directory import Directory, Key
from broker.key_use import KeyUse, Progress, Use
from broker.notice import CLOCK_SKEW_MS, Revocation
from broker.records import Records
from broker.register import Register
from broker.streams import DAY_MS
from broker.trail import Trail
from cli import answer
from cli.home import clock
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere
from cli.progress import progress

WEEK_MS = 7 * DAY_MS
SIGNED = "records and notices of the last 7 days"


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key of the directory. `old`: a newer key of the same bureau is in force. Times in ms."""

    bureau: str
    key_id: str
    state: str
    until: int
    old: bool
    signed: int
    last: int | None

    @property
    def lagging(self) -> bool:
        """Whether somebody signed with it lately although it should not be used any more."""
        return self.old and self.signed > 0


@contextmanager
def looking(home: OperatorHome) -> Iterator[KeyUse]:
    """Open what the broker has written; it may run meanwhile. Raises UnavailableError where the register is emptied."""
    with ExitStack() as stack:
        register = Register.to_read(home.folder / "register.db")
        stack.callback(register.close)
        records = Records.to_read(home.folder / "records.db")
        stack.callback(records.close)
        yield KeyUse(register, records, Trail.open(home.folder / "trail", home.owner().origin))


def lines(directory: Directory, revoked: dict[bytes, Revocation], uses: dict[bytes, Use], now: int) -> list[KeyLine]:
    """Say how every key of a directory stands, by bureau, oldest first. `uses` since a newer key came count as old."""
    keys = sorted(directory.keys.values(), key=lambda each: (each.bureau, each.valid_from, each.key_id))
    good = [each for each in keys if each.key_id not in revoked and each.in_force(now)]
    newest = {each.bureau: each for each in good}
    return [_line(each, newest.get(each.bureau), revoked, uses.get(each.key_id), now) for each in keys]


def _line(each: Key, newest: Key | None, revoked: dict[bytes, Revocation], use: Use | None, now: int) -> KeyLine:
    old = newest is not None and newest is not each and each.valid_from <= newest.valid_from
    if each.key_id in revoked:
        state = "revoked"
    elif each.in_force(now):
        state = "in force"
    else:
        state = "not yet in force" if now < each.valid_from else "ended"
    # What it signed before its successor came is as it should be.
    counts = use is not None and (not old or newest is None or use.last >= newest.valid_from + CLOCK_SKEW_MS)
    return KeyLine(
        each.bureau, each.key_id.hex(), state, each.valid_until, old, use.signed if use and counts else 0,
        use.last if use else None,
    )  # fmt: skip


def found_in(home: OperatorHome) -> list[KeyLine]:
    """Look at every key of the newest directory and at what was signed in the last week; raises as `looking`."""
    now = clock()
    if not (home.folder / "records.db").is_file():
        return lines(home.versions.newest(), {}, {}, now)
    with looking(home) as use:
        uses = use.since(now - WEEK_MS, progress("looked at", SIGNED))
        return lines(home.versions.newest(), use.revocations(), uses, now)


def lagging(home: OperatorHome, tell: Progress) -> list[str]:
    """Name the bureaus that signed with an old key in the last week; raises as `looking`.

    Nothing is looked through where no key that could sign in that time is old, and of notices only its owner's.
    """
    now, directory = clock(), home.versions.newest()
    if not (home.folder / "records.db").is_file():
        return []
    with looking(home) as use:
        revoked = use.revocations()
        old = [each for each in lines(directory, revoked, {}, now) if each.old and each.until > now - WEEK_MS]
        if not old:
            return []
        owners = sorted({each.bureau.partition("/")[0] for each in old})
        found = lines(directory, revoked, use.since(now - WEEK_MS, tell, owners), now)
        return sorted({each.bureau for each in found if each.lagging})


def show(given: Everywhere) -> None:
    """List every key of the directory, those first whose bureau should have moved on."""
    found = sorted(found_in(operator_home(given.home)), key=lambda each: not each.lagging)
    late = sorted({each.bureau for each in found if each.lagging})
    first = f"{answer.count(len(found), 'key')}; " + (
        f"still signing with an old key: {', '.join(late)}" if late else "nobody signs with an old key"
    )
    answer.show(
        first,
        [_value(each) for each in found],
        as_json=given.as_json,
        table=answer.Table(
            ("bureau", "key id", "state", "until", "signed in 7 days", "last"),
            [
                (
                    each.bureau, each.key_id[:16], each.state + (", old" if each.old else ""), answer.when(each.until),
                    str(each.signed), answer.when(each.last),
                )
                for each in found
            ],
        ),
        then=given.again("valise key revoked"),
    )  # fmt: skip


def _value(each: KeyLine) -> dict[str, Any]:
    return {
        "bureau": each.bureau, "key_id": each.key_id, "state": each.state, "until": each.until, "old": each.old,
        "signed": each.signed, "last": each.last, "lagging": each.lagging,
    }  # fmt: skip
