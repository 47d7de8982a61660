"""The oracle with one tricky point misread at a time: what is tried must tell each from the right reading.

A point that none of the invented notices could tell apart would be a point that nothing tests.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Self

from tests.policy.oracle import LEVELS, TELLS_WHO, Answer, Oracle, member


class Misread(Oracle):
    """An oracle that is wrong in one point, which its docstring says."""

    @classmethod
    def of(cls, asked: Oracle) -> Self:
        return cls(**{each.name: getattr(asked, each.name) for each in fields(asked)})


# --- rule 1 and the four terms


class DenialIsByName(Misread):
    """Denying a member would deny none of its bureaus."""

    def named_in(self, names: list[str], bureau: str) -> bool:
        return bureau in names if names is self.notice.deny else super().named_in(names, bureau)


class SuspendedStillReceives(Misread):
    """A suspended member would go on receiving."""

    def is_active(self, bureau: str) -> bool:
        return bureau in self.world.bureaus


class NamingAMemberIsNaming(Misread):
    """Whose member is addressed would count as named."""

    def is_named(self, bureau: str) -> bool:
        return self.named_in(self.notice.to, bureau)


class UrgentIsFlash(Misread):
    """An urgent notice would need no subscription."""

    def is_reached(self, bureau: str) -> bool:
        return self.notice.urgency == "urgent" or super().is_reached(bureau)


class FlashNeedsSubscription(Misread):
    """A flash would reach only who asked for it."""

    def is_reached(self, bureau: str) -> bool:
        wants = any(
            pattern in ("*", topic) or (pattern.endswith(".*") and topic.startswith(pattern[:-1]))
            for pattern in self.patterns.get(bureau, ())
            for topic in self.notice.topics
        )
        return self.is_addressed(bureau) or wants


class EveryoneIsReached(Misread):
    """Who is in the audience would need no subscription."""

    def is_reached(self, bureau: str) -> bool:
        return self.is_meant(bureau)


class PatternIsPrefix(Misread):
    """`case.*` would fit `case` and `cases.red`, too."""

    def is_reached(self, bureau: str) -> bool:
        wants = [each.removesuffix("*").removesuffix(".") for each in self.patterns.get(bureau, ())]
        return super().is_reached(bureau) or any(each.startswith(tuple(wants)) for each in self.notice.topics)


# --- rules 3 to 5


class H1AlwaysNeedsConsent(Misread):
    """H1 would keep a notice from whom it does not name, whatever it is wanted for."""

    def rule_3(self, bureau: str) -> bool:
        return "H1" not in self.notice.handling or self.is_named(bureau)


class H2StaysWithTheMember(Misread):
    """Another bureau of a named one's member would count as inside."""

    def rule_4(self, bureau: str) -> bool:
        return super().rule_4(bureau) or member(bureau) in set(map(member, self.notice.to))


class GrantLastsThroughItsEnd(Misread):
    """A grant would still hold at the moment at which it ends."""

    def grants_of(self, bureau: str) -> list[list[str]]:
        return [names for to, names, until in self.notice.grants if to == bureau and self.now <= until]


class FirstGrantOnly(Misread):
    """Of two grants to one bureau only the first would count."""

    def grants_of(self, bureau: str) -> list[list[str]]:
        return super().grants_of(bureau)[:1]


class GrantIsNaming(Misread):
    """Who holds a grant would be named: for H3, evidence, sources, minors."""

    def is_named(self, bureau: str) -> bool:
        return super().is_named(bureau) or self.is_granted(bureau)


class GrantNarrowsWhomItNames(Misread):
    """A bureau that is named would be shown its grant only."""

    def may_see(self, bureau: str, name: str) -> bool:
        granted = self.grants_of(bureau)
        return super().may_see(bureau, name) and (not granted or any(name in each for each in granted))


class GrantBeatsDenial(Misread):
    """A grant to whom the owner denies would let it in."""

    def named_in(self, names: list[str], bureau: str) -> bool:
        return super().named_in(names, bureau) and not (names is self.notice.deny and self.is_granted(bureau))


class GrantNeedsAddress(Misread):
    """A grant would be nothing to a bureau that is not addressed as well."""

    def is_granted(self, bureau: str) -> bool:
        return super().is_granted(bureau) and self.named_in(self.notice.to, bureau)


class OneReaderIsEnough(Misread):
    """H3 would go out as soon as one addressee can read it."""

    def is_unreadable(self) -> bool:
        return not any(self.reads(each) for each in self.named())


class NoLanguageIsEveryLanguage(Misread):
    """A text that says no language would be readable by everybody."""

    def is_unreadable(self) -> bool:
        return bool(self.notice.languages) and super().is_unreadable()


class MembersMustRead(Misread):
    """H3 would be held for the bureaus of an addressed member, which are not named."""

    def named(self) -> list[str]:
        return [each for each in self.world.bureaus if self.is_active(each) and self.named_in(self.notice.to, each)]


