"""Producers of librdkafka: transactions of Kafka (KIP-98), and what belongs to none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from streaming.kafka.broker import KafkaBroker
from streaming.kafka.librdkafka_errors import Voice
from streaming.kafka.librdkafka_options import appender_options, consumer_options, writer_options
from streaming.kafka.seam import Placed
from streaming.log import TopicPartition

#: Called with what became of a message, while the producer is waited for.
_Delivered = Callable[[KafkaError | None, "confluent_kafka.Message"], None]


class LibrdkafkaWriter:
    """The transactional producer of one writer; see :class:`streaming.kafka.seam.Writer`.

    Members of a group are fenced by the group (KIP-447), as :class:`streaming.kafka.producer.KafkaWriter` says.

    After an error the transaction is aborted, and the producer given up: librdkafka goes on with a gap in its numbers
    where the broker has refused a message. If it could not be aborted, its fate is known to the broker alone; in any
    case the next producer begins with settling it.
    """

    def __init__(self, broker: KafkaBroker, group: str, transactional_id: str) -> None:
        self._broker = broker
        self._group = broker.name(group)
        self._voice = Voice(broker)
        self._options = writer_options(broker.settings, broker.name(transactional_id))
        self._timeout_s = broker.settings.request_timeout / 1_000.0
        self._delivery_s = self._options["message.timeout.ms"] / 1_000.0
        self._guard = threading.Lock()
        self._producer: confluent_kafka.Producer | None = None
        self._stranger: Any = None

    def settle(self) -> None:
        """End what an earlier transaction of this id has left open."""
        with self._guard:
            self._ready()

    def commit(
        self, messages: Sequence[Placed], offsets: Mapping[TopicPartition, int], member: Any
    ) -> dict[TopicPartition, int]:
        """Write messages and offsets in one transaction.

        ``member`` is what ``consumer_group_metadata`` of confluent-kafka returns, or ``None``.
        """
        with self._guard:
            producer = self._ready()
            with self._voice.explained("commit a transaction"):
                try:
                    producer.begin_transaction()
                    ends = self._send(producer, messages)
                    if offsets:
                        theirs = [
                            confluent_kafka.TopicPartition(self._broker.name(where.topic), where.partition, offset)
                            for where, offset in offsets.items()
                        ]
                        member = self._nobody() if member is None else member
                        producer.send_offsets_to_transaction(theirs, member, self._timeout_s)
                    producer.commit_transaction(self._delivery_s + self._timeout_s)
                except BaseException as error:
                    self._producer = None
                    self._abort(producer, error)
                    raise
        return ends

    def close(self) -> None:
        """Close the producer."""
        with self._guard:
            self._producer = None

    def _ready(self) -> confluent_kafka.Producer:
        if self._producer is None:
            with self._voice.explained("begin transactions"):
                producer = confluent_kafka.Producer(self._options | self._voice.options())
                try:
                    producer.init_transactions(self._timeout_s)
                except KafkaException:
                    producer.poll(0.0)  # hear the reasons
                    raise
            self._producer = producer
        return self._producer

    def _send(self, producer: confluent_kafka.Producer, messages: Sequence[Placed]) -> dict[TopicPartition, int]:
        """Hand over messages; what is returned is complete when the transaction is committed.

        A message that cannot be delivered fails the commit, so that none has to be looked at.
        """
        ends: dict[TopicPartition, int] = {}
        last = {where: number for number, (where, _) in enumerate(messages)}

        def delivered(where: TopicPartition) -> _Delivered:
            def note(error: KafkaError | None, message: confluent_kafka.Message) -> None:
                offset = message.offset()
                if error is None and offset is not None:
                    ends[where] = offset + 1

            return note

        start = 0
        for where, number in sorted(last.items(), key=lambda item: item[1]):
            produce(self._broker, producer, messages[start:number], None)
            produce(self._broker, producer, messages[number : number + 1], delivered(where))
            start = number + 1
        return ends

    def _nobody(self) -> Any:
        """Return the metadata of one who is no member: by it offsets are taken while the group has no members."""
        if self._stranger is None:
            options = consumer_options(self._broker.settings) | {"group.id": self._group}
            consumer = confluent_kafka.Consumer(options | self._voice.options())
            self._stranger = consumer.consumer_group_metadata()
            consumer.close()
        return self._stranger

    def _abort(self, producer: confluent_kafka.Producer, error: BaseException) -> None:
        producer.poll(0.0)  # hear the reasons
        if isinstance(error, KafkaException) and not error.args[0].txn_requires_abort():
            return  # fenced, or no answer in good time: there would be none to this either
        with suppress(KafkaException):
            producer.abort_transaction(self._timeout_s)


class LibrdkafkaAppender:
    """The producer of what belongs to no transaction; see :class:`streaming.kafka.seam.Appender`."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._voice = Voice(broker)
        self._guard = threading.Lock()
        self._producer: confluent_kafka.Producer | None = None

    def append(self, messages: Sequence[Placed]) -> None:
        """Write messages; return when they are safe."""
        settings = self._broker.settings
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            if error is not None:
                failures.append(error)

        with self._guard, self._voice.explained("append records"):
            if self._producer is None:
                self._producer = confluent_kafka.Producer(
                    appender_options(settings) | self._voice.options() | {"delivery.report.only.error": True}
                )
            try:
                produce(self._broker, self._producer, messages, delivered)
                left = self._producer.flush(settings.delivery_timeout / 1_000.0 + 1.0)
                if left:
                    failures.append(KafkaError(KafkaError._TIMED_OUT, f"{left} records were not acknowledged in time"))
                if failures:
                    raise KafkaException(failures[0])
            except BaseException:
                self._producer = None  # nothing of this call may be sent after it
                raise

    def close(self) -> None:
        """Close the producer."""
        with self._guard:
            self._producer = None


def produce(
    broker: KafkaBroker, producer: confluent_kafka.Producer, messages: Sequence[Placed], delivered: _Delivered | None
) -> None:
    """Hand over messages to a producer; raises ``KafkaException`` for one that it refuses at once."""
    names = {topic: broker.name(topic) for topic in {where.topic for where, _ in messages}}
    send = producer.produce
    for (topic, partition), (_, key, value, timestamp_ms, headers, _) in messages:
        # Kafka has no time before 1970, and librdkafka takes 0 for now. None is ``delivered`` by its other name: given
        # there, it is not called.
        time_ms = timestamp_ms if timestamp_ms > 0 else 1
        send(names[topic], value, key, partition, delivered, None, time_ms, list(headers))
