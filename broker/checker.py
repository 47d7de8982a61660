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
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

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
_ROOT = str(Path(__file__).parent.parent)
"""Where the process finds this package."""


class Found(NamedTuple):
    """A good record, still as it came from the other process."""

    kind: int
    flat: tuple[Any, ...]

    def value(self) -> Verified | Receipt:
        """Make the value; whoever uses it does, so that reading batches takes no time from the loop."""
        return flat.raised(KINDS[self.kind], self.flat)


class Checker:
    """The second process."""

    def __init__(self, marker: Path, limit_s: float) -> None:
        self._marker, self._limit_s = marker, limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._is_ready = False
        self._keys: tuple[Keys | None, bytes] = (None, b"")

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._pipe = self._process = None
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Tell the process's number; 0 while there is none."""
        return self._process.pid if self._process else 0

    def ready(self) -> bool:
        """Tell whether the process can take a batch; the first question starts it, without waiting for it."""
        if self._pipe is None:
            try:
                self._open()
            except OSError:  # no process to be had now: we check by ourselves, and try again with the next batch
                self.close()
                return False
        if self._pipe and not self._is_ready and self._pipe.poll():
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
            # It died before it read a record: we check by ourselves, and try again with the next batch.
            self.close()
            return False

    def check(self, records: Sequence[Record], nows: Sequence[int], keys: Keys) -> list[Found | None]:
        """Check a batch, each record at its own `now`. Blocks.

        Gives None for what is not plainly good, or of a rare kind. Raises UnavailableError if the process dies or
        hangs.
        """
        if self._keys[0] is not keys:
            self._keys = (keys, _packed(keys))
        asked = [(each.stream, each.partition, each.offset, each.at, each.value) for each in records]
        pipe = self._pipe
        if pipe is None:
            message = "the checking process was not started"
            raise UnavailableError(message)
        try:
            pipe.send_bytes(marshal.dumps((self._keys[1], asked, list(nows))))
            if not pipe.poll(self._limit_s * max(1, len(records))):
                self.close()
                raise UnavailableError("the checking process did not answer in time")
            answers: list[tuple[int, tuple[Any, ...]] | None] = marshal.loads(pipe.recv_bytes())  # noqa: S302 - ours
        except (EOFError, OSError) as error:
            self.close()
            raise UnavailableError("the checking process has ended") from error
        return [Found(*each) if each else None for each in answers]


def _start(socket: int, marker: Path) -> subprocess.Popen[bytes]:
    """Start the process. What lies in the present folder is no part of it (`-P`), whoever may write there."""
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "broker.checking", str(socket), str(marker)],
        stdin=subprocess.DEVNULL,
        pass_fds=(socket,),
        env={**os.environ, "PYTHONPATH": path},
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
