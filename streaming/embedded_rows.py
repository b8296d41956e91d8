"""How the records of a partition stand in its table: as blocks, or, of a compacted topic, each as a row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, groupby
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

from streaming.block import BlockReader, blocks
from streaming.log import Header, Message, Record, Topic

EXPIRE_BATCH = 1_000
#: Rows of one INSERT. Each step of a statement lets go of the interpreter's lock, and with busy threads beside it waits
#: to get it back: a statement for each row would cost more than what it does. Few sizes, so that few are prepared.
_ROWS = (64, 16, 4, 1)
#: The rows of an offset (?1) and of those behind it. The first may be a block that begins before it.
_FROM = (
    "offset >= coalesce((SELECT max(offset) FROM {0} WHERE offset <= ?1), ?1) AND (offset >= ?1 OR offset + size > ?1)"
)

#: Says of an offset and a time whether it is old. If it is true of some, it is of those that are less in both.
Old = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One partition of a topic, as its writer's file knows it: where a message goes.

    Parameters
    ----------
    topic
        The topic.
    number
        The topic's number in its file.
    partition
        The partition's number in its topic.
    """

    topic: Topic
    number: int
    partition: int

    @property
    def table(self) -> str:
        """Name of the table that holds the partition."""
        kind = "records" if self.topic.compacted else "blocks"
        return f"{kind}_{self.number}_{self.partition}"

    @property
    def rows(self) -> str:
        """What queries read: the table, in the form that all have."""
        return f"(SELECT *, NULL AS size, NULL AS oldest_ms FROM {self.table})" if self.topic.compacted else self.table


class _Row(NamedTuple):
    """What a row holds: ``size`` records from ``offset`` on, of which the first ``seen`` are looked at."""

    offset: int
    size: int
    oldest_ms: int
    newest_ms: int
    seen: int


def create_table(connection: sqlite3.Connection, place: Place) -> None:
    """Create the table of a partition, empty."""
    # What tells of a block stands before it: SQLite finds what is behind a large value by reading all of it.
    columns = (
        "key BLOB NOT NULL UNIQUE, value BLOB NOT NULL"
        if place.topic.compacted
        else "size INTEGER, oldest_ms INTEGER, key BLOB, value BLOB"
    )
    connection.execute(
        f"CREATE TABLE {place.table} (offset INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, {columns}, "
        "headers TEXT)"
    )


def fetch(connection: sqlite3.Connection, place: Place, start: int, limit: int) -> list[Record]:
    """Return up to ``limit`` records from offset ``start`` on; raises as damaged rows do, see ``sound``."""
    name, partition = place.topic.name, place.partition
    rows = (
        f"SELECT offset, size, timestamp_ms, key, value, headers FROM {place.rows} "
        f"WHERE {_FROM.format(place.rows)} ORDER BY offset LIMIT ?2"
    )
    records: list[Record] = []
    reader = BlockReader()
    with closing(connection.execute(rows, (start, limit))) as found:
        for offset, size, timestamp, key, value, headers in found:
            if size is None:
                its = _headers_from(headers) if headers else ()
                records.append(Record(name, partition, offset, timestamp, key, value, its))
            else:
                first = max(start - offset, 0)
                wanted = reader.fields(value, size, first, first + limit - len(records))
                records += [
                    Record(name, partition, at, time_ms, key, value, headers)
                    for at, (time_ms, key, value, headers) in enumerate(wanted, start=offset + first)
                ]
            if len(records) >= limit:
                break
    return records


def remaining(connection: sqlite3.Connection, place: Place, start: int) -> int:
    """Return how many records there are from offset ``start`` on; see :meth:`WriterFile.remaining`."""
    table = place.table
    if place.topic.compacted:
        (count,) = connection.execute(f"SELECT count(*) FROM {table} WHERE offset >= ?", (start,)).fetchone()
    else:
        (first, end) = connection.execute(
            f"SELECT (SELECT offset FROM {table} WHERE {_FROM.format(table)} ORDER BY offset LIMIT 1), "
            f"(SELECT offset + coalesce(size, 1) FROM {table} ORDER BY offset DESC LIMIT 1)",
            (start,),
        ).fetchone()
        count = 0 if first is None else end - max(first, start)
    return int(count)


def has_old(connection: sqlite3.Connection, place: Place, old: Old) -> bool:
    """Say whether some of the first ``EXPIRE_BATCH`` records are old."""
    return any(old(row.offset, row.oldest_ms) for row in _first_rows(connection, place))


