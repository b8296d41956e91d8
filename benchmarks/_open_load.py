"""Asks a gRPC server at a rate that does not heed its answers, as callers who do not know of each other do.

A call counts from when it was due, not from when it could be sent: a server (or a generator) that holds calls up does
not hide it. Each call says when its caller gives up, and one that could not be sent until then is not sent any more.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from benchmarks._serving_load import Connection, Load, headers

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 4, 8
#: Of a call that was not answered: never sent, because its caller had given up; reset; still under way at the end.
UNSENT, RESET, LOST = -1, -2, -3
#: How long answers are waited for after the last deadline.
_PATIENCE_S = 2.0
_STATUS = b"grpc-status"


@dataclass(slots=True, eq=False)
class Call:
    """One call, and how it ended.

    Attributes
    ----------
    path, message
        Full name of the method, and the serialized request.
    due
        When it was to be sent, in seconds since the load began.
    ended
        When it ended.
    status
        The gRPC status, or what there is in its place.
    answer
        The serialized response; empty without one.
    """

    path: str
    message: bytes
    due: float
    ended: float = 0.0
    status: int = LOST
    answer: bytes = b""

    @property
    def seconds(self) -> float:
        """How long its caller waited."""
        return self.ended - self.due


@dataclass(frozen=True)
class Phase:
    """So many calls a second, for so many seconds."""

    rate: float
    seconds: float


_headers = lru_cache(maxsize=65_536)(headers)


class OpenConnection(Connection):
    """A connection whose calls are given to it one by one.

    Parameters
    ----------
    port
        Of the server, on this machine.
    deadline_s
        How long a caller waits.
    began
        When the load began, on the clock ``time.perf_counter``.
    ended
        Is handed each call that has ended.
    """

    def __init__(self, port: int, deadline_s: float, began: float, ended: Callable[[Call], None]) -> None:
        super().__init__(Load(port, "", []))
        self._deadline_s = deadline_s
        self._began_s = began
        self._ended = ended
        self._queue: deque[Call] = deque()
        self._calls: dict[int, Call] = {}

    def give(self, call: Call) -> None:
        """Let a call be the next to be sent."""
        self._queue.append(call)

    def push(self) -> None:
        """Send what the server lets be sent; leave out what its caller has given up."""
        while self._queue and len(self._calls) < self._most_streams:
            call = self._queue.popleft()
            if self._left_ms(call) <= 0:
                self._end(call, UNSENT)
                continue
            stream = self._next_stream
            self._next_stream += 2
            self._streams[stream] = self._initial
            self._calls[stream] = call
            self._waiting.append((stream, b"\0" + len(call.message).to_bytes(4, "big") + call.message))
        self._pump()

    def close(self) -> None:
        self.socket.close()

    @property
    def under_way(self) -> int:
        return len(self._queue) + len(self._calls)

    def left(self) -> list[Call]:
        """Return the calls that have not ended."""
        return [*self._queue, *self._calls.values()]

    def _left_ms(self, call: Call) -> int:
        return int(1e3 * (call.due + self._deadline_s - (time.perf_counter() - self._began_s)))

    def _head_of(self, stream: int) -> bytes:
        call = self._calls[stream]
        return _headers(call.path, max(self._left_ms(call), 1))

    def _finish(self, stream: int, trailers: bytes, *, again: bool) -> None:
        answer = self._answers.pop(stream, b"")
        self._streams.pop(stream, None)
        if stream in self._calls:
            call = self._calls.pop(stream)
            call.answer = answer[5:]
            self._end(call, _status(trailers))

    def _reset(self, stream: int, payload: bytes) -> None:
        self._answers.pop(stream, None)
        self._streams.pop(stream, None)
        if stream in self._calls:  # else: the server has answered, and wants no more of the request
            self._end(self._calls.pop(stream), RESET)

    def _end(self, call: Call, status: int) -> None:
        call.status = status
        call.ended = time.perf_counter() - self._began_s
        self._ended(call)


def _status(trailers: bytes) -> int:
    """Return the status in a block of headers; it is not in HPACK's tables, for the client allows none."""
    at = trailers.find(_STATUS)
    if at < 0:
        raise ConnectionError(f"a call ended without a status that can be read: {trailers!r}")
    at += len(_STATUS)
    return int(trailers[at + 1 : at + 1 + trailers[at]])


class OpenLoad:
    """Calls at a rate, from one thread.

    Parameters
    ----------
    port
        Of the server, on this machine.
    make
        Gives path and message of the n-th call.
    deadline_s
        How long a caller waits.
    connections
        They take turns.
    heard
        Is handed each call that has ended; it may :meth:`add` others.
    """

    def __init__(
        self,
        port: int,
        make: Callable[[int], tuple[str, bytes]],
        deadline_s: float,
        connections: int = 8,
        heard: Callable[[Call], None] = lambda call: None,
    ) -> None:
        self._port = port
        self._make = make
        self._deadline_s = deadline_s
        self._heard = heard
        self._began = time.perf_counter()
        self._selector = selectors.DefaultSelector()
        self._connections = [self._open() for _ in range(connections)]
        self._turn = 0
        self._number = 0

    def _open(self) -> OpenConnection:
        connection = OpenConnection(self._port, self._deadline_s, self._began, self._heard)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.receive(again=False)  # its settings
        return connection

    def now(self) -> float:
        """Return the seconds since the load began."""
        return time.perf_counter() - self._began

    def add(self, path: str, message: bytes, due: float) -> None:
        """Send a call beside those of the rate."""
        connection = self._connections[self._turn % len(self._connections)]
        self._turn += 1
        connection.give(Call(path, message, due))

    def play(self, phases: Sequence[Phase]) -> None:
        """Ask, phase by phase."""
        for phase in phases:
            began, sent = self.now(), 0
            end = began + phase.seconds
            while (now := self.now()) < end:
                due = int((now - began) * phase.rate)
                while sent < due:
                    self.add(*self._make(self._number), began + sent / phase.rate)
                    self._number += 1
                    sent += 1
                self.turn(began + (sent + 1) / phase.rate - now)

    def settle(self) -> None:
        """Wait for the answers."""
        end = self.now() + self._deadline_s + _PATIENCE_S
        while self.now() < end and any(connection.under_way for connection in self._connections):
            self.turn(0.01)

    def turn(self, timeout_s: float) -> None:
        """Send and receive what there is, and wait so long for something."""
        for connection in self._connections:
            connection.push()
        for key, _ in self._selector.select(timeout=max(timeout_s, 0.0)):
            key.data.receive(again=False)

    def close(self) -> None:
        """End; calls that have not ended are handed over as lost."""
        for connection in self._connections:
            for call in connection.left():
                call.ended = self.now()
                self._heard(call)
            connection.close()
        self._selector.close()
