"""A gRPC server on one thread, which looks to services like grpcio's."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import grpc

from engine.serving.later import LOOK_S, Overdue
from engine.serving.lean import frames
from engine.serving.lean.call import Call, Method, Room
from engine.serving.lean.connection import NOBODY, Connection, Stream
from engine.serving.lean.frames import ProtocolError
from engine.serving.lean.head import START, Head, last_headers, read_head, refusal
from engine.serving.lean.headers import encode
from engine.serving.lean.streaming_call import StreamingCall
from engine.serving.turns import Turns

logger = logging.getLogger(__name__)

_BACKLOG = 2_048
_READ = 262_144
#: Bytes that a connection has not taken: until it has, nothing more of it is read.
_UNSENT = 4_194_304
#: Of the largest messages, so many may be on their way at one time.
_MESSAGES = 64
#: How long a connection may take to say that it speaks HTTP/2, and to hear that the server drains.
_PATIENCE_S = 10.0
_HEARS_S = 1.0
#: Between two tries to accept when there are no more file descriptors.
_CROWDED_S = 0.1
_UNKNOWN_METHOD = encode((*START, *last_headers(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())))
_NOT_GRPC = refusal(415)


class _Peer:
    """A socket, and the connection that is spoken over it."""

    def __init__(self, sock: socket.socket, name: str, server: LeanServer) -> None:
        self.socket = sock
        self.name = name
        self._server = server
        self.connection = Connection(read_head, self._begin, server.refusal)
        self.events = select.EPOLLIN
        self.heard = True  # of it since it was looked at last
        self.asked = False  # whether it is there
        self.last_words = False  # closed once it has them

    def _begin(self, stream: Stream, head: Head) -> None:
        self._server.begin(self, stream, head)

    def post(self, act: Callable[[], None]) -> None:
        """Have something done to the connection by the thread that reads."""
        self._server.turns.post(partial(self.do, act))

    def do(self, act: Callable[[], None]) -> None:
        """Do it, in that thread."""
        act()
        self._server.touched.add(self)


class LeanServer:
    """Serves what is registered with it as with ``grpc.server``.

    Parameters
    ----------
    threads
        Where methods run that name no pool of their own. It is shut down at the end.
    turns
        What the pools of methods have put here runs in the thread that reads, in its turn.
    most
        Bytes of a message that is taken.
    keepalive_s
        Who has calls under way and is silent for so long is asked whether it is there, and is lost if it does not
        answer for as long.

    Attributes
    ----------
    touched : set
        The connections that may have something to send.
    """

    def __init__(self, threads: Executor, turns: Turns, most: int, keepalive_s: float = 30.0) -> None:
        self._threads = threads
        self._pools = {threads}
        self.turns = turns
        self.touched: set[_Peer] = set()
        self._most = most
        self._keepalive_s = keepalive_s
        self._room = Room(_MESSAGES * most)
        self._overdue = Overdue()
        self._said: tuple[grpc.Status | None, bytes] = (None, b"")
        self._methods: dict[str, Method] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._peers: dict[int, _Peer] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._poll = select.epoll()
        self._poll.register(turns.wake, select.EPOLLIN)
        self._ended = threading.Event()
        self._draining = False
        self._thread = threading.Thread(target=self._run, name="lean-server", daemon=True)

    # As services see it.

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Do nothing: generated code registers each method once more by its name, and that is looked at."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve the methods of a service."""
        for name, handler in handlers.items():
            behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
            threads = getattr(behavior, "experimental_thread_pool", None) or self._threads
            early = getattr(threads, "early_refusal", None)
            streams = handler.request_streaming or handler.response_streaming
            refusal = _taken if early is None or streams else early.of
            self._pools.add(threads)
            enter = getattr(threads, "enter", None) or partial(_submit, threads)
            self._methods[f"/{service}/{name}"] = Method(handler, behavior, enter, refusal)

    def add_insecure_port(self, address: str) -> int:
        """Listen on ``host:port``, and return the port; raises ``RuntimeError``."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        both = host == "::" and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, int(port)), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        except OSError as error:
            raise RuntimeError(str(error)) from error
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        return int(listener.getsockname()[1])

    def start(self) -> None:
        """Serve."""
        for number in self._listeners:
            self._poll.register(number, select.EPOLLIN)
        self._thread.start()

    def stop(self, grace_s: float | None) -> threading.Event:
        """Take no more connections and calls; those under way may take ``grace_s`` to end. The event says they have."""
        if self._thread.ident is None:
            self._close()
        else:
            self.turns.post(lambda: self._drain(grace_s or 0.0))
        return self._ended

    # In the thread that reads.

    def _run(self) -> None:
        turns, poll = self.turns, self._poll
        turns.begin()
        try:
            while not (self._draining and not self._peers):
                pause_s = self._pause_s() if turns.sleeps() else 0.0
                ready = poll.poll(pause_s)
                turns.woken()
                for number, event in ready:
                    self._event(number, event)
                self._tick()
                turns.take()
                self._flush()
        except BaseException:
            logger.exception("the server has ended")
            raise
        finally:
            self._close()

    def _pause_s(self) -> float:
        return max(self._timers[0][0] - time.monotonic(), 0.0) if self._timers else -1.0

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), act))

    def _tick(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _event(self, number: int, event: int) -> None:
        peer = self._peers.get(number)
        if peer is not None:
            self.touched.add(peer)
            if event & ~select.EPOLLOUT:
                self._read(peer)
        elif number in self._listeners:
            self._accept(self._listeners[number])
        elif number == self.turns.wake:
            self.turns.rest()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # too many open files, above all: those that there are go on
                logger.error("cannot accept a connection: %s", error)
                self._poll.modify(listener.fileno(), 0)
                self._at(_CROWDED_S, partial(self._accept_again, listener))
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            peer = _Peer(sock, peer_of(address), self)
            self.touched.add(peer)
            self._peers[sock.fileno()] = peer
            self._poll.register(sock.fileno(), peer.events)
            self._at(_PATIENCE_S, partial(self._expect, peer))
            self._at(self._keepalive_s, partial(self._ask, peer))

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() in self._listeners:
            self._poll.modify(listener.fileno(), select.EPOLLIN)

    def _expect(self, peer: _Peer) -> None:
        if not peer.connection.greeted:
            self._lose(peer)

    def _ask(self, peer: _Peer) -> None:
        """Lose who has calls under way and has not answered; ask who was silent."""
        if peer.socket.fileno() < 0:
            return
        silent = not peer.heard and bool(peer.connection.streams)
        if silent and peer.asked:
            logger.info("%s: is silent; its calls end", peer.name)
            self._lose(peer)
            return
        if silent:
            peer.connection.ping()
            self.touched.add(peer)
        peer.asked, peer.heard = silent, False
        self._at(self._keepalive_s, partial(self._ask, peer))

    def _read(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(peer)
            return
        if peer.last_words:
            return
        peer.heard = True
        try:
            peer.connection.receive(data)
        except ProtocolError as problem:
            logger.info("%s: %s; its connection ends", peer.name, problem)
            peer.connection.goodbye(problem.code, str(problem))
            peer.connection.lost()
            peer.last_words = True
        except Exception:  # of one connection: the others go on
            logger.exception("%s: its connection ends", peer.name)
            self._lose(peer)

    def begin(self, peer: _Peer, stream: Stream, head: Head) -> None:
        """Take a new call."""
        method = self._methods.get(head.path)
        if not head.is_grpc or method is None:
            stream.receiver = NOBODY
            stream.end(_UNKNOWN_METHOD if head.is_grpc else _NOT_GRPC)
            return
        streaming = method.handler.request_streaming or method.handler.response_streaming
        kind = StreamingCall if streaming else Call
        call = kind(stream, head, method, peer.name, self._most, self._room, peer.post, self._start, self._wait)
        stream.receiver = call
        if head.problem is not None:
            call.refuse(*head.problem)
            return
        if streaming and head.timeout_s < math.inf:
            self._at(head.timeout_s, partial(peer.do, call.expire))
        if method.handler.request_streaming:
            self._start(call)

    def refusal(self, head: Head) -> bytes | None:
        """Return how a call ends that is refused by its headers, or ``None``; many that follow each other end alike."""
        method = self._methods.get(head.path)
        status = None if method is None or not head.is_grpc else method.refusal(head.timeout_s)
        if status is None:
            return None
        if status is not self._said[0]:
            last = last_headers(status.code, status.details, status.trailing_metadata or ())
            self._said = status, encode((*START, *last))
        return self._said[1]

    def _wait(self, call: Call, left_s: float) -> None:
        """Watch the deadline of an answer that comes later."""
        if not self._overdue:
            self._at(LOOK_S, self._look)
        self._overdue.add(call, left_s)

    def _look(self) -> None:
        self._overdue.look()
        if self._overdue:
            self._at(LOOK_S, self._look)

    def _start(self, call: Call) -> None:
        try:
            call.method.enter(call)
        except RuntimeError:  # the pool is shut down
            call.refuse(grpc.StatusCode.UNAVAILABLE, "the server ends")

    def _flush(self) -> None:
        touched, self.touched = self.touched, set()
        for peer in touched:
            if peer.socket.fileno() < 0:
                continue  # lost meanwhile
            out = peer.connection.out
            if out:
                try:
                    sent = peer.socket.send(out)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._lose(peer)
                    continue
                del out[:sent]
            self._after(peer)

    def _after(self, peer: _Peer) -> None:
        """Wait for what a connection needs next, or close it."""
        left = len(peer.connection.out)
        if not left and (peer.last_words or (peer.connection.draining and not peer.connection.streams)):
            self._lose(peer)
            return
        events = (select.EPOLLOUT if left else 0) | (select.EPOLLIN if left < _UNSENT else 0)
        if events != peer.events:
            peer.events = events
            self._poll.modify(peer.socket.fileno(), events)

    def _lose(self, peer: _Peer) -> None:
        if self._peers.pop(peer.socket.fileno(), None) is not None:
            peer.connection.lost()
            peer.socket.close()

    def _drain(self, grace_s: float) -> None:
        for listener in self._listeners.values():
            self._poll.unregister(listener.fileno())
            listener.close()
        self._listeners.clear()
        self._draining = True
        for peer in self._peers.values():
            peer.do(peer.connection.warn)
        self._at(min(_HEARS_S, grace_s), self._refuse)
        self._at(grace_s, self._hurry)

    def _refuse(self) -> None:
        for peer in self._peers.values():
            peer.do(peer.connection.refuse)

    def _hurry(self) -> None:
        """End what has not ended."""
        self._refuse()
        for peer in tuple(self._peers.values()):
            for stream in tuple(peer.connection.streams.values()):
                stream.reset(frames.CANCEL)
                if stream.receiver is not None:
                    stream.receiver.gone()
        self._flush()
        for peer in tuple(self._peers.values()):
            self._lose(peer)

    def _close(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        for peer in tuple(self._peers.values()):
            self._lose(peer)
        for threads in self._pools:
            threads.shutdown(wait=False)
        self._poll.close()
        self._ended.set()


def peer_of(address: tuple[Any, ...]) -> str:
    """Return a socket's address as gRPC writes it.

    Examples
    --------
    >>> peer_of(("::1", 51234, 0, 0)), peer_of(("::ffff:10.0.0.7", 51234, 0, 0)), peer_of(("10.0.0.7", 51234))
    ('ipv6:%5B::1%5D:51234', 'ipv4:10.0.0.7:51234', 'ipv4:10.0.0.7:51234')
    """
    host, port = str(address[0]).removeprefix("::ffff:"), address[1]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _submit(threads: Executor, call: Call) -> None:
    threads.submit(call.run)


def _taken(_timeout_s: float) -> None:
    """Refuse nobody."""
