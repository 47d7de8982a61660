"""Works out from decisions on record alone who holds a notice, so that nobody need believe who was told of its end.

Follows the leaves in order. A correction leaves those it does not reach among the holders; a release adds to the
reviewers, who keep what they refuse; what was withdrawn is held by nobody. Which notice another corrects or ends its
issuer signed; of which leaf that is the broker's word, which is held against it. An honest log costs a few looks for
each leaf; one that lies at every leaf is followed only so far, which is told.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.facts import indices
from broker.few import few
from broker.leaves import ONCE
from broker.members import INDEX_LIMIT
from broker.notice import RELEASED
from broker.verify import is_order, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.notice import Leaf, Reference
    from broker.recorded import Recorded

BUCKETS = 1 << 16
"""Parts of what is looked through for a notice's digest."""
LOOKS, LOOKS_A_LEAF = 100_000, 32
"""Decisions read again: in all, and for each leaf. Where leaves were lost an honest log may need some walks, too."""
Named = tuple[str, bytes, bytes]
"""Issuer, id and header digest of a notice. A reference whose id is another's than its digest names nothing."""


class Holders:
    """What the leaves so far say of who holds what; sixteen bytes for each notice, more for one that changes another.

    `leaf` reads a leaf, `find` what was decided in it, if anything. `has_lost`, to be set where the log is one that
    goes on from another: what a notice names may be among the leaves that were lost. `looks`: how many decisions may be
    read again for that, beside LOOKS_A_LEAF for each that is taken in.
    """

    def __init__(self, leaf: Callable[[int], Leaf], find: Callable[[int], Recorded | None], looks: int = LOOKS) -> None:
        self._leaf, self._read = leaf, find
        self.has_lost = False
        self._looks = looks
        self._taken_in: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))
        """Start of the digest and leaf of each notice, in turn; by a hash of which nobody can choose notices."""
        self._released: dict[int, dict[int, str]] = {}
        self._ended: set[int] = set()
        # By what its issuer signed: what is corrected, or was changed before it came.
        self._corrections: dict[Named, int] = {}
        self._early: dict[Named, int] = {}
        # So that no leaf costs a walk through all versions of its record.
        self._newest_of: dict[Named, int] = {}
        self._inherited: dict[int, int] = {}
        """Leaf of a correction → who held what it replaced, as a mask of places in `_met`."""
        self._replaced: set[int] = set()
        """Leaves from which something was inherited."""
        self._met: dict[tuple[int, str], int] = {}
        """Bureau index and name of whoever got anything → its bit in a mask: a lie about one row is nobody else's."""

    def goes_on(self) -> bool:
        """Say whether the next decision can be taken in: asked once for each, before `holding`.

        If not, what did not hold so far has led to so many walks that the cost would grow with the square of the log,
        or has named more than there can be bureaus.
        """
        self._looks += LOOKS_A_LEAF
        return self._looks > 0 and len(self._met) <= INDEX_LIMIT

    def _find(self, number: int) -> Recorded | None:
        """Read a decision again."""
        self._looks -= 1
        return self._read(number)

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
        digest = recorded.leaf.header_digest or b""
        self._taken_in[_bucket(digest)].extend((_short(digest), recorded.leaf_number))
        return wrong

    def holding(self, recorded: Recorded) -> int | None:
        """Count who holds what a correction corrects, by index; ask before `take`. None: it corrects nothing.

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
        return sum(1 << index for index in {index for index, _ in self._who(self._held(about))})

    def _release(self, release: Recorded) -> str:
        about = release.leaf.about
        if about is None:
            return ""  # told where the review is looked for
        again = about in self._released
        self._released.setdefault(about, {}).update(recipients(release))
        self._count_anew(about)
        return f"releases the notice of leaf {about} once more" if again else ""

    def _note(self, recorded: Recorded, subject: Reference) -> None:
        about, named = recorded.leaf.about, _named(subject)
        if subject.relation == "corrects":
            if about is not None:  # what was lost can come once more, and then stands
                if named in self._corrections:
                    self._newest_of.clear()
                self._corrections[named] = recorded.leaf_number
                self._inherit(recorded.leaf_number, about)
        elif subject.relation == "withdraws" and about is not None and about not in self._ended:
            self._ended.add(about)
            self._count_anew(about)
        if subject.relation == "withdraws" or (about is None and not self.has_lost):
            self._early.setdefault(named, recorded.leaf_number)

    # What a leaf says it is about

    def _late(self, recorded: Recorded) -> str:
        """Say whether a notice was taken in after what changes it, whose holders were worked out before it had any."""
        number = self._early.get(_own(recorded))
        change = self._find(number) if number is not None else None
        subject = _changed(change) if change else None
        return f"is taken in although leaf {number} had {_DONE[subject.relation]} it" if subject else ""

    def _again(self, subject: Reference) -> str:
        """Say whether a version is corrected once more: an order would follow only one of the two."""
        before = self._corrections.get(_named(subject)) if subject.relation == "corrects" else None
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
        found, passed = None, list[Named]()
        while (number := self._newest_of.get(named, self._corrections.get(named))) is not None and (
            each := self._find(number)
        ):
            passed.append(named)
            found, named = number, _own(each)
        if found is not None:
            self._newest_of |= dict.fromkeys(passed, found)
        return found

    def _first(self, named: Named) -> int | None:
        """Find the leaf under which a notice was taken in."""
        start, bucket = _short(named[2]), self._taken_in.get(_bucket(named[2]), ())
        for place in range(0, len(bucket), 2):
            if bucket[place] == start and self._takes_in(bucket[place + 1], named):
                return bucket[place + 1]
        return None

    def _takes_in(self, leaf_number: int, named: Named) -> bool:
        """Tell whether a leaf is the decision on this notice: its rejection or repetition has no holders."""
        decided = self._find(leaf_number)
        return decided is not None and decided.leaf.kind in ONCE and _own(decided) == named

    # Whom an end tells

    def _untold(self, end: Recorded, subject: Reference) -> str:
        """Say which holders an end does not tell, or whom it tells that is none.

        Of what another ends by order the issuer is told, too.
        """
        about = end.leaf.about
        if subject.relation == "corrects" or (about is not None and not 0 <= about < end.leaf_number):
            return ""
        told, order = recipients(end), is_order(end.header)
        held, reached = 0 if about is None else self._held(about), self._count(told)
        missed = [name for _, name in self._who(held & ~reached)]
        missed += [subject.issuer] if order and about is not None and subject.issuer not in told.values() else []
        if missed:
            return f"ends the notice of leaf {about} and does not tell {few(missed)}"
        others = [name for _, name in self._who(reached & ~held) if not (order and name == subject.issuer)]
        return f"ends a notice and tells {few(others)}, who did not hold it" if others else ""

    def _held(self, leaf_number: int) -> int:
        """Give the holders of a notice, those of the versions that it replaced included, as a mask.

        Without a walk through what was counted already.
        """
        mask = 0
        for number, each in self._versions(leaf_number):
            mask |= self._count(recipients(each) | self._released.get(number, {}))
            if number != leaf_number:
                self._replaced.add(number)
            if number in self._inherited:
                return mask | self._inherited[number]
        return mask

    def _inherit(self, leaf_number: int, about: int) -> None:
        """Keep who holds what a correction replaces."""
        if about < leaf_number:
            self._inherited[leaf_number] = self._held(about)
            self._replaced.add(about)

    def _count_anew(self, about: int) -> None:
        """Forget what was inherited where what was replaced is released or ended: an honest broker does neither."""
        if about in self._replaced:
            self._inherited.clear()

    def _count(self, names: dict[int, str]) -> int:
        """Give these as a mask."""
        mask = 0
        for each in names.items():
            mask |= 1 << self._met.setdefault(each, len(self._met))
        return mask

    def _who(self, mask: int) -> list[tuple[int, str]]:
        """Name those of a mask, by bureau index."""
        met = list(self._met) if mask else []
        return sorted(met[bit] for bit in indices(mask))

    def _versions(self, leaf_number: int) -> Iterator[tuple[int, Recorded]]:
        """Give a notice and the versions that it replaced, newest first, up to one that was withdrawn."""
        number: int | None = leaf_number
        while number is not None and number not in self._ended and (each := self._find(number)):
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


def _short(digest: bytes) -> int:
    """Give the first eight bytes of a digest."""
    return int.from_bytes(digest[:8], "big")


def _bucket(digest: bytes) -> int:
    """Give a part of all digests: Python's hash of bytes is another in each process."""
    return hash(digest) % BUCKETS
