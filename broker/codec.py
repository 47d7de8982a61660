"""Avro bytes ⇄ values of notice.py, whose fields are called as those of their records.

What is paid for with every notice is written by hand (by_hand.py), and read by functions made for its usual form
(usual.py); all else, and whatever has another form, goes the plain way, through fastavro.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, TypeVar

from broker import notice, usual
from broker.avro import additive, read, write
from broker.by_hand import BY_HAND, mask_bytes
from broker.quick import quick

T = TypeVar("T")


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
    by_hand = BY_HAND.get(kind)
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
    return tuple(usual.beginning(kind, *each) for each in additive(_SCHEMA_OF[whole]))


@cache
def _readers(kind: type) -> tuple[usual.Reader, ...]:
    made = {special: unpack for special, (_, unpack) in _SPECIAL.items()}
    changed = {name: unpack for (of, name), (_, unpack) in _SPECIAL_FIELDS.items() if of is kind}
    return tuple(usual.reader(kind, *each, made, changed) for each in additive(_SCHEMA_OF[kind]))


def encode_compartments(compartments: tuple[notice.Compartment, ...]) -> bytes:
    """Encode the compartments of an envelope, withheld ones as null."""
    pack = _packer(notice.Compartment)
    return write("compartments", {"items": [pack(each) for each in compartments]})


def decode_compartments(data: bytes) -> tuple[notice.Compartment, ...]:
    """Decode the compartments of an envelope; raises as `read` does."""
    return decode(_Compartments, data).items


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
