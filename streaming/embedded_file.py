"""One file of the embedded log: the topics of one writer and the committed offsets of its group, in SQLite.

Layout (format 2): ``topics`` holds the declarations, ``ends`` the next offset of each partition (so that an
offset is never given twice, even after every record was removed), and ``offsets`` the group's positions. Each partition
has a table, which keeps the primary key growing: the cheapest way SQLite can insert. ``records_<topic>_<partition>`` of
a compacted topic has a row for each key. ``blocks_<topic>_<partition>`` of any other one has a row for each block of
records (:mod:`streaming.block`), at the offset of its first; or for one record, that has no ``size``.

In format 1 each record of any topic was a row. Such a file is taken over when it is opened: its tables are renamed, and
their rows stay as they are.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from engine.errors import LogError
from streaming.embedded_rows import (
    Old,
    Place,
    append,
    create_table,
    fetch,
    has_old,
    insert,
    remaining,
    remove,
)
from streaming.log import Message, Record, Topic, TopicPartition

APPLICATION_ID = 0x4C454557  # "LEEW", so that no other program's database is taken for a log
FORMAT = 2
MOST_PARTITIONS = 65_536  # of a topic; a file that names more is damaged
BUSY_TIMEOUT_S = 30.0
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_STATEMENTS = 512  # prepared ones that a connection keeps

_SCHEMA = """
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
                     retention_ms INTEGER, compacted INTEGER NOT NULL);
