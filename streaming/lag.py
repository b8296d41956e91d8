"""How far each role is behind, from the log alone: any process may ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streaming.log import Log, TopicPartition
from streaming.topics import ARCHIVE, DECISIONS, FEEDBACK, JOIN, LEARNER, MONITOR, OUTCOMES

#: What each consumer group reads.
READ_BY = {
    JOIN: (DECISIONS, OUTCOMES),
    LEARNER: (FEEDBACK,),
    MONITOR: (FEEDBACK,),
    ARCHIVE: (FEEDBACK,),
}


@dataclass(frozen=True, slots=True)
class Lag:
    """What of a topic a consumer group has not committed yet.

    Parameters
    ----------
    records
        At most so many: on Kafka offsets also count the marks of transactions between the records. 0 is exact.
    oldest_ms
        Event time of the oldest of them, in milliseconds since 1970; ``None`` where there is none.
    """

    records: int = 0
    oldest_ms: int | None = None

    def seconds(self, now_ms: int) -> float:
        """Return the age of the oldest record, and 0 where there is none.

        >>> Lag(3, 4_000).seconds(now_ms=5_500), Lag().seconds(now_ms=5_500)
        (1.5, 0.0)
        """
        return 0.0 if self.oldest_ms is None else max(0, now_ms - self.oldest_ms) / 1_000.0


def lag(log: Log, group: str, topics: Sequence[str]) -> dict[str, Lag]:
    """Return for each topic how far a group is behind; raises ``LogError``.

    Ask a log that has no member of the group: one that has would first wait for the end of their transactions.
    """
    committed = log.committed(group)
    return {topic: _topic_lag(log, topic, committed) for topic in topics}


def _topic_lag(log: Log, topic: str, committed: dict[TopicPartition, int]) -> Lag:
    records, oldest = 0, []
    for partition, end in log.ends(topic).items():
        start = committed.get(TopicPartition(topic, partition), 0)
        # Read it: what was deleted, and on Kafka the mark of a transaction, lies between the offsets too.
        first = log.read(topic, partition, start, 1) if start < end else []
        if first:
            records += end - first[0].offset
            oldest.append(first[0].timestamp_ms)
    return Lag(records, min(oldest, default=None))
