"""Which call is next, and which is refused: without threads and without a clock."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import OverloadConfig, ServingConfig
from engine.effort import Effort
from engine.errors import Overloaded
from engine.serving.early_refusal import EarlyRefusal
from engine.serving.load import TURNS, Call, Load, Rank, ends_s
from tests.engine.samples import MemoryObserver

FOREVER_S = 1e9


def make_load(workers: int = 1, max_concurrent: int = 4, **overload: object) -> Load:
    config = OverloadConfig.model_validate(overload)
    return Load(ServingConfig(front="threads", workers=workers, max_concurrent=max_concurrent, overload=config))


def make_call(rank: Rank = Rank.LAST, ends_s: float = FOREVER_S, *, threaded: bool = False) -> Call:
    return Call(lambda: None, rank, "Decide", ends_s, threaded)


def busy(load: Load, seconds: float = 0.0) -> None:
    """Let a thread be at work, on calls that take so long."""
    for _ in range(1_000 if seconds else 0):
        load.enter(make_call(Rank.ALWAYS), 0.0)
        load.take()
        load.ended(seconds)
    load.enter(make_call(Rank.ALWAYS), 0.0)
    load.take()


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    load = make_load()
    busy(load, seconds=2.0)
    assert [load.enter(make_call(), 0.0) for _ in range(3)] == [None] * 3
    late = make_call()
    refused = load.enter(late, 0.0)
    assert refused is not None
    assert refused[0] is late
    assert refused[1].reason == "queue_full"
    assert refused[1].retry_s == pytest.approx(0.5 * 3 * 2.0, rel=1e-3)
    assert load.waiting == 3


def test_a_report_takes_the_place_of_the_newest_decision_that_waits() -> None:
    load = make_load()
    busy(load)
    decisions = [make_call(load.rank("Decide")) for _ in range(3)]
    for call in decisions:
        assert load.enter(call, 0.0) is None
    reports = [make_call(load.rank("Report")) for _ in range(4)]
    assert [_call(load.enter(report, 0.0)) for report in reports] == [*reversed(decisions), reports[3]]
    assert load.waiting == 3


def test_who_goes_last_is_slowed_and_not_starved() -> None:
    load = make_load(max_concurrent=100)
    for rank in (Rank.FIRST, Rank.LAST):
        for _ in range(12):
            load.enter(make_call(rank), 0.0)
    taken = [load.take() for _ in range(12)]
    assert [call.rank for call in taken if call is not None] == ([Rank.FIRST] * (TURNS - 1) + [Rank.LAST]) * 3


@pytest.mark.parametrize(
    ("first", "decide", "report"),
    [
        ("report", Rank.LAST, Rank.FIRST),
        ("decide", Rank.FIRST, Rank.LAST),
        ("none", Rank.LAST, Rank.LAST),
    ],
)
def test_whose_calls_go_first_is_configured(first: str, decide: Rank, report: Rank) -> None:
    load = make_load(first=first)
    assert {load.rank(method) for method in ("Decide", "DecideBatch", "Recommend")} == {decide}
    assert {load.rank(method) for method in ("Report", "ReportBatch", "Record", "Activate")} == {report}


def test_who_would_wait_beyond_the_deadline_is_refused_at_once() -> None:
    load = make_load(max_concurrent=100)
    busy(load, seconds=2.0)
    assert load.enter(make_call(ends_s=2.1), 0.0) is None  # its turn is in 2 s
    refused = load.enter(make_call(ends_s=2.1), 0.0)  # and of this one in 4 s
    assert refused is not None
    assert refused[1].reason == "too_late"
    assert load.enter(make_call(ends_s=4.1), 0.0) is None
    # Reports do not wait for decisions.
    assert load.enter(make_call(Rank.FIRST, ends_s=2.1), 0.0) is None


def _waited(load: Load, count: int, seconds: float) -> None:
    """Let calls wait together, and be taken one by one, so long after each other: a call itself takes no time."""
    for _ in range(count):
        load.enter(make_call(), 0.0)
    for number in range(count):
        assert load.take((number + 1) * seconds) is not None
        load.ended(0.0)


def test_how_long_the_queue_takes_is_seen_from_those_who_waited() -> None:
    """Between two calls others are refused, and the network is looked at: the queue is slower than its calls."""
    load = make_load(max_concurrent=1_000)
    busy(load)
    _waited(load, 500, seconds=0.01)
    for _ in range(100):
        assert load.enter(make_call(ends_s=9.1), 9.0) is None  # so few are taken in a turn or two, as far as is known
        if load.waiting == 64:
            break
    assert load.wait_s(Rank.LAST) == pytest.approx(0.65, rel=0.05)
    refused = load.enter(make_call(ends_s=9.5), 9.0)
    assert refused is not None
    assert refused[1].reason == "too_late"
    assert refused[1].retry_s > 0.2


def test_a_call_that_would_wait_for_a_good_part_of_its_time_is_refused() -> None:
    """A queue that stays long only makes answers late, and something may come between."""
    load = make_load(max_concurrent=1_000)
    busy(load)
    _waited(load, 500, seconds=0.01)
    for _ in range(64):
        assert load.enter(make_call(ends_s=99.0), 9.0) is None
    refused = load.enter(make_call(ends_s=9.0 + 4.5 * 0.65), 9.0)
    assert refused is not None
    assert "its turn comes in some 650 ms, and its deadline ends in 2925 ms, of 3250 ms that it should have" in str(
        refused[1]
    )
    assert load.enter(make_call(ends_s=9.0 + 5.5 * 0.65), 9.0) is None


def test_a_queue_that_moves_again_lets_in_who_can_wait() -> None:
    load = make_load(max_concurrent=1_000)
    busy(load)
    _waited(load, 500, seconds=0.01)
    _waited(load, 500, seconds=0.0001)
    for _ in range(200):
        assert load.enter(make_call(ends_s=9.5), 9.0) is None


def test_while_a_thread_is_free_nobody_is_too_late() -> None:
    load = make_load(workers=2)
    busy(load, seconds=1_000.0)
    assert load.enter(make_call(ends_s=0.001), 0.0) is None
    # Whose deadline is over is told just that, by its thread.
    assert load.enter(make_call(ends_s=-1.0), 0.0) is None


def test_health_is_never_refused_and_goes_before_all() -> None:
    load = make_load()
    busy(load)
    for _ in range(3):
        load.enter(make_call(), 0.0)
    health = make_call(Rank.ALWAYS, ends_s=0.0)
    assert load.enter(health, 0.0) is None
    assert load.take() is health


def test_the_ladder_goes_down_step_by_step_and_up_again() -> None:
    load = make_load(max_concurrent=9, shadow_until=0.25, score_until=0.75)
    busy(load)
    seen = []
    for _ in range(8):
        load.enter(make_call(), 0.0)
        seen.append(load.effort())
    assert seen == [Effort.FULL] * 2 + [Effort.ALONE] * 4 + [Effort.OVERLOAD] * 2
    while load.take() is not None:
        pass
    assert load.effort() is Effort.FULL


def test_without_places_to_wait_there_is_no_ladder() -> None:
    load = make_load(workers=8, max_concurrent=4, shadow_until=0.0, score_until=0.0)
    assert load.enter(make_call(), 0.0) is None
    assert load.effort() is Effort.FULL


@given(
    steps=st.lists(st.sampled_from([Rank.FIRST, Rank.LAST, "take", "end"]), max_size=80),
    threaded=st.sets(st.integers(0, 80)),
    workers=st.integers(1, 3),
    max_concurrent=st.integers(1, 6),
)
def test_each_call_is_taken_or_refused_once_and_no_more_are_in_hand(
    steps: list[object], threaded: set[int], workers: int, max_concurrent: int
) -> None:
    load = make_load(workers, max_concurrent)
    came: list[Call] = []
    gone: list[Call] = []
    running = 0
    for number, step in enumerate(steps):
        if isinstance(step, Rank):
            came.append(make_call(step, threaded=number in threaded))
            refused = load.enter(came[-1], 0.0)
            if refused is not None:
                gone.append(refused[0])
        elif step == "take" and running < workers:
            call = load.take(threaded=number in threaded)
            if call is not None:
                assert call.threaded is (number in threaded)
                gone.append(call)
                running += 1
        elif step == "end" and running:
            load.ended(0.0)
            running -= 1
        assert running + load.waiting <= max_concurrent
    while (call := load.take() or load.take(threaded=True)) is not None:
        gone.append(call)
    assert sorted(map(id, gone)) == sorted(map(id, came))


def test_a_deadline_is_kept_on_a_clock_that_nobody_sets() -> None:
    assert ends_s(1_000.25, 1_000.0, 7.0, 2.0) == 7.25
    assert ends_s(2.0**63, 1_000.0, 7.0, 2.0) == 9.0  # how grpcio writes that there is none
    assert ends_s(999.0, 1_000.0, 7.0, 2.0) == 6.0


def test_who_is_refused_by_headers_is_judged_by_its_own_deadline() -> None:
    load = make_load()
    busy(load, seconds=3.0)
    refuses = EarlyRefusal(load, threading.Lock(), MemoryObserver(), 2.0, Rank.LAST, "Decide")
    assert refuses.of(10.0) is None  # also where that is later than what callers get that set none
    assert refuses.of(1.0) is not None
    assert refuses.of(math.inf) is not None


def test_what_one_was_told_holds_for_others_only_while_there_is_no_more_room() -> None:
    load = make_load(max_concurrent=3)
    busy(load, seconds=3.0)
    refuses = EarlyRefusal(load, threading.Lock(), MemoryObserver(), 60.0, Rank.LAST, "Decide")
    said = refuses.of(1.0)
    assert said is not None
    assert refuses.of(2.0) is said  # its turn would come in 3 s
    assert refuses.of(10.0) is None
    assert refuses.of(1.0) is not None
    for _ in range(2):
        load.enter(make_call(), 0.0)
    assert refuses.of(math.inf) is not None
    assert refuses.of(20.0) is not None  # no places are left, whatever its deadline
    load.take()
    load.ended(None)
    assert refuses.of(20.0) is None
    load.take()
    load.ended(None)
    load.ended(None)
    assert refuses.of(0.001) is None


def _call(refused: tuple[Call, Overloaded] | None) -> Call | None:
    return None if refused is None else refused[0]
