"""Refuses a call by its headers alone, for a server that reads them itself: what is refused costs next to nothing."""

from __future__ import annotations

import threading
import time

import grpc
from grpc_status import rpc_status

from engine.serving.errors import status_of
from engine.serving.load import Load, Rank, Reason, ends_s
from engine.serving.seams import Observer

#: How old the words of a refusal may be, and its hint when to come again: to write them takes longer than to refuse.
_STALE_S = 0.01


class EarlyRefusal:
    """Refuses calls of one method.

    Parameters
    ----------
    load, lock
        Who may wait, and what is held to ask it.
    observer
        Is told of who may not.
    default_s
        What a caller without a deadline gets.
    rank, method
        Of the calls.
    """

    def __init__(
        self, load: Load, lock: threading.Lock, observer: Observer, default_s: float, rank: Rank, method: str
    ) -> None:
        self._load = load
        self._lock = lock
        self._observer = observer
        self._default_s = default_s
        self._rank = rank
        self._method = method
        self._said: dict[Reason, tuple[float, grpc.Status]] = {}

    @property
    def calm(self) -> bool:
        """Whether there is nothing to refuse."""
        return self._load.calm

    def of(self, timeout_s: float) -> grpc.Status | None:
        """Return how a call ends that has just begun, or ``None``: let it go on, and it may still be refused.

        Those that are refused at about the same time are told the same: it is the same object.

        Parameters
        ----------
        timeout_s
            Until its caller gives up; infinite: it did not say.
        """
        if self.calm:
            return None
        now_s = time.monotonic()
        end_s = ends_s(timeout_s, 0.0, now_s, self._default_s)
        with self._lock:
            reason = self._load.refusal(self._rank, end_s, now_s)
            if reason is None:
                return None
            until_s, status = self._said.get(reason, (0.0, None))
            if status is None or now_s > until_s:
                status = rpc_status.to_status(status_of(self._load.overloaded(reason, self._rank, end_s - now_s)))
                self._said[reason] = (now_s + _STALE_S, status)
        self._observer.turned_away(self._method, reason)
        return status
