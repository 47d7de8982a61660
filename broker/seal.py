"""Signs the head that a step committed and puts it where everybody can see it.

Order: decision records, entries and tiles, then the checkpoint (aside, fsync, rename, fsync), then the `checkpoints`
stream. A crash between any two leaves the disk behind the record, which `recover` finishes. A disk that says more than
the record, or something else, is never written to: TrailError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from broker import begun, codec, crash, durable, notes
from broker.begun import OPENING_KEY
from broker.bus import Bus, Record
from broker.errors import NoticeRejectedError, OffsetGoneError, ProofError, TrailError
from broker.merkle import leaf_hash
from broker.notes import Checkpoint, Vkey
from broker.notice import Entry, Head, Leaf, Opening
from broker.records import Records
from broker.signing import SigningKey
from broker.streams import CHECKPOINTS, TRAIL
from broker.threads import to_the_end
from broker.trail import Trail
from broker.witnessed import WITNESSED

ENTRY_KEY, HEAD_KEY = b"entry", b"head"
COSIGNED_KEY = b"cosigned"
"""Key of a record of `checkpoints` that brings only cosignatures of a head that stands there already."""
READ_LIMIT = 500
LOOKED_THROUGH = 16
"""Offsets at once, where the last record of a stream is looked for that is more than cosignatures."""
SHOWN_S, SHOWN_AGAIN_S = 5.0, 0.05
"""How long a step that was committed may not be shown yet, and how often it is asked."""
Take = Callable[[Sequence[Entry], Head], Awaitable[None]]
"""Takes one committed step: its leaves, and the head that closes them."""
Position = tuple[int, int]
"""Where a record of the `trail` stream stands: (leaves up to and with it, 1 for the head that closes them)."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How far a shard goes: its decision records, the head that everybody saw last, and the end of `trail`."""

    kept: int
    """Asked before the streams were: they go at least as far, whoever writes meanwhile."""
    announced: Checkpoint | None
    end: int


