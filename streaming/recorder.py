"""Group commit: what many requests record at one time goes to the log in one write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from engine.errors import LogError
from engine.records import Decision, Outcome
from streaming.log import Log, Message
from streaming.wire import message_of

logger = logging.getLogger(__name__)


class LogRecorder:
    """A queue and one thread that writes.

    Requests hand over and wait; the thread takes everything that is queued and appends it at once. While one
    write waits for the disk the next group gathers, so the cost of a flush is shared by all that arrive meanwhile.

    Parameters
    ----------
    log
        Where records go.
    limit
        Most records that may wait; beyond it ``record`` answers with ``LogError`` rather than take memory without end.
    on_error
        Called for each failed write.
    """

    def __init__(self, log: Log, limit: int = 50_000, on_error: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._limit = limit
        self._on_error = on_error
        self._queue: list[tuple[Message, Future[None] | None]] = []
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-recorder", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Records that wait to be written."""
        return len(self._queue)

    def record(self, records: Sequence[Decision | Outcome]) -> Future[None]:
        """Queue records; see ``engine.serving.seams.Recorder``."""
        future: Future[None] = Future()
        messages = [message_of(record) for record in records]
        with self._condition:
            if self._closed:
                future.set_exception(LogError("the log is closed: the server is shutting down; retry elsewhere"))
                return future
            if len(self._queue) + len(messages) > self._limit:
                future.set_exception(LogError(f"{self._limit} records wait for the disk already; slow down and retry"))
                return future
            # The last message carries the future: a group is written whole, so its end is everyone's end.
            self._queue += [(message, None) for message in messages[:-1]]
            self._queue.append((messages[-1], future))
            self._condition.notify()
        return future

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._closed:
                    self._condition.wait()
                group, self._queue = self._queue, []
            if not group:
                return
            error: Exception | None = None
            try:
                self._log.append([message for message, _ in group])
            except Exception as failure:
                # Also a surprise must end the futures: a request must never wait for a write that is over.
                error = failure
                self._on_error()
                logger.error("%d records could not be written: %s", len(group), failure)
            for _, future in group:
                if future is not None:
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error)
