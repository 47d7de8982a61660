"""Holds what others saw of a log against it: heads, deliveries, and leaves that they were told of.

Streams, as the walk over the log does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from broker import begun, codec, cosignature, notes
from broker.begun import GAP
from broker.errors import NoticeRejectedError, ProofError
from broker.few import few
from broker.merkle import EMPTY_ROOT, check_row
from broker.notes import Vkey
from broker.notice import CLOCK_SKEW_MS, Leaf, Row
from broker.report import Report, Taken
from broker.tiles import Edge

AHEAD_MS = 2 * CLOCK_SKEW_MS
"""How much later than it was cosigned, or taken in by a member, an honest leaf is dated at most: it bears the bus's
time, a cosignature that of its witness, and either may be that far from the broker's, which refuses a witness only
beyond that (`submit`)."""


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A head as somebody else kept it."""

    size: int
    root: bytes
    note: str
    source: str
    at: int | None = None
    """By when it was there (ms), where the auditor trusts the clocks that say so: those of a quorum of witnesses."""


@dataclass(frozen=True, slots=True)
class SeenDelivery:
    """A delivery as its bureau kept it."""

    leaf_number: int
    leaf: bytes
    bureau: str
    delivery_number: int
    row: bytes
    salt: bytes
    path: bytes
    index: int
    source: str
    taken_at: int | None = None
    """When its collector took it in, by its own clock (ms)."""


@dataclass(frozen=True, slots=True)
class SeenLeaf:
    """A leaf as somebody kept it who was told of it: an issuer's outcome, another's receipt, a proof, a bundle."""

    number: int
    leaf: bytes
    source: str


