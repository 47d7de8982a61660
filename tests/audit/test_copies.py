"""Evidence is read from copies that nobody may write, as an auditor keeps them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from cli import seen

QUERY = "SELECT number FROM kept"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file with a write-ahead log, on a machine where SQLite may not write beside it."""
    file = tmp_path / "inbox.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE kept AS SELECT 17 AS number")
        database.commit()
    plain = sqlite3.connect

    def connect(name: str, uri: bool = False, timeout: float = 5.0) -> sqlite3.Connection:
        if "mode=ro" in name:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return plain(name, uri=uri, timeout=timeout)

    monkeypatch.setattr("cli.seen.sqlite3.connect", connect)
    return file


def test_a_copy_is_read_where_nothing_can_be_written_beside_it(copied: Path) -> None:
    assert list(seen._rows(copied, QUERY)) == [(17,)]


def test_a_copy_whose_log_holds_more_is_refused(copied: Path) -> None:
    copied.with_name(f"{copied.name}-wal").write_bytes(b"more")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(seen._rows(copied, QUERY))
