"""Tells topics of one name apart: one that was deleted and made again has another id (KIP-516).

A place in the one says nothing of the other, and Kafka itself takes offsets by name alone. aiokafka asks for no ids, so
the request is spelled out here (Metadata, version 12).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiokafka import AIOKafkaConsumer

AGAIN_S = 0.05
_TEXT, _ID, _TAGS = CompactString("utf-8"), (("id", Int64), ("id_low", Int64)), ("tags", TaggedFields)


class _Told(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 3, 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("nodes", CompactArray(("node", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)),
        ("cluster", _TEXT),
        ("controller", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                *_ID,
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        *((name, CompactArray(Int32)) for name in ("replicas", "in_sync", "offline")),
                        _TAGS,
                    ),
                ),
                ("operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _Ask(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE, FLEXIBLE_VERSION = 3, 12, _Told, True
    SCHEMA = Schema(
        ("topics", CompactArray(*_ID, ("name", _TEXT), _TAGS)), ("create", Boolean), ("operations", Boolean), _TAGS
    )


class _AskIds(Request[_Ask]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_Ask]) -> _Ask:
        return request_struct_class([(0, 0, each, {}) for each in self._topics], False, False, {})


async def ids(consumer: AIOKafkaConsumer, topics: Collection[str]) -> dict[str, str]:
    """Tell the ids of those of these topics that the node has which answers first. Raises as aiokafka does."""
    if not topics:
        return {}
    client = consumer._client  # noqa: SLF001 -- nothing public sends what aiokafka does not know
    while True:
        try:
            answer = await client.send(client.get_random_node(), _AskIds(topics))
            break
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(AGAIN_S)  # one of three may be down
    if refused := [name for code, name, *_ in answer.topics if code == TopicAuthorizationFailedError.errno]:
        raise TopicAuthorizationFailedError(refused[0])
    return {name: f"{high:x}{low:x}" for code, name, high, low, *_ in answer.topics if not code}


def others(known: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Name the topics that are not those of which these ids are known; one that is gone may come back as it was."""
    return sorted(topic for topic, each in known.items() if there.get(topic, each) != each)
