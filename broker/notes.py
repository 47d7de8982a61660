"""The texts of the trail: C2SP signed notes, checkpoints, tlog-proofs and add-checkpoint bodies.

Pure. Whatever a text holds that these formats do not allow raises ProofError; nothing is repaired or guessed at. Only
Ed25519 signatures (type 0x01) are made and checked here; those of unknown keys are passed over (C2SP signed-note).
Witnesses' signatures (type 0x04) are `cosignature`'s.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from broker.errors import ProofError, SignatureError
from broker.signing import ED25519, PublicKey, SigningKey

NOTE_LIMIT = 256 * 1024
"""Characters of a whole note: room for 32 post-quantum signatures."""
SIGNATURE_LIMIT = 32
"""Signatures of one note (C2SP signed-note demands that at least 16 are accepted)."""
HASH_LIMIT = 63
"""Hashes of one proof (C2SP tlog-witness)."""
PROOF_HEAD = "c2sp.org/tlog-proof@v1"
_DASH = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NAME = re.compile(r"[^\s+]+")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


def _b64(text: str) -> bytes:
    """Decode base64 that is written in the one canonical way (RFC 4648 §4)."""
    try:
        encoded = text.encode("ascii")
        raw = a2b_base64(encoded, strict_mode=True)
    except (Base64Error, UnicodeEncodeError) as error:
        message = "not base64"
        raise ProofError(message) from error
    if b2a_base64(raw, newline=False) != encoded:
        message = "base64 with stray bits"
        raise ProofError(message)
    return raw


@lru_cache(maxsize=256)  # the proofs of neighbours have most of their hashes in common
def _hash(text: str) -> bytes:
    raw = _b64(text)
    if len(raw) != 32:
        message = "a hash is not 32 bytes"
        raise ProofError(message)
    return raw


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        message = "not a number without leading zeroes"
        raise ProofError(message)
    return int(text)


def line(digest: bytes) -> str:
    """Write one hash as base64."""
    return b64encode(digest).decode()


@dataclass(frozen=True, slots=True)
class Vkey:
    """A verifier key: name, key ID and Ed25519 public key (C2SP signed-note, "Verifier keys")."""

    name: str
    id: bytes
    public: PublicKey

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{line(bytes([ED25519]) + self.public.raw)}"


def vkey(name: str, public: bytes) -> Vkey:
    """Make the verifier key of a raw Ed25519 public key. Raises ProofError for a bad name or key."""
    if not _NAME.fullmatch(name) or _CONTROL.search(name):
        message = "a key name is empty or holds a space or a plus"
        raise ProofError(message)
    try:
        key = PublicKey.of(public)
    except ValueError as error:
        message = "not an Ed25519 public key"
        raise ProofError(message) from error
    return Vkey(name, sha256(name.encode() + b"\n" + bytes([ED25519]) + public).digest()[:4], key)


def vkey_parts(text: str) -> tuple[str, bytes, bytes]:
    """Take a verifier key of any type apart: name, key ID, type byte with public key. Raises ProofError."""
    name, *rest = text.strip().split("+", 2)
    if len(rest) != 2 or not _NAME.fullmatch(name) or _CONTROL.search(name):
        message = "not a verifier key: NAME+ID+KEY"
        raise ProofError(message)
    raw = _b64(rest[1])
    key_id = sha256(name.encode() + b"\n" + raw).digest()[:4]
    if key_id.hex() != rest[0]:
        message = "the key ID does not fit the key"
        raise ProofError(message)
    return name, key_id, raw


def parse_vkey(text: str) -> Vkey:
    """Read a verifier key. Raises ProofError, also for a type other than Ed25519 or an ID that does not fit."""
    name, _, raw = vkey_parts(text)
    if raw[:1] != bytes([ED25519]):
        message = "not an Ed25519 verifier key"
        raise ProofError(message)
    return vkey(name, raw[1:])


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note taken apart, nothing checked: text with its last newline, and (key name, key ID, signature)."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]


def _checked(note: str | bytes) -> str:
    try:
        text = note.decode() if isinstance(note, bytes) else note
        text.encode()
    except UnicodeError as error:
        message = "a note is not UTF-8"
        raise ProofError(message) from error
    if len(text) > NOTE_LIMIT:
        message = f"a note of {len(text)} characters is over the limit of {NOTE_LIMIT}"
        raise ProofError(message)
    if _CONTROL.search(text):
        message = "a note holds control characters"
        raise ProofError(message)
    return text


def parse(note: str | bytes) -> Note:
    """Take a note apart without checking a signature. Raises ProofError."""
    whole = _checked(note)
    text, blank, rest = whole.rpartition("\n\n")
    if not blank or not text or not rest.endswith("\n"):
        message = "not a signed note: text, empty line, signature lines"
        raise ProofError(message)
    lines = rest[:-1].split("\n")
    if len(lines) > SIGNATURE_LIMIT:
        message = f"{len(lines)} signatures are over the limit of {SIGNATURE_LIMIT}"
        raise ProofError(message)
    return Note(text + "\n", tuple(_signature(each) for each in lines))


def _signature(text: str) -> tuple[str, bytes, bytes]:
    name, space, encoded = text.removeprefix(_DASH).partition(" ")
    if not text.startswith(_DASH) or not space or not _NAME.fullmatch(name):
        message = "not a signature line"
        raise ProofError(message)
    raw = _b64(encoded)
    if len(raw) <= 4:
        message = "a signature line without a signature"
        raise ProofError(message)
    return name, raw[:4], raw[4:]


def sign(text: str, name: str, key: SigningKey) -> str:
    """Sign a text that ends in a newline; return the note. Raises ProofError for a text that no note can hold."""
    if not text.endswith("\n") or len(text) == 1:
        message = "a note's text ends in a newline"
        raise ProofError(message)
    _checked(text)
    known = vkey(name, key.public.raw)
    return f"{text}\n{signature_line(name, known.id, key.sign(text.encode()))}"


def signature_line(name: str, key_id: bytes, signature: bytes) -> str:
    """Write one signature line, with its newline."""
    return f"{_DASH}{name} {line(key_id + signature)}\n"


def check(note: str | bytes, keys: Sequence[Vkey]) -> str:
    """Check a note and return its text. Raises ProofError if a known key's signature fails or none is there."""
    parsed = parse(note)
    known = {(key.name, key.id): key for key in keys}
    text, good = parsed.text.encode(), False
    for name, identity, signature in parsed.signatures:
        key = known.get((name, identity))
        if key is None:
            continue
        try:
            key.public.check(signature, text)
        except SignatureError as error:
            message = f"the signature of {name} does not fit the note"
            raise ProofError(message) from error
        good = True
    if not good:
        message = "no signature of a known key"
        raise ProofError(message)
    return parsed.text


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log (C2SP tlog-checkpoint), without extension lines."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{line(self.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint. Raises ProofError, also for extension lines: nobody could audit them."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        message = "not a checkpoint: origin, size, root"
        raise ProofError(message)
    return Checkpoint(lines[0], _number(lines[1]), _hash(lines[2]))


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Sign a checkpoint under its origin's name."""
    return sign(checkpoint.text, checkpoint.origin, key)


