"""Sends aiokafka's produce requests in pieces (Kafka protocol, Produce API versions 3 to 7).

aiokafka joins the bytes of a request anew at every level of its schema, then with its head, then with its length:
each byte of a fan-out would be copied seven times before it is encrypted.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from aiokafka import errors as kafka_errors
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import String
from aiokafka.util import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE = 1 << 15
"""Bytes from which on a batch is handed on as it is; what is smaller shares TLS records with its neighbours."""
WRITTEN = 1 << 16
"""Bytes that are encrypted and handed to the system at a time: the node deciphers them while we encrypt the next."""
_INT, _HEAD = struct.Struct(">i"), struct.Struct(">hi")
"""An INT32; required acks and time-out, ms."""
_text = String("utf-8").encode
"""Encodes a NULLABLE_STRING."""


def pieces(head: bytes, request: Any) -> list[bytes]:
    """Encode a produce request under its header; the pieces, one after the other, are what goes over the wire."""
    done: list[bytes] = []
    open_: list[bytes] = []
    for each in _parts(head, request):
        if len(each) < WHOLE:
            open_.append(each)
        else:
            done += (b"".join(open_), each)
            open_ = []
    done.append(b"".join(open_))
    length = sum(map(len, done))
    done[0] = _INT.pack(length) + done[0]
    return [each for each in done if each]


def _parts(head: bytes, request: Any) -> Iterator[bytes]:
    yield head
    yield _text(request.transactional_id)
    yield _HEAD.pack(request.required_acks, request.timeout)
    yield _INT.pack(len(request.topics))
    for topic, partitions in request.topics:
        yield _text(topic)
        yield _INT.pack(len(partitions))
        for partition, batch in partitions:
            yield _INT.pack(partition) + _INT.pack(len(batch))
            yield batch


_plainly = AIOKafkaConnection.send
"""aiokafka's own way, for all other requests."""


def tune() -> None:
    """Have every connection of aiokafka send so; doing so again changes nothing."""
    AIOKafkaConnection.send = _send


def _send(self: Any, request: Any, expect_response: bool = True) -> Any:
    """Send a request as `AIOKafkaConnection.send` does; one that awaits no answer, or is of another kind, by it."""
    if not isinstance(request, ProduceRequest) or not expect_response or self._writer is None:
        return _plainly(self, request, expect_response)
    made = request.prepare(self._versions)
    if not 3 <= made.API_VERSION <= 7:  # older ones have no transactional id, newer ones other strings
        return _plainly(self, request, expect_response)
    number = self._next_correlation_id()
    head = made.build_request_header(correlation_id=number, client_id=self._client_id).encode()
    try:
        for piece in pieces(head, made):
            whole = memoryview(piece)
            for begin in range(0, len(piece), WRITTEN):
                self._writer.write(whole[begin : begin + WRITTEN])
    except OSError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        message = f"Connection at {self._host}:{self._port} broken: {error}"
        raise kafka_errors.KafkaConnectionError(message) from error
    answer = self._loop.create_future()
    self._requests.append((number, made, answer))
    return wait_for(answer, self._request_timeout)
