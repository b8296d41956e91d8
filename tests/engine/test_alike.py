"""Requests of a batch that are read all at once: the same decisions as one by one, or none at all."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.api.leeway.v1.service_pb2 import Choice, DecideBatchRequest, DecideRequest, DecideResponse
from engine.config import DecisionPoint
from engine.records import Action, Features, Value
from engine.serving.batch import Batch
from engine.serving.direct import Direct
from engine.serving.stages import StageTimes
from tests.engine.samples import MemoryRecorder
from tests.engine.test_direct import LIMITS, NOW_MS, POINT, POLICY, asked, numbers, policy, served

BARE = DecisionPoint.model_validate({"actions": {"max": 6}, "policy": {"exploration": {"kind": "squarecb"}}})


def batch(*requests: DecideRequest) -> Batch:
    return Batch(DecideBatchRequest(requests=requests).SerializeToString())


def made_both_ways(its: Batch, direct: Direct) -> tuple[object, list[object]]:
    ids = [f"{place:032x}" for place in range(len(its.requests))]
    [(requests, data)] = its.portions(len(its.requests))
    alike = direct.make_alike(requests, data, ids, NOW_MS, StageTimes())
    return alike, list(direct.make_each(requests, ids, NOW_MS, StageTimes()))


@st.composite
def alike_requests(draw: st.DrawFn) -> list[DecideRequest]:
    actions = draw(
        st.lists(
            st.tuples(st.text(min_size=1, max_size=4), st.booleans()), min_size=1, max_size=6, unique_by=lambda a: a[0]
        )
    )
    if all(excluded for _, excluded in actions):
        actions[0] = (actions[0][0], False)
    deferred = draw(st.booleans())
    return [
        DecideRequest(
            decision_point="offers",
            context=Features(packed=struct.pack("<3f", *context)),
            actions=[Action(id=identity, excluded=excluded) for identity, excluded in actions],
            packed_actions=struct.pack(f"<{len(actions)}f", *prices),
            defer_activation=deferred,
        )
        for context, prices in draw(
            st.lists(
                st.tuples(
                    st.tuples(numbers, numbers, numbers),
                    st.lists(numbers, min_size=len(actions), max_size=len(actions)),
                ),
                min_size=1,
                max_size=5,
            )
        )
    ]


@settings(max_examples=60)
@given(alike_requests())
def test_decisions_are_those_of_one_by_one_to_the_byte(requests: list[DecideRequest]) -> None:
    alike, each = made_both_ways(batch(*requests), Direct(POLICY, LIMITS))
    assert alike == each


def test_so_they_are_of_a_point_without_features() -> None:
    direct = Direct(policy(BARE, theta=np.zeros((4, 1))), LIMITS)
    bare = DecideRequest(decision_point="offers", actions=[Action(id="a"), Action(id="x")])
    alike, each = made_both_ways(batch(bare, bare), direct)
    assert alike == each
    assert each[0] is not None


def test_so_they_are_where_more_than_a_hundred_actions_take_two_bytes_to_number() -> None:
    point = DecisionPoint.model_validate(POINT.model_dump(mode="json") | {"actions": {"max": 300}})
    many = DecideRequest(
        decision_point="offers",
        context=Features(packed=bytes(12)),
        actions=[Action(id=f"i{place}") for place in range(300)],
    )
    direct = Direct(policy(point, theta=np.zeros((4, 4))), LIMITS)
    alike, each = made_both_ways(batch(*[many] * 40), direct)
    assert alike == each
    assert each[0] is not None


OTHERS = {
    "another action": asked(["a", "y"]),
    "an action more": asked(["a", "x", "c"]),
    "one that is excluded": asked(excluded=[True, False]),
    "another decision point": asked(decision_point="other!"),
    "an id": asked(decision_id="mine"),
    "a choice": asked(choice=Choice(chosen=0)),
    "deferred": asked(defer_activation=True),
    "named features": asked(context=Features(named={"taste": Value(text="x")})),
    "numbers too few": asked(prices=[1.0]),
    "a number that is none": asked(prices=[1.0, float("nan")]),
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_one_that_differs_in_more_than_numbers_sends_all_one_by_one(other: DecideRequest, place: int) -> None:
    requests = [asked(), asked(), asked()]
    requests[place] = other
    alike, _ = made_both_ways(batch(*requests), Direct(POLICY, LIMITS))
    assert alike is None


def test_what_protobuf_reads_alike_but_stands_otherwise_is_read_one_by_one() -> None:
    point, rest = b"\x0a\x06offers", asked().SerializeToString()[8:]
    direct = Direct(POLICY, LIMITS)
    for row in (rest + point, point + rest + b"\x78\x01", point + point + rest, point + rest + b"\x38\x00"):
        its = Batch((b"\x0a" + bytes([len(row)]) + row) * 2)
        alike, each = made_both_ways(its, direct)
        assert alike is None
        assert each[0] is not None


@settings(max_examples=300)
@given(alike_requests(), st.data())
def test_bytes_that_were_changed_give_the_same_decisions_or_go_one_by_one(
    requests: list[DecideRequest], data: st.DataObject
) -> None:
    changed = bytearray(DecideBatchRequest(requests=requests).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        its = Batch(bytes(changed))
    except DecodeError:
        return  # refused before anything is decided
    if its.requests:
        alike, each = made_both_ways(its, Direct(POLICY, LIMITS))
        assert alike is None or alike == each


@settings(max_examples=60)
@given(st.lists(st.text(max_size=200), max_size=12), st.integers(1, 5))
def test_portions_of_a_batch_are_its_requests_and_their_bytes(points: list[str], most: int) -> None:
    its = batch(*[DecideRequest(decision_point=point) for point in points])
    portions = list(its.portions(most))
    assert [one.decision_point for requests, _ in portions for one in requests] == points
    for requests, data in portions:
        assert list(Batch(data).requests) == list(requests)
        assert len(requests) <= most


def test_a_batch_with_something_between_its_requests_has_no_bytes_for_its_portions() -> None:
    one = b"\x0a\x08\x0a\x06offers"
    for data in (one + b"\x78\x01" + one, one + one + b"\x78\x01"):
        assert [(len(requests), its) for requests, its in Batch(data).portions(1)] == [(1, b""), (1, b"")]


def test_a_batch_of_a_caller_is_answered_in_order_and_recorded() -> None:
    recorder = MemoryRecorder()
    service = served(recorder)
    requests = [asked(prices=[float(place), 2.0]) for place in range(70)]
    answers = []
    for portion, data in batch(*requests).portions(64):
        answers += service.answer_each(portion, NOW_MS, data=data)
    given = [DecideResponse.FromString(answer) for answer in answers if isinstance(answer, bytes)]
    assert [one.decision_id for one in given] == [one.decision_id for one in recorder.decisions]
    assert [struct.unpack("<2f", one.packed_actions)[0] for one in recorder.decisions] == [float(p) for p in range(70)]
    assert len({one.decision_id for one in given}) == 70
    assert service.slots["offers"].decisions == 70


def test_a_batch_to_a_point_that_is_not_there_is_refused_item_by_item() -> None:
    its = batch(asked(decision_point="none"), asked(decision_point="none"))
    [(requests, data)] = its.portions(64)
    answers = served(MemoryRecorder()).answer_each(requests, NOW_MS, data=data)
    assert [type(answer).__name__ for answer in answers] == ["UnknownDecisionPoint"] * 2
    assert isinstance(requests[0], DecideRequestParts)
