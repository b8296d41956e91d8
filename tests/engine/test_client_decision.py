"""Decisions that clients hand in: recorded as they were made, once, and nothing that cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.leeway.v1.service_pb2 import ClientDecision, DecideRequest
from engine.errors import InvalidRequest, UnknownDecisionPoint
from engine.records import FALLBACK_REASON_CLIENT
from engine.replay import mismatch
from engine.sampling import draw
from engine.serving.client_decision import client_decision
from engine.serving.service import DecisionService
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

POLICY = make_policy()
VECTOR = [0.5, 0.2, 0.2, 0.1]


class World:
    """A core over a log in memory."""

    def __init__(self) -> None:
        self.recorder = MemoryRecorder()
        self.observer = MemoryObserver()
        self.service = DecisionService({NAME: POINT}, {NAME: POLICY}, self.recorder, self.observer, 100)


def made(decision_id: str = "f1", vector: list[float] = VECTOR, **fields: object) -> ClientDecision:
    """Return what a client did, or with other fields what it cannot have done."""
    handed = ClientDecision(
        request=request(decision_id),
        probabilities=vector,
        chosen=draw(decision_id, "client", vector),
        salt="client",
        time_ms=TIME_MS - 60_000,
        detail="UNAVAILABLE",
    )
    for name, value in fields.items():
        handed.ClearField(name)  # type: ignore[arg-type]
        handed.MergeFrom(ClientDecision(**{name: value}))  # type: ignore[arg-type]
    return handed


def test_it_is_recorded_as_it_was_made_and_can_be_replayed() -> None:
    world = World()
    handed = made()
    answer = world.service.record(handed, TIME_MS).result(timeout=5)
    (decision,) = world.recorder.decisions
    assert list(decision.probabilities) == VECTOR
    assert decision.chosen == handed.chosen == answer.action_index
    assert decision.fallback == answer.fallback == FALLBACK_REASON_CLIENT
    assert decision.time_ms == TIME_MS - 60_000
    assert decision.policy_version == POLICY.version
    assert decision.fallback_detail == "UNAVAILABLE"
    assert mismatch(decision, POLICY) == ""
    decision.chosen = (decision.chosen + 1) % 4
    assert "drawn again" in mismatch(decision, POLICY)


def test_handed_in_twice_it_is_recorded_once() -> None:
    world = World()
    first, second = (world.service.record(made(), TIME_MS + n).result(timeout=5) for n in range(2))
    assert first == second
    assert len(world.recorder.records) == len(world.observer.decisions) == 1


def test_a_time_to_come_counts_as_now() -> None:
    assert client_decision(POLICY, made(time_ms=TIME_MS + 5_000), TIME_MS).time_ms == TIME_MS


def test_the_id_of_another_decision_is_refused() -> None:
    world = World()
    world.service.decide(request("f1"), TIME_MS).result(timeout=5)
    answer = world.service.record(made(), TIME_MS)
    with pytest.raises(InvalidRequest, match="'f1' belongs to another decision"):
        answer.result(timeout=5)
    assert len(world.recorder.records) == 1


WRONG: dict[str, tuple[Callable[[], ClientDecision], str]] = {
    "no id": (lambda: made(""), "decision_id: is empty"),
    "no time": (lambda: made(time_ms=0), "time_ms: is 0"),
    "another action": (lambda: made(chosen=(made().chosen + 1) % 4), "is drawn for this id"),
    "no vector": (lambda: made(probabilities=[]), "0 entries for 4 actions"),
    "too short": (lambda: made(probabilities=[1.0]), "1 entries for 4 actions"),
    "NaN": (lambda: made(probabilities=[math.nan, 1.0, 0.0, 0.0]), "is nan for action 0"),
    "negative": (lambda: made(probabilities=[-0.5, 1.0, 0.5, 0.0]), "is -0.5 for action 0"),
    "not 1": (lambda: made(probabilities=[0.5, 0.4, 0.0, 0.0]), "adds up to 0.9"),
    "no such feature": (lambda: made(request=_with_feature("age")), "context.features.age"),
    "an excluded action": (lambda: made(request=_excluding(0)), "for action 0, which is excluded"),
}


def _with_feature(name: str) -> DecideRequest:
    changed = request("f1")
    changed.context.named[name].number = 1.0
    return changed


def _excluding(index: int) -> DecideRequest:
    changed = request("f1")
    changed.actions[index].excluded = True
    return changed


@pytest.mark.parametrize(("build", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_have_been_is_refused(build: Callable[[], ClientDecision], words: str) -> None:
    world = World()
    with pytest.raises(InvalidRequest, match=words):
        world.service.record(build(), TIME_MS)
    assert world.recorder.records == []


def test_an_unknown_decision_point_is_refused() -> None:
    handed = made()
    handed.request.decision_point = "nowhere"
    with pytest.raises(UnknownDecisionPoint, match="nowhere"):
        World().service.record(handed, TIME_MS)


@given(
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda weights: sum(weights) > 1e-6),
    st.text(max_size=9),
)
def test_any_vector_that_is_one_is_taken(weights: list[float], name: str) -> None:
    vector = [weight / math.fsum(weights) for weight in weights]
    decision = client_decision(POLICY, made(f"f{name}", vector), TIME_MS)
    assert list(decision.probabilities) == vector
    assert vector[decision.chosen] > 0.0
