"""When retraining is due: not before there is enough feedback of the new world, and not again and again."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import Alarm, Generation
from training.config import RetrainingConfig
from training.schedule import RetrainRequest, RetrainScheduler

DRIFT = RetrainingConfig(min_events=100, retry_growth=1.5)
DAILY = RetrainingConfig(min_events=100, every=86_400_000, window=7 * 86_400_000)


def scheduler(config: RetrainingConfig = DRIFT, started_ms: int = 0) -> RetrainScheduler:
    return RetrainScheduler({"offers": config}, started_ms)


def alarm(change_ms: int, *, calls: bool = True, point: str = "offers") -> Alarm:
    return Alarm(decision_point=point, change_ms=change_ms, detected_ms=change_ms + 50, calls_for_retraining=calls)


def generation(start_ms: int, *, promoted: bool, rows: int = 100, trained_ms: int = 0) -> Generation:
    return Generation(
        decision_point="offers", window_start_ms=start_ms, promoted=promoted, rows=rows, trained_ms=trained_ms
    )


def due(subject: RetrainScheduler, rows: int, now_ms: int = 0) -> RetrainRequest | None:
    return subject.due("offers", now_ms, lambda _: rows)


def test_nothing_is_due_without_an_alarm_or_a_schedule() -> None:
    assert due(scheduler(), 10_000, now_ms=10**15) is None


def test_a_drift_waits_for_enough_feedback_since_the_change() -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000))
    asked: list[int] = []

    def rows_since(since_ms: int) -> int:
        asked.append(since_ms)
        return 99 if len(asked) == 1 else 100

    assert subject.due("offers", 0, rows_since) is None
    assert subject.due("offers", 0, rows_since) == RetrainRequest("offers", "drift", 5_000)
    assert asked == [5_000, 5_000]


def test_an_alarm_that_does_not_call_for_retraining_is_none_of_its_business() -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000, calls=False))
    subject.on_alarm(alarm(5_000, point="others"))
    assert due(subject, 10_000) is None


def test_after_an_attempt_the_feedback_must_have_grown() -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000))
    assert due(subject, 120) is not None
    assert due(subject, 179) is None  # 1.5 * 120 = 180
    assert due(subject, 180) is not None
    assert due(subject, 269) is None
    assert due(subject, 270) is not None


def test_a_failed_attempt_is_remembered_over_a_restart() -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000))
    subject.on_generation(generation(5_000, promoted=False, rows=120))
    assert due(subject, 179) is None
    assert due(subject, 180) is not None


def test_a_failure_with_feedback_from_before_the_change_says_nothing_about_it() -> None:
    subject = scheduler()
    subject.on_generation(generation(4_000, promoted=False, rows=900))
    subject.on_alarm(alarm(5_000))
    assert due(subject, 100) is not None


@pytest.mark.parametrize(("start_ms", "resolved"), [(4_999, False), (5_000, True), (6_000, True)])
def test_a_promotion_resolves_what_it_was_trained_after(start_ms: int, resolved: bool) -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000))
    subject.on_generation(generation(start_ms, promoted=True))
    assert (due(subject, 10_000) is None) == resolved


def test_a_later_change_takes_the_place_of_an_earlier_one_and_starts_anew() -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000))
    assert due(subject, 5_000) is not None
    subject.on_alarm(alarm(9_000))
    subject.on_alarm(alarm(7_000))
    assert due(subject, 100) == RetrainRequest("offers", "drift", 9_000)
    subject.on_generation(generation(5_000, promoted=True))
    assert due(subject, 150) == RetrainRequest("offers", "drift", 9_000)


def test_a_change_after_a_promotion_asks_again() -> None:
    subject = scheduler()
    subject.on_alarm(alarm(5_000))
    subject.on_generation(generation(5_000, promoted=True))
    subject.on_alarm(alarm(8_000))
    assert due(subject, 100) == RetrainRequest("offers", "drift", 8_000)


@pytest.mark.parametrize("change", [{"enabled": False}, {"on_drift": False}])
def test_drift_can_be_switched_off(change: dict[str, bool]) -> None:
    subject = scheduler(DRIFT.model_copy(update=change))
    subject.on_alarm(alarm(5_000))
    assert due(subject, 10_000) is None


def test_the_schedule_counts_from_the_last_training_or_attempt() -> None:
    day = 86_400_000
    subject = scheduler(DAILY, started_ms=day)
    assert due(subject, 100, 2 * day - 1) is None
    assert due(subject, 99, 2 * day) is None  # too little to train on
    assert due(subject, 100, 2 * day + 5) == RetrainRequest("offers", "schedule", None)
    assert due(subject, 100, 3 * day + 4) is None
    subject.on_generation(generation(0, promoted=False, trained_ms=3 * day))
    assert due(subject, 100, 4 * day - 1) is None
    assert due(subject, 100, 4 * day) is not None


def test_a_restart_does_not_put_the_schedule_off() -> None:
    day = 86_400_000
    subject = scheduler(DAILY, started_ms=9 * day)
    subject.on_generation(generation(0, promoted=True, trained_ms=7 * day))
    assert due(subject, 100, 9 * day) is not None


def test_the_schedule_asks_for_rows_of_the_window_or_since_the_last_change() -> None:
    day = 86_400_000
    asked: list[int] = []

    def rows_since(since_ms: int) -> int:
        asked.append(since_ms)
        return 100

    subject = scheduler(DAILY.model_copy(update={"on_drift": False}))
    assert subject.due("offers", 10 * day, rows_since) == RetrainRequest("offers", "schedule", None)
    subject.on_alarm(alarm(9 * day))
    assert subject.due("offers", 11 * day, rows_since) == RetrainRequest("offers", "schedule", 9 * day)
    assert asked == [3 * day, 9 * day]


@given(st.integers(1, 1_000), st.floats(1.1, 4.0), st.lists(st.integers(1, 500), max_size=60))
def test_attempts_in_vain_grow_with_the_logarithm_of_the_feedback(
    min_events: int, growth: float, arrivals: list[int]
) -> None:
    subject = scheduler(RetrainingConfig(min_events=max(2, min_events), retry_growth=growth))
    subject.on_alarm(alarm(5_000))
    rows, attempts, last = 0, 0, 0
    for arrived in arrivals:
        rows += arrived
        if due(subject, rows) is not None:
            assert rows >= max(min_events, growth * last)
            attempts, last = attempts + 1, rows
    if attempts:
        assert attempts <= 1 + math.log(rows / min_events, growth) + 1e-9


EVENTS = st.lists(
    st.one_of(
        st.builds(alarm, st.integers(0, 20), calls=st.booleans()),
        st.builds(
            generation,
            st.integers(0, 20),
            promoted=st.booleans(),
            rows=st.integers(50, 200),
            trained_ms=st.integers(0, 86_400_000),
        ),
    ),
    max_size=12,
)


@given(EVENTS, st.randoms(use_true_random=False), st.integers(50, 400))
def test_the_order_of_the_two_topics_does_not_matter(
    events: list[Alarm | Generation], order: random.Random, rows: int
) -> None:
    answers = []
    for _ in range(2):
        subject = scheduler(DAILY)
        for event in events:
            if isinstance(event, Alarm):
                subject.on_alarm(event)
            else:
                subject.on_generation(event)
        answers.append([due(subject, rows, 86_400_000 + i * 50_000_000) for i in range(3)])
        events = events[:]
        order.shuffle(events)
    assert answers[0] == answers[1]


@given(EVENTS, st.integers(100, 10_000))
def test_a_drift_request_is_never_for_a_resolved_change(events: list[Alarm | Generation], rows: int) -> None:
    subject = scheduler()
    for event in events:
        if isinstance(event, Alarm):
            subject.on_alarm(event)
        else:
            subject.on_generation(event)
    changes = [event.change_ms for event in events if isinstance(event, Alarm) and event.calls_for_retraining]
    starts = [event.window_start_ms for event in events if isinstance(event, Generation) and event.promoted]
    answer = due(subject, rows)
    if not changes or max(starts, default=-1) >= max(changes):
        assert answer is None
    elif answer is not None:
        assert answer.since_ms == max(changes)
