"""What callers send: messages over gRPC, forms over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message
from starlette.types import Message as Event

from engine.api.leeway.v1 import service_pb2
from engine.config import ServingConfig
from engine.errors import LeewayError
from engine.serving.http.app import HttpFace
from engine.serving.load import Load
from engine.serving.service import DecisionService
from tests.engine.recommender import shop
from tests.engine.samples import (
    NAME,
    POINT,
    TIME_MS,
    MemoryObserver,
    MemoryRecorder,
    make_policy,
    request,
)
from tests.engine.serving.world import REQUESTS
from tests.fuzz.harness import Harness

_PATIENCE_S = 5.0
#: Path, and a body that it takes.
PATHS: dict[str, bytes] = {
    "/v1/decide": b'{"decision_point": "offers", "decision_id": "d1", "context": {"amount": 0.5, "country": "NL", '
    b'"taste": [0.25, -1, 2]}, "actions": ["north", {"id": "east", "features": {"price": 0.1, "kind": "big", '
    b'"embedding": [1, 2]}}, {"id": "west", "excluded": true}], "choice": {"chosen": 1, "probabilities": [0.5, 0.5]}}',
    "/v1/decide/batch": b'{"requests": [{"decision_point": "offers", "context": {}, "actions": ["north"]}]}',
    "/v1/recommend": b'{"recommender": "shop", "user": {"country": "NL", "age": 3, "recent": ["i1"]}, '
    b'"candidates": ["i1", "i2"], "k": 2, "exclude": ["i3"]}',
    "/v1/report": b'{"decision_id": "d1", "value": 1.0, "outcome_id": "o", "time_ms": 1767225600000, "slot": 1}',
    "/v1/report/batch": b'{"requests": [{"decision_id": "d1", "value": 1.0, "decision_point": "offers"}]}',
    "/v1/activate": b'{"decision_id": "d1", "decision_point": "offers", "time_ms": 0}',
}


@cache
def service() -> DecisionService:
    """Return a core with a decision point and a recommender."""
    lists = shop.make_policy()
    return DecisionService(
        {NAME: POINT},
        {NAME: make_policy()},
        MemoryRecorder(),
        MemoryObserver(),
        1_000,
        recommenders={shop.NAME: (lists.recommender, lists)},
    )


def _answer(method: str, message: Any) -> Message | None:
    core = service()
    match method:
        case "Decide":
            return core.decide(message, TIME_MS).result(_PATIENCE_S)
        case "Recommend":
            return core.recommend(message, TIME_MS).result(_PATIENCE_S)
        case "Report":
            core.report(message, TIME_MS)[1].result(_PATIENCE_S)
        case "Activate":
            core.activate(message, TIME_MS).result(_PATIENCE_S)
        case "Record":
            for decision in message.decisions:
                core.record(decision, TIME_MS).result(_PATIENCE_S)
        case _:
            for answer in core.decide_each(message.requests, TIME_MS):
                if not isinstance(answer, Exception):
                    answer.result(_PATIENCE_S)
                elif not isinstance(answer, LeewayError):
                    raise answer
    return None


def _grpc(method: str) -> Harness:
    seeds = [REQUESTS[method].SerializeToString()] if method != "Record" else []
    if method == "Decide":
        packed = service_pb2.DecideRequest(
            decision_point=NAME,
            context=service_pb2.DecideRequest.FromString(seeds[0]).context,
            actions=request().actions,
            choice=service_pb2.Choice(chosen=1, probabilities=[0.5, 0.5, 0.0, 0.0]),
            packed_actions=bytes(4 * 3 * 4),
        )
        for name in ("amount", "taste"):  # numbers come in one of the two forms
            del packed.context.named[name]
        packed.context.packed = bytes(16)
        for action in packed.actions:
            for name in ("price", "embedding"):
                del action.features[name]
        seeds.append(packed.SerializeToString())
    if method == "Record":
        made = service_pb2.ClientDecision(
            request=request("c1"), probabilities=[0.25] * 4, chosen=1, salt="x", time_ms=TIME_MS, detail="why"
        )
        seeds.append(service_pb2.RecordRequest(decisions=[made]).SerializeToString())
    kind = type(REQUESTS[method])

    def run(data: bytes, _: Path) -> None:
        answer = _answer(method, kind.FromString(data))
        if isinstance(answer, service_pb2.DecideResponse):
            assert answer.propensity == answer.probabilities[answer.action_index], "a propensity is not its vector's"

    return Harness(f"grpc_{method.lower()}", lambda: seeds, run, (LeewayError, DecodeError), 150)


@cache
def _app() -> Any:
    config = ServingConfig.model_validate({"http": {"port": 0}})
    return HttpFace(service(), config, MemoryObserver(), lambda: TIME_MS, None, Load(config)).app()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def status_of(path: str, body: bytes) -> int:
    """Return the status with which the application answers a body."""
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
        "root_path": "", "scheme": "http", "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    said: list[int] = []

    async def receive() -> Event:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Event) -> None:
        if event["type"] == "http.response.start":
            said.append(event["status"])

    _loop().run_until_complete(_app()(scope, receive, send))
    return said[0]


def _http(data: bytes, _: Path) -> None:
    """The first byte chooses the path."""
    path = list(PATHS)[(data[0] if data else 0) % len(PATHS)]
    status = status_of(path, data[1:])
    assert status < 500, f"{path} answered {status}"


def _http_seeds() -> Sequence[bytes]:
    return [bytes([place]) + body for place, body in enumerate(PATHS.values())]


HARNESSES = (
    *map(_grpc, ("Decide", "DecideBatch", "Record", "Recommend", "Report", "Activate")),
    Harness("http", _http_seeds, _http, mutations=500),
)
