"""Producers of kafka-python: transactions of Kafka (KIP-98), and what belongs to none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import kafka
from kafka import errors

from engine.errors import LogError
from streaming.kafka.broker import KafkaBroker
from streaming.kafka.client import Producer, connect
from streaming.kafka.seam import Placed
from streaming.log import TopicPartition

logger = logging.getLogger(__name__)


class KafkaWriter:
    """The transactional producer of one writer; see :class:`streaming.kafka.seam.Writer`.

    Members of a group are fenced by the group (KIP-447): the broker takes consumed offsets from the present
    generation of its members alone, so a member that was thought dead, and wakes after others have its partitions,
    cannot commit. Therefore the transactional id need not be that of a partition; it is that of the process. With an
    ``instance_id`` it survives a restart, which then ends at once what the last process left open.

    After an error the transaction is aborted and the producer given up. If the abort fails too, the fate of the
    transaction is known to the broker alone; the next producer begins with settling it.
    """

    def __init__(self, broker: KafkaBroker, group: str, transactional_id: str) -> None:
        self._broker = broker
        self._group = broker.name(group)
        self._transactional_id = broker.name(transactional_id)
        self._guard = threading.Lock()
        self._producer: Any = None

    def settle(self) -> None:
        """End what an earlier transaction of this id has left open."""
        with self._guard:
            self._ready()

    def commit(
        self, messages: Sequence[Placed], offsets: Mapping[TopicPartition, int], member: Any
    ) -> dict[TopicPartition, int]:
        """Write messages and offsets in one transaction; ``member`` is a ``ConsumerGroupMetadata`` or ``None``."""
        with self._guard:
            producer = self._ready()
            with self._broker.explained("commit a transaction"):
                try:
                    producer.begin_transaction()
                    ends = send_all(self._broker, producer, messages)
                    if offsets:
                        producer.send_offsets_to_transaction(
                            {self._broker.theirs(w): kafka.OffsetAndMetadata(o) for w, o in offsets.items()},
                            kafka.ConsumerGroupMetadata(self._group) if member is None else member,
                        )
                    producer.commit_transaction()
                except BaseException as error:
                    self._abort(error)
                    raise
        return ends

    def close(self) -> None:
        """Close the producer."""
        with self._guard:
            if self._producer is not None:
                self._producer.give_up()
                self._producer = None

    def _ready(self) -> Any:
        if self._producer is None:
            with self._broker.explained("begin transactions"):
                producer = connect(
                    Producer,
                    transactional_id=self._transactional_id,
                    transaction_timeout_ms=self._broker.settings.transaction_timeout,
                    **self._broker.settings.producer(),
                )
                try:
                    producer.init_transactions()
                except BaseException:
                    producer.give_up()
                    raise
            self._producer = producer
        return self._producer

    def _abort(self, error: BaseException) -> None:
        try:
            # Where an answer did not come in good time there would be none to this either.
            if not isinstance(error, errors.RetriableError):
                self._producer.abort_transaction()
        except errors.KafkaError as failure:
            logger.warning("a transaction could not be aborted either: %s", failure)
        finally:
            # kafka-python 3.0 counts batches on that the broker refused, and the next transaction would fail for it.
            self._producer.give_up()
            self._producer = None


class KafkaAppender:
    """The producer of what belongs to no transaction; see :class:`streaming.kafka.seam.Appender`."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._guard = threading.Lock()
        self._producer: Any = None

    def append(self, messages: Sequence[Placed]) -> None:
        """Write messages; return when they are safe."""
        with self._guard:
            if self._producer is None:
                with self._broker.explained("connect"):
                    self._producer = connect(Producer, **self._broker.settings.producer())
            producer = self._producer
        try:
            with self._broker.explained("append records"):
                send_all(self._broker, producer, messages)
        except LogError:
            # A batch that ran out of time may leave it without an id: nothing would be sent by it any more.
            with self._guard:
                if self._producer is producer:
                    self._producer = None
            producer.give_up()
            raise

    def close(self) -> None:
        """Close the producer."""
        with self._guard:
            if self._producer is not None:
                self._producer.give_up()
                self._producer = None


def send_all(broker: KafkaBroker, producer: Any, messages: Sequence[Placed]) -> dict[TopicPartition, int]:
    """Send messages and wait until each is safe; return for each partition the offset after the last one.

    Raises the first error of kafka-python.
    """
    names = {topic: broker.name(topic) for topic in {where.topic for where, _ in messages}}
    send = producer.send
    # Kafka has no time before 1970.
    sent = [
        send(names[topic], value, key, list(headers), where.partition, max(timestamp_ms, 0))
        for where, (topic, key, value, timestamp_ms, headers, _) in messages
    ]
    producer.flush(broker.settings.delivery_timeout / 1_000.0 + 1.0)
    last = {}
    # Each one is looked at: kafka-python takes a transaction for committed when a failed batch has ended it before.
    for (where, _), future in zip(messages, sent, strict=True):
        if not future.succeeded():
            future.get(0)
        last[where] = future
    return {where: future.value.offset + 1 for where, future in last.items()}
