"""Says when what the broker rejected for its key alone can come again: under another key, or once this one is in force.

Such a rejection burns neither id nor number, so that nothing is lost by the change of a key. Nor does that of a receipt
whose date was ahead: nothing is lost by a clock that was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.directory import Directory, Key
from broker.errors import IssuedInFutureError, KeyNotInForceError, KeyRevokedError, UnknownKeyError
from broker.notice import CLOCK_SKEW_MS, Leaf

KEY_CODES = (KeyNotInForceError.code, KeyRevokedError.code, UnknownKeyError.code)
"""What is rejected so burns neither id nor number: the same bytes may come again under another key."""
RECEIPT_CODES = (*KEY_CODES, IssuedInFutureError.code)
"""So it is with a receipt whose date was ahead, too; a notice has burnt both by then."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that was rejected for its key alone, at `now` by the trail; `digest`: SHA-256 of its bytes as sent."""

    leaf_number: int
    digest: bytes
    code: str
    now: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A leaf that was proven to us, and so by which directory and time the broker judged then."""

    leaf_number: int
    leaf: Leaf


def can_come_again(
    rejection: Rejection, keys: tuple[bytes, bytes], newest: Shown | None, find: Callable[[bytes], Directory | None]
) -> bool:
    """Say whether it could be accepted now. `keys`: with which it was signed, and the bureau's present one.

    With the same key only if a later leaf shows that it has come into force at the broker: what is guessed from our own
    clock would be rejected again and again. (It comes again, too, once it has waited for long enough: `is_due`.)
    """
    signed_with, present = keys
    if signed_with != present:
        return True
    if rejection.code == KeyRevokedError.code or newest is None or newest.leaf_number <= rejection.leaf_number:
        return False
    judged_by = find(newest.leaf.directory)
    key = judged_by.key(present) if judged_by else None
    return key is not None and key.in_force(newest.leaf.now)


def is_due(rejection: Rejection, key: Key | None, waited: int) -> bool:
    """Say whether so many ms went by since it was sent as its key, at its rejection, was not yet in force for.

    By time gone by, as our clock may differ from the broker's. Where it had to wait for the broker this comes too
    early: it is rejected once more, and waits for what is left.
    """
    if rejection.code != KeyNotInForceError.code or key is None or key.valid_from <= rejection.now:
        return False
    return key.in_force(rejection.now + waited)


def has_come(at: int, now: int) -> bool:
    """Say whether the broker, at its `now`, takes what is dated so, by a clock that may be ahead of its own."""
    return at <= now + CLOCK_SKEW_MS
