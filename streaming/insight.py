"""What can be said of the other roles from the log alone: the book of the join, alarms, the newest records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.records import Alarm, JoinAccounting
from streaming.intake import newest, parsed
from streaming.joiner import read_accounting
from streaming.log import Log
from streaming.topics import ALARMS

#: Alarms shown in a status answer.
SHOWN_ALARMS = 20


def tail(log: Log, topic: str, count: int) -> list[bytes]:
    """Return the values of about the last ``count`` records of a topic, partition by partition."""
    return [record.value for record in newest(log, topic, count) if record.value is not None]


def latest_alarms(log: Log, point: str | None = None, count: int = SHOWN_ALARMS) -> list[Alarm]:
    """Return the last alarms, oldest first, of one decision point or of all; what is no alarm is passed over."""
    alarms = [parsed(record, Alarm) for record in newest(log, ALARMS, 1_000)]
    return [alarm for alarm in alarms if alarm is not None and point in (None, alarm.decision_point)][-count:]


@dataclass(frozen=True)
class LogInsight:
    """What the admin service shows of the other roles, read from the log."""

    log: Log

    def accounting(self) -> Mapping[str, JoinAccounting]:
        """Return the book of the join."""
        return read_accounting(self.log)

    def alarms(self, point: str) -> Sequence[Alarm]:
        """Return the latest alarms."""
        return latest_alarms(self.log, point)
