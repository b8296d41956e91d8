from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import LogError
from engine.records import FALLBACK_REASON_CLIENT, MODE_LOGGING_ONLY, Alarm, Decision, Feedback
from streaming.embedded import EmbeddedLog, EmbeddedTransaction
from streaming.insight import latest_alarms
from streaming.log import Message
from streaming.monitor import MonitorRole, read_statistics
from streaming.topics import ALARMS, FEEDBACK, MONITOR_STATE
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


@pytest.mark.parametrize("acted", [{"fallback": FALLBACK_REASON_CLIENT}, {"mode": MODE_LOGGING_ONLY}])
def test_what_callers_decided_by_themselves_is_no_drift_and_no_generations_doing(
    acted: dict[str, int], log: EmbeddedLog, clock: Clock
) -> None:
    rewards: list[float] = []
    role = MonitorRole(log, POINTS, clock, on_feedback=lambda one: rewards.append(one.reward))
    outage = [feedback(n, 0.0) for n in range(150, 220)]
    for entry in outage:
        entry.decision.MergeFrom(Decision(**acted))  # type: ignore[arg-type]
    append(log, *STREAM[:150], *outage)
    role.step()
    assert latest_alarms(log) == []
    assert [entry.feedback for entry in role.ledger.statistics(NAME)] == [150]
    assert len(rewards) == 220


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


def test_partitions_that_others_may_have_had_are_watched_from_what_is_committed(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a rebalance of Kafka: one partition stays with its member, and another one comes back."""
    role = MonitorRole(log, POINTS, clock, commit_interval_ms=10**9)
    append(log, *(feedback(number, 1.0) for number in range(40)))
    assert role.step() == 40  # read, and not committed
    consumer = role._consumer
    whole = consumer.assignment()
    gone = min(whole, key=lambda where: where.partition)
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "assignment", lambda: whole - {gone})
        role.step()
    role.step()
    assert role.monitors[NAME].seen == 40
    role.close()
    assert [entry.feedback for entry in read_statistics(log)] == [40]


def test_the_last_state_counts_where_older_ones_are_still_there(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka compacts a topic when it finds time for it."""
    role = MonitorRole(log, POINTS, clock, commit_interval_ms=0)
    history = []
    for number in range(3):
        clock.now_ms += 1
        append(log, feedback(number, 1.0))
        role.step()
        history += log.read(MONITOR_STATE, 0)
    role.close()
    pages = {0: history}
    monkeypatch.setattr(log, "read", lambda topic, partition, start=0, max_records=1_000: pages.pop(start, []))
    assert [entry.feedback for entry in read_statistics(log)] == [3]


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


def test_an_impossible_reward_does_not_spoil_the_book(log: EmbeddedLog, clock: Clock) -> None:
    role = MonitorRole(log, POINTS, clock)
    append(log, feedback(0, 1.0), feedback(1, float("nan")), feedback(2, 1.0))
    role.step()
    role.close()
    assert [(entry.feedback, entry.reward_sum) for entry in read_statistics(log)] == [(2, 2.0)]


def test_an_error_in_the_middle_of_a_batch_watches_each_feedback_once(
    log: EmbeddedLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = MonitorRole(log, POINTS, clock)
    append(log, *STREAM[:20])
    clock.now_ms += 2_000
    role.step()  # commits
    append(log, *STREAM[20:40])
    enter, left = role._enter, 10

    def fail_at_the_tenth(entry: Feedback) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            raise RuntimeError("out of the blue")
        return enter(entry)

    with monkeypatch.context() as patch:
        patch.setattr(role, "_enter", fail_at_the_tenth)
        with pytest.raises(RuntimeError, match="out of the blue"):
            role.step()
    role.step()
    role.close()
    assert role.monitors[NAME].seen == 40
    assert [entry.feedback for entry in read_statistics(log)] == [40]


def test_foreign_bytes_among_the_alarms_and_the_books_are_named_and_passed_over(
    log: EmbeddedLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    role = MonitorRole(log, POINTS, clock)
    append(log, *STREAM)
    role.step()
    role.close()
    key = f"generation/{NAME}/7".encode()
    log.append(
        [Message(ALARMS, None, b"\x00\xffgarbage", 0), Message(MONITOR_STATE, key, b"\x00\xffgarbage", 0)],
    )
    assert len(latest_alarms(log)) == 1
    assert f"{ALARMS}/0@{log.ends(ALARMS)[0] - 1} is no alarm; skipped" in caplog.text
    assert [entry.feedback for entry in read_statistics(log)] == [220]
    where = f"{MONITOR_STATE}/0@{log.ends(MONITOR_STATE)[0] - 1}"
    assert f"{where} is no generationstatistics; skipped" in caplog.text
    again = MonitorRole(log, POINTS, clock)
    again.step()
    assert again.monitors[NAME].seen == 220
