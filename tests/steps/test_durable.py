"""Files that are put in the place of others: whole at any moment, by however many at once."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from broker import durable
from broker.errors import UnavailableError
from tests.killed import AFRESH

TIMES = 200


def put_often(file: Path, said: bytes) -> bool:
    """Put a file again and again; say whether it was always the whole of what somebody put."""
    whole, durable.ALONE_S = True, 60.0  # the others may write that long on a busy machine
    lay = durable.put if said < b"c" else durable.put_private
    for length in range(TIMES):
        lay(file, said * (length + 1))
        whole = whole and len(set(file.read_bytes())) == 1
    return whole


def test_processes_that_put_the_same_file_at_once_all_do_and_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "vkey"
    with ProcessPoolExecutor(4, mp_context=AFRESH) as processes:
        assert all(processes.map(put_often, [file] * 4, [b"a", b"b", b"c", b"d"]))
    assert len(file.read_bytes()) == TIMES
    assert [each.name for each in tmp_path.iterdir()] == ["vkey"]


def test_what_a_killed_process_left_aside_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "vkey.new").write_bytes(b"half of something longer")
    durable.put(tmp_path / "vkey", b"whole")
    assert (tmp_path / "vkey").read_bytes() == b"whole"
    assert not (tmp_path / "vkey.new").exists()


def test_what_is_put_in_private_is_its_owners_alone_though_a_kill_left_a_file_open_to_others(tmp_path: Path) -> None:
    left = tmp_path / "root.key.new"
    left.touch()
    left.chmod(0o644)
    with left.open("rb") as theirs:
        durable.put_private(tmp_path / "root.key", b"the key")
        assert theirs.read() == b""
    assert (tmp_path / "root.key").read_bytes() == b"the key"
    assert {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {"root.key": 0o600}


@pytest.mark.parametrize("lay", [durable.put, durable.put_private])
def test_nothing_is_put_through_a_link_that_lies_aside(tmp_path: Path, lay: Callable[[Path, bytes], None]) -> None:
    (tmp_path / "key.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        lay(tmp_path / "key", b"ours")
    assert [each.name for each in tmp_path.iterdir()] == ["key.new"]


Lay = Callable[[Path, bytes], None]


@pytest.mark.parametrize(
    ("lay", "synced"),
    [
        (durable.put, [("vkey.new", b"before"), ("folder", b"after")]),
        (durable.write, [("vkey", b"after"), ("folder", b"after")]),
        (durable.write_new, [("vkey", b"after"), ("folder", b"after")]),
        (durable.put_new, [("aside", b""), ("folder", b""), ("folder", b"after")]),
    ],
    ids=["put", "write", "write_new", "put_new"],
)
def test_bytes_are_on_the_disk_before_they_are_in_place_and_their_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lay: Lay, synced: list[tuple[str, bytes]]
) -> None:
    """What a power cut could take away no kill can show: of each fsync, on what, and what was in place by then."""
    file, folder, found = tmp_path / "folder" / "vkey", tmp_path / "folder", list[tuple[str, bytes]]()
    folder.mkdir()
    if lay in (durable.put, durable.write):
        file.write_bytes(b"before")
    real = os.fsync

    def watched(fd: int) -> None:
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        found.append(("aside" if name.startswith(".vkey.") else name, file.read_bytes() if file.exists() else b""))
        real(fd)

    monkeypatch.setattr(os, "fsync", watched)
    lay(file, b"after")
    assert found == synced
    assert file.read_bytes() == b"after"


def test_a_folder_of_before_is_closed_to_all_but_its_owner(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir(mode=0o755)
    for each in ("before", "new"):
        durable.make_private(tmp_path / each)
        assert (tmp_path / each).stat().st_mode & 0o777 == 0o700


def test_of_one_that_is_stopped_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "ALONE_S", 0.1)
    durable.put(tmp_path / "vkey", b"before")
    with (tmp_path / "vkey.new").open("wb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        opened = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(UnavailableError, match="end it if it is stopped"):
            durable.put(tmp_path / "vkey", b"after")
        assert len(list(Path("/proc/self/fd").iterdir())) == opened
    assert (tmp_path / "vkey").read_bytes() == b"before"


def put_first(folder: Path, said: bytes) -> list[int]:
    """Put new files; return which of them were not another's, and see that those are whole from the first moment."""
    own = []
    for number in range(TIMES):
        file = folder / str(number)
        with suppress(FileExistsError):
            durable.put_new(file, said * 9)
            own.append(number)
        assert file.read_bytes() in {each * 9 for each in (b"a", b"b", b"c")}
    return own


def test_of_processes_that_put_the_same_new_file_at_once_one_does_and_the_others_see_all_of_it(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=AFRESH) as processes:
        own = list(processes.map(put_first, [tmp_path] * 3, [b"a", b"b", b"c"]))
    assert sorted(each for one in own for each in one) == list(range(TIMES))
    for said, one in zip((b"a", b"b", b"c"), own, strict=True):
        assert all((tmp_path / str(each)).read_bytes() == said * 9 for each in one)
    assert len(list(tmp_path.iterdir())) == TIMES
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("lay", [durable.put_new, durable.write_new])
def test_nothing_is_written_over_nor_through_a_link_that_was_put_there(
    tmp_path: Path, lay: Callable[[Path, bytes], None]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").write_bytes(b"theirs")
    for path in (tmp_path / "link", tmp_path / "file"):
        with pytest.raises(FileExistsError) as said:
            lay(path, b"ours")
        assert said.value.filename == str(path)
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert {each.name for each in tmp_path.iterdir()} == {"link", "file"}


@pytest.mark.parametrize("lay", [durable.put_new, durable.write_new, durable.put, durable.put_private])
def test_half_of_a_file_does_not_stay_where_there_is_no_room_for_it(
    tmp_path: Path, lay: Callable[[Path, bytes], None]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            lay(tmp_path / "file", b"more than ten bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def synced_while_made(folder: Path) -> set[Path]:
    """Make a folder, and a file in it, in a process of its own; give the folders that were opened for that."""
    opened = set[Path]()
    sys.addaudithook(lambda event, given: opened.add(Path(given[0])) if event == "open" else None)
    durable.make_private(folder)
    durable.put(folder / "key", b"a key")
    return {each for each in opened if each.is_dir()}


def test_all_folders_above_what_is_put_in_a_new_one_last(tmp_path: Path) -> None:
    """Else a power cut takes a home, and with it the key of which others know already."""
    with ProcessPoolExecutor(1, mp_context=AFRESH) as process:
        folder = tmp_path / "home" / "members" / "AT"
        assert process.submit(synced_while_made, folder).result() >= {tmp_path, *list(folder.parents)[:2], folder}
    assert folder.stat().st_mode & 0o777 == 0o700
