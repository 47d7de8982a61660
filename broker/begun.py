"""Tells the logs of a shard apart: the first, and those that were begun after leaves were lost.

A later log has all the leaves of the one before that are left, and goes on from there under a name of its own: the
same key, another origin. Its first own leaf (`begun`) stands at the number at which the old log ends and names it; one
leaf (`lost`) stands in the place of each that was lost after it, so that no leaf number ever means two things.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from broker import codec, merkle, notes, reading
from broker.errors import NoticeRejectedError, ProofError, TrailError
from broker.notes import Checkpoint, Vkey
from broker.notice import BEGUN, LOST, DecisionRecord, Entry, Leaf, Opening
from broker.signing import decision_digest

OPENING_KEY = b"begun"
"""Key of the record of `checkpoints` that opens a new log."""
ENDED, SEEN, ORIGIN = "ended.", "ended.seen", "origin"
"""Files of a trail's folder: `ended.1` … are the last checkpoints of logs that have ended; `ended.seen` the newest of
the last one that somebody outside showed; which log this is now."""
GAP = frozenset({BEGUN, LOST})
"""Kinds of leaf that stand where a leaf was lost."""
_BLANK, _PARTS = "\n\n", 4
"""A checkpoint is text and signatures with an empty line in between; so are two, one after the other."""
_SHARD = re.compile(r"(.+)/trail(?:-([0-9]{1,9}))?")
_LATER = re.compile(r"(.+/trail(?:-[0-9]+)?)\.([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a new log began: where the old one ends, how far it had been seen, and the new one's first head."""

    ended: Checkpoint
    seen: Checkpoint
    advance: notes.Advance
    head: Checkpoint

    @property
    def lost(self) -> int:
        """How many leaves were lost, as far as anybody showed."""
        return self.seen.size - self.ended.size


def first_of(origin: str) -> str:
    """Name the first log of the shard whose log this is."""
    found = _LATER.fullmatch(origin)
    return found[1] if found else origin


def shard_of(origin: str) -> tuple[str, int] | None:
    """Tell the federation and shard whose log this is by its name; None where it is named otherwise."""
    found = _SHARD.fullmatch(first_of(origin))
    return (found[1], int(found[2] or 0)) if found else None


def place_of(origin: str) -> int:
    """Tell which of its shard's logs this is, from 1."""
    found = _LATER.fullmatch(origin)
    return int(found[2]) if found else 1


def after(*origins: str) -> str:
    """Name the log that goes on from these of one shard: after `…/trail` comes `…/trail.2`, then `…/trail.3`."""
    return f"{first_of(origins[0])}.{max(map(place_of, origins)) + 1}"


def present(folder: Path, first: str) -> str:
    """Tell which log a trail's folder holds, or is about to; `first` where it says nothing."""
    file = folder / ORIGIN
    return file.read_text(encoding="utf-8").strip() if file.exists() else first


def key_of(origin: str, log: Vkey) -> Vkey:
    """Give the verifier key of one of the logs that `log` goes on from, or `log` itself: they share a key.

    Any other origin gives `log`, under which nothing of that origin opens.
    """
    return notes.vkey(origin, log.public.raw) if is_before(origin, log.name) else log


def is_before(one: str, other: str) -> bool:
    """Say whether two logs are of one shard, and the other went on from the one."""
    return first_of(one) == first_of(other) and place_of(one) < place_of(other)


def open_checkpoint(note: str, log: Vkey) -> Checkpoint:
    """Check and read a checkpoint of a log, or of one that it goes on from. Raises ProofError."""
    return notes.open_checkpoint(note, key_of(origin_of(note), log))


def origin_of(note: str) -> str:
    """Name the log that a checkpoint says it is of; nothing is checked. Raises ProofError."""
    return notes.parse_checkpoint(notes.parse(note).text).origin


def ended_at(folder: Path, origin: str) -> int:
    """Tell at which leaf a log began, by the checkpoint that is kept of the one before. Raises TrailError."""
    try:
        kept = [notes.parse_checkpoint(notes.parse(each).text) for each in ended(folder)]
        return next(each.size for each in reversed(kept) if place_of(each.origin) < place_of(origin))
    except (OSError, ProofError, UnicodeDecodeError, StopIteration) as error:
        raise TrailError(f"{folder} does not hold where the log before {origin} ended: {error}") from error


def ended(folder: Path) -> list[str]:
    """Read the checkpoints that are kept in a trail's folder of logs that have ended, the oldest first."""
    files = [each for each in folder.glob(f"{ENDED}*") if each.name.removeprefix(ENDED).isdecimal()]
    ordered = sorted(files, key=lambda each: int(each.name.removeprefix(ENDED)))
    return [reading.read(each, notes.NOTE_LIMIT).decode() for each in ordered]


def detail(ended: str, seen: str) -> str:
    """Say in a decision record what the log goes on from: the old one's last checkpoint, and its newest outside."""
    return f"{ended}\n{seen}"


def read(entry: Entry, log: Vkey) -> tuple[Checkpoint, Checkpoint]:
    """Read what the leaf says that began `log`: where the old log ends, how far it was seen. Raises ProofError."""
    try:
        leaf = codec.decode(Leaf, entry.leaf)
        said = codec.decode(DecisionRecord, entry.decision).detail.split(_BLANK)
    except NoticeRejectedError as error:
        message = "the beginning of a log cannot be read"
        raise ProofError(message) from error
    if leaf.kind != BEGUN or leaf.decision != decision_digest(entry.decision_salt, entry.decision):
        message = "no leaf that begins a log, or not of this record"
        raise ProofError(message)
    if len(said) != _PARTS:
        message = "the beginning of a log is not two checkpoints"
        raise ProofError(message)
    old = open_checkpoint(f"{said[0]}{_BLANK}{said[1]}\n", log)
    seen = open_checkpoint(_BLANK.join(said[2:]), log)
    if leaf.code != old.origin or not place_of(old.origin) <= place_of(seen.origin) < place_of(log.name):
        message = f"{log.name} does not go on from {old.origin}"
        raise ProofError(message)
    if old.size != entry.leaf_number or seen.size <= old.size:
        message = f"leaf {entry.leaf_number} does not begin where a log of {seen.size} leaves was cut to {old.size}"
        raise ProofError(message)
    return old, seen


def open_opening(data: bytes, log: Vkey) -> Beginning:
    """Check all of an opening that can be checked without knowing the old log. Raises ProofError."""
    try:
        opening = codec.decode(Opening, data)
        entry = codec.decode(Entry, opening.entry)
    except NoticeRejectedError as error:
        message = "the opening of a log cannot be read"
        raise ProofError(message) from error
    old, seen = read(entry, log)
    advance, proof = notes.parse_advance(opening.advance), notes.parse_proof(opening.proof)
    head = notes.open_checkpoint(advance.checkpoint, log)
    if (proof.number, proof.checkpoint) != (entry.leaf_number, advance.checkpoint) or advance.old > old.size:
        message = "the proof is not of the leaf that begins the log"
        raise ProofError(message)
    merkle.check_inclusion(merkle.leaf_hash(entry.leaf), proof.number, head.size, proof.proof, head.root)
    return Beginning(old, seen, advance, head)


def named(opening: bytes) -> str:
    """Name the log that an opening opens; nothing is checked. Raises ProofError."""
    try:
        return origin_of(notes.parse_advance(codec.decode(Opening, opening).advance).checkpoint)
    except NoticeRejectedError as error:
        message = "the opening of a log cannot be read"
        raise ProofError(message) from error
