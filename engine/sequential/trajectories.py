"""From decisions, each with its reward, to the steps of a process: what a unit's next decision tells about its last."""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: In place of a next state: it is not known yet, or never will be.
_OPEN, _LOST = -1, -2


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


@dataclass(slots=True)
class _Step:
    """A visit and where it led."""

    visit: Visit
    next_state: int = _OPEN


class Trajectories:
    """Links the decisions of each unit, in the order of their time.

    A decision whose unit decides again leads to the state of that next decision. A decision in a terminal state, or one
    whose unit has been silent for ``idle_ms``, leads to the *end*: a state that the product does not know, from which
    the next unit begins. Time is that of the decisions, so that the same feedback gives the same steps at any speed.

    Steps are given in the order of their decisions: that a unit has left is known later than that it has gone on, and
    whoever saw the steps in the order in which they become known would take each new action for one that makes units
    stay. So everything waits for the oldest decision whose unit may still go on, at most for ``idle_ms``.

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
        self._held: list[Visit] = []  # a heap
        self._newest: dict[int, int] = {}
        self._last: dict[str, _Step] = {}  # of each unit; the longest silent first
        self._steps: deque[_Step] = deque()

    def add(self, visit: Visit, source: int) -> None:
        """Take one decision; its steps come from ``steps``."""
        heapq.heappush(self._held, visit)
        self._newest[source] = max(visit.time_ms, self._newest.get(source, visit.time_ms))

    def steps(self) -> Iterator[Transition]:
        """Yield the steps that are known by now, in the order of their decisions."""
        if self._newest:
            newest = max(self._newest.values())
            awaited = (time_ms for time_ms in self._newest.values() if time_ms >= newest - self._idle_ms)
            until_ms = min(awaited) - self._patience_ms
            while self._held and self._held[0].time_ms <= until_ms:
                self._follow(heapq.heappop(self._held))
        while self._steps and self._steps[0].next_state != _OPEN:
            step = self._steps.popleft()
            if step.next_state != _LOST:
                visit = step.visit
                yield Transition(visit.decision_id, visit.state, visit.action, visit.reward, step.next_state)

    def _follow(self, visit: Visit) -> None:
        self._end_silent(visit.time_ms - self._idle_ms)
        before = self._last.get(visit.unit)
        if before is not None and visit.time_ms < before.visit.time_ms:
            self.late += 1
            return
        if before is not None:
            del self._last[visit.unit]  # to its place in the order of silence
            before.next_state = visit.state if visit.state >= 0 else _LOST
        elif visit.state >= 0:
            self._steps.append(_Step(Visit(visit.time_ms, "", "", self._end, 0, 0.0), visit.state))
        step = _Step(visit)
        if visit.state >= 0 and visit.action >= 0:
            self._steps.append(step)
        if visit.state in self._terminal:
            step.next_state = self._end
            return
        self._last[visit.unit] = step
        if len(self._last) > self._max_units:
            self._last.pop(next(iter(self._last))).next_state = _LOST
            self.forgotten += 1

    def _end_silent(self, before_ms: int) -> None:
        """Let the units end that have been silent since."""
        while self._last:
            unit, step = next(iter(self._last.items()))
            if step.visit.time_ms >= before_ms:
                return
            del self._last[unit]
            step.next_state = self._end

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state but the settings."""
        state = {
            "held": sorted(self._held),
            "newest": list(self._newest.items()),
            "last": [step.visit for step in self._last.values()],
            "steps": [[*step.visit, step.next_state] for step in self._steps],
            "counts": [self.late, self.forgotten],
        }
        return {"trajectories": np.frombuffer(json.dumps(state).encode(), dtype=np.uint8)}

    def restore(self, array: NDArray[np.generic]) -> None:
        """Take up a state that ``arrays`` gave; raises ``ValueError`` where it is damaged."""
        try:
            state: dict[str, Any] = json.loads(np.asarray(array, dtype=np.uint8).tobytes())
            held = [Visit(*values) for values in state["held"]]
            newest = {int(source): int(time_ms) for source, time_ms in state["newest"]}
            last = [_Step(Visit(*values)) for values in state["last"]]
            steps = deque(_Step(Visit(*values), next_state) for *values, next_state in state["steps"])
            late, forgotten = state["counts"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"the saved trajectories are damaged ({error})") from error
        self._held, self._newest, self._steps = held, newest, steps  # a sorted list is a heap
        self._last = {step.visit.unit: step for step in last}
        # What is open in the queue is the last step of its unit: one object, not two.
        self._last |= {step.visit.unit: step for step in steps if step.next_state == _OPEN}
        self.late, self.forgotten = late, forgotten
