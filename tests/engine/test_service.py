from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse, ReportRequest
from engine.config import DecisionPoint, RewardConfig
from engine.effort import Effort
from engine.errors import InvalidRequest, LogError, UnknownDecisionPoint
from engine.oracles import LinearOracle
from engine.policy import Policy
from engine.records import (
    FALLBACK_REASON_DEADLINE,
    FALLBACK_REASON_NONE,
    FALLBACK_REASON_ORACLE_FAILED,
    MAX_ID_LENGTH,
)
from engine.replay import mismatch
from engine.sampling import draw
from engine.serving.deciding import decide
from engine.serving.service import DecisionService
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

POLICY = make_policy()
OTHER = "banners"
BROKEN = make_policy(oracle=LinearOracle(np.zeros((1, 1))))


class World:
    """A core over a log in memory, with two decision points."""

    def __init__(self, policy: Policy = POLICY, *, point: DecisionPoint = POINT, remembered: int = 1_000) -> None:
        self.recorder = MemoryRecorder()
        self.observer = MemoryObserver()
        self.service = DecisionService(
            {NAME: point, OTHER: POINT},
            {NAME: policy, OTHER: make_policy(name=OTHER)},
            self.recorder,
            self.observer,
            remembered,
        )

    def ask(self, decision_id: str = "", *, now_ms: int = TIME_MS, effort: Effort = Effort.FULL) -> DecideResponse:
        return self.service.decide(request(decision_id), now_ms, effort=effort).result(timeout=5)


@pytest.fixture
def world() -> World:
    return World()


def test_an_answer_is_what_was_recorded_and_drawn(world: World) -> None:
    sent = request("d1")
    answer = world.service.decide(sent, TIME_MS).result(timeout=5)
    (decision,) = world.recorder.decisions
    assert decision.context == sent.context
    assert list(decision.actions) == list(sent.actions)
    assert (decision.decision_id, decision.decision_point, decision.time_ms) == ("d1", NAME, TIME_MS)
    assert decision.policy_version == answer.policy_version == POLICY.version
    assert list(answer.probabilities) == list(decision.probabilities)
    assert answer.action_index == decision.chosen == draw("d1", POINT.policy.salt, list(decision.probabilities))
    assert answer.action == sent.actions[decision.chosen].id
    assert answer.propensity == decision.probabilities[decision.chosen] > 0.0
    assert (answer.fallback, decision.fallback) == (FALLBACK_REASON_NONE, FALLBACK_REASON_NONE)
    assert mismatch(decision, POLICY) == ""


def test_no_answer_before_the_log_has_it(world: World) -> None:
    world.recorder.held = True
    answer = world.service.decide(request("d1"), TIME_MS)
    assert not answer.done()
    assert world.service.slot(NAME).decisions == 0
    world.recorder.confirm()
    assert answer.result(timeout=5).decision_id == "d1"
    assert world.service.slot(NAME).decisions == 1


def test_a_request_without_an_id_gets_one_and_each_is_a_decision_of_its_own(world: World) -> None:
    ids = {world.ask().decision_id for _ in range(20)}
    assert len(ids) == 20
    assert {decision.decision_id for decision in world.recorder.decisions} == ids


def test_a_retry_gets_the_same_answer_and_is_recorded_once(world: World) -> None:
    first = world.ask("d1")
    again = world.ask("d1", now_ms=TIME_MS + 60_000, effort=Effort.DEADLINE)
    assert again == first
    assert len(world.recorder.records) == len(world.observer.decisions) == world.service.slot(NAME).decisions == 1


def test_a_retry_after_a_swap_gets_the_answer_of_the_policy_that_decided(world: World) -> None:
    first = world.ask("d1")
    newer = make_policy(seed=2, update=1)
    world.service.swap(newer)
    assert world.ask("d1") == first
    assert world.ask("d2").policy_version == newer.version


def test_a_retry_while_the_first_is_on_its_way_waits_for_the_same_answer(world: World) -> None:
    world.recorder.held = True
    first, second = (world.service.decide(request("d1"), TIME_MS) for _ in range(2))
    assert not second.done()
    world.recorder.confirm()
    assert first.result(timeout=5) == second.result(timeout=5)
    assert len(world.recorder.records) == 1


