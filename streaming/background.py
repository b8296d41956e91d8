"""A thread that fits models while the learner goes on to read."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundThread:
    """Does one piece of work after the other, in the order in which they come; see ``engine.oracles.Worker``.

    A thread and not a process: the learner is as fast beside the one as beside the other, and no rows have to be sent.
    It keeps no process alive: work that is not done when the process ends is done again by the next one.

    Parameters
    ----------
    name
        Of the thread, which is begun with the first piece of work.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting: list[Future[Any]] = []

    def submit(self, work: Callable[[], T], /) -> Future[T]:
        """Return what will hold the result of the work, or its error."""
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)  # whoever asks for the result gets it

        self._waiting = [other for other in self._waiting if not other.done()]
        self._waiting.append(future)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(do)
        return future

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def drop(self) -> None:
        """Forget the work that has not been begun."""
        for future in self._waiting:
            future.cancel()
        self._waiting = []

    def close(self) -> None:
        """Forget what has not been begun; the thread ends with what it is at."""
        self.drop()
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None
