"""Avro bytes ⇄ records (the one door to fastavro).

Everything is Avro single-object encoding (Avro 1.12 specification, "Single-object encoding"): `C3 01`, the CRC-64-AVRO
fingerprint of the writer's schema, the record. A record written by an older version of its schema is resolved to the
newest. Nothing may be left over after decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint as schema_fingerprint
from fastavro.schema import to_parsing_canonical_form

from broker.errors import LeftoverBytesError, UnknownSchemaError, UnreadableError
from schemas import loader

MARKER = b"\xc3\x01"
PREFIX = 10
"""Bytes of marker and fingerprint."""


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


def additive(name: str) -> list[tuple[bytes, Any]]:
    """Give the newest version of a schema and those before it to which fields were only added at the end.

    A home goes on with what it wrote before an upgrade: it would be read at a third of the speed for ever.
    """
    newest = _newest(name)
    every = [_schema(*each) for each in loader.names() if each[0] == name]
    return [each for each in reversed(every) if each[1]["fields"] == newest[1]["fields"][: len(each[1]["fields"])]]
