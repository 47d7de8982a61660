"""The keys of backups: one for each day, in a folder of its own; with a key go all backups of its day."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import date
from pathlib import Path

from broker import durable
from broker.errors import ConfigurationError
from broker.vault import KEY_SIZE

SUFFIX = ".backup-key"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def of(folder: Path, day: date) -> tuple[str, bytes]:
    """Give name and key of a day; the first to ask makes it. Durable on return."""
    durable.make_lasting(folder, 0o700)
    file = folder / f"{day.isoformat()}{SUFFIX}"
    if not os.path.lexists(file):
        _make(file)
    durable.remove_left(file)
    return day.isoformat(), find(folder, day.isoformat())


def _make(file: Path) -> None:
    """Put a new key there; where another process was first, its key stays."""
    with suppress(FileExistsError):
        durable.put_new(file, os.urandom(KEY_SIZE))


def find(folder: Path, name: str) -> bytes:
    """Give the key of this name. Raises ConfigurationError where it is not there, or others may read it."""
    file = folder / f"{name}{SUFFIX}"
    if not folder.is_dir():
        message = f"{folder} is not there: name the folder of the days' keys"
        raise ConfigurationError(message)
    if not _DAY.fullmatch(name) or not file.is_file():
        message = (
            f"the key of {name[:10]} is not in {folder}: it lies elsewhere, or it was destroyed, and with it all that "
            "is under it"
        )
        raise ConfigurationError(message)
    if file.stat().st_mode & 0o077:
        message = f"{file} may be read by others: chmod 600 {file}"
        raise ConfigurationError(message)
    key = file.read_bytes()
    if len(key) != KEY_SIZE:
        message = f"{file} holds no key: what was to be under it cannot be read. Move it away, and a new one is made"
        raise ConfigurationError(message)
    return key


def newest(folder: Path) -> date | None:
    """Tell the newest day that has a key."""
    return max(_days(folder), default=None)


def destroy(folder: Path, before: date) -> list[str]:
    """Overwrite and remove the keys of days before this one; return which. Durable on return."""
    due, gone = {day: file for day, file in _days(folder).items() if day < before}, list[str]()
    for day, file in sorted(due.items()):
        with suppress(FileNotFoundError):  # another backup of today has destroyed it meanwhile
            with file.open("r+b") as opened:
                opened.write(bytes(os.fstat(opened.fileno()).st_size))
                opened.flush()
                os.fsync(opened.fileno())
            file.unlink()
            gone.append(day.isoformat())
    if due:  # also what another has just removed
        durable.sync(folder)
    return gone


def _days(folder: Path) -> dict[date, Path]:
    """Find the days that have a key, and where it lies."""
    found = {}
    for file in folder.glob(f"*{SUFFIX}"):
        with suppress(ValueError):
            found[date.fromisoformat(file.name.removesuffix(SUFFIX))] = file
    return found
