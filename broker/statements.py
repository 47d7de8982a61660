"""Follows the signed statements on record: each is its signer's, and none is called repeated that was not there before.

A receipt that is called repeated reaches no issuer, and a subscription of before takes back what its bureau said since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import codec
from broker.errors import SignatureError
from broker.notice import (
    CLOCK_SKEW_MS,
    LOOK_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    SUBSCRIPTION_TYPE,
    DecisionRecord,
    Leaf,
    Look,
    Receipt,
    Revocation,
    Series,
    Statement,
    Subscription,
)
from broker.register import GAPS_LIMIT, use_number
from broker.signers import silent
from broker.signing import pae

if TYPE_CHECKING:
    from broker.directory import Directory

REPEATED = "repeated"
Said = Receipt | Subscription | Revocation | Look
_TYPES: dict[str, tuple[str, type[Said]]] = {
    "receipt": (RECEIPT_TYPE, Receipt),
    "subscribed": (SUBSCRIPTION_TYPE, Subscription),
    "revoked": (REVOCATION_TYPE, Revocation),
    "look": (LOOK_TYPE, Look),
}
"""Kind of leaf → the statement that it records."""
STATED = frozenset(_TYPES)
"""Kinds of leaf that record one."""
_OF_TYPE = dict(_TYPES.values())
_NAMES: dict[type[Said], str] = {
    Receipt: "receipt",
    Subscription: "subscription",
    Revocation: "revocation",
    Look: "look",
}


class Statements:
    """What the leaves so far say of statements."""

    def __init__(self) -> None:
        self.patterns: dict[str, tuple[str, ...]] = {}
        """Bureau → the topics to which it has subscribed."""
        self._subscriptions: dict[str, tuple[int, bytes]] = {}
        self._receipts: dict[str, Series] = {}
        self.revoked: dict[bytes, int | None] = {}
        """Key → since when it is called compromised."""
        self._looks: set[tuple[str, bytes]] = set()

    def take(self, leaf: Leaf, record: DecisionRecord, directory: Directory | None) -> str:
        """Take in the next leaf; say what is wrong with its statement, "" if nothing or where it is none.

        Without the directory of that leaf nobody can say whose signature it is. Raises NoticeRejectedError where it
        cannot be read.
        """
        if leaf.kind == REPEATED and record.statement:
            statement = codec.decode(Statement, record.statement)
            kind = _OF_TYPE.get(statement.payload_type)
            new = kind is not None and self._is_new(codec.decode(kind, statement.payload), statement.payload)
            return f"is called {REPEATED}, and no such {_NAMES[kind]} is on record before it" if kind and new else ""
        if leaf.kind not in STATED:
            return ""
        payload_type, kind = _TYPES[leaf.kind]
        statement = codec.decode(Statement, record.statement)
        if statement.payload_type != payload_type:
            return f"is {leaf.kind}, and another kind of statement is on record"
        said = codec.decode(kind, statement.payload)
        if said.at > leaf.now + CLOCK_SKEW_MS:
            return f"is older than the {_NAMES[kind]} that it records"
        wrong = self._unsigned(leaf, statement, said, directory) if directory else ""
        return wrong or self._note(leaf, said, statement.payload)

    def _is_new(self, said: Said, payload: bytes) -> bool:
        """Say whether nothing on record makes it a repetition, by the broker's own rules (`judge`)."""
        if isinstance(said, Receipt):
            return use_number(self._of(said.bureau), said.number) is not None
        if isinstance(said, Subscription):
            return self._subscriptions.get(said.bureau, (0, b""))[1] != payload
        if isinstance(said, Look):
            return (said.by, said.look_id) not in self._looks
        return said.key_id not in self.revoked or further_back(said, self.revoked[said.key_id])

    def _of(self, bureau: str) -> Series:
        return self._receipts.get(bureau, Series(0, ()))

    def _unsigned(self, leaf: Leaf, statement: Statement, said: Said, directory: Directory) -> str:
        by = said.by if isinstance(said, Look) else said.bureau
        key = (directory.auditors if isinstance(said, Look) else directory.keys).get(statement.key_id)
        active = isinstance(said, Look) or directory.is_active(by.partition("/")[0])
        try:
            if key and active and not silent(key, by, leaf.now, self.revoked):
                key.public.check(statement.signature, pae(statement.payload_type, statement.payload))
                return ""
        except SignatureError:
            pass
        return f"the {_NAMES[type(said)]} of {by} was not signed by it"

    def _note(self, leaf: Leaf, said: Said, payload: bytes) -> str:
        if isinstance(said, Receipt):
            return self._receipt(leaf, said)
        if isinstance(said, Look):
            self._looks.add((said.by, said.look_id))
        elif isinstance(said, Revocation):
            self.revoked[said.key_id] = said.compromised_since
        else:
            before, _ = self._subscriptions.get(said.bureau, (-1, b""))
            if said.number <= before:
                return f"puts an older subscription of {said.bureau} in the place of its last one"
            self._subscriptions[said.bureau] = (said.number, payload)
            self.patterns[said.bureau] = said.patterns
        return ""

    def _receipt(self, leaf: Leaf, said: Receipt) -> str:
        used = use_number(self._of(said.bureau), said.number)
        if used is None or len(used.missing) > GAPS_LIMIT:
            return f"is the receipt {said.number} of {said.bureau}, whose number is not free"
        self._receipts[said.bureau] = used
        about = said.items[0].leaf_number if len(said.items) == 1 else None
        if (leaf.code, leaf.about) != (said.act, about):
            return f"says something else than the receipt of {said.bureau} that it records"
        return ""


def further_back(revocation: Revocation, before: int | None) -> bool:
    """Tell whether a revocation calls more into doubt than one that did so since `before` (None: from its leaf on)."""
    since = revocation.compromised_since
    return since is not None and (before is None or since < before)
