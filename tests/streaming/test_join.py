from __future__ import annotations

import math
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import RewardConfig
from engine.records import (
    DEAD_LETTER_REASON_INVALID,
    DEAD_LETTER_REASON_UNKNOWN_DECISION,
    DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT,
    Decision,
    Feedback,
    Outcome,
)
from streaming.changelog import HEAD_KEY
from streaming.cold import ColdTable
from streaming.join import Joiner, Source
from streaming.patience import LEAST_PATIENCE_MS, MOST_PATIENCE_MS
from streaming.pending import Pending
from tests.streaming.joining import (
    GRACE,
    POINTS,
    WINDOW,
    Changes,
    Input,
    Told,
    activation,
    books,
    compacted,
    counts,
    decision,
    drained,
    ends,
    feed,
    hand_in,
    outcome,
    record_of,
    restored,
)

# ---- one rule at a time


@pytest.mark.parametrize(
    ("aggregation", "reward", "used", "reward_time"),
    [
        ("first", -0.75, 1, 1_040),
        ("last", -0.25, 3, 1_090),
        ("sum", -1.5, 3, 1_090),
        ("min", -0.75, 3, 1_090),
        ("max", -0.25, 3, 1_090),  # of negative outcomes: never 0
        ("mean", -0.5, 3, 1_090),
    ],
)
def test_aggregations(aggregation: str, reward: float, used: int, reward_time: int) -> None:
    joiner = Joiner(POINTS)
    outcomes = [outcome(-0.75, 1_040), outcome(-0.25, 1_090), outcome(-0.5, 1_060)]
    (feedback,) = feed(joiner, decision(aggregation), *outcomes, *ends(1_110)).feedback
    assert feedback == Feedback(
        decision=decision(aggregation), reward=reward, defaulted=False, outcomes=used, reward_time_ms=reward_time
    )
    assert counts(joiner, aggregation) == books(decisions=1, feedback=1, surplus_outcomes=3 - used)


def test_last_of_equal_times_is_the_later_in_the_log() -> None:
    effects = feed(Joiner(POINTS), decision(), outcome(0.1, outcome_id="a"), outcome(0.2, outcome_id="b"), *ends(2_000))
    assert [f.reward for f in effects.feedback] == [0.2]


def test_mean_stays_within_the_range() -> None:
    points = {"mean": RewardConfig(window=WINDOW, grace=0, aggregation="mean", range=(0.0, 0.1))}
    inputs = [outcome(0.1, outcome_id=str(n)) for n in range(3)]  # their rounded mean is above 0.1
    assert math.fsum([0.1] * 3) / 3 > 0.1
    assert [f.reward for f in feed(Joiner(points), decision("mean"), *inputs, *ends(2_000)).feedback] == [0.1]


def test_first_answers_when_the_window_closes_with_the_first_in_the_log() -> None:
    joiner = Joiner(POINTS)
    assert feed(joiner, decision("first"), outcome(0.5, 1_030), outcome(0.7, 1_010), *ends(1_109)).feedback == []
    (feedback,) = feed(joiner, *ends(1_110)).feedback
    assert (feedback.reward, feedback.reward_time_ms, feedback.outcomes) == (0.5, 1_030, 1)
    assert counts(joiner, "first") == books(decisions=1, feedback=1, surplus_outcomes=1)


def test_feedback_comes_in_the_order_of_the_decisions_whatever_their_outcomes() -> None:
    """A stream that began with those that have an outcome would look like a change of the reward."""
    joiner = Joiner({"first": RewardConfig(window=WINDOW, grace=GRACE, aggregation="first")})
    made = [decision("first", 1_000 + n, f"d{n}") for n in range(6)]
    reported = [outcome(1.0, 1_010, decision_id=f"d{n}") for n in (4, 1)]
    effects = feed(joiner, *made, *reported, *ends(3_000))
    assert [f.decision.decision_id for f in effects.feedback] == [f"d{n}" for n in range(6)]


def test_the_default_comes_once_when_the_window_and_its_grace_are_over() -> None:
    joiner = Joiner(POINTS)
    assert not feed(joiner, decision(), *ends(1_109)).feedback
    assert counts(joiner, "last") == books(decisions=1, pending=1)
    (feedback,) = feed(joiner, *ends(1_110)).feedback
    assert feedback == Feedback(decision=decision(), reward=-0.5, defaulted=True, reward_time_ms=1_100)
    assert feed(joiner, *ends(10**9)).feedback == []
    assert counts(joiner, "last") == books(decisions=1, feedback=1, defaulted=1)


