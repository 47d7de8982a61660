"""Turns a decision into rows, and rows into deliveries.

Pure: the seed of the rows is an argument. `Route` is what `distribute` needs of one leaf, made in the step or, after a
restart, from the `routed` stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker import by_hand, codec, streams
from broker.bus import Copies
from broker.members import INDEX_LIMIT
from broker.merkle import Rows, rows_depth
from broker.notice import (
    NOT_RELEASED,
    ORDERED,
    Compartment,
    DecisionRecord,
    Envelope,
    Header,
    Leaf,
    Outcome,
    Recipient,
    Routed,
    Shared,
)
from broker.quick import quick

MOST_DEPTH = rows_depth(INDEX_LIMIT - 1)
"""Of a tree of rows: it has a place for each index that a directory may give."""


@quick
@dataclass(frozen=True, slots=True)
class Lines:
    """The recipients of one notice and their delivery numbers, each encoded once for whoever writes them."""

    recipients: tuple[Recipient, ...]
    numbers: tuple[int, ...]
    rows: dict[int, bytes]
    """By bureau index."""
    records: list[bytes]
    """As lines of the decision record."""
    holders: list[bytes]
    """As holders in the register."""
    deliveries: list[tuple[bytes, bytes]]
    """As parts of the deliveries: before the row's salt, after its path."""

    @classmethod
    def of(cls, recipients: tuple[Recipient, ...], numbers: tuple[int, ...]) -> Lines:
        """Encode recipients under these delivery numbers."""
        return cls(recipients, numbers, *by_hand.encode_lines(recipients, numbers))

    @classmethod
    def numbered(cls, recipients: tuple[Recipient, ...]) -> Lines:
        """Encode recipients under the delivery numbers that they carry."""
        return cls.of(recipients, tuple(each.delivery_number for each in recipients))


NOBODY = Lines((), (), {}, [], [], [])


@quick
@dataclass(frozen=True, slots=True)
class Laid:
    """The rows' tree of one notice and its encoded rows, by bureau index."""

    tree: Rows
    rows: dict[int, bytes]
    root: bytes


def lay(lines: Lines, seed: bytes, depth: int) -> Laid:
    """Lay the rows of the recipients into a tree. Raises ValueError for an index beyond the depth."""
    tree = Rows(seed, depth)
    return Laid(tree, lines.rows, tree.build(lines.rows))


def rows_hold(leaf: Leaf, decision: DecisionRecord) -> bool:
    """Tell whether a leaf carries the rows of the recipients in its decision record, or none where that has none."""
    if leaf.rows is None:
        return not decision.rows
    return _fits(decision) and lay(Lines.numbered(decision.rows), decision.seed, decision.depth).root == leaf.rows


def _fits(decision: DecisionRecord) -> bool:
    """Tell whether each row has a place of its own in their tree.

    One of a false depth would exhaust whoever lays it; of two rows in one place the root commits to the last only.
    """
    places = {each.index for each in decision.rows}
    alone = len(places) == len(decision.rows)
    return alone and 0 <= decision.depth <= MOST_DEPTH and all(0 <= each < 1 << decision.depth for each in places)


@quick
@dataclass(frozen=True, slots=True)
class Route:
    """One leaf on its way out: whom its deliveries and its outcome go to.

    `envelope` is None where nothing is delivered; `outcome` is None where nobody is told.
    """

    leaf_number: int
    leaf: bytes
    decision_salt: bytes
    decision: bytes
    lines: Lines
    laid: Laid | None
    envelope: Envelope | None
    compartments: tuple[Compartment, ...]
    expires: int | None
    """When nothing of it is shown any more."""
    tell: tuple[str, ...]
    outcome: Outcome | None
    key: bytes = b""
    ends: tuple[str, bytes] | None = None
    """Issuer and id of the notice that ended with this leaf and is to be erased."""


