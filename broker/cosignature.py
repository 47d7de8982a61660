"""Cosignatures of witnesses: a witness's word that a checkpoint extends all that it saw before (C2SP tlog-cosignature).

Pure. Only Ed25519 (`cosignature/v1`, type 0x04) is made and checked. What these formats do not allow raises ProofError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from broker import notes
from broker.errors import ProofError, SignatureError
from broker.notes import Checkpoint, Vkey
from broker.signing import PublicKey, SigningKey

COSIGNATURE = 4
"""Signature type of a timestamped Ed25519 cosignature (C2SP signed-note, "Signature types")."""
LATEST = 2**63 - 1
"""The last second that a cosignature may name."""


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness's name, key ID and Ed25519 public key."""

    name: str
    id: bytes
    public: PublicKey

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{notes.line(bytes([COSIGNATURE]) + self.public.raw)}"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """That a cosigner saw a checkpoint, at a second of its own clock; `line` is the signature line with its newline."""

    by: Cosigner
    time: int
    line: str


def cosigner(name: str, public: bytes) -> Cosigner:
    """Make the verifier key of a witness. Raises ProofError for a bad name or key."""
    known = notes.vkey(name, public)
    raw = bytes([COSIGNATURE]) + public
    return Cosigner(name, sha256(name.encode() + b"\n" + raw).digest()[:4], known.public)


def parse_cosigner(text: str) -> Cosigner:
    """Read a witness's verifier key. Raises ProofError, also for a log's key: its type byte is another."""
    name, _, raw = notes.vkey_parts(text)
    if raw[:1] != bytes([COSIGNATURE]):
        message = "not the verifier key of a witness (type 0x04, Ed25519 cosignatures)"
        raise ProofError(message)
    return cosigner(name, raw[1:])


def message_of(text: str, time: int) -> bytes:
    """Give what is signed: header line, time line, the whole text of the checkpoint ("Ed25519 signed message")."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosign(text: str, name: str, key: SigningKey, time: int) -> str:
    """Cosign the text of a checkpoint at a second since the epoch; return the signature line.

    Raises ProofError for a time that no cosignature may bear.
    """
    if not 0 < time <= LATEST:
        message = f"a cosignature cannot bear the time {time}"
        raise ProofError(message)
    signature = time.to_bytes(8, "big") + key.sign(message_of(text, time))
    return notes.signature_line(name, cosigner(name, key.public.raw).id, signature)


Cosignatures = Mapping[bytes, Cosigned]
"""Of one checkpoint, by id of the witness's key: whatever names it bears, a key counts once."""


def cosignatures(note: str | bytes, known: Iterable[Cosigner]) -> dict[bytes, Cosigned]:
    """Find the cosignatures of known witnesses in a note, of each the latest; those of others are passed over.

    Raises ProofError if a known witness's cosignature fails: such a note is malformed (C2SP signed-note). Whether the
    log itself signed is not looked at.
    """
    parsed, keys = notes.parse(note), {(each.name, each.id): each for each in known}
    found: dict[bytes, Cosigned] = {}
    for name, identity, signature in parsed.signatures:
        by = keys.get((name, identity))
        if by is None:
            continue
        time = _checked(parsed.text, by, signature)
        if by.public.id not in found or found[by.public.id].time < time:
            found[by.public.id] = Cosigned(by, time, notes.signature_line(name, identity, signature))
    return found


def _checked(text: str, by: Cosigner, signature: bytes) -> int:
    time = int.from_bytes(signature[:8], "big")
    if len(signature) != 72 or not 0 < time <= LATEST:
        message = f"the cosignature of {by.name} has a wrong form"
        raise ProofError(message)
    try:
        by.public.check(signature[8:], message_of(text, time))
    except SignatureError as error:
        message = f"the cosignature of {by.name} does not fit the checkpoint"
        raise ProofError(message) from error
    return time


def with_lines(note: str, found: Cosignatures) -> str:
    """Add cosignatures to a note of the same text; one of the same witness that is there already is replaced."""
    parsed = notes.parse(note)
    ours = {(each.by.name, each.by.id) for each in found.values()}
    kept = [notes.signature_line(*each) for each in parsed.signatures if (each[0], each[1]) not in ours]
    return f"{parsed.text}\n{''.join(kept)}{''.join(each.line for each in found.values())}"


def quorum_time(found: Cosignatures, quorum: int) -> int | None:
    """Tell the second at which a quorum stood by a checkpoint: the oldest of its newest words; None without one."""
    times = sorted((each.time for each in found.values()), reverse=True)
    return times[quorum - 1] if 0 < quorum <= len(times) else None


def check_distinct(known: Sequence[Cosigner]) -> None:
    """Check that no key stands behind two names: it would count twice. Raises ProofError."""
    keys = [each.public.raw for each in known]
    twice = next((each for each in known if keys.count(each.public.raw) > 1), None)
    if twice:
        message = f"the key of {twice.name} is named twice: a quorum counts each witness once"
        raise ProofError(message)


def head_of(text: str) -> Checkpoint:
    """Read the three first lines of a checkpoint that may go on with extension lines (C2SP tlog-checkpoint).

    A cosignature makes no statement about such lines. Raises ProofError.
    """
    lines = text.split("\n")
    if not text.endswith("\n") or not all(lines[:-1]):
        message = "not a checkpoint: origin, size, root"
        raise ProofError(message)
    return notes.parse_checkpoint("\n".join([*lines[:3], ""]))


def open_head(note: str | bytes, log: Vkey) -> Checkpoint:
    """Check the log's signature under a checkpoint that somebody kept, and read its head; extension lines may follow.

    Raises ProofError, also for another log's checkpoint.
    """
    head = head_of(notes.check(note, [log]))
    if head.origin != log.name:
        message = f"a checkpoint of {head.origin}, not of {log.name}"
        raise ProofError(message)
    return head
