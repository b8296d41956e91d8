"""The calls of a server that wait: how many may, which is next, and what is left out when they are many."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Any, Literal

from engine.config import ServingConfig
from engine.effort import Effort
from engine.errors import Overloaded

#: Of so many calls that are taken while both kinds wait, one is of those that go last: they are slowed, not starved.
TURNS = 4
#: What one call adds to the mean time of a call.
_WEIGHT = 1.0 / 32.0
#: From so many calls before it on, how long a call waits tells how fast the queue moves (with fewer it tells of the
#: turns in which they are taken), and a call must have so many times as long until its deadline: a queue that does not
#: get shorter only makes answers late, and what has come and was not looked at yet stands before it unseen.
_MANY, _SPARE = 64, 5.0
#: Bounds of the hint when to come again, in seconds.
_SOONEST_S, _LATEST_S = 0.05, 5.0

Reason = Literal["queue_full", "too_late"]


class Rank(IntEnum):
    """In which order calls are taken."""

    #: Health, and the admin service: few, and what shows that there is trouble. Never refused.
    ALWAYS = 0
    FIRST = 1
    LAST = 2


@dataclass(slots=True, eq=False)
class Call:
    """One call that has come.

    Attributes
    ----------
    run
        Answers it.
    rank
        In which order it is taken.
    method
        Its name.
    ends_s
        When its caller gives up, on the clock of :class:`Load`.
    threaded
        Whether it is for a thread where others are answered by the one that reads: such calls wait by themselves.
    read
        Returns its request, where that can be known before its turn.
    came_s, ahead
        When it came, and how many had their turn before it: kept by :class:`Load`.
    """

    run: Callable[[], Any]
    rank: Rank
    method: str
    ends_s: float
    threaded: bool = False
    read: Callable[[], Any] | None = None
    came_s: float = 0.0
    ahead: int = 0


class Load:
    """What is asked of a server now. Who calls it holds a lock, but for :meth:`effort`, ``calm``,
    ``waiting`` and ``room``.

    Parameters
    ----------
    config
        Threads, places, and the ladder.

    Examples
    --------
    >>> load = Load(ServingConfig(workers=1, max_concurrent=2))
    >>> first, second, third = (Call(print, Rank.LAST, "Decide", 9.0) for _ in range(3))
    >>> load.enter(first, 0.0), load.take() is first, load.enter(second, 0.0)
    (None, True, None)
    >>> load.enter(third, 0.0)[1].reason
    'queue_full'
    """

    def __init__(self, config: ServingConfig) -> None:
        self._config = config
        self._lanes: tuple[deque[Call], ...] = tuple(deque() for _ in Rank)
        self._threaded: tuple[deque[Call], ...] = tuple(deque() for _ in Rank)
        self._running = 0
        #: Calls that wait for a thread.
        self.waiting = 0
        #: Grows with all that makes room. Until then whoever has no more time than one who was refused is refused too.
        self.room = 0
        self._turn = 0
        self._mean_s = 0.0
        #: How long a place in the queue takes, by rank: with all that is done between two calls, refusals above all.
        self._pace_s = [0.0] * len(Rank)
        #: For calls that wait while all threads are at work.
        self._places = max(config.max_concurrent - config.turns, 0)

    @property
    def calm(self) -> bool:
        """Whether any call may wait; asked without the lock, and so a call late."""
        return self._running < self._config.turns and self._running + self.waiting < self._config.max_concurrent

    def rank(self, method: str) -> Rank:
        """Return the rank of a method of the service."""
        first = self._config.overload.first
        if first == "none":
            return Rank.LAST
        # What a client decided by itself is a report too, and so is that it is acted on: nobody waits for the decision.
        is_report = method in ("Report", "ReportBatch", "Record", "Activate")
        return Rank.FIRST if is_report is (first == "report") else Rank.LAST

    def enter(self, call: Call, now_s: float) -> tuple[Call, Overloaded] | None:
        """Let a call wait; return the one that is refused for it, and why: itself (see :meth:`refusal`), or the newest
        of those that go last, which gives up its place to a call of a higher rank.
        """
        reason = None if self.calm else self.refusal(call.rank, call.ends_s, now_s)
        if reason is not None:
            return call, self.overloaded(reason, call.rank, call.ends_s - now_s)
        if call.threaded:
            self._threaded[call.rank].append(call)
        else:
            call.came_s, call.ahead = now_s, self._ahead(call.rank)
            self._lanes[call.rank].append(call)
        self.waiting += 1
        if call.rank is not Rank.ALWAYS and self._running + self.waiting > self._config.max_concurrent:
            last = self._threaded[Rank.LAST] or self._lanes[Rank.LAST]  # those for a thread wait longer
            self.waiting -= 1
            return last.pop(), self.overloaded("queue_full", Rank.LAST)
        return None

    def refusal(self, rank: Rank, ends_s: float, now_s: float) -> Reason | None:
        """Return why a call that comes now would be refused; ``None``: it may wait.

        Its caller would have given up before its turn, or all places are taken and no call of a lower rank waits.
        """
        if rank is Rank.ALWAYS:
            return None
        needs_s = self._wait_s(rank, _SPARE)
        if needs_s and now_s + needs_s > ends_s:
            return "too_late"
        if self._running + self.waiting < self._config.max_concurrent:
            return None
        waits = self._threaded[Rank.LAST] or self._lanes[Rank.LAST]
        return "queue_full" if rank is Rank.LAST or not waits else None

    def overloaded(self, reason: Reason, rank: Rank, left_s: float = 0.0) -> Overloaded:
        """Return what a call is told that is refused; ``left_s``: until its caller gives up."""
        if reason == "queue_full":
            words = f"{self._config.max_concurrent} calls are in hand (serving.max_concurrent); come again later"
        else:
            words = (
                f"its turn comes in some {self.wait_s(rank) * 1_000.0:.0f} ms, and its deadline ends in "
                f"{max(left_s, 0.0) * 1_000.0:.0f} ms, of {self._wait_s(rank, _SPARE) * 1_000.0:.0f} ms that it should "
                "have; come again later, or with a later deadline"
            )
        return Overloaded(reason, words, self._hint_s())

    def take(self, now_s: float = 0.0, *, threaded: bool = False) -> Call | None:
        """Return the call whose turn it is, of those for a thread or of the others; ``None``: none waits.

        Who takes it, at ``now_s``, calls :meth:`ended`.
        """
        always, first, last = self._threaded if threaded else self._lanes
        if always:
            lane = always
        elif first and last:
            self._turn = (self._turn + 1) % TURNS
            lane = first if self._turn else last
        else:
            lane = first or last
        if not lane:
            return None
        self._running += 1
        self.waiting -= 1
        self.room += 1
        call = lane.popleft()
        if call.ahead >= _MANY:
            pace_s = (now_s - call.came_s) / (call.ahead + 1)
            self._pace_s[call.rank] += _WEIGHT * (pace_s - self._pace_s[call.rank])
        return call

    def ahead(self, most: int) -> list[Call]:
        """Return calls that will be taken soon, if none comes that goes before them."""
        return [call for lane in self._lanes for call in islice(lane, most)][:most]

    def ended(self, seconds: float | None) -> None:
        """Note that a call has ended, and how long it had its thread; ``None``: it had none that others wait for."""
        self._running -= 1
        self.room += 1
        if seconds is not None:
            self._mean_s += _WEIGHT * (seconds - self._mean_s)

    def effort(self) -> Effort:
        """Return how much is done for a decision now."""
        ladder = self._config.overload
        share = self.waiting / self._places if self._places else 0.0
        if share > ladder.score_until:
            return Effort.OVERLOAD
        return Effort.ALONE if share > ladder.shadow_until else Effort.FULL

    def wait_s(self, rank: Rank) -> float:
        """Return how long a call of a rank would wait; 0 while a thread is free, whatever calls took before."""
        return self._wait_s(rank, 1.0)

    def _wait_s(self, rank: Rank, spare: float) -> float:
        """Return how long a call would wait; ``spare``: so many times what the last ones waited counts."""
        if self._running < self._config.turns:
            return 0.0
        ahead = self._ahead(rank)
        pace_s = spare * self._pace_s[rank] if ahead >= _MANY else 0.0
        return (ahead + 1) * max(self._mean_s / self._config.turns, pace_s)

    def _ahead(self, rank: Rank) -> int:
        """Return how many are before a call that comes now."""
        return sum(map(len, self._lanes[: rank + 1]))

    def _hint_s(self) -> float:
        """Return when half of those who wait will have been answered."""
        pace_s = max(self._mean_s / self._config.turns, self._pace_s[Rank.LAST] if self.waiting >= _MANY else 0.0)
        return min(max(0.5 * self.waiting * pace_s, _SOONEST_S), _LATEST_S)


def ends_s(deadline: float, now: float, now_s: float, default_s: float) -> float:
    """Return when a caller gives up, on a clock that cannot be set back.

    Parameters
    ----------
    deadline
        The same in seconds since 1970; infinite, or absurdly late: none was set.
    now, now_s
        The time now, in seconds since 1970 and on the other clock.
    default_s
        What a caller without a deadline gets.

    Examples
    --------
    >>> ends_s(1_000.5, 1_000.0, 3.0, 2.0), ends_s(math.inf, 1_000.0, 3.0, 2.0)
    (3.5, 5.0)
    """
    left_s = deadline - now
    return now_s + (left_s if left_s < 1e6 and not math.isnan(left_s) else default_s)
