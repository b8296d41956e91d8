"""Bytes that are no request: the caller's fault, and told so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from engine.errors import InvalidRequest
from engine.serving.refusing import refuse
from engine.serving.seams import Observer

#: Where grpcio looks for the threads of a method.
_THREADS = "experimental_thread_pool"


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request that could not be read; grpcio would end the call with ``INTERNAL``, as if we had failed."""

    problem: str


def _reader(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError as error:
            return Malformed(str(error))

    return deserialize


class Registration:
    """A server to which the generated code adds a service, and whose handlers refuse what is malformed.

    Parameters
    ----------
    server
        Gets the handlers.
    observer
        Is told of calls that are refused.
    """

    def __init__(self, server: grpc.Server, observer: Observer) -> None:
        self._server = server
        self._observer = observer

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """Leave them out: they are the registered ones once more."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Add the handlers of a service."""
        guarded = {method: self._guarded(method, handler) for method, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))
        self._server.add_registered_method_handlers(service, guarded)  # type: ignore[attr-defined]

    def _guarded(self, method: str, handler: Any) -> Any:
        name, of_calls = ("stream_stream", self._stream) if handler.request_streaming else ("unary_unary", self._call)
        answer = getattr(handler, name)
        call = of_calls(method, answer)
        if hasattr(answer, _THREADS):
            setattr(call, _THREADS, getattr(answer, _THREADS))
        return handler._replace(request_deserializer=_reader(handler.request_deserializer), **{name: call})

    def _call(self, method: str, answer: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            if isinstance(request, Malformed):
                self._refuse(method, context, request)
            return answer(request, context)

        return call

    def _stream(self, method: str, answer: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            bad: list[Malformed] = []
            yield from answer(_until(requests, bad), context)
            if bad:
                self._refuse(method, context, bad[0])

        return call

    def _refuse(self, method: str, context: grpc.ServicerContext, request: Malformed) -> None:
        refuse(self._observer, method, context, InvalidRequest("request", f"is no such message ({request.problem})"))


def _until(requests: Iterator[Any], bad: list[Malformed]) -> Iterator[Any]:
    """Yield requests until one is malformed, which is put into ``bad``: those before it are answered."""
    for request in requests:
        if isinstance(request, Malformed):
            bad.append(request)
            return
        yield request
