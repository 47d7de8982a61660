"""Bounds how fast each party may write to the nodes: a flood then fills their disks in days, not in hours.

Streams keep 30 days, however much that is: what was not taken must not go for another's flood. Kafka bounds the rate of
each user at each node (client quotas, KIP-546); neither client library has the request, so it is spelled out here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Float64, Int16, Int32, Schema, String

from broker.errors import UnavailableError
from broker.kafka_answers import answering
from broker.streams import OPERATOR, ROUTER, SETUP

if TYPE_CHECKING:
    from broker.certificates import Credentials

LIMIT_S = 30.0
RATE = 4 << 20
"""Bytes a second that a member's principal may write to one node: a thousand notices and more."""
UNBOUNDED = float(1 << 50)
TRUSTED = (ROUTER, OPERATOR, SETUP)
"""Who writes for all must not wait: a user of its own bound is not under that of everybody."""
_ENTITY = Array(("type", String("utf-8")), ("name", String("utf-8")))


class _Altered(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY, API_VERSION = 49, 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("entries", Array(("error_code", Int16), ("error_message", String("utf-8")), ("entity", _ENTITY))),
    )


class _Alter(RequestStruct):  # type: ignore[misc]
    API_KEY, API_VERSION, RESPONSE_TYPE = 49, 0, _Altered
    SCHEMA = Schema(
        (
            "entries",
            Array(
                ("entity", _ENTITY),
                ("ops", Array(("key", String("utf-8")), ("value", Float64), ("remove", Boolean))),
            ),
        ),
        ("validate_only", Boolean),
    )


class _AlterQuotas(Request[_Alter]):  # type: ignore[misc]
    API_KEY = 49

    def __init__(self, rates: dict[str | None, float]) -> None:
        self._rates = rates

    def build(self, request_struct_class: type[_Alter]) -> _Alter:
        entries = [([("user", user)], [("producer_byte_rate", rate, False)]) for user, rate in self._rates.items()]
        return request_struct_class(entries, False)


async def bound(bootstrap: str, setup: Credentials, rate: float = RATE) -> None:
    """Bound what everybody may write, but for those who write for all. Raises UnavailableError, if refused, too."""
    rates: dict[str | None, float] = {None: float(rate)} | dict.fromkeys(TRUSTED, UNBOUNDED)
    context = create_ssl_context(cafile=str(setup.ca), certfile=str(setup.chain), keyfile=str(setup.key))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, security_protocol="SSL", ssl_context=context)
    with answering(SETUP, "bound", "what members write"):
        try:
            async with asyncio.timeout(LIMIT_S):
                await admin.start()
                answer = await admin._send_request(_AlterQuotas(rates))  # noqa: SLF001 - it has no public way for it
        finally:
            await admin.close()
    if refused := [said or f"error {code}" for code, said, _ in answer.entries if code]:
        raise UnavailableError(f"the Kafka nodes did not bound what members write: {refused[0]}")
