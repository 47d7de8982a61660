"""Says what a broker could not have taken in, as far as decision records tell: the rules of `verify` and `judge`.

Pure. Which allow-lists were kept to then no record says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.notice import APPROVAL, CLOCK_SKEW_MS, WITHDRAWAL, Header, Leaf, Reference
from broker.verify import is_order, subject_of

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.recorded import Recorded


def approves(said: Recorded, held: Recorded, verdict: str) -> bool:
    """Say whether a notice is this verdict on that held notice, by what its issuer signed."""
    subject = subject_of(said.header)
    return (
        (said.header.kind, said.header.action_sought) == (APPROVAL, verdict)
        and subject is not None
        and names(subject, held)
    )


def names(subject: Reference, recorded: Recorded) -> bool:
    """Say whether a reference names this very notice."""
    named = (subject.issuer, subject.notice_id, subject.header_digest)
    return named == (recorded.header.issuer, recorded.header.notice_id, recorded.leaf.header_digest)


def no_version(header: Header, before: Header, subject: Reference) -> str:
    """Say why a notice cannot change the one that it names, "" if it can."""
    if subject.relation == "approves":
        return ""
    if header.issuer != before.issuer and not is_order(header):
        return f"which is {before.issuer}'s"
    if header.record != before.record:
        return "which is of another record"
    return "which is no older version" if subject.relation == "corrects" and header.version <= before.version else ""


def inadmissible(header: Header, leaf: Leaf, directory: Directory | None) -> str:
    """Say why a notice could not have been taken in at the time of its leaf, "" where nothing is against it."""
    if header.issued > leaf.now + CLOCK_SKEW_MS:
        return "is older than the notice that it takes in"
    if header.expires is not None and header.expires <= leaf.now and header.kind != WITHDRAWAL:
        return "takes in a notice that had expired"
    if directory and (header.federation != directory.federation or header.issuer not in directory.bureaus):
        return f"takes in a notice of {header.issuer}, which was no bureau of this federation then"
    if directory and not directory.is_active(header.member):
        return f"takes in a notice of {header.member}, which was suspended then"
    return ""
