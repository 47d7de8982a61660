"""Works out from decisions on record alone who holds a notice, so that nobody need believe who was told of its end.

Follows the leaves in order. A correction leaves those it does not reach among the holders; a release adds to the
reviewers, who keep what they refuse; what was withdrawn is held by nobody.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.notice import RELEASED
from broker.verify import is_order, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.notice import Leaf, Reference
    from broker.recorded import Recorded


class Holders:
    """What the leaves so far say of who holds what; sixteen bytes for each notice.

    `leaf` reads a leaf, `find` what was decided in it, if anything.
    """

    def __init__(self, leaf: Callable[[int], Leaf], find: Callable[[int], Recorded | None]) -> None:
        self._leaf, self._find = leaf, find
        self._digests, self._leaves = array("Q"), array("Q")
        self._released: dict[int, dict[int, str]] = {}
        self._ended: set[int] = set()

    def take(self, recorded: Recorded) -> str:
        """Take in the next decision; say what is wrong with whom a withdrawal or restriction tells, "" if nothing."""
        leaf = recorded.leaf
        if leaf.kind == RELEASED and leaf.about is not None:
            self._released[leaf.about] = recipients(recorded)
            return ""
        wrong = self._untold(recorded) if ends(recorded) else ""
        if ends(recorded) == "withdraws" and leaf.about is not None:
            self._ended.add(leaf.about)
        self._digests.append(short(leaf.header_digest))
        self._leaves.append(recorded.leaf_number)
        return wrong

    def holding(self, recorded: Recorded) -> int | None:
        """Count who holds what a correction corrects, as a mask; ask before `take`. None: it corrects nothing.

        Of a release, too: whoever was only given it to review is not among them.
        """
        subject, leaf = _corrected(recorded), recorded.leaf
        if subject is None:
            return None
        if leaf.kind == RELEASED:
            held = self._find(-1 if leaf.about is None else leaf.about)
            if held is None:
                return 0
            leaf = held.leaf
        digest = subject.header_digest
        about = self._first(short(digest)) if leaf.about is None else leaf.about
        if about is None or not 0 <= about < recorded.leaf_number or self._leaf(about).header_digest != digest:
            return 0
        return sum(1 << index for index in self._of(about))

    def _untold(self, end: Recorded) -> str:
        subject = subject_of(end.header)
        if subject is None:
            return ""
        about = end.leaf.about
        if about is None:
            first = self._first(short(subject.header_digest))
            return f"does not say that it ends the notice of leaf {first}" if first is not None else ""
        if not 0 <= about < end.leaf_number:
            return ""  # told where the trail itself is examined
        order = is_order(end.header)
        same = self._leaf(about).header_digest == subject.header_digest
        if not same and not (order and self._is_version(about, subject)):
            return "" if self._withdrew(about, subject) else f"ends another notice than that of leaf {about}"
        told = recipients(end)
        missed = [name for index, name in self._of(about).items() if index not in told]
        missed += [subject.issuer] if order and subject.issuer not in told.values() else []
        return f"ends the notice of leaf {about} and does not tell {', '.join(missed[:5])}" if missed else ""

    def _withdrew(self, about: int, subject: Reference) -> bool:
        """Tell whether a leaf is an earlier withdrawal of the same notice, which came before it."""
        earlier = self._find(about)
        before = subject_of(earlier.header) if earlier else None
        return before is not None and before == subject

    def _first(self, digest: int) -> int | None:
        try:
            return int(self._leaves[self._digests.index(digest)])
        except ValueError:
            return None

    def _of(self, leaf_number: int) -> dict[int, str]:
        """Name the holders of a notice by bureau index, those of the versions that it replaced included."""
        found: dict[int, str] = {}
        for number, each in self._versions(leaf_number):
            if number in self._ended:
                break
            found |= recipients(each) | self._released.get(number, {})
        return found

    def _is_version(self, leaf_number: int, subject: Reference) -> bool:
        """Tell whether the notice of a leaf is a later version of the one that is named.

        By what its issuer signed: the first version may have been rejected, and no decision tells of it.
        """
        corrected = (_corrected(each) for _, each in self._versions(leaf_number))
        return any(each is not None and each.header_digest == subject.header_digest for each in corrected)

    def _versions(self, leaf_number: int) -> Iterator[tuple[int, Recorded]]:
        """Give a notice and the versions that it replaced, newest first."""
        number: int | None = leaf_number
        while number is not None and (each := self._find(number)):
            yield number, each
            number = each.leaf.about if _corrected(each) else None


def recipients(recorded: Recorded) -> dict[int, str]:
    """Name those whom a decision reached, by bureau index."""
    return {each.index: each.bureau for each in recorded.record.rows}


def ends(recorded: Recorded) -> str:
    """Tell by which relation a notice goes to the holders of another; empty for any other notice."""
    subject = subject_of(recorded.header)
    return subject.relation if subject and subject.relation in ("withdraws", "restricts") else ""


def _corrected(recorded: Recorded) -> Reference | None:
    """Give the version that a notice corrects, if any."""
    subject = subject_of(recorded.header)
    return subject if subject and subject.relation == "corrects" else None


def short(digest: bytes | None) -> int:
    """Give the first eight bytes of a digest."""
    return int.from_bytes((digest or bytes(8))[:8], "big")
