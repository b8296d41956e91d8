"""What a client has to deliver still: bounded, in order, and on disk where a path is given."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

#: Marks the file as an outbox (SQLite's ``application_id``), so that no other file is taken for one.
_MARK = 0x4C776F78


class OutboxFull(Exception):  # noqa: N818  (said to the caller, who decides what to do)
    """As much waits as may: nothing was taken."""


class Outbox:
    """Serialized messages by key, oldest first. Safe for threads, and for several processes with one file.

    Parameters
    ----------
    path
        A file that outlives the process; ``None``: in memory.
    most
        How many may wait.

    Raises
    ------
    ValueError
        Where the file belongs to another program.

    Examples
    --------
    >>> box = Outbox(None, most=2)
    >>> box.add("a", b"1")
    >>> box.add("b", b"2")
    >>> box.oldest(10, 1_000)
    [('a', b'1'), ('b', b'2')]
    >>> box.drop(["a"])
    >>> len(box)
    1
    """

    def __init__(self, path: Path | None, most: int) -> None:
        if most < 1:
            raise ValueError(f"most is {most}; let at least one wait")
        self.path = path
        self.most = most
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        try:
            (mark,) = self._file.execute("PRAGMA application_id").fetchone()
            (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise ValueError(f"{path} is no outbox of a client ({error}); choose another file") from error
        if tables and mark != _MARK:
            self._file.close()
            raise ValueError(f"{path} belongs to another program; choose another file")
        # A crash of the process loses nothing; one of the machine may lose the last few.
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            f"PRAGMA application_id = {_MARK}",
            "CREATE TABLE IF NOT EXISTS waiting (place INTEGER PRIMARY KEY, key TEXT UNIQUE, data BLOB)",
        ):
            self._file.execute(statement)
        self._waiting = self._count()

    def _count(self) -> int:
        (count,) = self._file.execute("SELECT count(*) FROM waiting").fetchone()
        return int(count)

    def __len__(self) -> int:
        return self._waiting

    def add(self, key: str, data: bytes) -> None:
        """Take a message; one whose key is here already is not taken twice.

        Raises ``OutboxFull``, and ``sqlite3.Error`` where the file cannot take it.
        """
        with self._lock:
            if self._waiting >= self.most:
                raise OutboxFull(f"{self._waiting} wait to be delivered already, which is as many as may")
            self._waiting += self._file.execute(
                "INSERT OR IGNORE INTO waiting (key, data) VALUES (?, ?)", (key, data)
            ).rowcount

    def oldest(self, count: int, most_bytes: int) -> list[tuple[str, bytes]]:
        """Return the oldest messages, up to a number and a size of all together; at least one, if any waits."""
        with self._lock:
            found = self._file.execute("SELECT key, data FROM waiting ORDER BY place LIMIT ?", (count,)).fetchall()
            if not found:
                self._waiting = 0  # another process with this file has delivered the rest
        size = 0
        for place, (_, data) in enumerate(found):
            size += len(data)
            if place and size > most_bytes:
                return found[:place]
        return found

    def drop(self, keys: Iterable[str]) -> None:
        """Forget messages: they were delivered, or never will be."""
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany("DELETE FROM waiting WHERE key = ?", [(key,) for key in keys])
            self._file.execute("COMMIT")
            self._waiting = self._count()

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._file.close()
