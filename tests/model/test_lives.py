"""Whole lives of notices are decided as the documents read: played through the broker, and by a model of the documents.

Many more: .venv/bin/python -m tests.model 1000 20000
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pytest

from broker.register import Register
from tests.model.author import story_of
from tests.model.compare import Came, abreast, parting, retold
from tests.model.life import Life
from tests.model.misread import MISREAD, Misread
from tests.model.played import opened, played

STORIES, FEW = 500, 25
FOUND = (50190, 700638)
"""Stories beyond those in which broker and model, or the auditor, once parted; add the seed of every other."""
Tried = Callable[[int], Came]
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def register() -> Iterator[Register]:
    with opened() as found:
        yield found


@pytest.fixture(scope="module")
def tried(register: Register) -> Tried:
    return cache(lambda seed: played(story_of(seed), register))


@pytest.mark.parametrize(
    "seeds", [range(FEW), FOUND, pytest.param(range(FEW, STORIES), marks=SLOW)], ids=["few", "found", "many"]
)
def test_whole_lives_are_decided_as_the_documents_read(seeds: Sequence[int], tried: Tried, register: Register) -> None:
    for seed in seeds:
        if parting(story_of(seed), tried(seed)):
            pytest.fail(retold(seed, register), pytrace=False)


@SLOW
@pytest.mark.parametrize("misread", MISREAD, ids=lambda each: each.__name__)
def test_with_one_point_of_a_life_misread_they_would_not(misread: type[Misread], tried: Tried) -> None:
    assert any(parting(story_of(seed), tried(seed), misread) for seed in range(STORIES))


@SLOW
def test_an_approval_of_what_was_not_given_is_refused_in_the_same_words_whatever_the_reason(tried: Tried) -> None:
    said = set()
    for seed in range(STORIES // 5):
        story = story_of(seed)
        for _, due, came in abreast(story, tried(seed), Life(story.federation)):
            assert isinstance(came, tuple)
            said |= {leaf.detail for each, leaf in zip(due, came, strict=True) if each.hushed}
    assert len(said) == 1


@SLOW
def test_what_is_tried_is_not_one_sided() -> None:
    found = Counter[str]()
    for seed in range(STORIES):
        story = story_of(seed)
        life = Life(story.federation)
        found.update(due.kind for at, act in story.acts for due in life.take(act, at))
    often = ("routed", "held", "released", "not-released", "withdrawn-by-order", "receipt", "look", "repeated")
    assert min(found[kind] for kind in often) > 20, found
