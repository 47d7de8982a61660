"""What the leaves and records of a log come to in sum, kept in its home as far as they were counted.

Derived, as the audit index is, and bound to the root of the leaves that it covers: whoever asks next counts on from
there, and from the first leaf where the file is lost, damaged, or of another past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from broker import codec, durable, reading, streams
from broker.errors import UnavailableError
from broker.notice import NOT_RELEASED, RELEASED, Leaf
from broker.recorded import brought
from broker.records import Records
from broker.trail import Trail

FILE = "tally.json"
LIMIT = 1 << 26
"""Bytes of the file: some two million notices may wait for their review."""
Progress = Callable[[int, int], None]
T = TypeVar("T")


class _Kept(BaseModel):
    """The file. `form` changes with what is counted, or how: another's is counted anew."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    form: Literal[1] = 1
    size: int
    root: str
    kinds: dict[str, int]
    undecided: tuple[tuple[int, int], ...]
    seen: dict[str, int]
    digest: str = ""
    """SHA-256 of all else: what one bit changed would go on in every later count."""

    def sealed(self) -> _Kept:
        """Give it with its digest."""
        told = self.model_dump_json(exclude={"digest"}).encode()
        return self.model_copy(update={"digest": sha256(told).hexdigest()})


@dataclass(slots=True)
class Tally:
    """Times in ms. `size`: how many leaves were counted."""

    size: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    undecided: dict[int, int] = field(default_factory=dict)
    """Held notices that no leaf has decided, by leaf, and since when."""
    seen: dict[str, int] = field(default_factory=dict)
    """When a record of each member last came, by the bus's clock."""

    def count(self, entries: Iterable[bytes]) -> None:
        """Count the next leaves."""
        for entry in entries:
            leaf = codec.decode(Leaf, entry)
            self.kinds[leaf.kind] += 1
            note(self.undecided, self.size, leaf)
            self.size += 1

    def hear(self, records: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Take in who brought the next leaves, and when."""
        for _, _, record in records:
            came = brought(record)
            if came.at and (member := streams.member_of(came.stream)):
                self.seen[member] = max(self.seen.get(member, 0), came.at)


def note(undecided: dict[int, int], number: int, leaf: Leaf) -> None:
    """Take the next leaf of a trail into account: held notices that no leaf so far has decided, and since when (ms)."""
    if leaf.kind in ("routed", "held", RELEASED, NOT_RELEASED) and leaf.about is not None:
        undecided.pop(leaf.about, None)  # a leaf speaks of one before it
    if leaf.kind == "held":
        undecided[number] = leaf.now


def counted(folder: Path, trail: Trail, progress: Progress) -> Tally:
    """Count all leaves of a log in the home `folder`, and its records; keep it where that may be written.

    `progress` is told how many leaves were looked at, and of how many: first the leaves, then their records.
    """
    tally, path = _kept(folder / FILE, trail), folder / "records.db"
    begin = tally.size
    if not path.is_file():  # nobody is known to have said anything, and so it stays for who counts on
        tally.count(_told(trail.entries(begin), begin, trail.size, progress))
        return tally
    with closing(Records.to_read(path)) as records:
        end = min(trail.size, records.size)  # they come before their leaves, unless they were lost
        tally.count(_told(islice(trail.entries(begin), max(end - begin, 0)), begin, trail.size, progress))
        tally.hear(_told(islice(records.since(begin), max(end - begin, 0)), begin, trail.size, progress))
        if end > begin:
            _keep(folder / FILE, tally, trail)
        tally.count(trail.entries(tally.size))
        tally.hear(records.since(max(begin, end)))
    return tally


def _told(values: Iterable[T], begin: int, size: int, progress: Progress) -> Iterator[T]:
    for number, each in enumerate(values, begin + 1):
        yield each
        progress(number, size)


def _kept(file: Path, trail: Trail) -> Tally:
    """Read what was counted; nothing, where it is damaged or not of this log."""
    try:
        found = _Kept.model_validate_json(reading.read(file, LIMIT))
    except (OSError, ValidationError):
        return Tally()
    if found != found.sealed() or not 0 <= found.size <= trail.size or trail.root_of(found.size).hex() != found.root:
        return Tally()
    return Tally(found.size, Counter(found.kinds), dict(found.undecided), dict(found.seen))


def _keep(file: Path, tally: Tally, trail: Trail) -> None:
    kept = _Kept(
        size=tally.size,
        root=trail.root_of(tally.size).hex(),
        kinds=dict(tally.kinds),
        undecided=tuple(tally.undecided.items()),
        seen=tally.seen,
    )
    with suppress(OSError, UnavailableError):  # who may not write there, or has no room, counts again
        durable.put_private(file, kept.sealed().model_dump_json().encode())
