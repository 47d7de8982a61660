"""Invents stories: notices as the policies' own author writes them, and what becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from broker.cases import WrittenNotice
from broker.notice import CONFIDENTIALITIES, KINDS, PURPOSES, Reference
from tests.making import NOW
from tests.model.answers import Answers
from tests.model.life import FOLLOWING, NOT_IN_FORCE, Known, Life
from tests.model.story import (
    GENERATIONS,
    RELATIONS,
    Act,
    Change,
    Federation,
    Publish,
    Restart,
    Revoke,
    Sent,
    Story,
    Subscribe,
)
from tests.policy import tricky
from tests.policy.oracle import member
from tests.policy.tricky import ASKS_RULES, PATTERNS, SCENES, Fields

LENGTH = 16
"""Acts after the first subscriptions."""
LATER = 8
"""Acts at the end, about keys and who joins; those before are the same with them and without, so that seeds stay."""
CALM: Fields = {"purpose": "criminal-investigation", "topics": ["case"]}
NOT_WRITTEN = ("issuer", "kind", "corrects", "released")
"""What a scene may not decide in a story."""


@cache
def story_of(seed: int) -> Story:
    """Invent a story, always the same of one seed."""
    return Author(seed).story()


class Author:
    """Tells one story; the model tells it what stands, so that what it invents is mostly about something."""

    def __init__(self, seed: int, begin: int = NOW) -> None:
        self.chance = random.Random(seed)
        world = tricky.world(self.chance)
        self.bureaus = sorted(world.bureaus)
        reviewers = self.some(self.bureaus, 1, 2, 3)
        self.federation = Federation(
            world.model_copy(update={"reviewers": reviewers}), tuple(self.some(self.bureaus, 0, 1, 1))
        )
        self.life = Life(self.federation)
        self.acts: list[tuple[int, Act]] = []
        self.sent: list[Sent] = []
        self.later: list[Sent] = []
        self.numbers = dict.fromkeys(self.bureaus, 0)
        self.generations = dict.fromkeys(self.bureaus, 0)
        self.subscriptions = 0
        self.now = begin
        self.answers = Answers(seed, self.life, self.generations)

    def story(self) -> Story:
        first = self.federation
        for bureau in filter(self.life.takes_part, self.bureaus):
            self.happens(self.subscribe(bureau))
        ways: tuple[tuple[int, Callable[[], Act | None]], ...] = (
            (16, self.create), (27, self.correct), (9, self.withdraw), (4, self.restrict), (22, self.approve),
            (2, self.withdraw_first), (2, self.come_late), (2, self.repeat), (5, self.subscribe), (3, self.revoke),
            (2, Restart), (9, self.change),
        )  # fmt: skip
        weights = [weight for weight, _ in ways]
        for _, way in self.chance.choices(ways, weights, k=LENGTH):
            self.now += self.chance.choice((1, 100, 1_000, 10_000))
            self.happens(way() or self.create())
            self.answered()
        late: tuple[Callable[[], Act | None], ...] = (
            self.sign_anew, self.sign_anew, self.end_key, self.end_key, Restart, self.approve, self.correct,
            self.join, self.join, self.appoint, self.withdraw,
        )  # fmt: skip
        for way in self.chance.choices(late, k=LATER):
            self.now += self.chance.choice((1, 100, 10_000))
            self.happens(way() or self.create())
            self.answered()
        return Story(first, tuple(self.acts))

    def answered(self) -> None:
        for each in self.answers.some():
            self.happens(each)

    def happens(self, act: Act) -> None:
        self.acts.append((self.now, act))
        self.life.take(act, self.now)

    def some(self, names: list[str], *counts: int) -> list[str]:
        return self.chance.sample(names, min(len(names), self.chance.choice(counts)))

    def rarely(self, share: float = 0.04) -> bool:
        return self.chance.random() < share

    # ---- notices -----------------------------------------------------------------------------------------------------

    def signed(self, written: WrittenNotice, version: int = 1, references: tuple[Reference, ...] = ()) -> Sent:
        """Sign it with the next number of its issuer, rarely with a used number or id."""
        issuer, id_ = written.issuer, (len(self.sent) + len(self.later) + 1).to_bytes(16, "big")
        mine = [each for each in self.sent if each.issuer == issuer]
        if mine and self.rarely(0.01):
            id_ = self.chance.choice(mine).id
        if not (self.numbers[issuer] and self.rarely(0.02)):
            self.numbers[issuer] += 1
        names = KINDS[written.kind]
        present = frozenset(name for name in names if self.chance.random() < 0.8) or frozenset(names[:1])
        return Sent(
            id_, written, f"r{id_[-1]}", version, self.numbers[issuer], present, references,
            generation=self.generations[issuer],
        )  # fmt: skip

    def publish(self, sent: Sent) -> Act:
        self.sent.append(sent)
        return Publish(sent)

    def author(self) -> tricky.Author:
        return tricky.Author(self.chance, self.federation.world)

    def soon(self) -> int:
        return self.now + self.chance.choice((-1, 0, 1, 5_000, 20_000))

    def written(self, before: Fields, odd: int) -> WrittenNotice:
        """Write a notice over what was written before, with some scenes and odd facts."""
        chance, author, kind = self.chance, self.author(), str(before["kind"])
        more: Fields = {}
        for _ in range(odd):
            found = author._odd() if chance.random() < 0.5 else chance.choice(SCENES)(author, kind)
            more |= found if len(found) < 5 else {name: found[name] for name in [chance.choice(sorted(found))]}
        more = {name: value for name, value in more.items() if name not in NOT_WRITTEN}
        if chance.random() < 0.3:
            more |= {"agreements": [], "to": []} | author._audience()
        made = before | more
        made |= {name: self.soon() for name in ("retain_until", "review_due") if name in more}
        made["everyone"] = not (made.get("to") or made.get("agreements"))
        if "grants" in more:
            made["grants"] = [(*each[:2], self.soon()) for each in more["grants"]]  # type: ignore[attr-defined]
        return WrittenNotice.model_validate(made)

    def invented(self) -> Sent:
        chance, author = self.chance, self.author()
        kind = chance.choice([*ASKS_RULES, "person", "person", "person", "person", "person"])
        issuer = chance.choice([each for each in self.bureaus if self.life.takes_part(each)] or self.bureaus)
        before = CALM | {"issuer": issuer, "kind": kind, "confidentiality": chance.choice(CONFIDENTIALITIES[:2])}
        sent = self.signed(self.written(before | author._audience(), chance.choice((0, 0, 1, 1, 2, 3))))
        return replace(sent, expires=self.soon()) if self.rarely(0.08) else sent

    def create(self) -> Act:
        return self.publish(self.invented())

    def picked(self) -> Sent | None:
        """A notice that was sent, rather one that stands still."""
        standing = [
            each
            for each in self.sent
            if self.life.takes_part(each.issuer) and self.state(each) not in ("", "replaced", *NOT_IN_FORCE)
        ]
        ruled = [each for each in standing if each.kind not in FOLLOWING]
        found = ruled if ruled and self.rarely(0.85) else self.sent
        return self.chance.choice(found) if found else None

    def known(self, sent: Sent) -> Known | None:
        return self.life.known.get(sent.key)

    def state(self, sent: Sent) -> str:
        known = self.known(sent)
        return known.state if known else ""

    def refer(self, target: Sent, relation: str) -> tuple[Reference, ...]:
        (found,) = target.refers(relation)
        return (replace(found, header_digest=bytes(32)),) if self.rarely(0.02) else (found,)

    def corrected(self, target: Sent) -> Sent:
        chance = self.chance
        before = target.written.model_dump() | {"corrects": True}
        if target.kind in FOLLOWING:
            before = CALM | {"kind": "person", "corrects": True, "everyone": True, "issuer": target.issuer}
        before["issuer"] = chance.choice(self.bureaus) if self.rarely() else target.issuer
        version = target.version + chance.choice((1, 1, 1, 1, 1, 1, 2, 0))
        written = self.written(before, chance.choice((0, 0, 1, 1, 2, 3)))
        sent = self.signed(written, version, self.refer(target, "corrects"))
        ends = self.soon() if self.rarely(0.08) else target.expires if self.rarely(0.5) else None
        return replace(sent, record="other" if self.rarely(0.02) else target.record, expires=ends)

    def correct(self) -> Act | None:
        target = self.picked()
        return self.publish(self.corrected(target)) if target else None

    def followed(self, target: Sent, kind: str, issuer: str) -> Sent:
        """What speaks of another notice; its audience and version decide nothing, and those named may have left."""
        whom: Fields = {"everyone": True}
        if self.rarely(0.1) and kind == "withdrawal":
            whom = {"to": ["GONE"], "grants": [("GONE/b0", ["reason"], self.now)], "handling": ["H2"]}
        written = WrittenNotice.model_validate({"issuer": issuer, "kind": kind, **whom})
        version = target.version + len(self.sent) % 2
        sent = self.signed(written, version, self.refer(target, RELATIONS[kind]))
        return replace(
            sent, record="other" if self.rarely(0.02) else target.record, expires=self.soon() if self.rarely() else None
        )

    def withdraw(self) -> Act | None:
        target, authorities = self.picked(), self.federation.authorities
        if target is None:
            return None
        by_order = authorities and self.rarely(0.25)
        older = [each for each in self.sent if self.state(each) == "replaced"]
        if by_order and older and self.rarely(0.5):  # it may never have heard of the last correction
            target = self.chance.choice(older)
        issuer = authorities[0] if by_order else self.chance.choice(self.bureaus) if self.rarely() else target.issuer
        return self.publish(self.followed(target, "withdrawal", issuer))

    def restrict(self) -> Act | None:
        target = self.picked()
        if target is None:
            return None
        issuer = self.chance.choice(self.bureaus) if self.rarely() else target.issuer
        return self.publish(self.followed(target, "restriction", issuer))

    def reviewed(self) -> list[Sent]:
        """What is held and was given to somebody to review."""
        return [each for each in self.sent if (known := self.known(each)) and known.state == "held" and known.reviewers]

    def approve(self) -> Act | None:
        held = self.reviewed()
        if not held:
            return None
        for bureau in self.some(
            self.bureaus, 0, 0, 2
        ):  # whom it would have reached when it was held, it would no longer
            self.happens(self.subscribe(bureau, turned=True))
        target = self.chance.choice(self.sent if self.rarely() else held)
        known = self.known(target)
        given = sorted(known.reviewers) if known else []
        issuer = self.chance.choice(self.bureaus if self.rarely(0.1) or not given else given)
        verdict = self.chance.choice(("release", "release", "release", "refuse"))
        return self.publish(replace(self.followed(target, "approval", issuer), record="review", verdict=verdict))

    def withdraw_first(self) -> Act:
        """Withdraw what has not come yet; perhaps it comes later."""
        target = self.picked()
        sent = self.corrected(target) if target and self.rarely(0.5) else self.invented()
        self.later.append(sent)
        return self.publish(self.followed(sent, "withdrawal", sent.issuer))

    def come_late(self) -> Act | None:
        return self.publish(self.later.pop()) if self.later else None

    def repeat(self) -> Act | None:
        return Publish(self.chance.choice(self.sent)) if self.sent else None

    # ---- the world ---------------------------------------------------------------------------------------------------

    def subscribe(self, bureau: str | None = None, *, turned: bool = False) -> Act:
        """Subscribe to something, or `turned` to nothing where it was to something, else to everything."""
        bureau = bureau or self.chance.choice(self.bureaus)
        self.subscriptions += 1
        patterns = tuple(sorted({*self.some(list(PATTERNS), 0, 1, 2), *self.some(["*"], 0, 1)}))
        if turned:
            patterns = () if self.life.patterns.get(bureau) else ("*",)
        return Subscribe(bureau, patterns, self.subscriptions, self.generations[bureau])

    def revoke(self) -> Act | None:
        senders = [each.issuer for each in self.reviewed()]
        bureau = self.chance.choice(senders if senders and self.rarely(0.6) else self.bureaus)
        lost = self.generations[bureau]
        if lost + 1 == GENERATIONS or (bureau, lost) in self.life.revoked:
            return None
        self.generations[bureau] = lost + (0 if self.rarely(0.2) else 1)  # who keeps the lost key is refused
        return Revoke(bureau, lost, self.rarely(0.5))

    def sign_anew(self) -> Act | None:
        """Sign the same header under the key of today, as an outbox does once its key has changed."""
        old = [each for each in self.sent if self.life.may_not_sign(each.issuer, each.generation)]
        target = self.chance.choice(old or self.sent) if self.sent else None
        return Publish(replace(target, generation=self.generations[target.issuer])) if target else None

    def end_key(self) -> Act | None:
        """Let a key's time run out, soon; its bureau goes on with the next, or does not notice."""
        bureau = self.chance.choice(self.bureaus)
        old = self.generations[bureau]
        if old + 1 == GENERATIONS or any(each[:2] == (bureau, old) for each in self.federation.ends):
            return None
        self.generations[bureau] = old + (0 if self.rarely(0.3) else 1)
        end = (bureau, old, self.soon())
        self.federation = replace(self.federation, ends=(*self.federation.ends, end))
        return Change(self.federation, f"key {old} of {bureau} ends at {end[-1] % 1_000_000}")

    def join(self) -> Act:
        """Let a bureau begin, of a member or of a new one; it may take part in everything at once."""
        chance, world = self.chance, self.federation.world
        members = sorted({member(each) for each in self.bureaus})
        one = chance.choice([*members, f"N{'ABCDE'[len(self.bureaus) % 5]}"])
        bureau = f"{one}/c{len(self.bureaus)}"
        pairs = world.transfers if one in members else [*world.transfers, *(f"{each}>{one}" for each in members)]
        made = {
            "bureaus": {**world.bureaus, bureau: list(PURPOSES)},
            "transfers": pairs,
            "reviewers": [*world.reviewers, bureau] if self.rarely(0.3) else world.reviewers,
        }
        self.federation = replace(self.federation, world=world.model_copy(update=made))
        self.bureaus.append(bureau)
        self.numbers[bureau] = self.generations[bureau] = self.answers.numbers[bureau] = 0
        return Change(self.federation, f"{bureau} joins")

    def appoint(self) -> Act:
        """Name who may withdraw what others issued."""
        self.federation = replace(self.federation, authorities=tuple(self.some(self.bureaus, 0, 1, 2)))
        return Change(self.federation, f"authorities are {self.federation.authorities}")

    def change(self) -> Act:
        """Change one or two things of the directory."""
        ways = (self.circle, self.circle, self.party, self.suspend, self.mandate, self.transfer, self.office)
        told: Fields = {}
        for way in self.chance.choices(ways, k=self.chance.choice((1, 1, 2))):
            made = way()
            told |= made
            self.federation = replace(self.federation, world=self.federation.world.model_copy(update=made))
        return Change(self.federation, str(told))

    def circle(self) -> Fields:
        """Suspend an agreement, or put it in force again."""
        world = self.federation.world
        active, ended = dict(world.agreements), dict(world.suspended_agreements)
        name = self.chance.choice(sorted(active | ended))
        here, there = (active, ended) if name in active else (ended, active)
        there[name] = here.pop(name)
        return {"agreements": active, "suspended_agreements": ended}

    def party(self) -> Fields:
        """Let a member join an agreement, or leave one on which no transfer of its rests."""
        world = self.federation.world
        field = "agreements" if world.agreements else "suspended_agreements"
        circles: dict[str, list[str]] = getattr(world, field)
        name = self.chance.choice(sorted(circles))
        bound = {each for pair in world.transfers if pair.endswith(f" under {name}") for each in pair[:5].split(">")}
        one = self.chance.choice(sorted({member(each) for each in self.bureaus} - bound) or [""])
        parties = sorted({*circles[name]} ^ ({one} - {""})) or circles[name]
        return {field: {**circles, name: parties}}

    def suspend(self) -> Fields:
        """Suspend a member, or rather let one take part again."""
        suspended = self.federation.world.suspended
        one = self.chance.choice(suspended) if suspended else member(self.chance.choice(self.bureaus))
        return {"suspended": sorted({*suspended} ^ {one})}

    def mandate(self) -> Fields:
        """Give a bureau other mandates or another clearance."""
        world, bureau = self.federation.world, self.chance.choice(self.bureaus)
        if self.rarely(0.5):
            return {"clearances": {**world.clearances, bureau: self.chance.choice(CONFIDENTIALITIES)}}
        return {"bureaus": {**world.bureaus, bureau: self.some(list(PURPOSES), 0, 3, 7, 7)}}

    def transfer(self) -> Fields:
        """End a basis for transfers, or begin one."""
        pairs = list(self.federation.world.transfers)
        if pairs and self.rarely(0.6):
            pairs.remove(self.chance.choice(pairs))
            return {"transfers": pairs}
        one, other = self.chance.sample(sorted({member(each) for each in self.bureaus}), 2)
        return {"transfers": sorted({*pairs, f"{one}>{other}"})}

    def office(self) -> Fields:
        if self.rarely(0.5):
            return {"reviewers": self.some(self.bureaus, 0, 1, 2, 2)}
        return {"supervision": [member(each) for each in self.some(self.bureaus, 0, 0, 1)]}
