"""Decisions that are made before their calls' turn: the same ones, and nothing of them stays that nobody asks for."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest

from engine.api.leeway.v1 import service_pb2_grpc
from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.api.leeway.v1.service_pb2 import DecideRequest, DecideResponse
from engine.config import ServingConfig
from engine.effort import Effort
from engine.records import FALLBACK_REASON_NONE, FALLBACK_REASON_OVERLOAD
from engine.replay import mismatch
from engine.serving.call_pool import CallPool
from engine.serving.load import Load, Rank
from engine.serving.service import DecisionService
from engine.serving.turns import Turns
from tests.engine.samples import MemoryObserver, MemoryRecorder
from tests.engine.samples import request as named
from tests.engine.serving.world import AccessFile, calling, served
from tests.engine.test_direct import NOW_MS, POINT, POLICY, asked, parts, policy

PATIENCE_S = 30.0


class Counting(DecisionService):
    """Knows how many decisions were prepared at a time."""

    def __init__(self, recorder: MemoryRecorder) -> None:
        super().__init__({"offers": POINT}, {"offers": POLICY}, recorder, MemoryObserver())

    @property
    def scored(self) -> int:
        return self.times.count("score")


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def service(recorder: MemoryRecorder) -> Counting:
    return Counting(recorder)


def many(count: int = 5) -> list[DecideRequestParts]:
    return [parts(asked(decision_id=f"d{place}", prices=[0.1 * place, 1.0])) for place in range(count)]


def result(answer: Any) -> DecideResponse:
    return DecideResponse.FromString(answer) if isinstance(answer, bytes) else answer.result(1.0)


def test_what_was_prepared_is_what_is_answered_and_recorded(service: Counting, recorder: MemoryRecorder) -> None:
    requests = many()
    service.prepare(requests, NOW_MS)
    assert (service.scored, recorder.records) == (5, [])
    answers = [result(service.answer(request, NOW_MS)) for request in requests]
    assert service.scored == 5  # not once more
    alone, others = Counting(by_itself := MemoryRecorder()), many()
    assert answers == [result(alone.answer(request, NOW_MS)) for request in others]
    assert recorder.decisions == by_itself.decisions
    assert [mismatch(decision, POLICY) for decision in recorder.decisions] == [""] * 5


def test_ids_are_given_to_who_sent_none(service: Counting, recorder: MemoryRecorder) -> None:
    requests = [parts(asked()) for _ in range(4)]
    service.prepare(requests, NOW_MS)
    answers = [result(service.answer(request, NOW_MS)) for request in requests]
    assert len({answer.decision_id for answer in answers}) == 4
    assert [decision.decision_id for decision in recorder.decisions] == [answer.decision_id for answer in answers]


def test_a_policy_that_came_meanwhile_decides(service: Counting, recorder: MemoryRecorder) -> None:
    requests = many(2)
    service.prepare(requests, NOW_MS)
    newer = policy(theta=np.full((4, 8), 0.5))
    service.swap(newer)
    for request in requests:
        service.answer(request, NOW_MS)
    assert [mismatch(decision, newer) for decision in recorder.decisions] == ["", ""]
    assert {decision.policy_version for decision in recorder.decisions} == {newer.version} != {POLICY.version}


def test_an_equal_request_is_another_one(service: Counting) -> None:
    service.prepare(many(2), NOW_MS)
    service.answer(many(2)[0], NOW_MS)
    assert service.scored == 3


def test_what_is_not_asked_for_is_forgotten(service: Counting, recorder: MemoryRecorder) -> None:
    requests, others = many(2), many(3)
    service.prepare(requests, NOW_MS)
    service.prepare(others, NOW_MS)
    assert recorder.records == []
    service.answer(requests[0], NOW_MS)
    assert service.scored == 6


def test_without_scoring_the_fallback_answers(service: Counting, recorder: MemoryRecorder) -> None:
    [first, second] = many(2)
    service.prepare([first, second], NOW_MS)
    service.answer(first, NOW_MS, effort=Effort.OVERLOAD)
    service.answer(second, NOW_MS)
    assert [one.fallback for one in recorder.decisions] == [FALLBACK_REASON_OVERLOAD, FALLBACK_REASON_NONE]


def _noted(service: DecisionService) -> list[int]:
    """Return how many requests each call of ``prepare`` will have had."""
    sizes: list[int] = []
    inner = service.prepare

    def prepare(requests: Sequence[DecideRequestParts], now_ms: int) -> None:
        sizes.append(len(requests))
        inner(requests, now_ms)

    cast(Any, service).prepare = prepare
    return sizes


def _storm(target: str, rounds: int, token: str | None = None) -> list[tuple[DecideRequest, DecideResponse]]:
    """Ask for many decisions at a time."""
    found = []
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = service_pb2_grpc.LeewayStub(channel)
        for turn in range(rounds):
            asked_for = [named(f"{turn}-{number}") for number in range(60)]
            calls = [stub.Decide.future(one, timeout=PATIENCE_S, metadata=metadata) for one in asked_for]
            found += [(one, call.result()) for one, call in zip(asked_for, calls, strict=True)]
    return found


@pytest.mark.parametrize("front", ["grpcio", "lean"])
def test_calls_that_wait_together_are_decided_together(tmp_path: Path, front: str) -> None:
    with served(tmp_path, front=front, durability="memory") as world:
        sizes = _noted(world.service)
        for request, answer in _storm(world.target, rounds=20):
            assert answer.decision_id == request.decision_id
        assert max(sizes) > 1
        assert len({decision.decision_id for decision in world.recorder.decisions}) == 20 * 60


@pytest.mark.parametrize("front", ["grpcio", "lean"])
def test_where_callers_have_tokens_nothing_is_decided_before_theirs_are_seen(tmp_path: Path, front: str) -> None:
    file = AccessFile(tmp_path / "access.json")
    token = file.add("shop", ["decide"])
    with served(tmp_path, front=front, durability="memory", access_file=file.path) as world:
        sizes = _noted(world.service)
        assert len(_storm(world.target, rounds=3, token=token)) == 180
        with calling(world.target) as stranger:
            assert stranger.code("Decide") is grpc.StatusCode.UNAUTHENTICATED
        assert sizes == []


def test_what_is_done_ahead_is_a_part_of_what_calls_take() -> None:
    # Else who is too late would hear of it only when it is.
    config = ServingConfig(durability="memory")
    load, turns = Load(config), Turns()
    pool = CallPool(config, load, MemoryObserver(), turns, prepare=lambda _: time.sleep(0.3))
    for _ in range(216):
        pool.submit(lambda: None, Rank.LAST, "Decide", math.inf, lambda: None)
    turns.take()
    waiting = load.waiting
    assert waiting == 216 - 54
    # Of 54 calls that took 0.3 s together, and with the weight of 1/32, the mean is 82 % of 0.3 s / 54.
    assert load.overloaded("queue_full", Rank.LAST).retry_s > 0.5 * waiting * 0.8 * 0.3 / 54
