"""Many records of one inbox in one row, as the record batches of Kafka hold them.

The row's `offset` is that of its last record, so that the first row from an offset on holds the record of that offset.
Its `shared` is minus the id that shared values are counted from, which tells it from a row that is one record. Its
`key` holds number, lengths and bytes of the keys; its `value` for each record how far it stands before the last, which
shared value it ends in, how long that is and how long its own part, then all own parts. Numbers are u32, big-endian.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH = 100
"""Records in one row: who reads one of them reads the row."""
BACK = 4 * BATCH
"""Bytes of a value that surely hold how far each record stands before the last."""


class Copy(NamedTuple):
    """One record that ends in a shared value: `shared` counts from the row's first, `size` is that value's length."""

    key: bytes
    own: bytes
    shared: int
    size: int


def pack(copies: Sequence[Copy], back: Sequence[int]) -> tuple[bytes, bytes]:
    """Make key and value of a row; `back` tells how far each record stands before the last."""
    keys, owns, shared, sizes = zip(*copies, strict=True)
    count = len(copies)
    key = struct.pack(f">{count + 1}I", count, *map(len, keys)) + b"".join(keys)
    return key, struct.pack(f">{4 * count}I", *back, *shared, *sizes, *map(len, owns)) + b"".join(owns)


def keys_of(key: bytes, back: bytes) -> Iterator[tuple[int, bytes]]:
    """Tell for each record how far it stands before the last, and its key; `back` is what the value begins with."""
    (count,) = struct.unpack_from(">I", key)
    keys = _cut(key, 4 + 4 * count, struct.unpack_from(f">{count}I", key, 4))
    return zip(struct.unpack_from(f">{count}I", back), keys, strict=True)


def unpack(key: bytes, value: bytes) -> tuple[list[Copy], tuple[int, ...]]:
    """Give again what was packed."""
    (count,) = struct.unpack_from(">I", key)
    keys = _cut(key, 4 + 4 * count, struct.unpack_from(f">{count}I", key, 4))
    numbers = struct.unpack_from(f">{4 * count}I", value)
    back, shared, sizes, lengths = (numbers[begin : begin + count] for begin in range(0, 4 * count, count))
    return list(map(Copy, keys, _cut(value, 16 * count, lengths), shared, sizes)), back


def _cut(data: bytes, begin: int, lengths: Sequence[int]) -> Iterator[bytes]:
    return (data[one:next_one] for one, next_one in pairwise(accumulate(lengths, initial=begin)))
