"""Refuses a header or routing that strict readers of Avro would refuse, or read otherwise than we do.

fastavro takes a boolean of 2 for true, which is false to Java and an error to others, and a number of eleven bytes. Two
parties must not read two things in what one has signed. The form that we write ourselves is known by encoding it anew,
by hand because every notice pays for it (tests hold it equal to fastavro's); other forms are walked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from broker import avro
from broker.by_hand import blob, long, name
from broker.errors import UnreadableError
from broker.notice import Grant, Header, Origin, Reference, Routing

_LONG_BYTES = 10
_BITS = {"int": 32, "long": 64}


def check_header(value: Header, data: bytes) -> None:
    """Check the bytes from which a header was decoded. Raises UnreadableError.

    What vocabularies and directory name must have been checked before: those words are remembered here.
    """
    if header(value) != data:
        _Walk(data).record(avro.schema_of("header", data))


def check_routing(value: Routing, data: bytes) -> None:
    """Check the bytes from which a routing was decoded; as `check_header`."""
    if routing(value) != data:
        _Walk(data).record(avro.schema_of("routing", data))


def header(header: Header) -> bytes:
    """Encode a Header."""
    return b"".join((
        avro.prefix("header"),
        name(header.federation),
        header.notice_id,
        _text(header.record),
        long(header.version),
        name(header.issuer),
        name(header.kind),
        _maybe_text(header.conversation),
        _items([_reference(each) for each in header.references]),
        _texts(header.topics),
        _maybe_text(header.action_sought),
        name(header.urgency),
        _maybe_long(header.acknowledge_by),
        _maybe_long(header.answer_by),
        name(header.purpose),
        _text(header.legal_basis),
        _names(header.handling),
        _maybe_text(header.handling_text),
        name(header.confidentiality),
        _maybe_text(header.source_evaluation),
        _maybe_long(header.information_evaluation),
        long(header.issued),
        _maybe_long(header.expires),
        _maybe_long(header.retain_until),
        _maybe_long(header.review_due),
        _texts(header.languages),
        _boolean(header.exercise),
        _items([name(each.name) + each.digest for each in header.compartments]),
    ))  # fmt: skip


def routing(routing: Routing) -> bytes:
    """Encode a Routing."""
    audience = routing.audience
    return b"".join((
        avro.prefix("routing"),
        _boolean(audience.everyone),
        _names(audience.agreements),
        _names(audience.to),
        _names(routing.deny),
        _items([_origin(each) for each in routing.origins]),
        _names(routing.subject_categories),
        name(routing.minor),
        _names(routing.special_categories),
        _names(routing.protected_from),
        routing.series,
        long(routing.number),
        _items([_grant(each) for each in routing.grants]),
        _maybe_text(routing.derogation),
    ))  # fmt: skip


def _reference(reference: Reference) -> bytes:
    return _text(reference.issuer) + reference.notice_id + reference.header_digest + name(reference.relation)


def _origin(origin: Origin) -> bytes:
    return _maybe_text(origin.owner) + _texts(origin.releasable_to)


def _grant(grant: Grant) -> bytes:
    return _text(grant.bureau) + _texts(grant.compartments) + long(grant.until)


def _text(value: str) -> bytes:
    return blob(value.encode())


def _maybe_text(value: str | None) -> bytes:
    return b"\0" if value is None else b"\x02" + _text(value)


def _maybe_long(value: int | None) -> bytes:
    return b"\0" if value is None else b"\x02" + long(value)


def _boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\0"


def _texts(values: tuple[str, ...]) -> bytes:
    return _items([_text(each) for each in values]) if values else b"\0"


def _names(values: tuple[str, ...]) -> bytes:
    """Encode strings that come again and again."""
    return _items([name(each) for each in values]) if values else b"\0"


def _items(parts: list[bytes]) -> bytes:
    return long(len(parts)) + b"".join(parts) + b"\0" if parts else b"\0"


class _Walk:
    """One pass over a record, by its writer's schema: every form that the Avro specification allows, and no other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, avro.PREFIX
        self._named: dict[str, Any] = {}

    def record(self, schema: Any) -> None:
        """Walk through a whole record."""
        self._named = {each["name"]: each for each in _definitions(schema)}
        self._value(schema)
        if self._at != len(self._data):
            raise _refusal("bytes are left over")

    def _value(self, schema: Any) -> None:
        if isinstance(schema, list):
            branch = self._number(32)
            if not 0 <= branch < len(schema):
                raise _refusal("a union has no such branch")
            self._value(schema[branch])
        elif isinstance(schema, dict):
            self._complex(schema)
        elif schema in self._named:
            self._complex(self._named[schema])
        else:
            self._plain(schema)

    def _complex(self, schema: dict[str, Any]) -> None:
        match schema["type"]:
            case "record":
                for each in schema["fields"]:
                    self._value(each["type"])
            case "fixed":
                self._take(schema["size"])
            case "array":
                self._array(schema["items"])
            case plain:
                self._value(plain)

    def _plain(self, kind: str) -> None:
        match kind:
            case "int" | "long":
                self._number(_BITS[kind])
            case "string" | "bytes":
                self._take(self._number(64))
            case "boolean":
                if self._take(1)[0] > 1:
                    raise _refusal("a boolean is 0 or 1")
            case "null":
                pass
            case _:
                raise _refusal(f"no {kind} is expected here")

    def _array(self, items: Any) -> None:
        while count := self._number(64):
            end = self._number(64) + self._at if count < 0 else None
            for _ in range(abs(count)):
                self._value(items)
            if end not in (None, self._at):
                raise _refusal("a block of another size than it says")

    def _number(self, bits: int) -> int:
        raw = 0
        for place in range(_LONG_BYTES):
            byte = self._take(1)[0]
            raw |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if raw >> bits:
                    raise _refusal(f"a number beyond {bits} bits")
                return raw >> 1 ^ -(raw & 1)
        raise _refusal(f"a number of more than {_LONG_BYTES} bytes")

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self._at:
            raise _refusal("cut short")
        self._at += size
        return self._data[self._at - size : self._at]


def _definitions(schema: Any) -> Iterator[dict[str, Any]]:
    """Find the named types of a schema: a later field may name what an empty array before it defines."""
    if isinstance(schema, list):
        for each in schema:
            yield from _definitions(each)
    elif isinstance(schema, dict):
        if "name" in schema:
            yield schema
        for each in (schema["type"], schema.get("items"), *(field["type"] for field in schema.get("fields", ()))):
            yield from _definitions(each)


def _refusal(why: str) -> UnreadableError:
    return UnreadableError(f"header or routing: {why}")
