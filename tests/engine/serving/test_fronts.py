"""What a gRPC client may rely on, whichever front speaks gRPC: the same calls to each of them."""

from __future__ import annotations

import contextlib
import gc
import itertools
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from pydantic import ValidationError

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.config import ServingConfig
from engine.serving.lean import frames
from engine.serving.lean.call import Call as LeanCall
from engine.serving.lean.connection import Stream
from engine.serving.lean.headers import encode
from engine.serving.polled.call import PolledCall
from engine.serving.polled.inside import unknown
from engine.serving.server import SERVICE
from tests.engine.samples import NAME, request
from tests.engine.serving.world import REQUESTS, AccessFile, World, calling, served, until

PATIENCE_S = 30.0
#: Those whose answers wait for the disk, and those whose thread that reads answers all calls.
DISK = [
    pytest.param({"front": "threads"}, id="threads"),
    pytest.param({"front": "grpcio", "durability": "disk"}, id="grpcio"),
    pytest.param({"front": "lean", "durability": "disk"}, id="lean"),
]
FRONTS = [
    *DISK,
    pytest.param({"front": "grpcio", "durability": "memory"}, id="grpcio at once"),
    pytest.param({"front": "lean", "durability": "memory"}, id="lean at once"),
]


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest) -> dict[str, Any]:
    settings: dict[str, Any] = request.param
    return settings


@pytest.fixture
def world(front: dict[str, Any], tmp_path: Path) -> Iterator[World]:
    with served(tmp_path, **front, streams=1, max_message_bytes=1_000_000, drain_grace=20_000) as made:
        yield made