def test_the_same_id_from_many_threads_is_one_decision() -> None:
    class Slow(LinearOracle):
        """Scores while all the others have long asked."""

        def predict(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
            entered.wait(0.05)
            return super().predict(X, codes)

    entered = threading.Event()
    assert isinstance(POLICY.oracle, LinearOracle)
    world = World(make_policy(oracle=Slow(POLICY.oracle.theta.copy())))
    start = threading.Barrier(16)

    def ask(_: int) -> bytes:
        start.wait()
        return world.ask("d1").SerializeToString(deterministic=True)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, range(16)))
    assert len(set(answers)) == 1
    assert len(world.recorder.records) == 1
    assert world.service.slot(NAME).decisions == 1


def test_many_ids_from_many_threads_are_all_recorded_and_counted_once(world: World) -> None:
    ids = [f"d{i % 100}" for i in range(400)]
    with ThreadPoolExecutor(8) as threads:
        answers = dict(zip(ids, threads.map(world.ask, ids), strict=True))
    recorded = {decision.decision_id: decision for decision in world.recorder.decisions}
    assert len(world.recorder.records) == len(recorded) == 100 == world.service.slot(NAME).decisions
    for identity, answer in answers.items():
        assert list(answer.probabilities) == list(recorded[identity].probabilities)


def test_what_could_not_be_recorded_was_not_decided_and_a_retry_decides_anew(world: World) -> None:
    world.recorder.failing = True
    with pytest.raises(LogError, match="disk full"):
        world.ask("d1")
    assert world.recorder.records == []
    assert world.observer.decisions == []
    assert world.service.slot(NAME).decisions == 0
    world.recorder.failing = False
    newer = make_policy(seed=2, update=1)
    world.service.swap(newer)
    assert world.ask("d1", now_ms=TIME_MS + 7).policy_version == newer.version
    (decision,) = world.recorder.decisions
    assert decision.time_ms == TIME_MS + 7


def test_a_failed_recording_ends_every_retry_that_waits_for_it(world: World) -> None:
    world.recorder.held = world.recorder.failing = True
    waiting = [world.service.decide(request("d1"), TIME_MS) for _ in range(3)]
    world.recorder.confirm()
    for answer in waiting:
        with pytest.raises(LogError):
            answer.result(timeout=5)


def test_a_recorder_that_raises_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(records: object) -> Future[None]:
        raise LogError("closed")

    monkeypatch.setattr(world.recorder, "record", record)
    with pytest.raises(LogError, match="closed"):
        world.service.decide(request("d1"), TIME_MS)
    monkeypatch.undo()
    assert world.ask("d1").decision_id == "d1"


def test_a_refused_request_leaves_its_id_free(world: World) -> None:
    wrong = request("d1")
    wrong.context.named["age"].number = 1.0
    with pytest.raises(InvalidRequest, match="age"):
        world.service.decide(wrong, TIME_MS)
    assert world.ask("d1").decision_id == "d1"


def test_too_little_time_gives_the_uniform_fallback_with_its_reason(world: World) -> None:
    sent = request("d1")
    sent.actions[2].excluded = True
    answer = world.service.decide(sent, TIME_MS, effort=Effort.DEADLINE).result(timeout=5)
    (decision,) = world.recorder.decisions
    assert answer.fallback == decision.fallback == FALLBACK_REASON_DEADLINE
    assert "deadline" in answer.fallback_detail
    assert list(answer.probabilities) == list(decision.probabilities) == [1 / 3, 1 / 3, 0.0, 1 / 3]
    assert answer.propensity == 1 / 3
    assert not decision.scores
    slot = world.service.slot(NAME)
    assert (slot.decisions, slot.fallbacks) == (1, 1)


