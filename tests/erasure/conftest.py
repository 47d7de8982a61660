"""The node that the tests here share."""

from tests.kafka_world import federation_kafka

__all__ = ["federation_kafka"]
