"""Errors of librdkafka in words that a person can act on: the same as those of kafka-python."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from streaming.kafka.broker import KafkaBroker

logger = logging.getLogger("kafka.librdkafka")

#: The codes of a broker are the same in both libraries; those of librdkafka itself are negative.
_LOCAL: dict[int, type[errors.KafkaError]] = {
    KafkaError._AUTHENTICATION: errors.SaslAuthenticationFailedError,
    KafkaError._FENCED: errors.ProducerFencedError,
    # The only one of a consumer that is for ever; what is for ever to a producer is told with its own code.
    KafkaError._FATAL: errors.FencedInstanceIdError,
    KafkaError._ASSIGNMENT_LOST: errors.CommitFailedError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_PARTITION: errors.UnknownTopicOrPartitionError,
    KafkaError._UNSUPPORTED_FEATURE: errors.UnsupportedVersionError,
    KafkaError._INVALID_ARG: errors.InvalidConfigurationError,
    KafkaError._TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._MSG_TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._TRANSPORT: errors.KafkaConnectionError,
    KafkaError._ALL_BROKERS_DOWN: errors.KafkaConnectionError,
    KafkaError._RESOLVE: errors.KafkaConnectionError,
    KafkaError._SSL: errors.KafkaConnectionError,
    KafkaError._WAIT_COORD: errors.KafkaConnectionError,
}
#: They say that there was no answer; why, the library has told before, beside.
_WITHOUT_REASON = (errors.KafkaTimeoutError, errors.KafkaConnectionError)


class Voice:
    """What one client of librdkafka says beside its answers: to the logger, and as the reason of a later timeout."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._heard: KafkaError | None = None

    def options(self) -> dict[str, Any]:
        """Return the options by which a client of confluent-kafka is heard."""
        return {"error_cb": self._hear, "logger": logger}

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Raise ``LogError`` for any error of librdkafka.

        ``doing`` is in the infinitive. The reason of a timeout is known if the client was polled meanwhile.
        """
        with self._broker.explained(doing):
            try:
                yield
            except KafkaException as error:
                raise self._translated(error.args[0]) from error

    def _hear(self, error: KafkaError) -> None:
        self._heard = error

    def _translated(self, error: KafkaError) -> errors.KafkaError:
        """Return the error of kafka-python that says the same."""
        kind, text = _kind(error), error.str()
        if self._heard is not None and issubclass(kind, _WITHOUT_REASON):
            reason = _kind(self._heard)
            kind = kind if issubclass(reason, _WITHOUT_REASON) else reason
            text = f"{text}; {self._heard.str()}"
        return kind(text)


def _kind(error: KafkaError) -> type[errors.KafkaError]:
    code = error.code()
    kind: type[errors.KafkaError] = errors.for_code(code) if code >= 0 else _LOCAL.get(code, errors.KafkaError)
    return kind
