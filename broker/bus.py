"""What we ask of a message bus: the Protocol and its promises.

Order: within one partition of a stream records are read in the order of their offsets, and a record that one writer
    appended after another's acknowledgement has the higher offset. Offsets grow; they may leave gaps.
Durability: an acknowledged append and a committed step survive kill -9 of any process and loss of one node of three.
Visibility: a reader sees committed records only; nothing of a step is seen before its commit. The streams of one step
    need not appear at the same instant, and `read`, `end` and `place` may show a step a moment after `commit` has
    answered (Kafka writes a transaction's marks after its answer), and each stream at another moment. `written` counts
    it at once, and the shard's next owner is shown all of it: `own` waits for that. What `append` and `fan_out` have
    acknowledged is shown at once.
Repeats: `append` and `fan_out` that raised may have written all, some or none; whoever calls again may write twice.
    A step is exact: its inputs' offsets move with its outputs or not at all.
Fencing: `own(shard)` takes the shard from whoever had it; from then on the old owner's `commit` raises FencedError.
Access: what streams.py does not name raises ForbiddenStreamError (on Kafka the node refuses it, too).
Size: key and value of a record are at most MAX_RECORD bytes together; what is larger raises TooLargeError.

Every wait has a limit; what the other side does not answer in time raises UnavailableError.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from broker.errors import InputLostError
from broker.quick import quick

MAX_RECORD = 1_000_000
"""bytes of key and value together: a Kafka batch of 1 MiB less what the batch itself needs"""

Place = tuple[str, int]
"""A stream's name and a partition."""
NOTHING_LOST: Mapping[str, int] = MappingProxyType({})


@quick
@dataclass(frozen=True, slots=True)
class Record:
    """One record as the bus gives it. `at` is the bus's append time in ms since the epoch, not the writer's.

    `value` is None where the bus could not read it (a damaged batch, one that expands past its bound): one refused
    record, whose `fault` says why.
    """

    stream: str
    partition: int
    offset: int
    at: int
    key: bytes
    value: bytes | None
    fault: str = ""


def passed_over(place: Place, offset: int, bounds: tuple[int, int], lost: Mapping[str, int]) -> Record | None:
    """Give the refused record that stands for what an input has lost at `offset`; None where it holds it, or is to.

    `bounds` are start and end of the stream. Committing the record moves the place to where the stream goes on. Raises
    InputLostError where `lost` does not have this very place.
    """
    (stream, partition), (start, end) = place, bounds
    if start <= offset <= end:
        return None
    what = f"offsets {offset} to {start - 1} of {stream} are gone, and were never taken: past their retention"
    if offset > end:
        what = f"{stream} ends at {end}, and was taken up to {offset}: the bus has lost its tail"
    if lost.get(stream) != offset:
        raise InputLostError(stream, offset, what)
    return Record(stream, partition, (start if offset < start else end) - 1, 0, b"", None, what)


def made_again(place: Place, start: int, lost: Mapping[str, int]) -> Record | None:
    """Give the refused record that stands for what was lost with an input that has no place, if `lost` has 0 for it."""
    stream, partition = place
    if lost.get(stream) != 0:
        return None
    return Record(stream, partition, start - 1, 0, b"", None, f"{stream} was lost, and made again")


@dataclass(slots=True)
class Writes:
    """What one step writes, in order: (stream, key, value); a value of None removes the key from a compacted stream."""

    records: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)

    def add(self, stream: str, key: bytes, value: bytes | None) -> None:
        """Add one record, to the step's own shard."""
        self.records.append((stream, key, value))


@quick
@dataclass(frozen=True, slots=True)
class Copies:
    """One value for many inboxes: `shared` is the same for all, `own[i]` comes before it in the i-th inbox.

    The record that a bureau reads is `own ‖ shared`, its key `key`.
    """

    key: bytes
    shared: bytes
    own: Sequence[tuple[str, bytes]]
    """(inbox stream, own bytes)"""


@dataclass(slots=True)
class Owned:
    """What one process knows of the shards that it has owned, on whichever buses it opened: another may have come."""

    name: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    last: dict[int, int] = field(default_factory=dict)
    """By shard: an epoch of ours (embedded bus); where in `register` nobody but us has written before (Kafka)."""