def test_the_window_ends_inclusive() -> None:
    joiner = Joiner(POINTS)
    effects = feed(joiner, decision(), outcome(0.25, 1_100), outcome(0.75, 1_101), *ends(2_000))
    assert [f.reward for f in effects.feedback] == [0.25]
    assert [o.value for o in effects.late] == [0.75]


def test_an_outcome_may_be_earlier_than_its_decision() -> None:
    effects = feed(Joiner(POINTS), decision(), outcome(0.25, -5), *ends(2_000))
    assert [(f.reward, f.reward_time_ms) for f in effects.feedback] == [(0.25, -5)]


def test_an_outcome_may_come_before_its_decision() -> None:
    joiner = Joiner(POINTS)
    assert not feed(joiner, outcome(0.25), outcome(0.5, 1_060), outcome(0.25)).feedback
    effects = feed(joiner, decision(), *ends(2_000))
    assert [(f.reward, f.outcomes) for f in effects.feedback] == [(0.5, 2)]
    assert counts(joiner, "last") == books(decisions=1, feedback=1)
    assert counts(joiner, "") == books(duplicate_outcomes=1)  # its point was not known yet


def test_outcomes_that_waited_all_count_though_the_first_ends_the_window() -> None:
    points = {"sum": RewardConfig(window=WINDOW, grace=0, aggregation="sum")}
    joiner = Joiner(points)
    feed(joiner, (Source.DECISIONS, 5_000), outcome(1.0, 1_100, "a"), outcome(2.0, 1_100, "b"))
    assert [f.reward for f in feed(joiner, decision("sum")).feedback] == [3.0]


def test_a_slow_client_clock_loses_nothing_to_reading_order() -> None:
    joiner = Joiner(POINTS)
    feed(joiner, *ends(1_000_000))
    assert not feed(joiner, outcome(0.25, 10), *ends(1_000_100)).rejected
    effects = feed(joiner, decision(time_ms=1_000_050), *ends(2_000_000))
    assert [f.reward for f in effects.feedback] == [0.25]


@pytest.mark.parametrize(
    ("point", "deadline"), [("short", 1_050 + 5), ("", 1_050 + WINDOW + GRACE), ("?", 1_050 + WINDOW + GRACE)]
)
def test_an_outcome_without_decision_goes_to_dead_letters_when_its_window_has_closed(point: str, deadline: int) -> None:
    joiner = Joiner({**POINTS, "short": RewardConfig(window=5, grace=0)})
    lone = outcome(0.25, 1_050, point=point)
    assert not feed(joiner, lone, *ends(deadline - 1)).rejected
    (rejected,) = feed(joiner, *ends(deadline)).rejected
    assert rejected[0] == DEAD_LETTER_REASON_UNKNOWN_DECISION
    assert rejected[2] == record_of(lone)
    assert "'d'" in rejected[1]
    assert counts(joiner, point if point == "short" else "") == books(dead_letters=1)


def test_duplicates_count_once() -> None:
    joiner = Joiner(POINTS)
    same_id = [outcome(0.25, 1_010, "a"), outcome(0.5, 1_020, "a")]
    same_content = [outcome(0.125, 1_030), outcome(0.125, 1_030)]
    effects = feed(joiner, decision("sum"), *same_id, decision("sum", 1_001), *same_content, *ends(1_110))
    assert [(f.reward, f.decision.time_ms) for f in effects.feedback] == [(0.375, 1_000)]
    feed(joiner, decision("sum"), *same_id, *same_content)  # and they are known when the window is closed
    assert counts(joiner, "sum") == books(decisions=1, feedback=1, duplicate_decisions=2, duplicate_outcomes=6)


def test_minus_zero_is_zero() -> None:
    joiner = Joiner(POINTS)
    feed(joiner, decision(), outcome(0.0), outcome(-0.0))
    assert counts(joiner, "last").duplicate_outcomes == 1


