"""The process that checks records for a broker (checker.py); it is started as a program of its own.

So it loads what checking needs and nothing else: half the memory of a second broker. It answers batches until its
parent ends or closes the socket, and never longer than it has for one.
"""

from __future__ import annotations

import marshal
import pickle
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from broker import flat
from broker.bus import Record
from broker.errors import NoticeRejectedError
from broker.marker import CHECKER_SLOT, Marker
from broker.notice import Receipt, Verified
from broker.quick import seek_cycles_rarely
from broker.verify import Keys, check

READY = b"ready"
"""What it says first."""
BATCH_OBJECTS = 50_000
"""More than checking a batch makes."""
KINDS: tuple[type[Verified | Receipt], ...] = (Verified, Receipt)
"""What it answers with; an answer names its place here."""
_PLACES: dict[type, int] = {kind: place for place, kind in enumerate(KINDS)}


def serve(pipe: Connection, marker: Path) -> None:
    """Answer batches until the parent closes its end."""
    seek_cycles_rarely(BATCH_OBJECTS)
    marks = Marker(marker)
    keys: Any = None  # the first batch brings them
    try:
        pipe.send_bytes(READY)
        while True:
            changed, limit_s, asked, nows = marshal.loads(pipe.recv_bytes())  # noqa: S302 - our own parent wrote it
            keys = pickle.loads(changed) if changed else keys  # noqa: S301 - the same
            # SIGALRM ends us: a parent that was killed can no longer do so.
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            records = [Record(stream, part, offset, at, b"", value) for stream, part, offset, at, value in asked]
            pipe.send_bytes(marshal.dumps([_checked(marks, *each, keys) for each in zip(records, nows, strict=True)]))
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, OSError):
        return


def _checked(marks: Marker, record: Record, now: int, keys: Keys) -> tuple[int, tuple[Any, ...]] | None:
    with marks.around(record, CHECKER_SLOT):
        try:
            found = check(record, now, keys)
        except NoticeRejectedError:
            return None
        except Exception:  # noqa: BLE001 - a bug of ours that one record hits: the parent meets it, too, and says where
            return None
    place = _PLACES.get(type(found))
    return None if place is None else (place, flat.flatten(found))


def main(arguments: Sequence[str]) -> None:
    """Serve on the socket and with the marker that the arguments name."""
    socket, marker = arguments
    with Connection(int(socket)) as pipe:
        serve(pipe, Path(marker))
