"""A notice as the trail remembers it: its leaf, its decision record, and the header and routing in that record."""

from __future__ import annotations

from dataclasses import dataclass

from broker import codec
from broker.directory import Annex, Directory
from broker.errors import InvalidFieldError, NoticeRejectedError, TrailError
from broker.facts import Facts, facts_of
from broker.members import INDEX_LIMIT
from broker.notice import RELEASED, ROUTING, DecisionRecord, Header, Leaf, Routing, Statement, Terms
from broker.quick import quick
from broker.signing import compartment_digest, decision_digest, header_digest

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


@quick
@dataclass(frozen=True, slots=True)
class Brought:
    """What brought a leaf: the first fields of its decision record, all but what was decided."""

    stream: str
    partition: int
    offset: int
    at: int
    record_digest: bytes
    header: bytes
    routing: bytes
    statement: bytes


def brought(record: bytes) -> Brought | DecisionRecord:
    """Read what brought a leaf, in a tenth of the time that its decision with all rows takes; raises as `decode`."""
    return codec.begin(Brought, DecisionRecord, record) or codec.decode(DecisionRecord, record)


def header_in(decision: DecisionRecord) -> Header | None:
    """Read the header of the notice that a decision record is about; None where there is none."""
    return codec.decode(Header, decision.header) if decision.header else None


def key_in(decision: DecisionRecord) -> bytes | None:
    """Give the key under which what it records was signed, of a rejection the one that was named; None: not known."""
    if decision.key_id is not None or not decision.statement:
        return decision.key_id
    try:
        return codec.decode(Statement, decision.statement).key_id
    except NoticeRejectedError:
        return None


def binds(leaf: Leaf, decision: DecisionRecord, header: Header | None) -> bool:
    """Say whether header and routing in a decision record are the issuer's, to which the leaf commits by the header.

    Whoever was given a delivery was given it on these: a leaf with rows has both. `header` is `header_in(decision)`.
    """
    if header is None:
        return leaf.rows is None
    if header_digest(decision.header) != leaf.header_digest:
        return False
    if leaf.rows is None:
        return True
    slot, routing = header.compartments[0], decision.routing
    return slot.name == ROUTING and slot.digest == compartment_digest(ROUTING, routing[:SALT], routing[SALT:])


def remember(leaf_number: int, leaf: bytes, salt: bytes, record: bytes) -> Recorded | None:
    """Read what a leaf and its decision record hold; None where no notice was decided (rejected, a receipt, a start).

    Raises TrailError if the record is not the one that the leaf commits to, or not of the notice of that leaf,
    NoticeRejectedError if it cannot be read.
    """
    known = codec.decode(Leaf, leaf)
    if decision_digest(salt, record) != known.decision:
        message = f"the decision record of leaf {leaf_number} is not the one that the leaf commits to"
        raise TrailError(message)
    decision = codec.decode(DecisionRecord, record)
    if not all(0 <= each.index < INDEX_LIMIT for each in decision.rows):  # a mask of them would fit no memory
        message = f"leaf {leaf_number} has a row of an index that no bureau can have"
        raise InvalidFieldError(message)
    header = header_in(decision)
    if not binds(known, decision, header):
        message = f"the decision record of leaf {leaf_number} is not about the notice of that leaf"
        raise TrailError(message)
    if header is None or known.rows is None:
        return None
    return Recorded(leaf_number, known, decision, header, codec.decode(Routing, decision.routing[SALT:]))