@pytest.mark.parametrize("early", range(4))
def test_an_outcome_out_of_range_is_refused_once_and_one_put_right_counts(early: int) -> None:
    """However many of them are read before their decision."""
    joiner = Joiner(POINTS)
    outcomes = [outcome(7.0, outcome_id="x"), outcome(7.0, outcome_id="x"), outcome(0.5, outcome_id="x")]
    effects = feed(joiner, *outcomes[:early], decision(), *outcomes[early:], *ends(2_000))
    assert [reason for reason, _, _ in effects.rejected] == [DEAD_LETTER_REASON_INVALID]
    assert [(f.reward, f.outcomes) for f in effects.feedback] == [(0.5, 1)]
    sums = total(joiner)
    assert (sums["dead_letters"], sums["duplicate_outcomes"]) == (1, 1)


def test_a_late_outcome_is_kept_and_its_copy_is_a_duplicate() -> None:
    joiner = Joiner(POINTS)
    effects = feed(joiner, decision(), *ends(1_110), outcome(0.25), outcome(0.25))
    assert effects.late == [outcome(0.25)]
    assert counts(joiner, "last") == books(decisions=1, feedback=1, defaulted=1, late_outcomes=1, duplicate_outcomes=1)


def test_a_closed_decision_is_forgotten_in_the_end() -> None:
    joiner = Joiner(POINTS)
    assert len(compacted(feed(joiner, decision(), *ends(5_000)).changes)) == 2  # a block and the head
    assert not feed(joiner, *ends(5_000 + WINDOW + GRACE - 1))
    feed(joiner, *ends(5_000 + WINDOW + GRACE), decision(time_ms=9_000, decision_id="other"))
    feed(joiner, outcome(0.5))  # nobody knows it any more
    assert [r[0] for r in feed(joiner, *ends(6_000)).rejected] == [DEAD_LETTER_REASON_UNKNOWN_DECISION]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (outcome(math.nan), "nan"),
        (outcome(math.inf), "inf"),
        (outcome(-1e101), "1e"),
        (outcome(1.5), r"1\.5 .*\[-1\.0, 1\.0\]"),
        (outcome(0.5, 2**60), str(2**60)),
        (outcome(0.5, decision_id=""), "decision_id"),
        (decision(decision_id=""), "decision_id"),
        (decision(time_ms=-(2**62), decision_id="x"), str(-(2**62))),
    ],
)
def test_what_cannot_be_right_goes_to_dead_letters(bad: Decision | Outcome, words: str) -> None:
    joiner = Joiner(POINTS)
    effects = feed(joiner, decision(), bad, *ends(2_000))
    (rejected,) = effects.rejected
    assert (rejected[0], rejected[2]) == (DEAD_LETTER_REASON_INVALID, record_of(bad))
    assert re.search(words, rejected[1])
    assert [f.defaulted for f in effects.feedback] == [True]
    assert sum(book.dead_letters for book in joiner.accounting().values()) == 1


@pytest.mark.parametrize("early", [False, True])
def test_an_outcome_that_names_another_decision_point_counts_for_none(early: bool) -> None:
    """Who may report for one point alone is let in by the name: it has to be that of the decision."""
    items = [decision(), outcome(0.25, point="first", outcome_id="x")]
    effects = feed(Joiner(POINTS), *(reversed(items) if early else items), outcome(0.5, point="last"), *ends(2_000))
    ((reason, words, _),) = effects.rejected
    assert reason == DEAD_LETTER_REASON_INVALID
    assert "decision_point 'first' is not that of the decision, 'last'" in words
    assert [(f.reward, f.outcomes) for f in effects.feedback] == [(0.5, 1)]


def test_a_sum_may_leave_the_range() -> None:
    effects = feed(Joiner(POINTS), decision("sum"), outcome(7.0), outcome(5.0), *ends(2_000))
    assert [f.reward for f in effects.feedback] == [12.0]


def test_a_value_out_of_range_is_found_when_the_decision_comes() -> None:
    joiner = Joiner(POINTS)
    effects = feed(joiner, outcome(3.0), decision(), *ends(2_000))
    assert [r[0] for r in effects.rejected] == [DEAD_LETTER_REASON_INVALID]
    assert [f.defaulted for f in effects.feedback] == [True]


