"""Tells the bus file that this broker wrote from a copy of it, such as a restored backup, even one copied in its place.

`bus.birth` in the operator's home says which file it was, by inode and time of birth, and how far its record went. It
says the same of itself and is made anew at each start and every minute: a tool that copies both over what is there
keeps the inodes of today and brings back the words of before. A snapshot of the whole disk, rolled back, fits: against
that only witnesses help. On Kafka nothing is looked at.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from broker import durable, streams
from broker.bus import Bus
from broker.errors import CopiedError, UnavailableError
from cli.operator_home import OperatorHome

BIRTH = "bus.birth"
_AT_FDCWD, _AT_EMPTY_PATH, _STATX_BTIME, _STATX_BYTES, _BTIME_AT = -100, 0x1000, 0x800, 256, 80
"""Linux: statx(2); where struct statx has stx_btime."""


def bus_file(home: OperatorHome) -> Path | None:
    """Name the file of the embedded bus; None on Kafka."""
    return (home.folder / home.settings.bus_address).resolve() if home.settings.bus_kind == "sqlite" else None


async def check(home: OperatorHome, bus: Bus) -> None:
    """Check that the bus file is the one that this broker ran on; a home that never ran takes the one that is there.

    Raises CopiedError, and what `keep` does. The file must be there; what is checked is kept.
    """
    file = bus_file(home)
    if file is None:
        return
    kept, end = await _look(home, bus)
    if kept is None and (end or (home.folder / "trail" / "checkpoint").exists()):
        # Another process may have begun between the two looks: it keeps the note before it writes anything else.
        found, end = await _look(home, bus)
        kept = found or _NOT_OURS
    if kept and not (kept.itself and kept.bus == _birth(file) and kept.end <= end):
        message = f"{file} or {home.folder} is not what this broker ran on, but a copy, or was moved here"
        raise CopiedError(message)
    await keep(home, bus)


async def keep(home: OperatorHome, bus: Bus) -> None:
    """Remember the bus file as it is; durable on return.

    Raises UnavailableError while another process is at it or the disk takes nothing; what was kept before stays.
    """
    if file := bus_file(home):
        end = await bus.end(streams.TRAIL, partition=home.settings.shard)
        await asyncio.to_thread(_put, home.folder / BIRTH, file, end)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was kept; `itself` is whether the note is the file that it was written as."""

    bus: str
    itself: bool
    end: int


_NOT_OURS = _Kept("", itself=False, end=0)


async def _look(home: OperatorHome, bus: Bus) -> tuple[_Kept | None, int]:
    """Read the note, None if there is none, and how far the record goes."""
    kept = _kept(home.folder / BIRTH)
    # Only now: another process may keep a later end, and a file's own end never falls.
    return kept, await bus.end(streams.TRAIL, partition=home.settings.shard)


def _kept(note: Path) -> _Kept | None:
    """Read the note; None if there is none. One that cannot be read was not written by us: it is not itself."""
    try:
        opened = note.open(encoding="utf-8")
    except FileNotFoundError:
        return None
    with opened:
        try:
            bus, itself, end = opened.read().splitlines()
            return _Kept(bus, itself == _birth(opened.fileno()), int(end))
        except ValueError:
            return _NOT_OURS


def _put(note: Path, bus: Path, end: int) -> None:
    try:
        with durable.alone(note.parent):
            aside = note.with_name(f"{note.name}.new")
            aside.unlink(missing_ok=True)  # whatever lies here, what is renamed below is a file that never was
            aside.touch(exist_ok=False)
            durable.put(note, f"{_birth(bus)}\n{_birth(aside)}\n{end}\n".encode())
    except OSError as error:  # a full disk, perhaps: no reason to end a broker that runs
        raise UnavailableError(f"{note} cannot be written now: {error.strerror or error}") from error


def _birth(file: Path | int) -> str:
    """Tell inode and time of birth of a path or an open file; the latter only where the file system keeps it.

    By its path where SQLite has it open: to close a second descriptor would end SQLite's locks (POSIX).
    """
    number = f"{os.stat(file).st_ino}"  # noqa: PTH116 - a Path has no number
    at, path, flags = (file, b"", _AT_EMPTY_PATH) if isinstance(file, int) else (_AT_FDCWD, os.fsencode(file), 0)
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        failed = ctypes.CDLL(None, use_errno=True).statx(at, path, flags, _STATX_BTIME, ctypes.byref(answer))
    except AttributeError:  # no statx: not Linux, or an old C library
        return number
    (mask,) = struct.unpack_from("=I", answer)
    if failed or not mask & _STATX_BTIME:
        return number
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _BTIME_AT)
    return f"{number} {seconds}.{nanoseconds:09}"
