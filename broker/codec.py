"""Avro bytes ⇄ values (the one door to fastavro).

Everything is Avro single-object encoding (Avro 1.12 specification, "Single-object encoding"): `C3 01`, the CRC-64-AVRO
fingerprint of the writer's schema, the record. A record written by an older version of its schema is resolved to the
newest. Nothing may be left over after decoding.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, lru_cache
from io import BytesIO
from operator import attrgetter
from types import UnionType
from typing import Any, TypeVar

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint as schema_fingerprint
from fastavro.schema import to_parsing_canonical_form

from broker import notice, usual
from broker.errors import LeftoverBytesError, UnknownSchemaError, UnreadableError
from broker.quick import quick
from schemas import loader

MARKER = b"\xc3\x01"
PREFIX = 10
"""Bytes of marker and fingerprint."""
T = TypeVar("T")


@cache
def _schema(name: str, version: str) -> tuple[bytes, Any]:
    """Marker with fingerprint, and the parsed schema."""
    parsed = parse_schema(loader.load(name, version), named_schemas={})
    digest = schema_fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
    return MARKER + bytes.fromhex(digest), parsed


@cache
def _newest(name: str) -> tuple[bytes, Any]:
    return _schema(name, loader.latest(name))


@cache
def _by_prefix() -> dict[bytes, tuple[str, str]]:
    return {_schema(name, version)[0]: (name, version) for name, version in loader.names()}


def prefix(name: str) -> bytes:
    """Give the ten bytes that a record of the newest version of this schema begins with."""
    return _newest(name)[0]


def leaf_prefix(kind: str) -> bytes:
    """Give what a leaf of this kind begins with: nothing else of it need be read to know it."""
    return prefix("leaf") + bytes([2 * len(kind)]) + kind.encode()


def fingerprint(name: str, version: str = "") -> bytes:
    """Give the CRC-64-AVRO fingerprint of a version, the newest if none is named, in single-object byte order."""
    return _schema(name, version or loader.latest(name))[0][2:]


def name_of(data: bytes) -> str:
    """Name the schema that `data` begins with. Raises UnknownSchemaError."""
    found = _by_prefix().get(bytes(data[:PREFIX]))
    if found is None:
        raise UnknownSchemaError
    return found[0]


def schema_of(name: str, data: bytes) -> Any:
    """Give the parsed schema with which a record of `name` was written. Raises UnknownSchemaError."""
    return _writer(name, data[:PREFIX])


def write(name: str, value: Mapping[str, Any]) -> bytes:
    """Encode a record of the newest version of a schema. Raises UnreadableError if the value does not fit it."""
    head, schema = _newest(name)
    out = BytesIO()
    out.write(head)
    try:
        schemaless_writer(out, schema, value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        message = f"the value does not fit the schema {name}"
        raise UnreadableError(message) from error
    return out.getvalue()


def read(name: str, data: bytes) -> dict[str, Any]:
    """Decode a record of any version of a schema.

    Raises UnknownSchemaError (another schema), UnreadableError (not what the schema says), LeftoverBytesError.
    """
    newest = _newest(name)
    head = data[:PREFIX]
    writer = newest[1] if head == newest[0] else _writer(name, head)
    source = BytesIO(data)
    source.seek(PREFIX)
    try:
        value: Any = schemaless_reader(source, writer, None if writer is newest[1] else newest[1])
    except Exception as error:  # meets bytes of any shape: fastavro raises what the bytes make it raise
        message = f"not a record of schema {name}"
        raise UnreadableError(message) from error
    if source.tell() != len(data):
        message = f"{len(data) - source.tell()} bytes are left over after the record of schema {name}"
        raise LeftoverBytesError(message)
    record: dict[str, Any] = value
    return record


def _writer(name: str, head: bytes) -> Any:
    found = _by_prefix().get(bytes(head))
    if found is None or found[0] != name:
        message = f"not the fingerprint of schema {name}"
        raise UnknownSchemaError(message)
    return _schema(*found)[1]


# Values: dataclasses of notice.py and the records of the same field names.


@quick
@dataclass(frozen=True, slots=True)
class _Compartments:
    items: tuple[notice.Compartment, ...]


_SCHEMA_OF: dict[type, str] = {
    notice.Envelope: "envelope",
    notice.Header: "header",
    notice.Routing: "routing",
    notice.Delivery: "delivery",
    notice.Shared: "shared",
    notice.Row: "row",
    notice.Leaf: "leaf",
    notice.DecisionRecord: "decision",
    notice.Routed: "routed",
    notice.Outcome: "outcome",
    notice.Statement: "statement",
    notice.Receipt: "receipt",
    notice.Subscription: "subscription",
    notice.Revocation: "revocation",
    notice.Look: "look",
    notice.Version: "version",
    notice.Entry: "entry",
    notice.Opening: "opening",
    notice.Head: "head",
    notice.Standing: "standing",
    notice.Series: "series",
    _Compartments: "compartments",
}


def encode(value: object) -> bytes:
    """Encode a value of notice.py. Raises UnreadableError if it does not fit its schema."""
    kind: type = type(value)
    by_hand = _BY_HAND.get(kind)
    return by_hand(value) if by_hand else encode_plainly(value)


def encode_plainly(value: object) -> bytes:
    """Encode a value of notice.py by fastavro, as `encode` does where nothing is written by hand."""
    kind: type = type(value)
    return write(_SCHEMA_OF[kind], _packer(kind)(value))


def decode(kind: type[T], data: bytes) -> T:
    """Decode a value of notice.py; raises as `read` does."""
    found: T | None = _read_usual(kind, data)
    return decode_plainly(kind, data) if found is None else found


def decode_plainly(kind: type[T], data: bytes) -> T:
    """Decode a value of notice.py by fastavro, as `decode` does where bytes are not in their usual form."""
    plain: type = kind
    value: T = _unpacker(plain)(read(_SCHEMA_OF[plain], data))
    return value


def begin(kind: type[T], whole: type, data: bytes) -> T | None:
    """Read the first fields of a record, those that `kind` has, and nothing behind them.

    None: it is not in the form that we write, or wrote, `decode` says what it is.
    """
    plain: type = kind
    found: T | None = _first_of(_beginnings(plain, whole), data)
    return found


def _read_usual(kind: type, data: bytes) -> Any:
    """Decode what has the form that we write ourselves; None: it has another, or is wrong."""
    return _first_of(_readers(kind), data)


def _first_of(readers: tuple[usual.Reader, ...], data: bytes) -> Any:
    for reader in readers:
        try:
            return reader(data)
        except (IndexError, ValueError):
            continue
    return None


@cache
def _beginnings(kind: type, whole: type) -> tuple[usual.Reader, ...]:
    return tuple(usual.beginning(kind, *each) for each in _additive(_SCHEMA_OF[whole]))


@cache
def _readers(kind: type) -> tuple[usual.Reader, ...]:
    made = {special: unpack for special, (_, unpack) in _SPECIAL.items()}
    changed = {name: unpack for (of, name), (_, unpack) in _SPECIAL_FIELDS.items() if of is kind}
    return tuple(usual.reader(kind, *each, made, changed) for each in _additive(_SCHEMA_OF[kind]))


def _additive(name: str) -> list[tuple[bytes, Any]]:
    """Give the newest version of a schema and those before it to which fields were only added at the end.

    A home goes on with what it wrote before an upgrade: it would be read at a third of the speed for ever.
    """
    newest = _newest(name)
    every = [_schema(*each) for each in loader.names() if each[0] == name]
    return [each for each in reversed(every) if each[1]["fields"] == newest[1]["fields"][: len(each[1]["fields"])]]


def encode_compartments(compartments: tuple[notice.Compartment, ...]) -> bytes:
    """Encode the compartments of an envelope, withheld ones as null."""
    pack = _packer(notice.Compartment)
    return write("compartments", {"items": [pack(each) for each in compartments]})


def decode_compartments(data: bytes) -> tuple[notice.Compartment, ...]:
    """Decode the compartments of an envelope; raises as `read` does."""
    return decode(_Compartments, data).items


def mask_bytes(mask: int) -> bytes:
    """Encode a bureau mask: big-endian, as short as it can be."""
    return mask.to_bytes((mask.bit_length() + 7) // 8, "big")


def _pack_terms(terms: notice.Terms) -> dict[str, Any]:
    return {name: mask_bytes(getattr(terms, name)) for name in ("allowed", "audience", "denied", "reached")}


def _pack_holders(mask: int | None) -> bytes | None:
    return None if mask is None else mask_bytes(mask)


def _unpack_holders(data: bytes | None) -> int | None:
    return None if data is None else int.from_bytes(data, "big")


def _unpack_terms(value: dict[str, Any]) -> notice.Terms:
    return notice.Terms(**{name: int.from_bytes(mask, "big") for name, mask in value.items()})


def _pack_hit(hit: notice.RuleHit) -> dict[str, Any]:
    return {"id": hit.rule, "bureaus": mask_bytes(hit.bureaus)}


def _unpack_hit(value: dict[str, Any]) -> notice.RuleHit:
    return notice.RuleHit(value["id"], int.from_bytes(value["bureaus"], "big"))


def _pack_series(series: notice.Series) -> dict[str, Any]:
    return {"highest": series.highest, "missing": [{"first": a, "last": b} for a, b in series.missing]}


def _unpack_series(value: dict[str, Any]) -> notice.Series:
    return notice.Series(value["highest"], tuple((each["first"], each["last"]) for each in value["missing"]))


_SPECIAL: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    notice.Terms: (_pack_terms, _unpack_terms),
    notice.RuleHit: (_pack_hit, _unpack_hit),
    notice.Series: (_pack_series, _unpack_series),
}
_SPECIAL_FIELDS: dict[tuple[type, str], tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    (notice.DecisionRecord, "holders"): (_pack_holders, _unpack_holders),
}


@cache
def _packer(kind: type) -> Callable[[Any], Any]:
    """Make the function from dataclass to record."""
    if kind in _SPECIAL:
        return _SPECIAL[kind][0]
    names = tuple(each.name for each in fields(kind))
    get = attrgetter(*names)
    nested = [(name, pack) for name, pack in _nested(kind, _packer, list) if pack]

    def pack(value: Any) -> dict[str, Any]:
        record = dict(zip(names, get(value), strict=True))
        for name, convert in nested:
            record[name] = convert(record[name])
        return record

    return pack


@cache
def _unpacker(kind: type) -> Callable[[Any], Any]:
    """Make the function from record to dataclass."""
    if kind in _SPECIAL:
        return _SPECIAL[kind][1]
    nested = [(name, unpack) for name, unpack in _nested(kind, _unpacker, tuple) if unpack]

    def unpack(record: dict[str, Any]) -> Any:
        for name, convert in nested:
            record[name] = convert(record[name])
        return kind(**record)

    return unpack


Converter = Callable[[Any], Any]


def _nested(kind: type, convert: Callable[[type], Converter], many: type) -> list[tuple[str, Converter | None]]:
    hints = typing.get_type_hints(kind)
    special = {name: both[convert is not _packer] for (of, name), both in _SPECIAL_FIELDS.items() if of is kind}
    names = [each.name for each in fields(kind)]
    return [(name, special.get(name) or _converter(hints[name], convert, many)) for name in names]


def _converter(hint: Any, convert: Callable[[type], Converter], many: type) -> Converter | None:
    """Make the converter of one field, or None where the value is the same on both sides."""
    if is_dataclass(hint) and isinstance(hint, type):
        return convert(hint)
    if isinstance(hint, UnionType):
        inner = next(each for each in typing.get_args(hint) if each is not type(None))
        one = _converter(inner, convert, many)
        return None if one is None else (lambda value: None if value is None else one(value))
    if typing.get_origin(hint) is not tuple:
        return None
    each = _converter(typing.get_args(hint)[0], convert, many)
    return many if each is None else (lambda values: many([each(value) for value in values]))


# Written by hand because every notice pays for it once per bureau; tests hold them equal to fastavro's.


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


_BY_HAND: dict[type, Callable[[Any], bytes]] = {
    notice.Leaf: _leaf,
    notice.DecisionRecord: _decision,
    notice.Routed: _routed,
    notice.Entry: _entry,
    notice.Standing: _standing,
    notice.Outcome: _outcome,
    notice.Envelope: _envelope,
}
