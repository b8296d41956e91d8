"""Batches and streams over a real server in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.config import ServingConfig
from engine.policy import Policy
from engine.serving.admin import AdminServicer
from engine.serving.deciding import decide
from engine.serving.server import Server
from engine.serving.service import DecisionService
from engine.serving.servicer import MATRIX, LeewayServicer
from engine.serving.streams import WAITING, Arrivals
from engine.store import PolicyStore
from tests.engine.samples import NAME, POINT, TIME_MS, MemoryObserver, MemoryRecorder, make_policy, request

POLICY: Policy = make_policy()
PATIENCE_S = 30.0


class NoInsight:
    """A log that nobody asks about."""

    def accounting(self) -> dict[str, object]:
        return {}

    def alarms(self, point: str) -> list[object]:
        return []


class World:
    """A server on a log in memory, and a client of it."""

    def __init__(self, store: PolicyStore, streams: int = 2) -> None:
        config = ServingConfig(port=0, drain=0, drain_grace=5_000, streams=streams, reflection=False)
        self.recorder = MemoryRecorder()
        observer = MemoryObserver()
        service = DecisionService({NAME: POINT}, {NAME: POLICY}, self.recorder, observer)
        servicer = LeewayServicer(service, config, observer, lambda: TIME_MS)
        admin = AdminServicer(service, store, NoInsight(), TIME_MS)  # type: ignore[arg-type]
        self.server = Server(config, servicer, admin, [NAME], observer, lambda: TIME_MS)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.start()}")
        self.stub = service_pb2_grpc.LeewayStub(self.channel)

    def close(self) -> None:
        self.channel.close()
        hurry = threading.Event()
        hurry.set()
        self.server.stop(hurry)


class Open:
    """A stream that a test feeds by hand."""

    def __init__(self, world: World) -> None:
        self._given: queue.Queue[service_pb2.DecideRequest | None] = queue.Queue()
        self.answers: Any = world.stub.DecideStream(iter(self._given.get, None), timeout=PATIENCE_S)

    def ask(self, *requests: service_pb2.DecideRequest) -> None:
        for one in requests:
            self._given.put(one)

    def end(self) -> None:
        self._given.put(None)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(PolicyStore(tmp_path_factory.mktemp("store")))
    yield made
    made.close()


def wanted(decision_id: str) -> list[float]:
    return list(decide(POLICY, request(decision_id), decision_id, TIME_MS).probabilities)


def test_a_stream_answers_in_order_what_single_calls_would(world: World) -> None:
    ids = [f"d{i}" for i in range(3 * MATRIX)]
    answers = [item.response for item in world.stub.DecideStream(iter(map(request, ids)), timeout=PATIENCE_S)]
    assert [answer.decision_id for answer in answers] == ids
    for answer in answers:
        assert list(answer.probabilities) == wanted(answer.decision_id)
    recorded = {decision.decision_id: decision for decision in world.recorder.decisions}
    assert len(recorded) == len(world.recorder.records) == len(ids)
    assert all(list(recorded[answer.decision_id].probabilities) == list(answer.probabilities) for answer in answers)
    assert world.stub.Decide(request("d5"), timeout=PATIENCE_S) == answers[5]


def test_a_stream_answers_while_it_is_open(world: World) -> None:
    stream = Open(world)
    for number in range(3):
        stream.ask(request(f"d{number}"))
        assert next(stream.answers).response.decision_id == f"d{number}"
    stream.end()
    assert list(stream.answers) == []


def test_a_wrong_request_costs_neither_the_stream_nor_the_batch(world: World) -> None:
    wrong = request("d1")
    wrong.context.named["age"].number = 1.0
    unknown = request("d2", "oofers")
    many = [request("d0"), wrong, unknown, request("d3"), request("x" * 300), request("d0")]
    batch = world.stub.DecideBatch(service_pb2.DecideBatchRequest(requests=many), timeout=PATIENCE_S)
    for items in (batch.items, list(world.stub.DecideStream(iter(many), timeout=PATIENCE_S))):
        codes = [item.error.code if item.HasField("error") else 0 for item in items]
        invalid, not_found = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.NOT_FOUND.value[0]
        assert codes == [0, invalid, not_found, 0, invalid, 0]
        assert items[5].response == items[0].response
    assert [decision.decision_id for decision in world.recorder.decisions] == ["d0", "d3"]


def test_what_the_log_does_not_take_fails_by_itself_and_can_be_asked_again(world: World) -> None:
    world.recorder.failing = True
    (item,) = world.stub.DecideStream(iter([request("d1")]), timeout=PATIENCE_S)
    assert item.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    world.recorder.failing = False
    (item,) = world.stub.DecideStream(iter([request("d1")]), timeout=PATIENCE_S)
    assert item.response.decision_id == "d1"
    assert len(world.recorder.records) == 1


def test_a_stream_too_many_is_refused_and_single_calls_go_on(world: World) -> None:
    streams = [Open(world) for _ in range(2)]
    for number, stream in enumerate(streams):
        stream.ask(request(f"d{number}"))
        assert next(stream.answers).HasField("response")
    with pytest.raises(grpc.RpcError, match=r"2 streams are open already; .* serving\.streams") as refused:
        next(Open(world).answers)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.stub.Decide(request("d9"), timeout=PATIENCE_S).decision_id == "d9"
    streams[0].end()
    assert list(streams[0].answers) == []
    (item,) = world.stub.DecideStream(iter([request("d8")]), timeout=PATIENCE_S)
    assert item.HasField("response")
    streams[1].end()


def test_a_drain_answers_what_has_come_and_ends_the_streams(tmp_path: Path) -> None:
    world = World(PolicyStore(tmp_path))
    stream = Open(world)
    stream.ask(request("d0"))
    assert next(stream.answers).response.decision_id == "d0"
    hurry = threading.Event()
    hurry.set()
    stopping = threading.Thread(target=world.server.stop, args=(hurry,))
    stopping.start()
    assert list(stream.answers) == []
    assert stream.answers.code() is grpc.StatusCode.OK
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    world.channel.close()


def test_what_comes_together_is_handed_out_together_up_to_the_most() -> None:
    arrivals = Arrivals(iter(range(10)), most=4)
    arrivals._reader.join(PATIENCE_S)
    assert list(arrivals) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_who_sends_more_than_is_answered_is_held_back() -> None:
    taken: list[int] = []
    full = threading.Event()

    def requests() -> Iterator[int]:
        for number in range(WAITING + 100):
            taken.append(number)
            if number == WAITING:
                full.set()
            yield number

    arrivals = Arrivals(requests(), most=WAITING)
    assert full.wait(PATIENCE_S)
    assert len(taken) == WAITING + 1
    assert [number for some in arrivals for number in some] == list(range(WAITING + 100))


def test_a_caller_that_goes_away_ends_the_stream() -> None:
    def requests() -> Iterator[int]:
        yield 1
        raise RuntimeError("cancelled")

    assert [number for some in Arrivals(requests(), most=4) for number in some] == [1]
