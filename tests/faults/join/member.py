"""A joiner in a process of its own, for tests that end it: ``python -m tests.faults.join.member '{...}'``.

It says ``writing`` and ``written`` before and after each transaction, ``LogError ...`` for a step that failed, and ends
in good order on SIGTERM. It also ends when its input does, so that it does not outlive the test.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel

from engine.errors import LogError
from streaming.joiner import JoinerRole
from streaming.kafka import KafkaLog
from streaming.kafka.settings import KafkaSettings
from streaming.kafka.transaction import KafkaTransaction
from streaming.topics import topics
from tests.faults.join.workload import POINTS

RETRY_S = 0.2
WAIT_S = 0.1
#: The records of the workload are years old: none may be deleted for its age.
FOR_EVER = 10**13  # 317 years: the records here are of 1970


class Orders(BaseModel):
    """Where to join, and what time it is."""

    log: KafkaSettings
    partitions: int
    clock: Path
    batch: int


def open_log(settings: KafkaSettings, partitions: int) -> KafkaLog:
    """Return the log with all topics of Leeway in it."""
    log = TellingLog(settings)
    try:
        log.create(topics(partitions, FOR_EVER))
    except LogError:
        log.close()
        raise
    return log


def set_clock(clock: Path, time_ms: int) -> None:
    """Tell the time to all who read the clock; nobody finds it half written."""
    draft = clock.with_suffix(".draft")
    draft.write_text(str(time_ms))
    draft.replace(clock)


def tell(text: str) -> None:
    print(text, flush=True)


class TellingTransaction(KafkaTransaction):
    """Says when it begins to commit, and when it has."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tell("writing")
        super().__exit__(kind, error, trace)
        tell("written")


class TellingLog(KafkaLog):
    """A log that says when it commits."""

    def transaction(self, writer: str) -> TellingTransaction:
        return TellingTransaction(self, writer)


def work(orders: Orders, stopped: threading.Event) -> None:
    """Join until told to stop; whatever the log does."""
    log = open_log(orders.log, orders.partitions)
    try:
        role = JoinerRole(log, POINTS, lambda: int(orders.clock.read_text()), batch=orders.batch)
        while not stopped.is_set():
            try:
                role.step(WAIT_S)
            except LogError as error:
                tell(f"LogError {error}".replace("\n", " "))
                time.sleep(RETRY_S)
        role.close()
    finally:
        log.close()


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    orders = Orders.model_validate_json(sys.argv[1])
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threading.Thread(target=end_with_input, daemon=True).start()
    while not stopped.is_set():
        try:
            work(orders, stopped)
        except LogError as error:  # it could not begin: the broker is away
            tell(f"LogError {error}".replace("\n", " "))
            time.sleep(RETRY_S)


if __name__ == "__main__":
    main()
