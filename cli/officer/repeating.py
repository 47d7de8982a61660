"""`valise audit show --redecide`: decides a notice again from its record, with Cedar itself: same or different."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cli.officer import in_force
from cli.officer.history import patterns_before, recorded

if TYPE_CHECKING:
    from broker.recorded import Recorded
    from broker.redecide import Repetition
    from cli.auditor.opened import Opened

HOW = {
    "by-policy": "by the rules",
    "by-review": "held by the rules for the reviewing bureaus",
    "by-holders": "no rule is asked: it goes to those who hold what it ends",
    "by-reviewed": "no rule is asked: it goes to the bureau whose notice was reviewed",
}
"""What each way of deciding is called in words."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """One leaf's decision and what came of repeating it."""

    recorded: Recorded
    repetition: Repetition


def repeat(kept: Opened, leaves: Iterable[int]) -> list[Repeated]:
    """Repeat what was decided in these leaves; those that decided no notice are passed over.

    Raises ConfigurationError where a version is missing, TrailError where a record is not the leaf's.
    """
    from broker.redecide import Grounds, redecide  # noqa: PLC0415 -- cedarpy is slow to import

    found = []
    for number in leaves:
        decision = recorded(kept.trail, kept.records, number)
        if decision is not None:
            basis = in_force.of_leaf(kept.versions, decision.leaf)
            patterns = patterns_before(kept.trail, kept.records, kept.index, number)
            annex = in_force.known_annex(basis)
            grounds = Grounds(basis.directory, annex, basis.policies, patterns)
            found.append(Repeated(decision, redecide(decision, grounds)))
    return found


def value(repeated: Sequence[Repeated]) -> list[dict[str, Any]]:
    """Give it as JSON has it."""
    return [
        {
            "leaf": each.recorded.leaf_number,
            "now": each.recorded.leaf.now,
            "directory": each.recorded.leaf.directory.hex(),
            "policies": each.recorded.leaf.policies.hex(),
            "how": each.repetition.how,
            "asked": each.repetition.asked,
            "same": each.repetition.same,
            "differences": [asdict(one) for one in each.repetition.differences],
        }
        for each in repeated
    ]


def lines(repeated: Sequence[Repeated]) -> Iterator[str]:
    """Tell it: the answer first."""
    if not repeated:
        yield "decided again: there is no decision to repeat, for no leaf of it decided a notice"
        return
    wrong = [each for each in repeated if not each.repetition.same]
    asked = sum(each.repetition.asked for each in repeated)
    yield f"decided again: {'DIFFERENT' if wrong else 'the same'} ({asked:,} requests answered by Cedar)"
    for each in repeated:
        said, leaf = each.repetition, each.recorded.leaf
        yield (
            f"  leaf {each.recorded.leaf_number:<8} {'same' if said.same else 'different'}, {HOW[said.how]}; "
            f"policies {leaf.policies.hex()[:16]}, directory {leaf.directory.hex()[:16]}"
        )
        for one in said.differences:
            yield f"      {one.bureau}: {one.what}: {one.recorded} on record, {one.repeated} when repeated"