class Comparison:
    """What others kept of a log, each kind in the order of the log; what does not hold goes to `report`."""

    def __init__(
        self,
        key: Vkey,
        report: Report,
        heads: Iterable[SeenHead],
        deliveries: Iterable[SeenDelivery],
        told: Iterable[SeenLeaf],
    ) -> None:
        self._key, self._report = key, report
        self._heads, self._deliveries, self._told = iter(heads), iter(deliveries), iter(told)
        self._next_head = next(self._heads, None)
        self._next_delivery, self._next_told = next(self._deliveries, None), next(self._told, None)

    def leaf(self, number: int, entry: bytes) -> None:
        """Compare the next entry with what was kept of it, and say what was kept of those that are not there."""
        while self._next_delivery and self._next_delivery.leaf_number <= number:
            self._check_delivery(self._next_delivery, entry if self._next_delivery.leaf_number == number else None)
            self._next_delivery = next(self._deliveries, None)
        while self._next_told and self._next_told.number <= number:
            self._check_told(self._next_told, entry if self._next_told.number == number else None)
            self._next_told = next(self._told, None)

    def grown(self, edge: Edge, now: int) -> None:
        """Compare the tree as it has grown with the heads of its size; `now`: no leaf of it is dated later."""
        while self._next_head and self._next_head.size <= edge.size:
            self._check_head(self._next_head, edge.root(), now)
            self._next_head = next(self._heads, None)

    def finish(self, edge: Edge, now: int, ends: str) -> None:
        """Compare what is left; `ends` says why the tree goes no further."""
        while seen := self._next_head:
            if seen.size <= edge.size:
                self._check_head(seen, edge.root(), now)
            else:
                self._report.heads += 1
                what = f"the head of size {seen.size} that {seen.source} kept cannot be met"
                self._report.add(f"leaf {edge.size}", f"{what}: {ends}")
            self._next_head = next(self._heads, None)
        while delivery := self._next_delivery:
            self._check_delivery(delivery, None)
            self._next_delivery = next(self._deliveries, None)
        while kept := self._next_told:
            self._check_told(kept, None)
            self._next_told = next(self._told, None)

    def _is_lost(self, number: int) -> bool:
        """Say whether a leaf of an ended log is among those that are lost."""
        return any(each.first <= number <= each.last for each in self._report.gaps)

    def _check_head(self, seen: SeenHead, root: bytes, now: int) -> None:
        self._report.heads += seen.size > 0  # of no leaves there is one root only: it compares nothing
        if (EMPTY_ROOT if seen.size == 0 else root) == seen.root:
            self._report.agreed = max(self._report.agreed, seen.size)
            self._check_not_ahead(seen, now)
            return
        if self._is_lost(seen.size - 1) and self._is_of_ended(seen):
            self._note_lost(seen.source, seen.size - 1)
            return
        self._report.add(
            f"leaves {self._report.agreed} to {seen.size - 1}",
            f"the head of size {seen.size} that {seen.source} kept has another root{self._signed(seen)}",
        )

    def _check_not_ahead(self, seen: SeenHead, now: int) -> None:
        """Check that no leaf is dated later than it was seen: it would have made what was in force, or due, be over."""
        ahead = now - seen.at if seen.at is not None and seen.size else 0
        if ahead > AHEAD_MS:
            self._report.add(
                f"leaf {seen.size - 1}", f"is ahead of time by {ahead} ms: {seen.source} had seen it by then"
            )

    def _is_of_ended(self, seen: SeenHead) -> bool:
        """Say whether a head is of a log that this one went on from, and bears its signature."""
        try:
            origin = cosignature.head_of(notes.parse(seen.note).text).origin
            head = cosignature.open_head(seen.note, begun.key_of(origin, self._key))
        except ProofError:
            return False
        return (head.size, head.root) == (seen.size, seen.root) and head.origin != self._key.name

    def _note_lost(self, source: str, number: int) -> None:
        self._report.lost.setdefault(source, []).append(number)

    def _signed(self, seen: SeenHead) -> str:
        try:
            head = cosignature.open_head(seen.note, self._key)
        except ProofError:
            return ", but does not bear the signature of this log"
        if (head.size, head.root) != (seen.size, seen.root):
            return ", but its note says something else"
        return " and bears the signature of this log: it showed others another history (split view)"

    def _check_delivery(self, seen: SeenDelivery, entry: bytes | None) -> None:
        self._report.deliveries += 1
        name = f"delivery {seen.delivery_number} of {seen.bureau} ({seen.source})"
        if entry is None:
            self._report.add(f"leaf {seen.leaf_number}", f"{name} has it, the trail has not")
        elif entry != seen.leaf and _stands_for_lost(entry):
            self._note_lost(seen.source, seen.leaf_number)
        elif entry != seen.leaf:
            self._report.add(f"leaf {seen.leaf_number}", f"{name} has another leaf of this number")
        else:
            self._check_row(seen, name)

    def _check_told(self, seen: SeenLeaf, entry: bytes | None) -> None:
        self._report.told += 1
        if entry is None:
            self._report.add(f"leaf {seen.number}", f"{seen.source} was told of it, the trail has it not")
        elif entry != seen.leaf and _stands_for_lost(entry):
            self._note_lost(seen.source, seen.number)
        elif entry != seen.leaf:
            self._report.add(f"leaf {seen.number}", f"{seen.source} was told of another leaf of this number")

    def _check_row(self, seen: SeenDelivery, name: str) -> None:
        try:
            leaf, row = codec.decode(Leaf, seen.leaf), codec.decode(Row, seen.row)
            check_row(seen.salt, seen.row, seen.index, seen.path, leaf.rows or b"")
        except (ProofError, NoticeRejectedError):
            self._report.add(f"leaf {seen.leaf_number}", f"the row of {name} is not below its root of rows")
            return
        if (row.bureau, row.delivery_number) != (seen.bureau, seen.delivery_number):
            self._report.add(f"leaf {seen.leaf_number}", f"the row of {name} is another's")
        elif seen.taken_at is not None:
            self._note_taken(seen, leaf.now - seen.taken_at)

    def _note_taken(self, seen: SeenDelivery, ahead: int) -> None:
        """Note by how much a leaf is dated later than a member took it in, where that is most and more than honest."""
        member, taken = seen.bureau.partition("/")[0], self._report.taken
        worst = taken.setdefault(member, Taken(seen.leaf_number, 0))
        if ahead > max(AHEAD_MS, worst.ahead):
            taken[member] = Taken(seen.leaf_number, ahead)

    def check_taken(self) -> None:
        """Check that no leaf is dated later than members took it in."""
        if self._report.was_ahead:
            ahead = self._report.ahead()
            first = min(ahead.values(), key=lambda each: each.leaf_number)
            self._report.add(
                f"leaf {first.leaf_number}",
                f"is ahead of time by {first.ahead} ms: {few(sorted(ahead))} had taken in what is dated so by then",
            )


def _stands_for_lost(entry: bytes) -> bool:
    """Say whether a leaf stands in the place of one that was lost."""
    try:
        return codec.decode(Leaf, entry).kind in GAP
    except NoticeRejectedError:
        return False
