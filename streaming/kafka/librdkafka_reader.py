"""Reading partitions outside of groups on librdkafka: state is restored so, record after record."""

from __future__ import annotations

import time

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from streaming.kafka.broker import KafkaBroker
from streaming.kafka.librdkafka_errors import Voice
from streaming.kafka.librdkafka_options import reader_options
from streaming.kafka.librdkafka_records import sort
from streaming.log import Record, TopicPartition

_SLICE_S = 0.1


class LibrdkafkaReader:
    """A consumer without a group that stands at an offset of one partition.

    Attributes
    ----------
    where
        The partition.
    position
        The offset at which it goes on.
    end
        Up to where all is decided, when last asked: whoever reads sets it.
    """

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._voice = Voice(broker)
        self.where = TopicPartition("", -1)
        self.position = -1
        self.end = -1
        with self._voice.explained("connect"):
            self._kafka = confluent_kafka.Consumer(reader_options(broker.settings) | self._voice.options())

    def seek(self, where: TopicPartition, start: int) -> None:
        """Go to an offset of a partition."""
        if (where, start) != (self.where, self.position):
            with self._voice.explained(f"read partition {where.partition} of topic {where.topic!r}"):
                topic = self._broker.name(where.topic)
                self._kafka.assign([confluent_kafka.TopicPartition(topic, where.partition, start)])
            self.where, self.position, self.end = where, start, -1

    def read(self, max_records: int) -> list[Record]:
        """Return the next records before ``end``; raises ``LogError`` if none has come for ``request_timeout``."""
        timeout_s = self._broker.settings.request_timeout / 1_000.0
        deadline = time.monotonic() + timeout_s
        topics = {self._broker.name(self.where.topic): self.where.topic}
        records: list[Record] = []
        with self._voice.explained(f"read partition {self.where.partition} of topic {self.where.topic!r}"):
            while self.position < self.end and len(records) < max_records:
                left = max_records - len(records)
                found = sort(self._kafka.consume(left, 0.0) or self._kafka.consume(1, _SLICE_S), topics)
                if found.error is not None:
                    raise KafkaException(found.error)
                records += found.records
                if found.positions:
                    self.position = found.positions[self.where]
                    deadline = time.monotonic() + timeout_s
                elif time.monotonic() >= deadline:
                    reason = f"no record from offset {self.position} on, and it ends at {self.end}"
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, reason))
        return records

    def close(self) -> None:
        """Close the connection."""
        self._kafka.close()
