"""A file of the embedded log as format 1 had it: each record is a row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from streaming.embedded_file import APPLICATION_ID
from streaming.log import Record, Topic, TopicPartition


def write_format_one(
    path: Path, topics: Sequence[Topic], records: Sequence[Record], offsets: dict[TopicPartition, int]
) -> None:
    """Make a file of one writer that holds records and has committed offsets."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(
            "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,"
            " retention_ms INTEGER, compacted INTEGER NOT NULL);"
            "CREATE TABLE ends (topic INTEGER NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,"
            " PRIMARY KEY (topic, partition)) WITHOUT ROWID;"
            "CREATE TABLE offsets (topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,"
            " PRIMARY KEY (topic, partition)) WITHOUT ROWID;"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;"
        )
        for number, topic in enumerate(topics, start=1):
            row = (number, topic.name, topic.partitions, topic.retention_ms, int(topic.compacted))
            file.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?)", row)
            columns = "key BLOB NOT NULL UNIQUE, value BLOB NOT NULL" if topic.compacted else "key BLOB, value BLOB"
            for partition in range(topic.partitions):
                file.execute(
                    f"CREATE TABLE records_{number}_{partition} "
                    f"(offset INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, {columns}, headers TEXT)"
                )
                its = [r for r in records if (r.topic, r.partition) == (topic.name, partition)]
                for r in its:
                    headers = [[name, value.decode("latin-1")] for name, value in r.headers]
                    file.execute(
                        f"INSERT INTO records_{number}_{partition} VALUES (?, ?, ?, ?, ?)",
                        (r.offset, r.timestamp_ms, r.key, r.value, json.dumps(headers) if headers else None),
                    )
                end = max([r.offset + 1 for r in its], default=0)
                file.execute("INSERT INTO ends VALUES (?, ?, ?)", (number, partition, end))
        for where, offset in offsets.items():
            file.execute("INSERT INTO offsets VALUES (?, ?, ?)", (*where, offset))
