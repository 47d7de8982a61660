"""Checks decision records against their leaves, and the decisions against policies that the auditor holds.

Streams: the records once, in order. Of a decision is recomputed all that the record says: the four terms, who received
it, what each was shown at most, and which rules were met; and that it could be taken in, changes what stands, and has
come about. Withdrawals and restrictions ask no rule. A policy set is the auditor's own copy: what was decided under
another is counted, by its digest, and never called good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from broker import codec
from broker.admissible import approves, inadmissible, names, no_version
from broker.begun import GAP
from broker.confirm import Given
from broker.decide import GLASS_BROKEN, SOURCE, Subscriptions, View, approval_terms, held_terms, sight_of, terms_of
from broker.errors import NoticeRejectedError, TrailError
from broker.few import few
from broker.holders import LOOKS, Holders
from broker.index import look_in, receipt_in
from broker.leaves import FOLLOWING, ONCE
from broker.notice import (
    APPROVAL,
    BEGUN,
    KINDS,
    NOT_RELEASED,
    ORDERED,
    REFUSE,
    RELEASE,
    RELEASED,
    TO_HOLDERS,
    DecisionRecord,
    Leaf,
    Look,
    Terms,
)
from broker.once import Once
from broker.recorded import Recorded, header_in, remember
from broker.rejections import REJECTED, NoticeCopy, Rejections
from broker.report import LISTED, Finding
from broker.route import rows_hold
from broker.seen import AHEAD_MS
from broker.signers import Signers
from broker.statements import REPEATED, STATED, Statements
from broker.verify import is_order, subject_of

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.rules import Rules, Verdict
    from broker.trail import Trail

PROGRESS_EVERY = 1000
HELD, ROUTED, RECEIPT = "held", "routed", "receipt"
DECIDED = ONCE | {RELEASED}
"""Kinds of leaf in which it was decided who gets a notice."""
UNRULED = TO_HOLDERS | {APPROVAL}
"""Kinds of notice for which no rule is asked: nothing holds them."""
ALL_OF_IT = frozenset(name for names in KINDS.values() for name in names)
"""Compartments that a notice may have beside its routing."""
SHOWN_TO_REVIEW = ALL_OF_IT - {SOURCE}
"""Compartments that a reviewer is shown."""
NOT_LAID = "the recipients in its decision record are not those whose rows it commits to"
NEVER_GIVEN = "said to hold what it corrects, and was never given it"
NOT_NAMED = "was given what it corrects, and is not said to hold it"
UNFOLLOWED = "who holds what is not followed from here on: too much before it does not hold"
WORD = {RELEASE: RELEASED, REFUSE: NOT_RELEASED}
"""What a reviewer says → the kind of leaf that follows."""
REFUSED, REPLACED, WITHDRAWN, RESTRICTED = "refused in review", "replaced", "withdrawn", "restricted"
BECOMES = {"corrects": REPLACED, "withdraws": WITHDRAWN, "restricts": RESTRICTED}
"""Relation of a notice → what becomes of the one that it names."""
OVER = frozenset({REFUSED, REPLACED, WITHDRAWN})
"""What has become of a notice that has ended."""
STATES = {REFUSED: "refused"}
"""What has become of a notice → the state that a repetition of it tells, where it is called otherwise there."""
RECORDED = ONCE | {REJECTED}
"""Kinds of leaf that a repetition is one of."""
BURNT = frozenset({"refused", WITHDRAWN})
"""States of what was rejected: withdrawn where its withdrawal had come before it, maybe under other header bytes."""
STANDS_NOT = {
    "approves": (REFUSED, REPLACED, WITHDRAWN),
    "corrects": (WITHDRAWN,),
    "restricts": (REFUSED, REPLACED, WITHDRAWN),
    "withdraws": (REPLACED,),
}
"""Relation of a notice → what must not have become of the one that it names; two corrections of one `Holders` finds."""
TERMS = {
    "allowed by policy": "allowed",
    "in the audience": "audience",
    "denied by the issuer": "denied",
    "addressed or subscribed": "reached",
}
"""What a finding calls each term of a decision."""


class Kept(Protocol):
    """Decision records by leaf number, as `Records` has them."""

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream (leaf number, salt, record) from `begin` on."""
        ...

    def get(self, leaf_number: int) -> tuple[bytes, bytes] | None:
        """Give (salt, record) of a leaf, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a decision was made on, compiled."""

    directory: Directory
    rules: Rules


