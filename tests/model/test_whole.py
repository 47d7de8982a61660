"""Whole brokers, on the embedded bus and on Kafka, do with a story what its model says."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from broker import streams
from broker.kafka import KafkaBus
from broker.sqlite import SqliteBus
from tests.fake_bus import Clock
from tests.kafka_world import running_kafka
from tests.making import NOW
from tests.model.author import Author
from tests.model.compare import parting, told
from tests.model.story import Outcome, Story
from tests.model.whole import lived, streams_of

MORE = range(1, 4)
FEW = 30
"""Acts that are played on Kafka, where each takes a second; the first are subscriptions."""


def check(story: Story, came: list[tuple[Outcome, ...]]) -> None:
    if found := parting(story, came):
        pytest.fail(told(story, came, found), pytrace=False)


@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)])
@pytest.mark.parametrize("hurried", [False, True], ids=["one by one", "at once"])
async def test_a_broker_on_the_embedded_bus_does_what_the_model_says(seed: int, hurried: bool, tmp_path: Path) -> None:
    story, clock = Author(seed).story(), Clock(NOW)
    scope, file = streams_of(story), tmp_path / "bus.db"
    async with SqliteBus(file, streams.SETUP, scope, lambda: clock.now) as bus:
        await bus.create(list(scope.streams()))

    def wind(at: int) -> None:
        clock.now = at

    def open_bus(name: str) -> SqliteBus:
        return SqliteBus(file, name, scope, lambda: clock.now)

    check(*await lived(story, tmp_path, open_bus, lambda: clock.now, wind, hurried=hurried))


@pytest.mark.kafka
async def test_a_broker_on_kafka_does_what_the_model_says(tmp_path: Path) -> None:
    story = Author(1, now()).story()
    story = replace(story, acts=story.acts[:FEW])
    scope = streams_of(story)
    with running_kafka(scope) as kafka:

        def open_bus(name: str) -> KafkaBus:
            return KafkaBus(kafka.bootstrap, name, kafka.pki(name), scope)

        check(*await lived(story, tmp_path, open_bus, now))


def now() -> int:
    return time.time_ns() // 1_000_000
