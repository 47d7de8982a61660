"""Checks records in a second process, so that signatures and digests cost the loop nothing.

The process knows nothing but what comes with each batch: records, their `now`, and the keys to check against. It ends
when its parent does. What is not plainly good is left to the parent, which checks it again and says why.
"""

from __future__ import annotations

import io
import marshal
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from broker import flat
from broker.bus import Record
from broker.checking import KINDS, READY
from broker.errors import UnavailableError
from broker.notice import Receipt, Verified
from broker.signing import PublicKey
from broker.verify import Keys

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

WORTH = 8
"""Records below which a batch is not worth the way to another process."""
HURRY_S = 1.0
"""s that a batch may take once the broker is to stop; one that is cut off leaves its record under suspicion"""
PAUSE_S = 1.0, 60.0
"""s before a process that ended is started again, doubled each time up to the second"""
_PROGRAM = (
    "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); "
    "from broker.checking import main; main(sys.argv[1:])"
)
"""Finds every library where we found it."""
log = structlog.get_logger()


class Found(NamedTuple):
    """A good record, still as it came from the other process."""

    kind: int
    flat: tuple[Any, ...]

    def value(self) -> Verified | Receipt:
        """Make the value; whoever uses it does, so that reading batches takes no time from the loop."""
        return flat.raised(KINDS[self.kind], self.flat)


class Checker:
    """The second process; a batch, of whatever size, has `limit_s`, as a single record has that is tried in a child."""

    def __init__(self, marker: Path, limit_s: float) -> None:
        self._marker, self._limit_s = marker, limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._is_ready = False
        self._keys: Keys | None = None
        """Those that the process has."""
        self._pause_s, self._not_before = PAUSE_S[0], 0.0

    def hurry(self) -> None:
        """End the process unless it answers soon; whoever waits for it gets UnavailableError. Any thread may call."""
        process = self._process
        if process is not None:
            alarm = threading.Timer(HURRY_S, process.kill)
            alarm.daemon = True  # whoever ends meanwhile ends the process, too
            alarm.start()

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._pipe = self._process = self._keys = None
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Tell the process's number; 0 while there is none."""
        return self._process.pid if self._process else 0

    def ready(self) -> bool:
        """Tell whether the process can take a batch; the first question starts it, without waiting for it."""
        if self._process is not None and self._process.poll() is not None:
            self._rest()
        if self._pipe is None and time.monotonic() >= self._not_before:
            try:
                self._open()
            except OSError:
                self._rest()
        if self._pipe is not None and not self._is_ready and self._pipe.poll():
            self._is_ready = self._said_ready(self._pipe)
        return self._is_ready

    def _open(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:  # closed here, so that the end of either process ends the other's reading
            self._process = _start(theirs.fileno(), self._marker)

    def _said_ready(self, pipe: Connection) -> bool:
        try:
            return pipe.recv_bytes() == READY
        except (EOFError, OSError):
            self._rest()
            return False

    def _rest(self) -> None:
        """Check by ourselves for a while: what ends at its start would be started with every batch."""
        self.close()
        log.warning("checker.ended", again_in_s=self._pause_s)
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_S[1])

    def check(self, records: Sequence[Record], nows: Sequence[int], keys: Keys) -> list[Found | None]:
        """Check a batch, each record at its own `now`. Blocks.

        Gives None for what is not plainly good, or of a rare kind. Raises UnavailableError if the process dies, or
        hangs for `limit_s`.
        """
        pipe, process = self._pipe, self._process
        if pipe is None or process is None:
            message = "the checking process was not started"
            raise UnavailableError(message)
        asked = [(each.stream, each.partition, each.offset, each.at, each.value) for each in records]
        # One that stands still takes nothing either: only its end lets us go on.
        alarm = threading.Timer(self._limit_s, process.kill)
        alarm.start()
        try:
            changed = b"" if keys is self._keys else _packed(keys)
            pipe.send_bytes(marshal.dumps((changed, self._limit_s, asked, list(nows))))
            answers: list[tuple[int, tuple[Any, ...]] | None] = marshal.loads(pipe.recv_bytes())  # noqa: S302 - ours
        except (EOFError, OSError) as error:
            self.close()
            raise UnavailableError("the checking process has ended, or did not answer in time") from error
        finally:
            alarm.cancel()
        self._keys, self._pause_s = keys, PAUSE_S[0]
        return [Found(*each) if each else None for each in answers]


def _start(socket: int, marker: Path) -> subprocess.Popen[bytes]:
    """Start the process. A signal to our process group (Ctrl-C) is ours to obey, not its."""
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-c", _PROGRAM, os.pathsep.join(sys.path), str(socket), str(marker)],
        stdin=subprocess.DEVNULL,
        pass_fds=(socket,),
        process_group=0,
    )


class _Pickler(pickle.Pickler):
    """Knows the two kinds of value in a directory that pickle does not."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, MappingProxyType):
            return dict, (dict(value),)
        if isinstance(value, PublicKey):
            return PublicKey.of, (value.raw,)
        return NotImplemented


def _packed(keys: Keys) -> bytes:
    out = io.BytesIO()
    _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(keys)
    return out.getvalue()
