"""Repeats a decision from its record with Cedar itself, at the `now` of its leaf, and says what differs.

Nothing of the compiled form is used: audience, deny list and reach are computed from the signed bytes, what the rules
say by cedarpy, bureau by bureau. What is compared is all that the record says: whether it was held, the four terms, who
received it, what each was shown, and which rules said so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from broker.decide import SOURCE, Subscriptions, approval_terms, audience_of, held_terms, sight_of
from broker.directory import NO_ANNEX
from broker.facts import Facts
from broker.notice import APPROVAL, KINDS, ROUTING, TO_HOLDERS, Terms
from broker.rules import RECEIVE, REVIEW, SEE, PolicySet, Reference, Verdict, read_rules

if TYPE_CHECKING:
    from broker.directory import Annex, Bureau, Directory
    from broker.likeness import Answer
    from broker.recorded import Recorded

BY_POLICY, BY_REVIEW, BY_HOLDERS, BY_REVIEWED = "by-policy", "by-review", "by-holders", "by-reviewed"
"""What decided: the four terms; rules that hold it for a review; who held what the notice ends; whose was reviewed."""
HELD = "held"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that came out otherwise: for which bureau, of what, on record and now."""

    bureau: str
    what: str
    recorded: str
    repeated: str


@dataclass(frozen=True, slots=True)
class Repetition:
    """A decision that was repeated; `asked`: how many requests Cedar answered."""

    how: str
    asked: int
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether it gave the same answer."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the leaf names, and which topics bureaus had subscribed to by then (bureau → patterns)."""

    directory: Directory
    annex: Annex
    policies: PolicySet
    patterns: Mapping[str, tuple[str, ...]]


def redecide(recorded: Recorded, grounds: Grounds) -> Repetition:
    """Repeat a decision. A withdrawal or restriction asks no rule: it is held against its own terms only.

    An approval or refusal asks none, either: it goes to the bureau whose notice was reviewed.
    """
    again = _Again(recorded, grounds)
    if recorded.header.kind in TO_HOLDERS:
        return Repetition(BY_HOLDERS, 0, tuple(again.holders()))
    if recorded.header.kind == APPROVAL:
        return Repetition(BY_REVIEWED, 0, tuple(again.approval()))
    if again.held:
        return Repetition(BY_REVIEW, again.asked, (*again.state(), *again.review(), *again.rules(), *again.reviewed()))
    return Repetition(BY_POLICY, again.asked, (*again.state(), *again.terms(), *again.rules(), *again.seen()))


