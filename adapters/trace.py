"""Tells one notice's story for its issuer: when it left, what was decided, who has answered and who is silent."""

from __future__ import annotations

import json
import sqlite3
import sys
import uuid
from dataclasses import dataclass

from adapters.holding import Holding
from adapters.lost import UNKNOWN
from broker import codec
from broker.errors import IssuedInFutureError
from broker.notice import KINDS, ORDERED, ROUTING, TO_HOLDERS, WITHDRAWAL, DecisionRecord, Header, Reference, RuleHit
from broker.verify import subject_of


@dataclass(frozen=True, slots=True)
class Answer:
    """What one bureau has signed about the notice. Times are the trail's, in ms since the epoch."""

    act: str
    result: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Reached:
    """One recipient and what it has answered; `shown` names compartments."""

    bureau: str
    delivery_number: int
    shown: tuple[str, ...]
    answers: tuple[Answer, ...]

    def at(self, act: str) -> int | None:
        """Tell when the bureau first answered with this act."""
        return min((each.at for each in self.answers if each.act == act), default=None)


@dataclass(frozen=True, slots=True)
class Story:
    """One notice from its issuer's outbox to the receipts."""

    id: str
    record: str
    version: int
    kind: str
    bureau: str
    made_at: int
    sent_at: int | None
    outcome: str | None
    code: str | None
    detail: str
    decided_at: int | None
    leaf_number: int | None
    warnings: tuple[str, ...]
    rules: tuple[RuleHit, ...]
    reached: tuple[Reached, ...]
    untold: tuple[str, ...] = ()
    """Of a withdrawal or restriction: who was given its notice and was reached neither by it nor by a later one."""
    unreviewed: bool = False
    """Of a held notice: its record has been withdrawn since, and nobody reviews it any more."""

    @property
    def expected(self) -> str:
        """The act that every recipient owes."""
        return "erased" if self.kind == WITHDRAWAL else "received"

    @property
    def silent(self) -> tuple[str, ...]:
        """Who has not answered with what it owes, told or not."""
        return (*(each.bureau for each in self.reached if each.at(self.expected) is None), *self.untold)


def trace(database: sqlite3.Connection, notice_id: bytes) -> Story | None:
    """Tell the story of one of our notices from the outbox file; None if there is no such notice in it."""
    row = database.execute("SELECT * FROM envelopes WHERE notice_id = ?", (notice_id,)).fetchone()
    if row is None:
        return None
    outcome = database.execute("SELECT * FROM outcomes WHERE leaf_number = ?", (row["leaf_number"],)).fetchone()
    told = outcome or _refused(database, row)
    decision = _decision(outcome)
    answers = _answers(database, row["leaf_number"], bytes(row["header_digest"]))
    names = (ROUTING, *KINDS[row["kind"]])
    return Story(
        id=str(uuid.UUID(bytes=notice_id)),
        record=row["record"],
        version=row["version"],
        kind=row["kind"],
        bureau=row["bureau"],
        made_at=row["made_at"],
        sent_at=row["sent_at"],
        outcome=UNKNOWN if _is_lost(database, row, told) else row["outcome"] or ("rejected" if told else None),
        code=told["code"] if told else None,
        detail=_detail(row, told) if told else "",
        decided_at=told["now"] if told else None,
        leaf_number=told["leaf_number"] if told else row["leaf_number"],
        warnings=tuple(json.loads(outcome["warnings"])) if outcome else (),
        rules=decision.rules if decision else (),
        reached=tuple(
            Reached(
                each.bureau,
                each.delivery_number,
                tuple(name for position, name in enumerate(names) if each.shown >> position & 1),
                tuple(answers.get(each.bureau, ())),
            )
            for each in (decision.rows if decision else ())
        ),
        untold=untold(database, notice_id, decision),
        unreviewed=row["outcome"] == "held" and _withdrawn_since(database, row),
    )


