"""Knows whether a broker runs in a home on this machine, and which: a second one takes over only where it is told to.

The bus decides who may commit (`Bus.own`); this keeps a slip of the hand from ending a broker that is well. A lock says
that one runs: the system lets go of it when the process ends, however that comes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from broker import durable
from broker.errors import ConfigurationError
from cli import answer

FILE = "running.json"
LIMIT = 4096
"""bytes of the file that are read"""


@dataclass(frozen=True, slots=True)
class Running:
    """Which process runs the broker: its number on the machine, and since when (ms since the epoch)."""

    pid: int
    since: int

    def __str__(self) -> str:
        return f"process {self.pid}, up since {answer.when(self.since)} UTC"


class AlreadyRunningError(ConfigurationError):
    """A broker runs in this home, and nobody said that it is to be taken over from; `running`: which, if it says so."""

    code = "already-running"

    def __init__(self, running: Running | None) -> None:
        super().__init__(f"a broker runs in this home: {running or 'it has not said which process it is'}")
        self.running = running


@contextmanager
def alone(folder: Path, now: int, *, take_over: bool) -> Iterator[Running | None]:
    """Hold the home for this process while the block runs; give whom it takes over from, None where nobody runs.

    Raises AlreadyRunningError where another process runs and `take_over` is not set. Who is taken over from keeps its
    lock on a file that is no longer there, until it ends.
    """
    file = _file(folder)
    held, before = _hold(file, take_over=take_over)
    try:
        os.truncate(held, 0)
        os.write(held, json.dumps(asdict(Running(os.getpid(), now))).encode())
        yield before
    finally:
        os.close(held)


def of(folder: Path) -> Running | None:
    """Tell which process last said that it runs here."""
    with suppress(OSError, ValueError, TypeError):
        return Running(**json.loads(_file(folder).read_bytes()[:LIMIT]))
    return None


def _file(folder: Path) -> Path:
    return folder / FILE


def _hold(file: Path, *, take_over: bool) -> tuple[int, Running | None]:
    before = None
    while True:
        found = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(found)
            before = of(file.parent)
            if not take_over:
                raise AlreadyRunningError(before) from None
            file.unlink(missing_ok=True)
            continue
        if durable.lies_at(file, found):
            return found, before
        os.close(found)  # somebody has just taken over
