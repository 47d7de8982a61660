"""How full the disks are that a broker's home, its bus file and its own nodes lie on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.settings import Settings

SCARCE = 0.1
"""Of a disk: with less than this free it is red. Nothing makes room by itself."""
MAKE_ROOM = "make room: streams keep 30 days, however much that is"


Usage = Callable[[Path], tuple[int, int, int]]
"""Tells of the disk on which a folder lies: bytes in all, used, and free for us (`shutil.disk_usage`)."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk by a folder that lies on it. In bytes; `total` is what is used or free, without what the system keeps."""

    folder: str
    free: int
    total: int
    scarce: bool


def look(folder: Path, usage: Usage = shutil.disk_usage) -> Disk:
    """Look how full the disk is that a folder lies on."""
    _, used, free = usage(folder)
    return Disk(str(folder), free, used + free, free < SCARCE * (used + free))


def of_home(folder: Path, settings: Settings, usage: Usage = shutil.disk_usage) -> list[Disk]:
    """Look at each disk once. Nodes that others run are theirs to watch: no client is told how full they are."""
    places = [folder, folder / "trail", *sorted((folder / "kafka").glob("node-*/data"))]
    if settings.bus_kind == "sqlite":
        places.append((folder / settings.bus_address).resolve().parent)
    disks: dict[int, Path] = {}
    for each in places:
        if each.is_dir():
            disks.setdefault(each.stat().st_dev, each)
    return [look(each, usage) for each in disks.values()]


def said(disk: Disk) -> str:
    """Say how much is left."""
    return f"{disk.free / 1e9:,.1f} of {disk.total / 1e9:,.1f} GB are free where {disk.folder} lies"