def test_too_little_time_does_not_ask_the_oracle() -> None:
    class Untouchable(LinearOracle):
        def predict(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
            raise AssertionError("asked")

    world = World(make_policy(oracle=Untouchable(np.zeros((1, 1)))))
    assert world.ask(effort=Effort.DEADLINE).fallback == FALLBACK_REASON_DEADLINE


def test_a_failing_oracle_gives_the_uniform_fallback_with_its_true_propensity() -> None:
    world = World(BROKEN)
    n = 3_000
    chosen = [world.ask(f"d{i}").action_index for i in range(n)]
    for decision in world.recorder.decisions:
        assert decision.fallback == FALLBACK_REASON_ORACLE_FAILED
        assert decision.fallback_detail
        assert list(decision.probabilities) == [0.25] * 4
        assert not decision.scores
    counts = np.bincount(chosen, minlength=4)
    # Quantile 0.999 of chi-square with three degrees of freedom.
    assert ((counts - n / 4) ** 2 / (n / 4)).sum() < 16.27
    assert world.service.slot(NAME).fallbacks == n
    world.service.swap(POLICY)
    assert world.ask("mended").fallback == FALLBACK_REASON_NONE
    assert world.service.slot(NAME).fallbacks == n


def test_the_propensity_is_that_of_the_acting_policy_through_any_number_of_swaps() -> None:
    world = World()
    policies = [make_policy(seed, update=seed, uniform_share=0.1 * (seed % 3)) for seed in range(6)] + [BROKEN]
    by_version = {policy.version: policy for policy in [POLICY, *policies]}
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for policy in policies:
                world.service.swap(policy)

    with ThreadPoolExecutor(5) as threads:
        swapping = threads.submit(swap)
        try:
            answers = list(threads.map(world.ask, [f"d{i}" for i in range(400)]))
        finally:
            done.set()
        swapping.result()
    for decision in world.recorder.decisions:
        assert mismatch(decision, by_version[decision.policy_version]) == ""
    assert len({answer.policy_version for answer in answers}) > 1


def test_an_id_of_another_decision_point_is_refused(world: World) -> None:
    world.ask("d1")
    with pytest.raises(InvalidRequest, match="'d1' belongs to a decision of 'offers'; use an id once") as caught:
        world.service.decide(request("d1", OTHER), TIME_MS)
    assert caught.value.field == "decision_id"
    assert world.service.decide(request("d2", OTHER), TIME_MS).result(timeout=5).decision_id == "d2"
    assert world.service.slot(OTHER).decisions == world.service.slot(NAME).decisions == 1


def test_an_unknown_decision_point_is_refused_with_the_known_ones(world: World) -> None:
    refused: list[Callable[[], object]] = [
        lambda: world.service.decide(request("d1", "oofers"), TIME_MS),
        lambda: world.service.report(ReportRequest(decision_id="d1", value=1.0, decision_point="oofers"), TIME_MS),
        lambda: world.service.swap(make_policy(name="oofers")),
    ]
    for call in refused:
        with pytest.raises(UnknownDecisionPoint, match="'oofers' is not configured; known are: banners, offers"):
            call()


def test_an_id_beyond_the_length_is_refused_and_of_the_length_is_not(world: World) -> None:
    with pytest.raises(InvalidRequest, match=r"decision_id: .* has 257 characters, and is longer than 256"):
        world.ask("x" * (MAX_ID_LENGTH + 1))
    assert world.ask("x" * MAX_ID_LENGTH).decision_id == "x" * MAX_ID_LENGTH


def test_the_oldest_ids_are_forgotten_first() -> None:
    world = World(remembered=3)
    for identity in ("d1", "d2", "d3", "d4"):
        world.ask(identity)
    world.service.swap(make_policy(seed=2, update=1))
    assert world.ask("d4").policy_version == POLICY.version
    assert world.ask("d2").policy_version == POLICY.version
    assert world.ask("d1").policy_version != POLICY.version
    assert len(world.recorder.records) == 5


def test_nothing_is_remembered_where_nothing_should_be() -> None:
    world = World(remembered=0)
    world.ask("d1")
    world.ask("d1")
    assert len(world.recorder.records) == 2


def test_a_decision_under_way_is_known_however_little_is_remembered() -> None:
    world = World(remembered=0)
    world.recorder.held = True
    first, retry = (world.service.decide(request("d1"), TIME_MS) for _ in range(2))
    world.recorder.confirm()
    assert first.result(0) == retry.result(0)
    assert len(world.recorder.records) == 1


def test_a_decision_from_before_a_restart_is_known(world: World) -> None:
    first = world.ask("d1")
    (decision,) = world.recorder.decisions
    restarted = World(make_policy(seed=2, update=1))
    restarted.service.remember(decision)
    assert restarted.ask("d1") == first
    assert restarted.recorder.records == []
    with pytest.raises(InvalidRequest, match="belongs to a decision of 'offers'"):
        restarted.service.decide(request("d1", OTHER), TIME_MS)


def test_what_is_remembered_late_does_not_change_an_answer_that_was_given(world: World) -> None:
    world.ask("d1")
    (before,) = world.recorder.decisions
    restarted = World(make_policy(seed=2, update=1))
    given = restarted.ask("d1")
    restarted.service.remember(before)
    assert restarted.ask("d1") == given != world.ask("d1")


def test_making_a_decision_changes_neither_request_nor_policy() -> None:
    sent = request("d1")
    before = sent.SerializeToString(deterministic=True)
    one, other = (decide(POLICY, sent, "d1", TIME_MS) for _ in range(2))
    assert one == other
    assert sent.SerializeToString(deterministic=True) == before
    assert POLICY.version == make_policy().version


def test_an_empty_request_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest, match="decision_point: '' is not configured"):
        world.service.decide(DecideRequest(), TIME_MS)


