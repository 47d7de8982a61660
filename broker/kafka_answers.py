"""Turns what aiokafka raises into what can be done about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiokafka import errors as kafka_errors

from broker.errors import FencedError, ForbiddenStreamError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORBIDDEN = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
)
# Not InvalidProducerIdMapping (mostly wrapped, anyway): the nodes forget who writes under a transactional id once that
# was quiet for long enough (7 days by default), and nobody else need have come. Who owns it anew fences whoever has.
_FENCED = (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch)
# Its state errors are asserts.
FAILED = (kafka_errors.KafkaError, OSError, TimeoutError, AssertionError)


@contextmanager
def answering(principal: str, act: str, stream: str) -> Iterator[None]:
    """Turn what aiokafka says into who can mend it."""
    try:
        yield
    except _FENCED as error:
        raise FencedError(f"another process has taken over what {principal} writes") from error
    except _FORBIDDEN as error:
        raise ForbiddenStreamError(principal, act, stream) from error
    except FAILED as error:
        raise UnavailableError(f"{principal} could not {act} {stream}: {error!r}") from error
