"""A witness: cosigns a checkpoint that extends the last one of that log it saw, and none other (C2SP tlog-witness).

What it saw is durable before it signs, and is checked and replaced in one go, so that it never cosigns two heads that
contradict each other, whenever it is killed. It is only as good as its state: one restored from a backup has forgotten.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

import structlog

from broker import cosignature, crash, merkle, notes
from broker.cosignature import LATEST
from broker.errors import ConfigurationError, ProofError, UnavailableError, ValiseError
from broker.notes import Advance, Checkpoint, Vkey
from broker.signing import SigningKey
from broker.writing import transaction

log = structlog.get_logger()
EVIDENCE_LIMIT = 100
"""Requests kept of each log that it signed and that contradict what was seen: enough to prove it, too few to fill a
disk. One log's are not counted against another's: it could leave no room for theirs."""
BUSY_S = 5.0
TABLES = """
CREATE TABLE IF NOT EXISTS heads(
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, cosigned TEXT
);
CREATE TABLE IF NOT EXISTS evidence(number INTEGER PRIMARY KEY, at INTEGER NOT NULL, origin TEXT, request BLOB);
"""
_ENOUGH = "SELECT 1 FROM evidence WHERE origin = ? LIMIT 1 OFFSET ?"


class NotCosignedError(ValiseError):
    """The witness does not cosign; `status` is the answer that tlog-witness gives this."""

    code, status = "not-cosigned", 400

    @property
    def answer(self) -> str:
        """What the client is told."""
        return f"{self}\n"


class MalformedError(NotCosignedError):
    """The request has not the form that tlog-witness demands."""

    code = "malformed"


class UnknownLogError(NotCosignedError):
    """This witness does not know the origin."""

    code, status = "unknown-origin", 404


class NotSignedByLogError(NotCosignedError):
    """No trusted key of the log signed it, or a trusted key's signature fails."""

    code, status = "not-signed-by-log", 403


class ContradictionError(NotCosignedError):
    """The checkpoint is not proven to extend the last one that was seen."""

    code, status = "not-consistent", 422


class AnotherSizeError(NotCosignedError):
    """The request goes on from another size than the last one that was seen."""

    code, status = "another-size", 409

    def __init__(self, size: int) -> None:
        super().__init__(f"the last checkpoint seen has {size} leaves")
        self.size = size

    @property
    def answer(self) -> str:
        """The size alone: the client goes on from there."""
        return f"{self.size}\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose word a cosignature is."""

    name: str
    key: SigningKey