def test_a_decision_of_an_unknown_point_goes_to_dead_letters() -> None:
    joiner = Joiner(POINTS)
    (rejected,) = feed(joiner, decision("nowhere")).rejected
    assert rejected[0] == DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT
    assert "'nowhere'" in rejected[1]
    assert "first, last, max" in rejected[1]
    assert counts(joiner, "") == books(dead_letters=1)


# ---- the clock


def test_event_time_closes_windows_without_any_idle_topic() -> None:
    joiner = Joiner(POINTS)
    others: list[Input] = [decision(time_ms=1_200, decision_id="e"), outcome(0.5, 1_109, decision_id="e")]
    assert not feed(joiner, decision(), *others).feedback
    assert [f.decision.decision_id for f in feed(joiner, outcome(0.5, 1_110, decision_id="e")).feedback] == ["d"]


def test_an_idle_topic_of_outcomes_does_not_hold_up_the_other() -> None:
    joiner = Joiner(POINTS)
    assert not feed(joiner, decision(), decision(time_ms=1_110, decision_id="e")).feedback
    assert len(feed(joiner, (Source.OUTCOMES, 1_500)).feedback) == 1


def test_an_outcome_that_does_not_count_moves_no_clock() -> None:
    joiner = Joiner(POINTS)
    absurd = [outcome(0.5, 10**12, decision_id="e"), outcome(0.5, 10**12, decision_id="nobody")]
    feed(joiner, decision(), decision(time_ms=10_000, decision_id="e"), *absurd)
    effects = feed(joiner, outcome(0.25), *ends(10_000))
    assert [f.reward for f in effects.feedback] == [0.25]


def test_a_decision_that_comes_late_waits_for_its_outcomes_that_come_behind_it() -> None:
    joiner = Joiner(POINTS)
    # A server was cut off from the log; by the clock of others, the window is over when it has its way again.
    feed(joiner, *ends(5_000))
    assert not feed(joiner, decision(), *ends(5_000 + LEAST_PATIENCE_MS - 1)).feedback
    assert [f.reward for f in feed(joiner, outcome(0.25), *ends(5_000 + LEAST_PATIENCE_MS)).feedback] == [0.25]


def test_a_decision_that_comes_late_is_waited_for_ten_minutes_at_most() -> None:
    week = 7 * 86_400_000
    joiner = Joiner({"first": RewardConfig(window=week, grace=0)})
    feed(joiner, *ends(2 * week))
    assert not feed(joiner, decision("first"), *ends(2 * week + MOST_PATIENCE_MS - 1)).feedback
    assert len(feed(joiner, *ends(2 * week + MOST_PATIENCE_MS)).feedback) == 1


# ---- state


def test_of_a_join_that_was_away_too_a_topic_at_its_end_closes_no_window_at_once() -> None:
    joiner = Joiner(POINTS)
    assert not feed(joiner, 5_000, decision(), *ends(5_000)).feedback
    assert not feed(joiner, *ends(5_000 + LEAST_PATIENCE_MS - 1)).feedback
    assert [f.reward for f in feed(joiner, outcome(0.25), *ends(5_000 + LEAST_PATIENCE_MS)).feedback] == [0.25]


def test_what_event_time_closes_is_closed_however_late_it_is_read() -> None:
    joiner = Joiner(POINTS)
    told = feed(joiner, 10**9, decision(), decision(time_ms=2_000, decision_id="next"), outcome(0.5, 2_000, "", "next"))
    assert [f.decision.decision_id for f in told.feedback] == ["d"]


def test_an_idle_clock_alone_is_nothing_to_write() -> None:
    joiner = Joiner(POINTS)
    feed(joiner, decision())
    assert not feed(joiner, *ends(1_050))


def test_a_point_that_is_no_longer_configured_stays_pending_until_it_is_again() -> None:
    changelog = feed(Joiner(POINTS), decision("sum"), outcome(0.5)).changes
    without = restored(changelog, {"last": POINTS["last"]})
    told = feed(without, outcome(0.75, 1_060), *ends(9_000))
    assert [r[0] for r in told.rejected] == [DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT]
    assert told.feedback == []
    assert counts(without, "sum") == books(decisions=1, pending=1, dead_letters=1)
    changelog += told.changes
    changelog += feed(without, *ends(400_000_000)).changes  # days later
    again = restored(compacted(changelog), POINTS)
    assert [f.reward for f in feed(again, *ends(400_000_001)).feedback] == [0.5]
    assert counts(again, "sum") == books(decisions=1, feedback=1, dead_letters=1)