@dataclass(frozen=True, slots=True)
class Sent:
    """A receipt that its bureau says it sent, or a notice of a series of which it was told nothing."""

    bureau: str
    number: int
    source: str
    series: bytes = b""
    """Of a notice; empty for a receipt."""
    statement: Callable[[int], bytes] | None = None
    """Gives the statement of a receipt by its number."""
    again: float = 0
    """When it was sent again, after later ones, by its sender's clock (ms); infinite: nobody knows; 0: it was not."""

    @property
    def what(self) -> str:
        """Name it."""
        return f"{'notice' if self.series else 'receipt'} {self.number} of {self.bureau}"


@dataclass(slots=True)
class Rechecked:
    """What checking came to; `findings` are at most `LISTED` of `wrong`."""

    records: int = 0
    decisions: int = 0
    others: dict[str, int] = field(default_factory=dict)
    """Decisions by policy sets that nobody named, by digest."""
    unsigned: dict[str, int] = field(default_factory=dict)
    """Statements, withdrawals and restrictions under such sets, by digest: whose signature they bear is known only with
    the policies."""
    no_key: int = 0
    """Notices of which no record says under which key they were signed: decided before that was recorded."""
    rejections: int = 0
    on_word: dict[str, int] = field(default_factory=dict)
    """Rejections of which nothing that was brought says whether they are true, by code."""
    receipts: int = 0
    waiting: int = 0
    """Receipts and notices that may still be on their way: no later one of that bureau or series is on record."""
    unfollowed: int = 0
    """Decisions of which it was not worked out who holds what: too much before them does not hold."""
    unfollowed_from: int | None = None
    """The leaf of the first of them; its finding may be beyond those that are listed."""
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
    looks: int = LOOKS,
    copies: Iterable[NoticeCopy] = (),
) -> Rechecked:
    """Check every record.

    `grounds` gives None for a policy set that nobody named. `sent`: receipts by the digest of the statement, and by
    header digest the notices of which their issuer was told nothing. `looks` is for `Holders`. `copies`: what issuers
    sent and were not told that it was taken in.
    """
    return _Recheck(trail, grounds, dict(sent), looks, copies).run(records, progress)


