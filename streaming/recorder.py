"""Group commit: what many requests record at one time goes to the log in one write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from engine.errors import LogError
from engine.records import Decision, Outcome
from engine.sealed import SealedDecision
from streaming.log import Message
from streaming.wire import sized_messages

logger = logging.getLogger(__name__)

#: Between two attempts to write what was answered for already.
RETRY_S = 1.0
#: How long what nobody waits for gathers, so that a write costs the threads that decide little: each takes the
#: interpreter from them some times, for one record as for a hundred.
GATHER_S = 0.005


class Appender(Protocol):
    """What a group is written to: a log, or what stands before one."""

    def append(self, messages: Sequence[Message]) -> None:
        """Write records; returns when they are safe, and raises ``LogError`` where they are not."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait to be written, and how large one record may be: memory has an end."""

    records: int = 50_000
    bytes: int = 134_217_728
    record_bytes: int | None = None  # None: no bound of its own


class LogRecorder:
    """A queue and one thread that writes.

    Requests hand over and wait; the thread takes everything that is queued and appends it at once. While one
    write waits for the disk the next group gathers, so the cost of a flush is shared by all that arrive meanwhile.

    Parameters
    ----------
    log
        Where records go.
    limits
        What may wait; beyond it ``record`` answers with ``LogError`` rather than take memory without end.
    at_once
        Answer as soon as records are queued. Then nobody hears of a write that fails, so it is tried until it
        succeeds, and the queue fills meanwhile.
    on_error
        Called for each failed write.
    """

    def __init__(
        self,
        log: Appender,
        limits: Limits = Limits(),
        *,
        at_once: bool = False,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._limits = limits
        self._at_once = at_once
        self._on_error = on_error
        self._queue: list[Message] = []
        self._waiting: list[Future[None]] = []
        self._bytes = 0
        self._condition = threading.Condition()
        self._closed = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="log-recorder", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Records that wait to be written."""
        return len(self._queue)

    def record(self, records: Sequence[Decision | SealedDecision | Outcome]) -> Future[None]:
        """Queue records; see ``engine.serving.seams.Recorder``."""
        future: Future[None] = _DONE if self._at_once else Future()
        messages, sizes = sized_messages(records)
        total = sum(sizes)
        with self._condition:
            problem = self._problem(sizes, total)
            if problem is not None:
                refused: Future[None] = Future()
                refused.set_exception(LogError(problem))
                return refused
            if not self._queue:
                self._condition.notify()
            self._queue += messages
            self._bytes += total
            if not self._at_once:
                self._waiting.append(future)
        return future

    def _problem(self, sizes: Sequence[int], total: int) -> str | None:
        limits = self._limits
        if self._closed.is_set():
            return "the log is closed: the server is shutting down; retry elsewhere"
        if limits.record_bytes is not None and max(sizes) > limits.record_bytes:
            return f"a record of {max(sizes)} bytes is larger than log.max_message_bytes ({limits.record_bytes})"
        if len(self._queue) + len(sizes) > limits.records:
            return f"{len(self._queue)} records wait to be written already; slow down and retry"
        if self._bytes + total > limits.bytes:
            return f"{self._bytes} bytes of records wait to be written already; slow down and retry"
        return None

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._condition:
            self._closed.set()
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._closed.is_set():
                    self._condition.wait()
            if self._at_once:
                self._closed.wait(GATHER_S)
            with self._condition:
                group, self._queue = self._queue, []
                waiting, self._waiting = self._waiting, []
                self._bytes = 0
            if not group:
                return
            error = self._write(group)
            for future in waiting:
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    def _write(self, group: Sequence[Message]) -> Exception | None:
        """Append a group; return why that failed, or, where nobody would hear it, try until it succeeds."""
        while True:
            try:
                self._log.append(group)
            except Exception as failure:  # also a surprise must end the futures: no request waits for what is over
                self._on_error()
                if not self._failing:
                    logger.error("records cannot be written: %s", failure)
                self._failing = True
                if not self._at_once:
                    return failure
                if self._closed.is_set():
                    logger.error("%d records are lost that calls were answered for: %s", len(group), failure)
                    return failure
                self._closed.wait(RETRY_S)
            else:
                if self._failing:
                    logger.info("records are written again")
                self._failing = False
                return None


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


#: What is answered at once shares one future: it has ended, and never changes.
_DONE = _done()
