"""What the tests of adapters share: the invented files, a fixed day, and Avro with no field too many."""

from __future__ import annotations

from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastavro import parse_schema, schemaless_writer

from adapters.adapter import Draft, Rejected
from broker import notice
from schemas import loader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adapters.adapter import Source

DATA = Path(__file__).parent.parent / "data"
TODAY = date(2026, 11, 23)


def read(source: Source, path: Path) -> dict[str, Draft | Rejected]:
    """Everything that a source gives, by record id."""
    return {item.record or "without an id": item for item in source.drafts(path)}


def drafts(items: Iterable[Draft | Rejected]) -> list[Draft]:
    return [item for item in items if isinstance(item, Draft)]


def draft(found: dict[str, Draft | Rejected], record: str) -> Draft:
    item = found[record]
    assert isinstance(item, Draft)
    return item


def body(found: dict[str, Draft | Rejected], record: str, compartment: str) -> Any:
    return draft(found, record).compartments[compartment]


@cache
def _schema(name: str) -> Any:
    return parse_schema(loader.load(name), named_schemas={})


def encode(item: Draft) -> int:
    """Encode every compartment; a field that its schema does not know raises. Gives the bytes of all."""
    assert set(item.compartments) <= set(notice.KINDS[item.kind])
    total = 0
    for name, value in item.compartments.items():
        out = BytesIO()
        schemaless_writer(out, _schema(f"{item.kind}.{name}"), value, strict_allow_default=True)
        total += out.tell()
    return total


def vocabulary(item: Draft) -> None:
    """The header's words are on the allow-lists."""
    assert item.purpose in notice.PURPOSES
    assert item.urgency in notice.URGENCIES
    assert item.confidentiality in notice.CONFIDENTIALITIES
    assert set(item.handling) <= set(notice.HANDLING_CODES)
    assert set(item.subject_categories) <= set(notice.SUBJECT_CATEGORIES)
    assert item.minor in notice.MINOR
    assert item.source_evaluation in (None, *notice.SOURCE_EVALUATIONS)
    assert item.audience.everyone or item.audience.agreements or item.audience.to
    assert 1 <= len(item.topics) <= 16
    assert item.legal_basis
