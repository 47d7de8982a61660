"""Works out from decisions on record alone who holds a notice, so that nobody need believe who was told of its end.

Follows the leaves in order. A correction leaves those it does not reach among the holders; a release adds to the
reviewers, who keep what they refuse; what was withdrawn is held by nobody. Which notice another corrects or ends its
issuer signed; of which leaf that is the broker's word, which is held against it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.examine import ONCE
from broker.notice import RELEASED
from broker.verify import is_order, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.notice import Leaf, Reference
    from broker.recorded import Recorded

Named = tuple[str, bytes, bytes]
"""Issuer, id and header digest of a notice. A reference whose id is another's than its digest names nothing."""


class Holders:
    """What the leaves so far say of who holds what; sixteen bytes for each notice, more for one that changes another.

    `leaf` reads a leaf, `find` what was decided in it, if anything. `has_lost`, to be set where the log is one that
    goes on from another: what a notice names may be among the leaves that were lost.
    """

    def __init__(self, leaf: Callable[[int], Leaf], find: Callable[[int], Recorded | None]) -> None:
        self._leaf, self._find = leaf, find
        self.has_lost = False
        self._digests, self._leaves = array("Q"), array("Q")
        self._released: dict[int, dict[int, str]] = {}
        self._ended: set[int] = set()
        # By what its issuer signed: the start of the digest of what is corrected, or was changed before it came.
        self._corrections: dict[int, int] = {}
        self._early: dict[int, int] = {}

    def take(self, recorded: Recorded) -> str:
        """Take in the next decision; say what is wrong with what it changes and whom it tells, "" if nothing."""
        if recorded.leaf.kind == RELEASED:
            return self._release(recorded)
        subject = _changed(recorded)
        wrong = self._late(recorded)
        if subject is not None:
            wrong = wrong or self._again(subject) or self._misplaced(recorded, subject)
            wrong = wrong or self._untold(recorded, subject)
            self._note(recorded, subject)
        self._digests.append(short(recorded.leaf.header_digest))
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
        about = self._first(_named(subject)) if leaf.about is None else leaf.about
        if (
            about is None
            or not 0 <= about < recorded.leaf_number
            or self._leaf(about).header_digest != subject.header_digest
        ):
            return 0
        return sum(1 << index for index in self._of(about))

    def _release(self, release: Recorded) -> str:
        about = release.leaf.about
        if about is None:
            return ""  # told where the review is looked for
        again = about in self._released
        self._released.setdefault(about, {}).update(recipients(release))
        return f"releases the notice of leaf {about} once more" if again else ""

    def _note(self, recorded: Recorded, subject: Reference) -> None:
        about, digest = recorded.leaf.about, short(subject.header_digest)
        if subject.relation == "corrects":
            if about is not None:  # what was lost can come once more, and then stands
                self._corrections[digest] = recorded.leaf_number
        elif subject.relation == "withdraws" and about is not None:
            self._ended.add(about)
        if subject.relation == "withdraws" or (about is None and not self.has_lost):
            self._early.setdefault(digest, recorded.leaf_number)

    # What a leaf says it is about

    def _late(self, recorded: Recorded) -> str:
        """Say whether a notice was taken in after what changes it, whose holders were worked out before it had any."""
        number = self._early.get(short(recorded.leaf.header_digest))
        change = self._find(number) if number is not None else None
        subject = _changed(change) if change else None
        if subject is None or _named(subject) != _own(recorded):
            return ""
        return f"is taken in although leaf {number} had {_DONE[subject.relation]} it"

    def _again(self, subject: Reference) -> str:
        """Say whether a version is corrected once more: an order would follow only one of the two."""
        before = self._correction(_named(subject)) if subject.relation == "corrects" else None
        return f"corrects what leaf {before} had corrected" if before is not None else ""

    def _misplaced(self, recorded: Recorded, subject: Reference) -> str:
        """Say whether the leaf that a decision calls the notice which it changes is another one."""
        about, named, verb = recorded.leaf.about, _named(subject), _VERBS[subject.relation]
        if about is not None and not 0 <= about < recorded.leaf_number:
            return ""  # told where the trail itself is examined
        stands = self._standing(recorded, named)
        if stands is not None:
            return "" if about == stands else f"does not say that it {verb} the notice of leaf {stands}"
        if about is None:
            # Brokers of before took in corrections and restrictions of what they never had: told if it comes later.
            return f"{verb} a notice that is not on record" if is_order(recorded.header) else ""
        # Of what was rejected no decision is on record, and the leaf says no more of it than its digest.
        if self._leaf(about).header_digest == subject.header_digest or self._withdrew(about, subject):
            return ""
        return f"{verb} another notice than that of leaf {about}"

    def _standing(self, recorded: Recorded, named: Named) -> int | None:
        """Find the leaf of the notice that is changed; of what is ended by order that of its last correction."""
        if is_order(recorded.header) and (newest := self._newest(named)) is not None:
            return newest
        about = recorded.leaf.about
        if about is not None and self._takes_in(about, named):
            return about
        return self._first(named)

    def _withdrew(self, about: int, subject: Reference) -> bool:
        """Tell whether a leaf is an earlier withdrawal of the same notice, which came before it."""
        earlier = self._find(about)
        before = subject_of(earlier.header) if earlier else None
        return before is not None and before == subject

    def _newest(self, named: Named) -> int | None:
        """Find the last correction of a notice; None if there is none.

        By what was signed: the first version may have been rejected, and no decision tells of it.
        """
        found = None
        while (number := self._correction(named)) is not None and (each := self._find(number)):
            found, named = number, _own(each)
        return found

    def _correction(self, named: Named) -> int | None:
        number = self._corrections.get(short(named[2]))
        each = self._find(number) if number is not None else None
        subject = _corrected(each) if each else None
        return number if subject is not None and _named(subject) == named else None

    def _first(self, named: Named) -> int | None:
        """Find the leaf under which a notice was taken in."""
        digest, place = short(named[2]), -1
        try:
            while True:
                place = self._digests.index(digest, place + 1)
                if self._takes_in(int(self._leaves[place]), named):
                    return int(self._leaves[place])
        except ValueError:
            return None

    def _takes_in(self, leaf_number: int, named: Named) -> bool:
        """Tell whether a leaf is the decision on this notice: its rejection or repetition has no holders."""
        decided = self._find(leaf_number)
        return decided is not None and decided.leaf.kind in ONCE and _own(decided) == named

    # Whom an end tells

    def _untold(self, end: Recorded, subject: Reference) -> str:
        """Say which holders an end does not tell; the issuer, too, of what another ends by order."""
        about = end.leaf.about
        if subject.relation == "corrects" or about is None or not 0 <= about < end.leaf_number:
            return ""
        told, order = recipients(end), is_order(end.header)
        missed = [name for index, name in self._of(about).items() if told.get(index) != name]
        missed += [subject.issuer] if order and subject.issuer not in told.values() else []
        return f"ends the notice of leaf {about} and does not tell {', '.join(missed[:5])}" if missed else ""

    def _of(self, leaf_number: int) -> dict[int, str]:
        """Name the holders of a notice by bureau index, those of the versions that it replaced included."""
        found: dict[int, str] = {}
        for number, each in self._versions(leaf_number):
            if number in self._ended:
                break
            found |= recipients(each) | self._released.get(number, {})
        return found

    def _versions(self, leaf_number: int) -> Iterator[tuple[int, Recorded]]:
        """Give a notice and the versions that it replaced, newest first."""
        number: int | None = leaf_number
        while number is not None and (each := self._find(number)):
            yield number, each
            before = each.leaf.about if _corrected(each) else None
            number = before if before is not None and before < number else None  # a forged one leads round for ever


def recipients(recorded: Recorded) -> dict[int, str]:
    """Name those whom a decision reached, by bureau index."""
    return {each.index: each.bureau for each in recorded.record.rows}


_VERBS = {"corrects": "corrects", "withdraws": "ends", "restricts": "ends"}
"""Relation of a notice that changes another → what a finding calls that."""
_DONE = {"corrects": "corrected", "withdraws": "withdrawn", "restricts": "ended"}


def _changed(recorded: Recorded) -> Reference | None:
    """Give the notice that one corrects, withdraws or restricts, if any."""
    subject = subject_of(recorded.header)
    return subject if subject and subject.relation in _VERBS else None


def _corrected(recorded: Recorded) -> Reference | None:
    """Give the version that a notice corrects, if any."""
    subject = subject_of(recorded.header)
    return subject if subject and subject.relation == "corrects" else None


def _named(reference: Reference) -> Named:
    return reference.issuer, reference.notice_id, reference.header_digest


def _own(recorded: Recorded) -> Named:
    return recorded.header.issuer, recorded.header.notice_id, recorded.leaf.header_digest or b""


def short(digest: bytes | None) -> int:
    """Give the first eight bytes of a digest."""
    return int.from_bytes((digest or bytes(8))[:8], "big")