def test_an_old_copy_of_an_outcome_that_waited_does_not_come_back() -> None:
    """It waits for the longest window, names no point, and its decision is closed and would be forgotten before."""
    points = {"short": RewardConfig(window=5, grace=0), "long": RewardConfig(window=500, grace=0)}
    joiner = Joiner(points)
    changelog = feed(joiner, outcome(0.5, 1_000), outcome(0.5, 1_000, decision_id="other")).changes
    for items in ([decision("short", 1_000)], ends(1_010), ends(1_100)):
        changelog += feed(joiner, *items).changes
    for again in (restored(changelog, points), restored(compacted(changelog), points), joiner):
        told = feed(again, outcome(0.75, 1_003), *ends(1_499))
        assert [o.value for o in told.late] == [0.75]  # it is remembered for so long
        told = feed(again, *ends(1_500))
        assert [r[2].key for r in told.rejected] == [b"other"]
        assert len(again.pending) == 0


def test_a_deferred_decision_gets_feedback_once_it_is_activated() -> None:
    joiner = Joiner(POINTS)
    made = decision(deferred=True)
    (feedback,) = feed(joiner, made, activation(), outcome(0.5), *ends(1_110)).feedback
    assert feedback == Feedback(decision=made, reward=0.5, outcomes=1, reward_time_ms=1_050)
    assert counts(joiner, "last") == books(decisions=1, feedback=1)


def test_activated_and_without_an_outcome_it_gets_the_default() -> None:
    joiner = Joiner(POINTS)
    (feedback,) = feed(joiner, decision(deferred=True), activation(), *ends(1_110)).feedback
    assert (feedback.reward, feedback.defaulted, feedback.reward_time_ms) == (-0.5, True, 1_100)
    assert counts(joiner, "last") == books(decisions=1, feedback=1, defaulted=1)


def test_never_activated_it_has_no_feedback_whatever_is_reported_and_the_book_says_so() -> None:
    joiner = Joiner(POINTS)
    told = feed(joiner, decision(deferred=True), outcome(0.5), *ends(1_109))
    assert counts(joiner, "last") == books(decisions=1, pending=1)
    assert told.feedback == feed(joiner, *ends(1_110)).feedback == []
    assert counts(joiner, "last") == books(decisions=1, unactivated=1)


def test_an_activation_after_the_window_is_late_whenever_it_comes() -> None:
    joiner = Joiner(POINTS)
    told = feed(joiner, decision(deferred=True), activation(1_101), *ends(1_110), activation(1_090))
    assert told.feedback == []
    assert told.late == [activation(1_101), activation(1_090)]
    assert counts(joiner, "last") == books(decisions=1, unactivated=1, late_outcomes=2)


def test_one_that_is_late_does_not_stand_in_the_way_of_one_in_time() -> None:
    joiner = Joiner(POINTS)
    assert len(feed(joiner, decision(deferred=True), activation(1_101), activation(1_100), *ends(1_110)).feedback) == 1
    assert counts(joiner, "last") == books(decisions=1, feedback=1, defaulted=1, late_outcomes=1)


def test_an_activation_waits_for_its_decision() -> None:
    joiner = Joiner(POINTS)
    assert len(feed(joiner, activation(), decision(deferred=True), *ends(1_110)).feedback) == 1


def test_activated_twice_or_without_need_it_is_a_duplicate() -> None:
    joiner = Joiner(POINTS)
    told = feed(joiner, decision(deferred=True), activation(), activation(), activation(1_030), *ends(1_110))
    assert len(told.feedback) == 1
    told = feed(joiner, decision(decision_id="e", time_ms=2_000), activation(2_001, "e"), *ends(2_110))
    assert [(f.defaulted, f.outcomes) for f in told.feedback] == [(True, 0)]
    assert counts(joiner, "last") == books(decisions=2, feedback=2, defaulted=2, duplicate_outcomes=3)


def test_an_activation_is_no_outcome_of_value_0_of_the_same_time() -> None:
    joiner = Joiner(POINTS)
    made = decision("first", deferred=True)
    (feedback,) = feed(joiner, made, activation(1_050), outcome(0.0), *ends(1_110)).feedback
    assert (feedback.reward, feedback.outcomes) == (0.0, 1)
    assert counts(joiner, "first") == books(decisions=1, feedback=1)


