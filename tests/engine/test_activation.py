"""Deferred decisions and their activation, as far as the server has a part in them."""

from __future__ import annotations

import pytest

from engine.api.leeway.v1.service_pb2 import ActivateRequest, Choice, ClientDecision
from engine.client.testing import FakeClient, FakeEngine
from engine.config import DecisionPoint
from engine.errors import InvalidRequest, LogError, UnknownDecisionPoint
from engine.records import Outcome
from engine.replay import mismatch
from engine.sampling import draw
from engine.serving.service import DecisionService
from tests.engine.http.face import BODY, serving
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

POLICY = make_policy()


def service(recorder: MemoryRecorder, point: DecisionPoint = POINT) -> DecisionService:
    return DecisionService({NAME: point}, {NAME: POLICY}, recorder, MemoryObserver(), 100)


@pytest.mark.parametrize("mode", ["online", "logging_only"])
def test_what_is_deferred_is_decided_as_ever_and_marked(mode: str) -> None:
    now, later = MemoryRecorder(), MemoryRecorder()
    point = POINT.model_copy(update={"mode": mode})
    asked = request("d1")
    answer = service(now, point).decide(asked, TIME_MS).result(timeout=5)
    asked.defer_activation = True
    assert service(later, point).decide(asked, TIME_MS).result(timeout=5) == answer
    (decision,) = later.decisions
    assert decision.deferred
    assert mismatch(decision, POLICY) == ""
    decision.deferred = False
    assert decision == now.decisions[0]


@pytest.mark.parametrize("stated", [False, True])
def test_what_a_client_decided_by_itself_stays_deferred(stated: bool) -> None:
    recorder = MemoryRecorder()
    vector = [0.25] * 4
    made = ClientDecision(request=request("f1"), probabilities=vector, time_ms=TIME_MS)
    made.request.defer_activation = True
    if stated:
        made.request.choice.CopyFrom(Choice(chosen=1, probabilities=vector))
        made.chosen = 1
    else:
        made.salt = "client"
        made.chosen = draw("f1", "client", vector)
    service(recorder).record(made, TIME_MS).result(timeout=5)
    assert recorder.decisions[0].deferred


def test_an_activation_goes_to_the_log_among_the_outcomes() -> None:
    recorder = MemoryRecorder()
    service(recorder).activate(ActivateRequest(decision_id="d1", decision_point=NAME), TIME_MS).result(timeout=5)
    service(recorder).activate(ActivateRequest(decision_id="d2", time_ms=7), TIME_MS).result(timeout=5)
    assert recorder.outcomes == [
        Outcome(decision_id="d1", decision_point=NAME, time_ms=TIME_MS, activation=True),
        Outcome(decision_id="d2", time_ms=7, activation=True),
    ]


def test_what_is_wrong_with_an_activation_is_said_at_once() -> None:
    served = service(MemoryRecorder())
    with pytest.raises(InvalidRequest, match="decision_id: is empty"):
        served.activate(ActivateRequest(), TIME_MS)
    with pytest.raises(InvalidRequest, match="time_ms: is -1"):
        served.activate(ActivateRequest(decision_id="d", time_ms=-1), TIME_MS)
    with pytest.raises(InvalidRequest, match=r"decision_id: .* is longer than"):
        served.activate(ActivateRequest(decision_id="d" * 10_000), TIME_MS)
    with pytest.raises(UnknownDecisionPoint, match="nowhere"):
        served.activate(ActivateRequest(decision_id="d", decision_point="nowhere"), TIME_MS)


def test_an_activation_that_the_log_does_not_take_is_no_success() -> None:
    recorder = MemoryRecorder()
    recorder.failing = True
    with pytest.raises(LogError, match="disk full"):
        service(recorder).activate(ActivateRequest(decision_id="d"), TIME_MS).result(timeout=5)


def test_over_http() -> None:
    with serving() as face:
        assert face.post("decide", BODY | {"defer_activation": True}).status == 200
        answer = face.post("activate", {"decision_id": "d1"})
        assert (answer.status, answer.body) == (200, {})
        (decision,), (outcome,) = face.recorder.decisions, face.recorder.outcomes
        assert decision.deferred
        assert (outcome.decision_id, outcome.activation) == ("d1", True)
        assert face.post("activate", {}).status == 400


def test_the_client_defers_and_activates() -> None:
    engine = FakeEngine()
    with FakeClient(engine) as client:
        answer = client.decide("offers", {}, ["a", "b"], "d1", defer_activation=True)
        client.activate(answer.decision_id, point="offers")
    asked = engine.requests["d1"]
    assert asked.defer_activation  # type: ignore[union-attr]
    assert engine.activated == {"d1"}
