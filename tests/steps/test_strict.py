"""What one reader of Avro takes and another does not is refused in header and routing; other forms are taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import by_hand, codec, strict
from broker.errors import UnreadableError
from broker.notice import Audience, Grant, Header, Origin, Reference, Routing, Slot
from tests.making import Draft

LONGS, INTS = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
TEXT, DIGEST = st.text(max_size=20), st.binary(min_size=32, max_size=32)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
REFERENCE = st.builds(Reference, TEXT, st.binary(min_size=16, max_size=16), DIGEST, TEXT)
HEADERS = st.builds(
    Header,
    federation=TEXT,
    notice_id=st.binary(min_size=16, max_size=16),
    record=TEXT,
    version=LONGS,
    issuer=TEXT,
    kind=TEXT,
    conversation=st.none() | TEXT,
    references=st.lists(REFERENCE, max_size=3).map(tuple),
    topics=TEXTS,
    action_sought=st.none() | TEXT,
    urgency=TEXT,
    acknowledge_by=st.none() | LONGS,
    answer_by=st.none() | LONGS,
    purpose=TEXT,
    legal_basis=TEXT,
    handling=TEXTS,
    handling_text=st.none() | TEXT,
    confidentiality=TEXT,
    source_evaluation=st.none() | TEXT,
    information_evaluation=st.none() | INTS,
    issued=LONGS,
    expires=st.none() | LONGS,
    retain_until=st.none() | LONGS,
    review_due=st.none() | LONGS,
    languages=TEXTS,
    exercise=st.booleans(),
    compartments=st.lists(st.builds(Slot, TEXT, DIGEST), max_size=3).map(tuple),
)
ROUTINGS = st.builds(
    Routing,
    audience=st.builds(Audience, st.booleans(), TEXTS, TEXTS),
    deny=TEXTS,
    origins=st.lists(st.builds(Origin, st.none() | TEXT, TEXTS), max_size=3).map(tuple),
    subject_categories=TEXTS,
    minor=TEXT,
    special_categories=TEXTS,
    protected_from=TEXTS,
    series=st.binary(min_size=8, max_size=8),
    number=LONGS,
    grants=st.lists(st.builds(Grant, TEXT, TEXTS, LONGS), max_size=3).map(tuple),
    derogation=st.none() | TEXT,
)
HONEST = codec.decode(Header, Draft("AT/ncb").to("GE/ncb").envelope().header)
WRITTEN = codec.encode(HONEST)
TOPICS = by_hand.long(1) + by_hand.blob(b"sought.red") + b"\0"
VERSION = by_hand.long(1) + by_hand.blob(b"AT/ncb")


@given(HEADERS)
def test_a_header_is_written_as_fastavro_writes_it(value: Header) -> None:
    assert strict.header(value) == codec.encode(value)


@given(ROUTINGS)
def test_a_routing_is_written_as_fastavro_writes_it(value: Routing) -> None:
    assert strict.routing(value) == codec.encode(value)


@given(HEADERS, ROUTINGS)
def test_the_walk_takes_what_fastavro_writes(header: Header, routing: Routing) -> None:
    """The walk is what is left where the quick comparison fails: compare with another value."""
    strict.check_header(HONEST, codec.encode(header))
    strict.check_routing(Routing(Audience(False), (), (), (), "no", (), (), bytes(8), 1), codec.encode(routing))


def _with(old: bytes, new: bytes) -> bytes:
    assert WRITTEN.count(old) == 1
    return WRITTEN.replace(old, new)


OTHER_FORMS: list[tuple[str, Callable[[], bytes]]] = [
    ("a number in more bytes than it needs", lambda: _with(VERSION, b"\x82\x00" + VERSION[1:])),
    ("a number in ten bytes", lambda: _with(VERSION, b"\x82" + b"\x80" * 8 + b"\0" + VERSION[1:])),
    ("an array in a block with its size", lambda: _with(TOPICS, b"\x01\x16" + TOPICS[1:])),
]
REFUSED: list[tuple[str, Callable[[], bytes]]] = [
    ("a number of eleven bytes", lambda: _with(VERSION, b"\x82" + b"\x80" * 9 + b"\0" + VERSION[1:])),
    ("a number beyond 64 bits", lambda: _with(VERSION, b"\xff" * 9 + b"\x7f" + VERSION[1:])),
    ("a block of another size than it says", lambda: _with(TOPICS, b"\x01\x18" + TOPICS[1:])),
    ("a boolean of two", lambda: _with(b"\x04en\0\0", b"\x04en\0\x02")),
]


@pytest.mark.parametrize("make", [each for _, each in OTHER_FORMS], ids=[name for name, _ in OTHER_FORMS])
def test_other_forms_that_the_specification_allows_are_taken(make: Callable[[], bytes]) -> None:
    data = make()
    assert codec.decode(Header, data) == HONEST
    strict.check_header(HONEST, data)


@pytest.mark.parametrize("make", [each for _, each in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_readers_differ_on_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    decoded = codec.decode(Header, data)  # fastavro takes it
    with pytest.raises(UnreadableError):
        strict.check_header(decoded, data)
