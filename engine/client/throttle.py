"""What a client holds back of what a server would refuse: a refusal costs a server a good part of an answer.

A server of which far more is asked than it can answer spends its time on refusals, and answers the less. So a client
most of whose calls are refused sends little more than what is accepted. How much that is it finds out: it sends more
and more until something is refused, and goes on from what was accepted then.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from dataclasses import dataclass

import grpc

from engine.client.retries import judged

logger = logging.getLogger(__name__)

#: What is counted together, in seconds, and for how many of these it is remembered.
TICK_S = 0.1
_TICKS = 30
#: Nothing is held back before so many calls were lost, nor while more than this share of the calls is accepted.
_LEAST_LOST, _MOST = 20, 0.5
#: It begins with what was accepted, but with this share of what was sent at least; and never is less sent than this
#: share of it, and so many calls a second.
_FIRST_SHARE, _LEAST_SHARE, _LEAST_RATE = 0.3, 0.05, 1.0
#: What is sent is judged by so many answers, and is good while no more than this share is lost.
_ENOUGH, _FEW = 10, 0.03
#: Else the next to be sent is so much more than what was accepted, as the rest asks whether there is more room, but no
#: less than this share of what was sent.
_OVER, _LEAST_CUT = 1.04, 0.75
#: What is good grows, with each good tick by so much more, up to so much. It begins as if so many had been good.
_GROWTH, _MOST_GROWTH, _GOOD = 0.04, 0.4, 5
#: What may be sent at once after less was asked than might have been sent: as much as for so long, or so many.
_SAVED_S, _SAVED = 0.25, 5.0
#: Seconds without anything held back until nothing is.
_CALM_S = 1.0
#: Every so many seconds, and calls, it must have helped: this share is accepted, or so much more than before.
_TRIAL_S, _TRIAL, _HELPED, _MORE = 1.5, 30, 0.7, 0.2
#: Where it has not, how long it is not tried again; each time twice as long.
_REST_S, _LONGEST_REST_S = 10.0, 160.0


@dataclass(slots=True)
class _Count:
    accepted: int = 0
    refused: int = 0
    late: int = 0
    held: int = 0

    @property
    def lost(self) -> int:
        return self.refused + self.late

    @property
    def sent(self) -> int:
        return self.accepted + self.lost

    def add(self, other: _Count) -> None:
        self.accepted += other.accepted
        self.refused += other.refused
        self.late += other.late

    def crowded(self, share: float) -> bool:
        """Return whether less than a share was accepted."""
        return self.accepted < share * self.sent


class Throttle:
    """Says of each call whether it is sent. Safe for threads.

    It holds nothing back until most calls of late were refused, and no more once all have been sent for a second. Where
    the share of refusals stays as it was, it gives up: others fill the server, or one of several servers is crowded.

    Examples
    --------
    >>> throttle = Throttle()
    >>> for number in range(200):
    ...     if throttle.admit(number / 200.0):
    ...         (throttle.refused if number % 4 else throttle.accepted)(number / 200.0, number / 200.0)
    >>> throttle.holds, throttle.held_back > 0
    (True, True)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = _Count()
        self._ticks: deque[_Count] = deque(maxlen=_TICKS)
        self._ends_s = 0.0  # the tick
        self._limit: float | None = None  # calls a second
        self._least = _LEAST_RATE
        self._room = self._filled_s = 0.0  # how many may be sent, and as of when
        self._answers = _Count()  # since the limit was changed
        self._unjudged = self._good = 0  # ticks since then, and good ones in a row
        self._cut_s = -math.inf  # what was sent before it says nothing of what is sent now
        self._held_s = self._began_s = 0.0  # when something was held back last, and first
        self._trial, self._tried_s = _Count(), 0.0  # since then
        self._before = 0.0  # the share that was accepted
        self._rests_until_s, self._rest_s = 0.0, _REST_S
        #: Calls that were not sent.
        self.held_back = 0

    @property
    def holds(self) -> bool:
        """Whether calls are held back now."""
        return self._limit is not None

    def admit(self, now_s: float) -> bool:
        """Return whether a call is sent."""
        if self._limit is None:
            return True
        with self._lock:
            self._turn(now_s)
            limit = self._limit
            if limit is None:
                return True
            saved = max(limit * _SAVED_S, _SAVED)
            self._room = min(self._room + max(now_s - self._filled_s, 0.0) * limit, saved)
            self._filled_s = now_s
            if self._room >= 1.0:
                self._room -= 1.0
                return True
            self._now.held += 1
            self._held_s = now_s
            self.held_back += 1
            return False

    def accepted(self, sent_s: float, now_s: float) -> None:
        """Note that the server had room for a call, whatever it said to it."""
        with self._lock:
            self._turn(now_s)
            self._now.accepted += 1

    def refused(self, sent_s: float, now_s: float) -> None:
        """Note that the server had none."""
        with self._lock:
            self._turn(now_s)
            if sent_s >= self._cut_s:
                self._now.refused += 1

    def late(self, sent_s: float, now_s: float) -> None:
        """Note that no answer came in time: from a server that refuses others it may have been a refusal."""
        with self._lock:
            self._turn(now_s)
            if sent_s >= self._cut_s:
                self._now.late += 1

    def failed(self, error: grpc.RpcError, sent_s: float, now_s: float) -> None:
        """Note how a call has failed. A server that cannot be reached says nothing of its room.

        Of calls that nobody has looked at yet, grpcio's core takes back what is too many.
        """
        code = error.code()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and judged(error)[0]:
            self.refused(sent_s, now_s)
        elif code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            self.late(sent_s, now_s)
        elif code is not grpc.StatusCode.UNAVAILABLE:
            self.accepted(sent_s, now_s)

    def _turn(self, now_s: float) -> None:
        """End the tick when its time is over."""
        if now_s < self._ends_s:
            return
        silent = int((now_s - self._ends_s) / TICK_S)
        self._ticks.append(self._now)
        self._ticks.extend(_Count() for _ in range(min(silent, _TICKS)))
        self._ends_s += (silent + 1) * TICK_S
        last, self._now = self._now, _Count()
        if self._limit is None:
            self._consider(now_s)
        else:
            self._limit = self._next(self._limit, last, now_s)

    def _consider(self, now_s: float) -> None:
        """Begin to hold back where most is lost; without a refusal that says nothing of the server's room."""
        if now_s < self._rests_until_s or not any(tick.refused for tick in self._ticks):
            return
        seen, ticks = _Count(), 0
        for tick in reversed(self._ticks):
            seen.add(tick)
            ticks += 1
            if seen.lost >= _LEAST_LOST:
                break
        if seen.lost < _LEAST_LOST or not seen.crowded(_MOST):
            return
        sent = seen.sent / (ticks * TICK_S)
        self._least = max(_LEAST_SHARE * sent, _LEAST_RATE)
        self._limit = max(_OVER * seen.accepted / (ticks * TICK_S), _FIRST_SHARE * sent, self._least)
        self._before = seen.accepted / seen.sent
        self._answers, self._unjudged, self._good = _Count(), 0, _GOOD
        self._room, self._trial = 0.0, _Count()
        self._filled_s = self._began_s = self._tried_s = self._held_s = self._cut_s = now_s
        logger.warning(
            "of the last %d calls %d found no room at the server: until that passes, this client holds back what would "
            "be refused (throttle=False turns that off)",
            seen.sent,
            seen.lost,
        )

    def _next(self, limit: float, last: _Count, now_s: float) -> float | None:
        """Return how many calls a second are sent in the next tick; ``None``: as many as come."""
        if now_s - self._held_s > _CALM_S:
            logger.info("this client holds no calls back any more: there is room for all")
            return None
        self._trial.add(last)
        if now_s - self._tried_s >= _TRIAL_S and self._trial.sent >= _TRIAL:
            if self._trial.crowded(min(_HELPED, self._before + _MORE)) and self._tried_s > self._began_s:
                logger.info("this client holds no calls back any more: others fill the room that it leaves")
                self._rests_until_s, self._rest_s = now_s + self._rest_s, min(2.0 * self._rest_s, _LONGEST_REST_S)
                return None
            if self._tried_s > self._began_s:
                self._rest_s = _REST_S
            self._trial, self._tried_s = _Count(), now_s
        self._answers.add(last)
        self._unjudged += 1
        answers, ticks = self._answers, self._unjudged
        if answers.sent < _ENOUGH:
            return limit
        self._answers, self._unjudged = _Count(), 0
        if answers.lost <= _FEW * answers.sent:
            self._good += ticks
            return limit * (1.0 + min(_GROWTH * self._good, _MOST_GROWTH)) if last.held else limit
        self._good = 0
        change = max(_OVER * answers.accepted / answers.sent, _LEAST_CUT)
        if change < 1.0:
            self._cut_s = now_s
        return max(change * limit, self._least)
