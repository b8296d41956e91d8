"""The spool: what serving has recorded waits here, on the local disk, until the cluster has it."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import LogError
from streaming.embedded import EmbeddedLog
from streaming.embedded_consumer import EmbeddedConsumer
from streaming.embedded_file import explained, sound
from streaming.log import Log, Message, Record, Topic, TopicPartition
from streaming.topics import DECISIONS, SERVING, SHIPPING

logger = logging.getLogger(__name__)

#: One queue for the records of all topics, in the order in which they were made: an outcome never overtakes its
#: decision, however long the spool is. The cluster may have any number of partitions.
QUEUE = "queue"
_WHERE = TopicPartition(QUEUE, 0)
#: Tells of which topic a record is.
_TOPIC = "leeway-topic"
#: So far a decision is looked for, to tell the age of what waits.
_LOOK = 1_000
#: What was shipped is removed in portions: a removal waits for the disk, and the writer for the removal.
_REMOVE_AFTER = 5_000
_REMOVE_AFTER_BYTES = 8_388_608
#: What SQLite adds to a record and its key, with room to spare.
_OVERHEAD_BYTES = 64
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class _Files:
    """A spool's directory, opened: no other process takes from it."""

    log: EmbeddedLog
    consumer: EmbeddedConsumer


class Spool:
    """A durable queue of records, bounded in bytes: an embedded log that forgets what was shipped.

    One thread appends; another one takes, and says whether what it took has arrived. What was taken and not said to
    have arrived before the process ended is taken again by the next one.

    A damaged spool is moved aside, and said so: serving goes on with a new one, and what the old one holds can be
    mended and shipped later (``docs/operating.md``).

    Parameters
    ----------
    directory
        Where it lies; created if need be.
    max_bytes
        Most bytes of the disk that may be in use.
    fsync
        Whether ``append`` waits for the disk, so that what it took survives a power failure.

    Raises
    ------
    LogError
        The directory cannot be used, or another process uses it.
    """

    def __init__(self, directory: Path, *, max_bytes: int, fsync: bool = True) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._guard = threading.RLock()
        self._shipped: Mapping[TopicPartition, int] = {}
        self._taken = 0
        self._removable = self._removable_bytes = 0
        self._waiting = 0
        try:
            self._files = self._open()
        except LogError as error:
            if not _is_damage(error):
                raise
            self._set_aside(error)

    @property
    def waiting(self) -> int:
        """How many records have not been shipped."""
        return self._waiting

    def append(self, messages: Sequence[Message]) -> None:
        """Add records, all or none; raises ``LogError`` when the spool or the disk is full."""
        wanted = sum(len(m.key or b"") + len(m.value or b"") + _OVERHEAD_BYTES for m in messages)
        with self._guard:
            try:
                self._append(messages, wanted)
            except LogError as error:
                self._survive(error, self._files)
                self._append(messages, wanted)

    def _append(self, messages: Sequence[Message], wanted: int) -> None:
        used = self._files.log.used_bytes()
        if used + wanted > self._max_bytes:
            raise LogError(
                f"{self._directory}: the spool is full: {self._waiting} records wait for the cluster and take {used} "
                f"of {self._max_bytes} bytes; mend the cluster or the way to it, or raise log.spool_max_bytes"
            )
        self._files.log.append([_queued(message) for message in messages])
        self._waiting += len(messages)

    def take(self, max_records: int) -> list[Record]:
        """Return the next records in the order in which they were appended; none: all were taken."""
        files = self._files
        try:
            records = files.consumer.poll(max_records)
            with explained(self._directory, "read what waits"), sound():
                restored = [_restored(record) for record in records]
        except LogError as error:
            self._survive(error, files)
            return []
        with self._guard:
            if files is not self._files:
                return []  # they were moved aside meanwhile
            self._taken = len(records)
        self._removable_bytes += sum(len(record.value or b"") for record in records)
        return restored

    def put_back(self) -> None:
        """Say that what was taken did not arrive: it is taken again."""
        with self._guard:
            self._taken = 0
            for partition, offset in self._shipped.items():
                self._files.consumer.seek(partition, offset)

    def shipped(self) -> None:
        """Say that what was taken has arrived.

        Where that cannot be noted, as on a full disk, it is known to this process alone, and the next one takes the
        same records again.
        """
        with self._guard:
            files = self._files
            self._waiting -= self._taken
            self._removable += self._taken
            self._taken = 0
            self._shipped = files.consumer.position()
        # Here the writer goes on: it must not wait for these flushes of the disk.
        try:
            files.consumer.commit()
            if self._removable >= _REMOVE_AFTER or self._removable_bytes >= _REMOVE_AFTER_BYTES:
                self._remove(files)
        except LogError as error:
            if not _is_damage(error):
                logger.warning("what was shipped cannot be noted, and is sent twice after a restart: %s", error)
            else:
                self._survive(error, files)

    def tidy(self) -> None:
        """Remove what was shipped, to the last record; for a moment when nothing waits."""
        if self._removable:
            self._remove(self._files)

    def _remove(self, files: _Files) -> None:
        while files.log.delete_records(self._shipped):
            pass
        self._removable = self._removable_bytes = 0

    def newest(self, topic: str, count: int) -> list[bytes]:
        """Return the values of the last ``count`` records of a topic that are still here, shipped or not."""
        log = self._files.log
        (end,) = log.ends(QUEUE).values()
        found: list[bytes] = []
        while end > 0 and len(found) < count:
            start = max(0, end - count)
            records = map(_restored, log.read(QUEUE, 0, start, end - start))
            found = [r.value for r in records if r.topic == topic and r.value is not None] + found
            end = start
        return found[-count:]

    def used_bytes(self) -> float:
        """Return how many bytes of the disk are in use; NaN where that cannot be read."""
        try:
            return self._files.log.used_bytes()
        except LogError:
            return math.nan

    def oldest_ms(self) -> int | None:
        """Return the time of the oldest record that waits; ``None``: nothing waits, or it cannot be read."""
        if not self._waiting:
            return None
        try:
            first = [
                _restored(record) for record in self._files.log.read(QUEUE, 0, self._shipped.get(_WHERE, 0), _LOOK)
            ]
        except LogError:
            return None  # who appends or takes meets it too, and says it
        times = [record.timestamp_ms for record in first if record.topic == DECISIONS]
        return next(iter(times or [record.timestamp_ms for record in first]), None)

    def close(self) -> None:
        """Close the files; what waits is there for the next process."""
        self._files.log.close()

    def _open(self) -> _Files:
        log = EmbeddedLog(self._directory, fsync=self._fsync)
        try:
            log.create([Topic(QUEUE, SERVING, 1)])
            consumer = log.consumer(SHIPPING, [QUEUE])
            consumer.poll(0)
            if not consumer.assignment():
                raise LogError(f"{self._directory}: another process ships from this spool; stop it, and try again")
            self._shipped = consumer.position()
            self._waiting = sum(consumer.lag().values())
        except BaseException:
            log.close()
            raise
        return _Files(log, consumer)

    def _survive(self, error: LogError, files: _Files) -> None:
        """Go on with new files after a damage of these ones; raise any other error."""
        if not _is_damage(error):
            raise error
        with self._guard:
            if files is self._files:  # else the other thread has met the damage first
                self._set_aside(error)

    def _set_aside(self, damage: LogError) -> None:
        """Go on with a new spool: nothing of the damaged one is lost that can still be read by other means."""
        files: _Files | None = getattr(self, "_files", None)
        if files is not None:
            files.log.close()
        number = 1
        while (aside := self._directory.with_name(f"{self._directory.name}.damaged-{number}")).exists():
            number += 1
        try:
            self._directory.rename(aside)
        except OSError as error:
            raise LogError(
                f"{self._directory}: damaged ({damage}), and cannot be moved to {aside} ({error.strerror}); move it"
            ) from damage
        logger.error(
            "%s; it is %s now, with %s that the cluster does not have. Serving goes on with a new spool; how to mend "
            "the old one, and have it shipped, is in docs/operating.md",
            damage, aside, f"{self._waiting} records" if files is not None else "all",
        )  # fmt: skip
        self._taken = self._waiting = self._removable = self._removable_bytes = 0
        self._files = self._open()


def oldest_ms(log: Log, shipped: Mapping[TopicPartition, int]) -> int | None:
    """Return the time of the oldest record of a spool that waits: of a decision if there is one near its beginning.

    Clients say the times of outcomes, which may be long ago. ``shipped`` is how far it was shipped.
    """
    first = [_restored(record) for record in log.read(QUEUE, 0, shipped.get(_WHERE, 0), _LOOK)]
    decided = [record.timestamp_ms for record in first if record.topic == DECISIONS]
    return next(iter(decided or [record.timestamp_ms for record in first]), None)


def _queued(message: Message) -> Message:
    headers = ((_TOPIC, message.topic.encode()), *message.headers)
    return Message(QUEUE, message.key, message.value, message.timestamp_ms, headers)


def _restored(record: Record) -> Record:
    """Return a record of the queue as one of its own topic."""
    (_, topic), *headers = record.headers
    return record._replace(topic=(topic or b"").decode(), headers=tuple(headers))


def _is_damage(error: LogError) -> bool:
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _DAMAGE
