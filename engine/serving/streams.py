"""Streams of decisions: what has come while the last ones were made is decided at once, and answered in its order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import grpc

Q = TypeVar("Q")
A = TypeVar("A")

#: Requests that wait in one stream; beyond it the transport holds the caller back.
WAITING = 1_024


class Arrivals(Generic[Q]):
    """The requests of one stream, as they come: one thread reads them, another takes all there are.

    Parameters
    ----------
    requests
        Blocks until the next one comes, and ends, or raises, when the caller is done.
    most
        How many are handed out at once.
    """

    def __init__(self, requests: Iterable[Q], most: int) -> None:
        self._most = most
        self._waiting: deque[Q] = deque()
        self._ended = False
        self._condition = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(requests,), name="decide-stream", daemon=True)
        self._reader.start()

    def _read(self, requests: Iterable[Q]) -> None:
        try:
            for request in requests:
                with self._condition:
                    while len(self._waiting) >= WAITING and not self._ended:
                        self._condition.wait()
                    if self._ended:
                        return
                    self._waiting.append(request)
                    self._condition.notify_all()
        except Exception:
            # grpcio raises a bare exception from its iterator when the caller has gone: then nobody waits for answers.
            return
        finally:
            self.end()

    def end(self) -> None:
        """Take no more; what has come is still handed out."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def __iter__(self) -> Iterator[list[Q]]:
        """Yield all that has come, as often as something has."""
        while True:
            with self._condition:
                while not self._waiting and not self._ended:
                    self._condition.wait()
                if not self._waiting:
                    return
                taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                self._condition.notify_all()
            yield taken


class Streams(Generic[Q, A]):
    """A method of bidirectional streams, with threads of its own: a stream keeps one as long as it lasts.

    Parameters
    ----------
    answer
        Answers some requests of a stream, in their order.
    most
        How many requests it is handed at once.
    streams
        How many streams there may be at one time; one more is refused with ``RESOURCE_EXHAUSTED``.
    """

    def __init__(
        self, answer: Callable[[Sequence[Q], grpc.ServicerContext], Sequence[A]], *, most: int, streams: int
    ) -> None:
        self._answer = answer
        self._most = most
        self._streams = streams
        self._open: set[Arrivals[Q]] = set()
        self._lock = threading.Lock()
        self._draining = False
        #: Where grpcio runs it; one thread more, that refuses.
        self.experimental_thread_pool = ThreadPoolExecutor(streams + 1, thread_name_prefix="stream")

    def __call__(self, requests: Iterator[Q], context: grpc.ServicerContext) -> Iterator[A]:
        """Answer the requests of one stream until the caller ends it, or the server drains."""
        with self._lock:
            refused = len(self._open) >= self._streams
            if not refused:
                arrivals = Arrivals(requests, self._most)
                self._open.add(arrivals)
                if self._draining:
                    arrivals.end()
        if refused:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._streams} streams are open already; send more over those, or set serving.streams",
            )
        try:
            for some in arrivals:
                yield from self._answer(some, context)
        finally:
            arrivals.end()
            with self._lock:
                self._open.discard(arrivals)

    def end(self) -> None:
        """Let every stream end once what has come is answered."""
        with self._lock:
            self._draining = True
            for arrivals in self._open:
                arrivals.end()
