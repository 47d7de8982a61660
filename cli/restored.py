"""Tells the bus file that this broker wrote from a copy of it, such as a restored backup.

`bus.birth` in the operator's home says which file it was: its inode and time of birth, which no tool can copy. A
snapshot of the whole disk, rolled back, has both: against that only witnesses help. On Kafka nothing is looked at.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from broker import durable, streams
from broker.bus import Bus
from broker.errors import CopiedError
from cli.operator_home import OperatorHome

BIRTH = "bus.birth"
_AT_FDCWD, _STATX_BTIME, _STATX_BYTES, _BTIME_AT = -100, 0x800, 256, 80
"""Linux: statx(2); where struct statx has stx_btime."""


def bus_file(home: OperatorHome) -> Path | None:
    """Name the file of the embedded bus; None on Kafka."""
    return (home.folder / home.settings.bus_address).resolve() if home.settings.bus_kind == "sqlite" else None


async def check(home: OperatorHome, bus: Bus) -> None:
    """Check that the bus file is the one that this broker ran on; a home that never ran takes the one that is there.

    Raises CopiedError. The file must be there.
    """
    file = bus_file(home)
    if file is None:
        return
    kept = home.folder / BIRTH
    if kept.exists():
        same = kept.read_text(encoding="utf-8") == _birth(file)
    else:
        begun = (home.folder / "trail" / "checkpoint").exists()
        same = not begun and not await bus.end(streams.TRAIL, partition=home.settings.shard)
    if not same:
        raise CopiedError(f"{file} is not the file that this broker ran on, but a copy, or was moved here")
    keep(home)


def keep(home: OperatorHome) -> None:
    """Remember the bus file; durable on return."""
    if file := bus_file(home):
        durable.put(home.folder / BIRTH, _birth(file).encode())


def _birth(file: Path) -> str:
    """Tell inode and time of birth; the latter is left out where the file system does not keep it."""
    found = f"{file.stat().st_ino}\n"
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        failed = ctypes.CDLL(None, use_errno=True).statx(
            _AT_FDCWD, os.fsencode(file), 0, _STATX_BTIME, ctypes.byref(answer)
        )
    except AttributeError:  # no statx: not Linux, or an old C library
        return found
    (mask,) = struct.unpack_from("=I", answer)
    if failed or not mask & _STATX_BTIME:
        return found
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _BTIME_AT)
    return f"{found}{seconds}.{nanoseconds:09}\n"