CREATE TABLE ends (topic INTEGER NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
                   PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE offsets (topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
                      PRIMARY KEY (topic, partition)) WITHOUT ROWID;
"""

_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full: free space there and try again, nothing was half-written",
    sqlite3.SQLITE_BUSY: f"another process held the file for more than {BUSY_TIMEOUT_S:.0f} s: stop it and try again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop Leeway, and restore the file from a copy or move it away",
    sqlite3.SQLITE_NOTADB: "the file is damaged or no log: restore it from a copy, or move it away to begin anew",
    sqlite3.SQLITE_READONLY: "the file cannot be written: give this user the right to write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that it exists and that this user may write there",
    sqlite3.SQLITE_IOERR: "the disk refused: check its free space and its health, then try again",
}


@contextmanager
def explained(path: Path, action: str) -> Iterator[None]:
    """Turn errors of SQLite and of the operating system into ``LogError`` with file, cause and remedy."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        remedy = _REMEDIES.get(code, "see the cause")
        raise LogError(f"{path}: cannot {action}: {error}; {remedy}") from error
    except OSError as error:
        raise LogError(
            f"{path}: cannot {action}: {error.strerror or error}; check its directory and free space"
        ) from error


@contextmanager
def sound() -> Iterator[None]:
    """Take a row that cannot have been written for damage of its file: SQLite looks at the form of pages alone."""
    try:
        yield
    except (TypeError, ValueError, KeyError) as error:
        damage = sqlite3.DatabaseError(f"a row is not what was written ({type(error).__name__}: {error})")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error


def create_file(path: Path) -> None:
    """Create an empty file of the log unless it exists; the caller keeps other processes from doing the same.

    It is built under another name and renamed, so that a file with the right name is always complete.
    """
    if path.exists():
        return
    draft = path.with_suffix(".draft")
    with explained(path, "create the file"):
        for leftover in path.parent.glob(f"{draft.name}*"):
            leftover.unlink()
        connection = sqlite3.connect(draft, isolation_level=None)
        try:
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
            )
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        draft.rename(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class WriterFile:
    """An open file of one writer.

    Safe for the threads of a process: it has one connection that writes and one that reads, each with its lock,
    so that a reader never waits for a commit. A process that was forked opens the log anew.

    Parameters
    ----------
    path
        An existing file; see :func:`create_file`.
    fsync
        True: a commit returns when the disk has it. False: the last commits may be lost if the *machine* fails
        (never if the process does), and the file stays consistent.

    Raises
    ------
    LogError
        If the file is damaged, no log, or of a newer format.
    """

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self.path = path
        self._fsync = fsync
        self._process = os.getpid()
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()
        with explained(path, "open the file"):
            self._reader = self._connect()
            try:
                self._check_format()
                self._reader.execute("PRAGMA query_only = ON")
            except BaseException:
                self._reader.close()
                raise
        self._writer: sqlite3.Connection | None = None
        self._closed = False

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path.resolve()))}?mode=rw"  # rw: never create what is not there
        return sqlite3.connect(
            uri,
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )

    def _check_format(self) -> None:
        (application,) = self._reader.execute("PRAGMA application_id").fetchone()
        (version,) = self._reader.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise LogError(
                f"{self.path}: is no file of Leeway's log; move it away, or name another directory for the log"
            )
        if version == 1:
            self._take_over()
        elif version != FORMAT:
            raise LogError(
                f"{self.path}: has format {version}, and this version of Leeway reads format {FORMAT}; "
                "install the Leeway that wrote it"
            )

    def _take_over(self) -> None:
        """Make a file of format 1 one of this format; a process of that time does not find its tables any more."""
        connection = self._reader
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone() == (1,):  # and no other process was faster
                topics = connection.execute("SELECT id, partitions FROM topics WHERE NOT compacted").fetchall()
                with sound():
                    tables = [f"{number}_{partition}" for number, count in topics for partition in range(count)]
                for table in tables:
                    connection.execute(f"ALTER TABLE records_{table} RENAME TO blocks_{table}")
                    for column in ("size", "oldest_ms"):
                        connection.execute(f"ALTER TABLE blocks_{table} ADD COLUMN {column} INTEGER")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _check_usable(self) -> None:
        if self._closed:
            raise LogError(f"{self.path}: the log is closed; open it again")
        if self._process != os.getpid():
            raise LogError(f"{self.path}: the log was opened before a fork; open it in the child process")

    @contextmanager
    def _reading(self, action: str) -> Iterator[sqlite3.Connection]:
        with self._read_lock, explained(self.path, action):
            self._check_usable()
            yield self._reader

    @contextmanager
    def _writing(self, action: str) -> Iterator[sqlite3.Connection]:
        """One transaction on the file: committed at the end of the block, undone by any error."""
        with self._write_lock, explained(self.path, action):
            self._check_usable()
            if self._writer is None:
                writer = self._connect()
                writer.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
                writer.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
                self._writer = writer
            connection = self._writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # some errors (disk full) have already undone it
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise

    def topics(self) -> dict[str, tuple[Place, ...]]:
        """Return the partitions of each topic of this file, in their order."""
        with self._reading("read its topics") as connection:
            rows = connection.execute("SELECT id, name, partitions, retention_ms, compacted FROM topics").fetchall()
            places = {}
            with sound():
                for number, name, partitions, retention_ms, compacted in rows:
                    if not (isinstance(name, str) and 0 < partitions <= MOST_PARTITIONS):
                        raise ValueError(f"topic {name!r} of {partitions!r} partitions")
                    topic = Topic(name, self.path.stem, partitions, retention_ms, bool(compacted))
                    places[name] = tuple(Place(topic, number, partition) for partition in range(partitions))
        return places

    def add(self, topic: Topic) -> None:
        """Store the declaration of a new topic, and its empty partitions."""
        with self._writing(f"create topic {topic.name!r}") as connection:
            number = connection.execute(
                "INSERT INTO topics (name, partitions, retention_ms, compacted) VALUES (?, ?, ?, ?)",
                (topic.name, topic.partitions, topic.retention_ms, int(topic.compacted)),
            ).lastrowid
            assert number is not None
            for partition in range(topic.partitions):
                create_table(connection, Place(topic, number, partition))
                connection.execute("INSERT INTO ends VALUES (?, ?, 0)", (number, partition))

    def retain(self, topic: Topic) -> None:
        """Change how long a topic is kept."""
        with self._writing(f"change topic {topic.name!r}") as connection:
            connection.execute("UPDATE topics SET retention_ms = ? WHERE name = ?", (topic.retention_ms, topic.name))

    def write(self, batches: Mapping[Place, Sequence[Message]], offsets: Mapping[TopicPartition, int]) -> None:
        """Append messages and store offsets of the group in one transaction."""
        with self._writing("append records") as connection:
            if batches:
                starts = _ends(connection)
                for place, batch in batches.items():
                    append(connection, place, batch, starts[place.number, place.partition])
                insert(
                    connection,
                    "INSERT OR REPLACE INTO ends VALUES",
                    [
                        (where.number, where.partition, starts[where.number, where.partition] + len(batch))
                        for where, batch in batches.items()
                    ],
                )
            insert(
                connection,
                "INSERT OR REPLACE INTO offsets VALUES",
                [(where.topic, where.partition, offset) for where, offset in offsets.items()],
            )

    def fetch(self, place: Place, start: int, limit: int) -> list[Record]:
        """Return up to ``limit`` records of a partition from offset ``start`` on."""
        with self._reading(f"read topic {place.topic.name!r}") as connection, sound():
            return fetch(connection, place, start, limit)

    def remaining(self, place: Place, start: int) -> int:
        """Return how many records of a partition have offset ``start`` or a greater one.

        Counted for a compacted topic. For another it is the distance from the first record that still exists to the
        end: exact, unless retention has left a hole there (see :meth:`expire`).
        """
        with self._reading(f"measure topic {place.topic.name!r}") as connection:
            return remaining(connection, place, start)

    def ends(self, topic: str) -> dict[int, int]:
        """Return for each partition of a topic the offset that its next record will get."""
        with self._reading(f"measure topic {topic!r}") as connection:
            rows = connection.execute(
                "SELECT partitions, partition, next_offset FROM topics LEFT JOIN ends ON topics.id = ends.topic "
                "WHERE name = ?",
                (topic,),
            ).fetchall()
            with sound():
                ends = {int(partition): int(end) for _, partition, end in rows}
                if not rows or ends.keys() != set(range(rows[0][0])):
                    raise ValueError(f"the partitions of {topic!r} with an end are {sorted(ends)}")
            return ends

    def offsets(self) -> dict[TopicPartition, int]:
        """Return the committed offsets of this writer's group."""
        with self._reading("read the committed offsets") as connection:
            rows = connection.execute("SELECT topic, partition, next_offset FROM offsets").fetchall()
        return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}

    def expire(self, now_ms: int) -> int:
        """Remove records that are older than their topic's retention; return how many.

        Looks at the oldest ``EXPIRE_BATCH`` records of each partition alone, so that a call keeps the writer
        waiting for milliseconds. Younger ones among them stay: a record with a time far in the future cannot
        keep those behind it alive.
        """
        removed = 0
        for place in (place for places in self.topics().values() for place in places):
            retention_ms = place.topic.retention_ms
            if not place.topic.compacted and retention_ms is not None:
                removed += self._expire_place(place, now_ms - retention_ms)
        return removed

    def _expire_place(self, place: Place, limit_ms: int) -> int:
        return self._remove(place, "expire", lambda _, time_ms: time_ms < limit_ms)

    def delete_before(self, place: Place, offset: int) -> int:
        """Remove at most ``EXPIRE_BATCH`` records of a partition with offsets less than ``offset``; return how many."""
        return self._remove(place, "delete records of", lambda its, _: its < offset)

    def _remove(self, place: Place, action: str, old: Old) -> int:
        """Remove what is old among the first ``EXPIRE_BATCH`` records of a partition; return how many.

        ``old`` is asked with an offset and a time. If it is true of some, it is of those that are less in both.
        """
        action = f"{action} topic {place.topic.name!r}"
        with self._reading(action) as connection, sound():  # nothing to remove: the writer is not disturbed
            if not has_old(connection, place, old):
                return 0
        with self._writing(action) as connection, sound():
            return remove(connection, place, old)

    def used_bytes(self) -> int:
        """Return how many bytes of the file are in use; what was removed is free for later records."""
        with self._reading("measure its size") as connection:
            size, pages, free = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count")
            )
        return int(size * (pages - free))

    def close(self) -> None:
        """Close both connections; a call that is under way ends first."""
        with self._write_lock, self._read_lock:
            self._closed = True
            if self._process == os.getpid():  # SQLite forbids to touch a connection that was carried over a fork
                with explained(self.path, "close the file"):
                    if self._writer is not None:
                        self._writer.close()
                    self._reader.close()


def _ends(connection: sqlite3.Connection) -> dict[tuple[int, int], int]:
    """Return the next offset of each (topic, partition) of a file, in one step of one statement."""
    (listed,) = connection.execute(
        "SELECT json_group_array(json_array(topic, partition, next_offset)) FROM ends"
    ).fetchone()
    return {(topic, partition): end for topic, partition, end in json.loads(listed)}
