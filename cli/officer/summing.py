"""Sums up by bureau what would become of many drafts: how many it would receive, how many not, by which rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.few import few
from cli import answer
from cli.officer import accounts
from cli.options import Everywhere

if TYPE_CHECKING:
    from broker.explain import Account

HELD = "held"
HELD_SAID = "it is held: nobody but reviewing bureaus gets it before one has released it"
NAMED = 10
"""Records that are named of each fate; --json names all."""
REACHED, MAYBE, HELD_BACK, NOBODY, UNCHANGED = "reached", "maybe", HELD, "nobody", "unchanged"
_SAID = {
    REACHED: "would reach a bureau",
    MAYBE: "may reach one",
    HELD_BACK: "held for review",
    NOBODY: "would reach nobody",
    UNCHANGED: "published already as it stands",
}
"""What becomes of a draft, in words."""


@dataclass(slots=True)
class AtBureau:
    """What one bureau would get of the drafts: each counts once, as received, reviewed, possible or not.

    `rules`, `withheld`, `in_the_way`: by what decided, compartment and code, of how many; a draft counts for each of
    its own, and once for the rules that decided together.
    """

    receives: int = 0
    reviews: int = 0
    maybe: int = 0
    no: int = 0
    uncertain: int = 0
    """Of what it would receive or review: what this member may not know could still change it."""
    rules: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    in_the_way: Counter[str] = field(default_factory=Counter)

    def take(self, account: Account) -> None:
        """Count what becomes of one draft."""
        if account.receives:
            self.reviews += account.held
            self.receives += not account.held
            self.uncertain += bool(account.doubts)
            self.rules.update([_deciding(account)] if account.rules else [])
            self.withheld.update(list(account.withheld))  # a mapping would be added up by its values
            return
        self.maybe += bool(account.doubts)
        self.no += not account.doubts
        self.in_the_way.update({each.code for each in account.obstacles} | ({HELD} if account.held else set()))


@dataclass(slots=True)
class Sum:
    """What would become of many drafts; `fates`: which records end how."""

    bureaus: dict[str, AtBureau] = field(default_factory=dict)
    fates: dict[str, list[str]] = field(default_factory=lambda: {each: [] for each in _SAID})
    receiving: dict[str, dict[str, None]] = field(default_factory=dict)
    """Rules → why it is received: of many drafts one may be addressed and another held. `barring`: code → why not."""
    barring: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, dict[str, None]] = field(default_factory=dict)
    """What this member may not know → the bureaus of which it could change the answer."""

    def take(self, record: str, told: Sequence[Account]) -> None:
        """Count what becomes of one draft; nothing is told of one that is not sent again."""
        self.fates[_fate(told)].append(record)
        for each in told:
            self.bureaus.setdefault(each.bureau, AtBureau()).take(each)
            if each.receives and each.rules:
                self.receiving.setdefault(_deciding(each), {})[each.sentence] = None
            if each.held and not each.receives:
                self.barring[HELD] = HELD_SAID
            self.barring.update((one.code, one.sentence) for one in each.obstacles)
            for doubt in each.doubts:
                self.doubts.setdefault(doubt, {})[each.bureau] = None

    @property
    def drafts(self) -> int:
        """How many there were."""
        return sum(map(len, self.fates.values()))


def sum_up(tried: Iterable[tuple[str, Sequence[Account]]]) -> Sum:
    """Sum up what is told of each draft, by its record; nothing else is kept of it."""
    found = Sum()
    for record, told in tried:
        found.take(record, told)
    return found


def show(given: Everywhere, found: Sum, again: str, *, stale: bool) -> None:
    """Print the sum. `again`: the command that tries the drafts, by which one of them can be shown."""
    answer.show(headline(found), _value(found, stale=stale), as_json=given.as_json, table=_table(found))
    if given.as_json:
        return
    receiving = {rules: " / ".join(sentences) for rules, sentences in found.receiving.items()}
    for line in ("", *accounts.meanings(receiving, found.barring), "", *_doubts(found), *_named(found)):
        answer.say(line)
    answer.say(
        f"none of the {found.drafts:,} is shown by itself; one of them in full: {given.again(again)} --record RECORD"
    )


def _deciding(account: Account) -> str:
    """Name the rules that decided together, as the list of single drafts does."""
    return ", ".join(account.rules)


def _fate(told: Sequence[Account]) -> str:
    if not told:
        return UNCHANGED
    if any(each.held for each in told):
        return HELD_BACK
    if any(each.receives for each in told):
        return REACHED
    return MAYBE if any(each.doubts for each in told) else NOBODY


def headline(found: Sum) -> str:
    """Count the drafts by what would become of them: the answer in one line."""
    counted = ", ".join(f"{len(records):,} {_SAID[fate]}" for fate, records in found.fates.items() if records)
    return f"{found.drafts:,} drafts: {counted}"


def _table(found: Sum) -> answer.Table:
    return answer.Table(
        ("bureau", "receives", "reviews", "maybe", "no", "withheld", "in the way"),
        [
            (
                bureau,
                f"{each.receives:,}",
                f"{each.reviews:,}",
                f"{each.maybe:,}",
                f"{each.no:,}",
                _counted(each.withheld),
                _counted(each.in_the_way),
            )
            for bureau, each in found.bureaus.items()
        ],
    )


def _counted(counts: Counter[str]) -> str:
    """Give the most frequent first, those of one count by name: two runs say the same. A count stays at its name."""
    return ", ".join(f"{name}:{count:,}" for name, count in _ordered(counts).items())


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def _doubts(found: Sum) -> Iterator[str]:
    yield from (f"? {answer.count(len(bureaus), 'bureau')}: {doubt}" for doubt, bureaus in found.doubts.items())


def _named(found: Sum) -> Iterator[str]:
    """Name the first records of each fate that is not the usual one."""
    for fate, records in found.fates.items():
        if records and fate != REACHED:
            yield f"{_SAID[fate]}: {few([answer.one_line(each) for each in records], NAMED)}"


def _value(found: Sum, *, stale: bool) -> dict[str, Any]:
    """Give the sum as JSON has it. `more`: drafts that are not shown by themselves.

    `rules` and `codes` say why it is received and why not: a rule's name may be a code, too.
    """
    return {
        "drafts": found.drafts,
        "more": found.drafts,
        "stale": stale,
        "fates": found.fates,
        "bureaus": [
            {
                "bureau": bureau,
                "receives": each.receives,
                "reviews": each.reviews,
                "maybe": each.maybe,
                "no": each.no,
                "uncertain": each.uncertain,
                "rules": _ordered(each.rules),
                "withheld": _ordered(each.withheld),
                "in_the_way": _ordered(each.in_the_way),
            }
            for bureau, each in found.bureaus.items()
        ],
        "rules": {rules: list(sentences) for rules, sentences in found.receiving.items()},
        "codes": dict(sorted(found.barring.items())),
        "doubts": {doubt: list(bureaus) for doubt, bureaus in found.doubts.items()},
    }
