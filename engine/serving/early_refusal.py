"""Refuses a call by its headers alone, for a server that reads them itself: what is refused costs next to nothing."""

from __future__ import annotations

import math
import threading
import time
from typing import NamedTuple

import grpc
from grpc_status import rpc_status

from engine.serving.errors import status_of
from engine.serving.load import Load, Rank, Reason, ends_s
from engine.serving.seams import Observer

#: How old the words of a refusal may be, and its hint when to come again: to write them takes longer than to refuse.
_STALE_S = 0.01


class _Refused(NamedTuple):
    """Why a call was refused, and what it was told; so are others while there is no more room than there was.

    Those whose caller gives up at ``latest_s`` at the latest, until ``until_s``.
    """

    reason: Reason
    status: grpc.Status
    room: int
    latest_s: float
    until_s: float


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
        self._last: _Refused | None = None

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
        last = self._last
        if last is None or last.room != self._load.room or end_s > last.latest_s or now_s > last.until_s:
            last = self._last = self._judged(end_s, now_s)
        if last is None:
            return None
        self._observer.turned_away(self._method, last.reason)
        return last.status

    def _judged(self, end_s: float, now_s: float) -> _Refused | None:
        load = self._load
        with self._lock:
            reason = load.refusal(self._rank, end_s, now_s)
            if reason is None:
                return None
            until_s, status = self._said.get(reason, (0.0, None))
            if status is None or now_s > until_s:
                status = rpc_status.to_status(status_of(load.overloaded(reason, self._rank, end_s - now_s)))
                until_s = now_s + _STALE_S
                self._said[reason] = (until_s, status)
            latest_s = math.inf if reason == "queue_full" else now_s + load.wait_s(self._rank)
            return _Refused(reason, status, load.room, latest_s, until_s)
