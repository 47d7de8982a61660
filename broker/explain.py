"""Says for every bureau whether it receives a notice: by which term and rule, on which facts, and what would change it.

`receivers = allowed by policy & in the audience & not denied & reached` (addressed, subscribed, a flash, or it holds
what is corrected): each term that is not met is an obstacle of its own, so that nobody mends one and finds the next. Of
what the rules hold it says who reviews it, and what each other bureau will meet once it is released. Only the issuer
and auditors may read this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from broker.decide import (
    SOURCE,
    Spoken,
    View,
    audience_of,
    held_terms,
    sight_of,
    terms_of,
    unruled,
)
from broker.directory import NO_ANNEX
from broker.facts import Facts, facts_of, indices
from broker.notice import APPROVAL, KINDS, ROUTING, TO_HOLDERS, Decision, Holder, Terms
from broker.rules import RECEIVE, REVIEW, SEE
from broker.wording import Say, Wording, attributes_of

if TYPE_CHECKING:
    from broker.directory import Annex, Bureau, Directory
    from broker.recorded import Recorded
    from broker.rules import Read, Rule

POLICY, AUDIENCE, DENY, REACH, ISSUER, SUSPENDED = "policy", "audience", "deny", "reach", "issuer", "suspended"
"""The terms that can stand in the way, as `Obstacle.term` names them."""
RECEIVES, IF_SUBSCRIBED = "receives", "if-subscribed"
HELD = "held"
NOT_GRANTED = "not-granted"
CLEARED = ("principal", "cleared_for")
SUPERVISED = ("notice", "supervised")
"""What a rule asks that only the annex can answer."""
AUDIENCE_ONLY, DENIED_ONLY = (frozenset({("notice", name)}) for name in ("audience", "denied"))
"""What a rule asks that repeats a term of the issuer's."""


class Obstacle(NamedTuple):  # as `Account` no dataclass: a thousand are made for one notice, at a third of the cost
    """One thing in the way. `change`: what would have to be otherwise for this term to be met."""

    term: str
    code: str
    sentence: str
    facts: tuple[str, ...]
    change: str


