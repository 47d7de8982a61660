"""The administrators' side of Kafka, by librdkafka: whoever asks, how long an answer may take, what a refusal means."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from broker.errors import ForbiddenStreamError, UnavailableError
from broker.streams import SETUP

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from confluent_kafka.admin import AdminClient

    from broker.certificates import Credentials

ANSWER_LIMIT_S = 30.0
LOOK_S = 0.05


def client_settings(bootstrap: str, who: Credentials) -> dict[str, str | int | float | bool]:
    """Spell a principal's way to the nodes as librdkafka wants it."""
    return {
        "bootstrap.servers": bootstrap,
        "security.protocol": "ssl",
        "ssl.ca.location": str(who.ca),
        "ssl.certificate.location": str(who.chain),
        "ssl.key.location": str(who.key),
        "log_level": 0,  # what fails is raised; lines on stderr would stand between answer and reader
    }


def metadata(admin: AdminClient) -> Any:
    """List nodes and topics, as librdkafka gives them. Raises UnavailableError."""
    try:
        return admin.list_topics(timeout=ANSWER_LIMIT_S)
    except KafkaException as error:
        raise UnavailableError(f"the Kafka nodes do not answer: {error}") from error


def settle(done: Future[Any], act: str, stream: str, tolerate: int | None = None) -> Any:
    """Wait for one answer and sort a refusal by who can mend it."""
    try:
        return done.result(timeout=ANSWER_LIMIT_S)
    except TimeoutError as error:
        raise UnavailableError(f"the Kafka nodes did not answer within {ANSWER_LIMIT_S:.0f} s") from error
    except KafkaException as error:
        code = error.args[0].code()
        if code == tolerate:
            return None
        if code in {KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED}:
            raise ForbiddenStreamError(f"the certificate given for {SETUP}", act, stream) from error
        raise UnavailableError(f"the Kafka nodes could not {act} {stream}: {error}") from error


def until(reached: Callable[[], bool], otherwise: str) -> None:
    """Look again and again until it is so. Raises UnavailableError, which says `otherwise`, if that takes too long."""
    deadline = time.monotonic() + ANSWER_LIMIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise UnavailableError(f"{otherwise}, after {ANSWER_LIMIT_S:.0f} s")
        time.sleep(LOOK_S)
