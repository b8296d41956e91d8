"""How far each role is behind, from the log alone: any process may ask."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.log import Log, TopicPartition
from streaming.topics import ARCHIVE, DECISIONS, FEEDBACK, JOIN, LEARNER, MONITOR, OUTCOMES

#: What each consumer group reads.
READ_BY = {
    JOIN: (DECISIONS, OUTCOMES),
    LEARNER: (FEEDBACK,),
    MONITOR: (FEEDBACK,),
    ARCHIVE: (FEEDBACK,),
}


def lag(log: Log, group: str, topics: Sequence[str]) -> dict[str, int]:
    """Return for each topic how many records the group has not yet committed."""
    committed = log.committed(group)
    return {
        topic: sum(
            end - committed.get(TopicPartition(topic, partition), 0) for partition, end in log.ends(topic).items()
        )
        for topic in topics
    }
