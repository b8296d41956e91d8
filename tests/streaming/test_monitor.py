from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import Alarm
from streaming.embedded import EmbeddedLog, EmbeddedTransaction
from streaming.log import Message
from streaming.monitor import MonitorRole, read_statistics
from streaming.serve import latest_alarms
from streaming.topics import FEEDBACK
from tests.streaming.samples import NAME, POINT, Clock, append, feedback, opened

POINTS = {NAME: POINT}
#: 150 rewarded decisions, then a fall that no prediction saw coming.
STREAM = [feedback(n, 1.0 if n < 150 else 0.0, score=0.98) for n in range(220)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with opened(tmp_path) as log:
        yield log


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_change_becomes_one_alarm_in_the_log(log: EmbeddedLog, clock: Clock) -> None:
    heard: list[Alarm] = []
    role = MonitorRole(log, POINTS, clock, heard.append)
    append(log, *STREAM)
    role.step()
    (alarm,) = latest_alarms(log)
    assert heard == [alarm]
    assert alarm.calls_for_retraining
    assert abs(alarm.change_ms - 1_150) <= 3
    role.step()
    assert len(latest_alarms(log)) == 1


def test_a_restart_neither_repeats_an_alarm_nor_misses_a_change(log: EmbeddedLog, clock: Clock) -> None:
    first = MonitorRole(log, POINTS, clock)
    append(log, *STREAM[:140])
    clock.now_ms += 2_000
    first.step()  # commits
    append(log, *STREAM[140:152])
    first.step()  # watched and not committed: the crash takes it
    first._consumer.close()
    second = MonitorRole(log, POINTS, clock)
    append(log, *STREAM[152:])
    second.step()
    assert [alarm.calls_for_retraining for alarm in latest_alarms(log)] == [True]
    second.close()
    third = MonitorRole(log, POINTS, clock)
    third.step()
    assert len(latest_alarms(log)) == 1
    assert third.monitors[NAME].seen == 220


def test_a_commit_that_the_log_refuses_is_made_again(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = MonitorRole(log, POINTS, clock)
    append(log, *STREAM)
    with monkeypatch.context() as patch:

        def refuse(_writer: str) -> None:
            raise LogError("disk full")

        patch.setattr(log, "transaction", refuse)
        with pytest.raises(LogError, match="disk full"):
            role.step()
    assert latest_alarms(log) == []
    role.step()
    assert len(latest_alarms(log)) == 1
    assert role.monitors[NAME].seen == 220


def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = MonitorRole(log, POINTS, clock)
    append(log, *STREAM)
    with monkeypatch.context() as patch:
        begin = log.transaction

        @contextmanager
        def lose_the_answer(writer: str) -> Iterator[EmbeddedTransaction]:
            with begin(writer) as transaction:
                yield transaction
            raise LogError("connection lost")

        patch.setattr(log, "transaction", lose_the_answer)
        with pytest.raises(LogError, match="connection lost"):
            role.step()
    role.step()
    assert len(latest_alarms(log)) == 1
    assert role.monitors[NAME].seen == 220


def test_the_books_of_the_generations_survive(log: EmbeddedLog, clock: Clock) -> None:
    role = MonitorRole(log, POINTS, clock)
    append(log, feedback(0, 1.0), feedback(1, 0.0), feedback(2, 1.0, version="g1.4-00000000"))
    role.step()
    role.close()
    books = {entry.generation: (entry.feedback, entry.reward_sum, entry.positives) for entry in read_statistics(log)}
    assert books == {0: (2, 1.0, 1), 1: (1, 1.0, 1)}
    again = MonitorRole(log, POINTS, clock)
    append(log, feedback(3, 1.0, version="g1.4-00000000"))
    again.step()
    again.close()
    assert {entry.generation: entry.feedback for entry in read_statistics(log)} == {0: 2, 1: 2}


def test_what_cannot_be_watched_does_not_stop_the_line(log: EmbeddedLog, clock: Clock) -> None:
    role = MonitorRole(log, POINTS, clock)
    with log.transaction("join") as transaction:
        transaction.send(Message(FEEDBACK, b"x", b"\xff\xff\xff", 0))
    append(log, feedback(0, float("nan")), feedback(1, 1.0, version="no version"), *STREAM)
    role.step()
    assert len(latest_alarms(log)) == 1
