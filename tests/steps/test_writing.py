"""A transaction in a file of the home is kept whole or not at all."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import FencedError, UnavailableError
from broker.records import Records
from broker.register import Register
from broker.writing import AWAY, answering, keep_private, log_ahead, transaction
from cli import refused
from tests.modes import open_to_others


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None)


def _insert(database: sqlite3.Connection, *, times: int = 1, fenced: bool = False) -> None:
    with answering(), transaction(database):
        for _ in range(times):
            database.execute("INSERT INTO t VALUES (1)")
        if fenced:
            raise FencedError


def test_a_block_that_fails_leaves_nothing_and_the_file_free(tmp_path: Path) -> None:
    with closing(_connect(tmp_path / "a")) as one, closing(_connect(tmp_path / "a")) as other:
        one.execute("CREATE TABLE t(n)")
        with pytest.raises(FencedError):
            _insert(one, fenced=True)
        with transaction(other):
            other.execute("INSERT INTO t VALUES (2)")
        assert one.execute("SELECT n FROM t").fetchall() == [(2,)]


def test_a_file_that_another_keeps_is_unavailable_and_not_broken(tmp_path: Path) -> None:
    with closing(_connect(tmp_path / "a")) as one, closing(_connect(tmp_path / "a")) as other:
        one.execute("CREATE TABLE t(n)")
        with transaction(other), pytest.raises(UnavailableError, match="locked"), answering(), transaction(one):
            pytest.fail("nothing is written while another writes")
        with transaction(one):
            one.execute("INSERT INTO t VALUES (1)")
        assert not one.in_transaction


@pytest.mark.parametrize(("kind", "table"), [(Register, "owner"), (Records, "listed")])
def test_a_file_of_before_that_another_keeps_is_unavailable_when_it_is_opened(
    tmp_path: Path, kind: type[Register | Records], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    kind(file).close()
    monkeypatch.setattr(sys.modules[kind.__module__], "WAIT_S", 0.1)
    with closing(_connect(file)) as other:
        other.execute(f"DROP TABLE {table}")
        with transaction(other), pytest.raises(UnavailableError, match="locked"):
            kind(file)
    monkeypatch.undo()
    kind(file).close()


def test_what_is_wrong_with_a_statement_of_ours_is_no_busy_file(tmp_path: Path) -> None:
    with closing(_connect(tmp_path / "a")) as one:
        one.execute("CREATE TABLE t(n INTEGER PRIMARY KEY)")
        with pytest.raises(sqlite3.IntegrityError):
            _insert(one, times=2)
        assert one.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_who_opens_a_new_file_waits_for_another_that_makes_it(tmp_path: Path) -> None:
    one = sqlite3.connect(tmp_path / "a", timeout=60, isolation_level=None)
    with closing(one), closing(_connect(tmp_path / "a")) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE t(n)")
        tries = list[str]()

        def tried(statement: str) -> None:
            """Let the other end with the second try."""
            tries.append(statement)
            if other.in_transaction and sum("journal_mode" in each for each in tries) == 2:
                other.execute("COMMIT")

        one.set_trace_callback(tried)
        log_ahead(one)
        assert one.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        with transaction(other):  # a file that has its log is opened while another writes
            log_ahead(one)


def test_who_opens_a_new_file_waits_no_longer_than_for_any_lock(tmp_path: Path) -> None:
    one, other = _connect(tmp_path / "a"), _connect(tmp_path / "a")
    with closing(one), closing(other), transaction(other):
        with pytest.raises(UnavailableError, match="locked"), refused.here():
            log_ahead(one)
        assert one.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_statement_of_ours_that_is_wrong_is_no_busy_file_where_codes_are_named(tmp_path: Path) -> None:
    with closing(_connect(tmp_path / "a")) as one, closing(_connect(tmp_path / "a")) as other:
        with pytest.raises(sqlite3.OperationalError), answering(only=AWAY):
            one.execute("SELECT * FROM missing")
        with transaction(other), pytest.raises(UnavailableError), answering(only=AWAY):
            one.execute("BEGIN IMMEDIATE")


def test_a_database_and_its_log_are_for_their_owner_alone_also_those_of_before(tmp_path: Path) -> None:
    with closing(_connect(tmp_path / "old")) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.execute("CREATE TABLE t(n)")
        for each in tmp_path.iterdir():
            each.chmod(0o644)
        keep_private(tmp_path / "old")
        keep_private(tmp_path / "new")
        with closing(_connect(tmp_path / "new")) as new:
            new.execute("PRAGMA journal_mode = WAL")
            new.execute("CREATE TABLE t(n)")
            assert len(list(tmp_path.iterdir())) == 6
            assert open_to_others(tmp_path) == []
