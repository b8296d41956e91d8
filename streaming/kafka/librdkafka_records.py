"""What librdkafka gives when it is asked for messages: records, the ends of partitions, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    __slots__ = ("_source",)

    def __init__(self, message: Any) -> None:
        self._source = message  # or the headers, when they were read

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
        source = self._source
        if isinstance(source, tuple):
            return source
        read: tuple[Header, ...] = tuple(source.headers() or ())
        self._source = read
        return read


def sort(messages: Sequence[Message], topics: Mapping[str, str]) -> Found:
    """Return what the library gave in our words; ``topics`` are our names of topics by those of the cluster."""
    errors: list[Any] = [message for message in messages if message.error() is not None]
    sound: Sequence[Any] = [message for message in messages if message.error() is None] if errors else messages
    new = tuple.__new__  # what Record(...) comes to, without a call of Python for each
    records = [
        new(
            Record,
            (
                topics[each.topic()], each.partition(), each.offset(), each.timestamp()[1], each.key(), each.value(),
                Headers(each),
            ),
        )
        for each in sound
    ]  # fmt: skip
    # Each partition in order, the last record of one counts.
    positions = {TopicPartition(*where): offset + 1 for where, offset in {r[:2]: r[2] for r in records}.items()}
    failed = None
    for message in errors:
        if message.error().code() == KafkaError._PARTITION_EOF:
            where = TopicPartition(topics[message.topic()], message.partition())
            positions[where] = max(positions.get(where, 0), message.offset())
        else:
            failed = message.error()
    return Found(records, positions, failed)