def open_checkpoint(note: str | bytes, key: Vkey) -> Checkpoint:
    """Check the log's signature and read the checkpoint. Raises ProofError, also for another log's checkpoint."""
    checkpoint = parse_checkpoint(check(note, [key]))
    if checkpoint.origin != key.name:
        message = f"a checkpoint of {checkpoint.origin}, not of {key.name}"
        raise ProofError(message)
    return checkpoint


@dataclass(frozen=True, slots=True)
class LeafProof:
    """What a tlog-proof says, nothing checked: leaf number, inclusion proof, checkpoint note."""

    number: int
    proof: tuple[bytes, ...]
    checkpoint: str


def format_proof(number: int, proof: Sequence[bytes], checkpoint: str) -> str:
    """Write a tlog-proof (C2SP tlog-proof, "Format"), without extra data."""
    return "\n".join([PROOF_HEAD, f"index {number}", *map(line, proof), "", checkpoint])


def parse_proof(text: str) -> LeafProof:
    """Read a tlog-proof. An `extra` line is passed over: nobody signed it. Raises ProofError."""
    head, blank, checkpoint = _checked(text).partition("\n\n")
    lines = head.split("\n")
    if lines[1:] and lines[1].startswith("extra "):
        _b64(lines.pop(1).removeprefix("extra "))
    if not blank or lines[0] != PROOF_HEAD or not lines[1:] or not lines[1].startswith("index "):
        message = "not a tlog-proof"
        raise ProofError(message)
    return LeafProof(_number(lines[1].removeprefix("index ")), _hashes(lines[2:]), checkpoint)


def extra_of(text: str) -> bytes:
    """Give what a tlog-proof's `extra` line holds, which nobody signed; b"" without one. Raises ProofError."""
    lines = _checked(text).split("\n", 2)
    return _b64(lines[1].removeprefix("extra ")) if lines[1:] and lines[1].startswith("extra ") else b""


def _hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    if len(lines) > HASH_LIMIT:
        message = f"{len(lines)} hashes are over the limit of {HASH_LIMIT}"
        raise ProofError(message)
    return tuple(map(_hash, lines))


@dataclass(frozen=True, slots=True)
class Advance:
    """A record of the `checkpoints` stream, nothing checked: from which size the checkpoint goes on, and the proof."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: str


def format_advance(old: int, proof: Sequence[bytes], checkpoint: str) -> str:
    """Write the body of an add-checkpoint request (C2SP tlog-witness, "add-checkpoint")."""
    return "\n".join([f"old {old}", *map(line, proof), "", checkpoint])


def parse_advance(text: str | bytes) -> Advance:
    """Read the body of an add-checkpoint request. Raises ProofError."""
    head, blank, checkpoint = _checked(text).partition("\n\n")
    lines = head.split("\n")
    if not blank or not lines[0].startswith("old "):
        message = "not an add-checkpoint body"
        raise ProofError(message)
    return Advance(_number(lines[0].removeprefix("old ")), _hashes(lines[1:]), checkpoint)
