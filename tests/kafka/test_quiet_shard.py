"""A shard that wrote nothing for long is owned again: nobody else has come, and the broker does not end."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from aiokafka import errors as kafka_errors

from broker import streams
from broker.bus import Writes
from broker.errors import FencedError, UnavailableError
from broker.kafka import KafkaBus
from broker.kafka_answers import answering
from tests.kafka_world import WORLD, running_kafka

FORGETFUL = {
    "transactional.id.expiration.ms": "1000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}


def clock_record() -> Writes:
    writes = Writes()
    writes.add(streams.REGISTER, b"clock", b"")
    return writes


def test_only_who_was_overtaken_is_fenced() -> None:
    for found, fenced in ((kafka_errors.ProducerFenced, True), (kafka_errors.InvalidProducerIdMapping, False)):
        with pytest.raises(UnavailableError) as failed, answering(streams.ROUTER, "write", streams.REGISTER):
            raise found
        assert isinstance(failed.value, FencedError) is fenced


@pytest.mark.kafka
@pytest.mark.timeout(180)
async def test_a_shard_that_the_nodes_have_forgotten_is_unavailable_and_not_anothers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "aiokafka")  # a record would keep what failed, and the futures below with it
    with running_kafka(WORLD, properties=FORGETFUL) as kafka:
        async with KafkaBus(kafka.bootstrap, streams.ROUTER, kafka.pki(streams.ROUTER), WORLD) as bus:
            async with bus.own(0, [streams.VERSIONS]) as shard:
                await shard.now()
                await asyncio.sleep(5)  # so long it is quiet
                with pytest.raises(UnavailableError) as failed:
                    await shard.commit([], clock_record())
                assert not isinstance(failed.value, FencedError)
            async with bus.own(0, [streams.VERSIONS]) as shard:
                await shard.commit([], clock_record())
    # aiokafka leaves futures with what the old owner failed with, which nobody reads; asyncio logs them when they are
    # freed. Here and now: amid pytest's `ast.parse` CPython 3.11 would end with a SystemError, for formatting the
    # traceback parses, too.
    del failed
    gc.collect()
