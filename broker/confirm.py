"""Judges a receipt: a bureau may only speak of what it was given.

Pure: what was given comes in as a look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.errors import UnknownDeliveryError
from broker.notice import Receipt
from broker.quick import quick


@quick
@dataclass(frozen=True, slots=True)
class Given:
    """What the record says of one leaf: whose notice it was, its digest and who was given it."""

    issuer_member: str
    header_digest: bytes
    bureaus: tuple[str, ...]


def confirm(receipt: Receipt, given: Callable[[int], Given | None]) -> None:
    """Check every item of a receipt against the record. Raises UnknownDeliveryError.

    "There is no such leaf" and "it was not for you" are the same answer.
    """
    for item in receipt.items:
        record = given(item.leaf_number)
        if (
            record is None
            or receipt.bureau not in record.bureaus
            or record.header_digest != item.header_digest
            or record.issuer_member != receipt.issuer_member
        ):
            message = f"leaf {item.leaf_number}"
            raise UnknownDeliveryError(message)
