"""The part of the join's state that does not fit in memory: a table in a file of this process alone.

It is a swap file. All of the state is in the log, and is read from there after any error or restart; so nothing here is
made durable, and the file has no name: the operating system frees it with the process, however that ends.
"""

from __future__ import annotations

import marshal
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.errors import LogError
from streaming.entry import Entry, Item

#: After every time, and every id.
NEVER = (2**63 - 1, b"")

_CACHE_KIB = 8_192  # what is warm beyond that is in the page cache of the operating system
_VARIABLES = 1_000

_SCHEMA = """
PRAGMA page_size = 4096;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA temp_store = MEMORY;
CREATE TABLE entries (
    place INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, due INTEGER NOT NULL, block INTEGER NOT NULL, rest BLOB NOT NULL
);
CREATE INDEX by_due ON entries (due, id);
CREATE INDEX by_block ON entries (block);
"""
_COLUMNS = "place, id, due, block, rest"


class ColdTable:
    """Entries by decision id and by the time at which they are due, on disk.

    Parameters
    ----------
    directory
        Where the file lies, on a local disk; created if need be.

    Raises
    ------
    LogError
        By any method, when the disk is full or refuses. Nothing is lost: the state is in the log.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._next = NEVER
        with self._explained("create the swap file of the join"):
            directory.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix="join-", suffix=".swap", dir=directory)
            os.close(descriptor)
            try:
                self._file = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
                self._file.executescript(f"PRAGMA cache_size = -{_CACHE_KIB}; {_SCHEMA}")
            finally:
                os.unlink(name)

    def __len__(self) -> int:
        return self._count

    @property
    def next(self) -> tuple[int, bytes]:
        """Time and id before which nothing here is due."""
        return self._next

    def put(self, items: Iterable[Item]) -> None:
        """Add entries; one with an id that is here already takes its place."""
        rows = [(key, entry.due_ms, entry.block, marshal.dumps(entry.rest())) for key, entry in items]
        if not rows:
            return
        with self._changing("write"):
            self._file.executemany("INSERT OR REPLACE INTO entries (id, due, block, rest) VALUES (?, ?, ?, ?)", rows)
        self._count += len(rows)  # recount() after a replacement
        first_ms = min(row[1] for row in rows)
        if first_ms <= self._next[0]:
            self._next = min(self._next, min((row[1], row[0]) for row in rows if row[1] == first_ms))

    def take(self, keys: Sequence[bytes]) -> list[Item]:
        """Remove and return those of some entries that are here."""
        found: list[Item] = []
        for start in range(0, len(keys), _VARIABLES):
            some = keys[start : start + _VARIABLES]
            found += self._take(f"WHERE id IN ({','.join('?' * len(some))})", some)
        return found

    def take_due(self, until_ms: int, limit: int) -> list[Item]:
        """Remove and return the first entries that are due up to a time, in the order of time and id."""
        items = self._take("WHERE due <= ? ORDER BY due, id LIMIT ?", (until_ms, limit))
        with self._explained("read"):
            first = self._file.execute("SELECT due, id FROM entries ORDER BY due, id LIMIT 1").fetchone()
        self._next = NEVER if first is None else first
        return items

    def take_blocks(self, blocks: Iterable[int]) -> list[Item]:
        """Remove and return all entries of some blocks of the changelog."""
        return [item for block in blocks for item in self._take("WHERE block = ?", (block,))]

    def discard(self, keys: Iterable[bytes]) -> None:
        """Remove entries, those that are here."""
        with self._changing("write"):
            self._file.executemany("DELETE FROM entries WHERE id = ?", ((key,) for key in keys))
        self.recount()

    def recount(self) -> None:
        """Count entries, after replacements."""
        with self._explained("read"):
            (self._count,) = self._file.execute("SELECT count(*) FROM entries").fetchone()

    def blocks(self) -> dict[int, int]:
        """Return how many entries there are of each block of the changelog."""
        with self._explained("read"):
            return dict(self._file.execute("SELECT block, count(*) FROM entries GROUP BY block"))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _take(self, which: str, parameters: Sequence[object]) -> list[Item]:
        with self._changing("read"):
            rows = self._file.execute(f"SELECT {_COLUMNS} FROM entries {which}", parameters).fetchall()
            self._file.executemany("DELETE FROM entries WHERE place = ?", [row[:1] for row in rows])
        self._count -= len(rows)
        return [(key, Entry.of(due, block, marshal.loads(rest))) for _, key, due, block, rest in rows]

    @contextmanager
    def _changing(self, doing: str) -> Iterator[None]:
        # Without a journal nothing can be undone; after an error the table is not used again.
        with self._explained(doing):
            self._file.execute("BEGIN")
            yield
            self._file.execute("COMMIT")

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LogError(
                f"{self._directory}: cannot {doing}: {error}; free space on its disk, or let the join keep more in "
                "memory; nothing is lost, the state is in the log"
            ) from error
