"""On Kafka what has ended leaves the nodes' raw files by time alone: retention, segment, look, file delete delay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient

from broker import kafka_admin, topics
from broker.bus import Copies, Writes
from broker.kafka import KafkaBus
from broker.streams import FAMILIES, REGISTER, ROUTED, ROUTER, SETUP, adapter, inbox, notices
from tests.kafka_world import QUICK_TOPICS, WORLD, KafkaWorld, running_kafka

if TYPE_CHECKING:
    from broker.bus import Bus

NEEDLE = b"Zebedee Unmistakable"
KEPT_MS = 20_000
"""As long at least writing and the first look here may take; a node looks later for the first time."""
SHORT = {"retention.ms": str(KEPT_MS)}
STREAMS = (notices("AT"), ROUTED, inbox("AT/organised-crime"), REGISTER)
LIMIT_S = 180.0
"""A node looks for the first time half a minute after its start, and a busy one later."""


def holding(kafka: KafkaWorld) -> set[str]:
    """Name the streams in whose raw files the needle is; those that wait to be deleted count, too."""
    data = kafka.cluster.folder(1) / "data"
    found = set[str]()
    for each in data.rglob("*"):
        try:
            if each.is_file() and NEEDLE in each.read_bytes():
                found.add(each.parent.name.rpartition("-")[0])
        except FileNotFoundError:
            continue  # the node took it in this moment
    return found


async def write(router: Bus, member: Bus, value: bytes) -> None:
    """Put one value on each stream that holds bodies, the register under one key."""
    await member.append(notices("AT"), [(b"", value)])
    async with router.own(0, []) as shard:
        await shard.commit([], Writes([(ROUTED, b"1", value), (REGISTER, b"notice/AT/ncb/01", value)]))
    await router.fan_out([Copies(value[:8], value, [(inbox("AT/organised-crime"), b"own ")])])


@pytest.mark.kafka
@pytest.mark.slow
async def test_raw_segments_hold_nothing_of_it_after_the_time_that_the_settings_add_up_to() -> None:
    with running_kafka(WORLD, overrides={"notices": SHORT, "routed": SHORT, "inbox": SHORT}) as kafka:
        async with (
            KafkaBus(kafka.bootstrap, ROUTER, kafka.pki(ROUTER), WORLD) as router,
            KafkaBus(kafka.bootstrap, adapter("AT"), kafka.pki(adapter("AT")), WORLD) as member,
        ):
            await write(router, member, NEEDLE * 10)
            assert holding(kafka) == set(STREAMS)
            # A segment is closed, and a compacted stream let go of it, only when something comes after it.
            async with asyncio.timeout(LIMIT_S):
                turn = 0
                while holding(kafka):
                    turn += 1
                    await write(router, member, b"%08d" % turn)
                    place = await member.end(inbox("AT/organised-crime"))
                    await member.read(inbox("AT/organised-crime"), place, wait=0.5)


@pytest.mark.kafka
def test_everything_that_erasure_depends_on_stands_in_each_topic(federation_kafka: KafkaWorld) -> None:
    admin = AdminClient(kafka_admin.client_settings(federation_kafka.bootstrap, federation_kafka.credentials(SETUP)))
    resources = [topics.config_resource(each) for each in WORLD.streams()]
    for resource, done in admin.describe_configs(resources).items():
        standing = {name: entry.value for name, entry in done.result(30).items() if not entry.is_default}
        family = FAMILIES[resource.name.partition(".")[0]]
        for name, wanted in topics.topic_config(family, QUICK_TOPICS).items():
            assert standing.get(name) == wanted, (resource.name, name)


def test_the_settings_in_production_are_these() -> None:
    config = topics.topic_config(FAMILIES["notices"])
    assert config["retention.ms"] == str(30 * 86_400_000)
    spelled = {"segment.ms", "max.compaction.lag.ms", "file.delete.delay.ms", "delete.retention.ms", "cleanup.policy"}
    for family in FAMILIES.values():
        assert topics.topic_config(family).keys() >= spelled
    hour = 3_600_000
    assert (topics.STEADY.segment, topics.STEADY.compaction_lag, topics.STEADY.file_delete) == (hour, hour, 10_000)
