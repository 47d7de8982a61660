"""Takes a bureau's deliveries in: checked before anyone sees them, answered by signed receipts.

Place in the stream, deliveries and receipts to send are one transaction of the inbox file: after kill -9 the same
records come again and are found to be there. What fails a check is shown to nobody, kept by its place and code, and
raised as an alarm; the collector goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from adapters.again import Rejection
from adapters.anew import begin_anew, begins_anew, go_on
from adapters.check import Checked, Known, check
from adapters.database import forget, transaction
from adapters.ends import REPLACED, End, record_of
from adapters.following import follow, ring_called_lost
from adapters.inbox import Inbox, Line, Newest, Opened
from adapters.receipts import Act, Receipts, Signer
from adapters.refusals import (
    NumberReusedError,
    RefusedError,
    RetentionOverError,
    UnknownDirectoryError,
    UnknownHeadError,
    UnrelatedError,
    WrongLeafError,
)
from adapters.versions import Versions
from broker import crash, notes, streams
from broker.bus import Bus, Record
from broker.errors import OffsetGoneError
from broker.notice import RELEASED, WITHDRAWAL, Header
from broker.verify import is_order

PAGE = 200
PAGE_OBJECTS = 50_000
"""More than a page makes: how rarely a process that collects for long should look for cycles."""
REJECTED = "rejected"
"""Place beside those in streams: up to which leaf rejections were looked at."""
Result = Checked | RefusedError
Rejections = Callable[[int], Sequence[Rejection]]
"""Gives what the member's outcomes say was rejected for its key or its date alone, from a leaf on."""


Progress = Callable[[int, int], object]
"""Is told how many records were taken in, and of how many: 0, it is not known."""


def none(_: int) -> Sequence[Rejection]:
    """Give no rejections: nobody follows the member's outcomes."""
    return ()


@dataclass(slots=True)
class Taken:
    """What one round brought: deliveries that are new to this bureau, and how many records were refused."""

    new: list[Line] = field(default_factory=list)
    refused: int = 0
    records: int = 0


@dataclass(slots=True)
class _Page:
    """What is known while a page is stored. All is one transaction, so nobody else changes the inbox meanwhile."""

    taken: Taken
    unseen: frozenset[int]
    """Numbers that withdrawals on the page erase."""
    newest: Newest
    acts: list[Act] = field(default_factory=list)