class Shard(Protocol):
    """The input and output of one shard, held by its one owner."""

    async def take(self, limit: int, wait: float) -> list[Record]:
        """Give the next records of the shard's inputs, at most `limit`, in the order to take them up.

        Waits up to `wait` seconds for the first. Takes `versions`, `annexes` and `asks` before anything else, and a
        fair share of each backlogged stream. Never gives a record twice between `own` and `commit`; the records given
        since the last commit may be committed in several steps, in the order given.
        """
        ...

    async def commit(self, taken: Sequence[Record], writes: Writes) -> Mapping[str, int]:
        """Move the inputs' offsets past `taken` and write `writes`, as one transaction.

        Returns for each stream written the offset of its last record; for when that is shown see Visibility, above.
        Raises FencedError if another owner has come, UnavailableError if nothing is known to have been kept: the caller
        must then own the shard again.
        """
        ...

    async def now(self) -> int:
        """Tell the bus's present time in ms since the epoch: the clock that stamps `Record.at`.

        Raises as `commit`: whoever has its answer owned the shard when it asked.
        """
        ...

    async def gone(self) -> frozenset[str]:
        """Name the inputs that the bus seems to have no more: nothing comes of them, and the others go on.

        It may hold for a moment only; none where the bus does not answer. Raises UnavailableError if one was made again
        since `own`: what is in it before the place that we had reached would be passed over. `own` then finds no place.
        """
        ...

    def unplaced(self) -> frozenset[str]:
        """Name the inputs of which `own` found no place kept: nothing was committed of them, or it went with them.

        So it goes on Kafka, where a topic that was deleted takes the places in it with it. Where `lost` has 0 for one
        `take` gives one refused record first.
        """
        ...


class Bus(Protocol):
    """A message bus, opened by `async with`, once, in the name of one principal."""

    async def append(self, stream: str, values: Sequence[tuple[bytes, bytes]], *, partition: int = 0) -> int:
        """Append (key, value) records in order; return the offset of the last once all are durable."""
        ...

    async def read(
        self, stream: str, offset: int, *, limit: int = 500, wait: float = 0.0, partition: int = 0
    ) -> list[Record]:
        """Read committed records from `offset` on, at most `limit`, waiting up to `wait` seconds for the first.

        What is visible when it is called is given even where `wait` is 0: nothing means that nothing is, and
        UnavailableError that this could not be found out. Raises OffsetGoneError if `offset` lies before the stream's
        start. The next offset to ask for is the last record's plus one. Compacted streams skip the offsets that were
        compacted away.
        """
        ...

    async def end(self, stream: str, *, partition: int = 0) -> int:
        """Tell the offset that the next record to become visible will have at the least (0 for an empty stream)."""
        ...

    async def written(self, stream: str, *, partition: int = 0) -> int:
        """Tell the offset after all that was written, shown or not: also by a step under way, or cut off."""
        ...

    async def fan_out(self, copies: Sequence[Copies], *, partition: int = 0) -> None:
        """Append every copy to its inboxes, without a transaction; return once all are durable.

        The order within one inbox is the order of `copies`; where calls overlap, that of the calls, and no inbox gets
        what came later without what came before.
        """
        ...

    async def place(self, group: str, stream: str, *, partition: int = 0) -> int:
        """Tell where `group` stands in `stream`: the next offset to read (0 if it never kept one).

        What was kept just before a node was lost is told for certain only after another place of the group was kept
        since, in whichever stream.
        """
        ...

    async def has_place(self, group: str, stream: str, *, partition: int = 0) -> bool:
        """Tell whether `group` ever kept a place in `stream`, be it 0; on Kafka no more, once the topic was deleted."""
        ...

    async def keep_place(self, group: str, stream: str, offset: int, *, partition: int = 0) -> None:
        """Remember that `group` has done everything before `offset`."""
        ...

    def own(
        self, shard: int, inputs: Sequence[str], lost: Mapping[str, int] = NOTHING_LOST
    ) -> AbstractAsyncContextManager[Shard]:
        """Own a shard: fence the old owner first, read the committed offsets after.

        `inputs` are the streams to consume. Raises UnavailableError if the bus does not answer, FencedError if this
        process (`Owned`) owned the shard before and another has since, InputLostError if an input begins behind the
        place that it was taken to, or ends before it. Where `lost` has that place for its stream `take` gives one
        refused record first, which stands for what is lost.
        """
        ...

    async def create(self, streams: Sequence[str], shards: int = 1) -> None:
        """Make the streams that do not exist yet (principal `setup`; the embedded bus: anyone)."""
        ...

    async def prune(self) -> int:
        """Drop what is older than its stream keeps; return how many records went (Kafka does this by itself: 0)."""
        ...

    async def erase(
        self, stream: str, *, keys: Sequence[bytes] = (), offsets: Sequence[int] = (), partition: int = 0
    ) -> int:
        """Drop records before their time, by key or offset, durably; return how many (router only).

        Nobody who reads on is told: offsets leave gaps. Their bytes may stay on disk until `scrub`. Where single
        records cannot be erased (Kafka) nothing happens: retention takes them.
        """
        ...

    async def compact(self, stream: str, keys: Sequence[bytes], *, partition: int = 0) -> int:
        """Drop, as `erase` does, all records of these keys but the newest of each."""
        ...

    async def scrub(self) -> None:
        """Take the bytes of dropped records from disk. Raises UnavailableError while others keep it from that."""
        ...
