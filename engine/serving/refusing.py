"""How a call is refused before it reaches the service."""

from __future__ import annotations

from typing import NoReturn

import grpc
from grpc_status import rpc_status

from engine.serving.errors import status_of
from engine.serving.seams import Observer


def refuse(observer: Observer, method: str, context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End a call with the status of an error, and have it counted."""
    status = rpc_status.to_status(status_of(error))
    observer.begin()
    observer.end(method, status.code.name)
    context.abort_with_status(status)
    raise AssertionError("abort_with_status raises")
