"""Asks nodes which topics there are at a bounded rate, for as long as one that is wanted has no place there.

aiokafka's consumer asks again as soon as it has its answer: a thousand times a second while a topic is gone.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.client import AIOKafkaClient

FIRST_S, LONGEST_S = 0.01, 0.25
"""Between two questions: a topic that was just made, or a node that just took over, is known soon."""
_plainly = AIOKafkaClient._metadata_update  # noqa: SLF001 -- aiokafka's own way
_pauses: WeakKeyDictionary[AIOKafkaClient, float] = WeakKeyDictionary()
"""By client: how long its next question is to wait."""


async def _ask_in_time(self: Any, cluster: Any, topics: Any) -> bool:
    """Ask as aiokafka does, after a pause that grows with each answer in which something of `topics` is lacking."""
    ours = cluster is self.cluster  # not a look of ours at all topics
    pause = _pauses.get(self, 0.0) if ours else 0.0
    if pause:
        await asyncio.sleep(pause)
    updated: bool = await _plainly(self, cluster, topics)
    if ours:
        whole = all(_is_led(cluster, each) for each in topics)
        _pauses[self] = 0.0 if whole else min(LONGEST_S, max(FIRST_S, 2 * pause))
    return updated


def _is_led(cluster: Any, topic: str) -> bool:
    there: set[int] | None = cluster.partitions_for_topic(topic)
    return there is not None and there == cluster.available_partitions_for_topic(topic)


def tune() -> None:
    """Have all clients of aiokafka ask so; doing so again changes nothing."""
    AIOKafkaClient._metadata_update = _ask_in_time  # noqa: SLF001 -- nothing public lies between it and its questions
