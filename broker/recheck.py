"""Checks decision records against their leaves, and the decisions against policies that the auditor holds.

Streams: the records once, in order. Of a decision is recomputed all that the record says: the four terms, who received
it, what each was shown at most, and which rules were met. Withdrawals and restrictions ask no rule. A policy set is the
auditor's own copy: what was decided under another is counted, by its digest, and never called good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from broker import codec
from broker.decide import TO_HOLDERS, Subscriptions, audience_of
from broker.errors import NoticeRejectedError, TrailError
from broker.examine import Finding
from broker.facts import facts_of
from broker.index import receipt_in
from broker.notice import SUBSCRIPTION_TYPE, DecisionRecord, Leaf, Statement, Subscription
from broker.recorded import Recorded, remember
from broker.route import Lines, lay

if TYPE_CHECKING:
    from broker.members import Directory
    from broker.rules import Rules, Verdict
    from broker.trail import Trail

LISTED = 100
"""Findings that are told in full; the others are counted."""
PROGRESS_EVERY = 1000


class Kept(Protocol):
    """Decision records by leaf number, as `Records` has them."""

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream (leaf number, salt, record) from `begin` on."""
        ...


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a decision was made on, compiled."""

    directory: Directory
    rules: Rules


@dataclass(frozen=True, slots=True)
class Sent:
    """A receipt that its bureau says it sent."""

    bureau: str
    number: int
    source: str


@dataclass(slots=True)
class Rechecked:
    """What checking came to; `findings` are at most `LISTED` of `wrong`."""

    records: int = 0
    decisions: int = 0
    others: dict[str, int] = field(default_factory=dict)
    """Decisions by policy sets that nobody named, by digest."""
    receipts: int = 0
    waiting: int = 0
    """Receipts that may still be on their way: no later one of that bureau is on record."""
    wrong: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, place: str, what: str) -> None:
        """Note something that does not hold."""
        self.wrong += 1
        if len(self.findings) < LISTED:
            self.findings.append(Finding(place, what))


def recheck(
    trail: Trail,
    records: Kept,
    grounds: Callable[[Leaf], Grounds | None],
    sent: Mapping[bytes, Sent],
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Rechecked:
    """Check every record. `grounds` gives None for a policy set that nobody named; `sent`: receipts by digest."""
    return _Recheck(trail, grounds, dict(sent)).run(records, progress)


class _Recheck:
    """One pass over the records. Subscriptions are those of the leaves so far."""

    def __init__(self, trail: Trail, grounds: Callable[[Leaf], Grounds | None], sent: dict[bytes, Sent]) -> None:
        self._trail, self._grounds, self._sent = trail, grounds, sent
        self._found = Rechecked()
        self._patterns: dict[str, tuple[str, ...]] = {}
        self._subscriptions: tuple[Directory | None, Subscriptions | None] = (None, None)
        self._newest: dict[str, int] = {}

    def run(self, records: Kept, progress: Callable[[int, int], None]) -> Rechecked:
        """Go through all leaves."""
        size, number = self._trail.size, 0
        for at, salt, record in records.since(0):
            if at >= size:
                break
            self._missing(number, at)
            number = at + 1
            self._record(at, salt, record)
            if at % PROGRESS_EVERY == 0:
                progress(at, size)
        self._missing(number, size)
        self._receipts_left()
        return self._found

    def _missing(self, begin: int, end: int) -> None:
        if begin < end:
            self._found.add(f"leaf {begin}", f"its decision record is missing, and {end - begin - 1} more after it")

    def _record(self, number: int, salt: bytes, record: bytes) -> None:
        self._found.records += 1
        entry = self._trail.entry(number)
        try:
            recorded = remember(number, entry, salt, record)
            if recorded:
                self._decision(recorded)
            else:
                self._event(codec.decode(Leaf, entry), codec.decode(DecisionRecord, record))
        except TrailError:
            self._found.add(f"leaf {number}", "its decision record is not the one that it commits to")
        except NoticeRejectedError as error:
            self._found.add(f"leaf {number}", f"its decision record cannot be read ({error.code})")

    def _event(self, leaf: Leaf, record: DecisionRecord) -> None:
        if leaf.kind == "subscribed":
            statement = codec.decode(Statement, record.statement)
            if statement.payload_type == SUBSCRIPTION_TYPE:
                said = codec.decode(Subscription, statement.payload)
                self._patterns[said.bureau] = said.patterns
                self._subscriptions = (None, None)
        if record.stream.startswith("receipts."):
            self._receipt(record)

    def _receipt(self, record: DecisionRecord) -> None:
        if self._sent.pop(record.record_digest, None):
            self._found.receipts += 1
        if receipt := receipt_in(record):
            self._newest[receipt.bureau] = max(self._newest.get(receipt.bureau, 0), receipt.number)

    def _receipts_left(self) -> None:
        """Tell receipts that were sent and are in no leaf, where a later one of the same bureau is on record."""
        for each in self._sent.values():
            if each.number < self._newest.get(each.bureau, 0):
                self._found.add(
                    f"receipt {each.number} of {each.bureau}", f"{each.source} sent it, and no leaf records it"
                )
            else:
                self._found.waiting += 1

    # Decisions

    def _decision(self, recorded: Recorded) -> None:
        place = f"leaf {recorded.leaf_number}"
        record = recorded.record
        if lay(Lines.numbered(record.rows), record.seed, record.depth).root != recorded.leaf.rows:
            self._found.add(place, "the recipients in its decision record are not those whose rows it commits to")
        if recorded.header.kind in TO_HOLDERS:
            self._compare(place, "receives", recorded.terms.receivers, _mask(recorded.shown))
            return
        grounds = self._grounds(recorded.leaf)
        if grounds is None:
            digest = recorded.leaf.policies.hex()
            self._found.others[digest] = self._found.others.get(digest, 0) + 1
            return
        self._found.decisions += 1
        self._repeat(place, recorded, grounds)

    def _repeat(self, place: str, recorded: Recorded, grounds: Grounds) -> None:
        directory, header, terms = grounds.directory, recorded.header, recorded.terms
        known = facts_of(header, recorded.routing, directory, recorded.leaf.now)
        verdict = grounds.rules.judge(known)
        own = directory.bureau_mask((header.issuer,))
        flash = directory.everyone if header.urgency == "flash" else 0
        audience = audience_of(recorded, known, directory) & ~own
        reached = known.addressed | self._subscribed(directory).mask(header.topics) | flash
        receivers = verdict.receive & audience & ~known.denied & reached
        for what, said, found in (
            ("allowed by policy", terms.allowed, verdict.receive),
            ("in the audience", terms.audience, audience),
            ("denied by the issuer", terms.denied, known.denied),
            ("addressed or subscribed", terms.reached, reached),
            ("receives", _mask(recorded.shown), receivers),
        ):
            self._compare(place, what, said, found, directory)
        self._rules(place, recorded, verdict, directory)
        self._shown(place, recorded, verdict, directory)

    def _subscribed(self, directory: Directory) -> Subscriptions:
        made_for, made = self._subscriptions
        if made is None or made_for is not directory:
            made = Subscriptions.of(directory, self._patterns)
            self._subscriptions = (directory, made)
        return made

    def _rules(self, place: str, recorded: Recorded, verdict: Verdict, directory: Directory) -> None:
        met = {each.rule: each.bureaus for each in verdict.hits}
        for rule in sorted(met.keys() | recorded.hits.keys()):
            self._compare(place, f"rule {rule} is met", recorded.hits.get(rule, 0), met.get(rule, 0), directory)

    def _shown(self, place: str, recorded: Recorded, verdict: Verdict, directory: Directory) -> None:
        """Compare what each was shown with what it may see; that nothing was kept from it, no record can say."""
        names = [each.name for each in recorded.header.compartments]
        for bit, name in enumerate(names):
            saw = sum(1 << index for index, shown in recorded.shown.items() if shown >> bit & 1)
            self._compare(place, f"sees {name}", saw, saw & verdict.see.get(name, 0), directory)

    def _compare(self, place: str, what: str, said: int, found: int, directory: Directory | None = None) -> None:
        for where, mask in (("on record, not by these policies", said & ~found), ("not on record", found & ~said)):
            if mask:
                names = directory.bureaus_in(mask) if directory else ()
                who = ", ".join(names[:5]) or f"{mask.bit_count()} bureaus"
                self._found.add(place, f"{what}: {who}: {where}")


def _mask(indices: Iterable[int]) -> int:
    return sum(1 << each for each in indices)
