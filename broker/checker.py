"""Checks records in a second process, so that signatures and digests cost the loop nothing.

The process knows nothing but what comes with each batch: records, their `now`, and the keys to check against. It ends
when its parent does. What is not plainly good is left to the parent, which checks it again and says why.
"""

from __future__ import annotations

import io
import marshal
import multiprocessing
import pickle
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from broker import flat
from broker.bus import Record
from broker.errors import NoticeRejectedError, UnavailableError
from broker.judge import Keys, check
from broker.marker import CHECKER_SLOT, Marker
from broker.notice import Receipt, Verified
from broker.quick import seek_cycles_rarely
from broker.signing import PublicKey

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

WORTH = 8
"""Records below which a batch is not worth the way to another process."""
READY = b"ready"
BATCH_OBJECTS = 50_000
"""More than checking a batch makes."""
_KINDS: tuple[type[Verified | Receipt], ...] = (Verified, Receipt)
_PLACES: dict[type, int] = {kind: place for place, kind in enumerate(_KINDS)}


class Found(NamedTuple):
    """A good record, still as it came from the other process."""

    kind: int
    flat: tuple[Any, ...]

    def value(self) -> Verified | Receipt:
        """Make the value; whoever uses it does, so that reading batches takes no time from the loop."""
        return flat.raised(_KINDS[self.kind], self.flat)


class Checker:
    """The second process."""

    def __init__(self, marker: Path, limit_s: float) -> None:
        self._marker, self._limit_s = marker, limit_s
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._is_ready = False
        self._keys: tuple[Keys | None, bytes] = (None, b"")

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None
        self._is_ready = False

    @property
    def pid(self) -> int:
        """Tell the process's number; 0 while there is none."""
        return (self._process.pid or 0) if self._process else 0

    def ready(self) -> bool:
        """Tell whether the process can take a batch; the first question starts it, without waiting for it."""
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, self._marker), daemon=True)
            process.start()
            self._process = process  # not before: what has not started cannot be ended
            theirs.close()  # so that the end of either process ends the other's reading
        if not self._is_ready and self._pipe.poll():
            self._is_ready = self._said_ready(self._pipe)
        return self._is_ready

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


def serve(pipe: Connection, marker: Path) -> None:
    """Answer batches until the parent closes its end (the process's main function)."""
    seek_cycles_rarely(BATCH_OBJECTS)
    marks = Marker(marker)
    try:
        pipe.send_bytes(READY)
        while True:
            blob, asked, nows = marshal.loads(pipe.recv_bytes())  # noqa: S302 - our own parent wrote it
            keys = _unpacked(blob)
            records = [Record(stream, part, offset, at, b"", value) for stream, part, offset, at, value in asked]
            pipe.send_bytes(marshal.dumps([_checked(marks, *each, keys) for each in zip(records, nows, strict=True)]))
    except (EOFError, OSError):
        return


def _checked(marks: Marker, record: Record, now: int, keys: Keys) -> tuple[int, tuple[Any, ...]] | None:
    with marks.around(record, CHECKER_SLOT):
        try:
            found = check(record, now, keys)
        except NoticeRejectedError:
            return None
    place = _PLACES.get(type(found))
    return None if place is None else (place, flat.flatten(found))


class _Pickler(pickle.Pickler):
    """Knows the two kinds of value in a directory that pickle does not."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, MappingProxyType):
            return _read_only, (dict(value),)
        if isinstance(value, PublicKey):
            return PublicKey.of, (value.raw,)
        return NotImplemented


def _read_only(value: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(value)


def _packed(keys: Keys) -> bytes:
    out = io.BytesIO()
    _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(keys)
    return out.getvalue()


@lru_cache(maxsize=4)
def _unpacked(blob: bytes) -> Keys:
    keys: Keys = pickle.loads(blob)  # noqa: S301 - our own parent wrote it
    return keys
