"""Asks a gRPC server without pause, at a tenth of the cost of a gRPC client, so that the server is what is measured.

It speaks just as much HTTP/2 as that takes: one thread, requests that were serialized before, each call a `HEADERS` and
its `DATA`, an answer good when it carries a message (a call that fails ends without one). A closed loop: each call
that ends is followed by the next one at once.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_FRAME = 16_384
_WINDOW = 2**31 - 1
_TICKS = 100.0  # of the clock in /proc, per second


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def headers(path: str, timeout_ms: int | None = None) -> bytes:
    """Return what a call begins with; ``timeout_ms``: when its caller gives up, as gRPC says it."""

    def text(value: str) -> bytes:
        assert len(value) < 127
        return bytes((len(value),)) + value.encode()

    # Indices of HPACK's static table; literals that nobody needs to remember.
    return (b"\x83\x86\x04" + text(path) + b"\x01" + text("benchmark") + b"\x0f\x10" + text("application/grpc")) + (
        b"\x00" + text("te") + text("trailers") + (b"" if timeout_ms is None else _timeout(timeout_ms, text))
    )


def _timeout(timeout_ms: int, text: Callable[[str], bytes]) -> bytes:
    return b"\x00" + text("grpc-timeout") + text(f"{timeout_ms}m")


@dataclass
class Load:
    """What is asked.

    Attributes
    ----------
    port
        Of the server, on this machine.
    path
        Full name of the method.
    messages
        Serialized requests; they take turns.
    connections, window
        How many connections, and calls (or messages of a stream) under way on each.
    stream
        Whether each connection has one call, that of a stream of messages, which are answered in order.
    """

    port: int
    path: str
    messages: Sequence[bytes]
    connections: int = 8
    window: int = 1
    stream: bool = False


@dataclass
class Burst:
    """What came of some seconds."""

    seconds: float
    cpu_seconds: float  # of the server
    latencies: list[float] = field(default_factory=list)
    answer: bytes = b""  # the last one

    def figures(self) -> dict[str, float]:
        cuts = statistics.quantiles(self.latencies, n=100)
        count = len(self.latencies)
        return {
            "per_second": count / self.seconds,
            "cpu_us": 1e6 * self.cpu_seconds / count,
            "p50_ms": 1e3 * cuts[49],
            "p99_ms": 1e3 * cuts[98],
        }


class Connection:
    """One connection with calls under way."""

    #: Bytes that the server may send before it is told to go on: of each stream, and of all.
    credit = _WINDOW

    def __init__(self, load: Load) -> None:
        self.socket = socket.create_connection(("127.0.0.1", load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._load = load
        self._head = headers(load.path)
        self._bodies = [b"\0" + struct.pack(">I", len(message)) + message for message in load.messages]
        self._turn = 0
        self._next_stream = 1
        self._read = b""
        self._consumed = 0
        self._credit = self._initial = 65_535
        self._most_streams = _WINDOW  # at one time
        self._streams: dict[int, int] = {}  # what each may still send
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._answers: dict[int, bytes] = {}
        self._began: dict[int, float] = {}
        self._order: deque[float] = deque()
        self.ended: list[float] = []
        self.answer = b""
        settings = struct.pack(">HIHI", 1, 0, 4, self.credit)
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65_535))
        )

    def begin(self) -> None:
        """Send as many requests as may be under way."""
        if self._load.stream:
            self._streams[1] = self._initial
            self.socket.sendall(_frame(_HEADERS, _END_HEADERS, 1, self._head))
        for _ in range(self._load.window):
            self.ask()
        self._pump()

    def ask(self) -> None:
        body = self._bodies[self._turn % len(self._bodies)]
        self._turn += 1
        if self._load.stream:
            self._order.append(time.perf_counter())
            self._waiting.append((1, body))
            return
        stream = self._next_stream
        self._next_stream += 2
        self._streams[stream] = self._initial
        self._began[stream] = time.perf_counter()
        self._waiting.append((stream, body))

    def _pump(self) -> None:
        """Send what the server's windows allow."""
        out = []
        while self._waiting:
            stream, body = self._waiting[0]
            if stream not in self._streams:  # it has ended before all of it was sent
                self._waiting.popleft()
                continue
            first = not self._load.stream and stream not in self._answers
            if first:
                out.append(_frame(_HEADERS, _END_HEADERS, stream, self._head_of(stream)))
                self._answers[stream] = b""
            allowed = min(self._credit, self._streams[stream], len(body))
            for start in range(0, allowed, _FRAME):
                part = body[start : min(start + _FRAME, allowed)]
                last = start + len(part) == len(body) and not self._load.stream
                out.append(_frame(_DATA, _END_STREAM if last else 0, stream, part))
            self._credit -= allowed
            self._streams[stream] -= allowed
            if allowed < len(body):
                self._waiting[0] = (stream, body[allowed:])
                break
            self._waiting.popleft()
        if out:
            self.socket.sendall(b"".join(out))

    def _head_of(self, _stream: int) -> bytes:
        return self._head

    def receive(self, *, again: bool) -> None:
        """Take what has come; ``again``: follow each answer with the next request."""
        data = self.socket.recv(1_048_576)
        if not data:
            raise ConnectionError("the server has closed the connection")
        buffer = self._read + data
        at, end = 0, len(buffer)
        out = []
        while end - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            payload = buffer[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == _DATA:
                self._consumed += length
                self._answers[stream] = self._answers.get(stream, b"") + payload
                if self._load.stream:
                    self._take(stream, again=again)
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    self._finish(stream, payload, again=again)
            elif kind == _SETTINGS and not flags & _ACK:
                for name, value in struct.iter_unpack(">HI", payload):
                    if name == 3:
                        self._most_streams = value
                    elif name == 4:
                        self._initial = value
                out.append(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                out.append(_frame(_PING, _ACK, 0, payload))
            elif kind == _WINDOW_UPDATE:
                more = int.from_bytes(payload, "big")
                if stream:
                    if stream in self._streams:
                        self._streams[stream] += more
                else:
                    self._credit += more
            elif kind == _RST_STREAM:
                self._reset(stream, payload)
            elif kind == _GOAWAY:
                raise ConnectionError(f"the server has ended the connection: {payload!r}")
        self._read = buffer[at:]
        if self._consumed > 2**24:
            out.append(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed)))
            if self._load.stream:
                out.append(_frame(_WINDOW_UPDATE, 0, 1, struct.pack(">I", self._consumed)))
            self._consumed = 0
        if out:
            self.socket.sendall(b"".join(out))
        self._pump()

    def _take(self, stream: int, *, again: bool) -> None:
        """End what has been answered of a stream of messages."""
        answers = self._answers[stream]
        while len(answers) >= 5 and len(answers) >= 5 + int.from_bytes(answers[1:5], "big"):
            length = 5 + int.from_bytes(answers[1:5], "big")
            self.answer, answers = answers[5:length], answers[length:]
            self.ended.append(time.perf_counter() - self._order.popleft())
            if again:
                self.ask()
        self._answers[stream] = answers

    def _reset(self, _stream: int, payload: bytes) -> None:
        raise ConnectionError(f"the server has ended a call: {payload!r}")

    def _finish(self, stream: int, trailers: bytes, *, again: bool) -> None:
        if self._load.stream:
            raise ConnectionError("the server has ended the stream")
        answer = self._answers.pop(stream)
        if not answer:
            raise ConnectionError(f"a call of {self._load.path} failed: {trailers!r}")
        self.ended.append(time.perf_counter() - self._began.pop(stream))
        self.answer = answer[5:]
        del self._streams[stream]
        if again:
            self.ask()


def cpu_seconds(*pids: int) -> float:
    """Return the CPU time of processes so far, user and system, all of their threads."""
    return sum(map(_cpu_seconds, pids))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def burst(load: Load, pid: int, seconds: float, *pids: int) -> Burst:
    """Ask for some seconds, after a tenth as many to get warm; the processes are those of the server."""
    selector = selectors.DefaultSelector()
    connections = [Connection(load) for _ in range(load.connections)]
    try:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.receive(again=True)  # its settings
            connection.begin()
        for phase in (seconds / 10.0, seconds):
            for connection in connections:
                connection.ended.clear()
            before, began = cpu_seconds(pid, *pids), time.perf_counter()
            end = began + phase
            while time.perf_counter() < end:
                for key, _ in selector.select(timeout=5.0):
                    key.data.receive(again=True)
            measured = Burst(time.perf_counter() - began, cpu_seconds(pid, *pids) - before)
        measured.latencies = [latency for connection in connections for latency in connection.ended]
        measured.answer = connections[0].answer
        if len(measured.latencies) < 2:
            raise ConnectionError(f"{load.path} has answered {len(measured.latencies)} calls in {seconds} s")
        return measured
    finally:
        selector.close()
        for connection in connections:
            connection.socket.close()
