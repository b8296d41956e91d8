"""The short way to a decision: the same bytes as the long one, or none at all."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.leeway.v1.parts_pb2 import DecideBatchRequestParts, DecideRequestParts, FeaturesParts
from engine.api.leeway.v1.service_pb2 import (
    DecideBatchItem,
    DecideBatchRequest,
    DecideBatchResponse,
    DecideRequest,
    DecideResponse,
)
from engine.config import DecisionPoint, LimitsConfig
from engine.effort import Effort
from engine.errors import LogError
from engine.oracles import LinearOracle
from engine.policy import Policy
from engine.records import Action, Features, Value
from engine.replay import mismatch
from engine.serving.deciding import decide, response
from engine.serving.direct import Direct
from engine.serving.limits import Limits
from engine.serving.sealing import batch_item, batch_response
from engine.serving.service import DecisionService
from engine.serving.stages import StageTimes
from tests.engine.samples import MemoryObserver, MemoryRecorder

NOW_MS = 1_767_225_600_123
POINT = DecisionPoint.model_validate(
    {
        "context": {"amount": {"type": "number", "scale": 2.0}, "taste": {"type": "vector", "size": 2}},
        "actions": {
            "features": {"colour": {"type": "text", "buckets": 3}, "price": {"type": "number", "scale": 0.5}},
            "max": 6,
        },
        "policy": {"exploration": {"kind": "squarecb"}},
    }
)
KNOWN = ("a", "b", "c")


def policy(point: DecisionPoint = POINT, theta: np.ndarray | None = None) -> Policy:
    if theta is None:
        theta = np.random.default_rng(3).normal(scale=0.2, size=(1 + len(KNOWN), 1 + 7))
    return Policy("offers", point, KNOWN, LinearOracle(theta), 1, update=2, learned=40, created_ms=1)


POLICY = policy()
LIMITS = Limits(LimitsConfig())


def parts(request: DecideRequest) -> DecideRequestParts:
    return DecideRequestParts.FromString(request.SerializeToString())


def asked(
    ids: Sequence[str] = ("a", "x"),
    prices: Sequence[float] | None = None,
    *,
    excluded: Sequence[bool] = (),
    **more: object,
) -> DecideRequest:
    prices = [0.5 * place for place in range(len(ids))] if prices is None else prices
    request = DecideRequest(
        decision_point="offers",
        context=Features(packed=struct.pack("<3f", 0.25, -1.0, 3.0)),
        actions=[Action(id=i, excluded=e) for i, e in zip(ids, excluded or [False] * len(ids), strict=True)],
        packed_actions=struct.pack(f"<{len(prices)}f", *prices),
    )
    request.MergeFrom(DecideRequest(**more))  # type: ignore[arg-type]
    return request


numbers = st.floats(-1e6, 1e6, width=32)
requests = st.builds(
    lambda candidates, context, deferred: DecideRequest(
        decision_point="offers",
        context=Features(packed=struct.pack("<3f", *context)),
        actions=[Action(id=identity, excluded=excluded) for identity, _, excluded in candidates],
        packed_actions=struct.pack(f"<{len(candidates)}f", *(price for _, price, _ in candidates)),
        defer_activation=deferred,
    ),
    st.lists(
        st.tuples(st.text(min_size=1, max_size=4), numbers, st.booleans()),
        min_size=1,
        max_size=6,
        unique_by=lambda candidate: candidate[0],
    ).filter(lambda candidates: not all(excluded for _, _, excluded in candidates)),
    st.tuples(numbers, numbers, numbers),
    st.booleans(),
)


@settings(max_examples=40)
@given(st.lists(requests, min_size=1, max_size=5), st.integers(1, 2**60))
def test_record_and_answer_are_those_of_the_long_way_byte_for_byte(batch: list[DecideRequest], now_ms: int) -> None:
    direct = Direct(POLICY, LIMITS)
    ids = [f"{place:032x}" for place in range(len(batch))]
    together = direct.make_each([parts(request) for request in batch], ids, now_ms, StageTimes())
    for request, decision_id, in_batch in zip(batch, ids, together, strict=True):
        long_way = decide(POLICY, request, decision_id, now_ms)
        made = direct.make(parts(request), decision_id, now_ms, StageTimes())
        assert made is not None
        assert made == in_batch
        assert made.data == long_way.SerializeToString()
        assert made.answer == response(long_way).SerializeToString()
        assert made.propensity == long_way.probabilities[long_way.chosen]
        assert (made.decision_id, made.decision_point, made.time_ms) == (decision_id, "offers", now_ms)
        assert mismatch(made.decision(), POLICY) == ""


@pytest.mark.parametrize("effort", [Effort.ALONE, Effort.OVERLOAD, Effort.DEADLINE])
@pytest.mark.parametrize("excluded", [[], [True, False]])
def test_what_is_made_with_less_effort_is_that_of_the_long_way(effort: Effort, excluded: list[bool]) -> None:
    for request in (asked(excluded=excluded), asked(excluded=excluded, defer_activation=True)):
        made = Direct(POLICY, LIMITS).make(parts(request), "d1", NOW_MS, StageTimes(), effort)
        long_way = decide(POLICY, request, "d1", NOW_MS, effort=effort)
        assert made is not None
        assert made.data == long_way.SerializeToString()
        assert made.answer == response(long_way).SerializeToString()
        assert (made.propensity, made.fallback) == (long_way.probabilities[long_way.chosen], effort.fallback)
        assert mismatch(made.decision(), POLICY) == ""


def test_a_fallback_is_counted_as_one() -> None:
    recorder = MemoryRecorder()
    service = served(recorder)
    for effort in (Effort.FULL, Effort.OVERLOAD):
        assert isinstance(service.answer(parts(asked()), NOW_MS, effort=effort), bytes)
    assert [decision.fallback for decision in recorder.decisions] == [0, Effort.OVERLOAD.fallback]
    assert (service.slots["offers"].decisions, service.slots["offers"].fallbacks) == (2, 1)


@pytest.mark.parametrize(
    "exploration",
    [{"kind": "squarecb", "form": "normalised"}, {"kind": "squarecb"}, {"kind": "epsilon_greedy"}, {"kind": "uniform"}],
    ids=lambda exploration: "-".join(exploration.values()),
)
@pytest.mark.parametrize("uniform_share", [0.0, 0.25])
def test_many_at_once_get_the_vectors_of_each_alone(exploration: dict[str, str], uniform_share: float) -> None:
    point = POINT.model_dump(mode="json") | {"policy": {"exploration": exploration}, "reward": {"range": [-1.0, 3.0]}}
    made_by = replace(policy(DecisionPoint.model_validate(point)), uniform_share=uniform_share)
    for excluded in ([], [True, False]):
        batch = [asked(), asked(["b", "x"], excluded=excluded), asked(["c"])]
        ids = ["d1", "d2", "d3"]
        together = Direct(made_by, LIMITS).make_each([parts(one) for one in batch], ids, NOW_MS, StageTimes())
        for one, decision_id, made in zip(batch, ids, together, strict=True):
            assert made is not None
            assert made.data == decide(made_by, one, decision_id, NOW_MS).SerializeToString()


@pytest.mark.parametrize(
    "request_",
    [
        asked([]),
        asked(["a"] * 2),
        asked(["a", ""]),
        asked([f"i{place}" for place in range(7)]),  # more than actions.max
        asked(["i" * 5_000]),
        asked(decision_id="i" * 5_000),
        asked(excluded=[True, True]),
        asked(prices=[1.0]),
        asked(prices=[1.0, float("nan")]),
        asked(prices=[1.0, 3.4e38], context=Features(packed=struct.pack("<3f", 3e38, 0, 0))),  # finite until scaled
        DecideRequest(decision_point="offers", actions=[Action(id="a")], packed_actions=bytes(4)),
        asked(context=Features(named={"taste": Value(text="x")})),
        DecideRequest(
            decision_point="offers",
            context=Features(packed=bytes(12)),
            actions=[Action(id="a", features={"colour": Value(text="red")})],
            packed_actions=bytes(4),
        ),
    ],
)
def test_what_is_more_than_packed_numbers_or_is_to_be_refused_goes_the_long_way(request_: DecideRequest) -> None:
    direct = Direct(POLICY, LIMITS)
    assert direct.make(parts(request_), "d1", NOW_MS, StageTimes()) is None
    good = parts(asked())
    [first, second] = direct.make_each([parts(request_), good], ["d1", "d2"], NOW_MS, StageTimes())
    assert first is None
    assert second in (None, direct.make(good, "d2", NOW_MS, StageTimes()))


def test_a_clock_that_has_no_time_goes_the_long_way() -> None:
    direct = Direct(POLICY, LIMITS)
    for now_ms in (0, -5):
        assert direct.make(parts(asked()), "d1", now_ms, StageTimes()) is None
        assert direct.make_each([parts(asked())], ["d1"], now_ms, StageTimes()) == [None]


def test_parts_that_are_no_messages_go_the_long_way() -> None:
    direct = Direct(POLICY, LIMITS)
    for broken in ({"context": b"\xff"}, {"actions": [b"\x0a\x01\xff"]}):
        request = DecideRequestParts(decision_point="offers", **{"actions": [b"\x0a\x01a"], **broken})  # type: ignore[arg-type]
        assert direct.make(request, "d1", NOW_MS, StageTimes()) is None


def test_an_oracle_that_fails_leaves_the_fallback_to_the_long_way() -> None:
    direct = Direct(policy(theta=np.full((1 + len(KNOWN), 1 + 7), 1e308)), LIMITS)
    assert direct.make(parts(asked()), "d1", NOW_MS, StageTimes()) is None
    assert direct.make_each([parts(asked())], ["d1"], NOW_MS, StageTimes()) == [None]


def test_sets_of_actions_are_forgotten_before_they_take_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.serving.direct._REMEMBERED", 10)
    direct = Direct(POLICY, LIMITS)
    for place in range(100):
        assert direct.make(parts(asked([f"i{place}", "a"])), "d1", NOW_MS, StageTimes()) is not None
        assert len(direct._sets) <= 5


class Coarse(LinearOracle):
    """Gives float32, which no oracle of ours does."""

    def predict(self, X: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return super().predict(X, codes).astype(np.float32)


def test_scores_of_another_type_are_written_as_doubles() -> None:
    coarse = replace(POLICY, oracle=Coarse(POLICY.oracle.theta.copy()))  # type: ignore[attr-defined]
    made = Direct(coarse, LIMITS).make(parts(asked()), "d1", NOW_MS, StageTimes())
    assert made is not None
    assert made.data == decide(coarse, asked(), "d1", NOW_MS).SerializeToString()


def served(recorder: MemoryRecorder, *, answer_unrecorded: bool = False) -> DecisionService:
    return DecisionService(
        {"offers": POINT}, {"offers": POLICY}, recorder, MemoryObserver(), answer_unrecorded=answer_unrecorded
    )


def test_an_answer_comes_at_once_and_its_record_is_in_the_log() -> None:
    recorder = MemoryRecorder()
    service = served(recorder)
    answer = service.answer(parts(asked()), NOW_MS)
    assert isinstance(answer, bytes)
    assert DecideResponse.FromString(answer) == response(recorder.decisions[0])
    assert (service.slots["offers"].decisions, service.times.count("score"), service.times.count("record")) == (1, 1, 1)


def test_the_same_id_gets_the_same_answer_and_one_record() -> None:
    recorder = MemoryRecorder()
    service = served(recorder)
    first, again = (service.answer(parts(asked(decision_id="mine")), now) for now in (NOW_MS, NOW_MS + 5))
    assert not isinstance(first, bytes)
    assert not isinstance(again, bytes)
    assert first.result(1.0) == again.result(1.0)
    [long_way] = service.decide_each([asked(decision_id="mine")], NOW_MS)
    assert not isinstance(long_way, Exception)
    assert long_way.result(1.0) == first.result(1.0)
    assert len(recorder.decisions) == 1


def test_an_answer_waits_for_a_log_that_takes_its_time() -> None:
    recorder = MemoryRecorder()
    recorder.held = True
    answers = served(recorder).answer_each([parts(asked()), parts(asked(["c"]))], NOW_MS)
    assert not any(isinstance(answer, bytes | Exception) or answer.done() for answer in answers)
    recorder.confirm()
    given = [answer.result(1.0) for answer in answers if not isinstance(answer, bytes | Exception)]
    assert given == [response(decision) for decision in recorder.decisions]


def test_what_the_log_does_not_take_is_refused_or_flagged_and_recorded_when_asked_again() -> None:
    recorder = MemoryRecorder()
    recorder.failing = True
    refused = served(recorder).answer(parts(asked()), NOW_MS)
    assert not isinstance(refused, bytes)
    with pytest.raises(LogError, match="disk full"):
        refused.result(1.0)
    service = served(recorder, answer_unrecorded=True)
    for answer in service.answer_each([parts(asked()), parts(asked())], NOW_MS):
        assert not isinstance(answer, bytes | Exception)
        flagged = answer.result(1.0)
        assert (flagged.unrecorded, flagged.unrecorded_detail) == (True, "disk full")
    recorder.failing = False
    again = service.answer(parts(asked(decision_id=flagged.decision_id)), NOW_MS + 9)
    assert not isinstance(again, bytes)
    assert not again.result(1.0).unrecorded
    assert [(d.decision_id, d.time_ms) for d in recorder.decisions] == [(flagged.decision_id, NOW_MS)]


def test_items_of_a_batch_that_go_different_ways_keep_their_places() -> None:
    recorder = MemoryRecorder()
    named = asked()
    named.context.Clear()
    named.context.named["amount"].number = 0.25
    batch = [asked(), named, asked([]), asked(decision_id="mine"), DecideRequest(decision_point="none"), asked(["c"])]
    answers = served(recorder).answer_each([parts(one) for one in batch], NOW_MS)
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == ["bytes", "Future", "InvalidRequest", "Future", "UnknownDecisionPoint", "bytes"]
    assert len(recorder.decisions) == 4


def test_a_batch_of_answers_is_written_as_protobuf_writes_it() -> None:
    answers = [response(decide(POLICY, asked(), f"d{place}", NOW_MS)) for place in range(3)]
    items = [DecideBatchItem(response=answer) for answer in answers]
    assert [batch_item(answer.SerializeToString()) for answer in answers] == [i.SerializeToString() for i in items]
    whole = batch_response([item.SerializeToString() for item in items])
    assert whole == DecideBatchResponse(items=items).SerializeToString()


@pytest.mark.parametrize(
    ("one", "of"),
    [
        (FeaturesParts.DESCRIPTOR, Features.DESCRIPTOR),
        (DecideRequestParts.DESCRIPTOR, DecideRequest.DESCRIPTOR),
        (DecideBatchRequestParts.DESCRIPTOR, DecideBatchRequest.DESCRIPTOR),
    ],
)
def test_parts_have_every_field_of_what_they_stand_for(one: Descriptor, of: Descriptor) -> None:
    """On the wire a message within a message is as bytes are."""

    def form(field: FieldDescriptor) -> tuple[str, int, bool, bool]:
        nested = field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES)
        return field.name, 0 if nested else field.type, field.is_repeated, nested

    assert {field.number: form(field) for field in one.fields} == {field.number: form(field) for field in of.fields}
