"""Files that are put in the place of others: whole at any moment, by however many at once."""

from __future__ import annotations

import fcntl
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from broker import durable
from broker.errors import UnavailableError

TIMES = 200


def put_often(file: Path, said: bytes) -> bool:
    """Put a file again and again; say whether it was always the whole of what somebody put."""
    whole = True
    for length in range(TIMES):
        durable.put(file, said * (length + 1))
        whole = whole and len(set(file.read_bytes())) == 1
    return whole


def test_processes_that_put_the_same_file_at_once_all_do_and_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "vkey"
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as processes:
        assert all(processes.map(put_often, [file] * 4, [b"a", b"b", b"c", b"d"]))
    assert len(file.read_bytes()) == TIMES
    assert [each.name for each in tmp_path.iterdir()] == ["vkey"]


def test_what_a_killed_process_left_aside_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "vkey.new").write_bytes(b"half of something longer")
    durable.put(tmp_path / "vkey", b"whole")
    assert (tmp_path / "vkey").read_bytes() == b"whole"
    assert not (tmp_path / "vkey.new").exists()


def test_of_one_that_is_stopped_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 0.1)
    durable.put(tmp_path / "vkey", b"before")
    with (tmp_path / "vkey.new").open("wb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        opened = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(UnavailableError, match="another process is stopped"):
            durable.put(tmp_path / "vkey", b"after")
        assert len(list(Path("/proc/self/fd").iterdir())) == opened
    assert (tmp_path / "vkey").read_bytes() == b"before"
