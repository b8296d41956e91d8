"""From decisions, each with its reward, to the steps of a process: what a unit's next decision tells about its last."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Visit(NamedTuple):
    """One decision with its reward.

    Attributes
    ----------
    time_ms
        When it was made.
    decision_id
        Its id.
    unit
        The user, session or order whose state it is.
    state, action
        Their numbers; -1 for one that is not known.
    reward
        As a share of the reward's range.
    """

    time_ms: int
    decision_id: str
    unit: str
    state: int
    action: int
    reward: float


class Transition(NamedTuple):
    """One step of the process; ``decision_id`` is empty where no decision belongs to it."""

    decision_id: str
    state: int
    action: int
    reward: float
    next_state: int


class Trajectories:
    """Links the decisions of each unit, in the order of their time.

    A decision whose unit decides again leads to the state of that next decision. A decision in a terminal state, or one
    whose unit has been silent for ``idle_ms``, leads to the *end*: a state that the product does not know, from which
    the next unit begins. Time is that of the decisions, so that the same feedback gives the same steps at any speed.

    Feedback comes from several sources (the partitions of a log), each nearly in the order of time, none waiting for
    the others. It is held until every source has passed its time by ``patience_ms``. What comes later still is passed
    over if its unit has gone on, and counted.

    Parameters
    ----------
    end
        Number of the end.
    terminal
        States whose decisions are the last of their units.
    idle_ms, patience_ms
        See above. A source that has been silent for ``idle_ms`` is not waited for.
    max_units
        Units that are remembered; beyond, the one that has been silent longest is forgotten, its last step with it.

    Attributes
    ----------
    late, forgotten
        How many decisions were passed over, and units forgotten.
    """

    def __init__(self, end: int, terminal: frozenset[int], idle_ms: int, patience_ms: int, max_units: int) -> None:
        self._end = end
        self._terminal = terminal
        self._idle_ms = idle_ms
        self._patience_ms = patience_ms
        self._max_units = max_units
        self.late = 0
        self.forgotten = 0
        self._held: list[Visit] = []
        self._newest: dict[int, int] = {}
        self._open: dict[str, Visit] = {}  # the longest silent first

    def add(self, visit: Visit, source: int) -> None:
        """Take one decision; its steps come from ``steps``."""
        heapq.heappush(self._held, visit)
        self._newest[source] = max(visit.time_ms, self._newest.get(source, visit.time_ms))

    def steps(self) -> Iterator[Transition]:
        """Yield the steps that are known by now, in the order of their decisions."""
        if not self._newest:
            return
        newest = max(self._newest.values())
        awaited = (time_ms for time_ms in self._newest.values() if time_ms >= newest - self._idle_ms)
        until_ms = min(awaited) - self._patience_ms
        while self._held and self._held[0].time_ms <= until_ms:
            yield from self._follow(heapq.heappop(self._held))

    def _follow(self, visit: Visit) -> Iterator[Transition]:
        yield from self._ended(visit.time_ms - self._idle_ms)
        before = self._open.get(visit.unit)
        if before is not None and visit.time_ms < before.time_ms:
            self.late += 1
            return
        self._open.pop(visit.unit, None)
        if visit.state >= 0:
            if before is None:
                yield Transition("", self._end, 0, 0.0, visit.state)
            else:
                yield from _step(before, visit.state)
        if visit.state in self._terminal:
            yield from _step(visit, self._end)
            return
        self._open[visit.unit] = visit
        if len(self._open) > self._max_units:
            del self._open[next(iter(self._open))]
            self.forgotten += 1

    def _ended(self, before_ms: int) -> Iterator[Transition]:
        """Yield the last steps of the units that have been silent since."""
        while self._open:
            unit, last = next(iter(self._open.items()))
            if last.time_ms >= before_ms:
                return
            del self._open[unit]
            yield from _step(last, self._end)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state but the settings."""
        state = {
            "held": sorted(self._held),
            "open": list(self._open.values()),
            "newest": list(self._newest.items()),
            "counts": [self.late, self.forgotten],
        }
        return {"trajectories": np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)}

    def restore(self, array: NDArray[np.generic]) -> None:
        """Take up a state that ``arrays`` gave; raises ``ValueError`` where it is damaged."""
        try:
            state: dict[str, Any] = json.loads(np.asarray(array, dtype=np.uint8).tobytes())
            held = [Visit(*values) for values in state["held"]]
            open_ = [Visit(*values) for values in state["open"]]
            newest = {int(source): int(time_ms) for source, time_ms in state["newest"]}
            self.late, self.forgotten = state["counts"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"the saved trajectories are damaged ({error})") from error
        self._held, self._newest = held, newest  # a sorted list is a heap
        self._open = {visit.unit: visit for visit in open_}


def _step(visit: Visit, next_state: int) -> Iterator[Transition]:
    """Yield the step of a decision, if its state and action are known."""
    if visit.state >= 0 and visit.action >= 0:
        yield Transition(visit.decision_id, visit.state, visit.action, visit.reward, next_state)
