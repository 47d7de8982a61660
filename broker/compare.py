"""Replays decisions under two policy sets: who would gain, who would lose, by which rule, on notices in force or not.

Everything but the set stays as it is: the same notices at the `now` of their leaves, today's directory and annex, and
the reach (addressed, subscribed, flash) that stands on record. Withdrawals, restrictions and approvals ask no rule and
change nothing. What was released is decided as released; what was only held has no reach on record, so today's
subscriptions count. A notice that nobody was shown a compartment of counts as without it, unless it is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.decide import audience_of, held_terms, sight_of
from broker.notice import APPROVAL, KINDS, ROUTING, TO_HOLDERS
from broker.rules import RECEIVE, REVIEW, SEE, Read, Rules

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.facts import Facts
    from broker.recorded import Recorded
    from broker.rules import Verdict

GAINS, LOSES = "gains", "loses"
HELD = "held"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sets, compiled for the same directory and annex."""

    rules: Rules
    read: Sequence[Read]


@dataclass(frozen=True, slots=True)
class Past:
    """A decision to replay. `present`: mask of compartments that carry something, as far as it is known.

    `subscribed`: who has subscribed to its topics; asked only of what was held.
    """

    recorded: Recorded
    in_force: bool
    present: int
    subscribed: int = 0


@dataclass(slots=True)
class Line:
    """How much one member gains or loses by one rule: all of it (`receive`), a compartment, or its `review`."""

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
    if recorded.header.kind in TO_HOLDERS or recorded.header.kind == APPROVAL:
        return []
    known = recorded.facts(directory, old.rules.annex)
    before, after = old.rules.judge(known), new.rules.judge(known)
    own = directory.bureau_mask((recorded.header.issuer,))
    open_to = audience_of(recorded, known, directory) & ~own & ~known.denied & _reached(past, known, directory)
    sides = (old, before), (new, after)
    changes = list(_gaining_and_losing(RECEIVE, RECEIVE, [each.receive & open_to for each in (before, after)], *sides))
    reviewers = [_reviewers(recorded, known, directory, each) for each in (before, after)]
    changes += _gaining_and_losing(REVIEW, REVIEW, reviewers, *sides)
    both = before.receive & after.receive & open_to
    sights = [sight_of(recorded, known, each.see, directory) for each in (before, after)]
    for place, name in enumerate((ROUTING, *KINDS.get(recorded.header.kind, ()))):
        if place and past.present >> place & 1:
            seen = [both & each.get(name, 0) for each in sights]
            changes += _gaining_and_losing(name, SEE[name], seen, *sides)
    return changes


def _reached(past: Past, known: Facts, directory: Directory) -> int:
    """Give who is addressed, has subscribed, gets a flash or holds what is corrected: on record, but for what was held.

    Holders count in any case: decisions of before did not reach all of them.
    """
    if past.recorded.leaf.kind != HELD:
        return past.recorded.terms.reached | known.holders
    flash = directory.everyone if known.urgency == "flash" else 0
    return known.addressed | past.subscribed | flash | known.holders


def _reviewers(recorded: Recorded, known: Facts, directory: Directory, verdict: Verdict) -> int:
    """Give the bureaus that get it for review; none where the rules do not hold it."""
    if verdict.receive or not verdict.review:
        return 0
    return held_terms(recorded, known, directory, verdict).receivers


def _gaining_and_losing(
    what: str, action: str, masks: Sequence[int], old: tuple[Side, Verdict], new: tuple[Side, Verdict]
) -> Iterator[Change]:
    before, after = masks
    yield from _because(LOSES, what, action, before & ~after, new, old)
    yield from _because(GAINS, what, action, after & ~before, old, new)


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
