"""The contract of the log: what Kafka gives and the embedded log gives too.

A log has topics, a topic has partitions, a partition is a sequence of records with growing offsets. Records
with one key go to one partition, in order. A *writer* is a role with a name (`serving`, `join`, `monitor`,
`learner`, ...): it owns the topics that it writes, its consumer group has the same name, and one transaction of
a writer holds what it sends **and** the offsets of what it consumed, so that a step happens once or not at all.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

Header = tuple[str, bytes]


def partition_of(key: bytes | None, partitions: int) -> int:
    """Return the partition of a key: CRC-32 of its bytes modulo the number of partitions; 0 without a key.

    Every log uses it, so that topics with the same number of partitions put a key into partitions of one number.

    >>> partition_of(b"a", 4), partition_of(None, 4)
    (3, 0)
    """
    return 0 if key is None else zlib.crc32(key) % partitions


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Topic:
    """Declaration of a topic.

    Parameters
    ----------
    name
        Its name.
    writer
        The role that writes it.
    partitions
        How many; fixed for the life of the topic.
    retention_ms
        How long records are kept; ``None``: for ever.
    compacted
        Keep the last record of each key alone; a record without a value removes the key.
    derived
        Its records hold those of other topics, and something more: where records are limited in size, it may have
        larger ones.
    """

    name: str
    writer: str
    partitions: int
    retention_ms: int | None = None
    compacted: bool = False
    derived: bool = False


class Message(NamedTuple):
    """What is sent: key, value (one of the two at least), headers and event time (milliseconds)."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Sequence[Header] = ()
    partition: int | None = None  # None: by hash of the key


class Record(NamedTuple):
    """What is read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


class Transaction(Protocol):
    """What one step of a writer does, all or nothing: commits when the ``with`` block ends without an error."""

    def send(self, message: Message) -> None:
        """Add a record."""

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add the offsets at which the writer's group goes on: the next ones to be read.

        Call it on the thread that polls, with nothing polled since: who has the partitions now is who has read them.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Consumer(Protocol):
    """A member of a consumer group. A partition belongs to one member of a group at a time.

    The group decides, and a member learns of it in ``poll``: until then it may take for its own what is with another
    one by now, and a commit of it fails. While a partition stays with its member, each record comes once. After
    others may have had it, it begins again at what is committed: then it was missing in ``assignment()`` after at
    least one ``poll``. So after each ``poll`` drop what you hold of partitions that are not assigned, records that were
    read and not committed among it.
    """

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        """Return the next records of the assigned partitions, at most ``max_records``.

        Per partition in order. Waits up to ``timeout_s`` for the first; an empty list means that every assigned
        partition was read to its end, but for those that are paused.
        """

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that belong to this member now (may change in ``poll``)."""

    def position(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition the next offset that ``poll`` would give."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on reading at ``offset``."""

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Leave out these partitions in ``poll`` until the next call, and no others.

        They stay assigned, and go on where they are. Partitions of others may be among them.
        """

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition how many records are still to be read."""

    def commit(self) -> None:
        """Store the positions of this member's group outside any transaction."""

    def close(self) -> None:
        """Leave the group; nothing is committed."""


@runtime_checkable
class Log(Protocol):
    """A durable log of topics.

    Attributes
    ----------
    fences : bool
        Whether it refuses a transaction with offsets of a partition that its member has lost since
        :meth:`Transaction.commit_offsets`, also if it has it back. Only then may a transaction end on another thread
        while its writer's member polls.
    """

    fences: bool

    def create(self, topics: Iterable[Topic]) -> None:
        """Declare topics; existing ones must agree in partitions, compaction and writer, or ``LogError`` is raised."""

    def append(self, messages: Sequence[Message]) -> None:
        """Write records durably outside any group's transaction; returns when they are safe."""

    def transaction(self, writer: str) -> Transaction:
        """Open a transaction of a writer; it may send to that writer's topics alone."""

    def consumer(self, group: str, topics: Sequence[str]) -> Consumer:
        """Join a consumer group; starts at its committed offsets, or at the beginning."""

    def read(self, topic: str, partition: int, start: int = 0, max_records: int = 1_000) -> list[Record]:
        """Return records of one partition from offset ``start`` on, outside any group."""

    def ends(self, topic: str) -> dict[int, int]:
        """Return for each partition the offset that the next record will get."""

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group."""

    def close(self) -> None:
        """Release files and connections."""