def _detail(row: sqlite3.Row, told: sqlite3.Row) -> str:
    """Give what the broker said beside its code; of a date that only the sender can mend, what is to be done."""
    if told["code"] == IssuedInFutureError.code:
        return f"{ahead(bytes(row['header']), told['now'])}: set it right and publish again"
    return str(told["detail"])


def ahead(header: bytes, now: int) -> str:
    """Say by how much the clock that dated a notice was ahead when that came: at least, as it may have waited here."""
    minutes = (codec.decode(Header, header).issued - now) // 60_000
    return f"your clock was at least {minutes:,} min ahead of the broker's"


def _is_lost(database: sqlite3.Connection, row: sqlite3.Row, told: sqlite3.Row | None) -> bool:
    """Say whether the bus has dropped the outcome of a notice: what that was taken for is no answer."""
    if told is not None or row["leaf_number"] is not None:
        return False
    if row["outcome"] == "rejected":
        return bool(row["kind"] == WITHDRAWAL)
    unknown = database.execute("SELECT 1 FROM unknown WHERE notice_id = ?", (row["notice_id"],)).fetchone()
    return row["outcome"] is None and unknown is not None


def _withdrawn_since(database: sqlite3.Connection, row: sqlite3.Row) -> bool:
    """Tell whether a later version of a record is its end: a withdrawal that was routed, or one ordered away."""
    later = database.execute(
        "SELECT 1 FROM ours WHERE bureau = ? AND record = ? AND version > ?"
        " AND (kind = ? AND outcome = 'routed' OR outcome = ?)",
        (row["bureau"], row["record"], row["version"], WITHDRAWAL, ORDERED),
    )
    return later.fetchone() is not None


def undecided(database: sqlite3.Connection) -> set[bytes]:
    """Name our notices whose story has no outcome yet: in one look, where there are thousands."""
    rows = database.execute(
        "SELECT notice_id FROM envelopes WHERE outcome IS NULL AND notice_id NOT IN unknown"
        " AND (sent_at IS NULL OR NOT EXISTS ("
        " SELECT 1 FROM outcomes WHERE record_digest = sent_digest AND kind = 'rejected'))"
    )
    return {bytes(row[0]) for row in rows}


def untold(database: sqlite3.Connection, notice_id: bytes, decision: DecisionRecord | None) -> tuple[str, ...]:
    """Name who was given a record since it was last withdrawn, and is told neither of this end nor of a later one.

    We need not believe the broker about the holders: each decision on each version was proven to us. Who holds what an
    order ends, another's record, we do not know.
    """
    end = database.execute("SELECT * FROM ours WHERE notice_id = ?", (notice_id,)).fetchone()
    if decision is None or end is None or end["kind"] not in TO_HOLDERS:
        return ()
    told = {each.bureau for each in decision.rows} | _told_later(database, end)
    return tuple(each for each in _given_before(database, end) if each not in told)


def _told_later(database: sqlite3.Connection, end: sqlite3.Row) -> set[str]:
    """Name who was told of a withdrawal that came after an end: of one that follows it because it told nobody, too."""
    later = database.execute(
        "SELECT o.decision FROM ours AS e JOIN outcomes AS o ON o.notice_id = e.notice_id"
        " WHERE e.bureau = ? AND e.record = ? AND e.version > ? AND e.kind = ? AND o.kind = 'routed'",
        (end["bureau"], end["record"], end["version"], WITHDRAWAL),
    )
    return {each.bureau for (made,) in later for each in codec.decode(DecisionRecord, bytes(made)).rows}


def _given_before(database: sqlite3.Connection, end: sqlite3.Row) -> tuple[str, ...]:
    """Name who was given what an end ends: its record, but of a thief's notice that one and what it corrects."""
    found, before = dict[str, None](), end["version"]
    subject = subject_of(codec.decode(Header, bytes(end["header"])))
    while subject and (foreign := _foreign(database, subject)):
        found |= dict.fromkeys(each.bureau for each in foreign.rows)
        subject = subject_of(codec.decode(Header, foreign.header))
        subject = subject if subject and subject.relation == "corrects" else None
        before = 0
    if subject:
        row = database.execute(
            "SELECT bureau, record, version FROM ours WHERE notice_id = ?", (subject.notice_id,)
        ).fetchone()
        before = max(before, row["version"] + 1 if row else 0)
    return tuple(found | dict.fromkeys(holders(database, end["bureau"], end["record"], before)))


