"""Reads many records of the bus file at a time.

A thread of Python gives up the interpreter lock at every step of a statement and may wait 5 ms to have it back while
the event loop computes. So a statement gives hundreds of rows in one step.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from broker.bus import Record
from broker.errors import OffsetGoneError
from broker.sqlite_batch import BACK, keys_of, unpack
from broker.writing import answering, keep_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BUSY_MS = 5_000
REFUSAL = "the bus file cannot be used now"
PAGE_BYTES = 16 << 20
"""the most that one read brings into memory, but for a single larger record"""
FEW_KEYS = 16
"""Up to so many keys are looked for in what lies there, each by a search of its own; for more batches are cut."""
CUT_BYTES = 1 << 20
"""Keys of batches that one look cuts for that, or those of a single larger one."""


@dataclass(frozen=True, slots=True)
class Table:
    """One partition of a stream: its rows are in table `s<id>`, the row id is the offset of the row's last record."""

    id: int
    stream: str
    partition: int


class _Row(NamedTuple):
    """Where one row stands, and the lengths of its key and value (-1: it has none)."""

    offset: int
    at: int
    key: int
    value: int
    shared: int
    """the shared value that it ends in, 0 for none; below 0 it is a batch"""
    size: int
    """bytes of that value"""


class _Part(NamedTuple):
    """One record without the shared value that it ends in."""

    offset: int
    at: int
    key: bytes
    own: bytes | None
    shared: int
    size: int


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open the file; who reads waits for nobody."""
    if write:
        keep_private(path)
    mode = "rwc" if write else "ro"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS if write else 0}")
    return connection


def select(connection: sqlite3.Connection, table: Table, offset: int, limit: int) -> tuple[list[Record], int]:
    """Read records from `offset` on, and the offset after the table's last. Raises OffsetGoneError."""
    with answering(REFUSAL):
        connection.execute("BEGIN")
        try:
            return _select(connection, table, offset, limit)
        finally:
            connection.execute("COMMIT")


def _select(connection: sqlite3.Connection, table: Table, offset: int, limit: int) -> tuple[list[Record], int]:
    start, after, packed = connection.execute(
        "SELECT start, next, (SELECT group_concat(n) FROM (SELECT offset || ',' || at || ',' || length(key) || ',' ||"  # noqa: S608
        " ifnull(length(s.value), -1) || ',' || ifnull(s.shared, 0) || ',' || ifnull(length(h.value), 0) AS n"
        f" FROM s{table.id} AS s LEFT JOIN shared AS h ON h.id = s.shared WHERE offset >= ? ORDER BY offset LIMIT ?))"
        " FROM streams WHERE id = ?",
        (offset, limit, table.id),
    ).fetchone()
    if offset < start:
        raise OffsetGoneError(table.stream, offset, start)
    numbers = [int(number) for number in packed.split(",")] if packed else []
    rows = _page([_Row(*each) for each in zip(*[iter(numbers)] * 6, strict=True)], offset + limit)
    if not rows:
        return [], after
    (data,) = connection.execute(
        "SELECT CAST(group_concat(v, '') AS BLOB) FROM (SELECT key || ifnull(value, '') AS v"  # noqa: S608
        f" FROM s{table.id} WHERE offset BETWEEN ? AND ? ORDER BY offset LIMIT ?)",
        (offset, rows[-1].offset, len(rows)),
    ).fetchone()
    parts = [each for each in _parts(rows, data) if each.offset >= offset]
    return _whole(connection, table, _fitting(parts[:limit])), after


def _page(rows: list[_Row], end: int) -> list[_Row]:
    """Give as many rows as one read may bring; what a batch holds from `end` on nobody has asked for."""
    total = 0
    for place, row in enumerate(rows):
        total += row.key + row.value + row.size
        if place and (total > PAGE_BYTES or (row.shared < 0 and rows[place - 1].offset + 1 >= end)):
            return rows[:place]
    return rows


def _parts(rows: Sequence[_Row], data: bytes) -> Iterator[_Part]:
    begin = 0
    for row in rows:
        middle = begin + row.key
        end = middle + max(row.value, 0)
        key, value = data[begin:middle], data[middle:end]
        begin = end
        if row.shared >= 0:
            yield _Part(row.offset, row.at, key, None if row.value < 0 else value, row.shared, row.size)
            continue
        copies, back = unpack(key, value)
        for each, before in zip(copies, back, strict=True):
            yield _Part(row.offset - before, row.at, each.key, each.own, each.shared - row.shared, each.size)


