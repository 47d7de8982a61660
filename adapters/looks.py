"""Looks that an operator or auditor took at our notices in clear: who, why and when, as the broker must tell us."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from adapters.check import Known, find_directory
from adapters.refusals import IssuerKeyError, WrongLeafError
from broker import codec
from broker.errors import SignatureError
from broker.notice import LOOK_TYPE, DecisionRecord, Leaf, Look, Statement
from broker.signing import pae


@dataclass(frozen=True, slots=True)
class Looked:
    """One look at one of our notices."""

    at: int
    by: str
    reason: str
    leaf_number: int


def check_look(decision: DecisionRecord | None, leaf: Leaf, known: Known) -> None:
    """Check that an auditor whom the directory names signed the look, and that it is at ours. Raises RefusedError."""
    if decision is None:
        raise WrongLeafError
    statement = codec.decode(Statement, decision.statement)
    look = codec.decode(Look, statement.payload)
    key = find_directory(leaf, known).auditors.get(statement.key_id)
    if key is None or not key.in_force(leaf.now) or key.bureau != look.by:
        raise IssuerKeyError
    try:
        key.public.check(statement.signature, pae(LOOK_TYPE, statement.payload))
    except SignatureError as error:
        raise IssuerKeyError from error
    if statement.payload_type != LOOK_TYPE or look.issuer_member != known.bureau:
        raise WrongLeafError


def looks_at(database: sqlite3.Connection, leaf_number: int | None) -> list[Looked]:
    """List the looks at the notice of a leaf, oldest first, from the outbox file."""
    rows = database.execute("SELECT leaf_number, now, decision FROM outcomes WHERE kind = 'look' ORDER BY leaf_number")
    found = []
    for row in rows:
        statement = codec.decode(Statement, codec.decode(DecisionRecord, bytes(row["decision"])).statement)
        look = codec.decode(Look, statement.payload)
        if leaf_number in look.leaves:
            found.append(Looked(row["now"], look.by, look.reason, row["leaf_number"]))
    return found
