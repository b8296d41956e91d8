"""The monitoring role: feedback in, alarms and the generations' books out, exactly once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from engine.errors import SnapshotError
from engine.records import Alarm, Feedback, GenerationStatistics
from monitoring.generations import GenerationLedger
from monitoring.reward import RewardMonitor
from streaming.config import DecisionPointConfig
from streaming.intake import feedback_of, parsed
from streaming.log import Log, Message, Record, TopicPartition
from streaming.topics import ALARMS, FEEDBACK, MONITOR, MONITOR_STATE

logger = logging.getLogger(__name__)

_REWARD = "reward"
_GENERATION = "generation"


class MonitorRole:
    """Runs the monitors of every decision point over the feedback.

    One transaction holds the alarms, the state of the monitors and the offsets, so that a restart neither
    repeats an alarm nor misses a change. It is written at once when there is an alarm, else every
    ``commit_interval_ms``: what was read since the last commit is read again after a crash.

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
    on_reward
        Called with the reward of each feedback.
    """

    def __init__(
        self,
        log: Log,
        points: Mapping[str, DecisionPointConfig],
        clock: Callable[[], int],
        on_alarm: Callable[[Alarm], None] = lambda _: None,
        on_reward: Callable[[str, float], None] = lambda _point, _reward: None,
        commit_interval_ms: int = 1_000,
    ) -> None:
        self._log = log
        self._points = points
        self._clock = clock
        self._on_alarm = on_alarm
        self._on_reward = on_reward
        self._interval_ms = commit_interval_ms
        self._consumer = log.consumer(MONITOR, [FEEDBACK])
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._ahead = False
        self._restore()

    def _restore(self) -> None:
        """Begin, or begin again, from what was committed."""
        self._committed_ms = self._clock()
        self._changed: dict[bytes, Callable[[], bytes]] = {}
        self._pending: list[Alarm] = []
        self.ledger = GenerationLedger({name: point.reward.range for name, point in self._points.items()})
        state = _read_state(self._log)
        self.ledger.restore(entry for entry in _statistics(state) if entry.decision_point in self._points)
        self.monitors = {
            name: self._monitor(name, point, state.get(f"{_REWARD}/{name}".encode()))
            for name, point in self._points.items()
            if point.monitors.reward.enabled
        }

    @staticmethod
    def _monitor(name: str, point: DecisionPointConfig, saved: Record | None) -> RewardMonitor:
        settings = point.monitors.reward
        if saved is not None:
            try:
                return RewardMonitor.load(saved.value or b"", name, point.reward.range, settings)
            except SnapshotError as error:
                logger.warning("%s: the saved monitor is not used: %s", name, error)
        return RewardMonitor(name, point.reward.range, settings)

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
        for feedback in batch:
            try:
                self._watch(feedback)
            except ValueError as error:
                # A record written by another hand; the line goes on.
                logger.error("feedback of decision %s is not watched: %s", feedback.decision.decision_id, error)
        due = self._clock() - self._committed_ms >= self._interval_ms
        if self._pending or (self._changed and due):
            self.commit()
        return len(records)

    def _watch(self, feedback: Feedback) -> None:
        name = feedback.decision.decision_point
        if name not in self._points:
            return
        entry = self.ledger.update(feedback)
        self._changed[f"{_GENERATION}/{name}/{entry.generation}".encode()] = entry.SerializeToString
        self._on_reward(name, feedback.reward)
        monitor = self.monitors.get(name)
        if monitor is None:
            return
        alarm = monitor.update(feedback)
        self._changed[f"{_REWARD}/{name}".encode()] = monitor.save
        if alarm is not None:
            self._pending.append(alarm)

    def commit(self) -> None:
        """Write alarms, state and offsets in one transaction; on ``LogError`` nothing of it is written."""
        now_ms = self._clock()
        try:
            with self._log.transaction(MONITOR) as transaction:
                for alarm in self._pending:
                    transaction.send(
                        Message(ALARMS, alarm.decision_point.encode(), alarm.SerializeToString(), alarm.detected_ms)
                    )
                for key, save in self._changed.items():
                    transaction.send(Message(MONITOR_STATE, key, save(), now_ms))
                transaction.commit_offsets(self._consumer.position())
        except BaseException:
            # Memory is ahead of the log, or the log's answer was lost: the next step asks the log.
            self._ahead = True
            raise
        alarms, self._pending, self._changed, self._committed_ms = self._pending, [], {}, now_ms
        for alarm in alarms:
            logger.warning("%s: %s", alarm.decision_point, alarm.explanation)
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
        if self._changed and not self._ahead:
            self.commit()
        self._consumer.close()


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
