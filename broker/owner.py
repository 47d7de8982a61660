"""What a shard is run with: the operator's home, its key, its pace and its witnesses.

Commands of the operator that run no shard read no more than this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from broker import begun
from broker.bus import NOTHING_LOST

if TYPE_CHECKING:
    from broker.cosignature import Cosigner
    from broker.fetch import Place
    from broker.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast steps may follow each other, and how long a child may judge a record that killed us."""

    limit: int
    pause_s: float
    trial_s: float


@dataclass(frozen=True, slots=True)
class Known:
    """A witness that is asked, and where."""

    cosigner: Cosigner
    place: Place


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who is asked, and how many of them are enough."""

    known: tuple[Known, ...] = ()
    quorum: int = 0
    heard: set[str] = field(default_factory=set, compare=False)
    """Logs about which they were asked at the start of this process."""

    @property
    def cosigners(self) -> list[Cosigner]:
        """Their keys."""
        return [each.cosigner for each in self.known]


NONE = Witnesses()


@dataclass(frozen=True, slots=True)
class Owner:
    """What the operator's home gives a shard."""

    home: Path
    federation: str
    shard: int
    key: SigningKey
    pace: Pace
    clock: Callable[[], int]
    random: Callable[[int], bytes]
    witnesses: Witnesses = NONE
    review_alarm_ms: int = 8 * 3_600_000
    lost: Mapping[str, int] = field(default_factory=lambda: NOTHING_LOST)
    """Streams that have lost what was to be taken at this offset, and are to be gone on with."""

    @property
    def trail(self) -> Path:
        """Folder of this shard's trail."""
        return self.home / ("trail" if self.shard == 0 else f"trail-{self.shard}")

    @property
    def register(self) -> Path:
        """The cache of this shard's register."""
        return register_of(self.home, self.shard)

    @property
    def records(self) -> Path:
        """The decision records of this shard."""
        return self.home / _named("records.db", self.shard)

    @property
    def judging(self) -> Path:
        """The marks of what this shard is judging."""
        return self.home / _named("judging", self.shard)

    @property
    def origin(self) -> str:
        """Name of this shard's log, as its checkpoints carry it."""
        first = f"{self.federation}/trail" if self.shard == 0 else f"{self.federation}/trail-{self.shard}"
        return begun.present(self.trail, first)


def register_of(home: Path, shard: int) -> Path:
    """Name the cache of a shard's register in the operator's home."""
    return home / _named("register.db", shard)


def _named(name: str, shard: int) -> str:
    stem, dot, suffix = name.partition(".")
    return name if shard == 0 else f"{stem}-{shard}{dot}{suffix}"