def _foreign(database: sqlite3.Connection, subject: Reference) -> DecisionRecord | None:
    """Find the decision on a notice that is on record as ours and never was in this outbox."""
    foreign = Holding(database).foreign(subject.notice_id)
    if foreign is None or foreign[1] != subject.header_digest:  # a digest names no header that names it: this ends
        return None
    row = database.execute(
        "SELECT decision FROM outcomes WHERE notice_id = ? AND kind IN ('routed', 'held', 'released')"
        " ORDER BY leaf_number DESC",
        (subject.notice_id,),
    ).fetchone()
    return codec.decode(DecisionRecord, bytes(row["decision"]))


def holders_of(database: sqlite3.Connection, notice_id: bytes) -> tuple[str, ...]:
    """Name who was given a notice of ours, or another version of its record, since that was last withdrawn."""
    row = database.execute("SELECT bureau, record FROM ours WHERE notice_id = ?", (notice_id,)).fetchone()
    return holders(database, row["bureau"], row["record"], sys.maxsize) if row else ()


def holders(database: sqlite3.Connection, bureau: str, record: str, before: int) -> tuple[str, ...]:
    """Name who was given a record of a bureau, in versions before this one, and was told of no withdrawal since.

    Whoever has answered that it erased a version was told of one, though its outcome is lost.
    """
    versions = database.execute(
        "SELECT e.kind, e.header_digest, o.leaf_number, o.decision"
        " FROM ours AS e JOIN outcomes AS o ON o.notice_id = e.notice_id"
        " WHERE e.bureau = ? AND e.record = ? AND e.version < ? AND o.kind IN ('routed', 'released')"
        " ORDER BY e.version, o.leaf_number",
        (bureau, record, before),
    )
    found: dict[str, None] = {}
    for kind, digest, leaf, made in versions.fetchall():
        given = dict.fromkeys(each.bureau for each in codec.decode(DecisionRecord, bytes(made)).rows)
        if kind == WITHDRAWAL:
            found = {each: None for each in found if each not in given}
        elif kind not in TO_HOLDERS:
            erased = _erased_at(database, leaf, bytes(digest))
            found = {each: None for each in (*found, *given) if each not in erased}
    return tuple(found)


def _erased_at(database: sqlite3.Connection, leaf: int, digest: bytes) -> set[str]:
    """Name who has signed that it was told of the end of a version; with what it had of it by then, none before."""
    rows = database.execute(
        "SELECT bureau FROM answers WHERE leaf_number = ? AND header_digest = ? AND act = 'erased'", (leaf, digest)
    )
    return {str(row[0]) for row in rows}


def _refused(database: sqlite3.Connection, row: sqlite3.Row) -> sqlite3.Row | None:
    """Find the rejection of the very bytes that were sent: for its key alone, it burns nothing and names no notice."""
    if row["sent_at"] is None:
        return None
    found: sqlite3.Row | None = database.execute(
        "SELECT * FROM outcomes WHERE record_digest = ? AND kind = 'rejected'", (row["sent_digest"],)
    ).fetchone()
    return found


def _decision(outcome: sqlite3.Row | None) -> DecisionRecord | None:
    if outcome is None or not outcome["decision"]:
        return None
    return codec.decode(DecisionRecord, bytes(outcome["decision"]))


def _answers(database: sqlite3.Connection, leaf: int | None, digest: bytes) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for row in database.execute(
        "SELECT * FROM answers WHERE leaf_number = ? AND header_digest = ? ORDER BY now", (leaf, digest)
    ):
        found.setdefault(row["bureau"], []).append(Answer(row["act"], row["result"], row["now"]))
    return found
