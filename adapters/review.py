"""What waits for a reviewing bureau's word, and the word it gives: an approval, or a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.adapter import Draft, Pointer
from broker import codec
from broker.notice import APPROVAL, Audience, Header

if TYPE_CHECKING:
    import sqlite3

    from adapters.inbox import Inbox, Line

TOPIC = "review.decision"
BASIS = "Review before publication (federation rules, rules 5 and 8)"


def waiting(box: Inbox, outbox: sqlite3.Connection) -> list[Line]:
    """List the held notices that were given to this bureau and that it has not decided, oldest first.

    What was withdrawn or replaced meanwhile waits no longer.
    """
    decided = _decided(outbox)
    return [each for each in box.held_lines() if each.notice_id not in decided]


def _decided(outbox: sqlite3.Connection) -> set[bytes]:
    """Name the notices on which an approval of ours is on its way or on record; a rejected one decides nothing."""
    rows = outbox.execute(
        "SELECT header FROM envelopes WHERE kind = ? AND coalesce(outcome, '') != 'rejected'", (APPROVAL,)
    )
    headers = [codec.decode(Header, bytes(row["header"])) for row in rows]
    return {reference.notice_id for each in headers for reference in each.references}


def decision(header: Header, bureau: str, verdict: str, words: str | None) -> Draft:
    """Draft the word of `bureau` on a held notice: `verdict` is release or refuse; `words` go to its issuer."""
    return Draft(
        record=f"review-{header.notice_id.hex()}",
        kind=APPROVAL,
        topics=(TOPIC,),
        purpose=header.purpose,
        legal_basis=BASIS,
        audience=Audience(everyone=False, to=(header.issuer,)),
        compartments={"terms": {"conditions": words}} if words else {},
        bureau=bureau,
        pointers=(Pointer(header.issuer, header.record, "approves"),),
        action_sought=verdict,
        confidentiality=header.confidentiality,
        minor="no",
    )
