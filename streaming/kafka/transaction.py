"""Transactions of Kafka: what a writer sends and the offsets of what it consumed, together or not at all (KIP-98)."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.errors import LogError
from streaming.kafka.seam import Placed
from streaming.log import Message, TopicPartition

if TYPE_CHECKING:
    from streaming.kafka.log import KafkaLog


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
        self._member: Any = None
        self._owned: set[str] = set()  # topics that were looked at

    def send(self, message: Message) -> None:
        """Add a record; raises ``LogError`` for a topic of another writer, or one that this log did not declare."""
        if message.topic not in self._owned:
            self._check_owner(message.topic)
        self._messages.append((self._log.place(message), message))

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add the offsets at which the writer's group goes on.

        Raises ``LogError`` if its member here has lost some of their partitions. If it loses them from here on, also if
        they come back to it, the broker refuses the transaction: it is that of the member's generation of now.
        """
        self._offsets.update(offsets)
        self._member = self._log.member(self._writer, self._offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._messages or self._offsets):
            self._log.commit(self._writer, self._messages, self._offsets, self._member)

    def _check_owner(self, topic: str) -> None:
        owner = self._log.owner(topic)
        if owner != self._writer:
            raise LogError(
                f"topic {topic!r} belongs to writer {owner!r}, and this is a transaction of {self._writer!r}; send to "
                "its own topics, or append outside"
            )
        self._owned.add(topic)
