"""What a caller can do wrong: refused with a code, words and the field's name, by a server that goes on serving."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from engine.api.leeway.v1 import service_pb2, service_pb2_grpc
from engine.client import Candidate, decide_request
from engine.records import Action
from engine.serving.server import SERVICE
from tests.integration.service import ACTIONS, CONTEXT, OFFERS, Service, offer, running, settings

MAX_MESSAGE_BYTES = 65_536


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = settings({"offers": OFFERS, "banners": {}}, max_message_bytes=MAX_MESSAGE_BYTES)
    with running(tmp_path_factory.mktemp("service"), config, "serve") as service:
        yield service


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> service_pb2_grpc.LeewayStub:
    return service_pb2_grpc.LeewayStub(channel)


def context_with(name: str, **value: Any) -> Callable[[], service_pb2.DecideRequest]:
    def build() -> service_pb2.DecideRequest:
        request = offer()
        request.context.named[name].Clear()
        for kind, content in value.items():
            if kind == "numbers":
                request.context.named[name].numbers.values.extend(content)
            else:
                setattr(request.context.named[name], kind, content)
        return request

    return build


def action_with(**features: Any) -> Callable[[], service_pb2.DecideRequest]:
    return lambda: decide_request("offers", CONTEXT, ["none", Candidate("small", features)])


BAD_REQUESTS: dict[str, tuple[Callable[[], service_pb2.DecideRequest], str, str]] = {
    "no actions": (lambda: offer(actions=[]), "actions", "at least one"),
    "action twice": (lambda: offer(actions=[Action(id="a"), Action(id="a")]), "actions[1].id", "'a' stands twice"),
    "action without id": (lambda: offer(actions=[Action(id="a"), Action()]), "actions[1].id", "empty"),
    "all excluded": (lambda: offer(actions=[Action(id="a", excluded=True)]), "actions", "excluded"),
    "too many actions": (lambda: offer(actions=[Action(id=str(i)) for i in range(51)]), "actions", "51 candidates"),
    "NaN": (context_with("basket", number=math.nan), "context.features.basket", "nan"),
    "infinite": (context_with("basket", number=math.inf), "context.features.basket", "inf"),
    "text for a number": (context_with("basket", text="much"), "context.features.basket", "must be a number"),
    "number for a text": (context_with("country", number=31.0), "context.features.country", "must be a text"),
    "no value": (context_with("basket"), "context.features.basket", "must be a number"),
    "vector too short": (context_with("taste", numbers=[1.0]), "context.features.taste", "3 numbers, got 1"),
    "NaN in a vector": (context_with("taste", numbers=[0.0, 0.0, math.nan]), "context.features.taste[2]", "nan"),
    "unknown feature": (context_with("age", number=1.0), "context.features.age", "no such feature"),
    "NaN of an action": (action_with(discount=math.nan), "actions[1].features.discount", "nan"),
    "unknown feature of an action": (action_with(price=1.0), "actions[1].features.price", "no such feature"),
    "packed too short": (lambda: offer(packed_actions=b"\0" * 8), "packed_actions", "12 bytes"),
    "packed NaN": (
        lambda: offer(packed_actions=np.array([0.0, np.nan, 0.0], dtype="<f4").tobytes()),
        "packed_actions",
        "row 1 is nan",
    ),
    "long id": (lambda: offer(decision_id="x" * 257), "decision_id", "longer than 256"),
}


def refusal(call: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any) -> tuple[grpc.Call, dict[str, Any]]:
    """Make a call that must fail; return how it ended, and its details by the name of their message."""
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=10.0)
    ended = cast(grpc.Call, refused.value)
    status = rpc_status.from_call(ended)
    details: dict[str, Any] = {}
    for packed in status.details if status is not None else []:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Unpack(message):
                details[kind.DESCRIPTOR.name] = message
    return ended, details


def check_refused_by_field(error: grpc.Call, details: dict[str, Any], field: str, words: str) -> None:
    (violation,) = details["BadRequest"].field_violations
    assert violation.field == field
    assert words in violation.description
    assert field in str(error.details())
    assert words in str(error.details())
    assert details["ErrorInfo"].domain == "leeway"


@pytest.mark.parametrize(("build", "field", "words"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    service: Service,
    stub: service_pb2_grpc.LeewayStub,
    build: Callable[[], service_pb2.DecideRequest],
    field: str,
    words: str,
) -> None:
    request = build()
    error, details = refusal(stub.Decide, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    check_refused_by_field(error, details, field, words)
    assert details["ErrorInfo"].reason == "INVALID_REQUEST"
    good = offer()
    assert stub.Decide(good, timeout=10.0).decision_id == good.decision_id
    logged = {decision.decision_id for decision in service.decisions()}
    assert good.decision_id in logged
    assert request.decision_id not in logged


def test_an_unknown_decision_point_is_not_found(stub: service_pb2_grpc.LeewayStub) -> None:
    error, details = refusal(stub.Decide, offer(decision_point="ofers"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    check_refused_by_field(error, details, "decision_point", "known are: banners, offers")
    assert details["ErrorInfo"].reason == "UNKNOWN_DECISION_POINT"
    error, details = refusal(stub.Report, service_pb2.ReportRequest(decision_id="d", decision_point="ofers"))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_an_id_is_not_given_to_decisions_of_two_points(stub: service_pb2_grpc.LeewayStub) -> None:
    used = stub.Decide(offer(), timeout=10.0).decision_id
    error, details = refusal(stub.Decide, decide_request("banners", {}, ["a"], used))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    check_refused_by_field(error, details, "decision_id", "belongs to a decision of 'offers'")


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (service_pb2.ReportRequest(value=1.0), "decision_id", "empty"),
        (service_pb2.ReportRequest(decision_id="d", value=math.nan), "value", "finite"),
        (service_pb2.ReportRequest(decision_id="d", value=7.0, decision_point="offers"), "value", "[0.0, 1.0]"),
        (service_pb2.ReportRequest(decision_id="d", value=1.0, time_ms=-1), "time_ms", "milliseconds since 1970"),
        (service_pb2.ReportRequest(decision_id="d", value=1.0, outcome_id="x" * 257), "outcome_id", "longer"),
    ],
)
def test_a_bad_report_is_refused_by_the_name_of_its_field(
    stub: service_pb2_grpc.LeewayStub, request_: service_pb2.ReportRequest, field: str, words: str
) -> None:
    error, details = refusal(stub.Report, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    check_refused_by_field(error, details, field, words)


def test_an_oversized_request_is_refused_and_the_server_lives(stub: service_pb2_grpc.LeewayStub) -> None:
    large = offer()
    large.context.named["country"].text = "x" * (2 * MAX_MESSAGE_BYTES)
    error, _ = refusal(stub.Decide, large)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE_BYTES) in str(error.details())
    assert stub.Decide(offer(), timeout=10.0).action in ACTIONS


def test_bytes_that_are_no_request_are_refused_and_the_server_lives(
    channel: grpc.Channel, stub: service_pb2_grpc.LeewayStub
) -> None:
    call = channel.unary_unary(f"/{SERVICE}/Decide", request_serializer=bytes, response_deserializer=bytes)
    error, _ = refusal(call, b"\xff\xff\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert stub.Decide(offer(), timeout=10.0).action in ACTIONS
