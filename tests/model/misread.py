"""The model with one point misread at a time: some story must tell each from the right reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tests.model.life import Life
from tests.model.story import Ask, Confirm, Federation, Key, Numbers, Outcome, Sent
from tests.policy import misread
from tests.policy.oracle import Answer


class Misread(Life):
    """A model that is wrong in one point, which its docstring says."""


class SuspensionStopsCorrections(Misread):
    """A suspended circle would carry no corrections (rule 12)."""

    oracle = misread.SuspensionStopsCorrections


class CorrectionsNeedASubscription(Misread):
    """Holders who are not subscribed would not be reached by corrections."""

    oracle = misread.CorrectionsNeedASubscription


class DeniedReviews(Misread):
    """Whom the issuer denies would review (rule 8)."""

    oracle = misread.DeniedReviews


class FearedBureauOnly(Misread):
    """Of the state that is feared, only the bureau that is named would be (rule 9)."""

    oracle = misread.FearedBureauOnly


class GrantsHaveNoEnd(Misread):
    """What was granted once would be granted for ever (rule 4)."""

    def decide(self, sent: Sent, holders: Mapping[str, Numbers], given: Mapping[str, Numbers] | None = None) -> Answer:
        for_ever = [(bureau, names, 2**50) for bureau, names, _ in sent.written.grants]
        written = sent.written.model_copy(update={"grants": for_ever})
        return super().decide(replace(sent, written=written), holders, given)


class OnlyTheLastVersionIsHeld(Misread):
    """A withdrawal would reach only who holds the very version that it names (§3.8)."""

    def line(self, key: Key | None) -> Iterator[Key]:
        return iter([key] if key else [])


class ReviewersHoldWhatTheyReviewed(Misread):
    """Who was only given a correction to review would count as a holder of what it corrects."""

    def decide(self, sent: Sent, holders: Mapping[str, Numbers], given: Mapping[str, Numbers] | None = None) -> Answer:
        return super().decide(sent, {**holders, **(given or {})}, given)


class OrdersEndWhatTheyName(Misread):
    """An order would end the version that it names, whichever stands."""

    def newest(self, key: Key) -> Key:
        return key


class CompromisedIsReleased(Misread):
    """What a compromised key signed would be released all the same."""

    def wrong_approval(self, sent: Sent) -> bool:
        self.revoked, kept = {}, self.revoked
        try:
            return super().wrong_approval(sent)
        finally:
            self.revoked = kept


class StaleAudience(Misread):
    """A notice would be released to those whom it would have reached when it was held."""

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation)
        self.then: dict[Key, tuple[Federation, dict[str, tuple[str, ...]]]] = {}

    def decide(self, sent: Sent, holders: Mapping[str, Numbers], given: Mapping[str, Numbers] | None = None) -> Answer:
        in_force = self.federation, self.patterns
        if given is None:
            self.then[sent.key] = self.federation, dict(self.patterns)
        self.federation, self.patterns = self.then[sent.key]
        try:
            return super().decide(sent, holders, given)
        finally:
            self.federation, self.patterns = in_force


class OnlyWhatStandsIsAnswered(Misread):
    """What was replaced or withdrawn could be confirmed no longer: nobody could answer `erased`."""

    def confirm(self, act: Confirm) -> Outcome:
        standing = {(each.bureau, self.known[each.notice].digest) for each in self.handed}
        kept, self.given = self.given, {
            leaf: replace(each, bureaus=frozenset(one for one in each.bureaus if (one, each.digest) in standing))
            for leaf, each in self.given.items()
        }  # fmt: skip
        try:
            return super().confirm(act)
        finally:
            self.given = kept


class AnybodyAnswers(Misread):
    """Who was not given a notice could confirm it."""

    def confirm(self, act: Confirm) -> Outcome:
        kept, self.given = self.given, {
            leaf: replace(each, bureaus=each.bureaus | {act.bureau}) for leaf, each in self.given.items()
        }  # fmt: skip
        try:
            return super().confirm(act)
        finally:
            self.given = kept


class EachReceiptCounts(Misread):
    """A receipt that comes twice would be two."""

    def confirm(self, act: Confirm) -> Outcome:
        self.confirmed.clear()
        return super().confirm(act)


class OnlyWhoWasSentToIsToldOfLooks(Misread):
    """A look at what reached nobody would be refused."""

    def ask(self, act: Ask) -> Outcome:
        kept, self.given = self.given, {leaf: each for leaf, each in self.given.items() if each.bureaus}
        try:
            return super().ask(act)
        finally:
            self.given = kept


class KeysNeverEnd(Misread):
    """A key would sign beyond its time."""

    def may_not_sign(self, bureau: str, generation: int) -> set[str]:
        return super().may_not_sign(bureau, generation) - {"key-not-in-force"}


MISREAD = tuple(Misread.__subclasses__())