class _Recheck:
    """One pass over the records. Subscriptions are those of the leaves so far."""

    def __init__(
        self,
        trail: Trail,
        grounds: Callable[[Leaf], Grounds | None],
        sent: dict[bytes, Sent],
        looks: int,
        copies: Iterable[NoticeCopy],
    ) -> None:
        self._trail, self._grounds, self._sent = trail, grounds, sent
        self._found = Rechecked()
        self._kept: Kept | None = None
        self._statements = Statements()
        self._signers = Signers(self._statements.revoked)
        self._subscriptions: tuple[Directory | None, Subscriptions | None] = (None, None)
        self._newest: dict[tuple[str, bytes], tuple[int, int]] = {}
        """Bureau and series → the highest number, and when the last one came to the bus."""
        self._delivered: dict[str, int] = {}
        """The last delivery number of each bureau."""
        self._owed: tuple[int, str] | None = None
        """Leaf of a reviewer's or an authority's word, and the kind of leaf that has to follow it."""
        self._ids, self._numbers = Once(), Once()
        self._rejections = Rejections(self._statements, self._ids, self._numbers, self._given_in, copies)
        self._became: dict[int, str] = {}
        """Leaf of a notice → what became of it, if anything did since."""
        self._begun = -1
        """The leaf at which a log begins that goes on from one of which leaves were lost."""
        self._tells_holders = False
        """A decision so far said who holds what it corrects: from then on all that correct something do."""
        self._holders = Holders(lambda number: codec.decode(Leaf, trail.entry(number)), self._find, looks)

    def _find(self, number: int) -> Recorded | None:
        """Read a decision again; what is wrong with it is told at its own leaf."""
        kept = self._kept.get(number) if self._kept else None
        try:
            return remember(number, self._trail.entry(number), *kept) if kept else None
        except (IndexError, TrailError, NoticeRejectedError):  # records may go beyond the head
            return None

    def _given_in(self, number: int) -> Given | None:
        """Say who was given the notice of a leaf."""
        decided = self._find(number)
        if decided is None:
            return None
        bureaus = tuple(each.bureau for each in decided.record.rows)
        return Given(decided.header.member, decided.leaf.header_digest or b"", bureaus)

    def run(self, records: Kept, progress: Callable[[int, int], None]) -> Rechecked:
        """Go through all leaves."""
        self._kept = records
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
        self._follows("")
        self._sent_left()
        self._found.no_key = self._signers.not_told
        self._found.rejections, self._found.on_word = self._rejections.count, self._rejections.on_word
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
                self._event(number, codec.decode(Leaf, entry), codec.decode(DecisionRecord, record))
        except TrailError:
            self._found.add(f"leaf {number}", "its decision record is not the one that it commits to")
        except NoticeRejectedError as error:
            self._found.add(f"leaf {number}", f"its decision record cannot be read ({error.code})")

    def _event(self, number: int, leaf: Leaf, record: DecisionRecord) -> None:
        self._follows(leaf.kind)
        if leaf.kind == REJECTED:
            self._rejected(number, leaf, record)
        if not rows_hold(leaf, record):  # it has none, and names somebody
            self._found.add(f"leaf {number}", NOT_LAID)
        if leaf.kind in DECIDED:
            self._found.add(f"leaf {number}", f"is {leaf.kind}, and nothing is on record of who gets it")
        if leaf.kind == BEGUN:
            self._holders.has_lost, self._begun = True, number
        if leaf.kind == NOT_RELEASED:
            self._reviewed(number, leaf, REFUSE)
            self._became[-1 if leaf.about is None else leaf.about] = REFUSED
        if leaf.kind == ORDERED:
            self._ordered(number, leaf)
        if leaf.kind == REPEATED and not record.statement:
            self._repeated(number, leaf)
        if record.statement or leaf.kind in STATED:
            self._statement(number, leaf, record)
        else:
            self._key_of(number, leaf, record)
        if record.stream.startswith("receipts."):
            self._receipt(leaf, record)

    def _rejected(self, number: int, leaf: Leaf, record: DecisionRecord) -> None:
        """Check that what is rejected is what its code says, as far as that can be told."""
        self._sent.pop(leaf.header_digest or b"", None)
        grounds, kept = self._grounds(leaf), self._sent.get(record.record_digest)
        receipt = (kept.statement(kept.number), kept.source) if kept and kept.statement else None
        wrong = self._rejections.take(
            number, leaf, record, grounds.directory if grounds else None, receipt, has_lost=self._holders.has_lost
        )
        if wrong:
            self._found.add(f"leaf {number}", wrong)

    def _key_of(self, number: int, leaf: Leaf, record: DecisionRecord) -> None:
        """Check the key of what was rejected, came again, or ended without a release."""
        if leaf.kind in FOLLOWING:
            wrong = self._follows_signed(leaf, record)
        else:
            grounds = self._grounds(leaf)
            directory = grounds.directory if grounds else None
            wrong = self._signers.event(leaf, record, directory, has_lost=self._holders.has_lost)
        if wrong:
            self._found.add(f"leaf {number}", wrong)

    def _follows_signed(self, leaf: Leaf, record: DecisionRecord) -> str:
        """Say what is wrong with the key that a release or an end tells of its notice."""
        notice = self._find(-1 if leaf.about is None else leaf.about)
        grounds = self._grounds(notice.leaf) if notice else None
        return self._signers.follow(leaf, record, notice, grounds.directory if grounds else None)

    def _statement(self, number: int, leaf: Leaf, record: DecisionRecord) -> None:
        """Check what a bureau or an auditor said; whose signature it is, is known only with the policies."""
        if leaf.kind == "subscribed":
            self._subscriptions = (None, None)
        if (grounds := self._grounds(leaf)) is None:
            _count(self._found.unsigned, leaf)
        wrong = self._statements.take(leaf, record, grounds.directory if grounds else None)
        if leaf.kind == "look":
            wrong = wrong or self._looked(number, look_in(record))
        if wrong := wrong or _other_than_came(record):
            self._found.add(f"leaf {number}", wrong)

    def _looked(self, number: int, look: Look | None) -> str:
        """Say whether a look is at notices of another member than the one that is told of it, "" if not."""
        for each in look.leaves if look else ():
            kept = self._kept.get(each) if self._kept and 0 <= each < number else None
            header = header_in(codec.decode(DecisionRecord, kept[1])) if kept else None
            if look and (header is None or header.member != look.issuer_member):
                return f"looks at leaf {each}, which is no notice of {look.issuer_member}, who is told of it"
        return ""

    def _follows(self, kind: str) -> None:
        """Check that what a reviewer or an authority said comes about in the leaf right after it, of this kind."""
        if self._owed and self._owed[1] != kind:
            self._found.add(f"leaf {self._owed[0]}", f"is the word on which a notice is {self._owed[1]}, and none is")
        self._owed = None

    def _owes(self, recorded: Recorded) -> str:
        """Name the kind of leaf that has to follow a decision, "" if none: what is over already is ended by no order.

        Where leaves were lost the broker may have lost what an order ends, too.
        """
        about = recorded.leaf.about
        if recorded.header.kind == APPROVAL:
            return WORD.get(recorded.header.action_sought or "", "")
        if about is None or self._became.get(about) in OVER:
            return ""
        if not is_order(recorded.header) or self._holders.has_lost:
            return ""
        ended = self._find(about)
        return ORDERED if ended and ended.leaf.kind in ONCE and ended.header.kind not in UNRULED else ""

    def _ends(self, place: str, recorded: Recorded) -> None:
        """Check that a notice changes none that is over, and note what it ends: the rules of `judge`."""
        subject, about = subject_of(recorded.header), recorded.leaf.about
        if about is not None and recorded.leaf.kind == RELEASED:
            self._became[about] = ROUTED
        if subject is None or about is None or recorded.leaf.kind == RELEASED:
            return
        before, target = self._became.get(about, ""), self._find(about)
        if before in STANDS_NOT[subject.relation]:
            self._found.add(place, f"{subject.relation} the notice of leaf {about}, which was {before}")
        if target and names(subject, target) and (wrong := no_version(recorded.header, target.header, subject)):
            self._found.add(place, f"{subject.relation} the notice of leaf {about}, {wrong}")
        if subject.relation in BECOMES:
            self._became[about] = BECOMES[subject.relation]

    def _taken_in(self, recorded: Recorded, directory: Directory | None) -> str:
        """Say why a notice could not have been taken in, "" where nothing is against it."""
        rejected = self._rejections.take_in(recorded, has_lost=self._holders.has_lost)
        return rejected or inadmissible(recorded.header, recorded.leaf, directory) or self._used_before(recorded)

    def _used_before(self, recorded: Recorded) -> str:
        """Say whether its id or its number in its series is another's: under each an issuer says one thing."""
        header, routing, number = recorded.header, recorded.routing, recorded.leaf_number
        if (first := self._ids.before((header.issuer, header.notice_id), number)) is not None:
            return f"takes in a notice under the id of the one of leaf {first}"
        if (first := self._numbers.before((header.issuer, routing.series, routing.number), number)) is not None:
            return f"takes in a notice under the number of the one of leaf {first}"
        return ""

    def _repeated(self, number: int, leaf: Leaf) -> None:
        """Check that what is called a repetition came before, or its issuer would wait for ever, and tells its state.

        What became of it where leaves were lost, nobody knows.
        """
        self._sent.pop(leaf.header_digest or b"", None)
        about = -1 if leaf.about is None else leaf.about
        first = codec.decode(Leaf, self._trail.entry(about)) if 0 <= about < number else None
        if first is not None and first.kind in GAP:
            return
        of = leaf.header_digest
        if first is None or of is None or first.kind not in RECORDED or first.header_digest != of:
            self._found.add(f"leaf {number}", f"is called {REPEATED}, and no such notice is on record before it")
        elif about > self._begun and leaf.code not in (states := self._states(about, first)):
            told = f"says that the notice of leaf {about} is {leaf.code}, and it is {' or '.join(states)}"
            self._found.add(f"leaf {number}", told)

    def _states(self, about: int, first: Leaf) -> Sequence[str]:
        """Say in which state a notice may be. What changes others stands, whatever else names its leaf.

        (That is a second withdrawal of what had been withdrawn before it came.)
        """
        decided, became = self._find(about), self._became.get(about)
        if decided and decided.header.kind in UNRULED:
            return (ROUTED,)
        if became:
            return (STATES.get(became, became),)
        return sorted(BURNT) if first.kind == REJECTED else (first.kind,)

    def _reviewed(self, number: int, leaf: Leaf, verdict: str) -> None:
        """Check that a bureau which was given the held notice said so, in the leaf before, and reviewed still."""
        said, held = self._find(number - 1), self._find(-1 if leaf.about is None else leaf.about)
        given = {each.bureau for each in held.record.rows} if held and held.leaf.kind == HELD else set()
        if said is None or held is None or leaf.header_digest != held.leaf.header_digest:
            self._found.add(f"leaf {number}", "is the end of a review that is not on record")
        elif not approves(said, held, verdict) or said.header.issuer not in given:
            self._found.add(f"leaf {number}", f"is {leaf.kind}, and no bureau that was given it to review said so")
        elif (grounds := self._grounds(leaf)) and not grounds.directory.reviews(said.header.issuer):
            self._found.add(f"leaf {number}", f"is {leaf.kind}, and {said.header.issuer} was no reviewing bureau then")

    def _ordered(self, number: int, leaf: Leaf) -> None:
        """Check that the leaf before is an authority's withdrawal of this notice."""
        said, ended = self._find(number - 1), self._find(-1 if leaf.about is None else leaf.about)
        if said is None or ended is None or leaf.header_digest != ended.leaf.header_digest:
            self._found.add(f"leaf {number}", "is the end of a notice that is not on record")
        elif not is_order(said.header):
            self._found.add(f"leaf {number}", f"is {leaf.kind}, and nobody has ordered it")

    def _receipt(self, leaf: Leaf, record: DecisionRecord) -> None:
        """Note a receipt that is on record; in another leaf than these it reaches nobody, and nothing else says so."""
        told = leaf.kind == REJECTED or (leaf.kind in (RECEIPT, REPEATED) and record.statement != b"")
        if told and self._sent.pop(record.record_digest, None) is not None:
            self._found.receipts += 1
        if receipt := receipt_in(record):
            self._reached(receipt.bureau, b"", receipt.number, record)

    def _reached(self, bureau: str, series: bytes, number: int, record: DecisionRecord) -> None:
        highest, at = self._newest.get((bureau, series), (0, 0))
        came = record.at if record.stream else 0  # what was released came before
        self._newest[bureau, series] = (max(highest, number), max(at, came))

    def _sent_left(self) -> None:
        """Tell what was sent and is in no leaf, where a later one of the same bureau or series is on record.

        Of what was sent again out of turn, one that came long after that.
        """
        for each in self._sent.values():
            highest, at = self._newest.get((each.bureau, each.series), (0, 0))
            if each.number < highest and (not each.again or each.again + AHEAD_MS < at):
                self._found.add(each.what, f"{each.source} sent it, and no leaf records it")
            else:
                self._found.waiting += 1

    # Decisions

    def _decision(self, recorded: Recorded) -> None:
        place = f"leaf {recorded.leaf_number}"
        record = recorded.record
        self._sent.pop(recorded.leaf.header_digest or b"", None)
        self._reached(recorded.header.issuer, recorded.routing.series, recorded.routing.number, record)
        grounds = self._grounds(recorded.leaf)
        directory = grounds.directory if grounds else None
        self._follows(recorded.leaf.kind)
        if recorded.leaf.kind in ONCE and (owed := self._owes(recorded)):
            self._owed = (recorded.leaf_number, owed)
        self._ends(place, recorded)
        self._follow(place, recorded, directory)
        if recorded.leaf.kind == RELEASED:
            self._reviewed(recorded.leaf_number, recorded.leaf, RELEASE)
        self._given(place, recorded, directory)
        self._signed(place, recorded, directory)
        if recorded.leaf.kind in ONCE and (wrong := self._taken_in(recorded, directory)):
            self._found.add(place, wrong)
        if not rows_hold(recorded.leaf, record):
            self._found.add(place, NOT_LAID)
        if recorded.header.kind in TO_HOLDERS:
            self._compare(place, "receives", recorded.terms.receivers, _mask(recorded.shown))
            self._shown(place, recorded, dict.fromkeys(ALL_OF_IT, recorded.terms.receivers), directory)
            if grounds and is_order(recorded.header) and not grounds.directory.may_order(recorded.header.issuer):
                self._found.add(place, f"withdraws another's notice, and {recorded.header.issuer} is no authority")
            return
        if grounds is None:
            _count(self._found.others, recorded.leaf)
            return
        self._found.decisions += 1
        self._repeat(place, recorded, grounds)

    def _signed(self, place: str, recorded: Recorded, directory: Directory | None) -> None:
        """Check that its issuer signed it, under a key in force; what no rule was asked for is counted as unchecked."""
        leaf, record = recorded.leaf, recorded.record
        released = leaf.kind == RELEASED
        wrong = self._follows_signed(leaf, record) if released else self._signers.take(recorded, directory)
        if wrong:
            self._found.add(place, wrong)
        if directory is None and recorded.header.kind in TO_HOLDERS and record.signature is not None:
            _count(self._found.unsigned, leaf)

    def _follow(self, place: str, recorded: Recorded, directory: Directory | None) -> None:
        """Check who holds what it changes and is told; from where that would cost too much on nothing is said of it."""
        if self._found.unfollowed or not self._holders.goes_on():
            if not self._found.unfollowed:
                self._found.add(place, UNFOLLOWED)
                self._found.unfollowed_from = recorded.leaf_number
            self._found.unfollowed += 1
            return
        holding = self._holders.holding(recorded)
        if wrong := self._holders.take(recorded):
            self._found.add(place, wrong)
        self._held_by(place, recorded, holding, directory)

    def _given(self, place: str, recorded: Recorded, directory: Directory | None) -> None:
        """Check that each who is said to get it can: under a number not used before, at its own index.

        Else a bureau would see no gap where something was kept from it.
        """
        kind, of = recorded.leaf.kind, recorded.header.kind
        if kind not in DECIDED or (of in UNRULED and kind != ROUTED):
            self._found.add(place, f"is {kind}, and says who gets a {of}")
        for each in recorded.record.rows:
            before = self._delivered.get(each.bureau, 0)
            if each.delivery_number <= before:
                self._found.add(place, f"delivery {each.delivery_number} of {each.bureau} comes after its {before}")
            self._delivered[each.bureau] = max(before, each.delivery_number)
            if directory and not (each.index < len(directory.ids) and directory.ids[each.index] == each.bureau):
                self._found.add(place, f"{each.bureau} is not the bureau of index {each.index}")

    def _held_by(self, place: str, recorded: Recorded, counted: int | None, directory: Directory | None) -> None:
        """Compare who is said to hold what it corrects with who was given it; a record of before says nothing of it.

        Without a directory nobody can say who no longer takes part: then only holders too many are found.
        """
        said = recorded.record.holders
        if said is None and (counted is None or not self._tells_holders):
            return
        self._tells_holders = True
        given, said = counted or 0, said or 0
        if directory:
            given &= directory.everyone
        for mask, wrong in ((said & ~given, NEVER_GIVEN), (given & ~said if directory else 0, NOT_NAMED)):
            if mask:
                self._found.add(place, f"{_who(mask, directory)}: {wrong}")

    def _repeat(self, place: str, recorded: Recorded, grounds: Grounds) -> None:
        directory = grounds.directory
        if recorded.header.kind == APPROVAL:  # asks no rule, either
            found = approval_terms(recorded.header, directory)
            self._terms(place, recorded, found, directory)
            self._shown(place, recorded, dict.fromkeys(ALL_OF_IT, found.receivers), directory)
            return
        known = recorded.facts(directory, grounds.rules.annex)
        verdict = grounds.rules.judge(known)
        held = bool(verdict.review and not verdict.receive)
        if held != (recorded.leaf.kind == HELD):
            self._found.add(place, f"is {recorded.leaf.kind}, but by these policies {'held' if held else 'not held'}")
        view = View(directory, grounds.rules, self._subscribed(directory))
        found = (
            held_terms(recorded, known, directory, verdict)
            if held
            else terms_of(recorded, known, view, verdict.receive)
        )
        self._terms(place, recorded, found, directory)
        self._rules(place, recorded, verdict, directory)
        if (GLASS_BROKEN in recorded.record.warnings) != (known.derogation and not held):
            self._found.add(place, f"{GLASS_BROKEN}: its warnings and its routing do not say the same of it")
        see = (
            dict.fromkeys(SHOWN_TO_REVIEW, found.receivers)
            if held
            else sight_of(recorded, known, verdict.see, directory)
        )
        self._shown(place, recorded, see, directory)

    def _terms(self, place: str, recorded: Recorded, found: Terms, directory: Directory) -> None:
        for what, name in TERMS.items():
            self._compare(place, what, getattr(recorded.terms, name), getattr(found, name), directory)
        self._compare(place, "receives", _mask(recorded.shown), found.receivers, directory)

    def _subscribed(self, directory: Directory) -> Subscriptions:
        made_for, made = self._subscriptions
        if made is None or made_for is not directory:
            made = Subscriptions.of(directory, self._statements.patterns)
            self._subscriptions = (directory, made)
        return made

    def _rules(self, place: str, recorded: Recorded, verdict: Verdict, directory: Directory) -> None:
        met = {each.rule: each.bureaus for each in verdict.hits}
        for rule in sorted(met.keys() | recorded.hits.keys()):
            self._compare(place, f"rule {rule} is met", recorded.hits.get(rule, 0), met.get(rule, 0), directory)

    def _shown(
        self, place: str, recorded: Recorded, see: Mapping[str, int], directory: Directory | None = None
    ) -> None:
        """Compare what each was shown with what it may see: what one was shown is there for all who may see it.

        That something was kept from all of them, no record can say.
        """
        receivers = _mask(recorded.shown)
        for bit, each in enumerate(recorded.header.compartments):
            saw = sum(1 << index for index, shown in recorded.shown.items() if shown >> bit & 1)
            self._compare(place, f"sees {each.name}", saw, see.get(each.name, 0) & receivers if saw else 0, directory)

    def _compare(self, place: str, what: str, said: int, found: int, directory: Directory | None = None) -> None:
        for where, mask in (("on record, not by these policies", said & ~found), ("not on record", found & ~said)):
            if mask:
                self._found.add(place, f"{what}: {_who(mask, directory)}: {where}")


def _other_than_came(record: DecisionRecord) -> str:
    """Say whether a record holds another statement than what came: what did would be passed off as that."""
    came = sha256(record.statement).digest() == record.record_digest
    return "" if came else "holds another statement than what came"


def _count(by_set: dict[str, int], leaf: Leaf) -> None:
    digest = leaf.policies.hex()
    by_set[digest] = by_set.get(digest, 0) + 1


def _who(mask: int, directory: Directory | None) -> str:
    names = directory.bureaus_in(mask) if directory else ()
    return few(names) or f"{mask.bit_count()} bureaus"


def _mask(indices: Iterable[int]) -> int:
    return sum(1 << each for each in indices)
