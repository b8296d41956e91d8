from __future__ import annotations

import base64
import concurrent.futures
from urllib.parse import quote

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from engine.errors import (
    ConfigError,
    DeadlinePassed,
    InvalidRequest,
    LogError,
    Overloaded,
    SnapshotError,
    UnknownDecisionPoint,
)
from engine.serving.errors import DOMAIN, status_of


def details(status: Status) -> dict[str, object]:
    """Unpack the rich details by the name of their type."""
    found: dict[str, object] = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        for packed in status.details:
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    assert len(found) == len(status.details)
    return found


def reason(status: Status) -> str:
    info = details(status)["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == DOMAIN
    return str(info.reason)


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (InvalidRequest("actions[2].id", "is empty"), code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (UnknownDecisionPoint("oofers", ["offers"]), code_pb2.NOT_FOUND, "UNKNOWN_DECISION_POINT"),
        (LogError("disk full"), code_pb2.UNAVAILABLE, "LOG_UNAVAILABLE"),
        (concurrent.futures.TimeoutError(), code_pb2.DEADLINE_EXCEEDED, "LOG_SLOW"),
        (TimeoutError(), code_pb2.DEADLINE_EXCEEDED, "LOG_SLOW"),
        (Overloaded("queue_full", "no room", 0.2), code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (DeadlinePassed("too late"), code_pb2.DEADLINE_EXCEEDED, "TOO_LATE"),
        (SnapshotError("damaged"), code_pb2.INTERNAL, "INTERNAL"),
        (ConfigError("wrong"), code_pb2.INTERNAL, "INTERNAL"),
        (ZeroDivisionError("oh"), code_pb2.INTERNAL, "INTERNAL"),
    ],
)
def test_every_error_has_its_code_and_reason(error: Exception, code: int, expected: str) -> None:
    status = status_of(error)
    assert status.code == code
    assert reason(status) == expected
    assert status.message
    assert code in [known.value[0] for known in grpc.StatusCode]


@pytest.mark.parametrize(
    ("error", "field", "problem"),
    [
        (InvalidRequest("actions[2].features.price", "must be a number"), "actions[2].features.price", "must be a num"),
        (UnknownDecisionPoint("oofers", ["offers"]), "decision_point", "'oofers' is not configured; known are: offers"),
        (UnknownDecisionPoint("oofers", []), "decision_point", "known are: none"),
    ],
)
def test_what_the_caller_got_wrong_is_told_by_field(error: InvalidRequest, field: str, problem: str) -> None:
    status = status_of(error)
    bad = details(status)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    (violation,) = bad.field_violations
    assert violation.field == field
    assert problem in violation.description
    assert status.message == f"{violation.field}: {violation.description}"


@pytest.mark.parametrize("error", [LogError("disk full"), TimeoutError()])
def test_what_may_be_retried_says_when(error: Exception) -> None:
    retry = details(status_of(error))["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.0


@pytest.mark.parametrize("error", [InvalidRequest("value", "is nan"), ZeroDivisionError()])
def test_what_cannot_get_better_names_no_time(error: Exception) -> None:
    assert "RetryInfo" not in details(status_of(error))


def test_causes_are_in_the_message() -> None:
    assert "disk full" in status_of(LogError("disk full")).message
    assert "nothing was decided" in status_of(LogError("disk full")).message
    assert "retry with the same id" in status_of(TimeoutError()).message
    assert status_of(ZeroDivisionError("oh")).message.startswith("ZeroDivisionError: oh")


@pytest.mark.parametrize("letter", ["x", "é", "日", "\N{PILE OF POO}", "\n", "\udc80"])
def test_whatever_a_caller_sends_its_status_fits_into_the_trailing_metadata(letter: str) -> None:
    # Beyond 8 KiB gRPC drops the status and the caller sees RESOURCE_EXHAUSTED in place of the reason.
    long = letter * 100_000
    for error in (UnknownDecisionPoint(long, ["offers"]), InvalidRequest(long, long), LogError(long), OSError(long)):
        status = status_of(error)
        assert 500 < len(status.message.encode()) < 1_100
        metadata = len(quote(status.message)) + len(base64.b64encode(status.SerializeToString()))
        assert metadata < 7_900
        assert reason(status)


def test_a_short_text_stays_as_it_is() -> None:
    assert status_of(InvalidRequest("a", "é" * 400)).message == "a: " + "é" * 400
