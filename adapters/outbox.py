"""Numbers, signs and keeps what a member publishes until the bus has it.

The place in the source, the number in the series and the signed envelope are one transaction: after kill -9 nothing is
lost, nothing is numbered twice, and what was appended but not marked is appended again, byte for byte, which the broker
answers with the original outcome.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters import dates, heads, holding, lost, subscriptions
from adapters.adapter import Draft, Pointer, Rejected
from adapters.changes import Change, Corrected, New, Unchanged, Withdrawn
from adapters.compose import NO_KEY, Maker, Place, check_pointer, compose
from adapters.database import QUEUED, WAIT_S, answering, connect, count_queued, forget, transaction
from adapters.holding import Holding, reason_in, reference_to
from adapters.order import Order
from adapters.requeue import Requeue
from adapters.sender import Sender, sent_digest
from adapters.upgrade import VERSION, bring_up
from adapters.withdrawal import withdrawal
from adapters.wrong import why
from broker import crash
from broker.bus import Bus
from broker.errors import InvalidReferenceError, NoticeRejectedError, UnavailableError
from broker.notice import ORDERED, Header, Reference, Verified
from broker.writing import take_back

TABLES = f"""
CREATE TABLE IF NOT EXISTS series(bureau TEXT PRIMARY KEY, series BLOB NOT NULL, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cursors(source TEXT PRIMARY KEY, cursor TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS envelopes(
    place INTEGER PRIMARY KEY AUTOINCREMENT, notice_id BLOB NOT NULL UNIQUE, bureau TEXT NOT NULL,
    record TEXT NOT NULL, version INTEGER NOT NULL, kind TEXT NOT NULL, series BLOB NOT NULL, number INTEGER NOT NULL,
    header BLOB NOT NULL, header_digest BLOB NOT NULL UNIQUE, key_id BLOB NOT NULL, signature BLOB NOT NULL,
    compartments BLOB, made_at INTEGER NOT NULL, sent_at INTEGER, sent_digest BLOB,
    outcome TEXT, leaf_number INTEGER, {QUEUED},
    UNIQUE(bureau, series, number)
);
CREATE INDEX IF NOT EXISTS envelopes_unsent ON envelopes(place) WHERE sent_at IS NULL;
CREATE INDEX IF NOT EXISTS envelopes_undecided ON envelopes(sent_digest) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS envelopes_open ON envelopes(bureau, record, version) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS envelopes_ordered ON envelopes(bureau, record) WHERE outcome = '{ORDERED}';
CREATE INDEX IF NOT EXISTS envelopes_record ON envelopes(bureau, record, version);
CREATE INDEX IF NOT EXISTS envelopes_named ON envelopes(record);
CREATE TABLE IF NOT EXISTS records(
    bureau TEXT NOT NULL, record TEXT NOT NULL, source TEXT NOT NULL, digest BLOB NOT NULL, version INTEGER NOT NULL,
    state TEXT NOT NULL CHECK(state IN ('live', 'withdrawn', 'refused')), facts TEXT NOT NULL, -- of before: unused
    PRIMARY KEY(bureau, record)
);
CREATE INDEX IF NOT EXISTS records_named ON records(record);
CREATE TABLE IF NOT EXISTS outcomes(
    leaf_number INTEGER PRIMARY KEY, kind TEXT NOT NULL, code TEXT, detail TEXT NOT NULL, notice_id BLOB,
    record_digest BLOB NOT NULL, original INTEGER, missing TEXT NOT NULL, warnings TEXT NOT NULL,
    statement BLOB NOT NULL, decision_salt BLOB NOT NULL, decision BLOB NOT NULL, leaf BLOB NOT NULL,
    proof TEXT NOT NULL, now INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS outcomes_notice ON outcomes(notice_id);
CREATE INDEX IF NOT EXISTS outcomes_rejected ON outcomes(record_digest, code) WHERE kind = 'rejected';
CREATE INDEX IF NOT EXISTS outcomes_rejected_since ON outcomes(code, leaf_number) WHERE kind = 'rejected';
CREATE INDEX IF NOT EXISTS outcomes_subscribed ON outcomes(leaf_number) WHERE kind = 'subscribed';
CREATE TABLE IF NOT EXISTS orders(notice_id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS ours AS SELECT * FROM envelopes WHERE notice_id NOT IN (SELECT notice_id FROM orders);
CREATE TABLE IF NOT EXISTS sent_again(leaf_number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS answers(
    leaf_number INTEGER NOT NULL, header_digest BLOB NOT NULL, bureau TEXT NOT NULL, act TEXT NOT NULL, result TEXT,
    now INTEGER NOT NULL, receipt_leaf INTEGER NOT NULL,
    PRIMARY KEY(leaf_number, header_digest, bureau, act, receipt_leaf)
);
"""  # noqa: S608 -- ours
OTHER_SOURCE = "record-of-another-source"
Resolve = Callable[[Pointer], Reference | None]
"""Finds the notice that a pointer to another bureau's record means."""


def nowhere(_: Pointer) -> Reference | None:
    """Resolve no pointer to others' records."""
    return None


@dataclass(frozen=True, slots=True)
class Published:
    """A notice that waits in the outbox or has left it."""

    notice_id: bytes
    record: str
    version: int
    kind: str
    number: int

    @property
    def id(self) -> str:
        """The notice id as people write it."""
        return str(uuid.UUID(bytes=self.notice_id))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A draft that the broker would reject; nothing of it was kept."""

    record: str
    code: str
    reason: str


Result = Published | Refusal | Unchanged


Progress = Callable[[int, int], object]


def _nobody(_: Result) -> None:
    """Be told of nothing."""


def _silent(_done: int, _size: int) -> None:
    """Say nothing of how far it is."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a source has been read, in the source's own words."""

    source: str
    cursor: str


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    digest: bytes
    state: str
    source: str


class Outbox:
    """The outbox of one member, for all its bureaus; `bureau` issues what a draft names no bureau for.

    `wait`: for how many seconds another process that keeps the file is waited for.
    """

    def __init__(self, path: Path, maker: Maker, bureau: str, resolve: Resolve = nowhere, wait: float = WAIT_S) -> None:
        self.database = connect(
            path,
            heads.TABLES + dates.TABLES + TABLES + holding.TABLES + lost.TABLES + subscriptions.TABLES,
            VERSION,
            wait,
        )
        count_queued(self.database, "envelopes")
        self.requeue, self.holding = Requeue(self.database, maker), Holding(self.database)
        self._sender = Sender(self.database, maker, self.requeue)
        self._maker, self._bureau, self._resolve = maker, bureau, resolve
        bring_up(self.database, self.holding)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    # What was published

    def published(self, source: str) -> dict[str, bytes]:
        """Give record → content digest of what stands published from a source."""
        rows = self.database.execute(
            "SELECT record, digest FROM records WHERE source = ? AND state = 'live'", (source,)
        )
        return {row["record"]: bytes(row["digest"]) for row in rows}

    def cursor(self, source: str) -> str | None:
        """Tell how far a source was read."""
        row = self.database.execute("SELECT cursor FROM cursors WHERE source = ?", (source,)).fetchone()
        return str(row[0]) if row else None

    def waiting(self) -> int:
        """Tell how many envelopes the bus does not have yet."""
        return int(self.database.execute("SELECT count(*) FROM envelopes WHERE sent_at IS NULL").fetchone()[0])

    def find(self, text: str, bureau: str | None = None) -> Published | None:
        """Find a notice by its id, or the newest of a record, which may be called like an id."""
        try:
            found = self._published("envelopes WHERE notice_id = ?2", uuid.UUID(text).bytes, bureau)
        except ValueError:
            found = None
        return found or self.newest_of(text, bureau)

    def newest_of(self, record: str, bureau: str | None = None) -> Published | None:
        """Find the newest notice of a record: the bureau's, or another's of this member if it has none.

        `bureau`: ours, if none is named. An order is of another's record, whatever that is called: only its id finds
        it.
        """
        return self._published("ours WHERE record = ?2", record, bureau)

    def _published(self, query: str, value: bytes | str, bureau: str | None) -> Published | None:
        row = self.database.execute(
            f"SELECT * FROM {query} ORDER BY bureau = ?1 DESC, version DESC LIMIT 1",  # noqa: S608 -- two
            (bureau or self._bureau, value),
        ).fetchone()
        if row is None:
            return None
        return Published(bytes(row["notice_id"]), row["record"], row["version"], row["kind"], row["number"])

    def waits_of(self, records: Iterable[str]) -> bool:
        """Say whether a version of one of these records, of whichever bureau, is not on the bus yet."""
        row = self.database.execute(
            "SELECT 1 FROM envelopes WHERE sent_at IS NULL AND record IN (SELECT value FROM json_each(?)) LIMIT 1",
            (json.dumps(list(records)),),
        ).fetchone()
        return row is not None

    def is_order(self, notice_id: bytes) -> bool:
        """Say whether a notice of this outbox is an order, on another's record."""
        return self.database.execute("SELECT 1 FROM orders WHERE notice_id = ?", (notice_id,)).fetchone() is not None

    def is_foreign(self, text: str) -> bool:
        """Say whether this is the id of a notice that is on record as ours and never was in this outbox."""
        try:
            notice_id = uuid.UUID(text).bytes
        except ValueError:
            return False
        return self.holding.foreign(notice_id) is not None

    def bureaus_with(self, record: str) -> list[str]:
        """Name the bureaus that have published a record of this name."""
        rows = self.database.execute("SELECT bureau FROM records WHERE record = ? ORDER BY bureau", (record,))
        return [str(row[0]) for row in rows]

    def bureau_of(self, notice_id: bytes) -> str:
        """Name the bureau that issued one of our notices."""
        return str(
            self.database.execute("SELECT bureau FROM envelopes WHERE notice_id = ?", (notice_id,)).fetchone()[0]
        )

    # Publishing

    def publish(
        self, drafts: Iterable[Draft], source: str = "", cursor: Cursor | None = None, progress: Progress = _silent
    ) -> list[Result]:
        """Publish what is new or changed, all in one transaction with the source's cursor.

        `progress` is told how many drafts are done, and of how many.
        """
        drafts, results = list(drafts), list[Result]()
        with self._signing({draft.bureau or self._bureau for draft in drafts}):
            for draft in drafts:
                results.append(self._publish(draft, source))
                progress(len(results), len(drafts))
            self._keep_cursor(cursor)
        return results

    def correct(self, draft: Draft, bureau: str, *, again: bool = False) -> Result:
        """Publish a draft for the bureau whose record it is, as `publish` there: what one has sent the other finds.

        `again`: though nothing has changed, for holders who have lost what they had.
        """
        with self._signing({bureau}):
            return self._publish(replace(draft, bureau=bureau), "", draft.digest(), again=again)

    def rehearse(self, drafts: Iterable[Draft], progress: Progress = _silent) -> list[Verified | Refusal | Unchanged]:
        """Give what `publish` would make of these drafts now, one after the other, and keep nothing of it."""
        drafts, made = list(drafts), list[Verified | Refusal | Unchanged]()
        self._unlock({draft.bureau or self._bureau for draft in drafts})
        with answering():
            self.database.execute("BEGIN IMMEDIATE")
            try:
                for draft in drafts:
                    made.append(self._make_next(draft, ""))
                    progress(len(made), len(drafts))
                return made
            finally:
                take_back(self.database)
                with suppress(sqlite3.OperationalError):  # never in the place of what went wrong; the next call does it
                    forget(self.database)

    def apply(
        self,
        changes: Iterable[Change],
        source: str,
        cursor: Cursor | None = None,
        *,
        previous: Mapping[str, bytes],
        dated: int | None = None,
        accept_older: bool = False,
    ) -> list[Result]:
        """Publish what a run of an adapter found (adapters/changes.py), all in one transaction.

        `previous`: what `published` gave before the source was read, and `changes` compared with. Raises
        UnavailableError, and publishes nothing, where another stands published by now: a run that read the source
        later may have come first.
        `dated`: what the source says of its date (`SourceReport.dated`). Raises OlderSourceError, and publishes
        nothing, where it is older than what was last published from it, unless `accept_older`.
        """
        changes = list(changes)
        signers = self._signers(changes, source)
        with self._signing(signers):
            dates.keep(self.database, source, dated, accept_older=accept_older)
            # While a passphrase was typed a record may have come to stand at another bureau, too.
            if self.published(source) != previous or not self._signers(changes, source) <= signers:
                raise UnavailableError(
                    f"what stands published from {source} has changed since it was compared: run again"
                )
            results = [result for change in changes for result in self._apply(change, source)]
            self._keep_cursor(cursor)
        return results

    def withdraw(self, record: str, reason: Mapping[str, Any] | None = None, bureau: str | None = None) -> list[Result]:
        """Withdraw each notice of a record that stands. Raises InvalidReferenceError if none does."""
        bureau = bureau or self._bureau
        with self._signing({bureau}):
            results = self._withdraw(record, bureau, reason)
            if not results:
                message = "no such record is published"
                raise InvalidReferenceError(message)
        return results

    def disown(self, notice_id: bytes, reason: Mapping[str, Any] | None = None) -> Result:
        """Withdraw what is on record as ours but never was in this outbox: somebody else had the key.

        Raises InvalidReferenceError if no outcome of such a notice has come.
        """
        found = self.holding.foreign(notice_id)
        if found is None:
            message = "no such notice is on record as ours"
            raise InvalidReferenceError(message)
        with self._signing({found[0].issuer}):
            return self._disown(*found, reason)

    def order(self, order: Order) -> Result:
        """Withdraw another's notice by order; refused here of a bureau that is no authority."""
        draft, bureau = order.draft, order.draft.bureau or self._bureau
        with self._signing({bureau}):
            try:
                made = self._make(draft, bureau, order.version, (order.reference,))
                self.database.execute("INSERT INTO orders VALUES (?)", (made.header.notice_id,))
                result: Result = _published(made)
            except NoticeRejectedError as error:
                result = Refusal(draft.record, error.code, why(draft, error))
        return result

    @contextmanager
    def _signing(self, bureaus: Collection[str]) -> Iterator[None]:
        """Hold the file, in one transaction, while these bureaus sign."""
        self._unlock(bureaus)
        with transaction(self.database):
            yield
        crash.here("outbox.stored")

    def _unlock(self, bureaus: Collection[str]) -> None:
        """Have the keys at hand before the file is held: a person may have to type a passphrase."""
        for bureau in sorted(bureaus):
            self._maker.key(bureau)

    def _signers(self, changes: Iterable[Change], source: str) -> set[str]:
        """Name the bureaus that may have to sign for changes: a record's own, and those at which it ends."""
        found = set[str]()
        for each in changes:
            if isinstance(each, New | Corrected):
                found |= {each.draft.bureau or self._bureau, *self._live_at(each.draft.record, source)}
            elif isinstance(each, Withdrawn):
                found.update(self._live_at(each.record, source))
        return found

    def _disown(self, header: Header, digest: bytes, reason: Mapping[str, Any] | None) -> Result:
        draft = withdrawal(header.record, header.issuer, reason)
        reference = Reference(header.issuer, header.notice_id, digest, "withdraws")
        try:
            made = self._make(draft, header.issuer, header.version + 1, (reference,))
        except NoticeRejectedError as error:
            return Refusal(header.record, error.code, why(draft, error))
        self._note_end(made)
        return _published(made)

    def _note_end(self, end: Verified) -> None:
        """Note what a withdrawal leaves of its record, and that what is published next comes after it.

        Where what it ends posed as a later version of what stands, the next run of its source publishes that anew.
        """
        header = end.header
        self.database.execute(
            "UPDATE records SET digest = x'', version = ?1 WHERE bureau = ?2 AND record = ?3 AND version < ?1",
            (header.version, header.issuer, header.record),
        )
        self.holding.settle(header.issuer, header.record)

    def _apply(self, change: Change, source: str) -> list[Result]:
        if isinstance(change, New | Corrected):
            return self._published_from(source, change.draft, change.digest)
        if isinstance(change, Withdrawn):
            return self._withdraw_at(self._live_at(change.record, source), change.record)
        return [] if isinstance(change, Rejected) else [change]

    def _published_from(self, source: str, draft: Draft, digest: bytes) -> list[Result]:
        """Publish a draft; at another bureau that had the record from this source until now it ends."""
        result = self._publish(draft, source, digest)
        if isinstance(result, Refusal):
            return [result]
        before = [each for each in self._live_at(draft.record, source) if each != (draft.bureau or self._bureau)]
        return [result, *self._withdraw_at(before, draft.record)]

    def _withdraw_at(self, bureaus: Iterable[str], record: str) -> list[Result]:
        return [result for each in bureaus for result in self._withdraw(record, each, None)]

    def _live_at(self, record: str, source: str) -> list[str]:
        """Name the bureaus at which a record of a source stands published."""
        rows = self.database.execute(
            "SELECT bureau FROM records WHERE record = ? AND source = ? AND state = 'live'", (record, source)
        )
        return [str(row[0]) for row in rows]

    def _publish(self, draft: Draft, source: str, digest: bytes | None = None, *, again: bool = False) -> Result:
        made = self._make_next(draft, source, digest, again=again)
        return _published(made) if isinstance(made, Verified) else made

    def _make_next(
        self, draft: Draft, source: str, digest: bytes | None = None, *, again: bool = False
    ) -> Verified | Refusal | Unchanged:
        """Make the next version of a record and keep it."""
        bureau = draft.bureau or self._bureau
        digest = digest or draft.digest()
        kept = self._record(bureau, draft.record)
        if kept and self._is_ordered(bureau, draft.record):
            return Refusal(draft.record, ORDERED, "an authority has withdrawn this record by order: it stays withdrawn")
        if kept and kept.state == "live" and kept.source and source and kept.source != source:
            # Two sources count their records alike: a person of one would become the "correction" of another's.
            return Refusal(draft.record, OTHER_SOURCE, f"it stands published from {kept.source}")
        if kept and kept.state == "live" and kept.digest == digest and not again:
            return Unchanged(draft.record)
        standing = self.holding.standing(bureau, draft.record)
        try:
            references = self._references(draft, bureau)
            if standing:
                references = (reference_to(standing[-1], "corrects"), *references)
            made = self._make(draft, bureau, (kept.version if kept else 0) + 1, references)
        except NoticeRejectedError as error:
            return Refusal(draft.record, error.code, why(draft, error))
        self.holding.went_on(standing, made)
        self._keep_record(bureau, draft, source, (digest, made.header.version, "live"))
        return made

    def _withdraw(self, record: str, bureau: str, reason: Mapping[str, Any] | None) -> list[Result]:
        """Withdraw each notice of a record that stands, the newest last."""
        standing, results = self.holding.standing(bureau, record), list[Result]()
        for each in standing:
            try:
                results.append(_published(self._end(each, standing[-1], reason)))
            except NoticeRejectedError as error:
                results.append(Refusal(record, error.code, why(withdrawal(record, bureau, reason), error)))
        return results

    def _end(self, subject: sqlite3.Row, newest: sqlite3.Row, reason: Mapping[str, Any] | None) -> Verified:
        """Withdraw a notice that stands; the newest beside it stays, as its own withdrawal has a lower version."""
        bureau, record = subject["bureau"], subject["record"]
        kept = self._record(bureau, record) if subject["notice_id"] == newest["notice_id"] else None
        draft = withdrawal(record, bureau, reason)
        version = (kept.version if kept else subject["version"]) + 1
        made = self._make(draft, bureau, version, (reference_to(subject, "withdraws"),))
        self._note_end(made)
        return made

    def _follow_up(self) -> list[Result]:
        """Withdraw what withdrawals that told nobody have left with its holders: once for each, with the same reason.

        A refusal: it could not be made now, for want of a key perhaps; it is tried again.
        """
        found = [self._followed(each) for each in self.holding.unfollowed()]
        return [each for each in found if each]

    def _followed(self, end: sqlite3.Row) -> Result | None:
        try:
            with self._signing({end["bureau"]}):
                made = self._withdraw_what_stands(end)
        except (*NO_KEY, NoticeRejectedError) as error:
            return Refusal(end["record"], error.code, str(error))
        return _published(made) if made else None

    def _withdraw_what_stands(self, end: sqlite3.Row) -> Verified | None:
        if not self.holding.follow(end["notice_id"]):  # another process has made it
            return None
        standing = self.holding.standing(end["bureau"], end["record"])
        found = self.holding.left_by(end, standing)
        # None: what was published meanwhile names that version.
        return self._end(found, standing[-1], reason_in(end["reason"])) if found else None

    def _make(self, draft: Draft, bureau: str, version: int, references: tuple[Reference, ...]) -> Verified:
        series, number = self._next(bureau)
        made = compose(draft, Place(bureau, version, references, series, number), self._maker)
        envelope = made.envelope
        self.database.execute("UPDATE series SET next = ? WHERE bureau = ?", (number + 1, bureau))
        self.database.execute(
            "INSERT INTO envelopes(notice_id, bureau, record, version, kind, series, number, header, header_digest,"
            " key_id, signature, compartments, made_at, sent_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                made.header.notice_id, bureau, draft.record, version, draft.kind, series, number,
                envelope.header, made.header_digest, envelope.key_id, envelope.signature, envelope.compartments,
                self._maker.clock(), sent_digest(envelope),
            ),
        )  # fmt: skip
        return made

    def _next(self, bureau: str) -> tuple[bytes, int]:
        """Give series and next number of a bureau; the number is used only if the caller says so."""
        row = self.database.execute("SELECT series, next FROM series WHERE bureau = ?", (bureau,)).fetchone()
        if row:
            return bytes(row["series"]), int(row["next"])
        series = self._maker.random(8)
        self.database.execute("INSERT INTO series VALUES (?, ?, 1)", (bureau, series))
        return series, 1

    def _references(self, draft: Draft, bureau: str) -> tuple[Reference, ...]:
        return tuple(self._reference(pointer, bureau, draft.record) for pointer in draft.pointers)

    def _reference(self, pointer: Pointer, bureau: str, record: str) -> Reference:
        check_pointer(pointer, record)
        own = pointer.issuer in ("", bureau) or pointer.issuer.partition("/")[0] == bureau.partition("/")[0]
        found = self._current(pointer.issuer or bureau, pointer.record) if own else self._resolve(pointer)
        if found is None:
            of = pointer.issuer or bureau
            message = f"a pointer {pointer.relation} the record {pointer.record} of {of}, which is not known here"
            raise InvalidReferenceError(message)
        return replace(found, relation=pointer.relation)

    def _current(self, bureau: str, record: str) -> Reference | None:
        """Find what is held of a record; where nothing is, its newest notice that was not rejected."""
        if held := self.holding.held(bureau, record):
            return held
        row = self.database.execute(
            "SELECT notice_id, header_digest FROM ours WHERE bureau = ? AND record = ?"
            " AND outcome IS NOT 'rejected' ORDER BY version DESC LIMIT 1",
            (bureau, record),
        ).fetchone()
        return Reference(bureau, bytes(row[0]), bytes(row[1]), "") if row else None

    def standing(self, bureau: str, record: str) -> tuple[int, Reference] | None:
        """Give version and notice of a record that is published, which the next publication corrects; None: no such."""
        kept, current = self._record(bureau, record), self.holding.held(bureau, record)
        return (kept.version, current) if kept and current else None

    def _is_ordered(self, bureau: str, record: str) -> bool:
        # The outcome in so many letters: with a value given aside, the index of such cannot be taken.
        ordered = f"SELECT 1 FROM envelopes INDEXED BY envelopes_ordered WHERE outcome = '{ORDERED}'"  # noqa: S608 -- ours
        row = self.database.execute(f"{ordered} AND bureau = ? AND record = ? LIMIT 1", (bureau, record)).fetchone()
        return row is not None

    def _record(self, bureau: str, record: str) -> _Kept | None:
        row = self.database.execute(
            "SELECT version, digest, state, source FROM records WHERE bureau = ? AND record = ?",
            (bureau, record),
        ).fetchone()
        return _Kept(row["version"], bytes(row["digest"]), row["state"], row["source"]) if row else None

    def _keep_record(self, bureau: str, draft: Draft, source: str, state: tuple[bytes, int, str]) -> None:
        self.database.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, '') ON CONFLICT DO UPDATE SET digest = excluded.digest,"
            " version = excluded.version, state = excluded.state, facts = excluded.facts,"
            # What stands published from a source and is corrected by hand is withdrawn when it leaves the source.
            " source = CASE WHEN excluded.source = '' AND state = 'live' THEN source ELSE excluded.source END",
            (bureau, draft.record, source, *state),
        )

    def _keep_cursor(self, cursor: Cursor | None) -> None:
        if cursor:
            self.database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (cursor.source, cursor.cursor))

    # Sending

    def waits(self) -> bool:
        """Say whether a flush has something to send, or to make."""
        rows = "SELECT 1 FROM envelopes WHERE sent_at IS NULL UNION ALL SELECT 1 FROM told_nobody WHERE followed = 0"
        return self.database.execute(f"{rows} LIMIT 1").fetchone() is not None or self.requeue.is_due()

    async def flush(self, bus: Bus, shard: int = 0, tell: Callable[[Result], object] = _nobody) -> int:
        """Append what waits, in order; return how many went. May append the same again after a raise.

        Raises UnavailableError, also where another process keeps signing the same anew; NoKeyError, once the rest went,
        where a bureau has no key. What was rejected for its key alone waits for the bureau's next key, or for this one
        to come into force. A withdrawal that told nobody is followed by one of what stands, or tried again: `tell` is
        given what came of it.
        """
        for each in self._follow_up():
            tell(each)
        return await self._sender.send(bus, shard)


def _published(made: Verified) -> Published:
    header = made.header
    return Published(header.notice_id, header.record, header.version, header.kind, made.routing.number)
