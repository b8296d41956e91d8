"""Which alarms hold promotions: those that are to, until a person has acknowledged them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from engine.records import REACTION_HOLD_PROMOTION, Acknowledgement, Alarm
from monitoring.reactions import reactions_of
from streaming.intake import parsed
from streaming.log import Log, Message, Record
from streaming.topics import ACKNOWLEDGEMENTS, ALARMS


class Holds:
    """Alarms and acknowledgements as they come, in whichever order.

    Examples
    --------
    >>> holds = Holds()
    >>> holds.on_alarm(Alarm(alarm_id="a", decision_point="p", reactions=[REACTION_HOLD_PROMOTION]))
    >>> [alarm.alarm_id for alarm in holds.of("p")]
    ['a']
    >>> holds.on_acknowledgement(Acknowledgement(alarm_id="a"))
    >>> holds.of("p")
    []
    """

    def __init__(self) -> None:
        self._alarms: dict[str, list[Alarm]] = {}
        self.acknowledged: dict[str, Acknowledgement] = {}

    def on_alarm(self, alarm: Alarm) -> None:
        """Take note of an alarm."""
        if REACTION_HOLD_PROMOTION in reactions_of(alarm):
            self._alarms.setdefault(alarm.decision_point, []).append(alarm)

    def on_acknowledgement(self, acknowledgement: Acknowledgement) -> None:
        """Take note of an acknowledgement."""
        self.acknowledged[acknowledgement.alarm_id] = acknowledgement

    def of(self, point: str) -> list[Alarm]:
        """Return the alarms that hold the promotions of a decision point now, oldest first."""
        return [alarm for alarm in self._alarms.get(point, []) if alarm.alarm_id not in self.acknowledged]

    def words(self, point: str) -> str | None:
        """Say which alarm holds the promotions of a decision point and what releases them; ``None``: none does."""
        held = self.of(point)
        if not held:
            return None
        first = held[0]
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        release = f"release: leeway drift ack {first.alarm_id}"
        return f"alarm {first.alarm_id}{more} holds promotions ({first.monitor}); {release}"


def read_alarms(log: Log) -> list[Alarm]:
    """Return all alarms, oldest first; what is no alarm is passed over."""
    return [alarm for record in _all(log, ALARMS) if (alarm := parsed(record, Alarm)) is not None]


def read_holds(log: Log, alarms: Iterable[Alarm] | None = None) -> Holds:
    """Return what holds promotions now; ``alarms`` are those of the log, if they are known."""
    holds = Holds()
    for alarm in read_alarms(log) if alarms is None else alarms:
        holds.on_alarm(alarm)
    for record in _all(log, ACKNOWLEDGEMENTS):
        acknowledgement = parsed(record, Acknowledgement)
        if acknowledgement is not None:
            holds.on_acknowledgement(acknowledgement)
    return holds


def changes_within(alarms: Iterable[Alarm], point: str, start_ms: int, end_ms: int) -> int:
    """Count the unexplained changes of a decision point after the first time and before the second.

    Alarms of one incident are one change, at the earliest of their times: the window that begins at a change does not
    have it inside.
    """
    incidents: dict[str, int] = {}
    for alarm in alarms:
        if alarm.decision_point == point and not alarm.explained:
            incident = alarm.incident or alarm.alarm_id
            incidents[incident] = min(alarm.change_ms, incidents.get(incident, alarm.change_ms))
    return sum(start_ms < change_ms < end_ms for change_ms in incidents.values())


def acknowledge(log: Log, alarm: Alarm, note: str) -> Acknowledgement:
    """Write that a person has looked at an alarm."""
    now_ms = time.time_ns() // 1_000_000
    entry = Acknowledgement(alarm_id=alarm.alarm_id, decision_point=alarm.decision_point, time_ms=now_ms, note=note)
    log.append([Message(ACKNOWLEDGEMENTS, alarm.decision_point.encode(), entry.SerializeToString(), now_ms)])
    return entry


def _all(log: Log, topic: str) -> Iterator[Record]:
    start = 0
    while records := log.read(topic, 0, start):
        yield from records
        start = records[-1].offset + 1
