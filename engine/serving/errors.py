"""From errors to gRPC statuses with rich details, in one place for single calls and batches."""

from __future__ import annotations

import concurrent.futures
import math

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from engine.errors import (
    DeadlinePassed,
    InvalidRequest,
    LogError,
    NotAuthenticated,
    NotPermitted,
    Overloaded,
    UnknownDecisionPoint,
)

DOMAIN = "leeway"
_RETRY = Duration(seconds=1)
#: Bytes of a text. A status travels in trailing metadata, three texts and their encoding, and gRPC allows 8 KiB.
_LONGEST = 1_000


def status_of(error: BaseException) -> Status:
    """Return the status that tells a caller what went wrong, where, and whether to try again."""
    match error:
        case UnknownDecisionPoint():
            return _status(code_pb2.NOT_FOUND, str(error), "UNKNOWN_DECISION_POINT", _field(error))
        case InvalidRequest():
            return _status(code_pb2.INVALID_ARGUMENT, str(error), "INVALID_REQUEST", _field(error))
        case NotAuthenticated():
            return _status(code_pb2.UNAUTHENTICATED, str(error), "NOT_AUTHENTICATED")
        case NotPermitted():
            return _status(code_pb2.PERMISSION_DENIED, str(error), "NOT_PERMITTED")
        case Overloaded():
            after = Duration()
            after.FromMilliseconds(math.ceil(error.retry_s * 1_000.0))
            return _status(
                code_pb2.RESOURCE_EXHAUSTED,
                str(error),
                error.reason.upper(),
                error_details_pb2.RetryInfo(retry_delay=after),
            )
        case DeadlinePassed():
            return _status(
                code_pb2.DEADLINE_EXCEEDED, str(error), "TOO_LATE", error_details_pb2.RetryInfo(retry_delay=_RETRY)
            )
        case LogError():
            return _status(
                code_pb2.UNAVAILABLE,
                f"the decision log did not take it, so nothing was decided or recorded: {error}",
                "LOG_UNAVAILABLE",
                error_details_pb2.RetryInfo(retry_delay=_RETRY),
            )
        case concurrent.futures.TimeoutError():
            return _status(
                code_pb2.DEADLINE_EXCEEDED,
                "the log did not confirm within the deadline; retry with the same id: the answer will be the same",
                "LOG_SLOW",
                error_details_pb2.RetryInfo(retry_delay=_RETRY),
            )
        case _:
            return _status(code_pb2.INTERNAL, f"{type(error).__name__}: {error}; see the server's log", "INTERNAL")


def _field(error: InvalidRequest) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=_shortened(error.field), description=_shortened(error.problem)
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _status(
    code: int,
    message: str,
    reason: str,
    detail: error_details_pb2.BadRequest | error_details_pb2.RetryInfo | None = None,
) -> Status:
    status = Status(code=code, message=_shortened(message))
    for part in (error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN), detail):
        if part is not None:
            packed = Any()
            packed.Pack(part)
            status.details.append(packed)
    return status


def _shortened(text: str) -> str:
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= _LONGEST else data[:_LONGEST].decode(errors="ignore") + "..."
