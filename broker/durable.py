"""Files and folders that survive a power cut once the call returns."""

from __future__ import annotations

import os
from pathlib import Path


def begin(file: Path, data: bytes) -> int:
    """Write a file, not yet durable; return its descriptor. A file that holds these bytes already is left alone."""
    if file.exists() and file.read_bytes() == data:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
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


def make(folder: Path) -> set[Path]:
    """Make a folder; return it and the folders that gained an entry: all of them are to be synced."""
    touched = {folder}
    each = folder
    while not each.is_dir():
        each = each.parent
        touched.add(each)
    folder.mkdir(parents=True, exist_ok=True)
    return touched


def sync(folder: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
