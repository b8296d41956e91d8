"""Transactions of Kafka: what a writer sends and the offsets of what it consumed, together or not at all (KIP-98)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import kafka
from kafka import errors

from engine.errors import LogError
from streaming.kafka.broker import KafkaBroker
from streaming.kafka.client import Producer, connect
from streaming.log import Message, TopicPartition

if TYPE_CHECKING:
    from streaming.kafka.log import KafkaLog

logger = logging.getLogger(__name__)

#: A message with the partition it goes to.
Placed = tuple[TopicPartition, Message]


class KafkaTransaction:
    """A transaction of one writer; see :class:`streaming.log.Transaction`.

    It is kept in memory and sent at the end of its block: an open transaction hides from readers whatever is written
    after it into the same partitions, so it is open for as short as can be.
    """

    def __init__(self, log: KafkaLog, writer: str) -> None:
        self._log = log
        self._writer = writer
        self._messages: list[Placed] = []
        self._offsets: dict[TopicPartition, int] = {}

    def send(self, message: Message) -> None:
        """Add a record; raises ``LogError`` for a topic of another writer, or one that this log did not declare."""
        where = self._log.place(message)
        owner = self._log.owner(message.topic)
        if owner != self._writer:
            raise LogError(
                f"topic {message.topic!r} belongs to writer {owner!r}, and this is a transaction of {self._writer!r}; "
                "send to its own topics, or append outside"
            )
        self._messages.append((where, message))

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add the offsets at which the writer's group goes on."""
        self._offsets.update(offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._messages or self._offsets):
            self._log.commit(self._writer, self._messages, self._offsets)


class KafkaWriter:
    """The transactional producer of one writer in one process; a lock lets one transaction through at a time.

    Members of a group are fenced by the group (KIP-447): the broker takes consumed offsets from the present
    generation of its members alone, so a member that was thought dead, and wakes after others have its partitions,
    cannot commit. Therefore the transactional id need not be that of a partition; it is that of the process. With an
    ``instance_id`` it survives a restart, which then ends at once what the last process left open.

    After an error the transaction is aborted. If that fails too, its fate is known to the broker alone: the producer
    is given up, and the next one begins with settling it.
    """

    def __init__(self, broker: KafkaBroker, transactional_id: str) -> None:
        self._broker = broker
        self._transactional_id = broker.name(transactional_id)
        self._guard = threading.Lock()
        self._producer: Any = None

    def settle(self) -> None:
        """End what an earlier transaction of this id, here or in a process before, has left open."""
        with self._guard:
            self._ready()

    def commit(self, messages: Sequence[Placed], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """Write messages and offsets in one transaction, and wait until everybody can read it.

        ``member`` is the group's metadata of the consumer that read up to ``offsets``.
        """
        with self._guard:
            producer = self._ready()
            with self._broker.explained("commit a transaction"):
                try:
                    producer.begin_transaction()
                    ends = send_all(self._broker, producer, messages)
                    if offsets:
                        producer.send_offsets_to_transaction(
                            {self._broker.theirs(w): kafka.OffsetAndMetadata(o) for w, o in offsets.items()}, member
                        )
                    producer.commit_transaction()
                except BaseException as error:
                    self._abort(error)
                    raise
        try:
            # The broker answers when the transaction is decided, a few milliseconds before readers see it.
            visible = self._broker.await_stable(ends, self._broker.settings.request_timeout / 1_000.0)
        except LogError as error:
            logger.warning("a transaction was committed; when it can be read is not known: %s", error)
        else:
            if not visible:
                logger.warning("a transaction was committed, but an older one is open and hides it for a while")

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
            if isinstance(error, errors.RetriableError):
                raise error  # no answer in good time: there would be none to this either
            self._producer.abort_transaction()
        except errors.KafkaError:
            self._producer.give_up()
            self._producer = None


def send_all(broker: KafkaBroker, producer: Any, messages: Sequence[Placed]) -> dict[TopicPartition, int]:
    """Send messages and wait until each is safe; return for each partition the offset after the last one.

    Raises the first error of kafka-python.
    """
    sent = [
        producer.send(
            broker.name(message.topic),
            message.value,
            message.key,
            list(message.headers),
            where.partition,
            max(message.timestamp_ms, 0),  # Kafka has no time before 1970
        )
        for where, message in messages
    ]
    producer.flush(broker.settings.delivery_timeout / 1_000.0 + 1.0)
    # Each one is looked at: kafka-python takes a transaction for committed when a failed batch has ended it before.
    return {where: future.get(0).offset + 1 for (where, _), future in zip(messages, sent, strict=True)}
