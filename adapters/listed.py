"""Lists, by the root under which it was signed, which version came as a directory: nothing else is one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from broker import durable

DIGEST = re.compile(r"[0-9a-f]{64}")


class Listed:
    """The folder `directories` of a home's `versions`: one of each root, in it an empty file named by each digest.

    A home of before has none of a root until one is made, of what was signed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def exists(self, root: str) -> bool:
        """Say whether there is a list of this root."""
        return (self._folder / root).is_dir()

    def has(self, root: str, digest: str) -> bool:
        """Say whether a version came as a directory under this root."""
        return (self._folder / root / digest).is_file()

    def all(self, root: str) -> set[str]:
        """Give the digests of all that did."""
        return {each.name for each in (self._folder / root).glob("*") if DIGEST.fullmatch(each.name)}

    def add(self, root: str, digest: str) -> None:
        """Add one."""
        if not self.has(root, digest):
            durable.make_lasting(self._folder / root)
            durable.write(self._folder / root / digest, b"")

    def make(self, root: str, digests: Iterable[str]) -> None:
        """Make the list of a root that has none: it is there whole or not at all."""
        folder = self._folder / root
        aside = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(aside, ignore_errors=True)  # a kill left it
        aside.mkdir(parents=True)
        for each in digests:
            durable.write(aside / each, b"")
        with suppress(OSError):  # another process was faster, and its list is as good
            aside.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
        durable.sync(folder.parent)
