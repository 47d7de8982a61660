"""What witnesses have confirmed of a trail: its newest checkpoint that a quorum has cosigned, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from broker import codec, cosignature, notes, reading
from broker.cosignature import Cosigned, Cosigner
from broker.errors import ProofError
from broker.notes import Checkpoint, Vkey
from broker.notice import Leaf
from broker.trail import Trail

CHECKPOINT, WITNESSED = "checkpoint", "checkpoint.witnessed"
"""Files of a trail: its newest checkpoint; the newest that a quorum has cosigned."""
ON_DISK = (CHECKPOINT, WITNESSED)
NO_QUORUM_MS = 3_600_000
"""Milliseconds without the word of a quorum after which the trail is red."""


@dataclass(slots=True)
class Witnessed:
    """A checkpoint of the log, and the cosignatures that were found over its very text."""

    head: Checkpoint
    note: str
    found: dict[bytes, Cosigned] = field(default_factory=dict)


def gather(candidates: Iterable[str], log: Vkey, known: Sequence[Cosigner]) -> list[Witnessed]:
    """Put together what several notes bear of the same checkpoint, smallest head first.

    Raises ProofError for a note that the log did not sign, or a cosignature of a known witness that fails.
    """
    gathered: dict[str, Witnessed] = {}
    for note in candidates:
        found = cosignature.cosignatures(note, known)
        if not found:
            continue
        head = cosignature.open_head(note, log)
        one = gathered.setdefault(notes.parse(note).text, Witnessed(head, note))
        for key, each in found.items():
            if key not in one.found or one.found[key].time < each.time:
                one.found[key] = each
    return sorted(gathered.values(), key=lambda each: each.head.size)


def newest(witnessed: Iterable[Witnessed], quorum: int) -> Witnessed | None:
    """Give the largest checkpoint that a quorum has cosigned."""
    enough = [each for each in witnessed if len(each.found) >= max(1, quorum)]
    return max(enough, key=lambda each: each.head.size, default=None)


def to_prove_with(trail: Trail, number: int) -> tuple[int, str]:
    """Give size and note of the checkpoint to prove leaf `number` under: the one that most signatures stand by."""
    best = trail.size, trail.checkpoint
    for note in on_disk(trail.folder):
        with suppress(ProofError):
            parsed = notes.parse(note)
            head = notes.parse_checkpoint(parsed.text)
            more = len(parsed.signatures) > len(notes.parse(best[1]).signatures)
            if more and number < head.size <= trail.size and trail.root_of(head.size) == head.root:
                best = head.size, note
    return best


def on_disk(folder: Path) -> Iterator[str]:
    """Read the notes of a trail that may bear cosignatures."""
    for name in ON_DISK:
        with suppress(FileNotFoundError):
            yield note_of(folder, name)


def note_of(folder: Path, name: str) -> str:
    """Read one of these notes. Raises OSError or UnicodeDecodeError."""
    return reading.read(folder / name, notes.NOTE_LIMIT).decode()


def confirmed(folder: Path, log: Vkey, known: Sequence[Cosigner], quorum: int) -> Witnessed | None:
    """Give the newest checkpoint on disk that a quorum has cosigned; what cannot be trusted counts for nothing."""
    good: list[Witnessed] = []
    for note in on_disk(folder):
        with suppress(ProofError):
            good += gather([note], log, known)
    return newest(good, quorum)


def since(trail: Trail, log: Vkey, known: Sequence[Cosigner], quorum: int) -> int | None:
    """Tell in ms when a quorum last stood by this log, or since when one could have: its first leaf. None: empty."""
    found = confirmed(trail.folder, log, known, quorum)
    at = cosignature.quorum_time(found.found, quorum) if found else None
    if at is not None:
        return at * 1000
    return codec.decode(Leaf, trail.entry(0)).now if trail.size else None