class Sealer:
    """Seals one shard's log; one at a time, in the order of the steps."""

    def __init__(self, trail: Trail, records: Records, key: SigningKey, bus: Bus, shard: int) -> None:
        self._trail, self._records, self._key, self._bus, self._shard = trail, records, key, bus, shard
        self._vkey = notes.vkey(trail.origin, key.public.raw)
        self._announced: Checkpoint | None = None  # None: what the stream ends with has to be read
        self._shown: tuple[Checkpoint, str] | None = None
        self._writing = asyncio.Lock()  # the checkpoint's file has one writer at a time

    async def seal(self, entries: Sequence[Entry], head: Head) -> str:
        """Publish the head that `entries` complete; return the signed checkpoint.

        May be called again with the same after a raise. Raises TrailError if the entries do not lead to the head.
        """
        if head.size != self._trail.size:
            await self._extend(entries, head)
        if head.root != self._trail.root:
            raise TrailError(_another_root(head.size))
        await self._announce()
        return self._trail.checkpoint

    def proofs(self, leaf_numbers: Sequence[int]) -> list[str]:
        """Write the tlog-proofs of leaves under the newest checkpoint."""
        return self._trail.proofs(leaf_numbers, self._trail.size, self._trail.checkpoint)

    async def _extend(self, entries: Sequence[Entry], head: Head) -> None:
        if [each.leaf_number for each in entries] != list(range(self._trail.size, head.size)):
            message = f"the step does not lead from {self._trail.size} to {head.size} leaves"
            raise TrailError(message)
        staged = self._trail.stage([each.leaf for each in entries])
        if staged.root != head.root:
            raise TrailError(_another_root(head.size))
        note = notes.sign_checkpoint(Checkpoint(self._trail.origin, staged.size, staged.root), self._key)

        def write() -> None:
            self._records.add(entries)
            crash.here("seal.records-written")
            self._trail.write(staged)
            self._trail.publish(staged, note)

        async with self._writing:
            await to_the_end(write)
            self._trail.adopt(staged, note)

    # What witnesses are asked, and what they say.

    @property
    def vkey(self) -> Vkey:
        """The log's public key."""
        return self._vkey

    @property
    def trail(self) -> Trail:
        """The log, to read."""
        return self._trail

    def shown(self) -> tuple[Checkpoint, str] | None:
        """Give the newest head that `checkpoints` has, and its note; None before the first."""
        return self._shown

    async def cosigned(self, head: Checkpoint, note: str, *, keep: bool) -> None:
        """Take in a checkpoint of ours with cosignatures: in the checkpoint's own place while it is the newest.

        With `keep` also in WITNESSED, which outlasts newer heads. Raises FencedError if somebody else has published.
        """

        def write() -> None:
            if newest:
                self._trail.cosign(note)
            if keep:
                with durable.alone(self._trail.folder):  # between the look at the head and the file nobody publishes
                    self._trail.check_ours()  # a successor may have had a newer head witnessed
                    durable.put(self._trail.folder / WITNESSED, note.encode())

        async with self._writing:
            newest = (head.size, head.root) == (self._trail.size, self._trail.root)
            await to_the_end(write)
            if self._shown and self._shown[0] == head:
                self._shown = (head, note)

    async def announce_cosigned(self, note: str) -> None:
        """Show everybody a cosigned head that `checkpoints` has already; it is passed over where heads are counted."""
        await self._bus.append(
            CHECKPOINTS, [(COSIGNED_KEY, notes.format_advance(0, [], note).encode())], partition=self._shard
        )

    async def _announce(self) -> None:
        """Append the trail's head to `checkpoints`, with the proof that it extends the last one there."""
        last = self._announced or await self._last_announced()
        self._announced = None  # until the append is acknowledged nobody knows what the stream ends with
        if last is None or last.size < self._trail.size or last.origin != self._trail.origin:
            old = last.size if last else 0
            self._trail.check_ours()  # a head of ours that a successor went beyond would ring at every member
            body = notes.format_advance(old, self._trail.consistency(old, self._trail.size), self._trail.checkpoint)
            record = (b"", body.encode()) if self._opened(last) else (OPENING_KEY, self._opening(body))
            await self._bus.append(CHECKPOINTS, [record], partition=self._shard)
            crash.here("seal.announced")
            last = Checkpoint(self._trail.origin, self._trail.size, self._trail.root)
        self._announced = last
        self._shown = (last, self._trail.checkpoint)

    def _opened(self, last: Checkpoint | None) -> bool:
        """Say whether the stream shows this log already: a later one than its shard's first has to be opened."""
        return begun.place_of(self._trail.origin) == 1 or (last is not None and last.origin == self._trail.origin)

    def _opening(self, body: str) -> bytes:
        """Write how `checkpoints` shows a new log: its beginning with proof, and the head that goes on from the old."""
        number = begun.ended_at(self._trail.folder, self._trail.origin)
        kept = self._records.get(number)
        if kept is None:
            message = f"the decision record of leaf {number}, which began {self._trail.origin}, is missing"
            raise TrailError(message)
        entry = Entry(number, self._trail.entry(number), *kept)
        return codec.encode(Opening(codec.encode(entry), self.proofs([number])[0], body))

    # Recovery.

    async def shows_us(self) -> bool:
        """Say whether the newest head in `checkpoints` is of this very log."""
        return self._opened(await self._last_announced())

    async def look(self) -> Outlook:
        """See how far all goes. Who still owns the shard after this knows that it saw no successor's work.

        Raises TrailError if this log, or the head that everybody saw, is not ours.
        """
        await to_the_end(self._check_key)
        kept = self._records.size
        return Outlook(kept, await self._last_announced(), await self._bus.end(TRAIL, partition=self._shard))

    async def recover(self, outlook: Outlook | None = None) -> Head | None:
        """Finish what a crash left behind; return the head that the trail then has, None for an empty log.

        Only what `outlook` saw is sealed: what came later may be a successor's, who seals it. Without one nobody else
        may write this shard. Raises TrailError where disk and record contradict each other.
        """
        await self.finish(outlook)
        if self._trail.size == 0:
            return None
        await self._announce()
        now = codec.decode(Leaf, self._trail.entry(self._trail.size - 1)).now
        return Head(self._trail.size, self._trail.root, now)

    async def finish(self, outlook: Outlook | None = None) -> None:
        """Seal what the record has and the disk lacks; nobody is shown the head. Raises TrailError, as `recover`."""
        outlook = outlook or await self.look()
        await self._catch_up(outlook, self._take)
        if outlook.announced:
            _check_announced(outlook.announced, self._trail.size, self._trail.root_of)
            self._announced = outlook.announced
        _check_kept(outlook.kept, self._trail.size)  # those beyond may be a successor's by now

    async def foresee(self, sizes: Collection[int]) -> tuple[int, dict[int, bytes]]:
        """Tell the size that disk and record lead to, and the roots at these sizes as far; nothing is written.

        The shard need not be ours: what its owner does meanwhile is seen or not. Raises TrailError where `finish` does.
        """
        await self._all_shown()
        outlook = await self.look()
        frontier, wanted = self._trail.frontier(), {*sizes, *([outlook.announced.size] if outlook.announced else [])}
        roots = {size: self._trail.root_of(size) for size in wanted if size <= frontier.size}

        async def take(entries: Sequence[Entry], head: Head) -> None:
            for entry in entries:
                if entry.leaf_number == frontier.size:
                    frontier.add(leaf_hash(entry.leaf))
                    if frontier.size in wanted:
                        roots[frontier.size] = frontier.root()
            if head.size == frontier.size and head.root != frontier.root():
                raise TrailError(_another_root(head.size))

        await self._catch_up(outlook, take)
        if outlook.announced:
            _check_announced(outlook.announced, frontier.size, roots.__getitem__)
        _check_kept(outlook.kept, frontier.size)
        return frontier.size, roots

    async def _all_shown(self) -> None:
        """Wait until the bus shows what is on disk already; what it does not show then was cut off, and is not."""
        written = await self._bus.written(TRAIL, partition=self._shard)
        with suppress(TimeoutError):
            async with asyncio.timeout(SHOWN_S):
                while await self._bus.end(TRAIL, partition=self._shard) < written:  # noqa: ASYNC110 - a bus tells nobody
                    await asyncio.sleep(SHOWN_AGAIN_S)

    async def beyond(self) -> AsyncIterator[Entry]:
        """Read the leaves that the record has beyond the disk. Raises TrailError where one is missing."""
        size = self._trail.size
        end = await self._bus.end(TRAIL, partition=self._shard)
        async for _, value in self._stream((size, 1), end):
            if isinstance(value, Head):
                continue
            if value.leaf_number != size:
                message = f"the record goes from leaf {size} to {value.leaf_number}: a stretch is lost"
                raise TrailError(message)
            size += 1
            yield value

    def _check_key(self) -> None:
        """Check that this log is ours, by its vkey and the signature of its checkpoint; a new log gets its vkey."""
        file = self._trail.folder / "vkey"
        try:
            if not file.exists():
                self._trail.folder.mkdir(parents=True, exist_ok=True)
                durable.put(file, f"{self._vkey}\n".encode())
            if notes.parse_vkey(file.read_text(encoding="utf-8")) != self._vkey:
                message = f"{file} is not the key that we sign with"
                raise TrailError(message)
            if self._trail.checkpoint:
                begun.open_checkpoint(self._trail.checkpoint, self._vkey)
        except (OSError, UnicodeDecodeError, ProofError) as error:
            raise TrailError(f"{self._trail.folder}: {error}") from error

    async def _catch_up(self, outlook: Outlook, take: Take) -> None:
        """Have every step of the `trail` stream taken that disk or decision records lack. Raises TrailError."""
        begin = min(self._trail.size, self._records.size)
        waiting: list[Entry] = []
        seen: Position = (begin, 1)
        met = False
        async for position, value in self._stream(seen, outlook.end):
            if isinstance(value, Head):
                self._check_head(value, seen[0])
                met = met or value.size >= self._trail.size
                await take(waiting, value)
                waiting = []
            else:
                if value.leaf_number != seen[0]:
                    message = f"the record goes from leaf {seen[0]} to {value.leaf_number}: a stretch is lost"
                    raise TrailError(message)
                waiting.append(value)
            seen = position
        if waiting:
            message = f"the record ends at leaf {seen[0]} without a head"
            raise TrailError(message)
        if not met:
            await self._check_bare(outlook.announced)

    def _check_head(self, head: Head, leaves: int) -> None:
        if head.size != leaves or (head.size == self._trail.size and head.root != self._trail.root):
            raise TrailError(_another_root(head.size))

    async def _take(self, entries: Sequence[Entry], head: Head) -> None:
        """Seal a step."""
        if head.size <= self._trail.size:  # on disk already; its decision records may not be
            await to_the_end(self._records.add, entries)
            return
        new = [each for each in entries if each.leaf_number >= self._trail.size]
        await to_the_end(self._records.add, [each for each in entries if each.leaf_number < self._trail.size])
        await self._extend(new, head)

    async def _check_bare(self, announced: Checkpoint | None) -> None:
        """Without a word of the record about our head, only the heads that everybody saw can bear it out.

        That is so where retention has taken the whole stream; a stream that ends before our head contradicts it.
        """
        if self._records.size < self._trail.size:
            message = f"decision records end at leaf {self._records.size} and the record no longer has the others"
            raise TrailError(message)
        ours = Checkpoint(self._trail.origin, self._trail.size, self._trail.root)
        if self._trail.size and (announced != ours or await self._record_is_there()):
            message = f"the disk has {ours.size} leaves, more than the record"
            raise TrailError(message)

    async def _record_is_there(self) -> bool:
        end = await self._bus.end(TRAIL, partition=self._shard)
        return end == 0 or await self._last(TRAIL) is not None

    async def _last_announced(self) -> Checkpoint | None:
        """Read the last head of the `checkpoints` stream."""
        record = await self._last(CHECKPOINTS)
        return self._announced_in(record) if record else None

    async def _last(self, stream: str) -> Record | None:
        """Read the last record of a stream that is more than cosignatures."""
        start, end = 0, await self._filled(stream, await self._bus.end(stream, partition=self._shard))
        while start < end:
            begin = max(start, end - LOOKED_THROUGH)
            try:
                found = [each async for each in self._from(stream, begin, end) if each.key != COSIGNED_KEY]
            except OffsetGoneError as error:
                start = error.start
                continue
            if found:
                return found[-1]
            end = await self._filled(stream, begin)
        return None

    async def _filled(self, stream: str, high: int) -> int:
        """Find the offset after the last record before `high`, which many holes may come before after a restore.

        Looks from there on, further and further, then halves what is left.
        """
        low, back = 0, 1
        while low < high:
            middle = max((low + high) // 2, high - back)
            back *= 16
            try:
                found = await self._bus.read(stream, middle, limit=1, partition=self._shard)
            except OffsetGoneError as error:
                low = error.start
                continue
            if found and found[0].offset < high:
                low = found[0].offset + 1
            else:
                high = middle
        return low

    async def _from(self, stream: str, place: int, end: int) -> AsyncIterator[Record]:
        while place < end:
            found = await self._bus.read(stream, place, limit=READ_LIMIT, partition=self._shard)
            if not found:
                return
            for record in found:
                if record.offset >= end:
                    return
                yield record
            place = found[-1].offset + 1

    def _announced_in(self, record: Record) -> Checkpoint:
        try:
            value = record.value or b""
            body = codec.decode(Opening, value).advance if record.key == OPENING_KEY else value
            return begun.open_checkpoint(notes.parse_advance(body).checkpoint, self._vkey)
        except (ProofError, NoticeRejectedError) as error:
            message = f"{CHECKPOINTS} offset {record.offset} is no head of ours"
            raise TrailError(message) from error

    # The `trail` stream.

    async def _stream(self, begin: Position, end: int) -> AsyncIterator[tuple[Position, Entry | Head]]:
        """Read the stream from the first record at or after a position to an offset."""
        place = await self._find(begin, end)
        async for record in self._from(TRAIL, place, end):
            value = _value(record)
            yield _position(value), value

    async def _find(self, wanted: Position, end: int) -> int:
        """Find the offset of the first record at or after a position: positions grow with offsets."""
        low, high = 0, end
        while low < high:
            middle = (low + high) // 2
            try:
                found = await self._bus.read(TRAIL, middle, limit=1, partition=self._shard)
            except OffsetGoneError as error:
                low = error.start
                continue
            if not found or _position(_value(found[0])) >= wanted:
                high = middle
            else:
                low = found[0].offset + 1
        return low


def _value(record: Record) -> Entry | Head:
    try:
        kind: type[Entry | Head] = Head if record.key == HEAD_KEY else Entry
        return codec.decode(kind, record.value or b"")
    except NoticeRejectedError as error:
        message = f"{TRAIL} offset {record.offset} cannot be read"
        raise TrailError(message) from error


def _position(value: Entry | Head) -> Position:
    return (value.size, 1) if isinstance(value, Head) else (value.leaf_number + 1, 0)


def _check_announced(announced: Checkpoint, size: int, root_of: Callable[[int], bytes]) -> None:
    """Check that the last head that everybody saw lies on our history. Raises TrailError."""
    if announced.size > size:
        message = f"a head of {announced.size} leaves was published; record and disk end at {size}"
        raise TrailError(message)
    if root_of(announced.size) != announced.root:
        raise TrailError(_another_root(announced.size))


def _check_kept(records: int, size: int) -> None:
    """Check that no decision record goes beyond the log. Raises TrailError."""
    if records > size:
        message = f"decision records go to leaf {records}; the record ends at {size}"
        raise TrailError(message)


def _another_root(size: int) -> str:
    return f"the tree of {size} leaves has another root than the record says"
