"""A process that a test kills: a role that reads feedback from Kafka, in a fresh process each time.

Started as ``python -m tests.faults.feedback_member ROLE SETTINGS DIRECTORY``, it imports what takes long, and then
forks for each number on standard input: a process that runs the role until it is killed (number 0), or until it has
taken so many feedbacks in all (or has had time enough for it) and closes in order. The fork writes ``> PID`` when it
begins, ``.`` after each step that read something, and ``end`` when it has closed, each on a line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.store import PolicyStore
from streaming.archive import ArchiveRole
from streaming.kafka import KafkaLog, KafkaSettings
from streaming.learner import LearnerRole
from streaming.log import Log
from streaming.topics import topics
from tests.streaming.samples import NAME, POINT
from tests.training import feedback
from training.archive import ArchiveReader

PARTITIONS = 3
#: Far fewer than are in the log, so that there are many moments between two commits.
BATCH = 40
RETENTION_MS = 10**13  # the feedback here is of 1970, which 10**12 (32 years) would let the broker delete
PATIENCE_S = 30.0


def declared(settings: KafkaSettings) -> KafkaLog:
    """Return the log with its topics."""
    log = KafkaLog(settings)
    log.create(topics(PARTITIONS, RETENTION_MS))
    return log


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def archive(log: Log, directory: Path) -> tuple[ArchiveRole, Callable[[], int], Callable[[], int]]:
    role = ArchiveRole(log, directory, {"offers": feedback.POINT}, now_ms, max_rows=BATCH, max_age_ms=20)
    return role, role.step, lambda: ArchiveReader(directory).count("offers", 0)


def learner(log: Log, directory: Path) -> tuple[LearnerRole, Callable[[], int], Callable[[], int]]:
    store = PolicyStore(directory / "policies")
    role = LearnerRole(log, {NAME: POINT.engine()}, store, directory, now_ms, checkpoint_interval_ms=20)

    def learned() -> int:
        statistics = role.points[NAME].learner
        assert statistics is not None
        return statistics.learned

    return role, lambda: role.step(BATCH), learned


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def work(name: str, settings: KafkaSettings, directory: Path, expected: int) -> None:
    tell(f"> {os.getpid()}")
    log = declared(settings)
    role, step, taken = archive(log, directory) if name == "archive" else learner(log, directory)
    end = time.monotonic() + PATIENCE_S
    while not expected or (taken() < expected and time.monotonic() < end):
        if step():
            tell(".")
    for _ in range(10):  # what should not be there would come now
        step()
        time.sleep(0.02)
    role.close()
    log.close()
    tell("end")


def main() -> None:
    name, settings, directory = sys.argv[1:]
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(name, KafkaSettings.model_validate_json(settings), Path(directory), int(line))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
