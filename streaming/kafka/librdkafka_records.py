"""What librdkafka gives when it is asked for messages: records, the ends of partitions, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Message

from streaming.log import Record, TopicPartition


@dataclass(frozen=True, slots=True)
class Found:
    """What was among the messages of one call.

    Attributes
    ----------
    records
        Per partition in order.
    positions
        For each partition that was heard of, the offset at which it goes on. Also past what is no record, such as the
        marks of transactions, where the end of the partition was reached.
    error
        The last error among them, if there was one.
    """

    records: list[Record]
    positions: dict[TopicPartition, int]
    error: KafkaError | None


def sort(messages: Iterable[Message], topics: Mapping[str, str]) -> Found:
    """Return what the library gave in our words; ``topics`` are our names of topics by those of the cluster."""
    records: list[Record] = []
    add = records.append
    ends: dict[Any, int] = {}
    failed = None
    message: Any  # of which some attributes are optional to the type checker, and never missing
    for message in messages:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        if error is None:
            ends[topic, partition] = offset + 1
            headers = message.headers()
            add(
                Record(
                    topics[topic],
                    partition,
                    offset,
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    tuple(headers) if headers else (),
                )
            )
        elif error.code() == KafkaError._PARTITION_EOF:
            ends[topic, partition] = offset
        else:
            failed = error
    return Found(records, {TopicPartition(topics[topic], number): end for (topic, number), end in ends.items()}, failed)
