"""What waits for the thread that reads: calls that it answers itself, and answers that others have made."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

logger = logging.getLogger(__name__)

#: Calls that are answered between two looks at the network: a quarter of those that wait, but so many at least and at
#: most. To look costs as much as some answers, and where many wait a look that comes later is no harm.
_LEAST_CALLS, _MOST_CALLS = 16, 64


class Turns(Executor):
    """An executor without threads: what is submitted waits until :meth:`take` is called.

    Attributes
    ----------
    ahead : callable
        Is told how many of those that wait are about to be taken.
    """

    def __init__(self) -> None:
        self.ahead: Callable[[int], None] = _nothing
        self._waiting: deque[Callable[[], Any]] = deque()
        self._posted: deque[Callable[[], None]] = deque()
        self._reader = 0
        self._asleep = False
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Not before the last thread that might write to it has forgotten it.
        weakref.finalize(self, os.close, self.wake)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._waiting)

    def begin(self) -> None:
        """Note that the thread that calls it is the one that reads."""
        self._reader = threading.get_ident()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let something wait for its turn. The future is never used: what is submitted says itself how it went."""
        self._waiting.append(partial(fn, *args, **kwargs) if args or kwargs else fn)
        self._rouse()
        return _NEVER

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: there are no threads to end."""

    def post(self, act: Callable[[], None]) -> None:
        """Have something done by the thread that reads: at once if that is this one."""
        if threading.get_ident() == self._reader:
            act()
        else:
            self._posted.append(act)
            self._rouse()

    def _rouse(self) -> None:
        if self._asleep:
            os.eventfd_write(self.wake, 1)

    def rest(self) -> None:
        """Forget that it was woken."""
        os.eventfd_read(self.wake)

    def sleeps(self) -> bool:
        """Say that the thread that reads is about to sleep; false: there is something to do."""
        self._asleep = True  # before it looks: what comes after the look wakes it
        if self._waiting or self._posted:
            self._asleep = False
        return self._asleep

    def woken(self) -> None:
        """Say that it sleeps no more."""
        self._asleep = False

    def take(self) -> None:
        """Do what was posted, and the next of what waits."""
        posted, waiting = self._posted, self._waiting
        while posted:
            _do(posted.popleft())
        most = min(max(len(waiting) // 4, _LEAST_CALLS), _MOST_CALLS, len(waiting))
        if most > 1:
            _do(partial(self.ahead, most))
        for _ in range(most):
            _do(waiting.popleft())


def _do(act: Callable[[], Any]) -> None:
    try:
        act()
    except Exception:  # it is of one call: the others go on
        logger.exception("a call has failed")


def _nothing(_most: int) -> None:
    """Nobody looks ahead."""


_NEVER: Future[Any] = Future()
