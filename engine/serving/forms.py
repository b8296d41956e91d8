"""In which form each method of the service takes its request and gives its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from engine.api.leeway.v1 import service_pb2
from engine.api.leeway.v1.parts_pb2 import DecideRequestParts
from engine.serving.batch import Batch

_SERVICE = service_pb2.DESCRIPTOR.services_by_name["Leeway"]
#: What is read less deeply than its message; these, and ``Record``, give their answers as bytes.
_REQUESTS: dict[str, Callable[[bytes], Any]] = {
    "Decide": DecideRequestParts.FromString,
    "DecideBatch": Batch,
    "DecideStream": DecideRequestParts.FromString,
}
_WRITTEN = frozenset({*_REQUESTS, "Record"})


def add_to_server(servicer: Any, server: grpc.Server) -> None:
    """Add the methods of a ``LeewayServicer``, or of what stands before one, to a server."""
    handlers = {}
    for method in _SERVICE.methods:
        whole = GetMessageClass(method.input_type).FromString
        written = GetMessageClass(method.output_type).SerializeToString
        handle = (
            grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
        )
        handlers[method.name] = handle(
            getattr(servicer, method.name),
            request_deserializer=_REQUESTS.get(method.name, whole),
            response_serializer=bytes if method.name in _WRITTEN else written,
        )
    # As the generated code does.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers),))
    server.add_registered_method_handlers(_SERVICE.full_name, handlers)  # type: ignore[attr-defined]  # of no stub
