"""The monitoring role: feedback in, alarms and the generations' books out, exactly once."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Callable, Mapping

from engine.errors import SnapshotError
from engine.records import Alarm, Decision, Feedback, GenerationStatistics, policy_acted
from monitoring.generations import GenerationLedger
from monitoring.watch import Audit, PointWatch
from streaming.config import Deciding, RecommenderConfig
from streaming.feature_columns import ContextColumns
from streaming.feedback_window import training_window
from streaming.intake import feedback_of, parsed
from streaming.list_watch import UserColumns, watched
from streaming.log import Log, Message, Record, TopicPartition
from streaming.topics import ALARMS, FEEDBACK, MONITOR, MONITOR_STATE

logger = logging.getLogger(__name__)

_WATCH = "watch"
_GENERATION = "generation"
#: The state of a decision point is written in parts of so many bytes, each behind their number: a broker takes about a
#: megabyte at a time.
_PART_BYTES = 500_000
_PARTS = struct.Struct(">I")
#: Writing the state takes at most this share of the time.
_SAVING_SHARE = 0.05


class MonitorRole:
    """Runs the monitors of every decision point over the feedback.

    One transaction holds the alarms, the state of the monitors and the offsets, so that a restart neither
    repeats an alarm nor misses a change. It is written at once when there is an alarm, else every
    ``commit_interval_ms``, or less often where there is much of it: what was read since the last commit is read again
    after a crash.

    Parameters
    ----------
    log
        Where feedback comes from and alarms go.
    points
        The decision points with their monitors.
    clock
        Milliseconds since 1970.
    on_alarm
        Called after an alarm is safe in the log.
    on_feedback
        Called with each feedback.
    audit
        Recomputes a decision from its policy.

    Attributes
    ----------
    change_probability : dict of str to float
        Of each decision point, that its reward has changed, as of the last commit; any thread may read it.
    """

    def __init__(
        self,
        log: Log,
        points: Mapping[str, Deciding],
        clock: Callable[[], int],
        on_alarm: Callable[[Alarm], None] = lambda _: None,
        on_feedback: Callable[[Feedback], None] = lambda _: None,
        commit_interval_ms: int = 1_000,
        audit: Audit = lambda _: None,
    ) -> None:
        self._log = log
        self._points = points
        self._clock = clock
        self._on_alarm = on_alarm
        self._on_feedback = on_feedback
        self._interval_ms = commit_interval_ms
        self._audit = audit
        self._saving_ms = 0
        self.change_probability: dict[str, float] = {}
        self._logged: dict[str, Decision] = {}
        self._consumer = log.consumer(MONITOR, [FEEDBACK])
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._ahead = False
        self._restore()

    def _restore(self) -> None:
        """Begin, or begin again, from what was committed."""
        self._committed_ms = self._clock()
        self._entries: dict[bytes, GenerationStatistics] = {}
        self._watched: set[str] = set()
        self._pending: list[Alarm] = []
        state = _read_state(self._log)
        ledger = GenerationLedger({name: reward_range(point) for name, point in self._points.items()})
        ledger.restore(entry for entry in _statistics(state) if entry.decision_point in self._points)
        self.ledger = ledger  # in one step: those who show it never see it half read
        self.monitors = {name: self._monitor(name, point, state) for name, point in self._points.items()}

    def _monitor(self, name: str, point: Deciding, state: Mapping[bytes, Record]) -> PointWatch:
        saved = saved_watch(state, name)
        monitors, bounds = point.monitors, reward_range(point)

        def window(generation: int) -> list[Feedback]:
            return [watched(f, bounds) for f in training_window(self._log, name, generation, monitors.warm_up)]

        settings = (name, bounds, monitors, context_columns(point), self._audited, window)
        if saved is not None:
            try:
                return PointWatch.load(saved, *settings)
            except SnapshotError as error:
                logger.warning("%s: the saved monitors are not used: %s", name, error)
        return PointWatch(*settings)

    def step(self, max_records: int = 2_000, timeout_s: float = 0.0) -> int:
        """Watch what is new, or comes within ``timeout_s``; commit when it is time. Returns the number of feedbacks."""
        if self._ahead:
            self._restart()
        try:
            return self._step(max_records, timeout_s)
        except BaseException:
            # What was read may be half watched: the next step goes back to what was committed.
            self._ahead = True
            raise

    def _step(self, max_records: int, timeout_s: float) -> int:
        records = self._consumer.poll(max_records, timeout_s)
        if self._consumer.assignment() != self._assignment:
            # What another member may have watched meanwhile is in its state alone: begin where that stands.
            self._restart()
            records = self._consumer.poll(max_records) if self._consumer.assignment() == self._assignment else []
        batch = [feedback for record in records if (feedback := feedback_of(record)) is not None]
        # Partitions take turns; the order of the decisions is restored as far as the batch reaches.
        batch.sort(key=lambda feedback: feedback.decision.time_ms)
        by_point: dict[str, list[Feedback]] = {}
        for feedback in batch:
            if self._enter(feedback):
                by_point.setdefault(feedback.decision.decision_point, []).append(feedback)
        for name, entries in by_point.items():
            self._watch(name, entries)
        due = self._clock() - self._committed_ms >= max(self._interval_ms, self._saving_ms / _SAVING_SHARE)
        if self._pending or ((self._watched or self._entries) and due):
            self.commit()
        return len(records)

    def _enter(self, feedback: Feedback) -> bool:
        """Enter a feedback into the book of its generation; say whether it can be watched."""
        name = feedback.decision.decision_point
        if name not in self._points:
            return False
        if not policy_acted(feedback.decision):
            # No policy made it: it is no generation's doing, and what it earned less is no change of the world.
            self._on_feedback(feedback)
            return False
        try:
            entry = self.ledger.update(feedback)
        except ValueError as error:
            # A record written by another hand; the line goes on.
            logger.error("feedback of decision %s is not watched: %s", feedback.decision.decision_id, error)
            return False
        self._entries[f"{_GENERATION}/{name}/{entry.generation}".encode()] = entry
        self._on_feedback(feedback)
        return True

    def _watch(self, name: str, entries: list[Feedback]) -> None:
        self._watched.add(name)
        bounds = reward_range(self._points[name])
        self._logged = {entry.decision.decision_id: entry.decision for entry in entries}
        self._pending += self.monitors[name].update_many([watched(entry, bounds) for entry in entries])
        self._logged = {}

    def _audited(self, decision: Decision) -> str | None:
        """Recompute a decision as it was logged, not as the monitors see it."""
        return self._audit(self._logged.get(decision.decision_id, decision))

    def commit(self) -> None:
        """Write alarms, state and offsets in one transaction; on ``LogError`` nothing of it is written."""
        now_ms = self._clock()
        state = {key: entry.SerializeToString() for key, entry in self._entries.items()}
        for name in sorted(self._watched):
            state |= _parts(name, self.monitors[name].save())
            # Here and not when somebody asks: the detector may only be read between two steps.
            self.change_probability[name] = self.monitors[name].change_probability
        try:
            with self._log.transaction(MONITOR) as transaction:
                for alarm in self._pending:
                    transaction.send(
                        Message(ALARMS, alarm.decision_point.encode(), alarm.SerializeToString(), alarm.detected_ms)
                    )
                for key, value in state.items():
                    transaction.send(Message(MONITOR_STATE, key, value, now_ms))
                transaction.commit_offsets(self._consumer.position())
        except BaseException:
            # Memory is ahead of the log, or the log's answer was lost: the next step asks the log.
            self._ahead = True
            raise
        alarms, self._pending, self._entries, self._watched = self._pending, [], {}, set()
        self._committed_ms = self._clock()
        self._saving_ms = self._committed_ms - now_ms
        for alarm in alarms:
            logger.log(_level(alarm), "%s: %s", alarm.decision_point, alarm.explanation)
            self._on_alarm(alarm)

    def _restart(self) -> None:
        """Go back to what was committed: neither memory nor what was read may be ahead of the log."""
        self._ahead = True  # also if this fails half-way
        assignment = self._consumer.assignment()
        committed = self._log.committed(MONITOR)
        for partition in assignment:
            self._consumer.seek(partition, committed.get(partition, 0))
        self._restore()
        self._assignment = assignment
        self._ahead = False

    def close(self) -> None:
        """Commit and leave the group."""
        if (self._watched or self._entries) and not self._ahead:
            self.commit()
        self._consumer.close()


def _level(alarm: Alarm) -> int:
    """An echo has been warned of by its alarm."""
    return logging.INFO if alarm.echo_of else logging.WARNING


def context_columns(point: Deciding) -> ContextColumns | UserColumns:
    """Return what takes the features of a decision point out of decisions, as its monitors want them."""
    most = point.monitors.features.vector_components
    return UserColumns(point, most) if isinstance(point, RecommenderConfig) else ContextColumns(point, most)


def reward_range(point: Deciding) -> tuple[float, float]:
    """Return the range in which monitors see the reward of a decision, or of a list."""
    return point.reward_range if isinstance(point, RecommenderConfig) else point.reward.range


def read_watch(log: Log, name: str, point: Deciding) -> PointWatch | None:
    """Return the monitors of a decision point as they were committed last; ``None`` before the first time.

    Raises ``SnapshotError`` where they are damaged.
    """
    saved = saved_watch(_read_state(log), name)
    if saved is None:
        return None
    return PointWatch.load(saved, name, reward_range(point), point.monitors, context_columns(point))


def _parts(name: str, data: bytes) -> dict[bytes, bytes]:
    count = math.ceil(len(data) / _PART_BYTES)
    return {
        f"{_WATCH}/{name}/{place}".encode(): _PARTS.pack(count) + data[place * _PART_BYTES : (place + 1) * _PART_BYTES]
        for place in range(count)
    }


def saved_watch(state: Mapping[bytes, Record], name: str) -> bytes | None:
    """Put the state of a decision point's monitors together; of what is not whole its checksum will tell."""
    first = state.get(f"{_WATCH}/{name}/0".encode())
    if first is None or first.value is None or len(first.value) < _PARTS.size:
        return None
    parts = [state.get(f"{_WATCH}/{name}/{place}".encode()) for place in range(_PARTS.unpack_from(first.value)[0])]
    return b"".join((part.value or b"")[_PARTS.size :] for part in parts if part is not None)


def read_statistics(log: Log) -> list[GenerationStatistics]:
    """Return the committed books of all generations, for status and reports."""
    found = _statistics(_read_state(log))
    return sorted(found, key=lambda entry: (entry.decision_point, entry.generation))


def _read_state(log: Log) -> dict[bytes, Record]:
    """Return the last record of each key: a compacted topic keeps older ones until it is compacted."""
    state: dict[bytes, Record] = {}
    start = 0
    while records := log.read(MONITOR_STATE, 0, start):
        state |= {record.key: record for record in records if record.key and record.value}
        start = records[-1].offset + 1
    return state


def _statistics(state: Mapping[bytes, Record]) -> list[GenerationStatistics]:
    prefix = f"{_GENERATION}/".encode()
    found = (parsed(record, GenerationStatistics) for key, record in state.items() if key.startswith(prefix))
    return [entry for entry in found if entry is not None]
