"""Follows what became of a member's notices: the broker's decisions with proof, and the receipts of the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from adapters.again import KEY_CODES, RECEIPT_CODES, Rejection
from adapters.anew import begins_anew, go_on
from adapters.check import Known, check_key, check_leaf, check_time, find_directory
from adapters.database import connect, forget_body, transaction
from adapters.following import follow, ring_called_lost
from adapters.heads import Heads, Journal
from adapters.looks import check_look
from adapters.lost import Lost
from adapters.outbox import Outbox
from adapters.refusals import (
    AlteredError,
    IssuerKeyError,
    LeafReusedError,
    OtherFederationError,
    RefusedError,
    UnknownDirectoryError,
    UnknownHeadError,
    UnreadableDeliveryError,
    WrongLeafError,
    WrongRowError,
)
from adapters.subscriptions import check_subscription
from adapters.trace import ahead, untold
from adapters.upgrade import VERSION
from adapters.versions import Versions
from broker import codec, notes, streams
from broker.bus import Bus, Record
from broker.errors import InvalidReferenceError, IssuedInFutureError, NoticeRejectedError, OffsetGoneError
from broker.leaves import RECORD_KINDS
from broker.notice import (
    CLOCK_SKEW_MS,
    NOT_RELEASED,
    ORDERED,
    RECEIPT_TYPE,
    RELEASED,
    REVOCATION_TYPE,
    DecisionRecord,
    Leaf,
    Outcome,
    Receipt,
    Revocation,
    Statement,
)
from broker.recorded import binds, header_in
from broker.route import rows_hold
from broker.signing import decision_digest, pae

PAGE = 200


@dataclass(frozen=True, slots=True)
class Checked:
    """An outcome of which everything was checked."""

    outcome: Outcome
    leaf: Leaf
    decision: DecisionRecord | None
    receipt: Receipt | None
    revocation: Revocation | None = None


Result = Checked | RefusedError
Progress = Callable[[int, int], object]


@dataclass(slots=True)
class Learned:
    """What one round brought."""

    new: int = 0
    refused: int = 0
    records: int = 0


class Outcomes:
    """The outcomes of one member, kept in its outbox file."""

    def __init__(
        self, bus: Bus, outbox: Outbox, versions: Versions, member: str, clock: Callable[[], int], shard: int = 0,
        forget: Callable[[bytes], None] | None = None,
    ) -> None:  # fmt: skip
        self._bus, self._outbox, self._versions = bus, outbox, versions
        self._member, self._clock, self._shard = member, clock, shard
        self._forget = forget
        self._database = outbox.database
        self.journal = Journal(self._database)
        self._heads = Heads(self.journal)
        self._lost = Lost(self._database, outbox.holding, clock)
        self._stream = streams.outcomes(member)

    async def round(self, wait: float = 0.0) -> Learned:
        """Take in one page of outcomes, waiting up to `wait` seconds for the first."""
        place, records = await self._read(wait)
        learned = Learned(records=len(records))
        log = await self._follow(versions=not self._versions.newest_digest("directory"))
        results = await self._check(records, log)
        if records:
            self._unlock(results)
            with transaction(self._database):
                if self.journal.place(self._stream) != place:
                    return learned
                for record, result in zip(records, results, strict=True):
                    self._take(record, result, learned)
                self.journal.move(self._stream, records[-1].offset + 1)
        return learned

    async def _read(self, wait: float) -> tuple[int, Sequence[Record]]:
        """Give the place and what lies there."""
        place = self.journal.place(self._stream)
        try:
            records = await self._bus.read(self._stream, place, limit=PAGE, wait=wait, partition=self._shard)
        except OffsetGoneError as error:
            # Who never followed may have sent something all the same.
            before = self._clock() - streams.family_of(self._stream).retention_ms
            go_on(self.journal, place, self._clock(), error, "outcomes", lambda: self._lost.give_up(before))
            place = self.journal.place(self._stream)
            records = await self._bus.read(self._stream, place, limit=PAGE, wait=wait, partition=self._shard)
        if not records and await begins_anew(
            self._bus, self.journal, self._stream, self._shard, self._clock(),
            lambda: self._lost.ask_again(self._outbox.requeue),
        ):  # fmt: skip
            return await self._read(0.0)
        return place, records

    async def drain(self, progress: Progress = lambda _done, _size: None) -> Learned:
        """Take in everything that is there now; `progress` is told of how many records, and 0."""
        whole = Learned()
        while True:
            learned = await self.round()
            whole.new += learned.new
            whole.refused += learned.refused
            whole.records += learned.records
            progress(whole.records, 0)
            if not learned.records:
                return whole

    def _unlock(self, results: Sequence[Result]) -> None:
        """Have the keys at hand of what was rejected for its key alone, before the file is held."""
        outcomes = [each.outcome for each in results if isinstance(each, Checked)]
        rejected = [self._sent(each.record_digest) for each in outcomes if each.code in KEY_CODES]
        requeue = self._outbox.requeue
        requeue.unlock({bureau for notice_id, bureau, _ in filter(None, rejected) if requeue.may_follow(notice_id)})

    async def _follow(self, *, versions: bool) -> notes.Vkey:
        now = self._clock()
        log = await follow(self._bus, self._versions, self._heads, self._shard, now, versions=versions)
        ring_called_lost(self._versions, self.journal, self._member, now)
        return log

    async def _check(self, records: Sequence[Record], log: notes.Vkey) -> list[Result]:
        """Check records; what names a head or a directory that we lack is checked again once we have followed."""
        known, results = self._known(log), list[Result]()
        for record in records:
            result = _judge(record, known)
            if isinstance(result, UnknownHeadError | UnknownDirectoryError):
                known = self._known(await self._follow(versions=True))
                result = _judge(record, known)
            results.append(result)
        return results

    def _known(self, log: notes.Vkey) -> Known:
        """Say what is known now, once for a page: it is read from files."""
        federation = self._versions.newest().federation
        directory, find = self._versions.directory, self._heads.find
        return Known(federation, self._member, self._shard, directory, find, log, self._clock())

    def _take(self, record: Record, result: Result, learned: Learned) -> None:
        try:
            if isinstance(result, RefusedError):
                raise result
            self._keep(result, learned)
        except RefusedError as error:
            self.journal.refuse(record, error.code)
            learned.refused += 1

    def _keep(self, checked: Checked, learned: Learned) -> None:
        outcome = checked.outcome
        if self._is_known(outcome):
            return
        self._check_ours(checked)
        self._check_key(checked)
        self._database.execute(
            "INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                outcome.leaf_number, outcome.kind, outcome.code, outcome.detail, outcome.notice_id,
                outcome.record_digest, outcome.original, json.dumps(outcome.missing), json.dumps(outcome.warnings),
                outcome.statement, outcome.decision_salt, outcome.decision, outcome.leaf, outcome.proof,
                checked.leaf.now,
            ),
        )  # fmt: skip
        learned.new += 1
        if checked.receipt:
            self._keep_receipt(checked.receipt, checked)
        elif outcome.kind in RECORD_KINDS:
            self._mark(checked)
            # No end is ever held: a broker that says so keeps it from those who hold what it ends.
            notice_id, decided = outcome.notice_id or b"", outcome.kind in ("routed", "held")
            if decided and untold(self._database, notice_id, checked.decision):
                why = self._lost.told_before(notice_id) + self._lost.named_unknown(notice_id)
                self.journal.alarm(checked.leaf.now, "holders-not-told", f"leaf {outcome.leaf_number}{why}")
        elif outcome.kind in (RELEASED, NOT_RELEASED):
            self._mark_reviewed(checked)
        elif outcome.kind == ORDERED:
            self._mark_ordered(checked)
        elif outcome.kind == "look":
            self.journal.alarm(checked.leaf.now, "looked-at", f"leaf {outcome.leaf_number}")
        elif checked.revocation:
            self._keep_revocation(checked.revocation, checked)
        if outcome.missing:
            self.journal.alarm(checked.leaf.now, "series-gap", f"leaf {outcome.leaf_number}")

    def _is_known(self, outcome: Outcome) -> bool:
        """Say whether this leaf's outcome was kept before. Raises LeafReusedError if another's was."""
        row = self._database.execute(
            "SELECT leaf FROM outcomes WHERE leaf_number = ?", (outcome.leaf_number,)
        ).fetchone()
        if row and bytes(row["leaf"]) != outcome.leaf:
            raise LeafReusedError
        return bool(row)

    def _check_ours(self, checked: Checked) -> None:
        """Check that what is on record are the bytes that we signed. Raises AlteredError."""
        digest, outcome = checked.leaf.header_digest, checked.outcome
        if digest is None:
            return
        row = self._database.execute(
            "SELECT header_digest, leaf_number FROM envelopes WHERE header_digest = ?1 OR notice_id = ?2"
            " ORDER BY header_digest = ?1 DESC",
            (digest, outcome.notice_id),
        ).fetchone()
        if row is None:
            self.journal.alarm(checked.leaf.now, "not-from-this-outbox", f"leaf {outcome.leaf_number}")
        elif bytes(row[0]) != digest:
            if (outcome.kind, outcome.code) != ("rejected", "id-reused"):
                message = "the leaf is that of another header"
                raise AlteredError(message)
            self.journal.alarm(checked.leaf.now, "not-from-this-outbox", f"leaf {outcome.leaf_number}")
        elif outcome.kind == "repeated":
            self._check_original(checked, digest)

    def _check_key(self, checked: Checked) -> None:
        """Check that the record of what we sent names the key that signed it. Raises AlteredError.

        Of a rejection nobody else can: for the revoked key of another it would be in order. A record of before names
        none.
        """
        sent, decision = self._sent(checked.outcome.record_digest), checked.decision
        if sent and decision and decision.key_id not in (None, sent[2]):
            message = "the decision names another key than that which signed"
            raise AlteredError(message)

    def _check_original(self, checked: Checked, digest: bytes) -> None:
        """Check that what is called a repetition repeats a leaf of this notice of which we were told."""
        original = checked.outcome.original
        row = self._database.execute("SELECT leaf FROM outcomes WHERE leaf_number = ?", (original,)).fetchone()
        told = codec.decode(Leaf, bytes(row["leaf"])).header_digest if row else None
        if told is None:  # the bus has dropped that outcome, where this is no lie
            self._lost.give_up_one(digest)
        if told != digest or checked.leaf.about != original:
            message = "a repetition of a leaf that we were not told of"
            raise WrongLeafError(message)

    def _keep_receipt(self, receipt: Receipt, checked: Checked) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    item.leaf_number, item.header_digest, receipt.bureau, receipt.act, receipt.result,
                    checked.leaf.now, checked.outcome.leaf_number,
                )
                for item in receipt.items
            ],
        )  # fmt: skip

    def _keep_revocation(self, revocation: Revocation, checked: Checked) -> None:
        """Say so, and sign no more with a key of ours, whoever revoked it and whenever its leaf comes.

        What a source published under a compromised key of ours is published again by its next run.
        """
        self.journal.alarm(checked.leaf.now, "key-revoked", f"leaf {checked.outcome.leaf_number}")
        ours = revocation.bureau.partition("/")[0] == self._member
        if ours and self._forget:
            self._forget(revocation.key_id)
        if ours and revocation.compromised_since is not None:
            self._database.execute(
                "UPDATE records SET digest = x'' WHERE state = 'live' AND (bureau, record, version) IN ("
                " SELECT e.bureau, e.record, e.version FROM envelopes AS e JOIN outcomes AS o"
                " ON o.leaf_number = e.leaf_number WHERE e.key_id = ? AND o.now >= ?)",
                (revocation.key_id, revocation.compromised_since),
            )

    def _mark(self, checked: Checked) -> None:
        """Note on the envelope what became of it; its body is not needed here any more."""
        outcome, digest = checked.outcome, checked.leaf.header_digest
        if digest is None:
            self._mark_unnamed(checked)
            return
        original = outcome.original if outcome.original is not None else outcome.leaf_number
        kind = (checked.leaf.code or outcome.kind) if outcome.kind == "repeated" else outcome.kind
        noted = self._note(digest, kind, original)
        if not noted:
            return
        if kind == "rejected":
            if outcome.code == InvalidReferenceError.code:
                self._lost.not_on_record(digest)
            self._outbox.holding.rejected(digest)
            dated = outcome.code == IssuedInFutureError.code
            why = f": {ahead(bytes(noted['header']), checked.leaf.now)}" if dated else ""
            self.journal.alarm(checked.leaf.now, outcome.code or "rejected", f"leaf {outcome.leaf_number}{why}")
        if outcome.kind == "routed" and checked.decision and not checked.decision.rows:
            self._outbox.holding.told_nobody(digest)
        forget_body(self._database, digest)

    def _note(
        self, digest: bytes, outcome: str, leaf_number: int | None, over: Collection[str] = ()
    ) -> sqlite3.Row | None:
        """Note an outcome on an envelope that has none yet, or one of those that this one comes `over`; None: on none.

        Without a leaf number its story stays that of the one before.
        """
        found: sqlite3.Row | None = self._database.execute(
            "SELECT bureau, record, outcome, leaf_number, header FROM envelopes WHERE header_digest = ?", (digest,)
        ).fetchone()
        if found is None:
            return None
        # What was rejected unnamed burnt nothing: it may be on record after all.
        unnamed = found["outcome"] == "rejected" and found["leaf_number"] is None
        if found["outcome"] is not None and not unnamed and found["outcome"] not in over:
            return None
        self._database.execute(
            "UPDATE envelopes SET outcome = ?, leaf_number = coalesce(?, leaf_number), sent_at = coalesce(sent_at, ?)"
            " WHERE header_digest = ?",
            (outcome, leaf_number, self._clock(), digest),
        )
        if unnamed and outcome != "rejected":
            self._outbox.holding.on_record(digest)
        return found

    def _mark_reviewed(self, checked: Checked) -> None:
        """Note on a held envelope what its reviewer decided; from now on its story is that of the release.

        Of one that was held while nobody listened no other word has come.
        """
        outcome, digest = "routed" if checked.outcome.kind == RELEASED else "refused", checked.leaf.header_digest or b""
        if not self._note(digest, outcome, checked.outcome.leaf_number, over=("held",)):
            return
        forget_body(self._database, digest)
        if outcome == "refused":
            self.journal.alarm(checked.leaf.now, "refused-in-review", f"leaf {checked.outcome.leaf_number}")

    def _mark_ordered(self, checked: Checked) -> None:
        """Note that an authority has withdrawn what we published: nothing of that record is published again."""
        digest = checked.leaf.header_digest or b""
        if found := self._note(digest, ORDERED, None, over=("routed", "held")):
            self._outbox.holding.settle(found["bureau"], found["record"])
            forget_body(self._database, digest)
            self.journal.alarm(checked.leaf.now, ORDERED, f"leaf {checked.outcome.leaf_number}")

    def _mark_unnamed(self, checked: Checked) -> None:
        """Note that a record was rejected of which the broker names no notice; raise the alarm.

        If it was for its key alone it is queued, once it can come again. Else what is published next names it no more.
        """
        outcome = checked.outcome
        code, row = outcome.code or outcome.kind, self._sent(outcome.record_digest)
        if row and code in KEY_CODES:
            rejection = Rejection(outcome.leaf_number, outcome.record_digest, code, checked.leaf.now)
            if self._outbox.requeue.can_come_again(*row, rejection):
                self._outbox.requeue.again(row[0])
                return
        elif row:
            (digest,) = self._database.execute(
                "UPDATE envelopes SET outcome = 'rejected', sent_at = coalesce(sent_at, ?)"
                " WHERE notice_id = ? AND outcome IS NULL RETURNING header_digest",
                (self._clock(), row[0]),
            ).fetchone()
            self._outbox.holding.rejected(bytes(digest))
            forget_body(self._database, bytes(digest))
        # A statement's date is in no file of this side's here; by how much it was ahead is not known.
        least = f": your clock is more than {CLOCK_SKEW_MS // 60_000} min ahead of the broker's"
        why = least if code == IssuedInFutureError.code else ""
        self.journal.alarm(self._clock(), code, f"leaf {outcome.leaf_number}{why}")

    def _sent(self, record_digest: bytes) -> tuple[bytes, str, bytes] | None:
        row = self._database.execute(
            "SELECT notice_id, bureau, key_id FROM envelopes WHERE sent_digest = ? AND outcome IS NULL",
            (record_digest,),
        ).fetchone()
        return (bytes(row[0]), str(row[1]), bytes(row[2])) if row else None


def _judge(record: Record, known: Known) -> Result:
    try:
        return check_outcome(record.value or b"", known)
    except RefusedError as error:
        return error


def check_outcome(data: bytes, known: Known) -> Checked:
    """Check an outcome: its leaf in the trail, the decision that the leaf commits to, the receipt's signature.

    `known.bureau` is the member here. Raises RefusedError.
    """
    try:
        return _check_outcome(data, known)
    except NoticeRejectedError as error:
        raise UnreadableDeliveryError(f"{error.code}: {error}") from error


def _check_outcome(data: bytes, known: Known) -> Checked:
    outcome = codec.decode(Outcome, data)
    leaf = check_leaf(outcome.leaf, outcome.proof, outcome.leaf_number, known)
    if (leaf.kind, leaf.code) != (outcome.kind, outcome.code):
        raise WrongLeafError
    decision = _check_decision(outcome, leaf) if outcome.decision else None
    if (decision is None or not decision.header) and leaf.kind in ("routed", "held", RELEASED, NOT_RELEASED, ORDERED):
        message = "an outcome without the decision, or with one about no notice"
        raise WrongLeafError(message)
    receipt = _check_receipt(outcome, leaf, known) if leaf.kind == "receipt" else None
    if leaf.kind == "look":
        check_look(decision, leaf, known)
    if leaf.kind == "subscribed":
        check_subscription(decision, leaf, known)
    revocation = _check_revocation(outcome, leaf, known) if leaf.kind == "revoked" else None
    return Checked(outcome, leaf, decision, receipt, revocation)


def _check_decision(outcome: Outcome, leaf: Leaf) -> DecisionRecord:
    if decision_digest(outcome.decision_salt, outcome.decision) != leaf.decision:
        message = "the leaf commits to another decision"
        raise WrongLeafError(message)
    record = codec.decode(DecisionRecord, outcome.decision)
    if record.record_digest != outcome.record_digest:
        message = "the decision is about another record"
        raise WrongLeafError(message)
    header = header_in(record)
    if not binds(leaf, record, header):
        message = "the decision is about another notice than the leaf"
        raise WrongLeafError(message)
    if header:
        check_time(header, leaf)
        if (outcome.notice_id, outcome.warnings) != (header.notice_id, record.warnings):
            message = "the outcome is about another notice than the decision, or warns of something else"
            raise WrongLeafError(message)
    # What the decision says of its recipients is what they were shown a row of.
    if not rows_hold(leaf, record):
        raise WrongRowError
    return record


def _check_revocation(outcome: Outcome, leaf: Leaf, known: Known) -> Revocation:
    """Check that a key's own member revoked it; what the broker says about a key counts for nothing."""
    if sha256(outcome.statement).digest() != outcome.record_digest:
        message = "the revocation is not the record that was taken in"
        raise WrongLeafError(message)
    statement = codec.decode(Statement, outcome.statement)
    revocation = codec.decode(Revocation, statement.payload)
    directory = find_directory(leaf, known)
    signed = (statement.signature, pae(REVOCATION_TYPE, statement.payload))
    signer, key = check_key(directory, statement.key_id, leaf.now, signed), directory.key(revocation.key_id)
    if statement.payload_type != REVOCATION_TYPE or signer != revocation.bureau or key is None:
        raise IssuerKeyError
    if key.bureau.partition("/")[0] != signer.partition("/")[0]:
        raise IssuerKeyError
    if revocation.federation != known.federation:
        raise OtherFederationError
    return revocation