def restored(routed: Routed) -> Route:
    """Make the route again from the `routed` stream."""
    decided = codec.decode(DecisionRecord, routed.decision)
    record = decided if routed.envelope else None
    header = codec.decode(Header, decided.header) if decided.header else None
    envelope = codec.decode(Envelope, routed.envelope) if routed.envelope else None
    lines = Lines.numbered(record.rows) if record else NOBODY
    return Route(
        leaf_number=routed.leaf_number,
        leaf=routed.leaf,
        decision_salt=routed.decision_salt,
        decision=routed.decision,
        lines=lines,
        laid=lay(lines, record.seed, record.depth) if record else None,
        envelope=envelope,
        compartments=codec.decode_compartments(envelope.compartments) if envelope else (),
        # From the header, which says more than what a broker of before kept.
        expires=header.shown_until if envelope and header else None,
        tell=routed.tell,
        outcome=_told(routed) if routed.outcome else None,
        key=delivery_key(routed.leaf_number) if envelope else b"",
        ends=ended_by(codec.decode(Leaf, routed.leaf).kind, header),
    )


def ended_by(kind: str, header: Header | None) -> tuple[str, bytes] | None:
    """Name the notice that ends for good with a leaf of this kind: withdrawn (by order, too) or refused in review."""
    if header is None:
        return None
    if kind in (NOT_RELEASED, ORDERED):
        return header.issuer, header.notice_id
    withdrawn = [each for each in header.references if each.relation == "withdraws"]
    return (withdrawn[0].issuer, withdrawn[0].notice_id) if withdrawn else None


def kept(route: Route) -> Routed:
    """Make what the `routed` stream keeps of a route; what its outcome repeats stands there once."""
    return Routed(
        leaf_number=route.leaf_number,
        leaf=route.leaf,
        decision_salt=route.decision_salt,
        decision=route.decision,
        envelope=codec.encode(route.envelope) if route.envelope else b"",
        expires=route.expires,
        tell=route.tell,
        outcome=by_hand.encode_outcome(route.outcome, (b"", b""), b"", "") if route.outcome else b"",
    )


def _told(routed: Routed) -> Outcome:
    outcome = codec.decode(Outcome, routed.outcome)
    if outcome.kind == "receipt":
        return replace(outcome, leaf=routed.leaf)
    return replace(outcome, leaf=routed.leaf, decision_salt=routed.decision_salt, decision=routed.decision)


def told(outcome: Outcome, proof: str) -> bytes:
    """Encode an outcome with its proof, as its member gets it."""
    return by_hand.encode_outcome(outcome, (outcome.decision_salt, outcome.decision), outcome.leaf, proof)


def delivery_key(leaf_number: int) -> bytes:
    """Give the key of a delivery in an inbox, of which compaction keeps the newest copy.

    A leaf, not a notice id: ids are their issuer's to choose, and another's delivery must not be pushed out by one.
    """
    return leaf_number.to_bytes(8, "big")


def deliveries(route: Route, proof: str, shard: int, *, expired: bool) -> list[Copies]:
    """Make the deliveries of one leaf: one `Copies` for each set of compartments shown.

    `expired`: its time ran out before it could leave; header, row and proof go out, no compartment is opened.
    """
    if route.envelope is None or route.laid is None:
        return []
    groups: dict[int, list[int]] = {}
    for place, each in enumerate(route.lines.recipients):
        groups.setdefault(0 if expired else each.shown, []).append(place)
    owns = _owns(route, route.laid, shard)
    return [
        Copies(route.key, _shared(route, route.envelope, shown, proof), [owns[place] for place in group])
        for shown, group in groups.items()
    ]


def _shared(route: Route, envelope: Envelope, shown: int, proof: str) -> bytes:
    body = by_hand.encode_envelope(envelope, by_hand.withhold(route.compartments, shown))
    return by_hand.encode_shared(Shared(body, route.leaf, proof))


def _owns(route: Route, laid: Laid, shard: int) -> list[tuple[str, bytes]]:
    """Join for each recipient what its delivery begins with; the path has the same length for all."""
    lines, head, of_path = route.lines, by_hand.own_head(route.leaf_number, shard), by_hand.long(32 * laid.tree.depth)
    salts, paths = laid.tree.salts, laid.tree.paths
    return [
        (streams.inbox(each.bureau), b"".join((head, before, salts[at : at + 32], of_path, paths[each.index], after)))
        for each, (before, after), at in zip(
            lines.recipients, lines.deliveries, [32 * each.index for each in lines.recipients], strict=True
        )
    ]
