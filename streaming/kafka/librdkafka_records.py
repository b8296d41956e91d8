"""What librdkafka gives when it is asked for messages: records, the ends of partitions, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from confluent_kafka import KafkaError, Message

from streaming.log import Header, Record, TopicPartition


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


class Headers(Sequence[Header]):
    """The headers of a message, which are asked for when they are first looked at; equal to a tuple of them.

    To make Python objects of them takes longer than of all else in a small message, and few are ever looked at. Until
    then the message is kept, which has copies of its own of the headers, key and value: it holds no buffer back.
    """

    __slots__ = ("_message", "_read")

    def __init__(self, message: Any) -> None:
        self._message = message
        self._read: tuple[Header, ...] | None = None

    @overload
    def __getitem__(self, index: int) -> Header: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Header, ...]: ...
    def __getitem__(self, index: int | slice) -> Header | tuple[Header, ...]:
        return self._tuple()[index]

    def __len__(self) -> int:
        return len(self._tuple())

    def __eq__(self, other: object) -> bool:
        return self._tuple() == (other._tuple() if isinstance(other, Headers) else other)

    def __hash__(self) -> int:
        return hash(self._tuple())

    def __repr__(self) -> str:
        return repr(self._tuple())

    def _tuple(self) -> tuple[Header, ...]:
        read = self._read
        if read is None:
            read = self._read = tuple(self._message.headers() or ())
            self._message = None
        return read


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
            time_ms = message.timestamp()[1]
            add(Record(topics[topic], partition, offset, time_ms, message.key(), message.value(), Headers(message)))
        elif error.code() == KafkaError._PARTITION_EOF:
            ends[topic, partition] = offset
        else:
            failed = error
    return Found(records, {TopicPartition(topics[topic], number): end for (topic, number), end in ends.items()}, failed)
