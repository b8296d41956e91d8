"""One change, one alarm: what several streams see of the same change belongs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.records import Alarm
from monitoring.state import Scalar

#: The monitors that read the reward itself: its mean, and its level among those that the scores predict.
OF_REWARD = frozenset({"reward", "residual", "action_reward", "calibration"})


class Incidents:
    """Names the incident of each alarm, and tells the alarm of a changed reward from its echoes.

    Alarms whose times from change to detection overlap are one incident. Of those that read the reward the first is the
    alarm. What the others then say of the same change is its *echo*: it goes to the log beside it, as a finding of
    where the reward changed, and is counted as no alarm. ``reward`` is never an echo: it alone tells drift from
    learning.

    The time of a change is known about as well as the change is fast to see. So an echo may place it after the
    detection of the alarm by as long as it took itself from change to detection.

    Examples
    --------
    >>> incidents = Incidents()
    >>> found = [
    ...     Alarm(alarm_id="a", monitor="reward", change_ms=100, detected_ms=200),
    ...     Alarm(alarm_id="b", monitor="residual", change_ms=120, detected_ms=300),
    ...     Alarm(alarm_id="c", monitor="features", change_ms=120, detected_ms=300),
    ...     Alarm(alarm_id="d", monitor="residual", change_ms=900, detected_ms=950),
    ... ]
    >>> for alarm in found:
    ...     incidents.enter(alarm)
    >>> [(alarm.alarm_id, alarm.incident, alarm.echo_of) for alarm in found]
    [('a', 'a', ''), ('b', 'a', 'a'), ('c', 'a', ''), ('d', 'd', '')]
    """

    def __init__(self) -> None:
        self._incident, self._detected_ms = "", 0
        self._reward, self._reward_incident, self._reward_detected_ms = "", "", 0

    def enter(self, alarm: Alarm) -> None:
        """Write its incident into an alarm, and whose echo it is; one that is explained belongs to none."""
        if alarm.explained:
            return
        reads_reward = alarm.monitor in OF_REWARD
        if reads_reward and alarm.monitor != "reward" and self._is_echo(alarm):
            alarm.incident, alarm.echo_of = self._reward_incident, self._reward
            return
        if not self._incident or alarm.change_ms > self._detected_ms:
            self._incident, self._detected_ms = alarm.alarm_id, alarm.detected_ms
        alarm.incident = self._incident
        if reads_reward:
            self._reward, self._reward_incident = alarm.alarm_id, alarm.incident
            self._reward_detected_ms = alarm.detected_ms

    def _is_echo(self, alarm: Alarm) -> bool:
        uncertain_ms = alarm.detected_ms - alarm.change_ms
        return bool(self._reward) and alarm.change_ms - uncertain_ms <= self._reward_detected_ms

    def save(self) -> dict[str, Scalar]:
        """Return the state."""
        return {
            "incident": self._incident,
            "incident_ms": self._detected_ms,
            "reward_alarm": self._reward,
            "reward_incident": self._reward_incident,
            "reward_alarm_ms": self._reward_detected_ms,
        }

    def restore(self, fields: Mapping[str, Any]) -> None:
        """Go on from what ``save`` returned; raises ``KeyError`` where it is not whole."""
        self._incident, self._detected_ms = fields["incident"], fields["incident_ms"]
        self._reward, self._reward_incident = fields["reward_alarm"], fields["reward_incident"]
        self._reward_detected_ms = fields["reward_alarm_ms"]
