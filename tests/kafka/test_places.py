"""A place that a group has kept is never told as none, whichever node is its coordinator by now."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3

from broker import kafka_read

PLACE = TopicPartition("notices.at", 0)
KEPT = [("notices.at", [(0, 58, "", 0)])]
NOT_KEPT = [("notices.at", [(0, -1, "", 0)])]


class Coordinator(GroupCoordinator):  # type: ignore[misc]  # aiokafka is untyped
    """A coordinator of aiokafka's, whose nodes answer as is said here."""

    def __init__(self, *answers: Any) -> None:
        kafka_read.tune()
        self._client, self._answers = SimpleNamespace(send=self._send), deque(answers)
        self.group_id, self.coordinator_id, self._retry_backoff_ms = "router.0", 1, 0
        self.deaths = 0

    async def _send(self, *_: Any, **__: Any) -> Any:
        return self._answers.popleft()

    async def ensure_coordinator_known(self) -> None:
        """Know one."""

    def coordinator_dead(self) -> None:
        """Count how often another was to be looked for."""
        self.deaths += 1


@pytest.mark.parametrize(("code", "deaths"), [(14, 0), (15, 1), (16, 1)])
async def test_a_node_that_is_not_the_coordinator_is_not_taken_to_say_that_none_was_kept(
    code: int, deaths: int
) -> None:
    """From version 2 on it says so of the group, and of no stream; all would be taken in from the beginning anew."""
    asked = Coordinator(OffsetFetchResponse_v3(0, [], code), OffsetFetchResponse_v3(0, KEPT, 0))
    assert (await asked.fetch_committed_offsets([PLACE]))[PLACE].offset == 58
    assert asked.deaths == deaths


async def test_a_group_that_is_refused_is_not_taken_to_have_kept_none() -> None:
    with pytest.raises(kafka_errors.GroupAuthorizationFailedError):
        await Coordinator(OffsetFetchResponse_v3(0, [], 30)).fetch_committed_offsets([PLACE])


@pytest.mark.parametrize("answer", [OffsetFetchResponse_v3(0, NOT_KEPT, 0), OffsetFetchResponse_v1(NOT_KEPT)])
async def test_where_none_was_kept_there_is_none(answer: Any) -> None:
    assert await Coordinator(answer).fetch_committed_offsets([PLACE]) == {}