def _fitting(parts: list[_Part]) -> list[_Part]:
    total = 0
    for place, part in enumerate(parts):
        total += len(part.key) + len(part.own or b"") + part.size
        if place and total > PAGE_BYTES:
            return parts[:place]
    return parts


def _whole(connection: sqlite3.Connection, table: Table, parts: Sequence[_Part]) -> list[Record]:
    """Join records and the shared values that they end in."""
    (shared,) = connection.execute(
        "SELECT CAST(group_concat(value, '') AS BLOB) FROM"
        " (SELECT h.value FROM json_each(?) AS t JOIN shared AS h ON h.id = t.value ORDER BY t.key)",
        (json.dumps([each.shared for each in parts if each.shared]),),
    ).fetchone()
    records, begin = [], 0
    for offset, at, key, own, number, size in parts:
        end = begin + size
        value = own + shared[begin:end] if number and own is not None else own
        records.append(Record(table.stream, table.partition, offset, at, key, value))
        begin = end
    return records


def replaced(connection: sqlite3.Connection, table: Table, before: int) -> list[int]:
    """Name the rows that a later row of their key replaces, and the removals that are older than `before`.

    A batch is replaced as a whole, by one with the same keys: what a kill had us write twice.
    """
    with answering(REFUSAL):
        (packed,) = connection.execute(
            "SELECT json_group_array(offset) FROM (SELECT offset, at, value IS NULL AS removal,"  # noqa: S608
            f" max(offset) OVER (PARTITION BY key) AS last FROM s{table.id})"
            " WHERE offset < last OR (removal AND at < ?)",
            (before,),
        ).fetchone()
    offsets: list[int] = json.loads(packed)
    return offsets


def _few(table: Table, count: int) -> str:
    """Look for some of a few keys, ?4 and after, in the keys as they lie.

    All else of a row is read where one was found: it lies behind a value, on other pages. What only looks like a key,
    across two keys of a batch, is told where that is cut into keys.
    """
    held = " OR ".join(f"instr(key, ?{place})" for place in range(4, 4 + count))
    row = "json_array(offset, hex(key), iif(ifnull(shared, 0) < 0, hex(substr(value, 1, ?3)), NULL))"
    return (
        f"SELECT json_group_array(json((SELECT {row} FROM s{table.id} WHERE offset = place))) FILTER (WHERE found),"  # noqa: S608
        f" ifnull(max(place), -2) FROM (SELECT offset AS place, {held} AS found FROM s{table.id}"
        " WHERE offset >= ?1 ORDER BY offset LIMIT ?2)"
    )


def _many(table: Table, _count: int) -> str:
    """Look for some of many keys, ?4 in hex: of batches all are given, as far as one look cuts them."""
    row = "SELECT offset, hex(key) AS named, ifnull(shared, 0) < 0 AS many, hex(substr(value, 1, ?3)) AS back"
    rows = f"{row} FROM s{table.id} WHERE offset >= ?1 ORDER BY offset LIMIT ?2"
    cut = "iif(many, length(named) / 2, 0)"
    before = f"sum({cut}) OVER (ORDER BY offset ROWS UNBOUNDED PRECEDING) - {cut} AS before"
    return (
        "SELECT json_group_array(json_array(offset, named, iif(many, back, NULL))) FILTER (WHERE found),"  # noqa: S608
        " ifnull(max(offset), -2)"
        " FROM (SELECT *, iif(many, true, named IN (SELECT value FROM json_each(?4))) AS found"
        f" FROM (SELECT * FROM (SELECT *, {before} FROM ({rows})) WHERE before < {CUT_BYTES}))"
    )


def _hex_of(keys: Sequence[bytes]) -> str:
    return json.dumps([each.hex().upper() for each in keys])


def keyed(
    table: Table, keys: Sequence[bytes], offset: int, limit: int, connection: sqlite3.Connection
) -> tuple[list[tuple[int, bytes]], int]:
    """Name the records of some keys (offset, key), in `limit` rows from `offset` on; and where to go on, or -1."""
    look, sought = (_few, tuple(keys)) if len(keys) <= FEW_KEYS else (_many, (_hex_of(keys),))
    with answering(REFUSAL):
        packed, last = connection.execute(look(table, len(keys)), (offset, limit, BACK, *sought)).fetchone()
    wanted, found = frozenset(keys), list[tuple[int, bytes]]()
    for end, key, back in json.loads(packed):
        in_row = keys_of(bytes.fromhex(key), bytes.fromhex(back)) if back is not None else [(0, bytes.fromhex(key))]
        found += [(end - before, each) for before, each in in_row if each in wanted]
    return found, int(last) + 1
