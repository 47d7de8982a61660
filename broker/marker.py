"""Remembers on disk which record is being judged, so that one which kills us is not judged by us twice.

The marker is a small memory-mapped file: it survives the death of the process, and writing it costs no system call. If
a start finds it set, that record is tried in a child process first, and only the child's death or time limit counts:
after two it is `could-not-be-judged`. A killed parent never counts (DESIGN §7).
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import CouldNotBeJudgedError, UnavailableError

if TYPE_CHECKING:
    from broker.bus import Record

SLOT = 512
SLOTS = 3
CHECKER_SLOT = 2
"""The slot of the process that checks ahead; 0 and 1 are the loop's own."""
TRIALS = 2

Trial = Callable[["Record"], None]
"""Judges a record and throws the result away; must be importable by a child process."""


class Marker:
    """Marks records while they are judged; slot 0 for checking, slot 1 for deciding."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(SLOT * SLOTS)
            # Where the disk is full it is said here: a write to memory that has no place on disk would end us (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, SLOT * SLOTS)
            self._map = mmap.mmap(file.fileno(), SLOT * SLOTS)
        self.suspects = {name for name in map(self._read, range(SLOTS)) if name}
        self._condemned: set[str] = set()

    def close(self) -> None:
        """Close the file."""
        self._map.close()

    def _read(self, slot: int) -> str:
        return self._map[slot * SLOT : (slot + 1) * SLOT].partition(b"\0")[0].decode()

    @contextmanager
    def around(self, record: Record, slot: int) -> Iterator[None]:
        """Mark `record` while the block runs."""
        name, begin = place(record).encode()[:SLOT], slot * SLOT
        self._map[begin : begin + SLOT] = name.ljust(SLOT, b"\0")
        try:
            yield
        finally:
            self._map[begin] = 0

    def try_out(self, record: Record, trial: Trial, limit_s: float) -> None:
        """If a start found `record` marked, judge it in children; condemn it after two deaths or time-outs.

        Raises UnavailableError where no child can be had: that says nothing about the record.
        """
        name = place(record)
        if name not in self.suspects:
            return
        if all(not _survives(trial, record, limit_s) for _ in range(TRIALS)):
            self._condemned.add(name)
        self.suspects.discard(name)

    def doubts(self, records: Sequence[Record]) -> bool:
        """Tell whether one of these records is under suspicion."""
        doubted = self.suspects | self._condemned
        return bool(doubted) and any(place(each) in doubted for each in records)

    def check(self, record: Record) -> None:
        """Raise CouldNotBeJudgedError for a record that killed the children that judged it."""
        if self._condemned and place(record) in self._condemned:
            message = "judging it ends the process that does"
            raise CouldNotBeJudgedError(message)


def place(record: Record) -> str:
    """Name a record by its place on the bus."""
    return f"{record.stream}/{record.partition}/{record.offset}"


def _survives(trial: Trial, record: Record, limit_s: float) -> bool:
    """Tell whether a child lives to the end of the trial; one that ends with an error does, and we meet that error."""
    child = multiprocessing.get_context("spawn").Process(target=trial, args=(record,), daemon=True)
    try:
        child.start()
    except OSError as error:
        raise UnavailableError("there is no process to be had for a trial") from error
    if not connection.wait([child.sentinel], limit_s):
        child.kill()
        child.join()
        return False
    child.join()
    if child.exitcode is None:
        raise UnavailableError("how the trial ended cannot be known: SIGCHLD is ignored here")
    return child.exitcode >= 0
