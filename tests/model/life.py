"""The whole life of notices from DESIGN, USERS and docs/decisions.md alone: slow, plain, one delivery after another.

It counts single deliveries (which bureau was handed which number of which notice, and whether that still stands with
it) where the broker counts holders per notice. Who may receive and see what it asks the policies' oracle, which knows
nothing of our code either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tests.model.story import (
    RESULTS,
    Act,
    Ask,
    Change,
    Confirm,
    Federation,
    Key,
    Line,
    Numbers,
    Outcome,
    Publish,
    Restart,
    Revoke,
    Sent,
    Subscribe,
)
from tests.policy.oracle import Answer, Oracle, member

FOLLOWING = ("withdrawal", "restriction", "approval")
"""Kinds that are no version of their record: nothing corrects, withdraws or restricts them."""
NOT_IN_FORCE = ("withdrawn", "refused")


@dataclass
class Known:
    """What is on record of a notice. `sent` None: only its withdrawal came; `accepted` False: it was rejected."""

    digest: bytes
    state: str
    leaf: int
    record: str
    version: int = 0
    sent: Sent | None = None
    accepted: bool = True
    corrects: Key | None = None
    replaced_by: Key | None = None
    reviewers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Handed:
    """One delivery that stands with a bureau."""

    bureau: str
    number: int
    notice: Key


@dataclass(frozen=True)
class Given:
    """What a leaf says of a notice: whose it is, and the bureaus that were handed it."""

    issuer: str
    digest: bytes
    bureaus: frozenset[str]


class Life:
    """What is due after each act. `oracle`: who may receive and see what."""

    oracle: type[Oracle] = Oracle

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.patterns: dict[str, tuple[str, ...]] = {}
        self.revoked: dict[tuple[str, int], bool] = {}
        self.known: dict[Key, Known] = {}
        self.handed: list[Handed] = []
        self.numbers = Counter[str]()
        self.burnt: dict[str, set[int]] = {}
        self.given: dict[int, Given] = {}
        self.confirmed: set[tuple[str, int]] = set()
        self.looks: set[bytes] = set()
        self.leaves = 0
        self.now = 0

    def take(self, act: Act, at: int) -> tuple[Outcome, ...]:
        """Let an act happen; give the leaves that are due."""
        self.now, due = at, tuple[Outcome, ...]()
        match act:
            case Publish():
                due = self.publish(act.notice)
            case Subscribe():
                due = (self.subscribe(act),)
            case Revoke():
                due = (self.revoke(act),)
            case Confirm():
                due = (self.confirm(act),)
            case Ask():
                due = (self.ask(act),)
            case Change():
                self.federation = act.federation
            case Restart():
                pass  # §3.10: nothing is lost
        self.leaves += len(due)
        return due

    # ---- statements --------------------------------------------------------------------------------------------------

    def subscribe(self, act: Subscribe) -> Outcome:
        if wrong := self.may_not_sign(act.bureau, act.generation):
            return rejected(act.bureau, wrong)
        self.patterns[act.bureau] = act.patterns
        return Outcome("subscribed", (member(act.bureau),))

    def revoke(self, act: Revoke) -> Outcome:
        """USERS, operator 7: everybody is told."""
        if wrong := self.may_not_sign(act.bureau, act.generation + 1):
            return rejected(act.bureau, wrong)
        self.revoked[act.bureau, act.generation] = act.compromised
        return Outcome("revoked", tuple(sorted({member(each) for each in self.federation.world.bureaus})))

    def may_not_sign(self, bureau: str, generation: int) -> set[str]:
        """DESIGN §6: a key is in force if no revocation stands at a lower leaf; a suspended member sends nothing."""
        return said(
            ("key-revoked", (bureau, generation) in self.revoked),
            (
                "key-not-in-force",
                any(self.now >= end for *key, end in self.federation.ends if key == [bureau, generation]),
            ),
            ("unknown-member", not self.takes_part(bureau)),
        )

    def confirm(self, act: Confirm) -> Outcome:
        """THREATS: a bureau speaks of what it was given, whatever became of that since; its issuer is told."""
        wrong = self.may_not_sign(act.bureau, act.generation)
        wrong |= said(("invalid-field", act.number < 1 or act.result not in RESULTS.get(act.act, ())))
        if wrong:
            return rejected(act.bureau, wrong)
        if (act.bureau, act.number) in self.confirmed:
            return Outcome("repeated", ())
        for item in act.items:
            given = self.given.get(item.leaf)
            if given != Given(act.issuer, item.digest, given.bureaus | {act.bureau} if given else frozenset()):
                return rejected(act.bureau, {"unknown-delivery"})
        self.confirmed.add((act.bureau, act.number))
        about = act.items[0].leaf if len(act.items) == 1 else None
        return Outcome("receipt", (act.issuer,), frozenset([act.act]), about)

    def ask(self, act: Ask) -> Outcome:
        """§8: every look is a leaf; the member whose notices they are is told."""
        if act.id in self.looks:
            return Outcome("repeated", ())
        if any(each not in self.given or self.given[each].issuer != act.issuer for each in act.leaves):
            return replace(rejected(act.by, {"unknown-delivery"}), tell=())
        self.looks.add(act.id)
        return Outcome("look", (act.issuer,), about=act.leaves[0] if len(act.leaves) == 1 else None)

    def takes_part(self, bureau: str) -> bool:
        return member(bureau) not in self.federation.world.suspended

    # ---- what is rejected --------------------------------------------------------------------------------------------

    def publish(self, sent: Sent) -> tuple[Outcome, ...]:
        if wrong := self.may_not_sign(sent.issuer, sent.generation):
            return (rejected(sent.issuer, wrong),)  # §3.5: a copy whose signature fails burns nothing
        known = self.known.get(sent.key)
        if known and known.sent and known.digest == sent.digest:
            return (Outcome("repeated", (member(sent.issuer),), frozenset([known.state]), known.leaf),)
        wrong = self.wrong_in_itself(sent) | self.wrong_beside(sent, known)
        hushed = not wrong and sent.kind == "approval" and not self.was_given(sent)
        if hushed or self.wrong_subject(sent) or (not wrong and self.wrong_approval(sent)):
            wrong.add("invalid-reference")
        if wrong:
            self.burn(sent, known)
            return (replace(rejected(sent.issuer, wrong), hushed=hushed),)
        return self.accept(sent)

    def wrong_in_itself(self, sent: Sent) -> set[str]:
        subject, notice = sent.subject, sent.written
        another = subject is not None and subject.issuer != sent.issuer
        order = sent.kind == "withdrawal" and sent.issuer in self.federation.authorities
        return said(
            ("already-expired", self.is_over(sent) and sent.kind != "withdrawal"),  # §3.8: which arrives, however late
            ("invalid-reference", another and sent.kind != "approval" and not order),  # §3.8: issuer, or an authority
            ("empty-audience", sent.kind not in FOLLOWING and self.denies_all(sent)),
            ("invalid-field", bool(notice.grants) and "H2" not in notice.handling),  # rule 4
        )

    def is_over(self, sent: Sent) -> bool:
        return sent.expires is not None and sent.expires <= self.now

    def denies_all(self, sent: Sent) -> bool:
        """Rule 1: a restriction that empties the audience refuses to publish."""
        world, notice = self.federation.world, sent.written
        circles = {**world.agreements, **world.suspended_agreements}
        inside = {each for name in notice.agreements for each in circles[name]}
        meant = [
            each
            for each in world.bureaus
            if self.takes_part(each) and (notice.everyone or {each, member(each)} & {*notice.to, *inside})
        ]
        denied = {*notice.deny, sent.issuer}
        return bool(notice.deny and meant) and all({each, member(each)} & denied for each in meant)

    def wrong_beside(self, sent: Sent, known: Known | None) -> set[str]:
        """DESIGN §3.5, §5, §7: an id means one notice for ever, a number is used once, a withdrawal may come first."""
        return said(
            ("id-reused", known is not None and known.digest != sent.digest),
            ("already-withdrawn", known is not None and known.digest == sent.digest),
            ("number-reused", sent.number in self.burnt.get(sent.issuer, ())),
        )

    def wrong_subject(self, sent: Sent) -> bool:
        """Tell whether it speaks of what it may not, or names it wrongly (DESIGN §5, docs/decisions.md)."""
        subject = sent.subject
        if subject is None:
            return False
        relation, target = subject.relation, self.known.get((subject.issuer, subject.notice_id))
        if relation == "approves":
            return not target or target.digest != subject.header_digest or target.state != "held"
        order = relation == "withdraws" and subject.issuer != sent.issuer
        if target is None:  # §5: only its withdrawal may come before a notice, and an order names what is on record
            return relation != "withdraws" or order
        if target.digest != subject.header_digest or target.record not in ("", sent.record):
            return True
        if order:  # it ends the version that stands, whichever it names
            target = self.known[self.newest((subject.issuer, subject.notice_id))]
        nobodys = target.sent is not None and not target.accepted
        ends = target.sent is not None and target.accepted and target.sent.kind in FOLLOWING
        return (
            target.state == "replaced"
            or (ends and target.state in ("routed", "restricted"))
            or (relation == "corrects" and (target.state == "withdrawn" or sent.version <= target.version))
            or (relation == "restricts" and target.state in NOT_IN_FORCE)
            # The version before what was rejected outright stands with its holders, and is to be named instead.
            or (nobodys and target.state == "refused" and (is_later(target) or relation == "withdraws"))
        )

    def was_given(self, sent: Sent) -> bool:
        """Promise 9, rule 8: who was not given a notice to review learns nothing by approving it."""
        subject = sent.subject
        target = self.known.get((subject.issuer, subject.notice_id)) if subject else None
        return target is not None and sent.issuer in target.reviewers

    def wrong_approval(self, sent: Sent) -> bool:
        """Rule 8: a bureau that reviews still; what is released is signed by one who may still send it."""
        if sent.kind != "approval" or sent.subject is None:
            return False
        held = self.known[sent.subject.issuer, sent.subject.notice_id].sent
        assert held is not None
        may_send = self.takes_part(held.issuer) and not self.revoked.get((held.issuer, held.generation))
        return (
            sent.issuer not in self.federation.world.reviewers
            or self.is_over(held)
            or (sent.verdict == "release" and not may_send)
        )

    def burn(self, sent: Sent, known: Known | None) -> None:
        """DESIGN §3.5, §7: a rejected notice that its issuer signed burns its id and its number."""
        if known and known.sent:
            return
        state = "withdrawn" if known else "refused"
        self.known[sent.key] = Known(
            sent.digest, state, self.leaves, sent.record, sent.version, sent, accepted=False
        )  # fmt: skip
        self.burnt.setdefault(sent.issuer, set()).add(sent.number)

    # ---- what is accepted --------------------------------------------------------------------------------------------

    def accept(self, sent: Sent) -> tuple[Outcome, ...]:
        self.burnt.setdefault(sent.issuer, set()).add(sent.number)
        about = self.meant_by(sent)
        target = self.known.get(about) if about else None
        kept = Known(sent.digest, "routed", self.leaves, sent.record, sent.version, sent)
        self.known[sent.key] = kept
        if sent.kind == "approval" and about and target:
            return self.approve(sent, about, target)
        holders = self.holding(about) if about else {}
        answer = self.decide(sent, holders)
        if sent.kind in FOLLOWING and about:
            return self.follow(sent, self.also_its_issuer(sent, answer), about, target)
        if answer.held:
            kept.state, kept.reviewers = "held", frozenset(answer.shown)
        if target and about:
            kept.corrects, target.state, target.replaced_by = about, "replaced", sent.key
        return (self.leaf(kept.state, sent, answer, target),)

    def meant_by(self, sent: Sent) -> Key | None:
        """What it changes; of what is withdrawn by order the version that stands."""
        subject = sent.subject
        if subject is None:
            return None
        key = subject.issuer, subject.notice_id
        return self.newest(key) if sent.kind == "withdrawal" and subject.issuer != sent.issuer else key

    def newest(self, key: Key) -> Key:
        while newer := self.known[key].replaced_by:
            key = newer
        return key

    def decide(self, sent: Sent, holders: Mapping[str, Numbers], given: Mapping[str, Numbers] | None = None) -> Answer:
        """Ask the oracle. `given`: this is a release, and those were only given the notice to review it."""
        notice = sent.written.model_copy(update={"released": given is not None})
        world, patterns = self.federation.world, self.patterns
        return self.oracle(
            world, notice, patterns, sent.present, self.now, holders=holders, given=given or {}
        ).answer()  # fmt: skip

    def also_its_issuer(self, sent: Sent, answer: Answer) -> Answer:
        """USERS rule 9: that state's own notice is withdrawn by order, so it learns of it."""
        owner = sent.subject.issuer if sent.subject else sent.issuer
        if owner == sent.issuer:
            return answer
        return replace(answer, shown={owner: sent.present, **answer.shown}, warnings=frozenset())

    def follow(self, sent: Sent, answer: Answer, about: Key, target: Known | None) -> tuple[Outcome, ...]:
        """Restrict or end a notice (DESIGN §3.8, §5); who ends another's tells it in a leaf of its own."""
        in_force = target is not None and target.accepted and target.state not in NOT_IN_FORCE
        leaf = self.leaf("routed", sent, answer, target)
        if sent.kind == "withdrawal":
            self.withdraw(sent, about)
        elif target:
            target.state = "restricted"
        if about[0] == sent.issuer or not in_force or target is None:
            return (leaf,)
        self.given[self.leaves + 1] = Given(member(about[0]), target.digest, frozenset())
        return (leaf, Outcome("withdrawn-by-order", (member(about[0]),), about=target.leaf))

    def withdraw(self, sent: Sent, about: Key) -> None:
        assert sent.subject is not None
        first = Known(sent.subject.header_digest, "withdrawn", self.leaves, sent.record)
        self.known.setdefault(about, first).state = "withdrawn"
        line = set(self.line(about))
        self.handed = [each for each in self.handed if each.notice not in line]

    def approve(self, sent: Sent, about: Key, target: Known) -> tuple[Outcome, ...]:
        """Rule 8: the issuer is told; what is released is decided anew at this `now` (decisions), else it has ended."""
        told = {about[0]: sent.present} if self.takes_part(about[0]) else {}
        answer = Answer(held=False, shown=told, warnings=frozenset([] if told else ["reached-nobody"]))
        first, owner, held = self.leaf("routed", sent, answer, target), (member(about[0]),), target.sent
        if sent.verdict == "refuse" or held is None:
            target.state = "refused"
            self.given[self.leaves + 1] = Given(member(about[0]), target.digest, frozenset())
            return (first, Outcome("not-released", owner, about=target.leaf))
        older = self.holding(target.corrects) if target.corrects else {}
        every = self.holding(about)
        holders = {each: numbers for each, numbers in every.items() if each in older}
        given = {each: numbers for each, numbers in every.items() if each not in older}
        target.state = "routed"
        answer = self.decide(held, holders, given)
        return (first, replace(self.leaf("released", held, answer, target), warnings=answer.warnings))

    # ---- deliveries --------------------------------------------------------------------------------------------------

    def line(self, key: Key | None) -> Iterator[Key]:
        """A notice and all that it replaced."""
        while key is not None:
            yield key
            key = self.known[key].corrects if key in self.known else None

    def holding(self, key: Key) -> dict[str, Numbers]:
        """Bureau → the numbers that stand with it of a notice and all before it."""
        line, found = set(self.line(key)), dict[str, Numbers]()
        for each in self.handed:
            if each.notice in line:
                found[each.bureau] = (*found.get(each.bureau, ()), each.number)
        return found

    def leaf(self, kind: str, sent: Sent, answer: Answer, about: Known | None) -> Outcome:
        """Hand out what was decided: numbers count per bureau (§7), what is replaced or erased stands no longer."""
        lines = {}
        for bureau, shown in answer.shown.items():
            self.numbers[bureau] += 1
            replaces, erases = (tuple(sorted(each.get(bureau, ()))) for each in (answer.replaces, answer.erases))
            opened = frozenset[str]() if self.is_over(sent) else shown  # §6: checked again when distributing
            lines[bureau] = Line(self.numbers[bureau], opened, replaces, erases)
            gone = {*replaces, *erases}
            self.handed = [each for each in self.handed if each.bureau != bureau or each.number not in gone]
            self.handed.append(Handed(bureau, self.numbers[bureau], sent.key))
        number = self.leaves + (kind == "released")
        self.given[number] = Given(member(sent.issuer), sent.digest, frozenset(lines))
        used = self.burnt[sent.issuer]
        gap = {"series-gap"} if len(used) < max(used) else set()  # §7: a gap is accepted and alarms the issuer
        warnings = answer.warnings | gap
        return Outcome(kind, (member(sent.issuer),), frozenset(), about.leaf if about else None, warnings, lines)


def is_later(known: Known) -> bool:
    """Tell whether it is no first version, whatever it calls itself."""
    return known.version > 1 or (known.sent is not None and known.sent.subject is not None)


def rejected(bureau: str, codes: set[str]) -> Outcome:
    return Outcome("rejected", (member(bureau),), frozenset(codes))


def said(*found: tuple[str, bool]) -> set[str]:
    return {code for code, so in found if so}
