"""Bytes ⇄ values: what is written by hand is what fastavro writes, and nothing odd gets in."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from broker import avro, by_hand, codec, strict
from broker.errors import LeftoverBytesError, NoticeRejectedError, UnknownSchemaError, UnreadableError
from broker.notice import (
    Compartment,
    DecisionRecord,
    Delivery,
    Envelope,
    Header,
    Holder,
    Leaf,
    Opened,
    Outcome,
    Receipt,
    ReceiptItem,
    Recipient,
    Revocation,
    Row,
    RuleHit,
    Series,
    Shared,
    Standing,
    Statement,
    Terms,
)
from schemas import loader
from tests.vectors import make

LONGS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(0, 2**31 - 1)
NUMBERS = st.integers(0, 2**63 - 1)
DIGESTS = st.binary(min_size=32, max_size=32)
TEXTS = st.text(max_size=200)
BLOBS = st.binary(max_size=300)
NUMBER_LISTS = st.lists(NUMBERS, max_size=5).map(tuple)
COMPARTMENT = st.builds(Compartment, TEXTS, st.none() | st.builds(Opened, DIGESTS, BLOBS))
RECIPIENTS = st.builds(
    Recipient,
    st.integers(0, 2**20),
    TEXTS,
    NUMBERS,
    st.lists(NUMBERS, max_size=2).map(tuple),
    st.lists(NUMBERS, max_size=2).map(tuple),
)
DELIVERIES = st.builds(
    Delivery, NUMBERS, INTS, TEXTS, NUMBERS, BLOBS, DIGESTS, BLOBS, INTS, NUMBER_LISTS, NUMBER_LISTS, BLOBS
)
SHARED = st.builds(Shared, BLOBS, BLOBS, TEXTS)
ROW = codec.encode(Row("AT/ncb", 1, 3))


def by_fastavro(schema: Any, value: Any) -> bytes:
    out = BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


@given(LONGS)
def test_a_long_is_written_as_fastavro_writes_it(number: int) -> None:
    assert by_hand.long(number) == by_fastavro("long", number)


@given(BLOBS)
def test_bytes_are_written_as_fastavro_writes_them(data: bytes) -> None:
    assert by_hand.blob(data) == by_fastavro("bytes", data)


@given(TEXTS)
def test_a_string_is_written_as_fastavro_writes_it(text: str) -> None:
    assert by_hand.blob(text.encode()) == by_fastavro("string", text)


@given(st.lists(LONGS, max_size=200).map(tuple))
def test_an_array_of_longs_is_written_as_fastavro_writes_it(numbers: tuple[int, ...]) -> None:
    assert by_hand.longs(numbers) == by_fastavro({"type": "array", "items": "long"}, list(numbers))


@given(TEXTS, NUMBERS, NUMBERS)
def test_a_row_is_written_as_fastavro_writes_it(bureau: str, number: int, shown: int) -> None:
    assert by_hand.encode_row(bureau, number, shown) == codec.encode(Row(bureau, number, shown))


@given(st.lists(RECIPIENTS, max_size=9), st.data())
def test_the_recipients_in_one_pass_are_what_each_reader_decodes(lines: list[Recipient], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(NUMBERS, min_size=len(lines), max_size=len(lines)))
    rows, records, holders, parts = by_hand.encode_lines(lines, numbers)
    numbered = tuple(replace(each, delivery_number=number) for each, number in zip(lines, numbers, strict=True))
    for held_by, key, signature in ((None, bytes(32), b"signature"), (0, None, None), (1 << 900, bytes(32), b"")):
        plain = DecisionRecord("s", 0, 0, 0, bytes(32), holders=held_by, key_id=key, signature=signature)
        assert by_hand.encode_decision(plain, records) == codec.encode_plainly(replace(plain, rows=numbered))
    standing = Standing(bytes(32), "routed", 7, b"series!!", 1, "record", 1, (Holder(900, (1, 2)),), b"envelope")
    held = (*(Holder(each.index, (each.delivery_number,)) for each in numbered), *standing.holders)
    told = by_hand.encode_standing(standing, 8, holders)
    assert told == codec.encode_plainly(replace(standing, leaf_number=8, holders=held))
    salt, path, shared = bytes(32), bytes(64), by_hand.encode_shared(Shared(b"", b"", ""))
    for each, (before, after) in zip(numbered, parts, strict=True):
        assert codec.decode(Row, rows[each.index]).bureau in {other.bureau for other in numbered}
        whole = by_hand.own_head(7, 0) + before + salt + by_hand.blob(path) + after + shared
        delivery = codec.decode(Delivery, whole)
        assert (delivery.bureau, delivery.delivery_number) == (each.bureau, each.delivery_number)
        assert (delivery.index, delivery.salt, delivery.path) == (each.index, salt, path)
        assert (delivery.replaces, delivery.erases) == (each.replaces, each.erases)
        row = by_hand.encode_row(each.bureau, each.delivery_number, each.shown)
        assert delivery.row == row


@given(DELIVERIES, SHARED)
def test_own_and_shared_together_are_the_delivery_that_fastavro_writes(delivery: Delivery, shared: Shared) -> None:
    inner = codec.encode(shared)
    whole = Delivery(**{name: getattr(delivery, name) for name in Delivery.__slots__} | {"shared": inner})
    assert by_hand.encode_own(delivery) + by_hand.encode_shared(shared) == codec.encode(whole)


@given(st.lists(COMPARTMENT, max_size=12).map(tuple), st.integers(0, 2**12 - 1))
def test_withheld_compartments_are_written_as_fastavro_writes_them(parts: tuple[Compartment, ...], shown: int) -> None:
    if not parts:
        return  # an envelope always has its routing; see the next test
    kept = tuple(each if shown >> bit & 1 else Compartment(each.name, None) for bit, each in enumerate(parts))
    assert by_hand.withhold(parts, shown) == codec.encode_compartments(kept)


def test_no_bytes_of_a_withheld_compartment_are_left() -> None:
    parts = (Compartment("routing", Opened(b"s" * 32, b"where it goes")), Compartment("identity", None))
    withheld = by_hand.withhold(parts, 0)
    assert b"where it goes" not in withheld
    assert b"s" * 32 not in withheld
    assert [each.opened for each in codec.decode_compartments(withheld)] == [None, None]


@given(st.builds(Envelope, BLOBS, DIGESTS, BLOBS, BLOBS), BLOBS)
def test_an_envelope_with_other_compartments_keeps_header_and_signature(envelope: Envelope, other: bytes) -> None:
    expected = Envelope(envelope.header, envelope.key_id, envelope.signature, other)
    assert by_hand.encode_envelope(envelope, other) == codec.encode(expected)


@given(st.integers(0, 2**2000))
def test_a_mask_comes_back_as_it_was(mask: int) -> None:
    hit = RuleHit("rule", mask)
    record = DecisionRecord("s", 0, 0, 0, bytes(32), rules=(hit,), terms=Terms(mask, 0, 1, mask), holders=mask)
    back = codec.decode(DecisionRecord, codec.encode(record))
    assert (back.rules, back.terms, back.holders) == ((hit,), Terms(mask, 0, 1, mask), mask)
    assert by_hand.mask_bytes(mask)[:1] != b"\0"


def test_a_decision_record_of_before_says_nothing_of_holders_and_keys() -> None:
    now = DecisionRecord("s", 1, 2, 3, bytes(32), terms=Terms(1, 2, 3, 4), detail="why")
    head, schema = avro._schema("decision", "1.0")
    before = head + codec.encode(now)[len(head) : -3]  # the last bytes say null
    said: Any = schemaless_reader(BytesIO(before[len(head) :]), schema, None)
    assert said["detail"] == "why"
    assert codec.decode(DecisionRecord, before) == codec.decode_plainly(DecisionRecord, before) == now


VALUES: tuple[object, ...] = (
    make.header(),
    make.envelope(),
    make.leaf(),
    Leaf("rejected", 0, "too-large", None, 7, 2**31 - 1, bytes(32), bytes(32), bytes(32), None),
    codec.decode(DecisionRecord, make.decision()),
    Statement("type", b"payload", bytes(32), b"signature"),
    Receipt("f", "AT/ncb", "LV", "read", (ReceiptItem(1, bytes(32)),), None, bytes(32), 1, 1),
    Revocation("f", "AT/ncb", bytes(32), "lost", 1),
    Series(9, ((1, 1), (3, 7))),
    Outcome("routed", None, "", bytes(16), "AT/ncb", bytes(32), None, (), (), b"", b"", b"", 1, b"", ""),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    assert codec.decode(type(value), codec.encode(value)) == value


def test_leftover_bytes_are_refused() -> None:
    with pytest.raises(LeftoverBytesError):
        codec.decode(Row, ROW + b"\0")


@pytest.mark.parametrize("size", range(10, len(ROW)))
def test_a_truncated_record_is_unreadable(size: int) -> None:
    with pytest.raises(UnreadableError):
        codec.decode(Row, ROW[:size])


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc3\x01", ROW[:9], b"\xc3\x01" + bytes(8), b"\xc3\x02" + ROW[2:], codec.encode(make.leaf())],
    ids=["empty", "no fingerprint", "short fingerprint", "unknown", "another marker", "another schema"],
)
def test_an_unknown_or_other_schema_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownSchemaError):
        codec.decode(Row, data)


def test_a_name_is_only_given_to_a_known_fingerprint() -> None:
    assert avro.name_of(ROW) == "row"
    with pytest.raises(UnknownSchemaError):
        avro.name_of(ROW[:9])


def test_no_two_schemas_begin_with_the_same_ten_bytes() -> None:
    prefixes = [avro._schema(name, version)[0] for name, version in loader.names()]
    assert len(set(prefixes)) == len(prefixes)


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_a_rejection_and_nothing_else(data: bytes) -> None:
    for kind in (Header, Envelope, Delivery, Row):
        try:
            codec.decode(kind, avro.prefix(codec._SCHEMA_OF[kind]) + data)
        except NoticeRejectedError:
            continue


@example(60, 3)  # fastavro counts the branches of a union from its end, too
@example(269, 2)  # and takes any byte but 0 for true; `exercise` stands there
@given(st.integers(0, 430), st.integers(1, 255))
def test_a_changed_header_is_another_header_or_refused(position: int, flip: int) -> None:
    data = bytearray(make.envelope().header)
    data[position] ^= flip
    try:
        header = codec.decode(Header, bytes(data))
        strict.check_header(header, bytes(data))
    except NoticeRejectedError:
        return
    assert header != make.header()


def test_a_value_that_does_not_fit_is_unreadable() -> None:
    with pytest.raises(UnreadableError):
        avro.write("row", {"bureau": "AT/ncb", "delivery_number": "one", "shown": 1})
    with pytest.raises(UnreadableError):
        avro.write("row", {"bureau": "AT/ncb"})


def test_a_record_of_an_older_version_is_resolved_to_the_newest() -> None:
    older = {"type": "record", "name": "R", "namespace": "valise", "fields": [{"name": "a", "type": "string"}]}
    newer = older | {
        "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": ["null", "string"], "default": None}]
    }
    data = by_fastavro(older, {"a": "x"})
    schemas = [parse_schema(each, named_schemas={}) for each in (older, newer)]
    assert schemaless_reader(BytesIO(data), schemas[0], schemas[1]) == {"a": "x", "b": None}


def narrowest(type_: Any, defined: dict[str, Any]) -> int:
    """The fewest bytes that a value of this type takes."""
    if isinstance(type_, str):
        return (
            narrowest(defined[type_], defined)
            if type_ in defined
            else {"null": 0, "float": 4, "double": 8}.get(type_, 1)
        )
    if isinstance(type_, list):
        return 1 + min(narrowest(each, defined) for each in type_)
    if "name" in type_:
        defined[type_["name"]] = type_
    if type_["type"] == "fixed":
        return int(type_["size"])
    if type_["type"] == "record":
        return sum(narrowest(each["type"], defined) for each in type_["fields"])
    if type_["type"] in ("array", "map"):
        assert narrowest(type_.get("items", "string"), defined) > 0, "an array of items of no bytes is a bomb"
        return 1
    return narrowest(type_["type"], defined)


@pytest.mark.parametrize(("name", "version"), loader.names())
def test_no_schema_has_an_array_whose_items_take_no_bytes(name: str, version: str) -> None:
    assert narrowest(loader.load(name, version), {}) > 0


def test_a_bomb_would_be_found() -> None:
    with pytest.raises(AssertionError, match="bomb"):
        narrowest({"type": "array", "items": "null"}, {})


def test_a_count_of_items_that_are_not_there_is_unreadable() -> None:
    with pytest.raises(UnreadableError):
        codec.decode_compartments(avro.prefix("compartments") + by_hand.long(2**40))