class ReleasedH3GoesToAnybody(Misread):
    """A release would do what only a name does."""

    def rule_5(self, bureau: str) -> bool:
        return self.notice.released or super().rule_5(bureau)


# --- rules 6 and 7


class GlassBreaksForMembers(Misread):
    """A threat to life would reach the bureaus of an addressed member."""

    def rule_6(self, bureau: str) -> bool:
        broken = self.notice.derogation is not None and self.named_in(self.notice.to, bureau)
        return broken or super().rule_6(bureau)


class GlassBreaksForOwnFactsOnly(Misread):
    """A threat to life would carry no facts of others."""

    def rule_6(self, bureau: str) -> bool:
        others = self.sources() - {member(self.notice.issuer)}
        return super().rule_6(bureau) and all(self.lawful(each, member(bureau)) for each in others)


class GlassBreaksConsent(Misread):
    """A threat to life would spare the consent of an origin."""

    def rule_7(self, bureau: str) -> bool:
        return (self.notice.derogation is not None and self.is_named(bureau)) or super().rule_7(bureau)


class GlassIsNotOnRecord(Misread):
    """Nobody would be told that the glass was broken."""

    def routed(self) -> Answer:
        found = super().routed()
        return Answer(found.held, found.shown, found.replaces, found.erases, found.warnings - {"glass-broken"})


class BasisWorksBothWays(Misread):
    """A basis from one to another would be one back."""

    def lawful(self, source: str, target: str) -> bool:
        return super().lawful(source, target) or super().lawful(target, source)


class SuspendedAgreementIsABasis(Misread):
    """A transfer could rest on a suspended agreement."""

    def carries(self, agreement: str) -> bool:
        own = agreement in self.world.own_terms and agreement not in self.notice.agreements
        return not own


class OwnTermsCoverEverything(Misread):
    """An agreement with terms of its own would cover notices that do not name it."""

    def carries(self, agreement: str) -> bool:
        return agreement in self.world.agreements


class EveryAgreementMustBeNamed(Misread):
    """A treaty would cover only notices that name it."""

    def carries(self, agreement: str) -> bool:
        return super().carries(agreement) and agreement in self.notice.agreements


class OnlyTheIssuerNeedsABasis(Misread):
    """Facts of another origin would need no basis from there."""

    def sources(self) -> set[str]:
        return {member(self.notice.issuer)}


class UnknownOwnerIsAnOwner(Misread):
    """An owner that the federation does not know would be a known one."""

    def origins_known(self) -> bool:
        return all(owner != "?" for owner, _ in self.notice.origins)


class KindestOriginDecides(Misread):
    """The consent of one of several origins would be enough."""

    def rule_7(self, bureau: str) -> bool:
        terms = self.foreign()
        return not terms or any(
            "everyone" in to or member(owner) == member(bureau) or self.named_in(to, bureau) for owner, to in terms
        )


class OwnFactsHaveNoTerms(Misread):
    """The terms on the issuer's own facts would bind nobody."""

    def rule_7(self, bureau: str) -> bool:
        mine = member(self.notice.issuer)
        return all(
            "everyone" in to or member(owner) == member(bureau) or self.named_in(to, bureau)
            for owner, to in self.foreign()
            if member(owner) != mine
        )


class IssuersMemberNeedsNoConsent(Misread):
    """What another origin gave the issuer would be free for the issuer's whole member."""

    def rule_7(self, bureau: str) -> bool:
        return member(bureau) == member(self.notice.issuer) or super().rule_7(bureau)


class OwnersNeedConsent(Misread):
    """An owner would not get its own facts back."""

    def rule_7(self, bureau: str) -> bool:
        return all("everyone" in to or self.named_in(to, bureau) for _, to in self.foreign())


# --- rules 8 and 9


class AnyPartOfATopicIsWanted(Misread):
    """`archive.wanted` would be a wanted notice."""

    def must_be_reviewed(self) -> bool:
        return super().must_be_reviewed() or any("wanted" in each.split(".") for each in self.notice.topics)


class HealthIsPolitics(Misread):
    """Every special category would be held."""

    def must_be_reviewed(self) -> bool:
        return super().must_be_reviewed() or bool(self.notice.special_categories)


class DeniedReviews(Misread):
    """Whom the issuer denies would review."""

    def may_review(self, bureau: str) -> bool:
        kept_out = self.is_own(bureau) or self.is_feared(bureau)
        return not kept_out and self.is_active(bureau) and self.may_be_asked(bureau)


class FearedReviews(Misread):
    """A bureau of the state that is feared would review."""

    def may_review(self, bureau: str) -> bool:
        denied = self.is_own(bureau) or self.named_in(self.notice.deny, bureau)
        return not denied and self.is_active(bureau) and self.may_be_asked(bureau)


