"""Asks a gRPC server at a rate that does not heed its answers, as callers who do not know of each other do.

Each of them may go by Leeway's own client, with its code: a call that is refused is made again while its deadline
allows, and a connection whose calls are refused in great numbers holds some back.

A call counts from when it was due, not from when it could be sent: a server (or a generator) that holds calls up does
not hide it. Each call says when its caller gives up, and one that could not be sent until then is not sent any more.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import random
import selectors
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import grpc

from benchmarks._serving_load import Connection, Load, headers
from engine.client.held_back import HeldBackError
from engine.client.retries import STATUS, Attempts, Patience
from engine.client.throttle import Throttle
from engine.serving.lean.headers import Decoder

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 4, 8
#: Of a call that was not answered: never sent, because its caller had given up; reset; still under way at the end; not
#: sent by a client that holds calls back.
UNSENT, RESET, LOST, HELD_BACK = -1, -2, -3, -4
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
    attempts: Attempts | None = field(default=None, repr=False)
    sent_s: float = 0.0

    @property
    def seconds(self) -> float:
        """How long its caller waited."""
        return self.ended - self.due


@dataclass(frozen=True)
class Phase:
    """So many calls a second, for so many seconds."""

    rate: float
    seconds: float


class _RefusalError(grpc.RpcError):
    """A call that has failed, as the client looks at it."""

    def __init__(self, status: int, trailers: bytes) -> None:
        super().__init__(f"status {status}")
        self._code = next(code for code in grpc.StatusCode if code.value[0] == status)
        details = [value for name, value in Decoder().decode(trailers) if name == STATUS.encode()]
        self._metadata = tuple((STATUS, base64.b64decode(value + b"=" * (-len(value) % 4))) for value in details)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._metadata


#: Those of one time are the same.
_refusal = lru_cache(maxsize=1_024)(_RefusalError)
_HELD_BACK = HeldBackError()
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
        self.sent = 0

    def give(self, call: Call) -> None:
        """Let a call be the next to be sent."""
        self._queue.append(call)

    def push(self) -> None:
        """Send what the server lets be sent; leave out what its caller has given up."""
        while self._queue and len(self._calls) < self._most_streams:
            call = self._queue.popleft()
            if self._left_ms(call) <= 0:
                self._end(call, UNSENT)
            else:
                self._send(call)
        self._pump()

    def _send(self, call: Call) -> None:
        stream = self._next_stream
        self._next_stream += 2
        self._streams[stream] = self._initial
        self._calls[stream] = call
        self._waiting.append((stream, b"\0" + len(call.message).to_bytes(4, "big") + call.message))
        self.sent += 1

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
            self._end(call, _status(trailers), trailers)

    def _reset(self, stream: int, payload: bytes) -> None:
        self._answers.pop(stream, None)
        self._streams.pop(stream, None)
        if stream in self._calls:  # else: the server has answered, and wants no more of the request
            self._end(self._calls.pop(stream), RESET)

    def _end(self, call: Call, status: int, _trailers: bytes = b"") -> None:
        call.status = status
        call.ended = time.perf_counter() - self._began_s
        self._ended(call)


class HeedingConnection(OpenConnection):
    """A connection whose callers go by Leeway's client: it says which calls are sent, and which are made again.

    The parameters are those of :class:`OpenConnection`.
    """

    def __init__(self, port: int, deadline_s: float, began: float, ended: Callable[[Call], None]) -> None:
        super().__init__(port, deadline_s, began, ended)
        self._patience = Patience(deadline_s, deadline_s, deadline_s)
        self._throttle = Throttle()
        self._later: list[tuple[float, int, Call]] = []
        self._number = itertools.count()

    def push(self) -> None:
        """Send besides what comes again."""
        now = time.perf_counter()
        while self._later and self._later[0][0] <= now:
            self._queue.append(heapq.heappop(self._later)[2])
        super().push()

    @property
    def under_way(self) -> int:
        return super().under_way + len(self._later)

    def left(self) -> list[Call]:
        """Return the calls that have not ended."""
        return [*super().left(), *(call for _, _, call in self._later)]

    def _send(self, call: Call) -> None:
        call.sent_s = time.perf_counter()
        if _is_decision(call) and not self._throttle.admit(call.sent_s):
            self._again(call, HELD_BACK, _HELD_BACK)
        else:
            super()._send(call)

    def _end(self, call: Call, status: int, trailers: bytes = b"") -> None:
        refusal = _refusal(status, trailers) if status == RESOURCE_EXHAUSTED else None
        now = time.perf_counter()
        if _is_decision(call):
            if status == OK:
                self._throttle.accepted(call.sent_s, now)
            elif refusal is not None:
                self._throttle.failed(refusal, call.sent_s, now)
            elif status in (CANCELLED, DEADLINE_EXCEEDED):
                self._throttle.late(call.sent_s, now)
        if refusal is not None:
            self._again(call, status, refusal)
        else:
            super()._end(call, status)

    def _again(self, call: Call, status: int, error: grpc.RpcError) -> None:
        now = time.perf_counter()
        if call.attempts is None:
            call.attempts = Attempts(self._patience, self._began_s + call.due, random.random)
        pause = call.attempts.pause_s(error, now)
        if pause is None:
            super()._end(call, status)
        else:
            heapq.heappush(self._later, (now + pause, next(self._number), call))


def _is_decision(call: Call) -> bool:
    return call.path.endswith("Decide")


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
    heeds
        Whether callers go by Leeway's client.
    heard
        Is handed each call that has ended; it may :meth:`add` others.
    """

    def __init__(
        self,
        port: int,
        make: Callable[[int], tuple[str, bytes]],
        deadline_s: float,
        connections: int = 8,
        heeds: bool = False,
        heard: Callable[[Call], None] = lambda call: None,
    ) -> None:
        self._port = port
        self._make = make
        self._deadline_s = deadline_s
        self._kind = HeedingConnection if heeds else OpenConnection
        self._heard = heard
        self._began = time.perf_counter()
        self._selector = selectors.DefaultSelector()
        self._connections = [self._open() for _ in range(connections)]
        self._turn = 0
        self._number = 0

    def _open(self) -> OpenConnection:
        connection = self._kind(self._port, self._deadline_s, self._began, self._heard)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.receive(again=False)  # its settings
        return connection

    @property
    def sent(self) -> int:
        """How many attempts were sent."""
        return sum(connection.sent for connection in self._connections)

    def now(self) -> float:
        """Return the seconds since the load began."""
        return time.perf_counter() - self._began

    def add(self, path: str, message: bytes, due: float) -> None:
        """Send a call beside those of the rate."""
        connection = self._connections[self._turn % len(self._connections)]
        self._turn += 1
        connection.give(Call(path, message, due))

    def play(self, phase: Phase) -> float:
        """Ask as in a phase, and return when it ended."""
        began, sent = self.now(), 0
        end = began + phase.seconds
        while (now := self.now()) < end:
            due = int((now - began) * phase.rate)
            while sent < due:
                self.add(*self._make(self._number), began + sent / phase.rate)
                self._number += 1
                sent += 1
            self.turn(began + (sent + 1) / phase.rate - now)
        return self.now()

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
