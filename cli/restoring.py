"""What a restore sets aside until all of it was checked: keys in clear, for nobody else to read, gone with the run.

Whoever restores keeps the home locked, which the kernel ends with the process: what is aside in a home that nobody has
locked was left by a restore that was killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.errors import ConfigurationError
from cli import answer

NAME = ".operator.restoring"


@contextmanager
def aside(home: Path) -> Iterator[Path]:
    """Make the folder; at the end it is gone, and so is the home if it was made for it and nothing came of that.

    Raises ConfigurationError where another restore runs.
    """
    missing = [each for each in (home, *home.parents) if not each.exists()]
    home.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(home) as ours:
            if not ours:
                message = f"another restore into {home} runs"
                raise ConfigurationError(message)
            folder = home / NAME
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        for each in missing:
            with suppress(OSError):  # something is in it
                each.rmdir()


def left(home: Path) -> Path | None:
    """Find what a killed restore has left in a home."""
    with _left(home) as found:
        return found


def tell_left(home: Path) -> None:
    """Say what a killed restore has left in a home, if it did."""
    if found := left(home):
        answer.aside(f"{said_of(found)}; the next restore into {home} removes it")


def remove_left(home: Path) -> None:
    """Remove what a killed restore has left in a home, and say so. Raises OSError."""
    with _left(home) as found:  # locked until it is gone: what another restore makes here meanwhile is its own
        if found is None:
            return
        shutil.rmtree(found)
    answer.aside(f"{said_of(found)}; it is removed")


@contextmanager
def _left(home: Path) -> Iterator[Path | None]:
    """Find what was left, and keep the home locked where there is some."""
    folder = home / NAME
    if not folder.exists():
        yield None
        return
    with _locked(home) as ours:
        yield folder if ours and folder.exists() else None


def said_of(found: Path) -> str:
    """Say what was left, and that it is no rubbish: the keys of a home are in it."""
    return f"{found} was left by a restore that was killed, and holds what its backup does, in clear"


@contextmanager
def _locked(home: Path) -> Iterator[bool]:
    """Lock a home, and tell whether that could be done: no other restore has it."""
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
