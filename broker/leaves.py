"""Checks that each leaf of a trail can follow those before it: its kind, its time, and what is in force from it on."""

from __future__ import annotations

from broker import begun
from broker.notes import Vkey
from broker.notice import BEGUN, LOST, NOT_RELEASED, NOTHING, ORDERED, RELEASED, Leaf
from broker.report import Gap, PutInForce, Report

RECORD_KINDS = frozenset({"routed", "held", "rejected", "repeated"})
"""Kinds of leaf in one of which each record ends."""
FOLLOWING = frozenset({RELEASED, NOT_RELEASED, ORDERED})
"""Kinds of leaf that say what the notice of the leaf before did to another."""
SPOKEN_OF = RECORD_KINDS | FOLLOWING
"""Kinds of leaf that a later one may be about: a receipt names that under which its bureau got it, a look any of it."""
EVENT_KINDS = frozenset(
    {
        "receipt",
        "subscribed",
        "revoked",
        "look",
        "adopted",
        "version-refused",
        "resumed",
        RELEASED,
        NOT_RELEASED,
        ORDERED,
        BEGUN,
        LOST,
    }
)
CODED = frozenset({"rejected", "repeated", "receipt", "adopted", "version-refused", BEGUN})
"""Kinds of leaf that bear a code. On any other it would be told in the place of what the leaf is: `routed`, `held` …"""
DIRECTORY = "directory"
VERSIONS = (DIRECTORY, "policies")
"""What an `adopted` leaf may put in force, in the order of a leaf."""
ONCE = frozenset({"routed", "held"})
"""Kinds of leaf of which a notice has one at most."""


class Succession:
    """The leaves so far; what does not hold goes to `report`.

    `ends`: where the logs ended that this one went on from, by their checkpoints.
    """

    def __init__(self, key: Vkey, report: Report, ends: dict[str, int]) -> None:
        self._key, self._report, self._ends = key, report, ends
        self.now = 0
        """The latest date of a leaf so far (ms)."""
        self._in_force: tuple[bytes, bytes] | None = None
        self._replaced: set[bytes] = set()
        self._before: Leaf | None = None

    def take(self, number: int, leaf: Leaf) -> None:
        """Check the next leaf."""
        if leaf.kind not in RECORD_KINDS | EVENT_KINDS:
            self._report.add(f"leaf {number}", "is of an unknown kind")
        elif leaf.code is not None and leaf.kind not in CODED:
            self._report.add(
                f"leaf {number}", f"is {leaf.kind}, and bears the code {leaf.code}, which none of them has"
            )
        if leaf.now < self.now:
            self._report.add(f"leaf {number}", f"goes back in time by {self.now - leaf.now} ms")
        self.now = max(self.now, leaf.now)
        self._check_in_force(number, leaf)
        self._check_following(number, leaf)
        self._check_gap(number, leaf)

    def finish(self, size: int) -> None:
        """Check that what this log goes on from is said in it."""
        if begun.place_of(self._key.name) > 1 and not self._report.gaps and size:
            self._report.add("checkpoint", f"no leaf says what {self._key.name} goes on from")
        for origin, end in self._ends.items():
            self._report.add(f"leaf {end}", f"{origin} ended here by its checkpoint, and no leaf says so")

    def _check_in_force(self, number: int, leaf: Leaf) -> None:
        """Check that versions change only where one is adopted, and that no directory that was replaced comes back."""
        before, now = self._in_force, (leaf.directory, leaf.policies)
        if before == now:
            return
        for place, what in enumerate(VERSIONS):
            if (before[place] if before else NOTHING) == now[place]:
                continue
            if before and (leaf.kind, leaf.code) != ("adopted", what):
                self._report.add(f"leaf {number}", f"names other {what} than those that were adopted")
                return
            if what == DIRECTORY and now[place] in self._replaced:
                self._report.add(f"leaf {number}", "adopts a directory that was replaced before")
            self._report.in_force.append(PutInForce(number, what, now[place]))
            if before:
                self._replaced.add(before[place])
        self._in_force = now

    def _check_following(self, number: int, leaf: Leaf) -> None:
        """Check that what a reviewer or an authority is said to have decided comes right after what it sent."""
        before, self._before = self._before, leaf
        if leaf.kind in FOLLOWING and (before is None or (before.kind, before.about) != ("routed", leaf.about)):
            self._report.add(f"leaf {number}", f"is {leaf.kind} without the word that says so before it")

    def _check_gap(self, number: int, leaf: Leaf) -> None:
        """Check that a new log begins where its name says so, and what was lost before it stands in one stretch."""
        gaps, origin = self._report.gaps, leaf.code or ""
        if leaf.kind == BEGUN:
            gaps.append(Gap(origin, number, number))
            if not begun.is_before(origin, self._key.name) or (
                len(gaps) > 1 and not begun.is_before(gaps[-2].origin, origin)
            ):
                self._report.add(f"leaf {number}", f"begins a log after {origin}, and this one is {self._key.name}")
            if self._ends.pop(origin, number) != number:
                self._report.add(f"leaf {number}", f"begins a log elsewhere than where the checkpoint of {origin} ends")
        elif leaf.kind == LOST:
            if not gaps or gaps[-1].last != number - 1:
                self._report.add(f"leaf {number}", "is called lost, and no log was begun before it")
            else:
                gaps[-1].last = number