@pytest.mark.parametrize("activated", [False, True])
def test_a_point_that_was_away_meanwhile_does_not_wake_a_decision(activated: bool) -> None:
    made = [decision(deferred=True), activation()] if activated else [decision(deferred=True)]
    changelog = feed(Joiner(POINTS), *made).changes
    away = restored(changelog, {"other": RewardConfig()})
    changelog += feed(away, *ends(1_200)).changes
    back = restored(changelog, POINTS)
    assert len(feed(back, *ends(10**9)).feedback) == activated
    assert counts(back, "last").unactivated == (not activated)


# ---- any order of anything, against a slow reference written from the rules


@dataclass
class Known:
    """All that the reference knows of one decision id: nothing is derived, everything is looked up again."""

    decision: Decision | None = None
    deadline: int = 0  # when outcomes that wait are given up
    came_at: float = -math.inf  # the clock when the decision came, or was found to have come late
    overdue: bool = False  # its window was over when it was read
    counted: list[Outcome] = field(default_factory=list)
    copies_of: list[Outcome] = field(default_factory=list)  # every outcome that was taken, in any way
    refused: list[Outcome] = field(default_factory=list)  # those out of range
    closed_at: int | None = None
    activated: bool = False


class Reference:
    """The join by full scans: after each input every id is looked at, and the clock is computed from all of history."""

    def __init__(self, points: dict[str, RewardConfig]) -> None:
        self.points = points
        self.known: dict[str, Known] = {}
        self.times: dict[Source, list[int]] = {source: [] for source in Source}
        self.feedback: list[tuple[str, float, bool, int, int]] = []
        self.accepted: list[str] = []
        self.asleep: list[str] = []
        self.late: list[Outcome] = []
        self.rejected: list[tuple[int, str]] = []
        self.tally: Counter[str] = Counter()
        self.wall = 0

    def now(self) -> float:
        return min(max(times, default=-math.inf) for times in self.times.values())

    def take(self, item: Input) -> None:
        if isinstance(item, Decision):
            self.decide(item)
        elif isinstance(item, Outcome):
            self.report(item)
        elif isinstance(item, int):
            self.wall = item
        else:
            self.end(*item)
        again = True
        while again:
            due = sorted((self.due(known), key) for key, known in self.known.items())
            again = bool(due) and due[0][0] <= self.now()
            if again:
                self.close(due[0][1])

    def end(self, source: Source, now_ms: int) -> None:
        passed = self.now()
        self.times[source].append(now_ms)
        for known in self.known.values():
            if known.overdue and known.closed_at is None and passed < self.due(known) <= self.now():
                known.overdue = False
                known.came_at = self.now()

    def span(self, point: str) -> int:
        return self.points[point].window + self.points[point].grace

    def due(self, known: Known) -> float:
        if known.decision is None:
            return known.deadline
        span = self.span(known.decision.decision_point)
        if known.closed_at is not None:
            return max(known.closed_at + span, known.deadline)
        due = known.decision.time_ms + span
        least = LEAST_PATIENCE_MS if due <= known.came_at else 0
        return max(due, known.came_at + min(max(span, least), MOST_PATIENCE_MS))

    def decide(self, item: Decision) -> None:
        if item.decision_point not in self.points:
            self.rejected.append((DEAD_LETTER_REASON_UNKNOWN_DECISION_POINT, item.decision_id))
            return
        known = self.known.get(item.decision_id, Known())
        if known.decision is not None:
            self.tally["duplicate_decisions"] += 1
            return
        waiting = known.copies_of
        taken = self.known[item.decision_id] = Known(item, known.deadline, self.now())
        taken.overdue = self.due(taken) <= self.wall
        self.accepted.append(item.decision_id)
        for early in waiting:
            self.judge(self.known[item.decision_id], early)
        self.times[Source.DECISIONS].append(item.time_ms)

    def report(self, item: Outcome) -> None:
        if not math.isfinite(item.value):
            self.rejected.append((DEAD_LETTER_REASON_INVALID, item.decision_id))
            return
        if item.decision_id not in self.known:
            patience = (
                self.span(item.decision_point)
                if item.decision_point in self.points
                else max(map(self.span, self.points))
            )
            self.known[item.decision_id] = Known(deadline=int(max(item.time_ms, self.now()) + patience))
        known = self.known[item.decision_id]
        if known.decision is not None:
            self.judge(known, item)
        elif any(self.same(item, other) and item.value == other.value for other in known.copies_of):
            self.tally["duplicate_outcomes"] += 1
        else:
            known.copies_of.append(item)

    @staticmethod
    def same(one: Outcome, other: Outcome) -> bool:
        if one.outcome_id or other.outcome_id:
            return one.outcome_id == other.outcome_id
        return (one.time_ms, one.value, one.activation) == (other.time_ms, other.value, other.activation)

    def judge(self, known: Known, item: Outcome) -> None:
        assert known.decision is not None
        config = self.points[known.decision.decision_point]
        if any(self.same(item, other) for other in known.copies_of):
            self.tally["duplicate_outcomes"] += 1
            return
        misnamed = item.decision_point not in ("", known.decision.decision_point)
        judged = config.aggregation != "sum" and not item.activation
        if misnamed or (judged and not config.range[0] <= item.value <= config.range[1]):
            if any(self.same(item, other) and item.value == other.value for other in known.refused):
                self.tally["duplicate_outcomes"] += 1
                return
            known.refused.append(item)
            self.rejected.append((DEAD_LETTER_REASON_INVALID, item.decision_id))
            return
        known.copies_of.append(item)
        if known.closed_at is not None or item.time_ms > known.decision.time_ms + config.window:
            self.late.append(item)
        elif item.activation and (known.activated or not known.decision.deferred):
            self.tally["duplicate_outcomes"] += 1
        elif item.activation:
            known.activated = True
            self.times[Source.OUTCOMES].append(item.time_ms)
        elif config.aggregation == "first" and known.counted:
            self.tally["surplus_outcomes"] += 1
        else:
            known.counted.append(item)
            self.times[Source.OUTCOMES].append(item.time_ms)

    def answer(self, known: Known) -> None:
        assert known.decision is not None
        config = self.points[known.decision.decision_point]
        values = [item.value for item in known.counted]
        times = [item.time_ms for item in known.counted]
        reward = config.default
        if values:
            latest = [item.value for item in known.counted if item.time_ms == max(times)][-1]
            reward = {
                "first": values[0],
                "last": latest,
                "sum": math.fsum(values),
                "min": min(values),
                "max": max(values),
                "mean": math.fsum(values) / len(values),
            }[config.aggregation]
        end = max(times) if times else known.decision.time_ms + config.window
        self.feedback.append((known.decision.decision_id, reward, not values, len(values), end))

    def close(self, key: str) -> None:
        known = self.known[key]
        if known.decision is None:
            for index, item in enumerate(known.copies_of):
                if any(self.same(item, other) for other in known.copies_of[:index]):
                    self.tally["duplicate_outcomes"] += 1
                else:
                    self.rejected.append((DEAD_LETTER_REASON_UNKNOWN_DECISION, key))
        if known.decision is None or known.closed_at is not None:
            del self.known[key]
            return
        if known.activated or not known.decision.deferred:
            self.answer(known)
        else:
            self.asleep.append(key)
        known.closed_at = int(self.now())


