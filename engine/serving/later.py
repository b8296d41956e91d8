"""An answer that waits for the log: a thread may wait for it, or be told when it is there and do something else."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

#: Between two looks at the deadlines of answers that wait for the log.
LOOK_S = 0.02


class Later:
    """What is left of a call once its records are on their way.

    Parameters
    ----------
    future
        Ends when they are safe, or with why they are not.
    left_s
        So long its caller waits.
    finish
        Waits for the future as long as it is told, and returns the answer; raises what else ends the call. Called once.

    Attributes
    ----------
    future, left_s
        As given.
    """

    def __init__(self, future: Future[Any], left_s: float, finish: Callable[[float], Any]) -> None:
        self.future = future
        self.left_s = left_s
        self._finish = finish
        self._over = False
        self._ended: list[Callable[[], None]] = []

    def wait(self) -> Any:
        """Wait, and return the answer."""
        return self.end(self.left_s)

    def end(self, wait_s: float = 0.0) -> Any:
        """Return the answer; one that is not there within the time ends as ``finish`` says."""
        try:
            return self._finish(wait_s)
        finally:
            self._over = True
            for ended in self._ended:
                ended()

    def on_end(self, ended: Callable[[], None]) -> None:
        """Have something called when it has ended, at once if it has; by the thread that ends it."""
        if self._over:
            ended()
        else:
            self._ended.append(ended)


class WaitsForLater(Protocol):
    """A call whose answer comes later."""

    @property
    def is_later(self) -> bool:
        """Whether its answer is still to come."""

    def end_later(self) -> None:
        """Send it: it is there, or its caller gives up."""


class Overdue:
    """Calls whose answers come later, and when their callers give up.

    They are few at a time, and looked through now and then by one thread, which is also the one that adds them.
    """

    def __init__(self) -> None:
        self._ends: dict[WaitsForLater, float] = {}
        self._next_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, call: WaitsForLater, left_s: float) -> None:
        """Watch the deadline of a call that is not over."""
        if call.is_later:
            self._ends[call] = time.monotonic() + left_s

    def look(self) -> None:
        """End the calls whose time is over, and forget those that have ended; rarely enough to cost nothing."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_S
        for call, ends_s in tuple(self._ends.items()):
            if now_s >= ends_s:
                call.end_later()
            if not call.is_later:
                del self._ends[call]