@pytest.fixture
def channel(world: World) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(world.target, [("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> service_pb2_grpc.LeewayStub:
    return service_pb2_grpc.LeewayStub(channel)


class Fed:
    """A stream that a test feeds by hand."""

    def __init__(self, stub: service_pb2_grpc.LeewayStub, timeout: float = PATIENCE_S) -> None:
        self._given: queue.Queue[service_pb2.DecideRequest | None] = queue.Queue()
        self.answers: Any = stub.DecideStream(iter(self._given.get, None), timeout=timeout)

    def ask(self, one: service_pb2.DecideRequest | None) -> None:
        self._given.put(one)

    def answered(self, decision_id: str) -> bool:
        self.ask(request(decision_id))
        return bool(next(self.answers).response.decision_id == decision_id)


def eventually(look: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end
        time.sleep(0.02)


def failure(call: Callable[[], Any]) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value


def test_every_method_answers(world: World) -> None:
    with calling(world.target) as caller:
        assert {method: caller.code(method) for method in REQUESTS} == dict.fromkeys(REQUESTS, grpc.StatusCode.OK)
    assert world.observer.under_way == 0


def test_health_is_told_and_watched(world: World, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    states = health_pb2.HealthCheckResponse
    for name in ("", SERVICE, f"{SERVICE}/{NAME}"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_S).status == states.SERVING
    unknown = failure(lambda: health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE_S))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND
    watched = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE_S)
    assert next(watched).status == states.SERVING
    hurry = threading.Event()
    hurry.set()
    world.server.stop(hurry)
    assert [state.status for state in watched] == [states.NOT_SERVING]  # and then it ends well


def test_reflection_tells_what_there_is(channel: grpc.Channel) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([ask(list_services=""), ask(file_containing_symbol=SERVICE)])
    listed, file = stub.ServerReflectionInfo(asked, timeout=PATIENCE_S)
    assert SERVICE in {service.name for service in listed.list_services_response.service}
    assert file.file_descriptor_response.file_descriptor_proto


def test_an_error_comes_with_its_details(stub: service_pb2_grpc.LeewayStub) -> None:
    wrong = request("d1")
    wrong.context.named["äge %"].number = 1.0
    error = failure(lambda: stub.Decide(wrong, timeout=PATIENCE_S))
    status = rpc_status.from_call(error)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status is not None
    assert status.message == error.details()
    assert "äge %" in status.message
    violations = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violations) for detail in status.details)
    assert violations.field_violations[0].field == "context.features.äge %"
    assert stub.Decide(request("d1"), timeout=PATIENCE_S).decision_id == "d1"


def test_a_deadline_ends_a_call(world: World, stub: service_pb2_grpc.LeewayStub) -> None:
    world.recorder.held = True
    error = failure(lambda: stub.Decide(request("d1"), timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    world.recorder.held = False
    world.recorder.confirm()
    eventually(lambda: world.observer.under_way == 0)
    assert stub.Decide(request("d1"), timeout=PATIENCE_S).decision_id == "d1"
    assert [decision.decision_id for decision in world.recorder.decisions] == ["d1"]


def test_a_deadline_ends_a_stream(stub: service_pb2_grpc.LeewayStub) -> None:
    late = Fed(stub, timeout=0.5)
    assert failure(lambda: list(late.answers)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: Fed(stub).answered("d2") if _free(stub) else False)


def _free(stub: service_pb2_grpc.LeewayStub) -> bool:
    """Whether the one stream that the server has can be had."""
    call = stub.DecideStream(iter([request("free")]), timeout=PATIENCE_S)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return call.code() is grpc.StatusCode.OK


def test_who_cancels_a_stream_gives_its_place_back(stub: service_pb2_grpc.LeewayStub) -> None:
    stream = Fed(stub)
    assert stream.answered("d1")
    assert not _free(stub)
    stream.answers.cancel()
    eventually(lambda: _free(stub))


def test_who_goes_away_gives_its_place_back(world: World, stub: service_pb2_grpc.LeewayStub) -> None:
    with grpc.insecure_channel(world.target, [("grpc.use_local_subchannel_pool", 1)]) as other:
        stream = Fed(service_pb2_grpc.LeewayStub(other))
        assert stream.answered("d1")
        assert not _free(stub)
    eventually(lambda: _free(stub))


def test_a_message_that_is_too_large_is_refused_by_itself(stub: service_pb2_grpc.LeewayStub) -> None:
    under_way = Fed(stub)
    assert under_way.answered("d1")
    large = request("d2")
    large.actions[0].features["kind"].text = "x" * 1_000_001
    assert failure(lambda: stub.Decide(large, timeout=PATIENCE_S)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert under_way.answered("d3")


def test_messages_larger_than_every_window_go_through(stub: service_pb2_grpc.LeewayStub) -> None:
    many = service_pb2.DecideBatchRequest(requests=[request(f"d{number}") for number in range(1_000)])
    assert 300_000 < many.ByteSize() < 1_000_000
    answer = stub.DecideBatch(many, timeout=4 * PATIENCE_S)
    assert [item.response.decision_id for item in answer.items] == [one.decision_id for one in many.requests]


def test_a_long_stream_goes_through(stub: service_pb2_grpc.LeewayStub) -> None:
    ids = [f"d{number}" for number in range(3_000)]
    answers = stub.DecideStream(map(request, ids), timeout=4 * PATIENCE_S)
    assert [item.response.decision_id for item in answers] == ids


def test_what_is_not_there_and_what_is_no_message_are_told_apart(channel: grpc.Channel) -> None:
    def code(method: str, message: bytes) -> grpc.StatusCode:
        call = channel.unary_unary(f"/leeway.v1.Leeway/{method}", request_serializer=None, response_deserializer=None)
        return failure(lambda: call(message, timeout=PATIENCE_S)).code()

    assert code("Guess", b"") is grpc.StatusCode.UNIMPLEMENTED
    assert code("Decide", b"\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT


def test_a_token_is_asked_for(front: dict[str, Any], tmp_path: Path) -> None:
    file = AccessFile(tmp_path / "access.json")
    token = file.add("shop", ["decide"])
    with served(tmp_path, **front, access_file=file.path) as world:
        for sent, code in ((None, "UNAUTHENTICATED"), ("leeway_wrong", "UNAUTHENTICATED"), (token, "OK")):
            with calling(world.target, sent) as caller:
                assert caller.code("Decide").name == code
        with calling(world.target, token) as caller:
            assert caller.code("Report").name == "PERMISSION_DENIED"
            assert caller.code("DecideStream").name == "OK"


def test_a_ping_is_answered(world: World) -> None:
    host, port = world.target.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain:
        empty = struct.pack(">IBI", 4, 0, 0)  # SETTINGS
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty + struct.pack(">IBI", 8 << 8 | 6, 0, 0) + b"12345678")
        wanted = struct.pack(">IBI", 8 << 8 | 6, 1, 0) + b"12345678"
        seen = b""
        while wanted not in seen:
            data = plain.recv(65_536)
            assert data, seen
            seen += data


def test_a_drain_lets_what_is_under_way_end_and_takes_no_more(world: World, stub: service_pb2_grpc.LeewayStub) -> None:
    stream = Fed(stub)
    assert stream.answered("d1")
    hurry = threading.Event()
    hurry.set()
    stopping = threading.Thread(target=world.server.stop, args=(hurry,))
    stopping.start()
    assert list(stream.answers) == []  # with OK: what had come is answered
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()
    assert failure(lambda: stub.Decide(request("d2"), timeout=PATIENCE_S)).code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("front", DISK, indirect=True)
def test_a_drain_waits_for_a_decision_that_waits_for_its_disk(world: World, stub: service_pb2_grpc.LeewayStub) -> None:
    world.recorder.held = True
    under_way = stub.Decide.future(request("d1"), timeout=PATIENCE_S)
    eventually(lambda: world.observer.under_way == 1)
    hurry = threading.Event()
    hurry.set()
    stopping = threading.Thread(target=world.server.stop, args=(hurry,))
    stopping.start()
    stopping.join(1.5)  # longer than the lean front gives its callers to hear of it
    assert stopping.is_alive()
    world.recorder.held = False
    world.recorder.confirm()
    assert under_way.result(timeout=PATIENCE_S).decision_id == "d1"
    stopping.join(PATIENCE_S)
    assert not stopping.is_alive()


@pytest.mark.parametrize("front", [DISK[-1], FRONTS[-1]], indirect=True)
def test_the_lean_front_says_that_it_takes_nothing_compressed(world: World) -> None:
    with grpc.insecure_channel(world.target, compression=grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.LeewayStub(channel)
        large = service_pb2.DecideBatchRequest(requests=[request(f"d{number}") for number in range(100)])
        error = failure(lambda: stub.DecideBatch(large, timeout=PATIENCE_S))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "gzip" in str(error.details())


def test_the_lean_front_and_tls_do_not_go_together() -> None:
    tls = {"certificate": "server.pem", "key": "server.key"}
    with pytest.raises(ValidationError, match="front lean has no TLS: let front be grpcio"):
        ServingConfig.model_validate({"front": "lean", "tls": tls})


def test_who_vanishes_gives_back_the_place_of_its_stream(front: dict[str, Any], tmp_path: Path) -> None:
    said = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/leeway.v1.Leeway/DecideStream"),
        (b":authority", b"somewhere"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
    ]  # fmt: skip
    with served(tmp_path, **front, streams=1, keepalive=1_000) as world:
        host, _, port = world.target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as silent, calling(world.target) as caller:
            silent.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0))
            numbers = itertools.count(1, 2)

            def is_taken() -> bool:
                # Again and again: where the caller was first, the stream of the silent one was refused.
                silent.sendall(frames.frame(frames.HEADERS, frames.END_HEADERS, next(numbers), encode(said)))
                return caller.code("DecideStream") is grpc.StatusCode.RESOURCE_EXHAUSTED

            until(is_taken)
            # Its kernel goes on to take what comes, but nobody answers.
            until(lambda: caller.code("DecideStream") is grpc.StatusCode.OK)


def test_a_call_gives_back_its_place_however_it_ended(front: dict[str, Any], tmp_path: Path) -> None:
    with served(tmp_path, **front, max_concurrent=2) as world, calling(world.target) as caller:
        for _ in range(3):
            for name in ("Decide", "Report", "DecideBatch"):
                assert caller.code(name) is grpc.StatusCode.OK
            assert caller.code("Decide", service_pb2.DecideRequest()) is grpc.StatusCode.NOT_FOUND
            world.recorder.failing = True
            assert caller.code("Report") is grpc.StatusCode.UNAVAILABLE
            world.recorder.failing = False
        until(lambda: world.load.waiting == world.observer.under_way == 0)


def test_calls_whose_message_does_not_come_have_an_end_on_grpcio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.serving.server._REFUSALS", 0)
    with (
        served(tmp_path, front="grpcio", max_concurrent=1, streams=1) as world,
        grpc.insecure_channel(world.target, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        stub = service_pb2_grpc.LeewayStub(channel)
        begin = channel.stream_unary("/leeway.v1.Leeway/Decide", request_serializer=None, response_deserializer=None)
        over = threading.Event()

        def nothing() -> Iterator[bytes]:
            over.wait(PATIENCE_S)
            yield from ()

        begun = []

        def refused() -> bool:
            begun.append(begin.future(nothing(), timeout=PATIENCE_S))
            return _decided(stub) == "Concurrent RPC limit exceeded!"

        eventually(refused)
        over.set()
        ends = {failure(call.result).code() for call in begun}
        assert (
            grpc.StatusCode.UNIMPLEMENTED in ends <= {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        )
        eventually(lambda: _decided(stub) == "d1")


def _decided(stub: service_pb2_grpc.LeewayStub) -> str:
    """Return the id of a decision, or why there is none."""
    try:
        return stub.Decide(request("d1"), timeout=PATIENCE_S).decision_id
    except grpc.RpcError as error:
        return str(cast(grpc.Call, error).details())


@pytest.mark.parametrize("front", FRONTS[1:], indirect=True)
def test_a_call_that_is_over_is_freed_without_the_cyclic_collector(world: World) -> None:
    # A serving process runs it seldom: what waits for it would be hundreds of megabytes, and cold caches.
    def left() -> int:
        return sum(isinstance(one, PolledCall | LeanCall | Stream) for one in gc.get_objects())

    with calling(world.target) as caller:
        gc.disable()
        try:
            before = left()
            for name in ("Decide", "Report", "DecideBatch", "Decide") * 20:
                assert caller.code(name) is grpc.StatusCode.OK
            assert caller.code("Decide", service_pb2.DecideRequest()) is grpc.StatusCode.NOT_FOUND
            until(lambda: left() - before < 10)
        finally:
            gc.enable()


def test_a_grpcio_that_is_not_known_answers_by_its_own_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.serving.server.unknown", lambda: "grpc._server._Context")
    with served(tmp_path, front="grpcio") as world, calling(world.target) as caller:
        assert caller.code("Decide") is grpc.StatusCode.OK
        assert any(thread.name.startswith("decide") for thread in threading.enumerate())
    assert "has no grpc._server._Context as it is needed" in caplog.text


def test_the_grpcio_that_is_installed_is_known() -> None:
    assert unknown() == ""


def inner(world: World) -> Any:
    """Return the server that is polled, to break what cannot be broken from without."""
    return world.server._server


def _no_thread(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


def test_a_call_that_cannot_be_taken_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path, front="grpcio", durability="disk") as world, calling(world.target) as caller:
        for broken, method in (
            ("engine.serving.call_pool.CallPool.submit", "DecideBatch"),  # once its message is there
            ("engine.serving.call_pool._PolledLane.arrive", "Decide"),
        ):
            with monkeypatch.context() as breaking:
                breaking.setattr(broken, _no_thread)
                # A method is bound when it is asked for, and the server has asked for this one already.
                for name, (handler, _) in tuple(inner(world)._at_once.items()):
                    pool = handler.unary_unary.experimental_thread_pool
                    breaking.setitem(inner(world)._at_once, name, (handler, pool.arrive))
                assert caller.code(method) is grpc.StatusCode.UNAVAILABLE
            assert caller.code(method) is grpc.StatusCode.OK


def test_a_stream_for_which_there_is_no_thread_takes_no_call_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path, front="grpcio") as world, grpc.insecure_channel(world.target) as channel:
        stub = service_pb2_grpc.LeewayStub(channel)
        with monkeypatch.context() as breaking:
            breaking.setattr("concurrent.futures.ThreadPoolExecutor.submit", _no_thread)
            failure(lambda: list(stub.DecideStream(iter([request("s1")]), timeout=0.5)))
        assert stub.Decide(request("d1"), timeout=PATIENCE_S).decision_id == "d1"
        [item] = stub.DecideStream(iter([request("s2")]), timeout=PATIENCE_S)
        assert item.response.decision_id == "s2"


def test_an_end_that_cannot_be_sent_is_an_end(tmp_path: Path) -> None:
    with served(tmp_path, front="grpcio") as world, calling(world.target) as caller:
        state = inner(world)._state

        def spoil(_: Any, context: grpc.ServicerContext) -> None:
            context.set_trailing_metadata((("no name", "x"),))
            context.abort(grpc.StatusCode.INTERNAL, "no")

        handler, arrive = inner(world)._at_once["/leeway.v1.Leeway/Decide"]
        spoilt = handler._replace(unary_unary=spoil)
        lane = handler.unary_unary.experimental_thread_pool
        spoil.experimental_thread_pool = lane  # type: ignore[attr-defined]
        inner(world)._at_once["/leeway.v1.Leeway/Decide"] = (spoilt, arrive)
        assert caller.code("Decide") is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert caller.code("Report") is grpc.StatusCode.OK
        until(lambda: not state.rpc_states)


def test_an_answer_that_is_there_goes_through_no_other_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path, front="grpcio", durability="disk") as world, grpc.insecure_channel(world.target) as channel:
        monkeypatch.setattr(inner(world).ending, "submit", _no_thread)
        stub = service_pb2_grpc.LeewayStub(channel)
        for _ in range(2):  # the second is a retry
            assert stub.Decide(request("d1"), timeout=2.0).decision_id == "d1"
        until(lambda: world.load.calm and not inner(world)._state.rpc_states)