RANDOM_POINTS = {
    name: RewardConfig(
        window=20 + 7 * index, grace=index % 3, aggregation=config.aggregation, default=0.25, range=(-1.0, 1.0)
    )
    for index, (name, config) in enumerate(POINTS.items())
}
ids = st.sampled_from(["a", "b", "c", "é"])
times = st.integers(-5, 120)
inputs = st.lists(
    st.one_of(
        st.builds(decision, st.sampled_from([*RANDOM_POINTS, "nowhere"]), times, ids, deferred=st.booleans()),
        st.builds(
            activation, times, ids, st.sampled_from(["", "", "x"]), st.sampled_from(["", "", "first", "nowhere"])
        ),
        st.builds(
            outcome,
            st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.125, 1.0, 2.5, math.nan, math.inf]),
            times,
            st.sampled_from(["", "", "x", "y"]),
            ids,
            st.sampled_from(["", "", "", "first", "mean", "nowhere"]),
        ),
        st.tuples(st.sampled_from(Source), times),
        st.integers(0, 200),
    ),
    max_size=60,
)


def total(joiner: Joiner) -> Counter[str]:
    tally: Counter[str] = Counter()
    for book in joiner.accounting().values():
        tally.update({descriptor.name: value for descriptor, value in book.ListFields()})
    del tally["watermark_ms"]
    return +tally


