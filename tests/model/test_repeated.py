"""An auditor repeats every decision of whole lives with Cedar, from what is on record."""

from __future__ import annotations

import pytest

from broker.judge import Ruling
from broker.notice import RELEASED
from broker.redecide import Difference, Grounds, redecide
from broker.step import Done
from tests.model.author import story_of
from tests.model.played import POLICIES, Played, emptied, opened
from tests.model.story import Outcome

FEW, MANY = 2, 20
DECIDED = ("routed", "held", RELEASED)


class Repeated(Played):
    """A broker whose auditor repeats each decision, on what was in force before its step."""

    def _done(self, done: Done, rulings: list[Ruling]) -> tuple[Outcome, ...]:
        grounds = Grounds(self.view.directory, self.view.rules.annex, POLICIES, dict(self.patterns))
        came = super()._done(done, rulings)
        for each in done.entries:
            recorded = self.auditor.found.get(each.leaf_number)
            if recorded and recorded.leaf.kind in DECIDED:
                self.differing += [(each.leaf_number, found) for found in redecide(recorded, grounds).differences]
                self.repeated += 1
        return came

    repeated = 0
    differing: list[tuple[int, Difference]]


@pytest.mark.parametrize(
    "seeds", [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_every_decision_of_a_life_is_repeated_from_its_record(seeds: range) -> None:
    with opened() as register:
        for seed in seeds:
            story = story_of(seed)
            broker = Repeated(story.federation, register)
            broker.differing = []
            for at, act in story.acts:
                broker.take(act, at)
            emptied(register)
            assert broker.repeated
            assert not broker.differing, f"seed {seed}"