class _Again:
    """One decision, decided again."""

    def __init__(self, recorded: Recorded, grounds: Grounds) -> None:
        self._recorded, self._grounds, self._directory = recorded, grounds, grounds.directory
        self._known: Facts = recorded.facts(grounds.directory, grounds.annex or NO_ANNEX)
        self._effects = {each.rule.id: each.rule.effect for each in read_rules(grounds.policies)}

    @cached_property
    def _bureaus(self) -> tuple[Bureau, ...]:
        """Bureaus of suspended members are no principals: nobody asks for them, and they get nothing."""
        listed = (each for each in self._directory.by_index if each is not None)
        return tuple(each for each in listed if self._directory.is_active(each.member))

    @cached_property
    def _actions(self) -> tuple[str, ...]:
        return (RECEIVE, REVIEW, *(SEE[name] for name in KINDS.get(self._recorded.header.kind, ())))

    @property
    def asked(self) -> int:
        """How many requests there are."""
        return len(self._bureaus) * len(self._actions)

    @cached_property
    def _answers(self) -> dict[tuple[str, str], Answer]:
        grounds = self._grounds
        cedar = Reference(grounds.policies, grounds.directory, grounds.annex)
        asked = [(bureau.id, action) for bureau in self._bureaus for action in self._actions]
        return dict(zip(asked, cedar.answers(self._known, asked), strict=True))

    def _mask(self, action: str) -> int:
        return sum(1 << each.index for each in self._bureaus if self._answers[each.id, action].allowed)

    # Held or not

    @cached_property
    def held(self) -> bool:
        """Whether the rules hold it: somebody may review it, and nobody may receive it."""
        return bool(self._mask(REVIEW)) and not self._mask(RECEIVE)

    def state(self) -> Iterator[Difference]:
        """Compare whether it was held."""
        before = self._recorded.leaf.kind == HELD
        if before != self.held:
            yield Difference(self._recorded.header.issuer, "is held for review", _yes(before), _yes(self.held))

    # The four terms

    def terms(self) -> Iterator[Difference]:
        """Compare the terms and who received it."""
        known, header = self._known, self._recorded.header
        own = self._directory.bureau_mask((header.issuer,))
        flash = self._directory.everyone if header.urgency == "flash" else 0
        subscribed = Subscriptions.of(self._directory, self._grounds.patterns).mask(header.topics)
        audience = audience_of(self._recorded, known, self._directory) & ~own
        reached = known.addressed | subscribed | flash | known.holders
        yield from self._of_terms(Terms(self._mask(RECEIVE), audience, known.denied, reached))

    def review(self) -> Iterator[Difference]:
        """Compare the terms of what is held, and which reviewing bureaus got it."""
        verdict = Verdict(0, {}, (), self._mask(REVIEW))
        yield from self._of_terms(held_terms(self._recorded, self._known, self._directory, verdict))

    def approval(self) -> Iterator[Difference]:
        """Compare the terms of what a reviewing bureau said with whom it reached."""
        yield from self._of_terms(approval_terms(self._recorded.header, self._directory))

    def _of_terms(self, found: Terms) -> Iterator[Difference]:
        recorded = self._recorded.terms
        for what, before, now in (
            ("allowed by policy", recorded.allowed, found.allowed),
            ("in the audience", recorded.audience, found.audience),
            ("denied by the issuer", recorded.denied, found.denied),
            ("addressed or subscribed", recorded.reached, found.reached),
            ("receives", self._received(), found.receivers),
        ):
            yield from self._differing(what, before, now)

    def _received(self) -> int:
        return sum(1 << index for index in self._recorded.shown)

    def _differing(self, what: str, before: int, now: int) -> Iterator[Difference]:
        for index in range((before ^ now).bit_length()):
            if (before ^ now) >> index & 1:
                yes = before >> index & 1
                yield Difference(self._name(index), what, "yes" if yes else "no", "no" if yes else "yes")

    def _name(self, index: int) -> str:
        listed = self._directory.by_index
        bureau = listed[index] if index < len(listed) else None
        return bureau.id if bureau else f"bureau {index}"

    # The rules

    def rules(self) -> Iterator[Difference]:
        """Compare which rules were met: all that Cedar names are on record, and it names every forbid on record."""
        named: dict[str, int] = {}
        for (bureau, _), answer in self._answers.items():
            for rule in answer.rules:
                named[rule] = named.get(rule, 0) | 1 << self._directory.bureaus[bureau].index
        hits = self._recorded.hits
        for rule in sorted(named.keys() | hits.keys()):
            before, now = hits.get(rule, 0), named.get(rule, 0)
            # Cedar names no permit that a forbid has beaten.
            exact = self._effects.get(rule) != "permit"
            yield from self._differing(f"rule {rule} is met", before if exact else before & now, now)

    # What was shown

    def seen(self) -> Iterator[Difference]:
        """Compare what each was shown: permitted, granted and carried. Carried is what anybody at all was shown."""
        names = KINDS.get(self._recorded.header.kind, ())
        permitted = {name: self._mask(SEE[name]) for name in names}
        see = sight_of(self._recorded, self._known, permitted, self._directory)
        yield from self._seeing(lambda index, name: bool(see[name] >> index & 1))

    def reviewed(self) -> Iterator[Difference]:
        """Compare what each reviewing bureau was shown: all that is carried but its sources."""
        yield from self._seeing(lambda _, name: name != SOURCE)

    def _seeing(self, may_see: Callable[[int, str], bool]) -> Iterator[Difference]:
        shown, names = self._recorded.shown, (ROUTING, *KINDS.get(self._recorded.header.kind, ()))
        carried = 0
        for mask in shown.values():
            carried |= mask
        for index, mask in sorted(shown.items()):
            for place, name in enumerate(names):
                if not place or not carried >> place & 1 or index >= len(self._directory.by_index):
                    continue
                bureau, saw = self._name(index), bool(mask >> place & 1)
                may = (bureau, RECEIVE) in self._answers and may_see(index, name)
                if may != saw:
                    yield Difference(bureau, f"sees {name}", _yes(saw), _yes(may))

    # Holders

    def holders(self) -> Iterator[Difference]:
        """Compare the terms of a notice that ends another with whom it reached."""
        yield from self._differing("receives", self._received(), self._recorded.terms.receivers)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
