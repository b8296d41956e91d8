"""One call with one message and one answer, as operations on grpcio's core."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from engine.serving.later import Later
from engine.serving.polled.inside import cygrpc, server

if TYPE_CHECKING:
    from engine.serving.polled.server import PolledServer

logger = logging.getLogger(__name__)

_NO_FLAGS = 0
_OK = grpc.StatusCode.OK.value[0]


class PolledCall:
    """A call. Until its message is there only the thread that polls knows it; ``run`` may be called elsewhere.

    It is also the state behind grpcio's own context, which is what a servicer sees of it.

    Parameters
    ----------
    event
        With which it came.
    handler
        Of its method.
    polled
        The server.
    """

    # What grpcio's context reads and writes. One lock for all calls: it is held for a few instructions.
    condition = threading.RLock()
    initial_metadata_allowed = False  # it goes with the answer
    compression_algorithm: Any = None
    disable_next_compression = False
    trailing_metadata: Any = None
    code: grpc.StatusCode | None = None
    details: bytes | None = None
    aborted = False
    client: str = server._OPEN
    #: Whether its end is on its way.
    statused = False

    def __init__(self, event: Any, handler: Any, polled: PolledServer) -> None:
        self._event = event
        self._call = event.call
        self._handler = handler
        self._polled = polled
        self._start: Callable[[], object] = _nothing
        self._message: bytes | None = None
        self._request: Any = None
        self._later: Later | None = None
        self._left = 1  # operations under way
        self.callbacks: list[Callable[[], None]] | None = []
        self.rpc_errors: list[Exception] = []
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._closed)

    @property
    def timeout_s(self) -> float:
        """Until its caller gives up; infinite: it did not say."""
        return float(self._event.call_details.deadline) - time.time()

    @property
    def deadline(self) -> float:
        """When its caller gives up, in seconds since 1970; infinite: it did not say."""
        return float(self._event.call_details.deadline)

    def receive(self, start: Callable[[], object]) -> None:
        """Ask for the message; ``start`` is called by the thread that polls when it is there."""
        self._start = start
        self._left += 1
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._received)

    def refuse(self, status: grpc.Status) -> None:
        """End it before its message is there."""
        self.trailing_metadata = status.trailing_metadata
        self._end(status.code.value[0], status.details.encode(), None)

    def attempt(self, step: Callable[[], object]) -> None:
        """Do what lets it wait for its turn; where that fails it ends, and all others go on."""
        try:
            step()
        except Exception:
            logger.exception("%s cannot be taken", self._polled.name_of(self._handler))
            self._end(grpc.StatusCode.UNAVAILABLE.value[0], b"the call cannot be taken now; come again later", None)

    # What the thread that polls tells; each returns whether the server goes on.

    def _received(self, event: Any) -> bool:
        self._message = event.batch_operations[0].message()
        start, self._start = self._start, _nothing  # which knows this call: neither would be freed
        if self._message is not None:
            self.attempt(start)
        else:
            self._end(grpc.StatusCode.UNIMPLEMENTED.value[0], b"a call of this method has one message", None)
        return self._over()

    def _closed(self, event: Any) -> bool:
        self.client = server._CANCELLED if event.batch_operations[0].cancelled() else server._CLOSED
        return self._over()

    def _sent(self, _event: Any) -> bool:
        return self._over()

    def _over(self) -> bool:
        """Note that an operation has ended; after the last one the call is over."""
        with self.condition:
            self._left -= 1
            if self._left or not (self.statused or self.client is server._CANCELLED) or self.callbacks is None:
                return True
            callbacks, self.callbacks = self.callbacks, None
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("what was to be done at the end of a call has failed")
        return self._polled.forget(self)

    # How it is answered, in whichever thread.

    def read(self) -> Any:
        """Return the request."""
        if self._request is None:
            self._request = self._handler.request_deserializer(self._message)
        return self._request

    def run(self) -> Later | None:
        """Ask the servicer, and send what it says, or return what will be sent later."""
        if self.client is server._CANCELLED:
            return None  # its caller has gone while it waited
        handler = self._handler
        try:
            request = self.read()
        except Exception:
            self._end(grpc.StatusCode.INTERNAL.value[0], b"the message cannot be read", None)
            return None
        said = self._answered(lambda: handler.unary_unary(request, server._Context(self._event, self, None)))
        if isinstance(said, Later) and said.future.done():
            self._answered(said.end)  # as most are that come with an id: nothing is to be waited for
        elif isinstance(said, Later):
            self._later = said
            self._polled.overdue.add(self, said.left_s)
            said.future.add_done_callback(lambda _: self._polled.ending.submit(self.end_later))
            return said
        return None

    def end_later(self) -> None:
        """Send what was to be sent later: it is there, or its caller gives up."""
        with self.condition:
            later, self._later = self._later, None
        if later is not None:
            self._answered(later.end)

    @property
    def is_later(self) -> bool:
        """Whether its answer is still to come."""
        return self._later is not None

    def _answered(self, ask: Callable[[], Any]) -> Any:
        """Send what a servicer says; what is to come later is returned."""
        try:
            said = ask()
            if isinstance(said, Later):
                return said
            message = self._handler.response_serializer(said)
        except Exception as error:
            if not self.aborted:
                logger.error("%s failed", self._polled.name_of(self._handler), exc_info=error)
                self.code, self.details = grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}".encode()
            message = None
        self._end(_OK if self.code is None else self.code.value[0], self.details or b"", message)
        return None

    def _end(self, code: int, details: bytes, message: bytes | None) -> None:
        with self.condition:
            if self.statused or self.client is server._CANCELLED:
                return
            self.statused = True
            self._left += 1
        status = cygrpc.SendStatusFromServerOperation(self.trailing_metadata, code, details, _NO_FLAGS)
        initial = cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS)
        operations = [status, initial]
        if message is not None and code == _OK:
            operations.append(cygrpc.SendMessageOperation(message, _NO_FLAGS))
        self._polled.send(partial(self._send, operations))

    def _send(self, operations: list[Any]) -> None:
        try:
            self._call.start_server_batch(operations, self._sent)
        except Exception:  # what a servicer wants sent cannot be: its caller must hear of an end all the same
            logger.exception("the end of %s cannot be sent", self._polled.name_of(self._handler))
            with self.condition:
                self._left -= 1
            self._call.cancel()


def _nothing() -> None:
    """Nothing waits for its message."""
