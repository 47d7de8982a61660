"""Who receives and sees what, from the words of the rules and nothing of our code: slow, plain, bureau by bureau.

It reads a federation and a notice as a person writes them (the cases' own form), so that neither facts, masks nor Cedar
have a part in it. `RULES` names what can be left out, so that a test can show that each of them matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.cases import World, WrittenNotice

RULES = (
    "denied", "mandate", "h1", "h2", "h3", "transfer", "origin-unknown", "origin-consent", "review", "protected",
    "victim", "minor", "minor-associates", "network", "source", "retention", "overdue", "clearance", "grants",
    "audience agreement",
)  # fmt: skip
"""What a test leaves out, one at a time; that a circle's audience ends with its agreement is said twice."""
LEVELS = ("open", "restricted", "confidential", "secret")
TELLS_WHO = {"identity", "description", "biometrics", "location", "narrative"} | {
    "summary", "findings", "chart", "question", "reply",
}  # fmt: skip
NO_PERSON = {"organisation", "object", "contact"}
TO_HOLDERS = {"withdrawal", "restriction"}
"""Kinds that ask no rule: they follow what was delivered."""


@dataclass(frozen=True)
class Answer:
    """Held for these reviewers, or routed: bureau → the compartments that it is shown.

    `replaces` and `erases`: bureau → the delivery numbers that it is told to replace or to erase.
    """

    held: bool
    shown: Mapping[str, frozenset[str]]
    replaces: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    erases: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Oracle:
    """One notice in one federation. `present`: the compartments that carry something; `without`: rules left out.

    `holders`: bureau → the delivery numbers that it holds of what this notice changes; a reviewing bureau's own one of
    this notice is among them. `given`: the same of those who were only given this notice itself, to review.
    """

    world: World
    notice: WrittenNotice
    patterns: Mapping[str, tuple[str, ...]]
    present: frozenset[str]
    now: int
    without: frozenset[str] = frozenset()
    holders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    given: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def answer(self) -> Answer:
        """Say who receives and sees what."""
        if self.notice.kind in TO_HOLDERS:
            return self.to_holders()
        return self.held() if self.is_held() else self.routed()

    def to_holders(self) -> Answer:
        """Every holder, whatever the rules say today: denied, feared or cut off since, it has what has to go."""
        erases = self.holders if self.notice.kind == "withdrawal" else {}
        shown = dict.fromkeys(self.holders, self.present)
        return Answer(held=False, shown=shown, erases=erases, warnings=_warnings(("reached-nobody", not shown)))

    def held(self) -> Answer:
        seen = self.seen_in_review()
        shown = {each: seen for each in self.world.reviewers if self.may_review(each)}
        return Answer(held=True, shown=shown, warnings=_warnings(("no-reviewer", not shown)))

    def routed(self) -> Answer:
        """To whom it may go; a correction replaces what they hold, and leaves the other holders what they have."""
        shown = {
            bureau: frozenset(name for name in self.present if self.may_see(bureau, name))
            for bureau in self.world.bureaus
            if bureau != self.notice.issuer and self.receives(bureau)
        }
        return Answer(
            held=False,
            shown=shown,
            replaces={bureau: numbers for bureau, numbers in {**self.holders, **self.given}.items() if bureau in shown},
            warnings=_warnings(
                ("reached-nobody", not shown),
                ("holders-not-reached", self.notice.corrects and not self.holders.keys() <= shown.keys()),
                ("glass-broken", self.notice.derogation is not None),
            ),
        )

    def on(self, rule: str) -> bool:
        return rule not in self.without

    # The four terms

    def receives(self, bureau: str) -> bool:
        """Allowed by the rules, meant, not denied, and reached."""
        return (
            self.is_active(bureau)
            and (self.is_meant(bureau) or not self.on("audience"))
            and not (self.on("denied") and self.named_in(self.notice.deny, bureau))
            and self.is_reached(bureau)
            and self.may_have(bureau)
        )

    def is_meant(self, bureau: str) -> bool:
        """Everyone, those addressed or granted, and members of an agreement in force; to whom a correction flows."""
        circles = [self.world.agreements.get(each, []) for each in self.notice.agreements]
        means = self.notice.everyone or self.is_addressed(bureau) or any(member(bureau) in each for each in circles)
        return means or self.still_flows_to(bureau)

    def still_flows_to(self, bureau: str) -> bool:
        """Rule 12: corrections still flow, to those of a suspended circle that is named who hold what is corrected."""
        circles = [self.world.suspended_agreements.get(each, []) for each in self.notice.agreements]
        return any(member(bureau) in each for each in circles) and self.holds_older(bureau)

    def holds_older(self, bureau: str) -> bool:
        """It holds what this notice corrects; to have been given the notice itself to review is not that."""
        return self.notice.corrects and bureau in self.holders

    def is_reached(self, bureau: str) -> bool:
        """Addressed, subscribed, or a flash; or it has what is corrected."""
        return self.is_sent(bureau) or self.holds_older(bureau)

    def is_sent(self, bureau: str) -> bool:
        """Addressed, subscribed, or a flash."""
        wants = any(
            pattern in ("*", topic) or (pattern.endswith(".*") and topic.startswith(pattern[:-1]))
            for pattern in self.patterns.get(bureau, ())
            for topic in self.notice.topics
        )
        return self.is_addressed(bureau) or wants or self.notice.urgency == "flash"

    # Who is who

    def is_active(self, bureau: str) -> bool:
        return member(bureau) not in self.world.suspended

    def named_in(self, names: list[str], bureau: str) -> bool:
        return bureau in names or member(bureau) in names

    def is_named(self, bureau: str) -> bool:
        """By its own id; naming its member is no naming."""
        return bureau in self.notice.to

    def is_granted(self, bureau: str) -> bool:
        return bool(self.grants_of(bureau))

    def grants_of(self, bureau: str) -> list[list[str]]:
        """The compartments of each grant in force; at its end a grant is over."""
        return [names for to, names, until in self.notice.grants if to == bureau and self.now < until]

    def is_addressed(self, bureau: str) -> bool:
        """A grant counts as addressing."""
        return self.named_in(self.notice.to, bureau) or self.is_granted(bureau)

    # The rules

    def may_have(self, bureau: str) -> bool:
        """Every rule that speaks of a notice as a whole."""
        return all(
            good or not self.on(rule)
            for rule, good in (
                ("mandate", self.notice.purpose in self.world.bureaus[bureau]),
                ("h1", self.rule_3(bureau)),
                ("h2", self.rule_4(bureau)),
                ("h3", self.rule_5(bureau)),
                ("transfer", self.rule_6(bureau)),
                ("origin-consent", self.rule_7(bureau)),
                ("protected", not self.is_feared(bureau)),
                ("agreement", self.rule_12(bureau)),
            )
        ) and self.may_go_to(bureau)

    def may_go_to(self, bureau: str) -> bool:
        """What says "goes to nobody", with no word of an audience or a release: so not to a reviewing bureau either."""
        return all(
            good or not self.on(rule)
            for rule, good in (
                ("origin-unknown", self.origins_known()),
                ("network", self.rule_10_network()),
                ("retention", self.may_be_kept()),
                ("overdue", not self.is_overdue()),
                ("clearance", self.is_cleared(bureau)),
            )
        )

    def may_be_kept(self) -> bool:
        return self.notice.retain_until is None or self.now < self.notice.retain_until

    def is_overdue(self) -> bool:
        return self.notice.review_due is not None and self.now >= self.notice.review_due

    def origins_known(self) -> bool:
        """Every origin is named, and is somebody of this federation."""
        known = self.world.bureaus.keys() | set(map(member, self.world.bureaus))
        return all(owner in known for owner, _ in self.notice.origins)

    def is_feared(self, bureau: str) -> bool:
        """A state is feared, so one of its bureaus cannot be: whatever is named, all of its bureaus are kept out."""
        return member(bureau) in set(map(member, self.notice.protected_from))

    def rule_10_network(self) -> bool:
        return self.notice.kind != "network" or not self.is_vulnerable()

    def rule_3(self, bureau: str) -> bool:
        """H1 is no evidence without consent: asked for as evidence it goes to whom its owner names."""
        evidence = "H1" in self.notice.handling and self.notice.purpose == "extradition"
        return not evidence or self.is_named(bureau)

    def rule_4(self, bureau: str) -> bool:
        """H2 stays with the bureaus that are named until a grant."""
        return "H2" not in self.notice.handling or self.is_named(bureau) or self.is_granted(bureau)

    def rule_5(self, bureau: str) -> bool:
        """H3: addressees are named, one by one."""
        return "H3" not in self.notice.handling or self.is_named(bureau)

    def rule_6(self, bureau: str) -> bool:
        """A basis in force by pair, from every source; or a threat to life, for whom the issuer names."""
        broken_glass = self.notice.derogation is not None and self.is_named(bureau)
        return broken_glass or all(self.lawful(source, member(bureau)) for source in self.sources())

    def sources(self) -> set[str]:
        return {member(self.notice.issuer), *(member(owner) for owner, _ in self.foreign())} - {"?"}

    def lawful(self, source: str, target: str) -> bool:
        if source == target or self.world.transfers == "all":
            return True
        for each in self.world.transfers:
            pair, _, agreement = each.partition(" under ")
            if pair != f"{source}>{target}":
                continue
            if not agreement:
                return True
            if self.carries(agreement):
                return True
        return False

    def carries(self, agreement: str) -> bool:
        """In force; and if it has terms of its own, the notice names it."""
        own = agreement in self.world.own_terms and agreement not in self.notice.agreements
        return agreement in self.world.agreements and not own

    def foreign(self) -> list[tuple[str, list[str]]]:
        """Origins with terms: the issuer's own facts without any are covered by its audience."""
        mine = member(self.notice.issuer)
        return [(owner, to) for owner, to in self.notice.origins if member(owner) != mine or to]

    def rule_7(self, bureau: str) -> bool:
        """Every origin has consented; an owner needs nobody's consent for its own facts."""
        return all(
            "everyone" in to or member(owner) == member(bureau) or self.named_in(to, bureau)
            for owner, to in self.foreign()
        )

    def is_held(self) -> bool:
        """Until it is released, as long as the rules would let somebody at all review it."""
        waits = self.on("review") and self.must_be_reviewed() and not self.notice.released
        return waits and any(self.is_active(each) and self.may_be_asked(each) for each in self.world.bureaus)

    def must_be_reviewed(self) -> bool:
        """Rule 8, and rule 5 where an addressee reads none of the languages."""
        character = {"political-opinions", "military", "religious-beliefs", "racial-or-ethnic-origin"}
        return (
            any(topic.split(".")[0] in ("wanted", "warning") for topic in self.notice.topics)
            or member(self.notice.issuer) in self.world.supervision
            or bool(character & set(self.notice.special_categories))
            or ("H3" in self.notice.handling and self.is_unreadable())
        )

    def is_unreadable(self) -> bool:
        """One addressee who cannot accept the text is enough."""
        return any(not self.reads(each) for each in self.named())

    def named(self) -> list[str]:
        return [each for each in self.notice.to if each in self.world.bureaus and self.is_active(each)]

    def reads(self, bureau: str) -> bool:
        return bool(set(self.world.languages.get(bureau, ["en"])) & set(self.notice.languages))

    def may_review(self, bureau: str) -> bool:
        """Outside the audience; neither who is denied, feared, or of the issuer's own, nor whom it may not go to."""
        denied = self.named_in(self.notice.deny, bureau) or self.is_feared(bureau)
        return not self.is_own(bureau) and self.is_active(bureau) and not denied and self.may_be_asked(bureau)

    def may_be_asked(self, bureau: str) -> bool:
        """What must go to nobody goes to no reviewer, and to a third one needs a basis and every origin's consent."""
        lawful, consented = self.rule_6(bureau), self.rule_7(bureau)
        return (
            self.may_go_to(bureau)
            and (lawful or not self.on("transfer"))
            and (consented or not self.on("origin-consent"))
        )

    def is_own(self, bureau: str) -> bool:
        """Nobody reviews what his own member sends, least of all under supervision."""
        return member(bureau) == member(self.notice.issuer)

    def seen_in_review(self) -> frozenset[str]:
        """The whole, but for sources."""
        return self.present - {"source"}

    def is_vulnerable(self) -> bool:
        return self.notice.minor != "no" or bool({"victim", "witness"} & set(self.notice.subject_categories))

    def rule_12(self, bureau: str) -> bool:
        """Whom the issuer means only by agreements has it only by one in force; but a correction still flows."""
        mine = {name for name, circle in self.world.agreements.items() if member(bureau) in circle}
        in_force = bool(mine & set(self.notice.agreements))
        return self.notice.everyone or self.is_addressed(bureau) or in_force or self.still_flows_to(bureau)

    def is_cleared(self, bureau: str) -> bool:
        cleared = self.world.clearances.get(bureau, "restricted")
        return LEVELS.index(self.notice.confidentiality) <= LEVELS.index(cleared)

    def may_see(self, bureau: str, name: str) -> bool:
        """Rule 10, and the bounds of a grant."""
        if self.is_named(bureau):
            return True
        if self.on("grants") and self.is_granted(bureau) and not any(name in each for each in self.grants_of(bureau)):
            return False
        withheld = {
            "victim": self.hides_victim(name),
            "minor": self.hides_minor(name),
            "minor-associates": self.hides_company(name),
            "source": name == "source",
        }
        return not any(so and self.on(rule) for rule, so in withheld.items())

    def hides_victim(self, name: str) -> bool:
        """Who and where a victim or witness is; for a missing child who is a victim the rule for minors decides."""
        found = {"victim", "witness"} & set(self.notice.subject_categories)
        child = self.is_missing() and self.notice.minor != "no" and "witness" not in found
        return bool(found) and not child and name in TELLS_WHO | {"associates"}

    def hides_minor(self, name: str) -> bool:
        """Who and where a minor is; a missing child needs a wider reach."""
        return self.is_minor() and not self.is_missing() and name in TELLS_WHO

    def hides_company(self, name: str) -> bool:
        """With whom a minor keeps company, a missing child's too."""
        return self.is_minor() and name == "associates"

    def is_minor(self) -> bool:
        """Unknown means minor, but says nothing of what has no age."""
        return self.notice.minor == "yes" or (self.notice.minor == "unknown" and self.notice.kind not in NO_PERSON)

    def is_missing(self) -> bool:
        return self.notice.purpose == "missing-persons"


def member(name: str) -> str:
    """The member of a bureau, or itself."""
    return name.partition("/")[0]


def _warnings(*found: tuple[str, bool]) -> frozenset[str]:
    return frozenset(name for name, so in found if so)