class IssuerReviews(Misread):
    """A reviewing bureau would review what it issued."""

    def is_own(self, bureau: str) -> bool:
        return bureau != self.notice.issuer and super().is_own(bureau)


class IssuersMemberReviews(Misread):
    """A reviewing bureau would review what another bureau of its member issued."""

    def is_own(self, bureau: str) -> bool:
        return bureau == self.notice.issuer


class FearedBureauOnly(Misread):
    """Where a bureau is named as feared, the others of its state would not be."""

    def is_feared(self, bureau: str) -> bool:
        return self.named_in(self.notice.protected_from, bureau)


class ReviewNeedsNoBasis(Misread):
    """Data would go to a reviewing bureau without a basis for the transfer."""

    def may_be_asked(self, bureau: str) -> bool:
        return self.may_go_to(bureau) and self.rule_7(bureau)


class ReviewNeedsNoConsent(Misread):
    """A reviewing bureau would be no third party for an origin."""

    def may_be_asked(self, bureau: str) -> bool:
        return self.may_go_to(bureau) and self.rule_6(bureau)


class ReviewerNeedsAMandate(Misread):
    """A reviewing bureau would need a mandate for the purpose."""

    def may_review(self, bureau: str) -> bool:
        return super().may_review(bureau) and self.notice.purpose in self.world.bureaus[bureau]


class ReviewerMustBeMeant(Misread):
    """The issuer would choose its reviewers by its audience."""

    def may_review(self, bureau: str) -> bool:
        return super().may_review(bureau) and self.is_meant(bureau)


class ReviewerNeedsNoClearance(Misread):
    """A reviewing bureau would be shown what it is not cleared for."""

    def may_go_to(self, bureau: str) -> bool:
        waits = self.must_be_reviewed() and not self.notice.released
        return super().may_go_to(bureau) or (waits and self._but_for_clearance())

    def _but_for_clearance(self) -> bool:
        return self.origins_known() and self.rule_10_network() and self.may_be_kept() and not self.is_overdue()


class ReviewKnowsNoEnd(Misread):
    """A reviewing bureau would be shown what may no longer be kept, or is overdue."""

    def may_go_to(self, bureau: str) -> bool:
        waits = self.must_be_reviewed() and not self.notice.released
        good = self.origins_known() and self.rule_10_network() and self.is_cleared(bureau)
        return super().may_go_to(bureau) or (waits and good)


class ReviewKnowsNoOrigin(Misread):
    """A reviewing bureau would be shown facts that nobody can have consented to."""

    def origins_known(self) -> bool:
        return super().origins_known() or (self.must_be_reviewed() and not self.notice.released)


class ReviewKnowsNoMinors(Misread):
    """A reviewing bureau would be shown a network with minors, victims or witnesses."""

    def rule_10_network(self) -> bool:
        return super().rule_10_network() or (self.must_be_reviewed() and not self.notice.released)


class ReviewerSeesSources(Misread):
    """A reviewing bureau would be shown who told."""

    def seen_in_review(self) -> frozenset[str]:
        return self.present


class ReleaseIsEnough(Misread):
    """What was released would ask no other rule."""

    def may_have(self, bureau: str) -> bool:
        return self.notice.released or super().may_have(bureau)


# --- rule 10


class UnknownIsOfAge(Misread):
    """An unknown age would mean that nobody is a minor."""

    def is_minor(self) -> bool:
        return self.notice.minor == "yes"


class FirmsHaveAnAge(Misread):
    """An unknown age would make a minor of a firm or a vessel."""

    def is_minor(self) -> bool:
        return self.notice.minor != "no"


class FirmsHaveNoMinors(Misread):
    """A firm's notice that says it speaks of a minor would not be believed."""

    def is_minor(self) -> bool:
        return super().is_minor() and self.notice.kind not in ("organisation", "object", "contact")


class MissingWitnessIsShown(Misread):
    """A missing child who is a witness would be shown as widely as any."""

    def hides_victim(self, name: str) -> bool:
        child = self.is_missing() and self.notice.minor != "no"
        return super().hides_victim(name) and not child


class MissingAdultVictimIsShown(Misread):
    """A missing adult victim would be shown as widely as a child."""

    def hides_victim(self, name: str) -> bool:
        return super().hides_victim(name) and not self.is_missing()


class MissingChildStaysHidden(Misread):
    """A missing child would have no wider reach."""

    def hides_minor(self, name: str) -> bool:
        return self.is_minor() and name in TELLS_WHO


class MissingChildsCompanyIsShown(Misread):
    """With whom a missing child keeps company would be shown as widely as the child."""

    def hides_company(self, name: str) -> bool:
        return super().hides_company(name) and not self.is_missing()


