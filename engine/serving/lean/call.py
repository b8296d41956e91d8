"""One call: messages in and out of a stream, and what a servicer sees of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc

from engine.serving.later import Later
from engine.serving.lean.connection import NOBODY, STREAM_WINDOW, Stream
from engine.serving.lean.frames import CANCEL, LENGTH
from engine.serving.lean.head import START, Head, Metadata, encoded, last_headers
from engine.serving.lean.headers import encode

logger = logging.getLogger(__name__)

_OK = encode(last_headers(grpc.StatusCode.OK, "", ()))
_START = encode(START)
_PREFIX = 5

Post = Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class Method:
    """What answers a method.

    Attributes
    ----------
    handler
        As the generated code gives it.
    behavior
        The servicer's method.
    enter
        Lets a call that is whole wait for its turn.
    refusal
        Says of a call by its timeout in seconds how it ends at once; ``None``: it does not.
    """

    handler: Any
    behavior: Callable[..., Any]
    enter: Callable[[Call], object]
    refusal: Callable[[float], grpc.Status | None]


class Room:
    """How many bytes of messages that are not complete are held, of all calls together: memory has an end.

    Parameters
    ----------
    most
        As many as there may be.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> bool:
        """Take some, or give them back; false: there are not as many."""
        self._left -= size
        return self._left >= 0


class _AbortedError(Exception):
    """Leaves a servicer's method whose call has its status."""


