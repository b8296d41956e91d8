"""Consumer groups of the embedded log: who may read which partition, and where each goes on."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import LogError
from streaming.embedded_file import explained
from streaming.log import Record, TopicPartition

if TYPE_CHECKING:
    from streaming.embedded import EmbeddedLog

logger = logging.getLogger(__name__)

_NAP_S = 0.05


class PartitionLocks:
    """The partition numbers that this member of a group owns, as locks on files.

    One lock stands for partition *n* of **all** topics of the group, so that what belongs together is read by one
    member. The operating system frees the locks of a process that ends in any way, kill -9 included; a
    process that is merely stopped keeps them.
    """

    def __init__(self, directory: Path, group: str, partitions: int) -> None:
        self._paths = [directory / f"{group}-{number}.lock" for number in range(partitions)]
        self._files: dict[int, int] = {}
        self.owned: set[int] = set()

    def acquire(self) -> list[int]:
        """Take every partition number that is free; return the new ones."""
        taken = []
        for number, path in enumerate(self._paths):
            if number in self.owned:
                continue
            with explained(path, "open the lock"):
                if number not in self._files:
                    self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(self._files[number], fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
            self.owned.add(number)
            taken.append(number)
        return taken

    def release(self) -> None:
        """Give every partition back. The files stay: removing one would let two members lock two files of one name."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        self.owned.clear()


class EmbeddedConsumer:
    """A member of a consumer group of the embedded log; see :class:`streaming.log.Consumer`.

    The group does **not** balance: the first member takes every partition, later ones stand by and take over, in
    their next ``poll``, what a member leaves behind. All members of a group must name the same topics. One thread
    uses a consumer; ``close`` may come from another and ends a waiting ``poll``.
    """

    def __init__(self, log: EmbeddedLog, directory: Path, group: str, topics: Sequence[str]) -> None:
        self._log = log
        self._group = group
        self._partitions = {topic: log.partitions(topic) for topic in topics}
        self._locks = PartitionLocks(directory, group, max(self._partitions.values(), default=0))
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._turn = 0
        self._guard = threading.RLock()
        self._closed = threading.Event()
        _consumers.add(self)

    def poll(self, max_records: int = 1_000, timeout_s: float = 0.0) -> list[Record]:
        """Return the next records; every partition gets an equal share of ``max_records`` before one gets more."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._guard:
                if self._closed.is_set():
                    return []
                self._acquire()
                records = self._fetch(max_records)
            left = deadline - time.monotonic()
            if records or left <= 0 or self._closed.wait(min(_NAP_S, left)):
                return records

    def _acquire(self) -> None:
        try:
            taken = self._locks.acquire()
            # Only now: the member that had the partition may have committed until it let go.
            committed = self._log.committed(self._group) if taken else {}
            ends = {topic: self._log.ends(topic) for topic in self._partitions} if taken else {}
        except BaseException:
            self._release()  # a partition that is locked and not read would be lost to all members
            raise
        for topic, partitions in self._partitions.items():
            for number in taken:
                if number < partitions:
                    where = TopicPartition(topic, number)
                    start, end = committed.get(where, 0), ends[topic][number]
                    if start > end:
                        # Else it would pass over all that comes until the new log is as long as the old one was.
                        logger.error(
                            "%s has read %s/%d up to offset %d, and it ends at %d: it is another log, and is read "
                            "from its beginning", self._group, topic, number, start, end,
                        )  # fmt: skip
                        start = 0
                    self._positions[where] = start

    def _fetch(self, max_records: int) -> list[Record]:
        partitions = [where for where in self._positions if where not in self._paused]
        if partitions:
            # Begin with another partition each time: with few records a poll, the last ones would never have a turn.
            self._turn = (self._turn + 1) % len(partitions)
            partitions = partitions[self._turn :] + partitions[: self._turn]
        positions = dict(self._positions)
        records: list[Record] = []
        while partitions and len(records) < max_records:
            share = max(1, (max_records - len(records)) // len(partitions))
            unfinished = []
            for where in partitions:
                wanted = min(share, max_records - len(records))
                batch = self._log.read(where.topic, where.partition, positions[where], wanted) if wanted else []
                if batch:
                    positions[where] = batch[-1].offset + 1
                    records += batch
                if len(batch) == wanted:
                    unfinished.append(where)
            partitions = unfinished
        self._positions = positions  # all or nothing: an error above gives the same records again
        return records

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions that belong to this member."""
        return frozenset(self._positions)

    def position(self) -> dict[TopicPartition, int]:
        """Return the next offset of each assigned partition."""
        return dict(self._positions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on reading at ``offset``; raises ``LogError`` for a partition that is not assigned."""
        with self._guard:
            if partition not in self._positions:
                raise LogError(
                    f"partition {partition.partition} of topic {partition.topic!r} is not assigned to this member of "
                    f"group {self._group!r}; poll first, and see assignment()"
                )
            self._positions[partition] = offset

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Leave out these partitions in ``poll`` until the next call, and no others."""
        self._paused = frozenset(partitions)

    def lag(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition how many records are still to be read."""
        return {where: self._log.remaining(where, position) for where, position in self.position().items()}

    def commit(self) -> None:
        """Store the positions of this member."""
        with self._log.transaction(self._group) as transaction:
            transaction.commit_offsets(self.position())

    def close(self) -> None:
        """Leave the group: another member takes over in its next ``poll``. Nothing is committed."""
        self._closed.set()
        with self._guard:
            self._release()

    def _release(self) -> None:
        self._positions.clear()
        self._locks.release()


_consumers: weakref.WeakSet[EmbeddedConsumer] = weakref.WeakSet()


def _leave_after_fork() -> None:
    # A child shares its parent's locks: with them open there, a killed parent would never free its partitions.
    for consumer in _consumers:
        consumer._closed.set()
        consumer._release()


os.register_at_fork(after_in_child=_leave_after_fork)
