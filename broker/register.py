"""The notices in force, who holds them, and what is left of those that have ended.

An index over a local SQLite cache of the `register` stream, stamped with its place in it and rebuilt from it. What a
step changes is seen by the steps after it at once, and kept in the cache only after the step is committed. Other
processes of the home may empty or move the cache at any moment: a token says whose it is.
Keys: `notice/<issuer>/<id>`, `series/<issuer>/<series>`, `receipts/<bureau>`, `next/<bureau>` (`next/`: any bureau that
has none), `subscription/<bureau>`, `revoked/<key id>`, `version/<kind>`, `annex/<digest>`; ids and digests in
lower-case hex.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from broker import codec, reading
from broker.errors import FencedError, UnavailableError
from broker.notice import Series, Standing
from broker.scrub import scrub
from broker.writing import WAIT_S, answering, keep_private, log_ahead, take_back, transaction

CLOCK_KEY = b"clock"
"""Written by the bus to learn its own time; carries nothing."""
GAPS_LIMIT = 1000
"""Ranges of missing numbers that one series may have; more is a broken outbox."""
_CACHED_SERIES = 4096
ROWS = 100
"""Entries in one statement."""
_START = "The broker makes it anew at its next start; ask again after that"


def notice_key(issuer: str, notice_id: bytes) -> str:
    """Name the entry of one notice."""
    return f"notice/{issuer}/{notice_id.hex()}"


class Register:
    """The register of one shard: its one owner writes it, whoever else has it open only looks things up."""

    def __init__(self, path: Path) -> None:
        keep_private(path)
        self._db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        # Of what most entries weigh, a page of 4 KiB holds one, a page of 8 KiB three.
        for pragma in (
            "page_size=8192",
            "synchronous=NORMAL",
            "secure_delete=ON",
            "cache_size=-8000",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        with answering():
            log_ahead(self._db)
            self._db.execute("CREATE TABLE IF NOT EXISTS entry(key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            self._db.execute("CREATE TABLE IF NOT EXISTS stamp(id INTEGER PRIMARY KEY, place INTEGER NOT NULL)")
            # A table of its own: caches of before have `stamp` as it is.
            self._db.execute("CREATE TABLE IF NOT EXISTS owner(id INTEGER PRIMARY KEY, token BLOB NOT NULL)")
            self._db.execute("CREATE TABLE IF NOT EXISTS emptied(id INTEGER PRIMARY KEY)")
        self._begin()

    def _begin(self) -> None:
        self._recent: dict[str, bytes | None] = {}
        self._looked_up: dict[str, bytes | None] = {}
        self._step: dict[str, bytes | None] = {}
        self._series: dict[str, Series] = {}
        self._stamp = (0, b"")

    @classmethod
    def to_read(cls, path: Path) -> Register:
        """Open one moment of a cache that another process may be writing; it may be a step behind its stream.

        Raises UnavailableError where it was emptied and is not rebuilt yet, or is not there: what it lacks would be
        taken for what never was.
        """
        made = cls.__new__(cls)
        try:
            made._db = reading.database(path)  # noqa: SLF001 - our own
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(f"{path} cannot be read: {error}. {_START}") from error
        made._begin()  # noqa: SLF001
        made._db.execute("BEGIN")  # noqa: SLF001
        if not made._is_whole():  # noqa: SLF001
            made.close()
            raise UnavailableError(f"{path} was emptied, and does not say what is in force. {_START}")
        return made

    def _is_whole(self) -> bool:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
        marks = [each for each in ("stamp", "emptied") if each in tables]  # caches of before lack the second
        found = [each for each in marks if self._db.execute(f"SELECT 1 FROM {each}").fetchone()]  # noqa: S608 - ours
        return found == ["stamp"]

    def close(self) -> None:
        """Close the cache."""
        self._db.close()

    @property
    def place(self) -> int:
        """Tell the offset in the `register` stream up to which the cache holds everything."""
        return self._stamped()[0]

    def _stamped(self) -> tuple[int, bytes]:
        """Read the place, and the token of whoever took the cache over or emptied it last."""
        place, token = self._db.execute("SELECT (SELECT place FROM stamp), (SELECT token FROM owner)").fetchone()
        return place or 0, token or b""

    async def take_over(self, still_owned: Callable[[], Awaitable[object]]) -> int:
        """Make the cache ours, and tell its place; only for whoever owns the shard.

        `still_owned` (`Shard.now`) is asked again where somebody has taken the cache over or emptied it since it was
        asked: whoever owns the shard after its answer does so after us, or is left alone. Meanwhile the file is
        nobody's: who is stopped while the bus answers keeps no successor waiting. Raises as it does, UnavailableError.
        """
        with answering():
            asked_of = self._stamped()[1]
        while True:
            await still_owned()
            with answering(), transaction(self._db):
                there = self._stamped()[1]
                if there == asked_of:
                    self._mark()
                    return self._stamp[0]
            asked_of = there

    def _mark(self) -> None:
        """Set a new token: nobody who had the cache before takes it for its own, though it stand at the same place."""
        self._db.execute("INSERT OR REPLACE INTO owner VALUES (1, randomblob(16))")
        self._stamp = self._stamped()
        if not self._stamp[0]:
            self._db.execute("INSERT OR IGNORE INTO emptied VALUES (1)")

    def check_ours(self) -> None:
        """Check that nobody has taken over, emptied or moved the cache: all that was read before this was whole.

        Raises FencedError, UnavailableError.
        """
        with answering():
            there = self._stamped()
        if there != self._stamp:
            raise FencedError("another process has taken over or emptied the register's cache")

    def scrub(self) -> None:
        """Leave nothing in the cache's files of what was changed or removed. Raises UnavailableError."""
        scrub(self._db)

    def forget(self) -> None:
        """Empty the cache, once it was taken over, to rebuild it from the stream's start; raises as `settle`."""
        with answering(), transaction(self._db):
            self.check_ours()
            self._db.execute("DELETE FROM entry")
            self._db.execute("DELETE FROM stamp")
            self._mark()
        self._looked_up.clear()
        self._series.clear()

    def rebuilt(self) -> None:
        """Say that the cache, if it was empty, has all again that its stream has; raises as `settle`."""
        with answering(), transaction(self._db):
            self.check_ours()
            self._db.execute("INSERT OR IGNORE INTO stamp VALUES (1, 0)")  # its stream may have nothing
            self._db.execute("DELETE FROM emptied")

    # Reading

    def get(self, key: str) -> bytes | None:
        """Give an entry's bytes, as the steps so far left it."""
        if key in self._recent:
            return self._recent[key]
        if key in self._looked_up:
            return self._looked_up[key]
        row = self._db.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def look_up(self, keys: Sequence[str]) -> None:
        """Read in one statement what `get` will be asked for before anything else is settled."""
        marks = ",".join("?" * len(keys))
        found = dict(self._db.execute(f"SELECT key, value FROM entry WHERE key IN ({marks})", keys))  # noqa: S608 - ours
        self._looked_up = {key: found.get(key) for key in keys}

    def standing(self, issuer: str, notice_id: bytes) -> Standing | None:
        """Give what is known of a notice."""
        value = self.get(notice_key(issuer, notice_id))
        return None if value is None else codec.decode(Standing, value)

    def series(self, key: str) -> Series:
        """Give the numbers used in a series (`series/…` or `receipts/…`); an unknown series used none."""
        found = self._series.get(key)
        if found is None:
            value = self.get(key)
            found = Series(0, ()) if value is None else codec.decode(Series, value)
            self._series[key] = found
        return found

    def under(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Give the settled entries whose key begins with `prefix` (used at start, when nothing is pending)."""
        query = "SELECT key, value FROM entry WHERE key >= ? AND key < ? ORDER BY key"
        for key, value in self._db.execute(query, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))):
            yield key, bytes(value)

    def looked_at(self, prefix: str) -> tuple[int, list[str]]:
        """Give the place and the settled keys that begin with `prefix`, both of one moment: the cache is another's.

        Read one after the other, they could be the place of before it was emptied and the keys of after.
        """
        self._db.execute("BEGIN")
        try:
            return self.place, [key for key, _ in self.under(prefix)]
        finally:
            take_back(self._db)

    def keys(self, prefix: str) -> list[str]:
        """Name the entries whose key begins with `prefix`, as the steps so far left them."""
        named = {key for key, _ in self.under(prefix)}
        for key, value in self._recent.items():
            if key.startswith(prefix):
                (named.discard if value is None else named.add)(key)
        return sorted(named)

    # Writing

    def put(self, key: str, value: bytes | None) -> None:
        """Change an entry in the present step; None removes it."""
        self._recent[key] = self._step[key] = value

    def put_series(self, key: str, series: Series) -> None:
        """Change the numbers used in a series."""
        if len(self._series) > _CACHED_SERIES:
            self._series.clear()
        self._series[key] = series
        self.put(key, codec.encode(series))

    def end_step(self) -> dict[str, bytes | None]:
        """Give what the present step changed and begin the next."""
        changed, self._step = self._step, {}
        return changed

    def settle(self, changed: Mapping[str, bytes | None], place: int) -> None:
        """Keep what a committed step changed; `place` is the next offset of the stream.

        Raises FencedError if another process has taken the cache over: what it keeps is newer than ours.
        Raises UnavailableError while another keeps the file.
        """
        self._keep(changed.items(), place)
        for key, value in changed.items():
            if key in self._recent and self._recent[key] is value:  # the next step may have removed what this one did
                del self._recent[key]

    def restore(self, records: Sequence[tuple[bytes, bytes | None]], place: int) -> None:
        """Take in (key, value) records of the stream, once it was taken over; raises as `settle`."""
        entries = [(key.decode(), value) for key, value in records if key != CLOCK_KEY]
        self._keep(entries, place)
        self._series.clear()

    def _keep(self, entries: Iterable[tuple[str, bytes | None]], place: int) -> None:
        """Write entries and stamp, if the cache is still ours."""
        changed = list(entries)
        self._looked_up.clear()
        with answering(), transaction(self._db):
            self.check_ours()
            # In order and many in one statement: each gives up the interpreter lock and waits to have it back.
            for removed, group in groupby(changed, key=_is_removal):
                self._keep_group([*group], removed=removed)
            self._db.execute("INSERT OR REPLACE INTO stamp VALUES (1, ?)", (place,))
        self._stamp = (place, self._stamp[1])

    def _keep_group(self, entries: list[tuple[str, bytes | None]], *, removed: bool) -> None:
        for begin in range(0, len(entries), ROWS):
            part = entries[begin : begin + ROWS]
            if removed:
                marks = ",".join("?" * len(part))
                self._db.execute(f"DELETE FROM entry WHERE key IN ({marks})", [key for key, _ in part])  # noqa: S608 - the same
            else:
                marks = ",".join(["(?,?)"] * len(part))
                values = [each for entry in part for each in entry]
                self._db.execute(f"INSERT OR REPLACE INTO entry VALUES {marks}", values)  # noqa: S608 - marks are ours


def _is_removal(entry: tuple[str, bytes | None]) -> bool:
    return entry[1] is None


def use_number(series: Series, number: int) -> Series | None:
    """Mark `number` as used; None if it was used before. A jump leaves a range of missing numbers."""
    if number > series.highest:
        gap = ((series.highest + 1, number - 1),) if number > series.highest + 1 else ()
        return Series(number, series.missing + gap)
    for position, (first, last) in enumerate(series.missing):
        if first <= number <= last:
            rest = tuple(each for each in ((first, number - 1), (number + 1, last)) if each[0] <= each[1])
            return Series(series.highest, series.missing[:position] + rest + series.missing[position + 1 :])
    return None


def missing_numbers(series: Series, limit: int) -> tuple[int, ...]:
    """List the numbers that have not arrived, lowest first, at most `limit`."""
    found: list[int] = []
    for first, last in series.missing:
        found.extend(range(first, min(last, first + limit - len(found) - 1) + 1))
        if len(found) >= limit:
            break
    return tuple(found)
