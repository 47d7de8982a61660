"""Turns a decision into rows, and rows into deliveries.

Pure: the seed of the rows is an argument. `Route` is what `distribute` needs of one leaf, made in the step or, after a
restart, from the `routed` stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker import codec, streams
from broker.bus import Copies
from broker.merkle import Rows
from broker.notice import (
    Compartment,
    DecisionRecord,
    Envelope,
    Header,
    Outcome,
    Recipient,
    Routed,
    Shared,
)


@dataclass(frozen=True, slots=True)
class Laid:
    """The rows' tree of one notice and its encoded rows, by bureau index."""

    tree: Rows
    rows: dict[int, bytes]
    root: bytes


def lay(recipients: Sequence[Recipient], seed: bytes, depth: int) -> Laid:
    """Lay the rows of the recipients into a tree. Raises ValueError for an index beyond the depth."""
    tree = Rows(seed, depth)
    rows = {each.index: codec.encode_row(each.bureau, each.delivery_number, each.shown) for each in recipients}
    return Laid(tree, rows, tree.build(dict(rows)))


@dataclass(frozen=True, slots=True)
class Route:
    """One leaf on its way out: whom its deliveries and its outcome go to.

    `envelope` is None where nothing is delivered; `outcome` is None where nobody is told.
    """

    leaf_number: int
    leaf: bytes
    decision_salt: bytes
    decision: bytes
    recipients: tuple[Recipient, ...]
    laid: Laid | None
    envelope: Envelope | None
    compartments: tuple[Compartment, ...]
    expires: int | None
    tell: tuple[str, ...]
    outcome: Outcome | None
    key: bytes = b""


def restored(routed: Routed) -> Route:
    """Make the route again from the `routed` stream."""
    record = codec.decode(DecisionRecord, routed.decision) if routed.envelope else None
    envelope = codec.decode(Envelope, routed.envelope) if routed.envelope else None
    return Route(
        leaf_number=routed.leaf_number,
        leaf=routed.leaf,
        decision_salt=routed.decision_salt,
        decision=routed.decision,
        recipients=record.rows if record else (),
        laid=lay(record.rows, record.seed, record.depth) if record else None,
        envelope=envelope,
        compartments=codec.decode_compartments(envelope.compartments) if envelope else (),
        expires=routed.expires,
        tell=routed.tell,
        outcome=codec.decode(Outcome, routed.outcome) if routed.outcome else None,
        key=delivery_key(envelope) if envelope else b"",
    )


def delivery_key(envelope: Envelope) -> bytes:
    """Give the key of a delivery in an inbox: the notice id, which compaction keeps the newest copy of."""
    return codec.decode(Header, envelope.header).notice_id


def deliveries(route: Route, proof: str, shard: int, *, expired: bool) -> list[Copies]:
    """Make the deliveries of one leaf: one `Copies` for each set of compartments shown.

    `expired`: its time ran out before it could leave; header, row and proof go out, no compartment is opened.
    """
    if route.envelope is None or route.laid is None:
        return []
    groups: dict[int, list[Recipient]] = {}
    for each in route.recipients:
        groups.setdefault(0 if expired else each.shown, []).append(each)
    return [_copies(route, route.envelope, route.laid, shown, group, (proof, shard)) for shown, group in groups.items()]


def _copies(
    route: Route, envelope: Envelope, laid: Laid, shown: int, group: list[Recipient], where: tuple[str, int]
) -> Copies:
    proof, shard = where
    body = codec.encode_envelope(envelope, codec.withhold(route.compartments, shown))
    shared = codec.encode_shared(Shared(body, route.leaf, proof))
    head = codec.own_head(route.leaf_number, shard)
    return Copies(route.key, shared, [(streams.inbox(each.bureau), head + _own(laid, each)) for each in group])


def _own(laid: Laid, recipient: Recipient) -> bytes:
    index = recipient.index
    place = (index, laid.rows[index], laid.tree.salt(index), laid.tree.path(index))
    return codec.own_rest(recipient.bureau, recipient.delivery_number, place, recipient.replaces, recipient.erases)
