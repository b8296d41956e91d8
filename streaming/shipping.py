"""Shipping: what serving wrote to its local log goes on to the cluster's, in order, whenever that can be reached."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.lag import lag
from streaming.log import Log, Message, Record
from streaming.topics import SHIPPING


class ShippingRole:
    """Reads one log and appends to another.

    Serving answers once a decision is in its *local* log; it neither waits for the cluster nor fails with it. While
    the cluster is away records gather on the local disk; when it is back they follow in the order of each partition,
    so in order for each key.

    A record is appended before the place is noted, so a crash between the two sends it again: at least once. The join
    makes that once, since it knows decisions by their id and outcomes by theirs.

    Parameters
    ----------
    source
        The local log.
    target
        The cluster's.
    topics
        What to ship. They have the same number of partitions on both sides.
    batch
        How many records a step takes at most.
    """

    def __init__(self, source: Log, target: Log, topics: Sequence[str], *, batch: int = 1_000) -> None:
        self._source = source
        self._target = target
        self._topics = topics
        self._batch = batch
        self._consumer = source.consumer(SHIPPING, topics)

    def step(self) -> int:
        """Ship what is new; return how many records. Raises ``LogError`` while the target does not take them."""
        records = self._consumer.poll(self._batch)
        if not records:
            return 0
        try:
            self._target.append([_message(record) for record in records])
        except BaseException:
            # Read them again next time: nothing may be passed over.
            committed = self._source.committed(SHIPPING)
            for partition in self._consumer.assignment():
                self._consumer.seek(partition, committed.get(partition, 0))
            raise
        self._consumer.commit()
        return len(records)

    def waiting(self) -> int:
        """Return how many records are still to be shipped."""
        return sum(lag(self._source, SHIPPING, self._topics).values())

    def close(self) -> None:
        """Leave the group; what is not shipped yet stays in the local log for the next time."""
        self._consumer.close()


def _message(record: Record) -> Message:
    return Message(record.topic, record.key, record.value, record.timestamp_ms, record.headers, record.partition)
