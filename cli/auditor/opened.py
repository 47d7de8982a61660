"""Opens what an auditor works with: the operator's trail, decision records and index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.errors import ConfigurationError
from broker.index import Index
from broker.records import Records
from broker.trail import Trail
from cli.auditor.progress import progress
from cli.operator_home import operator_folder
from cli.story import Stories


@dataclass(frozen=True, slots=True)
class Opened:
    """One shard's trail with all that explains it; `folder` is HOME/operator."""

    folder: Path
    trail: Trail
    records: Records
    index: Index
    stories: Stories


@contextmanager
def opened(home: Path, shard: int = 0, *, rebuild: bool = False) -> Iterator[Opened]:
    """Open one shard's trail and bring its index up to date. Raises ConfigurationError that says what to do."""
    operator, suffix = operator_folder(home), f"-{shard}" if shard else ""
    if not (operator / f"records{suffix}.db").is_file():
        message = f"there are no decision records in {operator}: name the home with --home"
        raise ConfigurationError(message)
    records = Records(operator / f"records{suffix}.db")
    index = _index(operator / f"records{suffix}.index.db")
    try:
        trail = Trail.open(operator / f"trail{suffix}")
        if rebuild:
            index.forget()
        index.update(trail, records, progress("indexed"))
        yield Opened(operator, trail, records, index, Stories(trail, records, index, operator / "versions"))
    finally:
        index.close()
        records.close()


def _index(file: Path) -> Index:
    try:
        return Index(file)
    except sqlite3.OperationalError:
        return Index(None)  # an auditor may look at what he may not write
    except sqlite3.DatabaseError:
        file.unlink()  # derived: what is damaged is made again
        return Index(file)
