"""Who receives and sees what, from the words of the rules and nothing of our code: slow, plain, bureau by bureau.

It reads a federation and a notice as a person writes them (the cases' own form), so that neither facts, masks nor Cedar
have a part in it. `RULES` names what can be left out, so that a test can show that each of them matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.cases import World, WrittenNotice

RULES = (
    "denied", "mandate", "h1", "h2", "h3", "transfer", "origin-unknown", "origin-consent", "review", "protected",
    "victim", "minor", "minor-associates", "network", "source", "retention", "overdue", "clearance", "grants",
    "audience agreement",
)  # fmt: skip
"""What a test leaves out, one at a time; that a circle's audience ends with its agreement is said twice."""
LEVELS = ("open", "restricted", "confidential", "secret")
TELLS_WHO = {"identity", "description", "biometrics", "location", "narrative"}
NO_PERSON = {"organisation", "object", "contact"}


@dataclass(frozen=True)
class Answer:
    """Held for these reviewers, or routed: bureau → the compartments that it is shown."""

    held: bool
    shown: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Oracle:
    """One notice in one federation. `present`: the compartments that carry something; `without`: rules left out."""

    world: World
    notice: WrittenNotice
    patterns: Mapping[str, tuple[str, ...]]
    present: frozenset[str]
    now: int
    without: frozenset[str] = frozenset()

    def answer(self) -> Answer:
        """Say who receives and sees what."""
        if self.on("review") and self.must_be_reviewed() and not self.notice.released:
            seen = self.present - {"source"}
            return Answer(held=True, shown={each: seen for each in self.world.reviewers if self.may_review(each)})
        return Answer(
            held=False,
            shown={
                bureau: frozenset(name for name in self.present if self.may_see(bureau, name))
                for bureau in self.world.bureaus
                if bureau != self.notice.issuer and self.receives(bureau)
            },
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
        """Everyone, those addressed or granted, and members of an agreement in force."""
        circles = [self.world.agreements.get(each, []) for each in self.notice.agreements]
        return self.notice.everyone or self.is_addressed(bureau) or any(member(bureau) in each for each in circles)

    def is_reached(self, bureau: str) -> bool:
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
        return any(to == bureau and self.now < until for to, _, until in self.notice.grants)

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
                ("h3", "H3" not in self.notice.handling or self.is_named(bureau)),
                ("transfer", self.rule_6(bureau)),
                ("origin-unknown", all(owner != "?" for owner, _ in self.notice.origins)),
                ("origin-consent", self.rule_7(bureau)),
                ("protected", not self.named_in(self.notice.protected_from, bureau)),
                ("network", self.notice.kind != "network" or not self.is_vulnerable()),
                ("retention", self.notice.retain_until is None or self.now < self.notice.retain_until),
                ("overdue", self.notice.review_due is None or self.now < self.notice.review_due),
                ("agreement", self.rule_12(bureau)),
                ("clearance", self.is_cleared(bureau)),
            )
        )

    def rule_3(self, bureau: str) -> bool:
        """H1 is no evidence without consent: asked for as evidence it goes to whom its owner names."""
        evidence = "H1" in self.notice.handling and self.notice.purpose == "extradition"
        return not evidence or self.is_named(bureau)

    def rule_4(self, bureau: str) -> bool:
        """H2 stays with the bureaus that are named until a grant."""
        return "H2" not in self.notice.handling or self.is_named(bureau) or self.is_granted(bureau)

    def rule_6(self, bureau: str) -> bool:
        """A basis in force by pair, from every source; or a threat to life, for whom the issuer names."""
        if self.notice.derogation is not None and self.is_named(bureau):
            return True
        sources = {member(self.notice.issuer), *(member(owner) for owner, _ in self.foreign())} - {"?"}
        return all(self.lawful(source, member(bureau)) for source in sources)

    def lawful(self, source: str, target: str) -> bool:
        if source == target or self.world.transfers == "all":
            return True
        for each in self.world.transfers:
            pair, _, agreement = each.partition(" under ")
            if pair != f"{source}>{target}":
                continue
            if not agreement:
                return True
            own = agreement in self.world.own_terms and agreement not in self.notice.agreements
            if agreement in self.world.agreements and not own:
                return True
        return False

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

    def must_be_reviewed(self) -> bool:
        """Rule 8, and rule 5 where an addressee reads none of the languages."""
        heads = {topic.split(".")[0] for topic in self.notice.topics}
        character = {"political-opinions", "military", "religious-beliefs", "racial-or-ethnic-origin"}
        unreadable = "H3" in self.notice.handling and any(
            not set(self.world.languages.get(each, ["en"])) & set(self.notice.languages)
            for each in self.notice.to
            if each in self.world.bureaus and self.is_active(each)
        )
        return (
            bool(heads & {"wanted", "warning"})
            or member(self.notice.issuer) in self.world.supervision
            or bool(character & set(self.notice.special_categories))
            or unreadable
        )

    def may_review(self, bureau: str) -> bool:
        kept_from = [*self.notice.deny, *self.notice.protected_from]
        return bureau != self.notice.issuer and self.is_active(bureau) and not self.named_in(kept_from, bureau)

    def is_vulnerable(self) -> bool:
        return self.notice.minor != "no" or bool({"victim", "witness"} & set(self.notice.subject_categories))

    def rule_12(self, bureau: str) -> bool:
        """Whom the issuer means only by agreements has it only by one in force."""
        mine = {name for name, circle in self.world.agreements.items() if member(bureau) in circle}
        return self.notice.everyone or self.is_addressed(bureau) or bool(mine & set(self.notice.agreements))

    def is_cleared(self, bureau: str) -> bool:
        cleared = self.world.clearances.get(bureau, "restricted")
        return LEVELS.index(self.notice.confidentiality) <= LEVELS.index(cleared)

    def may_see(self, bureau: str, name: str) -> bool:
        """Rule 10, and the bounds of a grant."""
        if self.on("grants") and self.notice.grants and self.is_granted(bureau) and not self.is_named(bureau):
            granted = [names for to, names, until in self.notice.grants if to == bureau and self.now < until]
            if not any(name in names for names in granted):
                return False
        if self.is_named(bureau):
            return True
        missing = self.notice.purpose == "missing-persons"
        minor = self.notice.minor != "no"
        nobody = self.notice.minor == "unknown" and self.notice.kind in NO_PERSON
        categories = set(self.notice.subject_categories)
        child = missing and minor and "witness" not in categories
        withheld = {
            "victim": bool(categories & {"victim", "witness"}) and not child and name in TELLS_WHO | {"associates"},
            "minor": minor and not missing and not nobody and name in TELLS_WHO,
            "minor-associates": minor and not nobody and name == "associates",
            "source": name == "source",
        }
        return not any(so and self.on(rule) for rule, so in withheld.items())


def member(name: str) -> str:
    """The member of a bureau, or itself."""
    return name.partition("/")[0]