class Collector:
    """One bureau's collector. `random` gives that many random bytes."""

    def __init__(
        self, bus: Bus, inbox: Inbox, versions: Versions, signer: Signer, random: Callable[[int], bytes],
        shard: int = 0, rejections: Rejections = none,
    ) -> None:  # fmt: skip
        self._bus, self._inbox, self._versions, self._rejections = bus, inbox, versions, rejections
        self._signer, self._random, self._shard = signer, random, shard
        self._receipts = Receipts(inbox.database, signer)
        self._stream = streams.inbox(signer.bureau)
        self._began_anew = False

    async def round(self, wait: float = 0.0) -> Taken:
        """Take in one page of deliveries, waiting up to `wait` seconds for the first, and send what receipts wait."""
        place, records = await self._read(wait)
        # Whoever has deliveries to check need not know yet whether there are more heads than these.
        log = await self._follow(versions=not self._versions.newest_digest("directory"), to_end=not records)
        taken = Taken(records=len(records))
        if records:
            results = await self._check(records, log)
            if self._misses(results) and await self._was_made_again(place, log):
                return await self.round()
            if self._misses(results):
                # A withdrawal that says why may lie a little further: a bus may end a page early.
                further = await self._further(records[-1].offset + 1)
                records, results = [*records, *further], [*results, *await self._check(further, log)]
                taken.records = len(records)
            self._store(place, records, results, taken)
            crash.here("collect.stored")
        else:
            self._send_again()
        await self._receipts.send(self._bus, self._shard)
        return taken

    async def _read(self, wait: float) -> tuple[int, Sequence[Record]]:
        """Give the place and what lies there."""
        journal = self._inbox.journal
        place = journal.place(self._stream)
        try:
            records = await self._bus.read(self._stream, place, limit=PAGE, wait=wait, partition=self._shard)
        except OffsetGoneError as error:
            # Away for longer than the bus keeps deliveries: the next one's number says how many are lost.
            go_on(journal, place, self._signer.clock(), error, f"{self._signer.bureau} deliveries, by offset:")
            return await self._read(wait)
        if not records and await begins_anew(self._bus, journal, self._stream, self._shard, self._signer.clock()):
            return await self._read(0.0)
        return place, records

    async def _was_made_again(self, place: int, log: notes.Vkey) -> bool:
        """Begin anew, once, where what lies just before our place never came: a stream that has grown past it again."""
        if not place or self._began_anew:
            return False
        try:
            before = await self._bus.read(self._stream, place - 1, limit=1, partition=self._shard)
        except OffsetGoneError:
            return False
        results = await self._check([each for each in before if each.offset == place - 1], log)
        newest = self._inbox.newest().number
        if not any(isinstance(each, Checked) and each.delivery.delivery_number > newest for each in results):
            return False
        self._began_anew = True
        at = self._signer.clock()
        begin_anew(self._inbox.journal, self._stream, place, at, f"holds before {place} what never came from there")
        return True

    def _send_again(self) -> None:
        """Queue receipts that were rejected for their key or their date alone, once they can come again."""
        place = self._inbox.journal.place(REJECTED)
        rejected = self._rejections(place)
        if not rejected and not self._receipts.waits_for_key():
            return
        with transaction(self._inbox.database):
            if rejected and self._inbox.journal.place(REJECTED) == place:
                self._receipts.reject(rejected)
                self._inbox.journal.move(REJECTED, rejected[-1].leaf_number + 1)
            self._receipts.send_again(self._inbox.newest_leaf(), self._versions.directory, self._versions.newest())

    async def drain(self, progress: Progress = lambda _done, _size: None) -> Taken:
        """Take in everything that is there now."""
        whole = Taken()
        while True:
            taken = await self.round()
            whole.new += taken.new
            whole.refused += taken.refused
            whole.records += taken.records
            progress(whole.records, 0)
            if not taken.records:
                return whole

    def _misses(self, results: Sequence[Result]) -> bool:
        """Tell whether a delivery's number shows that one before it has not come."""
        last = self._inbox.newest().number
        for each in results:
            if isinstance(each, Checked):
                if each.delivery.delivery_number > last + 1:
                    return True
                last = max(last, each.delivery.delivery_number)
        return False

    async def _further(self, place: int) -> list[Record]:
        """Read as many records more as a page has, or as there are."""
        found: list[Record] = []
        while len(found) < PAGE:
            more = await self._bus.read(self._stream, place, limit=PAGE - len(found), partition=self._shard)
            if not more:
                break
            found += more
            place = more[-1].offset + 1
        return found

    async def _follow(self, *, versions: bool, to_end: bool = True) -> notes.Vkey:
        heads, now = self._inbox.heads, self._signer.clock()
        log = await follow(self._bus, self._versions, heads, self._shard, now, versions=versions, to_end=to_end)
        ring_called_lost(self._versions, self._inbox.journal, self._signer.member, now)
        return log

    async def _check(self, records: Sequence[Record], log: notes.Vkey) -> list[Result]:
        """Check records; what names a head or a directory that we lack is checked again once we have followed.

        First the heads to their end, then new versions too: most often it is only a head that comes a little later.
        """
        before = self._inbox.newest().directory
        if records and before and self._versions.directory(before) is None:
            await self._follow(versions=True)  # damaged here: which directory was in force before could not be told
        known, results = self._known(log), []
        for record in records:
            result = _judge(record, known)
            for versions in (False, True):
                if isinstance(result, UnknownHeadError | UnknownDirectoryError):
                    known = self._known(await self._follow(versions=versions))
                    result = _judge(record, known)
            results.append(result)
        return results

    def _known(self, log: notes.Vkey) -> Known:
        return Known(
            self._signer.federation, self._signer.bureau, self._shard,
            self._versions.directory, self._inbox.heads.find, log, self._signer.clock(),
        )  # fmt: skip

    def _store(self, place: int, records: Sequence[Record], results: Sequence[Result], taken: Taken) -> None:
        """Keep what was read from `place` on, unless another process has done so meanwhile."""
        ended = False
        unseen = frozenset(n for each in results if isinstance(each, Checked) for n in _erases(each))
        with transaction(self._inbox.database):
            if self._inbox.journal.place(self._stream) != place:
                return
            page = _Page(taken, unseen, self._inbox.newest())
            for record, result in zip(records, results, strict=True):
                try:
                    if isinstance(result, RefusedError):
                        raise result
                    ended |= self._take(result, page)
                except RefusedError as error:
                    self._inbox.journal.refuse(record, error.code)
                    taken.refused += 1
            self._receipts.queue(page.acts)
            self._inbox.journal.move(self._stream, records[-1].offset + 1)
        if ended:
            forget(self._inbox.database)

    def _take(self, checked: Checked, page: _Page) -> bool:
        """Keep one delivery and do what it orders; say whether a body was taken away."""
        is_newest = checked.delivery.delivery_number > page.newest.number
        if not is_newest and self._is_repeat(checked):
            return False
        self._check_directory(checked, page.newest)
        ordered = self._check_orders(checked)
        self._watch_numbers(checked.delivery.delivery_number, page)
        end = self._end(checked)
        replaced, erased = self._ends(checked, end)
        line = self._inbox.keep(checked, ordered, self._signer.clock())
        if end:
            self._inbox.ends.keep(end, checked.header)
        if is_newest:
            page.newest = Newest(line.number, checked.leaf.directory)
        page.acts.append(Act("received", line.issuer_member, line.item))
        page.acts += self._erased(erased, line)
        self._inbox.end(replaced, REPLACED, line.number)
        self._inbox.end(erased, "erased", line.number)
        page.taken.new.append(line)
        return bool(replaced or erased)

    def _end(self, checked: Checked) -> End | None:
        """Tell what a checked delivery ends of its record; None if it ends nothing."""
        if checked.header.kind != WITHDRAWAL and not _replaces(checked):
            return None
        delivery = checked.delivery
        return self._inbox.ends.made_by(checked.header, delivery.leaf_number, delivery.delivery_number)

    def _ends(self, checked: Checked, end: End | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tell which deliveries a checked one replaces, and which it erases.

        What is ordered, and what we hold of that record in any case: the issuer signed the end, the broker its order.
        """
        if end is None:
            return (), ()
        held, delivery = self._inbox.held(end, *record_of(checked.header)), checked.delivery
        if checked.header.kind == WITHDRAWAL:
            return (), tuple(dict.fromkeys((*delivery.erases, *held)))
        return tuple(dict.fromkeys((*delivery.replaces, *held))), ()

    def _is_repeat(self, checked: Checked) -> bool:
        kept = self._inbox.line(checked.delivery.delivery_number)
        if kept is None:
            return False
        if (kept.leaf_number, kept.header_digest) != (checked.delivery.leaf_number, checked.header_digest):
            raise NumberReusedError
        return True

    def _check_directory(self, checked: Checked, newest: Newest) -> None:
        """Check that no older directory was in force than for the delivery before: its keys may have been replaced."""
        before, number = newest.directory, checked.delivery.delivery_number
        if number <= newest.number:
            leaf = self._inbox.leaf_before(number)
            before = leaf.directory if leaf else None
        then, now = (self._versions.directory(each) if each else None for each in (before, checked.leaf.directory))
        if then and now and now.version < then.version:
            message = f"directory version {now.version} after version {then.version}"
            raise WrongLeafError(message)

    def _watch_numbers(self, number: int, page: _Page) -> None:
        """Raise an alarm for numbers that did not come: `gap`, or `erased-unseen` where a withdrawal names them.

        The broker takes what was withdrawn out of an inbox that nobody had read; it says which, but not under its row.
        """
        missing = range(page.newest.number + 1, number)
        for code, numbers in (
            ("gap", [each for each in missing if each not in page.unseen]),
            ("erased-unseen", [each for each in missing if each in page.unseen]),
        ):
            if numbers:
                about = f"{self._signer.bureau} deliveries {numbers[0]} to {numbers[-1]}"
                if not page.newest.number and self._inbox.heads.goes_on():
                    about += ", before the first: in a log that lost leaves, numbers may begin beyond the lost ones"
                self._inbox.journal.alarm(self._signer.clock(), code, about)

    def _check_orders(self, checked: Checked) -> tuple[str, int] | None:
        """Check that what a delivery would end is of the record of which it speaks. Raises UnrelatedError.

        Gives what was ordered for the delivery itself before it came, as `Inbox.ordered` does.
        """
        delivery, header = checked.delivery, checked.header
        if delivery.erases and header.kind != WITHDRAWAL:
            message = f"a {header.kind} cannot erase"
            raise UnrelatedError(message)
        if delivery.replaces and not _replaces(checked):
            message = "only a correction that is not held replaces, or the release of what was held"
            raise UnrelatedError(message)
        if is_order(header) and not self._may_order(checked):
            message = "only its issuer withdraws a notice, or an authority"
            raise UnrelatedError(message)
        for number in (*delivery.replaces, *delivery.erases):
            kept = self._inbox.line(number)
            if kept and (kept.issuer, kept.record) != record_of(header):
                raise UnrelatedError
            if kept and number in delivery.replaces and kept.version > header.version:
                message = "a correction replaces no later version"
                raise UnrelatedError(message)
        return self._check_ordered(checked)

    def _may_order(self, checked: Checked) -> bool:
        directory = self._versions.directory(checked.leaf.directory)
        return directory is not None and directory.may_order(checked.header.issuer)

    def _check_ordered(self, checked: Checked) -> tuple[str, int] | None:
        """Check an order that came before the delivery which it ends; one that does not fit is dropped."""
        ordered = self._inbox.ordered(checked.delivery.delivery_number)
        by = self._inbox.speaks_of(ordered[1]) if ordered else None
        if ordered is None or by is None or (by == record_of(checked.header) and not self._is_later(checked, ordered)):
            return ordered
        self._inbox.database.execute(
            "DELETE FROM orders WHERE delivery_number = ?", (checked.delivery.delivery_number,)
        )
        self._inbox.journal.alarm(self._signer.clock(), UnrelatedError.code, f"order of delivery {ordered[1]}")
        return None

    def _is_later(self, checked: Checked, ordered: tuple[str, int]) -> bool:
        """Say whether a delivery is a later version than the correction that was to replace it."""
        by = self._inbox.line(ordered[1])
        return ordered[0] == REPLACED and by is not None and checked.header.version > by.version

    def _erased(self, erased: Sequence[int], line: Line) -> list[Act]:
        """Answer a withdrawal: it and each delivery that it ended here."""
        if line.state == "erased":
            return [Act("erased", line.issuer_member, line.item, result="erased")]
        if line.kind != WITHDRAWAL:
            return []
        kept = [self._inbox.line(number) for number in erased]
        ended = [line, *(each for each in kept if each is not None)]
        return [Act("erased", each.issuer_member, each.item, result="erased") for each in ended]

    def read(self, number: int, case: str) -> Opened | None:
        """Open a delivery for a case. The `read` receipt is signed and kept before anything is shown, and sent after.

        None if there is no such delivery, or no longer. A second look for the same case needs no second receipt. Raises
        RetentionOverError where it may no longer be kept, or its review is overdue (rule 11).
        """
        # In one transaction: another process may take in the withdrawal of what was opened before it.
        with transaction(self._inbox.database):
            opened = self._inbox.open(number)
            if opened is None:
                return None
            _check_retention(opened.header, self._signer.clock())
            if self._inbox.case(number, case) is None:
                self._queue_read(opened.line, case)
            self._inbox.mark_read(number)
        return opened

    def _queue_read(self, line: Line, case: str) -> None:
        salt = self._random(32)
        digest = sha256(salt + case.encode()).digest()
        self._inbox.keep_case(line.number, digest, salt, case, self._signer.clock())
        self._receipts.queue([Act("read", line.issuer_member, line.item, case_digest=digest)])

    async def send(self) -> int:
        """Send the receipts that wait."""
        return await self._receipts.send(self._bus, self._shard)


def _judge(record: Record, known: Known) -> Result:
    try:
        return check(record.value or b"", known)
    except RefusedError as error:
        return error


def _check_retention(header: Header, now: int) -> None:
    ends = ((header.retain_until, "may no longer be kept"), (header.review_due, "has not been reviewed in time"))
    for day, what in ends:
        if day is not None and day <= now:
            message = f"it {what} by its issuer's word: {header.issuer} would have to correct it"
            raise RetentionOverError(message)


def _erases(checked: Checked) -> tuple[int, ...]:
    return checked.delivery.erases if checked.header.kind == WITHDRAWAL else ()


def _replaces(checked: Checked) -> bool:
    """Tell whether a delivery may take the place of others: a correction does, and a release at who reviewed it.

    A correction that is held does not: until it is released the version before it is in force.
    """
    corrects = any(each.relation == "corrects" for each in checked.header.references)
    return (corrects and checked.leaf.kind != "held") or checked.leaf.kind == RELEASED
