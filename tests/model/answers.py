"""Invents what is said of notices while a story goes on: receipts of bureaus, and looks of an auditor's."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tests.model.life import Given, Life
from tests.model.story import AUDITOR, RESULTS, Act, Ask, Confirm, Item
from tests.policy.oracle import member


class Answers:
    """Answers and asks in any order, twice, for what has ended, and for what it was never given.

    It has a source of chance of its own: the notices of a story are the same with it and without.
    """

    def __init__(self, seed: int, life: Life, generations: Mapping[str, int]) -> None:
        self.chance = random.Random(f"answers {seed}")
        self.life, self.generations = life, generations
        self.numbers = dict.fromkeys(generations, 0)
        self.said: list[Act] = []

    def some(self) -> list[Act]:
        """None to three; the model knows what was given by now."""
        return [each for _ in range(self.chance.choice((0, 0, 1, 1, 2, 3))) if (each := self._act()) is not None]

    def rarely(self, share: float) -> bool:
        return self.chance.random() < share

    def _act(self) -> Act | None:
        if self.said and self.rarely(0.1):
            return self.chance.choice(self.said)
        given = dict(self.life.given)
        if not given:
            return None
        act = self._ask(given) if self.rarely(0.15) else self._confirm(given)
        self.said.append(act)
        return act

    def _confirm(self, given: dict[int, Given]) -> Confirm:
        chance = self.chance
        handed = [each for each, found in given.items() if found.bureaus]
        leaf = chance.choice(handed if handed and not self.rarely(0.03) else sorted(given))
        bureau = chance.choice(sorted(given[leaf].bureaus) or sorted(self.generations))
        if self.rarely(0.1):
            bureau = chance.choice(sorted(self.generations))
        issuer = given[leaf].issuer
        mine = [each for each, found in given.items() if found.issuer == issuer and bureau in found.bureaus]
        leaves = [leaf, *chance.sample(mine, min(len(mine), chance.choice((0, 0, 0, 1, 2))))]
        items = tuple(Item(each, given[each].digest) for each in leaves)
        if self.rarely(0.08):
            one = chance.choice(sorted(given))
            items = (
                *items,
                chance.choice((Item(one, given[leaf].digest), Item(one, given[one].digest), Item(-1, bytes(32)))),
            )
        act = chance.choice((*RESULTS, "erased", "erased"))
        result = chance.choice(RESULTS[act])
        if self.rarely(0.03):
            act, result = chance.choice((("burnt", None), ("read", "hit"), ("erased", None), ("outcome", "erased")))
        if self.rarely(0.04):
            issuer = member(chance.choice(sorted(self.generations)))
        return Confirm(bureau, issuer, act, result, items, self._number(bureau), self._generation(bureau))

    def _number(self, bureau: str) -> int:
        """The next number of the bureau, rarely one that it used, left out, or that is none."""
        number = self.numbers[bureau] + 1
        if self.rarely(0.08):
            number = self.chance.choice((0, 1, max(1, number - 1), number + 1, number + 2))
        self.numbers[bureau] = max(number, self.numbers[bureau])
        return number

    def _generation(self, bureau: str) -> int:
        now = self.generations[bureau]
        return max(0, now - 1) if self.rarely(0.1) else now

    def _ask(self, given: dict[int, Given]) -> Ask:
        chance = self.chance
        leaf = chance.choice(sorted(given))
        issuer = given[leaf].issuer
        others = [each for each, found in given.items() if found.issuer == issuer]
        leaves = tuple({leaf, *chance.sample(others, min(len(others), chance.choice((0, 0, 1))))})
        if self.rarely(0.15):
            leaves = (*leaves, chance.randrange(self.life.leaves + 2))
        return Ask(AUDITOR, len(self.said).to_bytes(16, "big"), issuer, leaves)
