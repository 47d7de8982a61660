"""A notice as the trail remembers it: its leaf, its decision record, and the header and routing in that record."""

from __future__ import annotations

from dataclasses import dataclass

from broker import codec
from broker.directory import Annex, Directory
from broker.errors import TrailError
from broker.facts import Facts, facts_of
from broker.notice import RELEASED, DecisionRecord, Header, Leaf, Routing, Terms
from broker.signing import decision_digest

SALT = 32
"""Bytes of salt before the routing compartment's own bytes."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was decided on one notice, at which `now` and by which versions (in `leaf`)."""

    leaf_number: int
    leaf: Leaf
    record: DecisionRecord
    header: Header
    routing: Routing

    @property
    def terms(self) -> Terms:
        """The four terms of the decision."""
        return self.record.terms

    @property
    def hits(self) -> dict[str, int]:
        """Rule → the bureaus for which it was met."""
        return {each.rule: each.bureaus for each in self.record.rules}

    @property
    def shown(self) -> dict[int, int]:
        """Index of each recipient → mask of the compartments that it was shown."""
        return {each.index: each.shown for each in self.record.rows}

    def facts(self, directory: Directory, annex: Annex) -> Facts:
        """Compute what the rules were told of it then."""
        released, holders = self.leaf.kind == RELEASED, self.record.holders
        return facts_of(self.header, self.routing, directory, annex, self.leaf.now, released=released, holders=holders)


def remember(leaf_number: int, leaf: bytes, salt: bytes, record: bytes) -> Recorded | None:
    """Read what a leaf and its decision record hold; None where no notice was decided (rejected, a receipt, a start).

    Raises TrailError if the record is not the one that the leaf commits to.
    """
    known = codec.decode(Leaf, leaf)
    if decision_digest(salt, record) != known.decision:
        message = f"the decision record of leaf {leaf_number} is not the one that the leaf commits to"
        raise TrailError(message)
    decision = codec.decode(DecisionRecord, record)
    if not decision.header or not decision.routing or known.rows is None:
        return None
    header = codec.decode(Header, decision.header)
    return Recorded(leaf_number, known, decision, header, codec.decode(Routing, decision.routing[SALT:]))
