"""More is asked of a real server than it can answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.channel import open_channel
from engine.client import Candidate, LeewayClient, Plain
from engine.client.retries import judged
from engine.config import Challenger
from engine.records import (
    FALLBACK_REASON_NONE,
    FALLBACK_REASON_OVERLOAD,
    Decision,
)
from engine.replay import mismatch
from engine.serving.lean import frames
from engine.serving.lean.headers import Decoder, encode
from engine.serving.load import Call, Rank
from engine.serving.rollout import Rollout
from tests.engine.samples import NAME, make_policy, request
from tests.engine.serving.world import AccessFile, World, calling, served, until

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
PATIENCE_S = 60.0


class Crowd:
    """Calls that are under way at a server whose log is held."""

    def __init__(self, world: World, channel: grpc.Channel) -> None:
        self.world = world
        self.channel = channel
        self.stub = service_pb2_grpc.LeewayStub(channel)
        self.calls: list[Any] = []
        world.recorder.held = True

    def decide(self, decision_id: str, timeout_s: float | None = PATIENCE_S) -> Any:
        """Send a request, and return its call once the server has it."""
        return self._sent(lambda: self.stub.Decide.future(request(decision_id), timeout=timeout_s))

    def report(self, decision_id: str) -> Any:
        """The same of an outcome."""
        message = service_pb2.ReportRequest(decision_id=decision_id, value=1.0, decision_point=NAME)
        return self._sent(lambda: self.stub.Report.future(message, timeout=PATIENCE_S))

    def _sent(self, send: Callable[[], Any]) -> Any:
        before = self._seen()
        self.calls.append(send())
        until(lambda: self._seen() > before)
        return self.calls[-1]

    def _seen(self) -> int:
        load, world = self.world.load, self.world
        return load.waiting + world.observer.under_way + len(world.observer.ended) + len(world.observer.refusals)

    def release(self) -> None:
        """Let the log go on."""
        self.world.recorder.held = False
        self.world.recorder.confirm()


@contextmanager
def _crowded(directory: Path, **serving: Any) -> Iterator[Crowd]:
    """One thread, and a call that has it."""
    with (
        served(directory, workers=1, **{"default_deadline": 60_000, **serving}) as world,
        open_channel(world.target, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        crowd = Crowd(world, channel)
        first = crowd.decide("d1")
        until(lambda: world.observer.under_way == 1)
        try:
            yield crowd
        finally:
            crowd.release()
            first.result()


Crowding = Callable[..., AbstractContextManager[Crowd]]


@pytest.fixture(params=["grpcio", "lean", "threads"])
def crowded(request: pytest.FixtureRequest, tmp_path: Path) -> Crowding:
    """Whichever front there is."""
    return partial(_crowded, tmp_path, front=request.param)


@pytest.fixture
def queued(tmp_path: Path) -> Crowding:
    """The front with which a call that waits for the log has a thread, and others wait for that."""
    return partial(_crowded, tmp_path, front="threads")


@pytest.fixture(params=["grpcio", "lean"])
def reading(request: pytest.FixtureRequest, tmp_path: Path) -> Crowding:
    """The fronts that decide where they read: who waits for the log has no thread."""
    return partial(_crowded, tmp_path, front=request.param)


def refusal(call: Any) -> tuple[str, float]:
    """Return why a call was refused, and when it may come again."""
    error = call.exception(timeout=PATIENCE_S)
    assert error.code() is EXHAUSTED
    status = rpc_status.from_call(error)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for found in status.details:
        detail = Packed.FromString(found.SerializeToString())
        detail.Unpack(info)
        detail.Unpack(retry)
    assert judged(error) == (True, retry.retry_delay.ToTimedelta().total_seconds())  # the client comes again
    return info.reason, retry.retry_delay.ToTimedelta().total_seconds()


def test_beyond_max_concurrent_a_call_is_refused_and_nothing_decided(crowded: Crowding) -> None:
    with crowded(max_concurrent=2) as crowd:
        waits = crowd.decide("d2")
        reason, retry_s = refusal(crowd.decide("d3"))
        assert reason == "QUEUE_FULL"
        assert retry_s >= 0.05
        crowd.release()
        assert waits.result().decision_id == "d2"
        assert [decision.decision_id for decision in crowd.world.recorder.decisions] == ["d1", "d2"]
        assert crowd.world.observer.refusals == [("Decide", "queue_full")]
        assert ("Decide", "RESOURCE_EXHAUSTED") in crowd.world.observer.ended
        # There is room again.
        assert crowd.stub.Decide(request("d3"), timeout=PATIENCE_S).decision_id == "d3"


@pytest.mark.parametrize(("first", "order"), [("report", ["d1", "r", "d2"]), ("none", ["d1", "d2", "r"])])
def test_who_goes_first_is_answered_first(first: str, order: list[str], queued: Crowding) -> None:
    with queued(max_concurrent=3, overload={"first": first}) as crowd:
        calls = [crowd.decide("d2"), crowd.report("d0")]
        crowd.release()
        for call in calls:
            call.result()
        records = crowd.world.recorder.records
        assert [record.decision_id if isinstance(record, Decision) else "r" for record in records] == order


def test_the_lean_front_refuses_before_the_message_has_come(tmp_path: Path) -> None:
    said = [(b":method", b"POST"), (b":path", b"/leeway.v1.Leeway/Decide"), (b"content-type", b"application/grpc")]
    with (
        _crowded(tmp_path, front="lean", max_concurrent=1) as crowd,
        socket.create_connection(("127.0.0.1", crowd.world.server.port)) as caller,
    ):
        caller.settimeout(PATIENCE_S)
        answers = frames_of(caller)
        caller.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0))
        for stream in (1, 3):
            caller.sendall(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, encode(said)))
            flags, content = next(found[1:] for found in answers if found[0] == (frames.HEADERS, stream))
            assert flags & frames.END_STREAM
            headers = dict(Decoder().decode(content))
            assert headers[b"grpc-status"] == b"8"
            assert b"max_concurrent" in headers[b"grpc-message"]
        # What comes of a refused call is passed over, and its connection goes on.
        caller.sendall(
            frames.frame(frames.DATA, frames.END_STREAM, 1, bytes(9)) + frames.frame(frames.PING, 0, 0, bytes(8))
        )
        assert next(found for found in answers if found[0] == (frames.PING, 0))[1] == frames.ACK
        assert crowd.world.observer.refusals == [("Decide", "queue_full")] * 2
        assert crowd.world.observer.ended == [("Decide", "RESOURCE_EXHAUSTED")] * 2


def frames_of(caller: socket.socket) -> Iterator[tuple[tuple[int, int], int, bytes]]:
    """Yield kind and stream, flags, and content of what a server sends."""
    with caller.makefile("rb") as file:
        while head := file.read(frames.HEAD_BYTES):
            first, flags, stream = frames.HEAD.unpack(head)
            yield (first & 0xFF, stream), flags, file.read(first >> 8)


def test_an_outcome_is_taken_when_no_decision_is(queued: Crowding) -> None:
    with queued(max_concurrent=2) as crowd:
        decision = crowd.decide("d2")
        outcome = crowd.report("d0")
        assert refusal(decision)[0] == "QUEUE_FULL"
        crowd.release()
        assert outcome.result().outcome_id


def test_health_is_answered_when_nothing_else_is(crowded: Crowding) -> None:
    with crowded(max_concurrent=1) as crowd:
        assert refusal(crowd.decide("d2"))[0] == "QUEUE_FULL"
        check = health_pb2_grpc.HealthStub(crowd.channel).Check.future(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )
        until(lambda: crowd.world.load.waiting == 1 or check.done())
        crowd.release()
        assert check.result().status == health_pb2.HealthCheckResponse.SERVING
        assert crowd.world.observer.refusals == [("Decide", "queue_full")]


def test_who_would_give_up_before_its_turn_is_refused_at_once(crowded: Crowding) -> None:
    with crowded() as crowd:
        load = crowd.world.load
        load.enter(Call(lambda: None, Rank.ALWAYS, "", 0.0), 0.0)
        assert load.take() is not None
        load.ended(640.0)  # a call takes 20 s, in the mean
        # Its deadline is known before it has a thread: this is of grpcio's inside, see call_pool.
        patient = crowd.decide("d2", timeout_s=50.0)
        reason, _ = refusal(crowd.decide("d3", timeout_s=15.0))
        assert reason == "TOO_LATE"
        crowd.release()
        assert patient.result().decision_id == "d2"
        assert {decision.decision_id for decision in crowd.world.recorder.decisions} == {"d1", "d2"}


def test_who_has_given_up_before_its_turn_costs_no_decision(queued: Crowding) -> None:
    with queued() as crowd:
        gone = crowd.decide("d2", timeout_s=0.3)
        assert gone.exception(timeout=PATIENCE_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(0.05)
        crowd.release()
        until(lambda: crowd.world.observer.refusals == [("Decide", "too_late")])
        assert [decision.decision_id for decision in crowd.world.recorder.decisions] == ["d1"]


def test_a_caller_without_a_deadline_waits_for_its_turn_as_long_as_the_default(queued: Crowding) -> None:
    with queued(default_deadline=200) as crowd:
        late = crowd.decide("d2", timeout_s=None)
        time.sleep(0.25)
        crowd.release()
        error = late.exception(timeout=PATIENCE_S)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "nothing was done" in error.details()
        assert [decision.decision_id for decision in crowd.world.recorder.decisions] == ["d1"]
        assert crowd.stub.Decide(request("d2"), timeout=PATIENCE_S).decision_id == "d2"


def test_the_longer_the_queue_the_less_is_done_and_each_record_is_true(queued: Crowding) -> None:
    ladder = {"shadow_until": 0.25, "score_until": 0.5}
    shadow = make_policy(seed=5, generation=1)
    with queued(max_concurrent=5, overload=ladder) as crowd:
        slot = crowd.world.service.slot(NAME)
        slot.rollout = Rollout(shadow, Challenger.model_validate({"version": shadow.version, "mode": "shadow"}))
        calls = [crowd.decide(f"d{number}") for number in range(2, 6)]
        crowd.release()
        answers = [call.result() for call in calls]
        made = crowd.world.recorder.decisions[1:]
        none, overload = FALLBACK_REASON_NONE, FALLBACK_REASON_OVERLOAD
        # With three, two, one and none behind them, of four places.
        assert [decision.fallback for decision in made] == [overload, none, none, none]
        assert [bool(decision.shadow_policy_version) for decision in made] == [False, False, True, True]
        for answer, decision in zip(answers, made, strict=True):
            assert mismatch(decision, slot.policy) == ""
            assert answer.propensity == decision.probabilities[decision.chosen]
            assert answer.fallback == decision.fallback
        assert made[0].probabilities == [pytest.approx(1.0 / len(made[0].actions))] * len(made[0].actions)
        assert "waited" in made[0].fallback_detail
        assert crowd.world.observer.degradations == [("Decide", "overload"), ("Decide", "alone")]


def test_each_address_has_its_rate(tmp_path: Path) -> None:
    with served(tmp_path, overload={"rate": {"per_second": 0.01, "burst": 3}}) as world:
        with calling(world.target) as caller:
            assert [caller.code("Decide"), caller.code("DecideBatch")] == [grpc.StatusCode.OK] * 2  # of 1 and of 2
            assert caller.code("Report") is EXHAUSTED
            # The admin service is not limited.
            assert caller.code("GetStatus") is grpc.StatusCode.OK
        with calling(world.target) as again:  # another connection is no other client
            assert again.code("Decide") is EXHAUSTED
        assert world.observer.refusals == [("Report", "rate_limited"), ("Decide", "rate_limited")]


def test_each_token_has_its_rate(tmp_path: Path) -> None:
    file = AccessFile(tmp_path / "access.yaml")
    shop, batch = (file.add(name, ["decide", "report"]) for name in ("shop", "batch"))
    rate = {"rate": {"per_second": 0.01, "burst": 1}}
    with served(tmp_path, access_file=file.path, overload=rate) as world:
        with calling(world.target, shop) as caller:
            assert [caller.code("Decide"), caller.code("Decide")] == [grpc.StatusCode.OK, EXHAUSTED]
        with calling(world.target, batch) as caller:
            assert caller.code("Decide") is grpc.StatusCode.OK


def test_a_stream_beyond_its_rate_ends_after_what_it_was_given(tmp_path: Path) -> None:
    with (
        served(tmp_path, overload={"rate": {"per_second": 0.01, "burst": 2}}) as world,
        open_channel(world.target) as channel,
    ):
        requests = iter([request(f"s{number}") for number in range(3)])
        stream = iter(service_pb2_grpc.LeewayStub(channel).DecideStream(requests, timeout=PATIENCE_S))
        assert [next(stream).response.decision_id for _ in range(2)] == ["s0", "s1"]
        with pytest.raises(grpc.RpcError) as refused:
            next(stream)
        assert judged(refused.value)[0]
        assert [decision.decision_id for decision in world.recorder.decisions] == ["s0", "s1"]


def test_no_decision_waits_for_the_record_of_another(reading: Crowding) -> None:
    with reading() as crowd:
        batch = crowd.stub.DecideBatch.future(
            service_pb2.DecideBatchRequest(requests=[request("b1")]), timeout=PATIENCE_S
        )
        until(lambda: crowd.world.observer.under_way == 2)  # its thread, of which there is one, is taken
        calls = [crowd.decide(f"d{number}") for number in range(2, 12)]
        outcome = crowd.report("d0")
        until(lambda: crowd.world.observer.under_way == 13)
        assert not any(call.done() for call in (batch, outcome, *calls))
        crowd.release()
        assert [call.result().decision_id for call in calls] == [f"d{number}" for number in range(2, 12)]
        assert outcome.result().outcome_id
        assert batch.result().items[0].response.decision_id == "b1"
    assert set(crowd.world.observer.ended) == {("Decide", "OK"), ("DecideBatch", "OK"), ("Report", "OK")}


def test_a_batch_that_waits_for_a_thread_gives_its_place_to_an_outcome(crowded: Crowding) -> None:
    with crowded(max_concurrent=4) as crowd:
        batches = [
            crowd.stub.DecideBatch.future(
                service_pb2.DecideBatchRequest(requests=[request(f"b{number}")]), timeout=PATIENCE_S
            )
            for number in range(3)
        ]
        until(lambda: crowd.world.load.waiting + crowd.world.observer.under_way == 4)
        assert crowd.world.load.waiting >= 2  # the thread, of which there is one, has the first of them or a decision
        outcome = crowd.report("d0")
        until(lambda: any(batch.done() for batch in batches))
        crowd.release()
        assert outcome.result().outcome_id
        assert [batch.exception() is None for batch in batches].count(False) == 1
        assert crowd.world.observer.refusals == [("DecideBatch", "queue_full")]


def test_whoever_gives_up_while_the_log_is_slow_gives_back_its_place(reading: Crowding) -> None:
    with reading(max_concurrent=2) as crowd:
        late = crowd.decide("d2", timeout_s=0.3)
        assert refusal(crowd.decide("d3"))[0] == "QUEUE_FULL"
        assert late.exception(timeout=PATIENCE_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: ("Decide", "DEADLINE_EXCEEDED") in crowd.world.observer.ended)
        gone = crowd.decide("d4")
        gone.cancel()
        crowd.release()
        until(lambda: crowd.world.observer.under_way == 0)
        assert crowd.stub.Decide(request("d2"), timeout=PATIENCE_S).decision_id == "d2"


def ask(client: LeewayClient, deadline_s: float = PATIENCE_S) -> str:
    """Return the action."""
    context: dict[str, Plain] = {"amount": 120.0, "country": "NL", "taste": [0.5, -1.0, 2.0]}
    actions = [Candidate(name, {"price": 3.0, "embedding": [0.1, -0.2], "kind": "big"}) for name in ("a", "b")]
    return client.decide(NAME, context, actions, deadline_s=deadline_s).action


def test_a_client_whose_calls_find_no_room_does_not_send_some(crowded: Crowding) -> None:
    with crowded(max_concurrent=1) as crowd, LeewayClient(crowd.world.target, retry_s=0.0) as client:
        asked = 0
        while not client.held_back:
            assert (asked := asked + 1) < 10_000
            with pytest.raises(grpc.RpcError) as refused:
                ask(client)
            assert refused.value.code() is EXHAUSTED
        assert len(crowd.world.observer.refusals) == asked - 1
        crowd.release()
        until(lambda: _answered(client))


def _answered(client: LeewayClient) -> bool:
    try:
        return bool(ask(client))
    except grpc.RpcError:
        return False


@pytest.mark.parametrize("front", ["grpcio", "lean", "threads"])
def test_a_client_holds_nothing_back_while_there_is_room(tmp_path: Path, front: str) -> None:
    with served(tmp_path, front=front) as world, LeewayClient(world.target) as client, ThreadPoolExecutor(8) as many:
        assert len(list(many.map(lambda _: ask(client), range(400)))) == 400
        assert client.held_back == 0
        assert len(world.recorder.decisions) == 400