def remove(connection: sqlite3.Connection, place: Place, old: Old) -> int:
    """Remove what is old among the first ``EXPIRE_BATCH`` records; return how many."""
    rows = [row for row in _first_rows(connection, place) if old(row.offset, row.oldest_ms)]
    kept = [record for row in rows for record in _young(connection, place, row, old)]
    offsets = json.dumps([row.offset for row in rows])
    connection.execute(f"DELETE FROM {place.table} WHERE offset IN (SELECT value FROM json_each(?))", (offsets,))
    for _, run in groupby(enumerate(kept), lambda its: its[1][0] - its[0]):  # whose offsets follow each other
        (first, *_), messages = zip(*[record for _, record in run], strict=True)
        _insert_blocks(connection, place, messages, first)
    return sum([row.size for row in rows]) - len(kept)


def append(connection: sqlite3.Connection, place: Place, batch: Sequence[Message], start: int) -> None:
    """Append records, of which the first gets offset ``start``."""
    if not place.topic.compacted:
        _insert_blocks(connection, place, batch, start)
        return
    rows = [(start + index, m.timestamp_ms, m.key, m.value, _headers_to(m.headers)) for index, m in enumerate(batch)]
    last = {row[2]: row for row in rows}  # of several records of a key in one batch only the last will be seen
    connection.executemany(f"DELETE FROM {place.table} WHERE key = ?", [(key,) for key in last])
    kept = sorted(row for row in last.values() if row[3] is not None)
    insert(connection, f"INSERT INTO {place.table} VALUES", kept)


def _first_rows(connection: sqlite3.Connection, place: Place) -> list[_Row]:
    """Return the rows with the first ``EXPIRE_BATCH`` records of a partition."""
    rows: list[_Row] = []
    left = EXPIRE_BATCH
    query = (
        "SELECT offset, coalesce(size, 1), coalesce(oldest_ms, timestamp_ms), timestamp_ms "
        f"FROM {place.rows} ORDER BY offset LIMIT {EXPIRE_BATCH}"
    )
    with closing(connection.execute(query)) as found:
        for offset, size, oldest_ms, newest_ms in found:
            rows.append(_Row(offset, size, oldest_ms, newest_ms, min(size, left)))
            left -= size
            if left <= 0:
                break
    return rows


def _young(connection: sqlite3.Connection, place: Place, row: _Row, old: Old) -> list[tuple[int, Message]]:
    """Return the records of a row that are to stay, with their offsets."""
    if row.seen == row.size and old(row.offset + row.size - 1, row.newest_ms):
        return []
    (data,) = connection.execute(f"SELECT value FROM {place.table} WHERE offset = ?", (row.offset,)).fetchone()
    return [
        (offset, Message(place.topic.name, key, value, time_ms, headers))
        for offset, (time_ms, key, value, headers) in enumerate(
            BlockReader().fields(data, row.size, 0, row.size), start=row.offset
        )
        if offset >= row.offset + row.seen or not old(offset, time_ms)
    ]


def _insert_blocks(connection: sqlite3.Connection, place: Place, messages: Sequence[Message], start: int) -> None:
    """Insert records whose offsets follow each other from ``start`` on."""
    rows: list[tuple[object, ...]] = []
    if len(messages) == 1:  # as a row of its own it is read faster
        [(_, key, value, time_ms, headers, _)] = messages
        rows.append((start, None, None, time_ms, key, value, _headers_to(headers)))
    else:
        for size, oldest_ms, newest_ms, data in blocks(messages):
            rows.append((start, size, oldest_ms, newest_ms, None, data, None))
            start += size
    columns = "offset, size, oldest_ms, timestamp_ms, key, value, headers"
    insert(connection, f"INSERT INTO {place.table} ({columns}) VALUES", rows)


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows of one width, many with each statement."""
    at = 0
    for size in _ROWS:
        while len(rows) - at >= size:
            places = "(" + ", ".join("?" * len(rows[at])) + ")"
            values = list(chain.from_iterable(rows[at : at + size]))
            connection.execute(f"{statement} {', '.join([places] * size)}", values)
            at += size


def _headers_to(headers: Iterable[Header]) -> str | None:
    # Latin-1 gives each byte its own character, so that any bytes come back from JSON as they were.
    pairs = [
        f"[{encode_basestring_ascii(name)}, {encode_basestring_ascii(value.decode('latin-1'))}]"
        for name, value in headers
    ]
    return f"[{', '.join(pairs)}]" if pairs else None


def _headers_from(text: str) -> tuple[Header, ...]:
    return tuple((name, value.encode("latin-1")) for name, value in json.loads(text))
