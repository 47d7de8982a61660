"""Evidence is read from copies that nobody may write, as an auditor keeps them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from broker import reading
from broker.errors import ConfigurationError
from cli import seen
from tests.audit.homes import Homes, standing

QUERY = "SELECT number FROM kept"
NOBODY = 65534


@contextmanager
def unwritable(folder: Path) -> Iterator[Path]:
    """Give a copy that may be read and not written, to root neither: it becomes nobody meanwhile."""
    with TemporaryDirectory() as made:  # pytest's folders are closed to nobody
        copy = Path(made) / folder.name
        shutil.copytree(folder, copy)
        folders = [Path(made), copy, *(each for each in copy.rglob("*") if each.is_dir())]
        for each in folders:
            each.chmod(0o555)
        for each in (each for each in copy.rglob("*") if each.is_file() and each.suffix not in (".key", ".pem")):
            each.chmod(0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield copy
        finally:
            if root:
                os.seteuid(0)
            for each in folders:
                each.chmod(0o755)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file with a write-ahead log, as its writer left it: closed, and its log emptied."""
    folder = tmp_path / "kept"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "inbox.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE kept AS SELECT 17 AS number")
        database.commit()
    return folder


def rows(folder: Path) -> list[tuple[int]]:
    return list(seen._rows(folder / "inbox.db", QUERY, (object,)))


def test_a_copy_is_read_where_nothing_can_be_written_beside_it(kept: Path) -> None:
    with unwritable(kept) as copy:
        assert rows(copy) == [(17,)]


def test_a_copy_taken_while_its_writer_ran_is_read_with_what_its_log_holds_or_not_at_all(kept: Path) -> None:
    """Without the log it would be an older state, and nobody would say so."""
    with closing(sqlite3.connect(kept / "inbox.db")) as database:
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("UPDATE kept SET number = 18")
        database.commit()
        assert (kept / "inbox.db-wal").stat().st_size
        with unwritable(kept) as copy:
            assert rows(copy) == [(18,)]
        shutil.copytree(kept, kept.parent / "without-shm", ignore=lambda *_: ["inbox.db-shm"])
        with (
            unwritable(kept.parent / "without-shm") as copy,
            pytest.raises(ConfigurationError, match="where one may write: copy"),
        ):
            rows(copy)


def test_a_file_that_its_writer_keeps_is_not_read_as_if_it_stood_still(kept: Path) -> None:
    with closing(sqlite3.connect(kept / "inbox.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reading, "WAIT_S", 0.1)
            with pytest.raises(ConfigurationError, match="locked"):
                rows(kept)


def test_every_question_to_a_home_that_nobody_may_write_is_answered(tmp_path: Path) -> None:
    with standing(tmp_path / "home") as homes:
        name, leaf = homes.published("r-1")
        homes.read(name)
    asked = [
        ("show", name),
        ("search", "--bureau", "LV/ncb"),
        ("reads", name),
        ("prove", str(leaf)),
        ("export", name, "--digests-only", "--to"),
        ("verify", str(homes.operator / "trail"), "--records"),
    ]
    with unwritable(homes.folder) as copy, TemporaryDirectory() as made:
        before = listed(copy)
        for each in asked:
            words = [word.replace(str(homes.folder), str(copy)) for word in each]
            said = Homes(copy).audit(*words, *([f"{made}/bundle.json"] if words[-1] == "--to" else []))
            assert said.code == 0, (each, said)
        assert listed(copy) == before


def listed(folder: Path) -> dict[str, int]:
    """All files and when each was written."""
    return {str(each): each.stat().st_mtime_ns for each in folder.rglob("*")}
