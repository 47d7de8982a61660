"""Encodes by hand what every notice pays for, much of it once per bureau; tests hold it equal to fastavro's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from broker import notice
from broker.avro import prefix


@lru_cache(maxsize=1 << 12)
def long(number: int) -> bytes:
    """Encode an Avro int or long: zig-zag, seven bits a byte. The same few numbers come again and again."""
    rest = number << 1 ^ number >> 63
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def blob(data: bytes) -> bytes:
    """Encode Avro bytes, or a string already in UTF-8."""
    return long(len(data)) + data


def mask_bytes(mask: int) -> bytes:
    """Encode a bureau mask: big-endian, as short as it can be."""
    return mask.to_bytes((mask.bit_length() + 7) // 8, "big")


def longs(numbers: tuple[int, ...]) -> bytes:
    """Encode an Avro array of long."""
    if not numbers:
        return b"\0"
    return long(len(numbers)) + b"".join(map(long, numbers)) + b"\0"


def encode_row(bureau: str, delivery_number: int, shown: int) -> bytes:
    """Encode a Row."""
    return prefix("row") + name(bureau) + long(delivery_number) + long(shown)


def encode_lines(
    recipients: Sequence[notice.Recipient], numbers: Sequence[int]
) -> tuple[dict[int, bytes], list[bytes], list[bytes], list[tuple[bytes, bytes]]]:
    """Encode the recipients of one notice, under these delivery numbers, in one pass for all who need them.

    Gives the rows by bureau index, the lines of the decision record, the holders of the register's entry, and what
    stands in each delivery before the row's salt and after its path.
    """
    head = prefix("row")
    rows: dict[int, bytes] = {}
    lines, holders, deliveries = [], [], []
    for each, number in zip(recipients, numbers, strict=True):
        index, counted = long(each.index), long(number)
        named = name(each.bureau) + counted
        row = named + long(each.shown)
        rows[each.index] = whole = head + row
        orders = longs(each.replaces) + longs(each.erases) if each.replaces or each.erases else _NO_ORDERS
        lines.append(index + row + orders)
        holders.append(index + b"\x02" + counted + b"\0")
        deliveries.append((named + long(len(whole)) + whole, index + orders))
    return rows, lines, holders, deliveries


_NO_ORDERS = b"\0\0"
"""Two empty arrays: replaces nothing, erases nothing."""


def encode_own(delivery: notice.Delivery) -> bytes:
    """Encode a Delivery up to, and without, its `shared`."""
    return b"".join((
        own_head(delivery.leaf_number, delivery.shard),
        name(delivery.bureau),
        long(delivery.delivery_number),
        blob(delivery.row),
        delivery.salt,
        blob(delivery.path),
        long(delivery.index),
        longs(delivery.replaces),
        longs(delivery.erases),
    ))  # fmt: skip


def own_head(leaf_number: int, shard: int) -> bytes:
    """Encode what the deliveries of one leaf begin with."""
    return prefix("delivery") + long(leaf_number) + long(shard)


def encode_shared(shared: notice.Shared) -> bytes:
    """Encode a Shared with its length before it, as it follows the own part of a Delivery."""
    return blob(prefix("shared") + blob(shared.envelope) + blob(shared.leaf) + blob(shared.proof.encode()))


def withhold(compartments: tuple[notice.Compartment, ...], shown: int) -> bytes:
    """Encode compartments with only those of the mask `shown` opened."""
    parts = [prefix("compartments"), long(len(compartments))]
    for position, each in enumerate(compartments):
        parts.append(blob(each.name.encode()))
        if each.opened is not None and shown >> position & 1:
            parts += (b"\x02", each.opened.salt, blob(each.opened.data))
        else:
            parts.append(b"\0")
    parts.append(b"\0")
    return b"".join(parts)


def encode_envelope(envelope: notice.Envelope, compartments: bytes) -> bytes:
    """Encode an Envelope with other compartments than it came with; header and signature stay as they are."""
    return b"".join((
        prefix("envelope"), blob(envelope.header), envelope.key_id, blob(envelope.signature), blob(compartments),
    ))  # fmt: skip


def _text(value: str) -> bytes:
    raw = value.encode()
    return long(len(raw)) + raw


@lru_cache(maxsize=1 << 12)
def name(value: str) -> bytes:
    """Encode a string that comes again and again, such as a bureau's name."""
    return _text(value)


def _items(parts: list[bytes]) -> bytes:
    """Encode an Avro array of items that are encoded already."""
    return long(len(parts)) + b"".join(parts) + b"\0" if parts else b"\0"


def _optional(part: bytes | None) -> bytes:
    """Encode a union of null and something that is encoded already."""
    return b"\0" if part is None else b"\x02" + part


def leaf_prefix(kind: str) -> bytes:
    """Give what a leaf of this kind begins with: nothing else of it need be read to know it."""
    return prefix("leaf") + bytes([2 * len(kind)]) + kind.encode()


