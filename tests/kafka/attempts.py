"""Six acts on every stream, each really tried with a principal's certificate, and what Kafka answered."""

from __future__ import annotations

import ssl
from enum import Enum
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its __init__ offers them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from tests.kafka import bare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.certificates import Credentials

ACTS = ("read", "write", "describe", "create", "alter configs", "delete")


class Outcome(Enum):
    ALLOWED = "allowed"
    REFUSED = "refused by a binding that is missing"
    UNREACHABLE = "refused in the TLS handshake"


REFUSALS = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
SILENCES = {
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._SSL,
}


class Attempts:
    """One principal's tries; `limit` is how long it waits for an answer, in seconds."""

    def __init__(self, bootstrap: str, ca: str, who: Credentials | None, limit: float) -> None:
        self.bootstrap, self.ca, self.who, self.limit = bootstrap, ca, who, limit
        self.settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": ca,
            "log_level": 0,
            "log.connection.close": False,
            "error_cb": lambda _: None,
        }
        if who is not None:
            self.settings |= {"ssl.certificate.location": str(who.chain), "ssl.key.location": str(who.key)}
        self.admin = AdminClient(self.settings)

    def try_all(self, streams: Sequence[str]) -> dict[str, dict[str, Outcome]]:
        """Deleting comes last: where it is allowed, nothing is left to try."""
        return {
            "read": self.read(streams),
            "write": self.write(streams),
            "describe": self.describe(streams),
            "create": self.create(streams),
            "alter configs": self.alter_configs(streams),
            "delete": self.delete(streams),
        }

    def read(self, streams: Sequence[str]) -> dict[str, Outcome]:
        context = bare.client_context(self.ca, self.who)
        try:
            answers = bare.fetch(self.bootstrap.split(",")[0], context, streams)
        except (ssl.SSLError, ConnectionError):
            return dict.fromkeys(streams, Outcome.UNREACHABLE)
        for error, data in answers.values():
            # Allowed means that records came, refused that not a byte did.
            assert bool(data) == (error == KafkaError.NO_ERROR)
        return {stream: judge(answers[stream][0]) for stream in streams}

    def write(self, streams: Sequence[str]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        producer = Producer(self.settings | {"acks": "all", "message.timeout.ms": int(self.limit * 1000)})
        for stream in streams:
            producer.produce(
                stream,
                value=b"invented",
                key=b"key",
                on_delivery=lambda error, message: found.__setitem__(
                    str(message.topic()), judge(error.code() if error else KafkaError.NO_ERROR)
                ),
            )
        assert producer.flush(self.limit + 60) == 0
        return found

    def describe(self, streams: Sequence[str]) -> dict[str, Outcome]:
        wanted = TopicCollection(topic_names=list(streams))
        return settle(self.admin.describe_topics(wanted, request_timeout=self.limit))

    def listed(self) -> set[str]:
        return set(self.admin.list_topics(timeout=self.limit).topics)

    def create(self, streams: Sequence[str]) -> dict[str, Outcome]:
        wanted = [NewTopic(stream, num_partitions=1) for stream in streams]
        return settle(self.admin.create_topics(wanted, request_timeout=self.limit))

    def alter_configs(self, streams: Sequence[str]) -> dict[str, Outcome]:
        change = ConfigEntry("retention.ms", "60000", incremental_operation=AlterConfigOpType.SET)
        wanted = [ConfigResource(ResourceType.TOPIC, stream, incremental_configs=[change]) for stream in streams]
        found = settle(self.admin.incremental_alter_configs(wanted, request_timeout=self.limit))
        return {resource.name: outcome for resource, outcome in found.items()}

    def delete(self, streams: Sequence[str]) -> dict[str, Outcome]:
        return settle(self.admin.delete_topics(list(streams), request_timeout=self.limit))


def settle(answers: Any) -> dict[Any, Outcome]:
    """Wait for the answers to one request about many topics."""
    return {key: judge(code_of(answer)) for key, answer in answers.items()}


def code_of(answer: Any) -> int:
    try:
        answer.result(timeout=120)
    except KafkaException as error:
        return int(error.args[0].code())
    return int(KafkaError.NO_ERROR)


def judge(code: int) -> Outcome:
    """What a code says; one that we did not foresee is no refusal and fails the test."""
    if code in {KafkaError.NO_ERROR, KafkaError.TOPIC_ALREADY_EXISTS}:
        return Outcome.ALLOWED
    if code in SILENCES:
        return Outcome.UNREACHABLE
    assert code in REFUSALS, code
    return Outcome.REFUSED
