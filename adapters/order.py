"""What an authority signs when it withdraws another's notice: the words of every withdrawal (adapters/withdrawal.py).

Nothing in it says for whose sake it was ordered: neither who is protected nor which state protects (rule 9).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from adapters.adapter import Draft
from adapters.withdrawal import withdrawal
from broker.notice import Header, Reference

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
    draft = replace(withdrawal(header.record, header.issuer, REASON, BASIS), bureau=bureau)
    return Order(draft, Reference(header.issuer, header.notice_id, header_digest, "withdraws"), header.version + 1)
