"""What ``leeway doctor`` has to say of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what was seen."""

    level: Level
    subject: str
    words: str


def ago(milliseconds: int) -> str:
    """Say how long a time is.

    >>> ago(5_400_000)
    '1.5 h'
    """
    seconds = milliseconds / 1_000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
