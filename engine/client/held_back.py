"""Methods of a stub some of whose calls are not sent, and how such a call fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from engine.client.retries import STATUS
from engine.client.throttle import Throttle

if TYPE_CHECKING:
    from engine.api.leeway.v1.service_pb2_grpc import LeewayAsyncStub, LeewayStub

Q = TypeVar("Q")
A = TypeVar("A")

#: When what was held back may come again, at the earliest.
_AGAIN_S = 0.05
#: Methods whose calls are held back. Outcomes are not: one that is lost is lost for learning.
_METHODS = ("Decide", "DecideBatch", "Recommend")

_DETAILS = (
    "held back by the client, not sent: the server has refused most of its last calls for want of room; come again "
    "later (throttle=False sends every call)"
)


def _metadata() -> tuple[tuple[str, bytes], ...]:
    status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=_DETAILS)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="HELD_BACK", domain="leeway"))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=round(_AGAIN_S * 1e9))))
    return ((STATUS, status.SerializeToString()),)


_METADATA = _metadata()


class HeldBackError(grpc.RpcError):
    """A call that was not sent. It says what a refusal by the server says, with the reason ``HELD_BACK``."""

    def __init__(self) -> None:
        super().__init__(f"RESOURCE_EXHAUSTED: {_DETAILS}")

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        """Return the reason in words."""
        return _DETAILS

    def initial_metadata(self) -> tuple[Any, ...]:
        """Return nothing: no server has answered."""
        return ()

    def trailing_metadata(self) -> tuple[Any, ...]:
        """Return the rich status: the reason, and when to come again."""
        return _METADATA


class _Method(Generic[Q, A]):
    """A method of a stub, some of whose calls are held back."""

    def __init__(self, method: Callable[..., A], throttle: Throttle) -> None:
        self._method = method
        self._throttle = throttle

    def __call__(self, request: Q, timeout: float) -> A:
        sent_s = time.monotonic()
        if not self._throttle.admit(sent_s):
            raise HeldBackError
        try:
            answer = self._method(request, timeout=timeout)
        except grpc.RpcError as error:
            self._throttle.failed(error, sent_s, time.monotonic())
            raise
        self._throttle.accepted(sent_s, time.monotonic())
        return answer


class _AsyncMethod(Generic[Q, A]):
    """The same for asyncio."""

    def __init__(self, method: Callable[..., Awaitable[A]], throttle: Throttle) -> None:
        self._method = method
        self._throttle = throttle

    async def __call__(self, request: Q, timeout: float) -> A:
        sent_s = time.monotonic()
        if not self._throttle.admit(sent_s):
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.aio.Metadata(),
                grpc.aio.Metadata(*_METADATA),
                _DETAILS,
                None,
            )
        try:
            answer = await self._method(request, timeout=timeout)
        except grpc.RpcError as error:
            self._throttle.failed(error, sent_s, time.monotonic())
            raise
        self._throttle.accepted(sent_s, time.monotonic())
        return answer


def throttled(stub: LeewayStub, throttle: Throttle) -> LeewayStub:
    """Return a stub whose decisions ask a throttle first."""
    for name in _METHODS:
        setattr(stub, name, _Method(getattr(stub, name), throttle))
    return stub


def throttled_async(stub: LeewayAsyncStub, throttle: Throttle) -> LeewayAsyncStub:
    """Return the same for asyncio."""
    for name in _METHODS:
        setattr(stub, name, _AsyncMethod(getattr(stub, name), throttle))
    return stub
