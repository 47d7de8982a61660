"""The decision records behind the leaves, in one SQLite file.

Kept as long as the trail, for auditors and the issuer. The file is filled from the `trail` stream in the order of the
leaves, without gaps, and can be filled again from it as long as that stream reaches back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from broker import by_hand, codec, reading
from broker.errors import TrailError
from broker.notice import RELEASED, Entry, Leaf
from broker.writing import WAIT_S, answering, keep_private, log_ahead, transaction

_SCHEMA = """
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS decision (
    leaf_number INTEGER PRIMARY KEY, salt BLOB NOT NULL, record BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS release (leaf_number INTEGER PRIMARY KEY, held INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS release_held ON release(held);
CREATE TABLE IF NOT EXISTS listed (since INTEGER NOT NULL);
"""
# listed: the leaf from which on every release is in `release`; files of an earlier version hold more before it.
# CAST: whatever a hand on the file made of them, records are compared with their leaf as bytes.
_GET = "SELECT CAST(salt AS BLOB), CAST(record AS BLOB) FROM decision WHERE leaf_number = ?"
_PAGE = """
SELECT leaf_number, CAST(salt AS BLOB), CAST(record AS BLOB) FROM decision
WHERE leaf_number >= ? ORDER BY leaf_number LIMIT 256
"""
# NORMAL: a power cut may take the last records, never one from the middle; `Sealer.recover` reads them again.


class Records:
    """Salt and decision record of every leaf. `add` may run in another thread than `get`."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        keep_private(path)
        self._database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        with answering():
            log_ahead(self._database)
            self._database.executescript(_SCHEMA)
            if self._database.execute("SELECT since FROM listed").fetchone() is None:
                self._database.execute("INSERT INTO listed SELECT coalesce(max(leaf_number) + 1, 0) FROM decision")

    @classmethod
    def to_read(cls, path: Path) -> Records:
        """Open what another process may be writing, or what nobody here may write: nothing of it changes.

        Raises sqlite3.Error, and OSError where there is no such file.
        """
        made = cls.__new__(cls)
        made._lock, made._database = Lock(), reading.database(path)  # noqa: SLF001 - our own
        return made

    def close(self) -> None:
        """Close the file, once nobody is reading it."""
        with self._lock:
            self._database.close()

    @property
    def size(self) -> int:
        """How many leaves have their record here."""
        with self._lock:
            (highest,) = self._database.execute("SELECT max(leaf_number) FROM decision").fetchone()
        return 0 if highest is None else int(highest) + 1

    def add(self, entries: Sequence[Entry]) -> None:
        """Add the records of leaves in order; those that are there stay.

        Raises TrailError if one would be missing, UnavailableError while another process keeps the file.
        """
        size = self.size
        new = [(each.leaf_number, each.decision_salt, each.decision) for each in entries if each.leaf_number >= size]
        if [each[0] for each in new] != list(range(size, size + len(new))):
            message = f"the decision records end at leaf {size}; leaf {new[0][0]} does not follow"
            raise TrailError(message)
        with self._lock, answering(), transaction(self._database):
            self._database.executemany("INSERT OR IGNORE INTO decision VALUES (?, ?, ?)", new)
            self._database.executemany("INSERT OR IGNORE INTO release VALUES (?, ?)", _releases(entries, size))

    def get(self, leaf_number: int) -> tuple[bytes, bytes] | None:
        """Give salt and decision record of a leaf, or None."""
        with self._lock:
            found = self._database.execute(_GET, (leaf_number,)).fetchone()
        return (found[0], found[1]) if found else None

    def releases(self, held: int) -> tuple[list[int], int]:
        """Give the leaves that released a held one, and the leaf before which there may be others, of an old file."""
        with self._lock:
            found = self._database.execute("SELECT leaf_number FROM release WHERE held = ? ORDER BY 1", (held,))
            leaves = [int(each[0]) for each in found]
            (since,) = self._database.execute("SELECT since FROM listed").fetchone()
        return leaves, int(since)

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream (leaf number, salt, record) from `begin` on."""
        while page := self.page(begin):
            yield from page
            begin = page[-1][0] + 1

    def page(self, begin: int) -> list[tuple[int, bytes, bytes]]:
        """Give the next of these, at most 256; none at the end."""
        with self._lock:
            return self._database.execute(_PAGE, (begin,)).fetchall()


def _releases(entries: Sequence[Entry], size: int) -> list[tuple[int, int | None]]:
    """Find the leaves from `size` on that release a held one: known by how they begin, nothing else is decoded."""
    begins = by_hand.leaf_prefix(RELEASED)
    found = [each for each in entries if each.leaf_number >= size and each.leaf.startswith(begins)]
    return [(each.leaf_number, codec.decode(Leaf, each.leaf).about) for each in found]
