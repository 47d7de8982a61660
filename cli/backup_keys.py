"""The keys of backups: one for each day, in a folder of its own; with a key go all backups of its day."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path

from broker import durable
from broker.errors import ConfigurationError
from broker.vault import KEY_SIZE

SUFFIX = ".backup-key"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def of(folder: Path, day: date) -> tuple[str, bytes]:
    """Give name and key of a day; the first to ask makes it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{day.isoformat()}{SUFFIX}"
    if not file.exists():
        file.touch(mode=0o600)
        durable.write(file, os.urandom(KEY_SIZE))
    return day.isoformat(), find(folder, day.isoformat())


def find(folder: Path, name: str) -> bytes:
    """Give the key of this name. Raises ConfigurationError where it is not there, or others may read it."""
    file = folder / f"{name}{SUFFIX}"
    if not _DAY.fullmatch(name) or not file.is_file():
        message = f"the key of {name[:10]} is not in {folder}: it was destroyed, and with it all that is under it"
        raise ConfigurationError(message)
    if file.stat().st_mode & 0o077:
        message = f"{file} may be read by others: chmod 600 {file}"
        raise ConfigurationError(message)
    key = file.read_bytes()
    if len(key) != KEY_SIZE:
        message = f"{file} holds no key"
        raise ConfigurationError(message)
    return key


def destroy(folder: Path, before: date) -> list[str]:
    """Overwrite and remove the keys of days before this one; return which. Durable on return."""
    gone = []
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        name = file.name.removesuffix(SUFFIX)
        if not _DAY.fullmatch(name) or date.fromisoformat(name) >= before:
            continue
        with file.open("r+b") as opened:
            opened.write(bytes(file.stat().st_size))
            opened.flush()
            os.fsync(opened.fileno())
        file.unlink()
        gone.append(name)
    if gone:
        durable.sync(folder)
    return gone
