"""The embedded log: durable topics in a directory, without a server, for the processes of one machine.

Each writer has a file of its own, so that no writer ever waits for another one's lock, and a step of a writer
(what it sends and the offsets of what it consumed) is one SQLite transaction. Any number of processes may read
and append. The directory must lie on a local disk: neither SQLite's shared memory nor file locks work over a network.

See ``docs/adr/0002-embedded-log-on-sqlite.md`` for the reasons.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import LogError
from streaming.embedded_consumer import EmbeddedConsumer
from streaming.embedded_file import WriterFile, create_file, explained
from streaming.embedded_rows import Place
from streaming.log import Message, Record, Topic, TopicPartition, partition_of

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class EmbeddedLog:
    """A durable log in a directory; see :class:`streaming.log.Log` for what it promises.

    Safe for the threads of a process and for several processes. A process that was forked opens it anew.

    Parameters
    ----------
    directory
        Where its files lie; created if need be.
    fsync
        True: what was acknowledged survives a power failure. False: faster, and it survives the end of the
        process only.

    Raises
    ------
    LogError
        If the directory cannot be used; later, by any method, when the disk is full or a file is damaged. The log
        can be used on when the cause is gone.
    """

    #: A partition is guarded by a lock that its member holds, and by nothing when it has let go.
    fences = False

    def __init__(self, directory: Path, *, fsync: bool = True) -> None:
        self._directory = directory
        self._locks = directory / "locks"
        self._fsync = fsync
        self._guard = threading.RLock()
        self._files: dict[str, WriterFile] = {}
        self._topics: dict[str, tuple[WriterFile, tuple[Place, ...]]] = {}
        self._consumers: list[EmbeddedConsumer] = []
        self._closed = False
        with explained(directory, "create the directory"):
            self._locks.mkdir(parents=True, exist_ok=True)

    def create(self, topics: Iterable[Topic]) -> None:
        """Declare topics. What exists keeps its records, and takes on the retention that is given here."""
        wanted = list(topics)
        for topic in wanted:
            _check_name(topic.name)
            if topic.partitions < 1:
                raise LogError(f"topic {topic.name!r} has {topic.partitions} partitions; give it at least 1")
        with self._creating():
            self._discover()
            for topic in wanted:
                if topic.name in self._topics:
                    _check_same(self._topics[topic.name][1][0].topic, topic, self._directory)
            for topic in wanted:
                if topic.name in self._topics:
                    file, (place, *_) = self._topics[topic.name]
                    if place.topic.retention_ms != topic.retention_ms:
                        file.retain(topic)
                else:
                    self._file(topic.writer, create=True).add(topic)
            self._discover()

    def append(self, messages: Sequence[Message]) -> None:
        """Write records durably; those of one writer's topics together or not at all.

        Each call is a transaction, and with ``fsync`` a flush of the disk: append many records at a time.
        """
        batches: defaultdict[Place, list[Message]] = defaultdict(list)
        for message in messages:
            batches[self.place(message)].append(message)
        for writer in {place.topic.writer: None for place in batches}:
            self.write(writer, {place: batch for place, batch in batches.items() if place.topic.writer == writer}, {})

    def transaction(self, writer: str) -> EmbeddedTransaction:
        """Open a transaction of a writer; nothing is locked before its block ends."""
        return EmbeddedTransaction(self, writer)

    def consumer(self, group: str, topics: Sequence[str]) -> EmbeddedConsumer:
        """Join a consumer group; which partitions it gets is decided in ``poll``."""
        _check_name(group)
        consumer = EmbeddedConsumer(self, self._locks, group, topics)
        with self._guard:
            self._consumers.append(consumer)
        return consumer

    def read(self, topic: str, partition: int, start: int = 0, max_records: int = 1_000) -> list[Record]:
        """Return records of one partition from offset ``start`` on."""
        file, place = self._place(topic, partition)
        return file.fetch(place, start, max_records)

    def ends(self, topic: str) -> dict[int, int]:
        """Return for each partition the offset that the next record will get."""
        file, _ = self._topic(topic)
        return file.ends(topic)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of a group; empty for one that has never committed."""
        _check_name(group)
        with self._guard:
            if group not in self._files and not self._path(group).exists():
                return {}
            file = self._file(group)
        return file.offsets()

    def expire(self, now_ms: int) -> int:
        """Remove a bounded number of records that are older than their topic's retention; return how many.

        Call it from time to time, and again as long as it returns more than 0. It does not wait for consumers that
        lag behind: they go on at the first record that exists. The space is used again by later records.
        """
        self._discover()
        with self._guard:
            files = list(self._files.values())
        return sum(file.expire(now_ms) for file in files)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> int:
        """Remove a bounded number of the records that stand before the given offsets; return how many.

        As ``expire``, but by offset: for a log whose records have been taken elsewhere. Call it again as long as it
        returns more than 0.
        """
        removed = 0
        for where, offset in before.items():
            file, place = self._place(where.topic, where.partition)
            removed += file.delete_before(place, offset)
        return removed

    def used_bytes(self) -> int:
        """Return how many bytes of its files hold something; less than their size where records were removed."""
        with self._guard:
            files = list(self._files.values())
        return sum(file.used_bytes() for file in files)

    def close(self) -> None:
        """Leave all groups and close all files."""
        with self._guard:
            self._closed = True
            consumers, self._consumers = self._consumers, []
            files, self._files = list(self._files.values()), {}
            self._topics = {}
        for consumer in consumers:
            consumer.close()
        for file in files:
            file.close()

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return len(self._topic(topic)[1])

    def remaining(self, partition: TopicPartition, start: int) -> int:
        """Return how many records of a partition are still to be read from ``start`` on."""
        file, place = self._place(partition.topic, partition.partition)
        return file.remaining(place, start)

    def place(self, message: Message) -> Place:
        """Return where a message goes; raises ``LogError`` if it can go nowhere."""
        topic, key, _, _, _, partition = message
        _, places = self._topics.get(topic) or self._topic(topic)
        if key is None and places[0].topic.compacted:
            raise LogError(f"topic {topic!r} is compacted, and a message for it has no key; give it one")
        if partition is None:
            return places[partition_of(key, len(places))]
        return self._place(topic, partition)[1]

    def write(
        self, writer: str, batches: Mapping[Place, Sequence[Message]], offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Commit a transaction: messages and offsets into the writer's file, together."""
        with self._guard:
            file = self._files.get(writer)
        if file is None:
            with self._creating():  # a group without topics of its own has no file until it commits
                file = self._file(writer, create=True)
        file.write(batches, offsets)

    def _place(self, topic: str, partition: int) -> tuple[WriterFile, Place]:
        file, places = self._topic(topic)
        if not 0 <= partition < len(places):
            raise LogError(f"topic {topic!r} has no partition {partition}; it has 0 to {len(places) - 1}")
        return file, places[partition]

    def _topic(self, name: str) -> tuple[WriterFile, tuple[Place, ...]]:
        found = self._topics.get(name)
        if found is None:
            damage = self._discover()
            found = self._topics.get(name)
            if found is None and damage is not None:
                raise damage
            if found is None:
                known = ", ".join(sorted(self._topics)) or "none"
                raise LogError(
                    f"topic {name!r} does not exist in {self._directory} (there are: {known}); create it first"
                )
        return found

    def _discover(self) -> LogError | None:
        """Read the declarations of every file; return the first error: a damaged file must not stop the others."""
        damage = None
        with self._guard, explained(self._directory, "list the directory"):
            for path in sorted(self._directory.glob("*.sqlite")):
                try:
                    file = self._file(path.stem)
                    self._topics.update({topic: (file, places) for topic, places in file.topics().items()})
                except LogError as error:
                    damage = damage or error
        return damage

    def _path(self, writer: str) -> Path:
        return self._directory / f"{writer}.sqlite"

    def _file(self, writer: str, *, create: bool = False) -> WriterFile:
        with self._guard:
            if self._closed:
                raise LogError(f"{self._directory}: the log is closed; open it again")
            if writer not in self._files:
                _check_name(writer)
                if create:
                    create_file(self._path(writer))
                self._files[writer] = WriterFile(self._path(writer), fsync=self._fsync)
            return self._files[writer]

    @contextmanager
    def _creating(self) -> Iterator[None]:
        """Let one process and thread at a time create files and topics."""
        path = self._locks / "create.lock"
        with explained(path, "open the lock"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class EmbeddedTransaction:
    """A transaction of one writer; see :class:`streaming.log.Transaction`.

    It is kept in memory and written at the end of the block, so that the file is locked for the write alone.
    """

    def __init__(self, log: EmbeddedLog, writer: str) -> None:
        _check_name(writer)
        self._log = log
        self._writer = writer
        self._batches: defaultdict[Place, list[Message]] = defaultdict(list)
        self._offsets: dict[TopicPartition, int] = {}

    def send(self, message: Message) -> None:
        """Add a record; raises ``LogError`` for a topic of another writer."""
        place = self._log.place(message)
        owner = place.topic.writer
        if owner != self._writer:
            raise LogError(
                f"topic {message.topic!r} belongs to writer {owner!r}, and this is a transaction of {self._writer!r}; "
                "send to its own topics, or append outside"
            )
        self._batches[place].append(message)

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add the offsets at which the writer's group goes on."""
        self._offsets.update(offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._batches or self._offsets):
            self._log.write(self._writer, self._batches, self._offsets)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise LogError(
            f"{name!r} cannot name a topic, writer or group: use letters, digits, '_', '-' and '.', at most 128"
        )


def _check_same(existing: Topic, wanted: Topic, directory: Path) -> None:
    for attribute in ("writer", "partitions", "compacted"):
        old, new = getattr(existing, attribute), getattr(wanted, attribute)
        if old != new:
            raise LogError(
                f"topic {wanted.name!r} exists in {directory} with {attribute} {old!r}, not {new!r}; "
                f"keep {old!r}, or begin a new log in another directory"
            )
