"""Follows under which key each notice on record was signed, and whether that key could speak for its bureau then.

A decision of before that was recorded names no key; from the first that does on all do, or a notice could be passed off
as one of before. What is rejected is recorded without its header, so of its signature nothing can be repeated: of the
key that it names all is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from broker.errors import (
    KeyNotInForceError,
    KeyOfAnotherError,
    KeyRevokedError,
    OtherFederationError,
    SignatureError,
    StreamOfAnotherError,
    UnknownKeyError,
    UnknownMemberError,
)
from broker.leaves import ONCE
from broker.notice import HEADER_TYPE, RELEASED
from broker.signing import pae

if TYPE_CHECKING:
    from broker.directory import Directory, Key
    from broker.notice import DecisionRecord, Leaf
    from broker.recorded import Recorded

NOT_TOLD = "does not say under which key it was signed, as leaves before it do"
NAMING = frozenset(
    each.code
    for each in (
        UnknownKeyError, SignatureError, KeyNotInForceError, KeyRevokedError,
        KeyOfAnotherError, OtherFederationError, StreamOfAnotherError, UnknownMemberError,
    )
)  # fmt: skip
"""Codes of rejections of what could be read as far as its key."""


class Signers:
    """What the leaves so far say of keys; `revoked` is kept by who follows statements: key → compromised since."""

    def __init__(self, revoked: Mapping[bytes, int | None]) -> None:
        self._revoked = revoked
        self._tells = False
        self.not_told = 0
        """Notices of which no record says it."""

    def take(self, recorded: Recorded, directory: Directory | None) -> str:
        """Take in the next notice; say what is wrong with its signature, "" if nothing.

        Without the directory of its leaf nobody can say whose key it is.
        """
        record, leaf = recorded.record, recorded.leaf
        if not _tells(record):
            self.not_told += leaf.kind in ONCE and not self._tells
            return NOT_TOLD if self._tells else ""
        self._tells = True
        return _unsigned(record, recorded.header.issuer, leaf.now, directory, self._revoked)

    def follow(self, leaf: Leaf, record: DecisionRecord, notice: Recorded | None, directory: Directory | None) -> str:
        """Take in the release or the end of a notice; say what is wrong with what it tells of the notice's key.

        That is checked here where the notice is of before and tells nothing, with the directory of then. Its key may
        have come to its end since, but nothing is released that a thief may have signed (`judge`). None: the notice is
        not on record, which is told elsewhere.
        """
        if not _tells(record):
            return NOT_TOLD if self._tells else ""
        self._tells = True
        if notice and _tells(notice.record):
            if (record.key_id, record.signature) != (notice.record.key_id, notice.record.signature):
                return "names another key or signature than the notice that it follows"
        elif notice and (wrong := _unsigned(record, notice.header.issuer, notice.leaf.now, directory, {})):
            return wrong
        compromised = record.key_id is not None and self._revoked.get(record.key_id) is not None
        return "is released, and its key had been called compromised" if compromised and leaf.kind == RELEASED else ""

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
        key = directory.key(key_id)
        if leaf.code == UnknownMemberError.code and (key is None or directory.is_active(_member(key))):
            said = f"{_member(key)} took part" if key else "its key is not in the directory of then"
            return f"is {leaf.code}, and {said}"
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


def _member(key: Key) -> str:
    return key.bureau.partition("/")[0]


def _tells(record: DecisionRecord) -> bool:
    return record.key_id is not None and record.signature is not None


def _unsigned(
    record: DecisionRecord, issuer: str, now: int, directory: Directory | None, revoked: Mapping[bytes, int | None]
) -> str:
    """Say why the key that a record names did not sign its header for that issuer then, "" if it did."""
    if directory is None:
        return ""
    key = directory.key(record.key_id or b"")
    if wrong := silent(key, issuer, now, revoked):
        return f"was signed under a key that {wrong}"
    return "" if key and _is_good(key, record) else f"was not signed by {issuer}"


def _is_good(key: Key, record: DecisionRecord) -> bool:
    try:
        key.public.check(record.signature or b"", pae(HEADER_TYPE, record.header))
    except SignatureError:
        return False
    return True
