"""Files that an operator replaces while the server runs: has one changed since it was read?"""

from __future__ import annotations

from pathlib import Path

#: What changes with a file's content: time of change, size, and which file the name stands for.
Mark = tuple[int, int, int]


def mark(path: Path) -> Mark | None:
    """Return what tells one content of a file from the next; ``None`` where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