def _check_receipt(outcome: Outcome, leaf: Leaf, known: Known) -> Receipt:
    if sha256(outcome.statement).digest() != outcome.record_digest:
        message = "the receipt is not the record that was taken in"
        raise WrongLeafError(message)
    statement = codec.decode(Statement, outcome.statement)
    receipt = codec.decode(Receipt, statement.payload)
    message_signed = pae(RECEIPT_TYPE, statement.payload)
    directory = find_directory(leaf, known)
    if check_key(directory, statement.key_id, leaf.now, (statement.signature, message_signed)) != receipt.bureau:
        raise IssuerKeyError
    if receipt.federation != known.federation:
        raise OtherFederationError
    if statement.payload_type != RECEIPT_TYPE or receipt.issuer_member != known.bureau or receipt.act != leaf.code:
        raise WrongLeafError
    return receipt


def rejected_in(outbox: Path, since: int) -> list[Rejection]:
    """List what a member's outcomes say was rejected for its key or, a receipt, its date alone, from a leaf on."""
    if not outbox.exists():
        return []
    with closing(connect(outbox, "", VERSION)) as database:
        rows = database.execute(
            "SELECT leaf_number, record_digest, code, now FROM outcomes WHERE leaf_number >= ? AND kind = 'rejected'"
            " AND code IN (SELECT value FROM json_each(?)) ORDER BY leaf_number",
            (since, json.dumps(RECEIPT_CODES)),
        ).fetchall()
    return [Rejection(row[0], bytes(row[1]), row[2], row[3]) for row in rows]
