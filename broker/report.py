"""What the examination of a trail came to: what does not hold, what was lost, and with how much it was compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.merkle import EMPTY_ROOT

LISTED = 100
"""Findings that are told in full; the others are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold, and where."""

    place: str
    what: str


@dataclass(frozen=True, slots=True)
class PutInForce:
    """The first leaf that names a version; `what` is directory or policies."""

    leaf_number: int
    what: str
    digest: bytes


@dataclass(slots=True)
class Gap:
    """Leaves of a log that has ended which are lost, as the log that went on from it says."""

    origin: str
    first: int
    last: int

    @property
    def count(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Taken:
    """By how much a leaf is dated later than a member took it in, by that member's clock (ms)."""

    leaf_number: int
    ahead: int


@dataclass(slots=True)
class Report:
    """What an examination came to; `findings` are at most `LISTED` of `wrong`."""

    origin: str
    size: int = 0
    root: bytes | None = EMPTY_ROOT
    """None: no checkpoint could be read, and how many leaves there are (`size`) is not known."""
    leaves: int = 0
    now: int = 0
    """The time of the last leaf, ms since 1970-01-01T00:00:00Z: no leaf is later."""
    heads: int = 0
    deliveries: int = 0
    told: int = 0
    """Leaves of decisions and receipts that others were told of."""
    agreed: int = 0
    """Size of the largest head of others that the trail bears out: no leaf beyond it stands in their word."""
    taken: dict[str, Taken] = field(default_factory=dict)
    """The worst of each member that took anything in, 0 where nothing is."""
    gaps: list[Gap] = field(default_factory=list)
    """Where a log ended and leaves of it were lost."""
    lost: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of lost leaves that others still hold something of, by who does."""
    wrong: int = 0
    findings: list[Finding] = field(default_factory=list)
    in_force: list[PutInForce] = field(default_factory=list)
    """Each change of versions, by rising leaf number: who signed them is not examined here."""

    def add(self, place: str, what: str) -> None:
        """Note something that does not hold."""
        self.wrong += 1
        if len(self.findings) < LISTED:
            self.findings.append(Finding(place, what))

    def ahead(self) -> dict[str, Taken]:
        """Give the members that took in what is dated later: their clock was wrong, or the log was ahead of time."""
        return {member: each for member, each in self.taken.items() if each.ahead}

    @property
    def was_ahead(self) -> bool:
        """Whether at least two members say so, and more than half of those who took anything in: one may be slow."""
        return len(self.ahead()) > max(1, len(self.taken) // 2)

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare with that the operator does not hold."""
        return self.heads + self.deliveries + self.told > 0