class Call(grpc.ServicerContext):
    """A call with one message. What reads the connection makes it; ``run`` may be called elsewhere.

    Parameters
    ----------
    stream, head, method
        What came, and who answers it.
    peer
        Address of the caller, as gRPC writes it.
    most
        Bytes of a message that is taken.
    room
        For what is not complete.
    post
        Has something done by the thread that reads.
    start
        Is told when there is something to answer.
    wait
        Is told of an answer that comes later: it is to call ``end_later`` when its caller gives up.
    """

    def __init__(
        self,
        stream: Stream,
        head: Head,
        method: Method,
        peer: str,
        most: int,
        room: Room,
        post: Post,
        start: Callable[[Call], None],
        wait: Callable[[Call, float], None],
    ) -> None:
        self._stream = stream
        self._head = head
        self.method = method
        self._peer = peer
        self._most = most
        self._room = room
        self._held = 0
        self._post = post
        self._start = start
        self._wait = wait
        self._later: Later | None = None
        self._body = bytearray()
        self._messages: deque[bytes] = deque()
        self._request: Any = None
        self._over = False
        self._headed = False
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._initial: Metadata = ()
        self._trailing: Metadata = ()
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        #: When its caller gives up, in seconds since 1970.
        self.deadline = time.time() + head.timeout_s

    # What the connection tells.

    def received(self, data: bytes) -> None:
        """Take bytes of the body."""
        body = self._body
        body += data
        while len(body) >= _PREFIX and not self._over:
            size = int.from_bytes(body[1:_PREFIX], "big")
            if body[0]:
                self.refuse(grpc.StatusCode.INTERNAL, "a message that is compressed, by a method that was not named")
            elif size > self._most:
                self.refuse(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"received message larger than max ({size} vs. {self._most})"
                )
            elif len(body) < _PREFIX + size:
                break
            else:
                message = bytes(body[_PREFIX : _PREFIX + size])
                del body[: _PREFIX + size]
                self._arrived(message)
        if body or self._held:
            self._hold(0 if self._over else len(body))
        self._allow()

    def _hold(self, size: int) -> None:
        more, self._held = size - self._held, size
        if not self._room.take(more) and more > 0:
            self.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many large messages are under way; come again later")

    def _arrived(self, message: bytes) -> None:
        self._messages.append(message)
        if len(self._messages) > 1:
            self.refuse(grpc.StatusCode.INTERNAL, "more than one message")

    def _allow(self) -> None:
        taking = self._stream.taking
        if taking < STREAM_WINDOW // 2:
            self._stream.allow(STREAM_WINDOW - taking)

    def ended(self) -> None:
        """Answer: all has come."""
        if self._over:
            return
        if self._body or not self._messages:
            self.refuse(grpc.StatusCode.INTERNAL, "no whole message")
        else:
            self._start(self)

    def gone(self) -> None:
        """Tell the servicer that nobody waits."""
        self._terminate()

    def flushed(self) -> None:
        """Nobody waits for it."""

    # How it ends, in the thread that reads.

    def refuse(self, code: grpc.StatusCode, details: str, metadata: Metadata = ()) -> None:
        """End it with a status."""
        if self._over:
            return
        last = last_headers(code, details, metadata)
        self._stream.end(encode(last if self._headed else (*START, *encoded(self._initial), *last)))
        self._terminate()

    def _send(self, message: bytes) -> None:
        if not self._over:
            if not self._headed:
                self._headed = True
                self._stream.head(_START + encode(encoded(self._initial)) if self._initial else _START)
            self._stream.send(b"\0" + LENGTH.pack(len(message)) + message)

    def _succeed(self, message: bytes | None) -> None:
        if self._over:
            return
        if message is not None:
            self._send(message)
        if self._trailing or self._details or not self._headed:
            self.refuse(grpc.StatusCode.OK, self._details, self._trailing)
        else:
            self._stream.end(_OK)
            self._terminate()

    def expire(self) -> None:
        """End it: its deadline has passed."""
        self.refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")

    def _terminate(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            callbacks, self._callbacks = self._callbacks, []
        self._stream.receiver = NOBODY  # each knew the other: neither would be freed
        if self._held:
            self._hold(0)
        for callback in callbacks:
            callback()

    # How it is answered, in whichever thread.

    def read(self) -> Any:
        """Return the request."""
        if self._request is None:
            self._request = self.method.handler.request_deserializer(self._messages.popleft())
        return self._request

    def run(self) -> Later | None:
        """Ask the servicer, and send what it says, or return what will be sent later."""
        if self._over:
            return None  # its caller has gone while it waited
        try:
            request = self.read()
        except Exception:
            self._post(partial(self.refuse, grpc.StatusCode.INTERNAL, "the message cannot be read"))
            return None
        said = self._said(lambda: self.method.behavior(request, self))
        if isinstance(said, Later):
            self._later = said
            self._post(partial(self._wait, self, said.left_s))
            said.future.add_done_callback(lambda _: self._post(self.end_later))
            return said
        return None

    def end_later(self) -> None:
        """Send what was to be sent later: it is there, or its caller gives up."""
        later, self._later = self._later, None
        if later is not None:
            self._said(later.end)

    @property
    def is_later(self) -> bool:
        """Whether its answer is still to come."""
        return self._later is not None

    def _said(self, ask: Callable[[], Any]) -> Any:
        """Send what a servicer says; what is to come later is returned."""
        try:
            said = ask()
            if isinstance(said, Later):
                return said
            message = self.method.handler.response_serializer(said)
        except Exception as error:
            self._fail(error)
            return None
        if self._code is None or self._code is grpc.StatusCode.OK:
            self._post(partial(self._succeed, message))
        else:
            self._post(partial(self.refuse, self._code, self._details, self._trailing))
        return None

    def _fail(self, error: Exception) -> None:
        if isinstance(error, _AbortedError) and self._code is not None:
            self._post(partial(self.refuse, self._code, self._details, self._trailing))
        elif not self._over:
            logger.error("%s failed", self._head.path, exc_info=error)
            self._post(partial(self.refuse, grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"))

    # What a servicer sees.

    @property
    def call_details(self) -> Call:
        """Where a pool of threads looks for the deadline."""
        return self

    def is_active(self) -> bool:
        """Return whether somebody waits for the answer."""
        return not self._over

    def time_remaining(self) -> float:
        """Return the seconds until the caller gives up; infinite where it never does."""
        return math.inf if self.deadline == math.inf else max(self.deadline - time.time(), 0.0)

    def cancel(self) -> None:
        """End it without an answer."""
        self._post(self._cancel)

    def _cancel(self) -> None:
        if not self._over:
            self._stream.reset(CANCEL)
            self._terminate()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have something called when it is over; false: it is."""
        with self._lock:
            if not self._over:
                self._callbacks.append(callback)
            return not self._over

    def invocation_metadata(self) -> Any:
        """Return what the caller sent beside its message."""
        return self._head.metadata

    def peer(self) -> str:
        """Return the caller's address."""
        return self._peer

    def peer_identities(self) -> None:
        """Return none: there are no certificates without TLS."""

    def peer_identity_key(self) -> None:
        """Return none: there are no certificates without TLS."""

    def auth_context(self) -> Mapping[str, Any]:
        """Return nothing: there are no certificates without TLS."""
        return {}

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress nothing, whatever is asked."""

    def disable_next_message_compression(self) -> None:
        """Compress nothing as it is."""

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Have metadata go before the first message."""
        self._initial = tuple(initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Have metadata go with the status."""
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """Return the metadata that goes with the status."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Have it end with a status."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Have it end with these words."""
        self._details = details

    def code(self) -> grpc.StatusCode | None:
        """Return the status that was set."""
        return self._code

    def details(self) -> str:
        """Return the words that were set."""
        return self._details

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Leave the servicer's method, and end with a status."""
        self._code, self._details = code, details
        raise _AbortedError

    def abort_with_status(self, status: Any) -> NoReturn:
        """Leave the servicer's method, and end with a status and its metadata."""
        self._trailing = tuple(status.trailing_metadata or ())
        self.abort(status.code, status.details)
