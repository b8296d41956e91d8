"""One change of the reward is one alarm, in whatever order its streams see it."""

from __future__ import annotations

from engine.records import Alarm
from monitoring.incidents import Incidents


def entered(*alarms: Alarm) -> list[tuple[str, str, str]]:
    incidents = Incidents()
    for alarm in alarms:
        incidents.enter(alarm)
    return [(alarm.alarm_id, alarm.incident, alarm.echo_of) for alarm in alarms]


def alarm(alarm_id: str, monitor: str, change_ms: int, detected_ms: int, *, explained: bool = False) -> Alarm:
    return Alarm(alarm_id=alarm_id, monitor=monitor, change_ms=change_ms, detected_ms=detected_ms, explained=explained)


def test_the_first_of_an_action_is_the_alarm_and_the_reward_still_calls() -> None:
    found = entered(
        alarm("a", "action_reward", 100, 200), alarm("b", "reward", 90, 250), alarm("c", "calibration", 120, 260)
    )
    assert found == [("a", "a", ""), ("b", "a", ""), ("c", "a", "b")]


def test_an_estimate_is_late_by_as_much_as_the_change_was_slow_to_see() -> None:
    assert entered(alarm("a", "reward", 100, 200), alarm("b", "residual", 240, 290))[1] == ("b", "a", "a")
    assert entered(alarm("a", "reward", 100, 200), alarm("b", "residual", 260, 310))[1] == ("b", "b", "")


def test_what_the_policy_explains_has_no_echo() -> None:
    found = entered(alarm("a", "reward", 100, 200, explained=True), alarm("b", "residual", 120, 300))
    assert found == [("a", "", ""), ("b", "b", "")]


def test_an_echo_belongs_to_the_incident_of_its_alarm() -> None:
    found = entered(
        alarm("f", "features", 100, 150),
        alarm("r", "reward", 110, 200),
        alarm("d", "delay", 250, 300),
        alarm("e", "residual", 120, 400),
    )
    assert found == [("f", "f", ""), ("r", "f", ""), ("d", "d", ""), ("e", "f", "r")]


def test_state_is_kept() -> None:
    first, second = Incidents(), Incidents()
    first.enter(alarm("a", "reward", 100, 200))
    second.restore(first.save())
    late = alarm("b", "residual", 120, 300)
    second.enter(late)
    assert late.echo_of == "a"
