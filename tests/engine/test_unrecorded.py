"""Decisions that the log does not take, where they are answered all the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.api.leeway.v1.service_pb2 import DecideResponse, ReportRequest
from engine.errors import LogError
from engine.records import Decision
from engine.replay import mismatch
from engine.serving.service import DecisionService
from engine.serving.unrecorded import UnrecordedDecisions
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

POLICY = make_policy()
NEWER = make_policy(seed=2, update=1)


class World:
    """A core that answers whatever the log does."""

    def __init__(self, remembered: int = 1_000) -> None:
        self.recorder = MemoryRecorder()
        self.observer = MemoryObserver()
        self.service = DecisionService(
            {NAME: POINT}, {NAME: POLICY}, self.recorder, self.observer, remembered, answer_unrecorded=True
        )

    def ask(self, decision_id: str = "", *, now_ms: int = TIME_MS) -> DecideResponse:
        return self.service.decide(request(decision_id), now_ms).result(timeout=5)

    @property
    def recorded(self) -> int:
        return self.service.slot(NAME).decisions


@pytest.fixture
def world() -> World:
    world = World()
    world.recorder.failing = True
    return world


def without_flag(answer: DecideResponse) -> DecideResponse:
    plain = DecideResponse()
    plain.CopyFrom(answer)
    plain.ClearField("unrecorded")
    plain.ClearField("unrecorded_detail")
    return plain


def test_the_answer_is_that_of_the_policy_and_says_why_it_is_not_in_the_log(world: World) -> None:
    answer = world.ask("d1")
    assert (answer.unrecorded, answer.unrecorded_detail) == (True, "disk full")
    healthy = World().ask("d1")
    assert not healthy.unrecorded
    assert without_flag(answer) == healthy
    assert world.recorder.records == []
    assert (world.recorded, world.observer.unrecorded_at, len(world.observer.decisions)) == (0, [NAME], 1)


def test_asked_again_it_is_the_same_answer_however_the_policy_changed_and_still_flagged(world: World) -> None:
    first = world.ask("d1")
    world.service.swap(NEWER)
    assert world.ask("d1", now_ms=TIME_MS + 60_000) == first
    assert world.observer.unrecorded_at == [NAME]  # one decision, however often it was asked for


def test_asked_again_it_is_recorded_as_it_was_made_once_there_is_room(world: World) -> None:
    first = world.ask("d1")
    world.service.swap(NEWER)
    world.recorder.failing = False
    second, third = world.ask("d1", now_ms=TIME_MS + 60_000), world.ask("d1")
    assert not second.unrecorded
    assert second == third == without_flag(first)
    (decision,) = world.recorder.decisions
    assert decision.time_ms == TIME_MS
    assert mismatch(decision, POLICY) == ""
    assert (world.recorded, len(world.observer.decisions)) == (1, 1)


def test_one_whose_id_was_made_here_can_be_asked_for_again_by_it(world: World) -> None:
    first = world.ask()
    world.service.swap(NEWER)
    world.recorder.failing = False
    assert world.ask(first.decision_id) == without_flag(first)
    assert [decision.decision_id for decision in world.recorder.decisions] == [first.decision_id]


def test_many_who_ask_again_at_once_record_it_once(world: World) -> None:
    first = world.ask("d1")
    world.recorder.failing = False
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(world.ask, ["d1"] * 64))
    assert all(answer == without_flag(first) for answer in answers)
    assert (len(world.recorder.records), world.recorded) == (1, 1)


def test_an_outcome_is_refused_where_a_decision_is_answered(world: World) -> None:
    _, recorded = world.service.report(ReportRequest(decision_id="d1", value=0.5), TIME_MS)
    with pytest.raises(LogError, match="disk full"):
        recorded.result(timeout=5)


def test_a_defect_is_no_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(records: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.recorder, "record", record)
    with pytest.raises(RuntimeError, match="a defect"):
        world.ask("d1")


def test_an_answer_stays_the_same_when_there_is_no_room_to_keep_the_decision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.service._answers, "_unrecorded", UnrecordedDecisions(max_bytes=10))
    first = world.ask("d1")
    world.service.swap(NEWER)
    world.recorder.failing = False
    assert world.ask("d1") == first  # still flagged: it cannot be recorded any more
    assert world.recorder.records == []


def test_what_is_forgotten_is_forgotten_altogether() -> None:
    world = World(remembered=1)
    world.recorder.failing = True
    world.ask("d1")
    world.ask("d2")
    assert world.service._answers._unrecorded.take("d1") is None
    assert world.service._answers._unrecorded.take("d2") is not None


def test_decisions_are_kept_by_id_up_to_some_bytes() -> None:
    size = len(Decision(decision_id="d0", time_ms=1).SerializeToString())
    kept = UnrecordedDecisions(max_bytes=3 * size)
    for number in (0, 1, 2, 1, 3):
        kept.keep(Decision(decision_id=f"d{number}", time_ms=1))
    assert kept.take("d0") is None
    for number in (1, 2, 3):
        taken = kept.take(f"d{number}")
        assert taken is not None
        assert taken.decision_id == f"d{number}"
        assert kept.take(f"d{number}") is None
    for number in range(3):  # what was taken makes room
        kept.keep(Decision(decision_id=f"e{number}", time_ms=1))
    assert kept.take("e0") is not None
