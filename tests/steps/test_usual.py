"""What is read by the functions made from the schemas is what fastavro reads; all else is left to it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import avro, by_hand, codec, usual
from broker.errors import LeftoverBytesError, NoticeRejectedError, UnreadableError
from broker.notice import DecisionRecord, Delivery, Header, Leaf, Row, Shared
from broker.recorded import Brought, brought
from tests.vectors import make

KINDS = tuple(codec._SCHEMA_OF)
EDGES = (0, -1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31))
INTS = st.sampled_from(EDGES) | st.integers(-(2**31), 2**31 - 1)
LONGS = st.sampled_from((*EDGES, 2**62 - 1, 2**62, -(2**62), -(2**62) - 1, 2**63 - 1, -(2**63))) | INTS
BLOBS = st.one_of(*(st.binary(min_size=size, max_size=size) for size in (0, 1, 63, 64, 200)))
"""64 is the least size that takes two bytes."""
TEXTS = st.text(max_size=70) | st.sampled_from(("a" * 63, "a" * 64, "é" * 64, "\U0001f600"))
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "int": INTS, "long": LONGS, "string": TEXTS, "bytes": BLOBS, "boolean": st.booleans(), "null": st.none(),
}  # fmt: skip
ODD = (b"\0", b"\1", b"\2", b"\3", b"\x7f", b"\x80\0", b"\xff", b"\xfe\xff\xff\xff\x0f")
CHANGED = 4
"""changed forms of each record"""
MANY = 70
"""Items of an array whose count takes two bytes."""


def values(schema: Any, defined: dict[str, Any], many: int = MANY) -> st.SearchStrategy[Any]:
    """What fastavro writes under this schema. Of arrays in arrays one at a time has `many` items."""
    if isinstance(schema, str) and schema in PLAIN:
        return PLAIN[schema]
    if isinstance(schema, list):
        return st.one_of([values(each, defined, many) for each in schema])
    if isinstance(schema, str):
        return values(defined[schema], defined, many)
    if "name" in schema:
        defined[schema["name"]] = schema
    if schema["type"] == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    if schema["type"] == "array":
        few = values(schema["items"], defined, 2)
        return st.lists(values(schema["items"], defined, many), max_size=3) | few.map(lambda item: [item] * many)
    fields = {each["name"]: values(each["type"], defined, many) for each in schema["fields"]}
    return st.fixed_dictionaries(fields)


RECORDS = {kind: values(avro._newest(name)[1], {}) for kind, name in codec._SCHEMA_OF.items()}


def outcome(act: Any, kind: type, data: bytes | bytearray) -> str:
    """The value with its types, or the class of the error."""
    try:
        return repr(act(kind, data))
    except NoticeRejectedError as error:
        return type(error).__name__


def agree(kind: type, data: bytes | bytearray) -> None:
    assert outcome(codec.decode, kind, data) == outcome(codec.decode_plainly, kind, data)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), chance=st.randoms(use_true_random=True))
def test_what_fastavro_writes_is_read_and_where_bytes_are_changed_read_or_refused_as_by_fastavro(
    kind: type, data: st.DataObject, chance: random.Random
) -> None:
    written = avro.write(codec._SCHEMA_OF[kind], data.draw(RECORDS[kind]))
    agree(kind, written)
    for size in {len(written) - 1, len(written) // 2, avro.PREFIX}:
        agree(kind, written[:size])
    agree(kind, written + b"\0")
    agree(kind, bytearray(written))
    for _ in range(CHANGED):  # to make up a record takes far longer than to read it
        agree(kind, changed(written, chance))


def changed(written: bytes, chance: random.Random) -> bytes:
    """Put other bytes in one to three places."""
    made = bytearray(written)
    for _ in range(chance.randint(1, 3)):
        place = chance.randint(avro.PREFIX, max(avro.PREFIX, len(made)))
        cut = chance.randint(0, 2)
        made[place : place + cut] = chance.choice((chance.choice(ODD), chance.randbytes(chance.randint(0, 12))))
    return bytes(made)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=300))
def test_hostile_bytes_are_read_or_refused_as_by_fastavro(kind: type, data: bytes) -> None:
    agree(kind, avro.prefix(codec._SCHEMA_OF[kind]) + data)


@pytest.mark.parametrize(
    "value",
    [make.header(), make.envelope(), make.leaf(), Row("AT/ncb", 1 << 40, 3), Shared(b"e" * 2000, b"l", "p" * 700)],
    ids=lambda value: type(value).__name__,
)
def test_what_we_write_needs_no_fastavro(value: object) -> None:
    assert codec._read_usual(type(value), codec.encode(value)) == value


LEAF = codec.encode(make.leaf())
NOW = by_hand.long(make.leaf().now)
BLOCK = by_hand.long(-1) + by_hand.long(1)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Leaf, LEAF.replace(NOW, NOW[:-1] + bytes([NOW[-1] | 0x80]) + b"\0")),
        (Delivery, codec.encode(Delivery(1, 0, "b", 2, b"", bytes(32), b"", 0, (5,), (), b"")).replace(
            by_hand.longs((5,)), BLOCK + by_hand.long(5) + b"\0")),
        (Delivery, codec.encode(Delivery(1, 0, "b", 2, b"", bytes(32), b"", 0, (5, 6), (), b"")).replace(
            by_hand.longs((5, 6)), by_hand.longs((5,))[:-1] + by_hand.longs((6,)))),
    ],
    ids=["a number longer than it need be", "a block with its size", "two blocks"],
)  # fmt: skip
def test_other_forms_that_avro_allows_are_read(kind: type, data: bytes) -> None:
    assert data != codec.encode(codec.decode(kind, data))
    agree(kind, data)


@pytest.mark.parametrize("byte", [2, 3, 0x80, 0xFF])
def test_another_boolean_is_left_to_fastavro(byte: int) -> None:
    data = codec.encode(make.header())
    place = next(at for at in range(avro.PREFIX, len(data)) if _flips_exercise(data, at))
    odd = data[:place] + bytes([byte]) + data[place + 1 :]
    assert codec._read_usual(Header, odd) is None
    agree(Header, odd)


def _flips_exercise(data: bytes, at: int) -> bool:
    try:
        changed = codec.decode(Header, data[:at] + b"\1" + data[at + 1 :])
    except NoticeRejectedError:
        return False
    return changed.exercise and not make.header().exercise and data[at] == 0


@pytest.mark.parametrize(
    "size", [b"\x01", b"\x81\x01", b"\xff" * 9 + b"\x01", b"\xff" * 12, b"\xfe\xff\xff\xff\xff\x0f"]
)
def test_a_size_that_cannot_be_is_unreadable(size: bytes) -> None:
    with pytest.raises(UnreadableError):
        codec.decode(Row, avro.prefix("row") + size + b"x")


def test_leftover_bytes_keep_their_own_error() -> None:
    with pytest.raises(LeftoverBytesError):
        codec.decode(Leaf, LEAF + b"\0")


def test_a_count_beyond_the_bytes_is_not_counted_up_to() -> None:
    schema = {
        "type": "record", "name": "R",
        "fields": [{"name": "items", "type": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 8}}}],
    }  # fmt: skip
    read = usual.reader(_Fixed, b"", schema, {_Fixed: lambda record: record["items"]}, {})
    assert read(by_hand.long(1) + b"8 bytes!" + b"\0") == (b"8 bytes!",)
    with pytest.raises(ValueError, match=r"^$"):
        read(by_hand.long(2**60) + b"8 bytes!" + b"\0")


class _Fixed:
    """Stands for a kind whose values `made` makes."""


@given(RECORDS[DecisionRecord], st.integers(0, 400))
def test_the_beginning_of_a_decision_says_what_the_whole_says_or_nothing(record: Any, cut: int) -> None:
    data = avro.write("decision", record)
    whole, first = codec.decode(DecisionRecord, data), brought(data)
    assert [getattr(first, name) for name in Brought.__slots__] == [getattr(whole, name) for name in Brought.__slots__]
    shorter = codec.begin(Brought, DecisionRecord, data[:cut])
    assert shorter in (None, codec.begin(Brought, DecisionRecord, data))
    assert shorter is None or cut >= len(first.header) + len(first.routing) + len(first.statement)


@pytest.mark.parametrize(("version", "fewer"), [("1.0", 3), ("1.1", 2)])
def test_a_decision_of_an_earlier_schema_is_read_as_quickly(version: str, fewer: int) -> None:
    now = DecisionRecord("notices.at", 0, 7, 8, bytes(32), header=b"header")
    earlier = avro._schema("decision", version)[0] + codec.encode(now)[avro.PREFIX : -fewer]  # without what is null
    found = codec.begin(Brought, DecisionRecord, earlier)
    assert found is not None
    assert (found.stream, found.at, found.header) == ("notices.at", 8, b"header")
    assert codec._read_usual(DecisionRecord, earlier) == codec.decode_plainly(DecisionRecord, earlier) == now
    assert codec._read_usual(DecisionRecord, earlier + b"\0") is None
