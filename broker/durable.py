"""Files and folders that survive a power cut once the call returns."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from broker.errors import UnavailableError

AT_ONCE = 8
_SYNCING = ThreadPoolExecutor(AT_ONCE, "fsync")
"""Its threads start with the first use and stay."""
LEFT_BYTES = 8
"""Of chance in the name of what is aside."""
ALONE_S, AGAIN_S = 10.0, 0.05
"""Seconds that one process waits for another in a folder, and between two tries."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def begin(file: Path, data: bytes) -> int:
    """Write a file, not yet durable; return its descriptor. A file that holds these bytes already is left alone."""
    if file.exists() and file.read_bytes() == data:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _write(fd, data)
    except OSError:
        os.close(fd)
        raise
    return fd


def write(file: Path, data: bytes) -> None:
    """Write a file and make it and its place in the folder durable."""
    fd = begin(file, data)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    sync(file.parent)


def write_new(file: Path, data: bytes) -> None:
    """Write a file for its owner alone where nothing is yet, durable on return. A kill leaves half of it.

    Raises FileExistsError for whatever bears this name, a link that leads nowhere, too.
    """
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, data)
        os.fsync(fd)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync(file.parent)


def put_new(file: Path, data: bytes) -> None:
    """Put a file for its owner alone where nothing is yet: nobody ever sees less than the whole of it.

    A kill may leave what was aside, `.NAME.….new`, half of it or a second name of the file: it goes with the next call,
    or by `remove_left`. Raises FileExistsError where another was first.
    """
    aside = file.with_name(f".{file.name}.{secrets.token_hex(LEFT_BYTES)}.new")
    try:
        write_new(aside, data)
        os.link(aside, file)  # a rename would put it in another's place
    except (FileExistsError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and not os.path.lexists(file):
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file)) from error
    finally:
        aside.unlink(missing_ok=True)
        remove_left(file)
    sync(file.parent)


def left(file: Path) -> list[Path]:
    """Find what kills have left aside of a file that was put by `put_new`: each may be a second name of it."""
    return sorted(file.parent.glob(f".{glob.escape(file.name)}.{'[0-9a-f]' * 2 * LEFT_BYTES}.new"))


def remove_left(file: Path) -> None:
    """Remove what kills have left aside of a file that is there: whoever is about to put it would come too late."""
    if not os.path.lexists(file):
        return
    for each in (found := left(file)):
        each.unlink(missing_ok=True)
    if found:
        sync(file.parent)


def put(file: Path, data: bytes) -> None:
    """Put a file in the place of another, which is there whole until this one is: aside, fsync, rename, fsync.

    Who puts the same file at the same time comes before or after. Raises UnavailableError if that one does not go on.
    """
    _put(file, data, 0o644)


def put_private(file: Path, data: bytes) -> None:
    """Put a file as `put` does, for its owner alone from its first byte: also where a kill left one open to others."""
    _put(file, data, 0o600)


def _put(file: Path, data: bytes, mode: int) -> None:
    aside = file.with_name(f"{file.name}.new")
    fd = _held(aside, mode)
    try:
        os.ftruncate(fd, 0)
        _write(fd, data)
        os.fsync(fd)  # its place in the folder need not last: the rename gives it another
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)  # half of a key, perhaps, on a full disk; while we hold it nobody else writes it
        raise
    finally:
        os.close(fd)
    sync(file.parent)


def sync_together(files: Sequence[int], folders: Iterable[Path]) -> None:
    """Make open files and the entries of folders durable, all at once: a disk takes many as fast as one."""
    opened = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in folders]
    try:
        under_way = [_SYNCING.submit(os.fsync, each) for each in (*files, *opened)]
        wait(under_way)  # after a failure, too: a descriptor that is closed under a call may be another file's by then
        for done in under_way:
            done.result()
    finally:
        for each in opened:
            os.close(each)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Turn what a full disk says to whoever writes below a folder into UnavailableError: room mends it, not a start."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        file = f": {error.filename}" if error.filename else ""
        raise UnavailableError(f"there is no room on a disk of {folder} ({error.strerror}{file})") from error


def make(folder: Path, mode: int = 0o777) -> set[Path]:
    """Make a folder; return it and the folders that gained an entry: all of them are to be synced."""
    touched = {folder}
    each = folder
    while not each.is_dir():
        each = each.parent
        touched.add(each)
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    return touched


def make_lasting(folder: Path, mode: int = 0o777) -> None:
    """Make a folder that is there after a power cut, with all above it: what is put in it syncs it alone.

    What another process makes at this moment may not last yet.
    """
    for each in make(folder, mode) - {folder}:
        sync(each)


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone may enter, or see to it that one of before is such.

    What lies in it is the owner's alone, then, whatever its own mode: a disk that is mounted, or a file of before.
    """
    make_lasting(folder, 0o700)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of blocks like this one over the same folder; the kernel ends it with the process.

    Raises UnavailableError if another stays in its block, as a stopped process does. Blocks the thread meanwhile.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, folder, time.monotonic() + ALONE_S)
        yield
    finally:
        os.close(fd)


def locked(fd: int, folder: Path, deadline: float) -> bool:
    """Try once to lock an open file; say whether it is ours now. Raises UnavailableError after the deadline."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if time.monotonic() > deadline:
            message = f"another process has been writing in {folder} for some time: try again, end it if it is stopped"
            raise UnavailableError(message) from error
        return False
    return True


def _held(aside: Path, mode: int) -> int:
    """Open a file that nobody else holds; return its descriptor, with which the hold ends."""
    deadline, is_first = time.monotonic() + ALONE_S, True
    while True:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            _lock(fd, aside.parent, deadline)
            if lies_at(aside, fd):
                if not is_first or not os.fstat(fd).st_mode & 0o777 & ~mode:  # some disks know no modes
                    return fd
                is_first = False
                aside.unlink()  # who may have it open would read on in it
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # who held it before us has renamed it: it is the file in place by now


def lies_at(path: Path, fd: int) -> bool:
    """Say whether an open file is what lies there by now: who waited for its lock may hold one that is gone."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _lock(fd: int, folder: Path, deadline: float) -> None:
    while not locked(fd, folder, deadline):
        time.sleep(AGAIN_S)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync(folder: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