class Account(NamedTuple):
    """What one bureau gets of a notice, and why; `code` is `receives` or that of the first obstacle."""

    bureau: str
    receives: bool
    code: str
    sentence: str
    rules: tuple[str, ...]
    """Ids of the rules that decided: the forbids that were met, else the permits."""
    facts: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]
    shown: tuple[str, ...]
    withheld: Mapping[str, tuple[str, ...]]
    """Compartment → ids of the rules that withhold it; `no-permit` where none permits it, `not-granted` where the
    issuer's grants to it do not name it."""
    doubts: tuple[str, ...]
    """What this party may not know and could change the answer."""
    held: bool = False
    """The rules hold the notice: who receives it reviews it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """All that an explanation rests on.

    `hits`: rule → bureaus for which it is met. `present`: mask of compartments that carry something, None where that
    is not on record. `shown`: index → mask, None where nothing was delivered yet. `annex` None: not known here.
    """

    notice: Spoken
    known: Facts
    terms: Terms
    hits: Mapping[str, int]
    present: int | None
    shown: Mapping[int, int] | None
    directory: Directory
    annex: Annex | None
    rules: Sequence[Read]
    subscriptions_known: bool = True
    doubtful: int = 0
    reviewers: int | None = None
    """Of what is held: who gets it to review it. Its `terms` are then those that will count once it is released."""


def of_record(recorded: Recorded, directory: Directory, annex: Annex | None, rules: Sequence[Read]) -> Ground:
    """Explain what was decided, from the decision record; directory, annex and rules are those that the leaf names."""
    known = recorded.facts(directory, annex or NO_ANNEX)
    held = recorded.leaf.kind == HELD
    return Ground(
        notice=recorded,
        known=known,
        # Of what is held no reach is on record: it is worked out when it is released.
        terms=Terms(0, audience_of(recorded, known, directory), known.denied, ~0) if held else recorded.terms,
        hits=recorded.hits,
        present=None,
        shown=recorded.shown,
        directory=directory,
        annex=annex,
        rules=rules,
        reviewers=recorded.terms.receivers if held else None,
    )


def of_prospect(
    notice: Spoken, present: int, view: View, rules: Sequence[Read], now: int, annex: Annex | None, holders: int = 0
) -> Ground:
    """Explain what would be decided now, from what this party knows. `holders`: who holds what it corrects or ends."""
    if decided := unruled(notice.header, present, view.directory, [Holder(each, ()) for each in indices(holders)]):
        return _unruled(notice, present, decided, view, now, annex)
    known = facts_of(notice.header, notice.routing, view.directory, view.rules.annex, now, holders=holders)
    verdict = view.rules.judge(known)
    held = bool(verdict.review and not verdict.receive)
    return Ground(
        notice=notice,
        known=known,
        terms=terms_of(notice, known, view, verdict.receive),
        hits={each.rule: each.bureaus for each in verdict.hits},
        present=present,
        shown=None,
        directory=view.directory,
        annex=annex,
        rules=rules,
        subscriptions_known=view.subscriptions.known,
        doubtful=_doubtful(known, view),
        reviewers=held_terms(notice, known, view.directory, verdict).receivers if held else None,
    )


def _unruled(notice: Spoken, present: int, decided: Decision, view: View, now: int, annex: Annex | None) -> Ground:
    """Explain a notice for which no rule was asked."""
    return Ground(
        notice=notice,
        known=facts_of(notice.header, notice.routing, view.directory, view.rules.annex, now),
        terms=decided.terms,
        hits={},
        present=present,
        shown={each.index: each.shown for each in decided.recipients},
        directory=view.directory,
        annex=annex,
        rules=(),
    )


def accounts(ground: Ground) -> tuple[Account, ...]:
    """Tell of every bureau of the directory, by index."""
    telling = _Telling(ground)
    return tuple(telling.account(each) for each in ground.directory.by_index if each is not None)


def _doubtful(known: Facts, view: View) -> int:
    """Give the bureaus for which an annex that this party may not know could change the answer."""
    mask, verdict = 0, view.rules.judge(known)
    for extreme in view.rules.extremes:
        other = extreme.judge(known)
        mask |= verdict.receive ^ other.receive
        for name, bureaus in verdict.see.items():
            mask |= bureaus ^ other.see[name]
    return mask


class _Telling:
    """Tells of one notice."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._terms, self._known = ground, ground.terms, ground.known
        self._directory = ground.directory
        self._wording = Wording(
            ground.notice.header, ground.notice.routing, ground.known, ground.directory, ground.annex
        )
        # Of the rules only those count that are met for anybody, each with the bureaus for which it is.
        self._met_by: dict[tuple[str, str], list[tuple[int, Read]]] = {}
        for each in ground.rules:
            if mask := ground.hits.get(each.rule.id, 0):
                for action in each.actions:
                    self._met_by.setdefault((each.rule.effect, action), []).append((mask, each))
        self._any = {key: _either(mask for mask, _ in met) for key, met in self._met_by.items()}
        self._forbidding = self._met_by.get(("forbid", RECEIVE), [])
        self._permitted = self._any.get(("permit", RECEIVE), 0)
        # Where a rule only repeats a term of the issuer's that is told already.
        own = {AUDIENCE_ONLY: ~ground.known.audience, DENIED_ONLY: ground.terms.denied}
        self._barring = [
            (mask & ~own.get(attributes_of(each.condition), 0), each.rule, *self._told(each))
            for mask, each in self._forbidding
        ]
        permitted = {name: self._seeing(name) for name in KINDS.get(ground.notice.header.kind, ())}
        self._sight = sight_of(ground.notice, ground.known, permitted, ground.directory)
        self._topics = ", ".join(ground.notice.header.topics) or "no topic"
        self._topics_said = (f"its topics: {self._topics}",)

    def _told(self, read: Read) -> tuple[Callable[[Bureau], tuple[str, ...]], Callable[[Bureau], str]]:
        """Give what says of a rule on which facts it was met for a bureau, and what would have to change."""
        return self._wording.saying(read.condition), self._wording.changing(read.condition, _changing(read.rule))

    def _speaking(self, effect: str) -> list[Read]:
        """List the rules on receiving, met or not."""
        return [each for each in self._ground.rules if each.rule.effect == effect and RECEIVE in each.actions]

    def _seeing(self, name: str) -> int:
        permitted, forbidden = (self._any.get((effect, SEE[name]), 0) for effect in ("permit", "forbid"))
        return permitted & ~forbidden

    def account(self, bureau: Bureau) -> Account:
        bit = 1 << bureau.index
        receives = self._receives(bureau)
        obstacles = () if receives else self._obstacles(bureau, bit)
        deciding = self._deciding(bit, reviews=receives and self._held)
        rules = tuple([each.rule.id for each in deciding])
        if obstacles:
            first = obstacles[0]
            doubts = tuple(self._doubts(bit, first)) if self._doubtful or first.code == IF_SUBSCRIBED else ()
            return Account(
                bureau.id,
                receives,
                first.code,
                first.sentence,
                rules,
                first.facts,
                obstacles,
                (),
                {},
                doubts,
                self._held,
            )
        return Account(
            bureau=bureau.id,
            receives=receives,
            code=RECEIVES,
            sentence=self._reason(bureau, deciding),
            rules=rules,
            facts=self._why_facts(bureau, deciding),
            obstacles=obstacles,
            shown=self._shown(bureau) if receives else (),
            withheld=dict(self._withheld(bureau, bit)) if receives else {},
            doubts=tuple(self._doubts(bit, None)),
            held=self._held,
        )

    @cached_property
    def _held(self) -> bool:
        return self._ground.reviewers is not None

    def _deciding(self, bit: int, *, reviews: bool) -> list[Read]:
        if reviews:
            return self._met(bit, "permit", REVIEW)
        return [each for mask, each in self._forbidding if mask & bit] or self._met(bit, "permit", RECEIVE)

    # Receiving

    def _receives(self, bureau: Bureau) -> bool:
        if self._ground.shown is not None:
            return bureau.index in self._ground.shown
        receivers = self._terms.receivers if self._ground.reviewers is None else self._ground.reviewers
        return bool(receivers >> bureau.index & 1)

    def _met(self, bit: int, effect: str, action: str) -> list[Read]:
        return [each for mask, each in self._met_by.get((effect, action), ()) if mask & bit]

    def _reason(self, bureau: Bureau, deciding: list[Read]) -> str:
        if self._ground.notice.header.kind == APPROVAL:
            return "It is told what a reviewing bureau said of its notice."
        if self._held:
            return " ".join([each.rule.sentence for each in deciding] + ["It is a reviewing bureau."])
        said = deciding[0].rule.sentence if deciding else "it held what this notice ends"
        return f"{said} {self._wording.reach(bureau)}".strip()

    def _why_facts(self, bureau: Bureau, deciding: list[Read]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(said for each in deciding for said in self._wording.facts(each.condition, bureau)))

    # In the way

    def _obstacles(self, bureau: Bureau, bit: int) -> tuple[Obstacle, ...]:
        """Give what is in the way: the issuer's own terms, then the rules, then the want of a subscription."""
        if not self._directory.everyone & bit:
            change = f"the directory would have to make {bureau.member} active again"
            return (Obstacle(SUSPENDED, "suspended", f"{bureau.member} is suspended", (), change),)
        if bureau.id == self._ground.notice.header.issuer:
            return (Obstacle(ISSUER, "issuer", "issued it", (), "nothing: no bureau receives its own notice"),)
        if found := _NO_RULE.get(self._ground.notice.header.kind):
            return (found,)
        obstacles = [*self._own_review(bureau)] if self._held else []
        if self._terms.denied & bit or not self._known.audience & bit:
            obstacles += self._own_terms(bureau, bit)
        if not self._terms.allowed & bit:
            obstacles += self._policy(bureau, bit)
        if not self._terms.audience & self._terms.reached & bit:
            obstacles += self._rest(bureau, bit)
        return tuple(obstacles)

    def _own_terms(self, bureau: Bureau, bit: int) -> Iterator[Obstacle]:
        if self._terms.denied & bit:
            named = self._wording.named_in(self._ground.notice.routing.deny, bureau)
            yield Obstacle(
                DENY, "denied-by-you", "is on the issuer's deny list", (f"the issuer denied {named}",),
                f"the issuer would have to take {named} off its deny list",
            )  # fmt: skip
        if not self._known.audience & bit:
            yield Obstacle(
                AUDIENCE, "not-in-audience", "is not in the issuer's audience", (self._wording.audience,),
                f"the issuer would have to address {bureau.id} or {bureau.member}{self._wording.circles(bureau)}",
            )  # fmt: skip

    def _own_review(self, bureau: Bureau) -> Iterator[Obstacle]:
        """Say of a reviewing bureau that its member sent what is held."""
        member = self._ground.notice.header.member
        if bureau.member == member and self._directory.reviewers >> bureau.index & 1:
            yield Obstacle(
                ISSUER, "own-member", "reviews nothing that its own member sent", (f"{member} sent it",),
                "a reviewing bureau of another member would have to release it",
            )  # fmt: skip

    def _policy(self, bureau: Bureau, bit: int) -> list[Obstacle]:
        found = [
            Obstacle(POLICY, rule.id, rule.sentence, facts(bureau), change(bureau))
            for mask, rule, facts, change in self._barring
            if mask & bit
        ]
        if not self._permitted & bit:
            found.append(self._no_permit(bureau))
        return found

    def _no_permit(self, bureau: Bureau) -> Obstacle:
        if not self._permits:
            return Obstacle(POLICY, "no-permit", "no rule permits it", (), "a rule would have to permit it")
        code, sentence, last = self._first_permit
        changes = dict.fromkeys([one for _, mending in self._permits for one in mending(bureau)])
        facts = dict.fromkeys([one for saying, _ in self._permits for one in saying(bureau)])
        change = f"{' or '.join(changes)}, or {last}" if changes else last
        return Obstacle(POLICY, code, sentence, tuple(facts), change)

    @cached_property
    def _permits(self) -> list[tuple[Say, Say]]:
        found, told = self._speaking("permit"), self._wording
        return [(told.saying(each.condition), told.mending(each.condition)) for each in found]

    @cached_property
    def _first_permit(self) -> tuple[str, str, str]:
        rule = self._speaking("permit")[0].rule
        return rule.id, f"no rule permits it: {rule.sentence}", _changing(rule)

    def _rest(self, bureau: Bureau, bit: int) -> Iterator[Obstacle]:
        if self._known.audience & bit and not self._terms.audience & bit:
            yield Obstacle(
                AUDIENCE, "not-in-audience", "is in the audience only by an agreement that is suspended",
                (self._wording.audience,),
                f"the agreement would have to be in force again, or the issuer would have to address {bureau.id}",
            )  # fmt: skip
        if self._terms.reached & bit:
            return
        topics = self._topics
        if self._ground.subscriptions_known:
            yield Obstacle(
                REACH, "no-subscription", "is not addressed and has not subscribed to any of the topics",
                self._topics_said,
                f"{bureau.id} would have to subscribe to one of the topics ({topics}), or the issuer address it",
            )  # fmt: skip
        else:
            yield Obstacle(
                REACH, IF_SUBSCRIBED, "receives it if it has subscribed to one of the topics",
                self._topics_said, f"{bureau.id} receives it once it has subscribed, or if you address it",
            )  # fmt: skip

    def _doubts(self, bit: int, first: Obstacle | None) -> Iterator[str]:
        if first and first.code == IF_SUBSCRIBED:
            yield "you cannot know to which topics it has subscribed"
        if self._terms.audience & ~self._terms.denied & bit & self._ground.doubtful:
            yield f"the annex, which you may not know, could still change it (rule {self._clearing})"
        unruled = self._ground.notice.header.kind in _NO_RULE
        if self._ground.annex is None and self._directory.annex is not None and not (first or self._held or unruled):
            ids = self._supervising
            if ids:
                yield f"if the annex has its sender under supervision, a reviewing bureau gets it first (rule {ids})"

    @cached_property
    def _doubtful(self) -> bool:
        """Whether the annex could make any difference here."""
        return bool(self._ground.doubtful) or self._ground.annex is None

    @cached_property
    def _clearing(self) -> str:
        return _asking(CLEARED, self._ground.rules)

    @cached_property
    def _supervising(self) -> str:
        return _asking(SUPERVISED, self._speaking("forbid"))

    # Seeing

    def _names(self) -> tuple[str, ...]:
        return (ROUTING, *KINDS.get(self._ground.notice.header.kind, ()))

    def _shown(self, bureau: Bureau) -> tuple[str, ...]:
        if self._ground.shown is not None:
            shown = self._ground.shown.get(bureau.index, 0)
            return tuple(name for place, name in enumerate(self._names()) if shown >> place & 1)
        if self._held:
            return tuple(name for name in self._carried if name != SOURCE)
        bit = 1 << bureau.index
        return tuple([name for name in self._carried if self._sight[name] & bit])

    @cached_property
    def _carried(self) -> tuple[str, ...]:
        present = self._ground.present
        return tuple(
            name for place, name in enumerate(self._names()) if place and (present is None or present >> place & 1)
        )

    def _withheld(self, bureau: Bureau, bit: int) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Name what the rules withhold, carried or not where that is not on record."""
        if self._held:
            yield from ((name, (HELD,)) for name in self._carried if name == SOURCE)
            return
        shown = self._shown(bureau)
        for name in self._carried if self._terms.allowed & bit else ():
            if name in shown:
                continue
            forbids = tuple(each.rule.id for each in self._met(bit, "forbid", SEE[name]))
            if forbids or not self._met(bit, "permit", SEE[name]):
                yield name, forbids or ("no-permit",)
            elif not self._sight[name] & bit:
                yield name, (NOT_GRANTED,)


_NO_RULE = {
    **dict.fromkeys(
        TO_HOLDERS,
        Obstacle(
            AUDIENCE, "no-holder", "holds nothing that this notice ends", (),
            "nothing: it goes to those who hold what it ends, whatever the policy says",
        ),
    ),
    APPROVAL: Obstacle(
        AUDIENCE, "not-reviewed", "it is not its notice that was reviewed", (),
        "nothing: it goes to the bureau whose notice was reviewed",
    ),
}  # fmt: skip
"""What is in the way where no rule is asked, by kind."""


def _asking(fact: tuple[str, str], rules: Iterable[Read]) -> str:
    """Name the rules that ask about a fact."""
    return ", ".join(each.rule.id for each in rules if fact in attributes_of(each.condition))


def _either(masks: Iterable[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found


def _changing(rule: Rule) -> str:
    """Say who could change a rule."""
    return f"{rule.owner} would have to change rule {rule.id} ({rule.file}:{rule.line})"
