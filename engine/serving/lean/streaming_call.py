"""A call with many messages, one way or both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from engine.serving.lean.call import Call
from engine.serving.lean.connection import STREAM_WINDOW

#: Bytes of a stream's answers that wait for its caller; beyond it, who makes them waits too.
_UNSENT = 262_144


class StreamingCall(Call):
    """A call with any number of messages, to or from the caller. It has a thread of its own while it lasts."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._changed = threading.Condition()
        self._complete = False

    def _arrived(self, message: bytes) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def _allow(self) -> None:
        """Not before it is taken, but for what belongs to a message that is not complete."""
        if self._body or not self.method.handler.request_streaming:
            super()._allow()

    def ended(self) -> None:
        """Note that all has come."""
        if not self.method.handler.request_streaming:
            super().ended()
            return
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def gone(self) -> None:
        """Wake who waits for messages."""
        super().gone()
        self.flushed()

    def flushed(self) -> None:
        """Wake who waits to send more."""
        with self._changed:
            self._changed.notify_all()

    def _terminate(self) -> None:
        super()._terminate()
        self.flushed()

    def _requests(self) -> Iterator[Any]:
        """Yield messages as they come; raises ``RuntimeError`` when the caller has gone."""
        read = self.method.handler.request_deserializer
        while True:
            with self._changed:
                while not self._messages and not self._complete and not self._over:
                    self._changed.wait()
                if self._over:
                    raise RuntimeError("the caller has gone")
                if not self._messages:
                    return
                message = self._messages.popleft()
                taken = not self._messages
            if taken and self._stream.taking < STREAM_WINDOW // 2:
                self._post(super()._allow)
            yield read(message)

    def run(self) -> None:
        """Ask the servicer, and send what it says as it says it."""
        if self._over:
            return
        handler = self.method.handler
        try:
            argument = (
                self._requests()
                if handler.request_streaming
                else handler.request_deserializer(self._messages.popleft())
            )
            if getattr(self.method.behavior, "experimental_non_blocking", False):
                self.method.behavior(argument, self, self._tell)
                return
            for reply in self.method.behavior(argument, self):
                if not self._say(handler.response_serializer(reply)):
                    return
        except Exception as error:
            self._fail(error)
            return
        self._post(partial(self._succeed, None))

    def _say(self, message: bytes) -> bool:
        """Send a message when the caller has room for it; false: it has gone."""
        if self._stream.unsent > _UNSENT:
            with self._changed:
                while self._stream.unsent > _UNSENT and not self._over:
                    self._changed.wait()
        self._post(partial(self._send, message))
        return not self._over

    def _tell(self, reply: Any) -> None:
        """Send a message; none: that was the last."""
        if reply is None:
            self._post(partial(self._succeed, None))
        else:
            self._post(partial(self._send, self.method.handler.response_serializer(reply)))
