"""When to retrain: after a drift, once there is enough feedback of the new world, and on a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.records import Alarm, Generation
from training.config import ScheduleConfig

Reason = Literal["drift", "schedule"]


@dataclass(frozen=True, slots=True)
class RetrainRequest:
    """One training of a decision point that is due.

    Parameters
    ----------
    point
        The decision point's name.
    reason
        What asks for it.
    since_ms
        Decision time of the last known change: what is older is of another world and not to be trained on.
        ``None``: no change is known, and the configured window applies.
    """

    point: str
    reason: Reason
    since_ms: int | None


@dataclass(slots=True)
class _PointState:
    """What is known of one decision point; every field only ever grows."""

    change_ms: int | None = None  # decision time of the newest change
    resolved_ms: int | None = None  # greatest start of the window of a promoted generation
    attempted_ms: int | None = None  # last attempt, or training of any generation
    failed: dict[int, int] = field(default_factory=dict)  # start of the window -> most rows tried in vain

    @property
    def drifted(self) -> bool:
        return self.change_ms is not None and (self.resolved_ms is None or self.resolved_ms < self.change_ms)

    def tried(self, since_ms: int) -> int:
        """Return the greatest number of rows since a change that was tried in vain."""
        return max((rows for start_ms, rows in self.failed.items() if start_ms >= since_ms), default=0)


class RetrainScheduler:
    """Says when a decision point is to be retrained.

    *Drift*: an alarm that calls for retraining asks for a policy trained on what came since the change. The request
    waits until ``min_events`` feedbacks of that time are archived, and after an attempt that ended without a
    promotion until their number has grown by the factor ``retry_growth``: the number of attempts grows with the
    logarithm of the feedback. It is resolved by the promotion of a generation whose window starts at or after the
    change. A later change takes the place of an earlier one.

    *Schedule*: every so often, if there are ``min_events`` feedbacks to train on.

    There is no clock and no file here. The state is rebuilt from the records of alarms and generations, in
    whichever order the two are read.

    Parameters
    ----------
    points
        Settings by decision point.
    started_ms
        Where the schedule of a decision point counts from that was never trained.
    """

    def __init__(self, points: Mapping[str, ScheduleConfig], started_ms: int) -> None:
        self._points = points
        self._started_ms = started_ms
        self._states = {name: _PointState() for name in points}

    def on_alarm(self, alarm: Alarm) -> None:
        """Take note of a change; one that does not call for retraining changes nothing."""
        state = self._states.get(alarm.decision_point)
        if state is not None and alarm.calls_for_retraining:
            state.change_ms = _later(state.change_ms, alarm.change_ms)

    def on_generation(self, generation: Generation) -> None:
        """Take note of an attempt: one that was promoted resolves what it was trained on, another failed."""
        state = self._states.get(generation.decision_point)
        if state is None:
            return
        state.attempted_ms = _later(state.attempted_ms, generation.trained_ms)
        if generation.promoted:
            state.resolved_ms = _later(state.resolved_ms, generation.window_start_ms)
        else:
            start_ms = generation.window_start_ms
            state.failed[start_ms] = max(state.failed.get(start_ms, 0), generation.rows)

    def due(self, point: str, now_ms: int, rows_since: Callable[[int], int]) -> RetrainRequest | None:
        """Return the request that is due now, if any. What is returned counts as attempted.

        Parameters
        ----------
        point
            A decision point of the settings.
        now_ms
            The time.
        rows_since
            Number of archived feedbacks of this decision point that were decided at or after a time; asked only
            when the answer matters.
        """
        config, state = self._points[point], self._states[point]
        if not config.enabled:
            return None
        if config.on_drift and state.drifted:
            assert state.change_ms is not None
            rows = rows_since(state.change_ms)
            if rows >= max(config.min_events, math.ceil(config.retry_growth * state.tried(state.change_ms))):
                # Should the attempt leave no record, it failed with these rows.
                state.failed[state.change_ms] = rows
                state.attempted_ms = _later(state.attempted_ms, now_ms)
                return RetrainRequest(point, "drift", state.change_ms)
        last_ms = self._started_ms if state.attempted_ms is None else state.attempted_ms
        if config.every is not None and now_ms - last_ms >= config.every:
            start_ms = now_ms - config.window if state.change_ms is None else state.change_ms
            if rows_since(start_ms) >= config.min_events:
                state.attempted_ms = now_ms
                return RetrainRequest(point, "schedule", state.change_ms)
        return None


def _later(known_ms: int | None, ms: int) -> int:
    return ms if known_ms is None else max(known_ms, ms)
