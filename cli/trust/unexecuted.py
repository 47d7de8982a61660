"""Withdrawals that a member has been given and not answered: as long as there is one, the member cannot be cut off."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from broker import codec
from broker.notice import RECEIPT_TYPE, DecisionRecord, Header, Receipt, Statement
from broker.records import Records


@dataclass(frozen=True, slots=True)
class Unexecuted:
    """One withdrawal that one bureau has not answered."""

    bureau: str
    leaf_number: int
    notice: str
    issuer: str


def unexecuted(folder: Path, member: str) -> list[Unexecuted]:
    """List what a member owes, by the broker's own records. Streams them: a long history takes time, not memory."""
    path, owed = folder / "records.db", dict[tuple[str, int], Unexecuted]()
    if not path.is_file():
        return []
    with closing(Records.to_read(path)) as records:
        for number, _, content in records.since(0):
            record = codec.decode(DecisionRecord, content)
            for each in _given(record, number, member):
                owed[each.bureau, number] = each
            for key in _answered(record):
                owed.pop(key, None)
    return sorted(owed.values(), key=lambda each: (each.leaf_number, each.bureau))


def _given(record: DecisionRecord, number: int, member: str) -> Iterator[Unexecuted]:
    mine = [each.bureau for each in record.rows if each.bureau.partition("/")[0] == member]
    if not mine or not record.header:
        return
    header = codec.decode(Header, record.header)
    if header.kind == "withdrawal":
        notice = str(uuid.UUID(bytes=header.notice_id))
        yield from (Unexecuted(each, number, notice, header.issuer) for each in mine)


def _answered(record: DecisionRecord) -> Iterator[tuple[str, int]]:
    statement = codec.decode(Statement, record.statement) if record.statement else None
    if statement is None or statement.payload_type != RECEIPT_TYPE:
        return
    receipt = codec.decode(Receipt, statement.payload)
    if receipt.act == "erased":
        yield from ((receipt.bureau, each.leaf_number) for each in receipt.items)
