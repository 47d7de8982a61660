"""One step in the making: leaf numbers, delivery numbers, rows, root.

Everything that a step writes is collected here and committed as one transaction: entries of the trail, the head they
complete, what goes out, what changes in the register.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from broker import by_hand, codec, streams
from broker.bus import Writes
from broker.confirm import Given
from broker.judge import OWN_LEAF, Ruling
from broker.merkle import Frontier, leaf_hash, rows_depth
from broker.notice import (
    NOT_RELEASED,
    ORDERED,
    DecisionRecord,
    Entry,
    Head,
    Header,
    Holder,
    Leaf,
    Outcome,
    Standing,
    Terms,
)
from broker.route import NOBODY, Laid, Lines, Route, delivery_key, ended_by, kept, lay
from broker.signing import decision_digest

if TYPE_CHECKING:
    from broker.bus import Record
    from broker.register import Register

Random = Callable[[int], bytes]
"""Gives that many random bytes."""
DRAWN = 128
"""Salts and seeds drawn at once."""
ANY_BUREAU = "next/"
"""The register's entry of the first number of bureaus that have none: there is one where leaves were lost (`begin`)."""


@dataclass(frozen=True, slots=True)
class InForce:
    """Digests of the versions in force, as every leaf carries them, and the highest bureau index."""

    directory: bytes
    policies: bytes
    highest_index: int


@dataclass(frozen=True, slots=True)
class Done:
    """A step that is ready to commit."""

    taken: Sequence[Record]
    entries: Sequence[Entry]
    routes: Sequence[Route]
    head: Head
    changes: dict[str, bytes | None]
    given: Sequence[tuple[int, Given]]
    writes: Writes

    def forget_writes(self) -> None:
        """Let go of what is committed, which nobody needs while the step waits to be sealed."""
        self.changes.clear()
        self.writes.records.clear()


@dataclass(slots=True)
class Step:
    """Collects what one step writes; `frontier` and `numbers` go on from the step before."""

    register: Register
    frontier: Frontier
    random: Random
    in_force: InForce
    now: int
    entries: list[Entry] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    taken: list[Record] = field(default_factory=list)
    next_numbers: dict[str, int] = field(default_factory=dict)
    given: list[tuple[int, Given]] = field(default_factory=list)
    drawn: list[bytes] = field(default_factory=list)

    def apply(self, record: Record | None, ruling: Ruling, now: int) -> int:
        """Take a ruling into the step; return its leaf number. `record` None: a leaf without a record (a start)."""
        number, digest = self.frontier.size, sha256((record.value if record else None) or b"").digest()
        lines = self._number(ruling)
        laid, seed = self._lay(ruling, lines)
        decision = by_hand.encode_decision(_decision_record(record, digest, ruling, (laid, seed), now), lines.records)
        salt = self._fresh()
        leaf = codec.encode(self._leaf(ruling, laid, decision_digest(salt, decision), now))
        self.frontier.add(leaf_hash(leaf))
        self.now = now
        self.entries.append(Entry(number, leaf, salt, decision))
        self._change(ruling, lines, number)
        if ruling.tell or lines.recipients:
            self.routes.append(_route(digest, ruling, lines, laid, self.entries[-1]))
        if lines.recipients:
            self._give(ruling, lines, number)
        if record is not None:
            self.taken.append(record)
        return number

    def _fresh(self) -> bytes:
        """Give 32 random bytes: drawn by the hundred, since each draw gives up the interpreter lock."""
        if not self.drawn:
            pool = self.random(32 * DRAWN)
            self.drawn = [pool[begin : begin + 32] for begin in range(0, len(pool), 32)]
        return self.drawn.pop()

    def _number(self, ruling: Ruling) -> Lines:
        """Give every recipient the next delivery number of its bureau."""
        if ruling.decision is None:
            return NOBODY
        recipients, following = ruling.decision.recipients, self.next_numbers
        numbers = []
        for each in recipients:
            number = following.get(each.bureau) or self._first_number(each.bureau)
            following[each.bureau] = number + 1
            numbers.append(number)
        return Lines.of(recipients, tuple(numbers))

    def _first_number(self, bureau: str) -> int:
        """Tell from which number on this step counts the deliveries of a bureau."""
        kept = self.register.get(f"next/{bureau}") or self.register.get(ANY_BUREAU)
        return int.from_bytes(kept, "big") if kept else 1

    def _give(self, ruling: Ruling, lines: Lines, number: int) -> None:
        if ruling.verified and ruling.header_digest:
            bureaus = _shared(tuple([each.bureau for each in lines.recipients]))
            self.given.append((number, Given(ruling.verified.header.member, ruling.header_digest, bureaus)))

    def _lay(self, ruling: Ruling, lines: Lines) -> tuple[Laid | None, bytes]:
        if ruling.decision is None:
            return None, b""
        seed = self._fresh()
        return lay(lines, seed, rows_depth(self.in_force.highest_index)), seed

    def _leaf(self, ruling: Ruling, laid: Laid | None, decision: bytes, now: int) -> Leaf:
        return Leaf(
            kind=ruling.kind,
            now=now,
            code=ruling.code,
            header_digest=ruling.header_digest,
            about=ruling.about,
            missing=min(ruling.missing_count, 2**31 - 1),
            directory=self.in_force.directory,
            policies=self.in_force.policies,
            decision=decision,
            rows=laid.root if laid else None,
        )

    def _change(self, ruling: Ruling, lines: Lines, number: int) -> None:
        for key, standing in ruling.standings:
            self._put_standing(key, standing, number, [])
        for key, series in ruling.series:
            self.register.put_series(key, series)
        for key, value in ruling.entries.items():
            self.register.put(key, value)
        if ruling.own:
            key, standing = ruling.own
            holders = lines.holders
            if ruling.inherited and ruling.kind == "held":
                standing, holders = replace(standing, holders=_with(ruling.inherited, lines)), []
            elif ruling.inherited:
                standing = replace(standing, holders=ruling.inherited)
            self._put_standing(key, standing, number, holders)

    def _put_standing(self, key: str, standing: Standing, number: int, holders: list[bytes]) -> None:
        leaf_number = number if standing.leaf_number == OWN_LEAF else standing.leaf_number
        self.register.put(key, by_hand.encode_standing(standing, leaf_number, holders))

    def done(self) -> Done:
        """Close the step: the head that its leaves complete, and everything to write, in order."""
        head = Head(self.frontier.size, self.frontier.root(), self.now)
        for bureau, number in self.next_numbers.items():
            self.register.put(f"next/{bureau}", number.to_bytes(8, "big"))
        changes = self.register.end_step()
        writes = Writes()
        for route in self.routes:
            writes.add(streams.ROUTED, delivery_key(route.leaf_number), codec.encode(kept(route)))
        for entry in self.entries:
            writes.add(streams.TRAIL, b"entry", codec.encode(entry))
        writes.add(streams.TRAIL, b"head", codec.encode(head))
        for key, value in changes.items():
            writes.add(streams.REGISTER, key.encode(), value)
        return Done(self.taken, self.entries, self.routes, head, changes, self.given, writes)


