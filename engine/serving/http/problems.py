"""What went wrong, as ``application/problem+json`` (RFC 9457): the same words, reasons and hints as over gRPC."""

from __future__ import annotations

import http
import logging
import math

from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status
from pydantic import Field, ValidationError

from engine.client.messages import retry_delay_s
from engine.serving.errors import status_of
from engine.serving.http.forms import TAGS, DecideAnswer, Form, ReportAnswer

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: From gRPC's codes to those of HTTP (google/rpc/code.proto); any other is a fault of ours.
HTTP_STATUS = {
    code_pb2.INVALID_ARGUMENT: http.HTTPStatus.BAD_REQUEST,
    code_pb2.UNAUTHENTICATED: http.HTTPStatus.UNAUTHORIZED,
    code_pb2.PERMISSION_DENIED: http.HTTPStatus.FORBIDDEN,
    code_pb2.NOT_FOUND: http.HTTPStatus.NOT_FOUND,
    code_pb2.RESOURCE_EXHAUSTED: http.HTTPStatus.TOO_MANY_REQUESTS,
    code_pb2.UNAVAILABLE: http.HTTPStatus.SERVICE_UNAVAILABLE,
    code_pb2.DEADLINE_EXCEEDED: http.HTTPStatus.GATEWAY_TIMEOUT,
}


class Violation(Form):
    """What is wrong with one field."""

    field: str = Field(description="path of the field in the request")
    description: str


class Problem(Form):
    """Why a request was not served."""

    type: str = Field(description="urn:leeway:problem: and the reason in lower case")
    title: str
    status: int
    detail: str
    reason: str = Field(description="for programs; the same as in ErrorInfo over gRPC")
    violations: list[Violation] = Field([])
    retry_after_s: float | None = Field(None, description="when to send the same again; none: it is wrong as it is")


class DecideItem(Form):
    """One item of a batch: the answer, or why there is none."""

    response: DecideAnswer | None = None
    error: Problem | None = None


class ReportItem(Form):
    """One item of a batch: the answer, or why there is none."""

    response: ReportAnswer | None = None
    error: Problem | None = None


class DecideBatchAnswer(Form):
    """In the order of the requests."""

    items: list[DecideItem]


class ReportBatchAnswer(Form):
    """In the order of the requests."""

    items: list[ReportItem]


class RefusedError(Exception):
    """A request that HTTP itself refuses, before it reaches the core."""

    def __init__(
        self,
        status: http.HTTPStatus,
        reason: str,
        detail: str,
        violations: list[Violation] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = _problem(status, reason, detail, violations or [], retry_after_s)


def problem_of(error: Exception) -> tuple[Problem, str]:
    """Return what a caller is told of an error, and the gRPC code that it is counted under."""
    if isinstance(error, RefusedError):
        return error.problem, "INVALID_ARGUMENT" if error.problem.status < 500 else "UNAVAILABLE"
    status = status_of(error)
    if status.code == code_pb2.INTERNAL:
        logger.error("request failed", exc_info=error)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    _find(status, info)
    _find(status, bad)
    violations = [Violation(field=each.field, description=each.description) for each in bad.field_violations]
    code = HTTP_STATUS.get(code_pb2.Code.ValueType(status.code), http.HTTPStatus.INTERNAL_SERVER_ERROR)
    problem = _problem(code, info.reason, status.message, violations, retry_delay_s(status))
    return problem, code_pb2.Code.Name(status.code)


def malformed(error: ValidationError) -> RefusedError:
    """Return the refusal of a body that has not the form of its request."""
    violations = [
        Violation(field=_path(each["loc"]), description=each["msg"].removeprefix("Value error, "))
        for each in error.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]
    words = "; ".join(f"{each.field}: {each.description}" for each in violations)
    return RefusedError(http.HTTPStatus.BAD_REQUEST, "INVALID_REQUEST", words[:1_000], violations)


def headers_of(problem: Problem) -> dict[str, str]:
    """Return the headers that belong to a problem."""
    # Whole seconds, rounded up: HTTP knows no others.
    return {} if problem.retry_after_s is None else {"Retry-After": str(math.ceil(problem.retry_after_s))}


def _problem(
    status: http.HTTPStatus, reason: str, detail: str, violations: list[Violation], retry_after_s: float | None
) -> Problem:
    return Problem(
        type=f"urn:leeway:problem:{reason.lower().replace('_', '-')}",
        title=status.phrase,
        status=status.value,
        detail=detail,
        reason=reason,
        violations=violations,
        retry_after_s=retry_after_s,
    )


def _find(status: Status, into: Any | error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> None:
    for detail in status.details:
        if detail.Unpack(into):
            return


def _path(steps: tuple[int | str, ...]) -> str:
    """Return a path such as ``requests[2].value``."""
    path = ""
    for step in steps:
        if step not in TAGS:
            path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path or "body"
