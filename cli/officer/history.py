"""Finds decisions in the operator's home: trail, decision records and the notices in force."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from broker import codec
from broker.notice import RELEASED, DecisionRecord, Leaf, Standing, Statement, Subscription
from broker.recorded import Recorded, remember
from broker.register import Register

if TYPE_CHECKING:
    from broker.index import Index
    from broker.records import Records
    from broker.trail import Trail

IN_FORCE = frozenset({"routed", "restricted", "held"})
"""States of notices that have not ended."""
LONGEST_NUMBER = 19
"""Digits of what is no leaf number any more."""
ALL = 1 << 62
"""No limit."""


def decided(trail: Trail, records: Records, index: Index, name: str) -> Recorded | None:
    """Find the last decision on a notice, by its id or the number of one of its leaves; None if there is none."""
    found = [each for number in _leaves(trail, index, name) if (each := recorded(trail, records, number))]
    return found[-1] if found else None


def undecided(trail: Trail, index: Index, name: str) -> str:
    """Say what became of a notice on which no rule was asked; empty if there is no such notice."""
    leaves = [(number, codec.decode(Leaf, trail.entry(number))) for number in _leaves(trail, index, name)]
    return ", ".join(f"{leaf.kind} {leaf.code or ''}".strip() + f" in leaf {number}" for number, leaf in leaves)


def _leaves(trail: Trail, index: Index, name: str) -> list[int]:
    if name.isdecimal() and len(name) < LONGEST_NUMBER:
        return [int(name)] if int(name) < trail.size else []
    try:
        return index.leaves_of(uuid.UUID(name).bytes)
    except ValueError:
        return []


def recorded(trail: Trail, records: Records, number: int) -> Recorded | None:
    """Read one decision; None where the leaf is no decision on a notice. Raises TrailError."""
    kept = records.get(number)
    return remember(number, trail.entry(number), *kept) if kept else None


def decisions(trail: Trail, records: Records, begin: int, say: Callable[[int, int], None]) -> Iterator[Recorded]:
    """Stream every decision on a notice from leaf `begin` on, in order; says how far it is."""
    for number, salt, record in records.since(begin):
        if number >= trail.size:
            return
        found = remember(number, trail.entry(number), salt, record)
        if found is not None:
            yield found
        if number % 1000 == 0:
            say(number, trail.size)
    say(trail.size, trail.size)


def patterns_before(trail: Trail, records: Records, index: Index, before: int) -> dict[str, tuple[str, ...]]:
    """Give who had subscribed to what before a leaf: bureau → patterns, a later subscription in place of an earlier."""
    found = {}
    for number in reversed(index.search([["outcome:subscribed"]], 0, min(before, trail.size), ALL).leaves):
        held = records.get(number)
        if held is not None:
            statement = codec.decode(Statement, codec.decode(DecisionRecord, held[1]).statement)
            said = codec.decode(Subscription, statement.payload)
            found[said.bureau] = said.patterns
    return found


def releases(trail: Trail, index: Index) -> dict[int, int]:
    """Give for every leaf in which a notice was held and then released the leaf of its release."""
    leaves = index.search([[f"outcome:{RELEASED}"]], 0, trail.size, ALL).leaves
    told = ((codec.decode(Leaf, trail.entry(number)).about, number) for number in leaves)
    return {about: number for about, number in told if about is not None}


def standing_notices(register: Path) -> Iterator[tuple[tuple[str, bytes], Standing]]:
    """Stream the notices that have not ended, by issuer and notice id; the broker may run meanwhile.

    Each has its body: whoever keeps all of them keeps what he needs. Raises UnavailableError where the register is
    emptied, or lacking: a shard that never ran has none.
    """
    with closing(Register.to_read(register)) as kept:
        for key, value in kept.under("notice/"):
            standing = codec.decode(Standing, value)
            if standing.state in IN_FORCE:
                issuer, _, notice_id = key.removeprefix("notice/").rpartition("/")
                yield (issuer, bytes.fromhex(notice_id)), standing
