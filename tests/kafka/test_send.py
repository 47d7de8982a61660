"""Produce requests in pieces are, byte for byte, what aiokafka would have sent."""

from __future__ import annotations

import struct

from aiokafka.protocol.produce import ProduceRequest_v3, ProduceRequest_v7
from hypothesis import given
from hypothesis import strategies as st

from broker import kafka_send

BATCHES = st.one_of(
    st.binary(max_size=50),
    st.integers(0, 3).map(lambda more: b"x" * (kafka_send.WHOLE + more - 1)),
)
TOPICS = st.lists(
    st.tuples(st.text(max_size=9), st.lists(st.tuples(st.integers(0, 9), BATCHES), max_size=4)), max_size=4
)


@given(st.sampled_from((ProduceRequest_v3, ProduceRequest_v7)), st.none() | st.just("router.0"), TOPICS)
def test_the_pieces_are_the_request_as_aiokafka_encodes_it(
    version: type[ProduceRequest_v3 | ProduceRequest_v7],
    transactional_id: str | None,
    topics: list[tuple[str, list[tuple[int, bytes]]]],
) -> None:
    request = version(transactional_id, -1, 30_000, topics)
    head = request.build_request_header(correlation_id=7, client_id="router").encode()
    whole = head + request.encode()
    made = kafka_send.pieces(head, request)
    assert b"".join(made) == struct.pack(">i", len(whole)) + whole
    assert all(made)


def test_a_large_batch_is_not_copied_and_small_ones_travel_together() -> None:
    large, small = b"x" * kafka_send.WHOLE, b"y" * 100
    request = ProduceRequest_v7(None, -1, 30_000, [("a", [(0, large)]), ("b", [(0, small)]), ("c", [(0, small)])])
    made = kafka_send.pieces(b"head", request)
    assert [each is large for each in made] == [False, True, False]
