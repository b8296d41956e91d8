"""What the Kafka log asks of a client library, so that another one can be chosen.

Topics and offsets are :class:`streaming.kafka.broker.KafkaBroker`'s, on kafka-python, whatever the client. What moves
every record is behind this seam: the member of a group, the transactional writer, the appender, the reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from streaming.kafka.settings import ClientName
from streaming.log import Consumer, Message, Record, TopicPartition

if TYPE_CHECKING:
    from streaming.kafka.broker import KafkaBroker
    from streaming.kafka.log import KafkaLog

#: A message, looked at (:meth:`streaming.kafka.log.KafkaLog.place`), with the partition it goes to.
Placed = tuple[TopicPartition, Message]


class Member(Consumer, Protocol):
    """A member of a consumer group, as the log that made it knows it.

    It calls ``log.settle(group, timeout_s)`` before it begins with partitions of another owner, ``log.shown(...)``
    before it says that it has read everything, and ``log.left(group, self)`` when it is closed.
    """

    @property
    def rebalances(self) -> int:
        """How many rebalances of the group this member has taken part in, the first assignment included."""

    def member(self) -> Any:
        """Return by what the broker knows this member and its generation: what its ``Writer`` takes."""


class Writer(Protocol):
    """The transactional producer of one writer in one process, safe for threads: one transaction at a time.

    Every method raises ``LogError`` where the broker is away or refuses.
    """

    def settle(self) -> None:
        """End what an earlier transaction of this id, here or in a process before, has left open."""

    def commit(
        self, messages: Sequence[Placed], offsets: Mapping[TopicPartition, int], member: Any
    ) -> Mapping[TopicPartition, int]:
        """Write messages and offsets in one transaction; return for each partition the offset after its last record.

        ``member`` is what :meth:`Member.member` of the consumer that read up to ``offsets`` returned: the broker takes
        them from the present generation of the group alone. ``None``: nobody in this process reads in that group.

        It returns when the transaction is decided; readers see it some milliseconds later. After ``LogError`` it is
        aborted, or its fate is known to the broker alone and the next ``settle`` or ``commit`` finds out first.
        """

    def close(self) -> None:
        """Close the producer at once; what is open is aborted by the broker."""


class Appender(Protocol):
    """The idempotent producer of one process for what belongs to no transaction, safe for threads."""

    def append(self, messages: Sequence[Placed]) -> None:
        """Write messages; return when all replicas in sync have them. After ``LogError`` some may be written."""

    def close(self) -> None:
        """Close the producer at once; what is under way is lost."""


class Reader(Protocol):
    """A consumer without a group that stands at an offset of one partition; one thread uses it at a time.

    Attributes
    ----------
    where
        The partition.
    position
        The offset at which it goes on.
    end
        Up to where all is decided, when last asked: whoever reads sets it. -1 after :meth:`seek` has gone elsewhere.
    """

    where: TopicPartition
    position: int
    end: int

    def seek(self, where: TopicPartition, start: int) -> None:
        """Go to an offset of a partition."""

    def read(self, max_records: int) -> list[Record]:
        """Return the next records before ``end``; raises ``LogError`` if none has come for ``request_timeout``."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class Client:
    """The factories of one client library.

    Parameters
    ----------
    consumer
        From the log, its broker, a group and topics: a member of the group.
    writer
        From the broker, the group whose offsets it commits, and a transactional id (both without ``topic_prefix``).
    appender
        From the broker. Like a writer it connects when it is first used.
    reader
        From the broker.
    """

    consumer: Callable[[KafkaLog, KafkaBroker, str, Sequence[str]], Member]
    writer: Callable[[KafkaBroker, str, str], Writer]
    appender: Callable[[KafkaBroker], Appender]
    reader: Callable[[KafkaBroker], Reader]


def client_of(name: ClientName) -> Client:
    """Return a client by its name in the settings; its library is loaded now, and no other."""
    module = {"kafka-python": "kafka_python", "librdkafka": "librdkafka"}[name]
    client: Client = import_module(f"streaming.kafka.{module}").CLIENT
    return client
