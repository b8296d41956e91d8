"""The log on Kafka: for more than one machine, and where outcomes come from elsewhere.

Needs brokers of version 3.6 or newer; 4.4 was tried. Offsets have gaps here, where transactions and compaction leave
their marks: go on at the offset of the last record plus one, and never count by subtracting.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from engine.errors import LogError
from streaming.kafka.broker import KafkaBroker
from streaming.kafka.seam import Appender, Member, Placed, Writer, client_of
from streaming.kafka.settings import KafkaSettings
from streaming.kafka.transaction import KafkaTransaction
from streaming.log import Message, Record, Topic, TopicPartition, partition_of

logger = logging.getLogger(__name__)


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

    #: The broker knows the generation of the group by which a transaction was made.
    fences = True

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._most = settings.record_bytes(derived=False)
        self._most_derived = settings.record_bytes(derived=True)
        self._client = client_of(settings.client)
        self._broker = KafkaBroker(settings, self._client.reader)
        self._instance = settings.instance_id or uuid.uuid4().hex
        self._guard = threading.RLock()
        self._topics: dict[str, Topic] = {}
        self._partitions: dict[str, list[TopicPartition]] = {}
        self._appender: Appender | None = None
        self._writers: dict[str, Writer] = {}
        self._consumers: dict[str, list[Member]] = {}
        self._offsets: dict[str, set[TopicPartition]] = {}
        self._hidden: dict[TopicPartition, int] = {}  # what this log committed and may not be readable yet: its ends
        self._aborts: Counter[str] = Counter()
        self._rebalances: Counter[str] = Counter()  # of members that were closed
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
                self._appender = self._client.appender(self._broker)
            appender = self._appender
        appender.append(placed)

    def transaction(self, writer: str) -> KafkaTransaction:
        """Open a transaction of a writer; nothing is sent before its block ends.

        ``LogError`` at the end of the block: it was aborted, or its fate is not known yet; ``committed`` tells. Begin
        again from there. Other transactions work when the cause is gone.
        """
        return KafkaTransaction(self, writer)

    def consumer(self, group: str, topics: Sequence[str]) -> Member:
        """Join a consumer group; which partitions it gets is decided in ``poll``."""
        with self._guard:
            self._check_open()
        consumed = self._broker.all_partitions(topics)
        consumer = self._client.consumer(self, self._broker, group, topics)
        with self._guard:
            self._consumers.setdefault(group, []).append(consumer)
            self._offsets.setdefault(group, set()).update(consumed)
        return consumer

    def read(self, topic: str, partition: int, start: int = 0, max_records: int = 1_000) -> list[Record]:
        """Return records of one partition from offset ``start`` on, as far as their transactions are decided."""
        where = self._where(topic, partition)
        self.shown([where])
        return self._broker.read(where, start, max_records)

    def ends(self, topic: str) -> dict[int, int]:
        """Return for each partition the offset up to which all is decided: the next that can be read goes there."""
        partitions = self._broker.all_partitions([topic])
        self.shown(partitions)
        ends = self._broker.ends(partitions)
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
            appender.close()
        self._broker.close()

    def place(self, message: Message) -> TopicPartition:
        """Return the partition that a message goes to; raises ``LogError`` if it can go nowhere."""
        topic, key, value, _, headers, partition = message
        partitions = self._partitions.get(topic) or self._look_up(topic)
        size = len(key or b"") + len(value or b"") + sum(map(len, filter(None, chain.from_iterable(headers))))
        if size > self._most and (size > self._most_derived or not self._derived(topic)):
            raise LogError(
                f"a message of {size} bytes for topic {topic!r} is larger than max_message_bytes "
                f"({self._settings.max_message_bytes}); raise that setting, or send less"
            )
        if key is None:
            declared = self._topics.get(topic)
            if value is None or (declared is not None and declared.compacted):
                raise LogError(f"a message for topic {topic!r} has no key; give it one")
        if partition is None:
            return partitions[partition_of(key, len(partitions))]
        if 0 <= partition < len(partitions):
            return partitions[partition]
        raise _no_partition(topic, partition, len(partitions))

    def owner(self, topic: str) -> str:
        """Return the writer of a topic; raises ``LogError`` if the topic was not declared to this log."""
        declared = self._topics.get(topic)
        if declared is None:
            raise LogError(f"topic {topic!r} was not declared to this log, so its writer is not known; create it first")
        return declared.writer

    def member(self, writer: str, offsets: Mapping[TopicPartition, int]) -> Any:
        """Return who has read up to the offsets; ``None`` if nobody here reads in that group."""
        with self._guard:
            members = list(self._consumers.get(writer, ()))
        for consumer in members:
            if consumer.assignment() >= offsets.keys():
                return consumer.member()
        if not members:
            return None
        with self._guard:
            self._aborts[writer] += 1
        raise LogError(
            f"this member of group {writer!r} has lost partitions that it had read; nothing is written; poll, and go "
            "on from what is committed"
        )

    def commit(
        self, writer: str, messages: Sequence[Placed], offsets: Mapping[TopicPartition, int], member: Any
    ) -> None:
        """Commit a transaction of a writer: messages and offsets, together; ``member`` has read up to them."""
        with self._guard:
            self._offsets.setdefault(writer, set()).update(offsets)
        try:
            ends = self._writer(writer).commit(messages, offsets, member)
        except LogError:
            with self._guard:
                self._aborts[writer] += 1
            raise
        with self._guard:
            self._hidden |= {where: max(end, self._hidden.get(where, 0)) for where, end in ends.items()}

    def shown(self, partitions: Collection[TopicPartition]) -> None:
        """Wait until what this log has committed to some partitions can be read.

        The broker answers a commit when it is decided, and readers see it some milliseconds later. A step need not
        wait for that; who reads here sees all that was committed here.
        """
        with self._guard:
            hidden = {where: self._hidden[where] for where in partitions if where in self._hidden}
        if not hidden:
            return
        if not self._broker.await_stable(hidden, self._settings.request_timeout / 1_000.0):
            logger.warning("a transaction was committed, but an older one is open and hides it for a while")
        with self._guard:
            self._hidden = {where: end for where, end in self._hidden.items() if hidden.get(where) != end}

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

    def left(self, group: str, consumer: Member) -> None:
        """Forget a consumer that was closed."""
        with self._guard:
            members = self._consumers.get(group, [])
            if consumer in members:
                members.remove(consumer)
                self._rebalances[group] += consumer.rebalances

    def rebalances(self, group: str) -> int:
        """Return how many rebalances this log's members of a group have taken part in, first assignments included."""
        with self._guard:
            return self._rebalances[group] + sum(consumer.rebalances for consumer in self._consumers.get(group, ()))

    def aborts(self, writer: str) -> int:
        """Return how many transactions of a writer did not commit, for whatever reason."""
        with self._guard:
            return self._aborts[writer]

    def _writer(self, name: str) -> Writer:
        with self._guard:
            self._check_open()
            if name not in self._writers:
                self._writers[name] = self._client.writer(self._broker, name, f"{name}-{self._instance}")
            return self._writers[name]

    def _where(self, topic: str, partition: int) -> TopicPartition:
        partitions = self._partitions.get(topic) or self._look_up(topic)
        if not 0 <= partition < len(partitions):
            raise _no_partition(topic, partition, len(partitions))
        return partitions[partition]

    def _derived(self, topic: str) -> bool:
        declared = self._topics.get(topic)
        return declared is not None and declared.derived

    def _look_up(self, topic: str) -> list[TopicPartition]:
        """Return the partitions of a topic, and keep them: that a message is placed must not cost much."""
        partitions = [TopicPartition(topic, number) for number in range(self._broker.partitions(topic))]
        self._partitions[topic] = partitions
        return partitions

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"the log at {self._settings.where} is closed; open it again")


def _no_partition(topic: str, partition: int, partitions: int) -> LogError:
    return LogError(f"topic {topic!r} has no partition {partition}; it has 0 to {partitions - 1}")
