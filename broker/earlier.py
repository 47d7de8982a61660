"""Compares the partial tiles and bundles of earlier sizes with those that the signed head is made of.

They stay for readers of an earlier head until their tile is full (C2SP tlog-tiles, "Partial Tiles"). No later head
needs them, so nothing else would see that one was changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker import reading
from broker.errors import ProofError
from broker.tiles import ENTRIES, HEIGHT, WIDTH, limit_of, unbundle
from broker.trail import read_part


@dataclass(frozen=True, slots=True)
class _Part:
    """A partial tile, or (level `entries`) bundle, as its file is named."""

    file: Path
    level: str
    index: int
    width: int

    @property
    def level_height(self) -> int:
        """How many levels of the tree lie below its hashes."""
        return 0 if self.level == ENTRIES else HEIGHT * int(self.level)

    def items(self, data: bytes) -> list[bytes]:
        """Take entries or hashes apart. Raises ProofError."""
        if self.level == ENTRIES:
            return unbundle(data)
        return [data[each : each + 32] for each in range(0, len(data), 32)]


def changed(folder: Path, size: int) -> Iterator[tuple[str, str]]:
    """Name each part of an earlier size that does not fit the tree of `size` leaves, and what is wrong with it.

    The tiles of that tree must have been checked before. What lies beyond it is not looked at, and may be half written.
    """
    for part in _parts(folder):
        have = min(WIDTH, (size >> part.level_height) - part.index * WIDTH)
        if have <= 0 or have == part.width:
            continue
        if wrong := _wrong(folder, part, have):
            inside, what = wrong
            if part.width > have and not inside:
                continue
            yield f"{part.file.relative_to(folder)}{inside}", what


def _parts(folder: Path) -> Iterator[_Part]:
    """Find the parts by their names (C2SP tlog-tiles): tile/0/x001/x234/067.p/5."""
    for file in sorted(folder.glob("tile/**/*.p/*")):
        level, *numbers = file.relative_to(folder / "tile").parts
        index = "".join(numbers[:-1]).removesuffix(".p").replace("x", "")
        if index.isdecimal() and file.name.isdecimal() and (level == ENTRIES or level.isdecimal()):
            yield _Part(file, level, int(index), int(file.name))


def _wrong(folder: Path, part: _Part, have: int) -> tuple[str, str] | None:
    """Compare a part with the checked tile of `have` hashes: the place inside it, and what is wrong there.

    A broker that runs may take the part away meanwhile.
    """
    level = ENTRIES if part.level == ENTRIES else int(part.level)
    try:
        whole = part.items(read_part(folder, level, part.index, have))
        found = part.items(reading.read(part.file, limit_of(level)))
    except FileNotFoundError:
        return None
    except (OSError, ProofError) as error:
        return "", f"cannot be read: {error}"
    entries = part.level == ENTRIES
    if len(found) != part.width:
        return "", f"holds {len(found)} {'entries' if entries else 'hashes'} instead of {part.width}"
    for place, (kept, now) in enumerate(zip(found, whole, strict=False)):
        if kept != now:
            inside = f", leaf {part.index * WIDTH + place}" if entries else f", hash {place}"
            return inside, "was changed: it is another in the tree of the checkpoint"
    return None
