"""What a decision has cost: processor time of every process, and bytes of every topic and of the archive."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, with that of its children that have ended.

    Raises ``FileNotFoundError`` where there is none such.
    """
    # The name, in brackets, may hold anything: what counts stands behind the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def spent(before: Mapping[str, float], after: Mapping[str, float], decisions: int) -> dict[str, float]:
    """Return microseconds for each decision, by process."""
    return {name: round(1e6 * (after[name] - before[name]) / decisions, 1) for name in before}


def topic_bytes(broker: Path, decisions: int) -> dict[str, float]:
    """Return the bytes that each topic takes on the disk of one broker for each decision.

    Parameters
    ----------
    broker
        The broker's ``log.dirs``; a partition is a folder ``<topic>-<number>`` with segments ``*.log``.
    decisions
        How many were made.
    """
    found: Counter[str] = Counter()
    for segment in broker.glob("*-*/*.log"):
        found[segment.parent.name.rpartition("-")[0]] += segment.stat().st_size
    return {topic: round(size / decisions, 1) for topic, size in sorted(found.items())}


def archive_bytes(archive: Path, decisions: int) -> float:
    """Return the bytes of Parquet for each decision."""
    return round(sum(path.stat().st_size for path in archive.rglob("*.parquet")) / decisions, 1)