class Witness:
    """One witness over one state file; may be asked by several threads. Nobody else may use the file meanwhile."""

    def __init__(self, state: Path, identity: Identity, logs: Sequence[Vkey], clock: Callable[[], int]) -> None:
        self.identity, self._clock = identity, clock
        self._logs: dict[str, list[Vkey]] = defaultdict(list)
        for each in logs:
            self._logs[each.name].append(each)
        self._lock, self._guard = Lock(), _hold(state)
        try:
            self._database = _opened(state)
        except sqlite3.Error as error:
            os.close(self._guard)
            message = f"{state} is not the state of a witness: {error}"
            raise ConfigurationError(message) from error

    @property
    def origins(self) -> list[str]:
        """The logs that it witnesses."""
        return list(self._logs)

    def close(self) -> None:
        """Let go of the state."""
        self._database.close()
        os.close(self._guard)

    def add(self, request: bytes) -> str:
        """Judge an add-checkpoint request; return the cosignature line. The order of the checks is tlog-witness's.

        Raises NotCosignedError, UnavailableError where the state cannot be written; then nothing was signed.
        """
        advance, head = _parsed(request)
        signed = self._signed(advance.checkpoint, head.origin)
        if advance.old > head.size:
            message = f"old size {advance.old} is beyond the checkpoint's {head.size}"
            raise MalformedError(message)
        with self._lock, _storing():
            self._see(advance, head, signed, request)
            crash.here("witness.seen")
            line = self._cosign(head.origin, signed)
        crash.here("witness.cosigned")
        log.info("checkpoint.cosigned", origin=head.origin, size=head.size, root=head.root.hex())
        return line

    def newest(self, origin_hash: str) -> str | None:
        """Give the last checkpoint that was cosigned, with log's and witness's signatures, by SHA-256 of its origin."""
        origin = next((each for each in self._logs if sha256(each.encode()).hexdigest() == origin_hash), None)
        with self._lock:
            row = self._database.execute("SELECT cosigned FROM heads WHERE origin = ?", (origin,)).fetchone()
        return row[0] if row else None

    def _signed(self, note: str, origin: str) -> str:
        """Check that the log signed; return the note without what others signed."""
        keys = self._logs.get(origin)
        if keys is None:
            raise UnknownLogError(f"unknown origin {origin}")
        try:
            notes.check(note, keys)
        except ProofError as error:
            raise NotSignedByLogError(str(error)) from error
        known, parsed = {(each.name, each.id) for each in keys}, notes.parse(note)
        lines = dict.fromkeys(notes.signature_line(*each) for each in parsed.signatures if each[:2] in known)
        return f"{parsed.text}\n{''.join(lines)}"

    def _see(self, advance: Advance, head: Checkpoint, signed: str, request: bytes) -> None:
        """Check a head against the last one and put it in its place; durable on return."""
        with transaction(self._database) as database:
            row = database.execute("SELECT size, root FROM heads WHERE origin = ?", (head.origin,)).fetchone()
            size, root = row or (0, merkle.EMPTY_ROOT)
            if advance.old != size:
                raise AnotherSizeError(size)
            wrong = _contradiction(advance, head, root)
            if wrong is None:
                database.execute(
                    "INSERT INTO heads(origin, size, root, note) VALUES (?, ?, ?, ?) ON CONFLICT(origin)"
                    " DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note",
                    (head.origin, head.size, head.root, signed),
                )
            elif not database.execute(_ENOUGH, (head.origin, EVIDENCE_LIMIT - 1)).fetchone():
                values = (self._clock(), head.origin, request)
                database.execute("INSERT INTO evidence(at, origin, request) VALUES (?, ?, ?)", values)
        if wrong is not None:
            # The log itself signed this: whoever holds it and the head that we saw can show that the log has two pasts,
            # or that it cannot prove that it has one.
            log.error("checkpoint.contradicts", origin=head.origin, size=head.size, root=head.root.hex(), seen=size)
            raise ContradictionError(wrong)

    def _cosign(self, origin: str, signed: str) -> str:
        text = notes.parse(signed).text
        line = cosignature.cosign(text, self.identity.name, self.identity.key, self._clock() // 1000)
        with transaction(self._database) as database:
            database.execute("UPDATE heads SET cosigned = ? WHERE origin = ?", (signed + line, origin))
        return line


def _parsed(request: bytes) -> tuple[Advance, Checkpoint]:
    try:
        advance = notes.parse_advance(request)
        head = cosignature.head_of(notes.parse(advance.checkpoint).text)
    except ProofError as error:
        raise MalformedError(str(error)) from error
    if head.size > LATEST:
        message = f"a tree of {head.size} leaves is beyond 2^63 - 1"
        raise MalformedError(message)
    return advance, head


def _contradiction(advance: Advance, head: Checkpoint, root: bytes) -> str | None:
    """Say why a head is not proven to extend a root of `advance.old` leaves; None: it is."""
    if head.size == 0 and head.root != merkle.EMPTY_ROOT:
        return "the head of an empty tree is the hash of nothing"
    if advance.old == 0:
        return "nothing is proven from an empty tree" if advance.proof else None
    try:
        merkle.check_consistency(advance.old, head.size, advance.proof, root, head.root)
    except ProofError as error:
        return str(error)
    return None


def _hold(state: Path) -> int:
    """Make sure that nobody else uses this state: two that forget each other's last head are no witness."""
    try:
        guard = os.open(f"{state}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"cannot write beside {state}: {error.strerror}; name a file in a folder that is there"
        raise ConfigurationError(message) from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(guard)
        message = f"another witness runs on {state}: give each its own --state"
        raise ConfigurationError(message) from error
    return guard


def _opened(state: Path) -> sqlite3.Connection:
    database = sqlite3.connect(state, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        # EXTRA: a commit lasts, its journal's removal, too. No WAL: the one file is all, wherever an auditor copies it.
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = EXTRA")
        database.executescript(TABLES)
    except sqlite3.Error:
        database.close()
        raise
    return database


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        message = f"the state cannot be written: {error}"
        raise UnavailableError(message) from error
