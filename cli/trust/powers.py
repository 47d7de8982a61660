"""Says in words who may sign what once a draft is in force, key by key: a name alone does not say whose key it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from broker.trust import draft, roles, voices
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from broker.trust.roles import ROOT, SNAPSHOT, TIMESTAMP
from broker.trust.voices import Voices
from cli import answer


def called(member: str, keyid: str) -> str:
    """Name a key and whose it is said to be."""
    return f"{member} (key {keyid[:16]})"


def changes(made: Draft, base: Opened | None) -> Iterator[str]:
    """Tell who may sign what once a draft is in force, as far as it is new."""
    root, targets = draft.governors(made, base)
    before, after = voices.standing(base), voices.voices(root, targets)
    if made.roots and root is not None:
        holders = ", ".join(called(*each) for each in sorted(after) if ROOT in after[each])
        yield f"root {root.version}: held by {holders}; {root.roles[ROOT].threshold} of them must sign a change"
    if base is not None and targets is not None and roles.tells_lost(targets) > roles.tells_lost(base.targets):
        yield "no member's key is followed by another from now on without its own signature, unless it is called LOST"
    yield from _lost(voices.lost(targets) - voices.lost(base.targets if base else None))
    yield from _entering(after, base.entered if base else frozenset())
    yield from _thresholds(voices.thresholds(root, targets), voices.thresholds(base.root, base.targets) if base else {})
    for each in sorted(before.keys() | after.keys()):
        now, then = after.get(each, set()), before.get(each, set())
        if gained := sorted(now - then):
            yield f"{called(*each)} may sign from now on: {', '.join(gained)}"
        if lost := sorted(then - now):
            yield f"{called(*each)} may not sign any more: {', '.join(lost)}"


def _lost(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    for member, keyid in sorted(found):
        yield (
            f"{called(member, keyid)} is called LOST: another takes over without its signature; ask {member} by "
            "another way whether that is so"
        )


def _entering(after: Voices, entered: frozenset[str]) -> Iterator[str]:
    for member, keyid in sorted(after):
        if member in after[member, keyid] and member not in entered:
            yield f"{called(member, keyid)} enters: it alone speaks for its bureaus and keys from now on"


def _thresholds(after: Mapping[str, int], before: Mapping[str, int]) -> Iterator[str]:
    for role, many in sorted(after.items()):
        if role in before and before[role] != many:
            yield f"{role}: {answer.count(many, 'member')} must sign a change, {before[role]} had to before"
        elif role not in before and not roles.is_member(role) and role not in (ROOT, SNAPSHOT, TIMESTAMP):
            yield f"{role}: {answer.count(many, 'member')} must sign a change"
