"""How long the window of a decision stays open that came late, for the outcomes that come behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from streaming.counting import JoinReward
from streaming.join_state import JoinState

#: So long at least, and at most, a decision that came after its window waits for its outcomes: servers ship what they
#: kept in its order, as fast as they can, and try again each second.
LEAST_PATIENCE_MS, MOST_PATIENCE_MS = 10_000, 600_000


def patience_end(due_ms: int, span_ms: int, watermark_ms: int) -> int:
    """Return when a window closes of which the clock of event time has passed the beginning.

    Parameters
    ----------
    due_ms
        When it would close.
    span_ms
        The window and its grace.
    watermark_ms
        The clock.

    Examples
    --------
    >>> patience_end(5_000, 60_000, 4_000), patience_end(5_000, 1_000, 9_000)
    (64000, 19000)
    """
    patience_ms = min(span_ms, MOST_PATIENCE_MS)
    if due_ms <= watermark_ms:
        patience_ms = max(patience_ms, LEAST_PATIENCE_MS)
    return max(due_ms, watermark_ms + patience_ms)


class Overdue:
    """Open decisions whose window was over by the clock on the wall when they were read.

    Event time may close them: then what was read is a backlog, with its outcomes in it. Where only the end of a topic
    would, their outcomes may be under way still, from a server that was cut off like the join.
    """

    def __init__(self) -> None:
        self._places: deque[tuple[int, bytes]] = deque()  # when due, and id

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, due_ms: int, key: bytes, watermark_ms: int) -> None:
        """Note one. Those that event time has closed are forgotten: of a backlog only the open ones are kept."""
        places = self._places
        while places and places[0][0] <= watermark_ms:
            places.popleft()
        places.append((due_ms, key))

    def give_time(self, passed_ms: int, watermark_ms: int, state: JoinState, points: Mapping[str, JoinReward]) -> None:
        """Keep those open for some time that became due when the end of a topic moved the clock.

        Parameters
        ----------
        passed_ms, watermark_ms
            The clock of event time before, and now.
        state
            Has their entries.
        points
            How outcomes become rewards, by decision point.
        """
        # What was due before, and is not closed because too much was due at once, is closed by event time.
        found = [key for due_ms, key in self._places if passed_ms < due_ms <= watermark_ms]
        self._places = deque(place for place in self._places if place[0] > watermark_ms)
        state.pending.expect(found)
        for key in found:
            entry = state.pending.hot.get(key)
            if entry is None or not entry.overdue or not passed_ms < entry.due_ms <= watermark_ms:
                continue
            if (config := points.get(entry.point)) is not None:
                entry.overdue = False
                entry.due_ms = patience_end(entry.due_ms, config.window + config.grace, watermark_ms)
                state.pending.add(key, entry)
                state.touch(key, entry)
