"""The archive role: feedback from the log into Parquet files, each row once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.config import DecisionPoint, Recommender
from engine.errors import LogError
from engine.records import Feedback
from streaming.intake import feedback_of
from streaming.log import Log, Record, TopicPartition
from streaming.topics import ARCHIVE, FEEDBACK
from training.archive import ArchiveWriter

logger = logging.getLogger(__name__)

_POLL_RECORDS = 1_000


class ArchiveRole:
    """Reads feedback and archives it in files of many rows.

    The archive's manifest holds rows and offsets and is replaced atomically; reading goes on where *it* says, not
    where the consumer group says. So whatever happens between two commits, a row is neither lost nor repeated. The
    offsets of the group are stored too, for those who watch its lag.

    Parameters
    ----------
    log
        Where feedback comes from.
    directory
        The archive; this role is its only writer.
    points
        The decision points.
    clock
        Milliseconds since 1970.
    max_rows
        So many records are kept in memory before they are written.
    max_bytes
        So many bytes of records likewise, for records of many actions or long vectors.
    max_age_ms
        So long a record is kept in memory.
    retention_ms
        Files with nothing younger are deleted; ``None``: kept for ever.

    Attributes
    ----------
    rows : Counter of str
        Rows archived since the start, by decision point.
    skipped : int
        Records since the start that could not be archived: unreadable, or unfit for the configured schema.

    Raises
    ------
    LogError
        The archive cannot be opened, or another process writes it.
    """

    def __init__(
        self,
        log: Log,
        directory: Path,
        points: Mapping[str, DecisionPoint | Recommender],
        clock: Callable[[], int],
        *,
        max_rows: int = 10_000,
        max_bytes: int = 33_554_432,
        max_age_ms: int = 5_000,
        retention_ms: int | None = None,
    ) -> None:
        self._log = log
        self._directory = directory
        self._clock = clock
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms
        self._retention_ms = retention_ms
        self._consumer = log.consumer(ARCHIVE, [FEEDBACK])
        self._writer = ArchiveWriter(directory, points)  # last: what fails after it would leave the archive locked
        self._placed: frozenset[TopicPartition] = frozenset()
        self._buffer: list[Feedback] = []
        self._offsets: dict[int, int] = {}
        self._read = 0
        self._bytes = 0
        self._since_ms = 0
        self._refused = False  # the disk refused what was written last
        self.rows: Counter[str] = Counter()
        self.skipped = 0

    def step(self, *, timeout_s: float = 0.0) -> int:
        """Read what is new; write when there is enough of it or it is old enough. Returns the number of records read.

        Waits up to ``timeout_s`` for the first. Raises ``LogError`` when the disk refuses; the next step reads again
        from the last commit on.
        """
        try:
            records = self._poll(timeout_s)
        except BaseException:
            # Something may have been read, or placed elsewhere, that the manifest knows nothing of.
            self._begin_again()
            raise
        if records and not self._read:
            self._since_ms = self._clock()
        for record in records:
            feedback = feedback_of(record)
            if feedback is None:
                self.skipped += 1
            else:
                self._buffer.append(feedback)
            self._offsets[record.partition] = record.offset + 1
            self._bytes += len(record.value or b"")
        self._read += len(records)
        full = self._read >= self._max_rows or self._bytes >= self._max_bytes
        # Where the disk has refused, whether it takes anything again is seen by writing: nobody is told before.
        if full or (self._read and (self._refused or self._clock() - self._since_ms >= self._max_age_ms)):
            self.flush()
        return len(records)

    def flush(self) -> None:
        """Write what was read, then merge small files and delete old ones; raises ``LogError``."""
        if self._read:
            try:
                rejected = self._writer.append(self._buffer, self._offsets)
            except BaseException:
                # The disk may have committed all the same: the manifest alone knows where to go on.
                self._refused = True
                self._begin_again()
                raise
            self._refused = False
            for refused in rejected:
                logger.error(
                    "feedback of decision %s is not archived: %s", refused.feedback.decision.decision_id, refused.reason
                )
            self.skipped += len(rejected)
            self.rows += Counter(feedback.decision.decision_point for feedback in self._buffer) - Counter(
                refused.feedback.decision.decision_point for refused in rejected
            )
            self._forget()
            self._consumer.commit()
        self._writer.compact()
        if self._retention_ms is not None:
            self._writer.expire(self._clock() - self._retention_ms)

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many records are still to be read."""
        return self._consumer.lag()

    def close(self) -> None:
        """Write what was read, leave the group, and let another writer in; raises ``LogError``."""
        try:
            self.flush()
        finally:
            self._consumer.close()
            self._writer.close()

    def _poll(self, timeout_s: float) -> list[Record]:
        records = self._consumer.poll(min(self._max_rows - self._read, _POLL_RECORDS), timeout_s)
        assignment = self._consumer.assignment()
        if assignment == self._placed:
            return records
        # What is in memory may be of a partition that was lost, and what was read of a new one is from elsewhere.
        self._forget()
        archived = self._writer.offsets()
        ends = self._log.ends(FEEDBACK)
        for partition in assignment:
            offset = archived.get(partition.partition, 0)
            if offset > ends[partition.partition]:
                raise LogError(
                    f"{self._directory}: holds feedback up to offset {offset} of partition {partition.partition}, but "
                    f"the log ends at {ends[partition.partition]}: it is another log; move the archive away, or give "
                    "the new log a data directory of its own"
                )
            self._consumer.seek(partition, offset)
        self._placed = assignment
        return self._consumer.poll(min(self._max_rows, _POLL_RECORDS), timeout_s if self._refused else 0.0)

    def _begin_again(self) -> None:
        """Go on where the manifest says, at the next step."""
        self._placed = frozenset()
        self._forget()

    def _forget(self) -> None:
        self._buffer = []
        self._offsets = {}
        self._read = 0
        self._bytes = 0