def _leaf(leaf: notice.Leaf) -> bytes:
    return b"".join((
        prefix("leaf"),
        _text(leaf.kind),
        long(leaf.now),
        _optional(None if leaf.code is None else _text(leaf.code)),
        _optional(leaf.header_digest),
        _optional(None if leaf.about is None else long(leaf.about)),
        long(leaf.missing),
        leaf.directory,
        leaf.policies,
        leaf.decision,
        _optional(leaf.rows),
    ))  # fmt: skip


def _recipient(row: notice.Recipient) -> bytes:
    return (
        long(row.index) + name(row.bureau) + long(row.delivery_number) + long(row.shown)
        + longs(row.replaces) + longs(row.erases)
    )  # fmt: skip


def _decision(record: notice.DecisionRecord) -> bytes:
    return encode_decision(record, [_recipient(each) for each in record.rows])


def encode_decision(record: notice.DecisionRecord, lines: list[bytes]) -> bytes:
    """Encode a DecisionRecord whose rows are encoded already, in place of its own."""
    terms = record.terms
    return b"".join((
        prefix("decision"),
        _text(record.stream),
        long(record.partition),
        long(record.offset),
        long(record.at),
        record.record_digest,
        blob(record.header),
        blob(record.routing),
        blob(record.statement),
        blob(record.seed),
        long(record.depth),
        _items(lines),
        _items([_hit(each.rule, each.bureaus) for each in record.rules]),
        *(blob(mask_bytes(mask)) for mask in (terms.allowed, terms.audience, terms.denied, terms.reached)),
        _items([_text(each) for each in record.warnings]),
        _text(record.detail),
        _optional(None if record.holders is None else blob(mask_bytes(record.holders))),
        _optional(record.key_id),
        _optional(None if record.signature is None else blob(record.signature)),
    ))  # fmt: skip


@lru_cache(maxsize=1 << 12)
def _hit(rule: str, bureaus: int) -> bytes:
    return _text(rule) + blob(mask_bytes(bureaus))


def _routed(routed: notice.Routed) -> bytes:
    return b"".join((
        prefix("routed"),
        long(routed.leaf_number),
        blob(routed.leaf),
        blob(routed.decision_salt),
        blob(routed.decision),
        blob(routed.envelope),
        _optional(None if routed.expires is None else long(routed.expires)),
        _items([_text(each) for each in routed.tell]),
        blob(routed.outcome),
    ))  # fmt: skip


def _entry(entry: notice.Entry) -> bytes:
    return (
        prefix("entry") + long(entry.leaf_number) + blob(entry.leaf) + blob(entry.decision_salt) + blob(entry.decision)
    )


def _standing(standing: notice.Standing) -> bytes:
    return encode_standing(standing, standing.leaf_number, [])


def encode_standing(standing: notice.Standing, leaf_number: int, holders: list[bytes]) -> bytes:
    """Encode a Standing under this leaf number; `holders` are encoded already and stand before its own."""
    own = [long(each.index) + longs(each.numbers) for each in standing.holders]
    return b"".join((
        prefix("standing"),
        standing.header_digest,
        _text(standing.state),
        long(leaf_number),
        blob(standing.series),
        long(standing.number),
        _text(standing.record),
        long(standing.version),
        _items(holders + own),
        blob(standing.envelope),
        blob(standing.replaced_by),
    ))  # fmt: skip


def _outcome(outcome: notice.Outcome) -> bytes:
    return encode_outcome(outcome, (outcome.decision_salt, outcome.decision), outcome.leaf, outcome.proof)


def encode_outcome(outcome: notice.Outcome, decision: tuple[bytes, bytes], leaf: bytes, proof: str) -> bytes:
    """Encode an Outcome with another decision (salt, record), leaf and proof than its own."""
    return b"".join((
        prefix("outcome"),
        _text(outcome.kind),
        _optional(None if outcome.code is None else _text(outcome.code)),
        _text(outcome.detail),
        _optional(outcome.notice_id),
        _optional(None if outcome.issuer is None else _text(outcome.issuer)),
        outcome.record_digest,
        _optional(None if outcome.original is None else long(outcome.original)),
        longs(outcome.missing),
        _items([_text(each) for each in outcome.warnings]),
        blob(outcome.statement),
        *map(blob, decision),
        long(outcome.leaf_number),
        blob(leaf),
        _text(proof),
    ))  # fmt: skip


def _envelope(envelope: notice.Envelope) -> bytes:
    return encode_envelope(envelope, envelope.compartments)


BY_HAND: dict[type, Callable[[Any], bytes]] = {
    notice.Leaf: _leaf,
    notice.DecisionRecord: _decision,
    notice.Routed: _routed,
    notice.Entry: _entry,
    notice.Standing: _standing,
    notice.Outcome: _outcome,
    notice.Envelope: _envelope,
}
