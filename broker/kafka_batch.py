"""Kafka's record batches (message format 2), built from pieces that the inboxes of one fan-out share.

aiokafka's own builder copies and encodes each record anew for each of them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from time import time

from google_crc32c import extend as crc32c

from broker.bus import MAX_RECORD
from broker.by_hand import long
from broker.errors import TooLargeError

BATCH_BYTES = 500_000
"""one batch of several records"""
Value = tuple[bytes, bytes | None, bytes | None]
"""key, value, and what comes after the value"""
Heads = dict[tuple[int, bytes, int], bytes]
"""(place in the batch, key, length of the value) → how such a record begins"""
TRANSACTIONAL = 0x10
"""attribute of a batch that belongs to a transaction"""
_HEAD = struct.Struct(">qiibI")
"""base offset, length, leader epoch, magic, CRC-32C of what follows"""
_LENGTH_COUNTS_FROM = 12
_CHECKED = struct.Struct(">hiqqqhii")
"""attributes, last offset delta, first and last time stamp, producer id and epoch, base sequence, record count"""


class Batch:
    """A record batch (message format 2) of one stream, built from pieces that the batches of other inboxes share.

    Has what aiokafka's accumulator asks of its own builder, which copies and encodes each record anew.
    """

    def __init__(self, pieces: list[bytes], count: int, attributes: int, size: int) -> None:
        self._pieces, self._count, self._attributes = pieces, count, attributes
        self.size = size
        """About its bytes, never fewer than its records have."""
        self._producer = (-1, -1, -1)
        self._buffer: bytes | None = None

    def record_count(self) -> int:
        """Tell how many records it has."""
        return self._count

    def close(self) -> None:
        """Do nothing: no record can be added anyway."""

    def closed(self) -> bool:
        """Tell that no record can be added."""
        return True

    def append(self, **_: object) -> None:
        """Take nothing, which tells the accumulator that the batch is full."""

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        if self._buffer is None:
            body, now, last = b"".join(self._pieces), int(time() * 1000), self._count - 1
            self._pieces = []
            checked = _CHECKED.pack(self._attributes, last, now, now, *self._producer, self._count)
            crc = crc32c(crc32c(0, checked), body)
            length = _HEAD.size - _LENGTH_COUNTS_FROM + len(checked) + len(body)
            self._buffer = b"".join((_HEAD.pack(0, length, -1, 2, crc), checked, body))
        return self._buffer


def make_batches(rows: Sequence[Value], heads: Heads, attributes: int = 0, *, most: int = BATCH_BYTES) -> list[Batch]:
    """Make batches of records, of about `most` bytes or one record.

    `heads` is kept between the inboxes of one fan-out, whose records are alike.
    """
    batches: list[Batch] = []
    pieces: list[bytes] = []
    count = size = 0
    for key, value, more in rows:
        length = -1 if value is None else len(value) + len(more or b"")
        if len(key) + length > MAX_RECORD:
            raise TooLargeError(len(key) + length, MAX_RECORD)
        # 40 bytes are more than the varints of one record take.
        if count and size + len(key) + length + 40 > most:
            batches.append(Batch(pieces, count, attributes, size))
            pieces, count, size = [], 0, 0
        head = heads.get((count, key, length)) or heads.setdefault((count, key, length), _head_of(count, key, length))
        pieces += (head, value or b"", more or b"", b"\0")
        count += 1
        size += len(key) + length + 40
    return [*batches, Batch(pieces, count, attributes, size)]


def _head_of(delta: int, key: bytes, length: int) -> bytes:
    # Varints are those of Avro. Attributes and time stamp delta are 0; the number of headers, 0, ends the record.
    head = b"\0\0" + long(delta) + long(len(key)) + key + long(length)
    return long(len(head) + max(length, 0) + 1) + head
