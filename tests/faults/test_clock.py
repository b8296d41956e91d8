"""A clock that is set forwards or back by hours: answers stay true, and the join forgets and repeats nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.channel import open_channel
from engine.records import DEAD_LETTER_REASON_INVALID, Decision
from engine.replay import mismatch
from streaming.join import Joiner, Source
from streaming.patience import LEAST_PATIENCE_MS
from tests.engine.samples import NAME, TIME_MS, make_policy, request
from tests.engine.serving.world import served
from tests.streaming import joining
from tests.streaming.joining import GRACE, POINTS, WINDOW

HOURS_MS = 6 * 3_600_000
PATIENCE_S = 20.0
NOW_MS = 1_000_000_000
SKEW_MS = 300_000


@pytest.mark.parametrize("jump_ms", [HOURS_MS, -HOURS_MS])
def test_serving_goes_on_when_its_clock_jumps(tmp_path: Path, jump_ms: int) -> None:
    with served(tmp_path) as world, open_channel(world.target) as channel:
        stub = service_pb2_grpc.LeewayStub(channel)
        first = stub.Decide(request("before"), timeout=PATIENCE_S)
        world.now_ms += jump_ms
        assert stub.Decide(request("before"), timeout=PATIENCE_S) == first  # a retry over the jump
        stub.Decide(request("after"), timeout=PATIENCE_S)
        report = service_pb2.ReportRequest(decision_id="before", decision_point=NAME, value=1.0)
        assert stub.Report(report, timeout=PATIENCE_S).outcome_id
        decisions = world.recorder.decisions
        assert [decision.time_ms for decision in decisions] == [TIME_MS, TIME_MS + jump_ms]
        assert [mismatch(decision, make_policy()) for decision in decisions] == ["", ""]


def _joiner() -> Joiner:
    joiner = Joiner(POINTS)
    joiner.on_time(NOW_MS, SKEW_MS)
    return joiner


def _decision(decision_id: str, time_ms: int) -> Decision:
    return joining.decision(decision_id=decision_id, time_ms=time_ms)


def test_a_server_whose_clock_is_hours_ahead_closes_no_window_of_others() -> None:
    joiner = _joiner()
    told = joining.feed(
        joiner,
        _decision("good", NOW_MS),
        _decision("ahead", NOW_MS + HOURS_MS),
        joining.outcome(0.5, NOW_MS + 10, decision_id="good"),
    )
    assert [(reason, record.key) for reason, _, record in told.rejected] == [(DEAD_LETTER_REASON_INVALID, b"ahead")]
    told = joining.feed(joiner, *joining.ends(NOW_MS + WINDOW + GRACE + 1))
    assert [(f.decision.decision_id, f.reward) for f in told.feedback] == [("good", 0.5)]


def test_decisions_of_a_server_whose_clock_was_set_back_wait_for_their_outcomes() -> None:
    joiner = _joiner()
    joining.feed(joiner, _decision("before", NOW_MS), *joining.ends(NOW_MS + 1))
    back_ms = NOW_MS - HOURS_MS
    told = joining.feed(
        joiner,
        _decision("back", back_ms),
        joining.outcome(0.25, back_ms + 10, decision_id="back"),
        *joining.ends(NOW_MS + 2),
    )
    assert told.feedback == []
    told = joining.feed(joiner, *joining.ends(NOW_MS + LEAST_PATIENCE_MS + WINDOW + GRACE))
    assert {f.decision.decision_id: f.reward for f in told.feedback} == {"before": -0.5, "back": 0.25}
    book = joiner.accounting()["last"]
    assert (book.decisions, book.feedback, book.pending) == (2, 2, 0)


def test_a_join_whose_own_clock_is_set_back_opens_no_window_again() -> None:
    joiner = _joiner()
    told = joining.feed(joiner, _decision("one", NOW_MS), *joining.ends(NOW_MS + WINDOW + GRACE + 1))
    assert len(told.feedback) == 1
    watermark_ms = joiner.watermark_ms
    joiner.on_time(NOW_MS - HOURS_MS, SKEW_MS)
    for source in Source:
        joiner.on_end(source, NOW_MS - HOURS_MS)
    assert joiner.watermark_ms == watermark_ms
    told = joining.feed(joiner, joining.outcome(0.5, NOW_MS - HOURS_MS, decision_id="one"))
    assert told.feedback == []
    book = joiner.accounting()["last"]
    assert (book.decisions, book.feedback, book.pending) == (1, 1, 0)
