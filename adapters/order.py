"""What an authority signs when it withdraws another's notice: neutral words, always the same.

Nothing in it says for whose sake it was ordered: neither who is protected nor which state protects (rule 9).
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.adapter import Draft
from broker.notice import Audience, Header, Reference

BASIS = "Withdrawal by order of an authority (federation rules)"
REASON = {"code": "ordered"}


@dataclass(frozen=True, slots=True)
class Order:
    """The withdrawal of another's notice before it is signed: what it says, of which notice, as which version."""

    draft: Draft
    reference: Reference
    version: int


def order(header: Header, header_digest: bytes, bureau: str) -> Order:
    """Draft the withdrawal by `bureau` of the notice with this header."""
    draft = Draft(
        record=header.record,
        kind="withdrawal",
        topics=header.topics,
        purpose=header.purpose,
        legal_basis=BASIS,
        audience=Audience(everyone=False, to=(header.issuer,)),
        compartments={"reason": REASON},
        bureau=bureau,
        confidentiality=header.confidentiality,
        minor="no",
    )
    return Order(draft, Reference(header.issuer, header.notice_id, header_digest, "withdraws"), header.version + 1)
