"""Finds what other accounts of the machine could read or change."""

from __future__ import annotations

import stat
from pathlib import Path


def open_to_others(folder: Path) -> list[str]:
    """Name the folder, and whatever is in it, that group or others may do anything with."""
    return sorted(str(each) for each in (folder, *folder.rglob("*")) if _is_open(each))


def _is_open(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False  # a broker that runs has put it in another's place meanwhile
    return not stat.S_ISLNK(mode) and mode & 0o077 != 0
