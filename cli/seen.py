"""What others kept of a trail: heads and deliveries in the collectors' files, checkpoints in plain files."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from broker import notes
from broker.errors import ConfigurationError, ProofError
from broker.examine import SeenDelivery, SeenHead

INBOX = "inbox.*.db"
CHECKPOINT = "checkpoint*"


class Seen:
    """Files to compare with. What lies in the trail's own folder is never among them: it would bear itself out."""

    def __init__(self, paths: Sequence[Path], trail: Path) -> None:
        own = trail.resolve()
        files = sorted({each.resolve() for path in paths for each in _files(path)})
        self.files = [each for each in files if not each.is_relative_to(own)]
        self._inboxes = [each for each in self.files if each.match(INBOX)]
        self._plain = [each for each in self.files if not each.match(INBOX)]

    def heads(self) -> Iterator[SeenHead]:
        """Stream all kept heads by rising size."""
        plain = sorted((_plain(each) for each in self._plain), key=lambda each: each.size)
        yield from heapq.merge(plain, *map(_heads, self._inboxes), key=lambda each: each.size)

    def deliveries(self) -> Iterator[SeenDelivery]:
        """Stream all kept deliveries by rising leaf number."""
        yield from heapq.merge(*map(_deliveries, self._inboxes), key=lambda each: each.leaf_number)


def beside(trail: Path) -> list[Path]:
    """Find the collectors' files of the homes beside the trail's: HOME/members/*/inbox.*.db."""
    home = trail.resolve().parent.parent
    return sorted(home.glob(f"members/*/{INBOX}"))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.rglob(INBOX)
        yield from (each for each in path.rglob(CHECKPOINT) if each.is_file())
    elif path.exists():
        yield path
    else:
        raise ConfigurationError(f"there is nothing to compare with at {path}")


def _plain(file: Path) -> SeenHead:
    try:
        note = file.read_text(encoding="utf-8")
        head = notes.parse_checkpoint(notes.parse(note).text)
    except (OSError, UnicodeDecodeError, ProofError) as error:
        raise ConfigurationError(f"{file} is neither a checkpoint nor a collector's inbox.*.db: {error}") from error
    return SeenHead(head.size, head.root, note, str(file))


def _rows(file: Path, query: str) -> Iterator[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            yield from database.execute(query)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{file} cannot be read as a collector's file: {error}") from error


def _name(file: Path) -> str:
    """Name a collector's file as people know it: `AT/inbox.ncb.db`."""
    return f"{file.parent.name}/{file.name}"


def _heads(file: Path) -> Iterator[SeenHead]:
    for size, root, note in _rows(file, "SELECT size, root, note FROM heads ORDER BY size"):
        yield SeenHead(size, root, note, _name(file))


_DELIVERIES = """
SELECT leaf_number, leaf, bureau, delivery_number, row, salt, path, row_index FROM deliveries ORDER BY leaf_number
"""


def _deliveries(file: Path) -> Iterator[SeenDelivery]:
    name = _name(file)
    for values in _rows(file, _DELIVERIES):
        yield SeenDelivery(*[*values, name])