def report(**fields: object) -> ReportRequest:
    return ReportRequest(**{"decision_id": "d1", "outcome_id": "o1", "value": 0.5, **fields})  # type: ignore[arg-type]


def test_an_outcome_is_recorded_as_it_was_reported(world: World) -> None:
    outcome_id, recorded = world.service.report(report(time_ms=77, decision_point=NAME), TIME_MS)
    recorded.result(timeout=5)
    (outcome,) = world.recorder.outcomes
    assert outcome_id == outcome.outcome_id == "o1"
    assert (outcome.decision_id, outcome.decision_point, outcome.time_ms, outcome.value) == ("d1", NAME, 77, 0.5)


def test_an_outcome_without_id_and_time_gets_both(world: World) -> None:
    ids = {world.service.report(report(outcome_id=""), TIME_MS)[0] for _ in range(10)}
    assert len(ids) == 10
    assert {outcome.outcome_id for outcome in world.recorder.outcomes} == ids
    assert {outcome.time_ms for outcome in world.recorder.outcomes} == {TIME_MS}


def test_an_outcome_that_the_log_does_not_take_says_so(world: World) -> None:
    world.recorder.failing = True
    _, recorded = world.service.report(report(), TIME_MS)
    with pytest.raises(LogError):
        recorded.result(timeout=5)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"decision_id": ""}, "decision_id"),
        ({"decision_id": "x" * 257}, "decision_id"),
        ({"outcome_id": "x" * 257}, "outcome_id"),
        ({"value": math.nan}, "value"),
        ({"value": math.inf}, "value"),
        ({"value": -math.inf}, "value"),
        ({"time_ms": -1}, "time_ms"),
        ({"decision_point": "oofers"}, "decision_point"),
        ({"decision_point": NAME, "value": 1.5}, "value"),
        ({"decision_point": NAME, "value": -0.1}, "value"),
    ],
)
def test_an_outcome_that_cannot_be_right_is_refused_by_the_name_of_its_field(
    world: World, wrong: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.service.report(report(**wrong), TIME_MS)
    assert caught.value.field == field
    assert world.recorder.records == []


@pytest.mark.parametrize("value", [0.0, 1.0, -0.0])
def test_the_ends_of_the_range_are_rewards(world: World, value: float) -> None:
    world.service.report(report(decision_point=NAME, value=value), TIME_MS)
    assert world.recorder.outcomes[0].value == value


def test_a_part_of_a_sum_may_lie_outside_the_range() -> None:
    point = POINT.model_copy(update={"reward": RewardConfig(aggregation="sum")})
    world = World(point=point)
    world.service.report(report(decision_point=NAME, value=-3.0), TIME_MS)
    assert world.recorder.outcomes[0].value == -3.0