def _with(inherited: Sequence[Holder], lines: Lines) -> tuple[Holder, ...]:
    """Add what is given to reviewers to what holders have already: a reviewer may be one of them."""
    numbers = {each.index: each.numbers for each in inherited}
    for each, number in zip(lines.recipients, lines.numbers, strict=True):
        numbers[each.index] = (*numbers.get(each.index, ()), number)
    return tuple(Holder(index, each) for index, each in sorted(numbers.items()))


@lru_cache(maxsize=256)
def _shared(bureaus: tuple[str, ...]) -> tuple[str, ...]:
    """Give one value for all that are equal: most notices go to the same bureaus, and thousands are remembered."""
    return bureaus


def _decision_record(
    record: Record | None, digest: bytes, ruling: Ruling, tree: tuple[Laid | None, bytes], now: int
) -> DecisionRecord:
    """Say what was decided and on what, without its rows, which are encoded already."""
    decision, (laid, seed) = ruling.decision, tree
    return DecisionRecord(
        stream=record.stream if record else "",
        partition=record.partition if record else 0,
        offset=record.offset if record else 0,
        at=record.at if record else now,
        record_digest=digest,
        header=ruling.header,
        routing=ruling.routing,
        statement=ruling.statement,
        seed=seed,
        depth=laid.tree.depth if laid else 0,
        rules=decision.hits if decision else (),
        terms=decision.terms if decision else Terms(0, 0, 0, 0),
        warnings=ruling.warnings,
        detail=ruling.detail,
        holders=decision.holders if decision else None,
        key_id=ruling.key_id,
        signature=ruling.signature,
    )


def _route(digest: bytes, ruling: Ruling, lines: Lines, laid: Laid | None, entry: Entry) -> Route:
    verified = ruling.verified if lines.recipients else None
    return Route(
        leaf_number=entry.leaf_number,
        leaf=entry.leaf,
        decision_salt=entry.decision_salt,
        decision=entry.decision,
        lines=lines,
        laid=laid if lines.recipients else None,
        envelope=verified.envelope if verified else None,
        compartments=verified.compartments if verified else (),
        expires=verified.header.shown_until if verified else None,
        tell=ruling.tell,
        outcome=_outcome(digest, ruling, entry) if ruling.tell else None,
        key=delivery_key(entry.leaf_number) if verified else b"",
        ends=ended_by(ruling.kind, _ending(ruling)),
    )


def _ending(ruling: Ruling) -> Header | None:
    """Give the header of a notice that may end another, or that somebody else's word has ended."""
    if ruling.kind in (NOT_RELEASED, ORDERED):
        return codec.decode(Header, ruling.header)
    return ruling.verified.header if ruling.verified else None


def _outcome(digest: bytes, ruling: Ruling, entry: Entry) -> Outcome:
    """Say what a member learns; the decision record only where the record was its own."""
    own = ruling.kind != "receipt"
    return Outcome(
        kind=ruling.kind,
        code=ruling.code,
        detail=ruling.detail,
        notice_id=ruling.notice_id,
        issuer=ruling.issuer,
        record_digest=digest,
        original=ruling.about if ruling.kind == "repeated" else None,
        missing=ruling.missing,
        warnings=ruling.warnings,
        statement=ruling.statement,
        decision_salt=entry.decision_salt if own else b"",
        decision=entry.decision if own else b"",
        leaf_number=entry.leaf_number,
        leaf=entry.leaf,
        proof="",
    )
