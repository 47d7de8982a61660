"""Replays decisions under two policy sets: who would gain, who would lose, by which rule, on notices in force or not.

Everything but the set stays as it is: the same notices at the `now` of their leaves, today's directory and annex, and
the reach (addressed, subscribed, flash) that stands on record. Withdrawals and restrictions ask no rule and change
nothing. A notice that nobody was shown a compartment of counts as without it, unless it is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.decide import TO_HOLDERS, audience_of
from broker.facts import facts_of
from broker.notice import KINDS, ROUTING
from broker.rules import RECEIVE, SEE, Read, Rules

if TYPE_CHECKING:
    from broker.members import Directory
    from broker.recorded import Recorded
    from broker.rules import Verdict

GAINS, LOSES = "gains", "loses"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sets, compiled for the same directory and annex."""

    rules: Rules
    read: Sequence[Read]


@dataclass(frozen=True, slots=True)
class Past:
    """A decision to replay. `present`: mask of compartments that carry something, as far as it is known."""

    recorded: Recorded
    in_force: bool
    present: int


@dataclass(slots=True)
class Line:
    """How much one member gains or loses by one rule: the whole notice (`receive`) or one compartment of it."""

    notices: int = 0
    in_force: int = 0
    bureaus: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Comparison:
    """What the other set would have changed. Key of a line: (gains or loses, member, rule, what)."""

    decisions: int = 0
    in_force: int = 0
    changed: int = 0
    changed_in_force: int = 0
    lines: dict[tuple[str, str, str, str], Line] = field(default_factory=dict)


def compare(history: Iterable[Past], old: Side, new: Side, directory: Directory) -> Comparison:
    """Replay a history, in one go over it."""
    comparison = Comparison()
    for past in history:
        comparison.decisions += 1
        comparison.in_force += past.in_force
        changes = _changes(past, old, new, directory)
        if _note(comparison, past, changes, directory):
            comparison.changed += 1
            comparison.changed_in_force += past.in_force
    return comparison


Change = tuple[str, str, str, int]
"""Gains or loses, rule, what, and the bureaus concerned."""


def _changes(past: Past, old: Side, new: Side, directory: Directory) -> list[Change]:
    recorded = past.recorded
    if recorded.header.kind in TO_HOLDERS:
        return []
    known = facts_of(recorded.header, recorded.routing, directory, old.rules.annex, recorded.leaf.now)
    before, after = old.rules.judge(known), new.rules.judge(known)
    own = directory.bureau_mask((recorded.header.issuer,))
    open_to = audience_of(recorded, known, directory) & ~own & ~known.denied & recorded.terms.reached
    changes = list(_receiving(before, after, open_to, old, new))
    both = before.receive & after.receive & open_to
    for place, name in enumerate((ROUTING, *KINDS.get(recorded.header.kind, ()))):
        if place and past.present >> place & 1:
            changes += _seeing(before, after, both, name, (old, new))
    return changes


def _receiving(before: Verdict, after: Verdict, open_to: int, old: Side, new: Side) -> Iterator[Change]:
    lost, gained = (each & open_to for each in (before.receive & ~after.receive, after.receive & ~before.receive))
    yield from _because(LOSES, RECEIVE, RECEIVE, lost, (new, after), (old, before))
    yield from _because(GAINS, RECEIVE, RECEIVE, gained, (old, before), (new, after))


def _seeing(before: Verdict, after: Verdict, both: int, name: str, sides: tuple[Side, Side]) -> Iterator[Change]:
    old, new = sides
    seen, sees, action = before.see.get(name, 0), after.see.get(name, 0), SEE[name]
    yield from _because(LOSES, name, action, both & seen & ~sees, (new, after), (old, before))
    yield from _because(GAINS, name, action, both & sees & ~seen, (old, before), (new, after))


def _because(
    which: str, what: str, action: str, mask: int, forbidding: tuple[Side, Verdict], permitting: tuple[Side, Verdict]
) -> Iterator[Change]:
    """Share bureaus out by the first rule that forbids them on one side, else by the permit of the other side."""
    for effect, (side, verdict) in (("forbid", forbidding), ("permit", permitting)):
        hits = _hits(verdict)
        for each in side.read:
            found = mask & hits.get(each.rule.id, 0)
            if found and each.rule.effect == effect and action in each.actions:
                yield which, each.rule.id, what, found
                mask &= ~found


def _hits(verdict: Verdict) -> Mapping[str, int]:
    return {each.rule: each.bureaus for each in verdict.hits}


def _note(comparison: Comparison, past: Past, changes: Sequence[Change], directory: Directory) -> bool:
    """Add one notice's changes to the lines; a member counts once for a notice, however many of its bureaus."""
    touched: set[tuple[str, str, str, str]] = set()
    for which, rule, what, mask in changes:
        for name in directory.bureaus_in(mask):
            key = (which, name.partition("/")[0], rule, what)
            line = comparison.lines.setdefault(key, Line())
            line.bureaus.add(name)
            if key not in touched:
                touched.add(key)
                line.notices += 1
                line.in_force += past.in_force
    return bool(touched)
