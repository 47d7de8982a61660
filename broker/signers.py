"""Follows under which key each notice on record was signed, and whether that key could speak for its bureau then.

A decision of before that was recorded names no key; from the first that does on all do, or a notice could be passed off
as one of before. What is rejected is recorded without its header, so of its signature nothing can be repeated: of the
key that it names all is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from broker.errors import KeyNotInForceError, KeyRevokedError, SignatureError, UnknownKeyError
from broker.examine import ONCE
from broker.notice import HEADER_TYPE, RELEASED
from broker.signing import pae

if TYPE_CHECKING:
    from broker.directory import Directory, Key
    from broker.notice import DecisionRecord, Leaf
    from broker.recorded import Recorded

NOT_TOLD = "does not say under which key it was signed"
NAMING = frozenset(each.code for each in (UnknownKeyError, SignatureError, KeyNotInForceError, KeyRevokedError))
"""Codes of rejections of what could be read as far as its key."""


class Signers:
    """What the leaves so far say of keys; `revoked` is kept by who follows statements: key → compromised since."""

    def __init__(self, revoked: Mapping[bytes, int | None]) -> None:
        self._revoked = revoked
        self._tells = False
        self.not_told = 0
        """Notices of which no record says it."""

    def take(self, recorded: Recorded, directory: Directory | None, held: Recorded | None) -> str:
        """Take in the next decision; say what is wrong with its signature, "" if nothing.

        Without the directory of its leaf nobody can say whose key it is. `held`: of a release, the decision before.
        """
        record, leaf = recorded.record, recorded.leaf
        if record.key_id is None or record.signature is None:
            self.not_told += leaf.kind in ONCE and not self._tells
            return NOT_TOLD if self._tells else ""
        self._tells = True
        if leaf.kind == RELEASED:
            return self._released(record, held.record if held else None)
        key = directory.key(record.key_id) if directory else None
        if directory is None:
            return ""
        if wrong := silent(key, recorded.header.issuer, leaf.now, self._revoked):
            return f"was signed under a key that {wrong}"
        return "" if key and _is_good(key, record) else f"was not signed by {recorded.header.issuer}"

    def _released(self, record: DecisionRecord, held: DecisionRecord | None) -> str:
        """Its key may have come to its end since it was held, and must not be in a thief's hands (`judge`)."""
        if wrong := follows(record, held):
            return wrong
        compromised = record.key_id is not None and self._revoked.get(record.key_id) is not None
        return "is released, and its key had been called compromised" if compromised else ""

    def event(self, leaf: Leaf, record: DecisionRecord, directory: Directory | None, *, has_lost: bool) -> str:
        """Say what is wrong with the key of what was rejected or came again, "" if nothing.

        `has_lost`: a revocation may be among the leaves that were lost.
        """
        if record.statement or leaf.kind not in ("rejected", "repeated"):
            return ""
        signed = leaf.header_digest is not None
        if record.key_id is None:
            return NOT_TOLD if self._tells and (signed or leaf.code in NAMING) else ""
        self._tells = True
        if directory is None:
            return ""
        if signed:
            key = directory.key(record.key_id)
            wrong = silent(key, key.bureau if key else "", leaf.now, self._revoked)
            return f"is called signed by its issuer, under a key that {wrong}" if wrong else ""
        return self._unfounded(leaf, record.key_id, directory, has_lost=has_lost)

    def _unfounded(self, leaf: Leaf, key_id: bytes, directory: Directory, *, has_lost: bool) -> str:
        """Say why a notice or statement could not be rejected for its key."""
        listed = [each for each in (directory.key(key_id), directory.auditors.get(key_id)) if each]
        if leaf.code == KeyNotInForceError.code and all(each.in_force(leaf.now) for each in listed):
            return f"is {leaf.code}, and its key {'was in force' if listed else 'is not in the directory of then'}"
        if leaf.code == KeyRevokedError.code and key_id not in self._revoked and not has_lost:
            return f"is {leaf.code}, and nobody had revoked its key"
        return ""


def silent(key: Key | None, bureau: str, now: int, revoked: Mapping[bytes, int | None]) -> str:
    """Say why a key could not speak for a bureau at a time, "" if it could."""
    if key is None:
        return "the directory of then does not name"
    if key.bureau != bureau:
        return f"is {key.bureau}'s"
    if not key.in_force(now):
        return "was not in force then"
    return "had been revoked" if key.key_id in revoked else ""


def follows(record: DecisionRecord, before: DecisionRecord | None) -> str:
    """Say whether what follows a notice names another key or signature than that; "" where either names none."""
    if before is None or before.key_id is None or record.key_id is None:
        return ""
    same = (record.key_id, record.signature) == (before.key_id, before.signature)
    return "" if same else "names another key or signature than the notice that it follows"


def _is_good(key: Key, record: DecisionRecord) -> bool:
    try:
        key.public.check(record.signature or b"", pae(HEADER_TYPE, record.header))
    except SignatureError:
        return False
    return True
