"""Topics are compared with the table of streams also while the nodes are still learning of them."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker import kafka_admin, topics
from broker.errors import UnavailableError
from broker.streams import FAMILIES, World, family_of

if TYPE_CHECKING:
    from collections.abc import Sequence

WORLD = World(("AT",), ("AT/ncb",))
NEW = "inbox.at.ncb"


class Nodes:
    """Nodes that list all topics; the one that is asked for settings does not know NEW for so many questions more."""

    def __init__(self, late: float) -> None:
        self._late = late

    def list_topics(self, timeout: float) -> Any:  # noqa: ARG002
        topic = SimpleNamespace(partitions={0: SimpleNamespace(replicas=[1])})
        return SimpleNamespace(brokers={1: None}, topics=dict.fromkeys(WORLD.streams(), topic))

    def describe_configs(self, resources: Sequence[Any], request_timeout: float) -> dict[Any, Future[Any]]:  # noqa: ARG002
        self._late -= 1
        return {each: self._described(each.name) for each in resources}

    def _described(self, name: str) -> Future[Any]:
        done: Future[Any] = Future()
        if name == NEW and self._late >= 0:
            done.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
            return done
        config = topics.topic_config(FAMILIES[family_of(name).name]) | ({"retention.ms": "7"} if name == NEW else {})
        done.set_result({each: SimpleNamespace(name=each, value=value) for each, value in config.items()})
        return done


def differences(nodes: Nodes) -> list[tuple[str, str]]:
    wants = topics._Wants(WORLD, 1, topics.STEADY, {}, 1)
    return [(each.topic, each.name) for each in topics._differences(cast("Any", nodes), wants)]


@pytest.mark.parametrize("late", [0, 3])
def test_a_topic_that_one_node_knows_and_another_not_yet_is_compared_when_both_do(late: int) -> None:
    assert differences(Nodes(late)) == [(NEW, "retention.ms")]


def test_a_topic_whose_settings_no_node_tells_is_not_called_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_admin, "ANSWER_LIMIT_S", 0.1)
    with pytest.raises(UnavailableError, match="which topics there are"):
        differences(Nodes(float("inf")))
