"""Finds what other accounts of the machine could read or change."""

from __future__ import annotations

from pathlib import Path


def open_to_others(folder: Path) -> list[str]:
    """Name the folder, and whatever is in it, that group or others may do anything with."""
    found = (each for each in (folder, *folder.rglob("*")) if not each.is_symlink())
    return sorted(str(each) for each in found if each.stat().st_mode & 0o077)
