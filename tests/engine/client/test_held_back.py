"""Clients that hold calls back, over an engine in memory that has no room."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.client import AsyncClient, Fallback, LeewayClient
from engine.client.retries import judged
from engine.client.testing import AsyncFakeClient, FakeClient, FakeEngine

CROWDED = "Concurrent RPC limit exceeded!"
PATIENCE_S = 30.0


def no_room(engine: FakeEngine) -> None:
    engine.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, CROWDED)


def crowded(client: FakeClient) -> grpc.RpcError:
    """Ask an engine that has no room until a call is not sent, and return how it fails."""
    no_room(client.engine)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            client.decide("offers", {}, ["a", "b"])
        except grpc.RpcError as error:
            if client.held_back:
                return error
    raise AssertionError("nothing was held back")


def test_a_call_that_is_held_back_fails_as_one_that_the_server_refuses() -> None:
    with FakeClient() as client:
        error = crowded(client)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "held back by the client" in str(error.details())
        assert "throttle=False" in str(error.details())
        assert judged(error) == (True, 0.05)  # it may be made again
        status = rpc_status.from_call(cast(grpc.Call, error))
        assert status is not None
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == ("HELD_BACK", "leeway")


def slow(client: FakeClient) -> None:
    """Let a client have seen so many refusals that it sends about five calls a second, the next one later."""
    (throttle,) = client._throttles
    now = time.monotonic()
    for number in range(30):
        throttle.refused(now - 2.0 + number / 15.0, now - 2.0 + number / 15.0)
    while throttle.admit(time.monotonic()):
        pass


def test_calls_that_are_held_back_do_not_reach_the_server_and_outcomes_do() -> None:
    with FakeClient() as client:
        slow(client)
        held = client.held_back
        for _ in range(100):
            try:
                client.decide("offers", {}, ["a", "b"])
            except grpc.RpcError:
                client.report("d1", 1.0)
        assert client.held_back > held
        assert len(client.engine.requests) + client.held_back - held == 100
        assert len(client.engine.outcomes) == client.held_back - held


def test_with_retries_a_call_that_is_held_back_is_made_again() -> None:
    with FakeClient(retry_s=PATIENCE_S) as client:
        slow(client)
        held = client.held_back
        for _ in range(3):
            client.decide("offers", {}, ["a", "b"])
        assert client.held_back > held
        assert len(client.engine.requests) == 3


def test_with_a_fallback_the_client_decides_what_it_holds_back() -> None:
    engine = FakeEngine()
    no_room(engine)
    with FakeClient(engine, fallback=Fallback()) as client:
        end = time.monotonic() + PATIENCE_S
        while not client.held_back and time.monotonic() < end:
            decided = client.decide("offers", {}, ["a", "b"])
        assert decided.fallback == "client"
        engine.recover()
        client.hand_in()
    assert "held back by the client" in engine.handed_in[-1].detail


def test_without_a_throttle_every_call_is_sent() -> None:
    with FakeClient() as fake, LeewayClient("fake", channel=fake._channels[0], retry_s=0.0, throttle=False) as client:
        no_room(fake.engine)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            with pytest.raises(grpc.RpcError, match=CROWDED):
                client.decide("offers", {}, ["a", "b"])
        assert client.held_back == 0


def test_the_client_for_asyncio_holds_back_alike() -> None:
    async def ask(client: AsyncClient, engine: FakeEngine) -> grpc.RpcError:
        no_room(engine)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                await client.decide("offers", {}, ["a", "b"])
            except grpc.RpcError as error:
                if client.held_back:
                    return error
        raise AssertionError("nothing was held back")

    async def run() -> None:
        engine = FakeEngine()
        async with AsyncFakeClient(engine) as client:
            error = await ask(client, engine)
            assert isinstance(error, grpc.aio.AioRpcError)  # as those of the server are
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert judged(error) == (True, 0.05)
            engine.recover()
            assert await client.report("d1", 1.0)

    asyncio.run(run())