class NamedMayHaveNetworks(Misread):
    """A network with minors would go to bureaus that are named."""

    def may_go_to(self, bureau: str) -> bool:
        others = self.origins_known() and self.may_be_kept() and not self.is_overdue() and self.is_cleared(bureau)
        return super().may_go_to(bureau) or (self.is_named(bureau) and others)


# --- rules 11 and 12, clearances, what follows a delivery


class LastDayCounts(Misread):
    """On the day until which it may be kept it could still go."""

    def may_be_kept(self) -> bool:
        return self.notice.retain_until is None or self.now <= self.notice.retain_until


class DueIsNotOverdue(Misread):
    """On the day on which its review is due it could still go."""

    def is_overdue(self) -> bool:
        return self.notice.review_due is not None and self.now > self.notice.review_due


class SuspensionForbids(Misread):
    """A suspended agreement would stop what another one, or an address, carries."""

    def rule_12(self, bureau: str) -> bool:
        stopped = {each for each in self.notice.agreements if each in self.world.suspended_agreements}
        circles = [self.world.suspended_agreements[each] for each in stopped]
        return super().rule_12(bureau) and not any(member(bureau) in each for each in circles)


class SuspendedStillMeans(Misread):
    """An agreement would go on carrying while it is suspended."""

    def is_meant(self, bureau: str) -> bool:
        return super().is_meant(bureau) or self._by_suspended(bureau)

    def rule_12(self, bureau: str) -> bool:
        return super().rule_12(bureau) or self._by_suspended(bureau)

    def _by_suspended(self, bureau: str) -> bool:
        circles = [self.world.suspended_agreements.get(each, []) for each in self.notice.agreements]
        return any(member(bureau) in each for each in circles)


class SuspensionStopsCorrections(Misread):
    """A suspended agreement would stop corrections, too."""

    def still_flows_to(self, _: str) -> bool:
        return False


class CorrectionsReachTheWholeCircle(Misread):
    """A correction would go to those of a suspended circle who hold nothing."""

    def holds_older(self, _: str) -> bool:
        return self.notice.corrects


class AnythingGoesOnToHolders(Misread):
    """Who holds what a correction corrects would get it whether its circle is named or not."""

    def still_flows_to(self, bureau: str) -> bool:
        return self.holds_older(bureau)


class ReviewersHoldWhatTheyReviewed(Misread):
    """To have been given a correction to review would count as holding what it corrects."""

    def holds_older(self, bureau: str) -> bool:
        return self.notice.corrects and bureau in {**self.holders, **self.given}


class CorrectionsNeedASubscription(Misread):
    """A correction would go to those holders only who are subscribed still."""

    def is_reached(self, bureau: str) -> bool:
        return self.is_sent(bureau)


class HoldersOfASuspendedCircleAreReachedAlone(Misread):
    """Only under a suspended agreement would a correction need no subscription."""

    def is_reached(self, bureau: str) -> bool:
        return self.is_sent(bureau) or self.still_flows_to(bureau)


class CorrectionsGoPastADenial(Misread):
    """Who holds what is corrected under a suspended agreement would get the correction although it is denied."""

    def named_in(self, names: list[str], bureau: str) -> bool:
        return super().named_in(names, bureau) and not (names is self.notice.deny and self.still_flows_to(bureau))


class NotListedIsCleared(Misread):
    """A bureau that the annex does not list would be cleared for everything."""

    def is_cleared(self, bureau: str) -> bool:
        return bureau not in self.world.clearances or super().is_cleared(bureau)


class NotListedIsOpenOnly(Misread):
    """A bureau that the annex does not list would be cleared for nothing but what is open."""

    def is_cleared(self, bureau: str) -> bool:
        return LEVELS.index(self.notice.confidentiality) <= LEVELS.index(self.world.clearances.get(bureau, "open"))


class WithdrawalAsksRules(Misread):
    """A withdrawal would reach only those whom the rules still name."""

    def to_holders(self) -> Answer:
        found = super().to_holders()
        shown = {each: names for each, names in found.shown.items() if self.receives(each)}
        return Answer(held=False, shown=shown, erases=found.erases, warnings=found.warnings)


class RestrictionErases(Misread):
    """A restriction would take away what it only restricts."""

    def to_holders(self) -> Answer:
        found = super().to_holders()
        return Answer(held=False, shown=found.shown, erases=self.holders, warnings=found.warnings)


class CorrectionFollowsHolders(Misread):
    """A correction would go to every holder, whatever the rules say."""

    def receives(self, bureau: str) -> bool:
        return bureau in self.holders or super().receives(bureau)


class CorrectionReplacesNothing(Misread):
    """A holder would not learn what a correction replaces."""

    def routed(self) -> Answer:
        found = super().routed()
        return Answer(held=False, shown=found.shown, warnings=found.warnings)


MISREAD = tuple(Misread.__subclasses__())