def as_tuple(feedback: Feedback) -> tuple[str, float, bool, int, int]:
    return (
        feedback.decision.decision_id,
        feedback.reward,
        feedback.defaulted,
        feedback.outcomes,
        feedback.reward_time_ms,
    )


@settings(max_examples=400, deadline=None)
@given(inputs)
def test_it_equals_the_reference_and_conserves_decisions(items: list[Input]) -> None:
    joiner, reference, told = Joiner(RANDOM_POINTS), Reference(RANDOM_POINTS), Told()
    items += [*ends(10**6), *ends(2 * 10**6), *ends(3 * 10**6)]
    for offset, item in enumerate(items):
        hand_in(joiner, item, offset)
        reference.take(item)
        told.add(joiner.drain())
        for point, book in joiner.accounting().items():
            assert book.decisions == book.feedback + book.pending + book.unactivated, point
        assert [as_tuple(f) for f in told.feedback] == reference.feedback
    assert told.late == reference.late
    assert [(r[0], (r[2].key or b"").decode()) for r in told.rejected] == reference.rejected
    for _, _, record in told.rejected:  # also of those that have waited
        item = items[record.offset]
        assert not isinstance(item, (tuple, int))
        assert record == record_of(item, record.offset)
    given_or_not = [*(f.decision.decision_id for f in told.feedback), *reference.asleep]
    assert Counter(given_or_not) == Counter(reference.accepted)
    expected = reference.tally + Counter(
        decisions=len(reference.accepted),
        feedback=len(told.feedback),
        defaulted=sum(f.defaulted for f in told.feedback),
        late_outcomes=len(told.late),
        dead_letters=len(told.rejected),
        unactivated=len(reference.asleep),
    )
    assert total(joiner) == expected
    assert [key for key, _ in compacted(told.changes)] in ([HEAD_KEY], [])  # nothing is remembered for ever


@settings(max_examples=250, deadline=None)
@given(inputs, st.sampled_from([None, None, 0, 1, 3]), st.sampled_from([1, 2, 10_000]), st.data())
def test_where_it_is_cut_and_restarted_and_what_is_in_memory_changes_nothing(
    items: list[Input], max_hot: int | None, max_closings: int, data: st.DataObject
) -> None:
    items += ends(10**6)
    joiner = Joiner(RANDOM_POINTS)
    for offset, item in enumerate(items):
        hand_in(joiner, item, offset)
    whole, parts = drained(joiner), Told()
    books_of_whole = joiner.accounting()
    changelog: Changes = []
    idle: dict[Source, int] = {}
    wall_ms = 0
    with TemporaryDirectory() as directory, ExitStack() as stack:

        def made() -> Joiner:
            pending = Pending(max_hot, partial(ColdTable, Path(directory)))
            stack.callback(pending.close)
            return restored(changelog, RANDOM_POINTS, pending, max_closings)

        def drain() -> None:
            told = drained(joiner)
            changelog.extend(told.changes)
            parts.feedback += told.feedback
            parts.late += told.late
            parts.rejected += told.rejected

        joiner = made()
        for offset, item in enumerate(items):
            hand_in(joiner, item, offset)
            if isinstance(item, tuple):
                idle[item[0]] = max(item[1], idle.get(item[0], item[1]))
            elif isinstance(item, int):
                wall_ms = item
            match data.draw(st.sampled_from(["", "", "drain", "restart", "compact"])):
                case "drain":
                    drain()
                case "restart" | "compact" as how:
                    drain()
                    if how == "compact":
                        changelog[:] = compacted(changelog)
                    joiner = made()
                    for source, now_ms in idle.items():  # an idle topic is found idle again
                        joiner.on_end(source, now_ms)
                    joiner.on_time(wall_ms, 2**53)
        drain()
        while joiner.go_on():
            drain()
        assert joiner.accounting() == books_of_whole
    assert parts.feedback == whole.feedback
    assert parts.late == whole.late
    assert parts.rejected == whole.rejected
