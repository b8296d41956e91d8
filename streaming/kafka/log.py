"""The log on Kafka: for more than one machine, and where outcomes come from elsewhere.

Needs brokers of version 3.6 or newer; 4.4 was tried. Offsets have gaps here, where transactions and compaction leave
their marks: go on at the offset of the last record plus one, and never count by subtracting.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import kafka

from engine.errors import LogError
from streaming.kafka.broker import KafkaBroker
from streaming.kafka.client import Producer, connect
from streaming.kafka.consumer import KafkaConsumer
from streaming.kafka.settings import KafkaSettings
from streaming.kafka.transaction import KafkaTransaction, KafkaWriter, Placed, send_all
from streaming.log import Message, Record, Topic, TopicPartition, partition_of


class KafkaLog:
    """A durable log in a Kafka cluster; see :class:`streaming.log.Log` for what it promises.

    Safe for the threads of a process; a process that was forked opens it anew. Connections are made when they are
    needed. A step of a writer happens once: what it sends and the offsets of what it consumed are one transaction of
    Kafka, and the broker takes it from those members alone that own the partitions now. When an error leaves open how
    a transaction has ended, ``committed`` of its group says it, and waits for that if need be.

    Parameters
    ----------
    settings
        Where the cluster is, and what to ask of it.

    Raises
    ------
    LogError
        By any method, when the broker is away or refuses. The log can be used on when the cause is gone.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._broker = KafkaBroker(settings)
        self._instance = settings.instance_id or uuid.uuid4().hex
        self._guard = threading.RLock()
        self._topics: dict[str, Topic] = {}
        self._appender: Any = None
        self._writers: dict[str, KafkaWriter] = {}
        self._consumers: dict[str, list[KafkaConsumer]] = {}
        self._offsets: dict[str, set[TopicPartition]] = {}
        self._closed = False

    def create(self, topics: Iterable[Topic]) -> None:
        """Declare topics. What exists keeps its records, and takes on the retention that is given here.

        Kafka does not know writers: who may write which topic is checked against what this log was told.
        """
        wanted = list(topics)
        for topic in wanted:
            if topic.partitions < 1:
                raise LogError(f"topic {topic.name!r} has {topic.partitions} partitions; give it at least 1")
            owner = self._topics.get(topic.name, topic).writer
            if owner != topic.writer:
                raise LogError(f"topic {topic.name!r} was declared with writer {owner!r}, not {topic.writer!r}")
        if wanted:
            self._broker.create(wanted)
        with self._guard:
            self._topics |= {topic.name: topic for topic in wanted}

    def append(self, messages: Sequence[Message]) -> None:
        """Write records durably; returns when all replicas in sync have them.

        After ``LogError`` some may be written all the same. Nothing is, if a message does not fit: no such topic or
        partition, too large.
        """
        placed = [(self.place(message), message) for message in messages]
        if not placed:
            return
        with self._guard:
            self._check_open()
            if self._appender is None:
                with self._broker.explained("connect"):
                    self._appender = connect(Producer, **self._settings.producer())
            producer = self._appender
        try:
            with self._broker.explained("append records"):
                send_all(self._broker, producer, placed)
        except LogError:
            # A batch that ran out of time may leave it without an id: nothing would be sent by it any more.
            with self._guard:
                if self._appender is producer:
                    self._appender = None
            producer.give_up()
            raise

    def transaction(self, writer: str) -> KafkaTransaction:
        """Open a transaction of a writer; nothing is sent before its block ends.

        ``LogError`` at the end of the block: it was aborted, or its fate is not known yet; ``committed`` tells. Begin
        again from there. Other transactions work when the cause is gone.
        """
        return KafkaTransaction(self, writer)

    def consumer(self, group: str, topics: Sequence[str]) -> KafkaConsumer:
        """Join a consumer group; which partitions it gets is decided in ``poll``."""
        with self._guard:
            self._check_open()
        consumed = self._broker.all_partitions(topics)
        consumer = KafkaConsumer(self, self._broker, group, topics)
        with self._guard:
            self._consumers.setdefault(group, []).append(consumer)
            self._offsets.setdefault(group, set()).update(consumed)
        return consumer

    def read(self, topic: str, partition: int, start: int = 0, max_records: int = 1_000) -> list[Record]:
        """Return records of one partition from offset ``start`` on, as far as their transactions are decided."""
        return self._broker.read(self._where(topic, partition), start, max_records)

    def ends(self, topic: str) -> dict[int, int]:
        """Return for each partition the offset up to which all is decided: the next that can be read goes there."""
        ends = self._broker.ends(self._broker.all_partitions([topic]))
        return {where.partition: end for where, end in ends.items()}

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group.

        For a group of this log's own, what is open is settled first: when it returns, the offsets and what was
        written with them agree, and ``read`` shows it. Raises ``LogError`` where that takes longer than
        ``request_timeout``. For other groups it returns at once what an onlooker sees.
        """
        with self._guard:
            partitions = set(self._offsets.get(group, ()))
        if not partitions:
            return self._broker.committed(group)
        if not self.settle(group, self._settings.request_timeout / 1_000.0):
            raise LogError(
                f"Kafka at {self._settings.where}: a transaction of another member of group {group!r} is open; it ends "
                "with that member's transaction_timeout; try again"
            )
        partitions |= self._broker.committed(group).keys()
        return self._broker.committed_for_certain(group, partitions)

    def close(self) -> None:
        """Leave all groups and close all connections."""
        with self._guard:
            self._closed = True
            consumers = [consumer for members in self._consumers.values() for consumer in members]
            writers, self._writers = list(self._writers.values()), {}
            appender, self._appender = self._appender, None
        for consumer in consumers:
            consumer.close()
        for writer in writers:
            writer.close()
        if appender is not None:
            appender.give_up()
        self._broker.close()

    def place(self, message: Message) -> TopicPartition:
        """Return the partition that a message goes to; raises ``LogError`` if it can go nowhere."""
        topic = self._topics.get(message.topic)
        partitions = self._broker.partitions(message.topic)
        if message.key is None and (message.value is None or (topic is not None and topic.compacted)):
            raise LogError(f"a message for topic {message.topic!r} has no key; give it one")
        size = len(message.key or b"") + len(message.value or b"")
        size += sum(len(name.encode()) + len(value) for name, value in message.headers)
        if size > self._settings.max_message_bytes:
            raise LogError(
                f"a message of {size} bytes for topic {message.topic!r} is larger than max_message_bytes "
                f"({self._settings.max_message_bytes}); raise that setting, or send less"
            )
        partition = partition_of(message.key, partitions) if message.partition is None else message.partition
        return self._where(message.topic, partition)

    def owner(self, topic: str) -> str:
        """Return the writer of a topic; raises ``LogError`` if the topic was not declared to this log."""
        declared = self._topics.get(topic)
        if declared is None:
            raise LogError(f"topic {topic!r} was not declared to this log, so its writer is not known; create it first")
        return declared.writer

    def commit(self, writer: str, messages: Sequence[Placed], offsets: Mapping[TopicPartition, int]) -> None:
        """Commit a transaction of a writer: messages and offsets, together."""
        with self._guard:
            members = list(self._consumers.get(writer, ()))
            self._offsets.setdefault(writer, set()).update(offsets)
        member = kafka.ConsumerGroupMetadata(self._broker.name(writer))
        if offsets and members:
            owners = [consumer for consumer in members if consumer.assignment() >= offsets.keys()]
            if not owners:
                raise LogError(
                    f"this member of group {writer!r} has lost partitions that it had read; nothing is written; poll, "
                    "and go on from what is committed"
                )
            member = owners[0].member()
        self._writer(writer).commit(messages, offsets, member)

    def settle(self, group: str, timeout_s: float) -> bool:
        """Wait until all that members of a group have written is decided and can be read; false if it takes longer.

        Who takes over from a member must not read its state before: an offset may be visible a moment earlier than
        what was written with it, since each partition shows a transaction when its own mark has come.
        """
        with self._guard:
            written = [topic.name for topic in self._topics.values() if topic.writer == group]
        if not written:
            return True
        self._writer(group).settle()
        return self._broker.await_stable(self._broker.high_watermarks(self._broker.all_partitions(written)), timeout_s)

    def left(self, group: str, consumer: KafkaConsumer) -> None:
        """Forget a consumer that was closed."""
        with self._guard:
            members = self._consumers.get(group, [])
            if consumer in members:
                members.remove(consumer)

    def _writer(self, name: str) -> KafkaWriter:
        with self._guard:
            self._check_open()
            if name not in self._writers:
                self._writers[name] = KafkaWriter(self._broker, f"{name}-{self._instance}")
            return self._writers[name]

    def _where(self, topic: str, partition: int) -> TopicPartition:
        partitions = self._broker.partitions(topic)
        if not 0 <= partition < partitions:
            raise LogError(f"topic {topic!r} has no partition {partition}; it has 0 to {partitions - 1}")
        return TopicPartition(topic, partition)

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"the log at {self._settings.where} is closed; open it again")
