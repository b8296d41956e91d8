"""What is taken from grpcio's inside, and whether it is as it was when this was written.

grpcio has no public way to ask for a call's message before the call has a thread. Below its Python server is one module
in Cython, ``cygrpc``: calls, the operations on them, and the queue of what has ended. Of that server are used here how
it asks for calls and how it ends, so that streams, health and reflection are served by it as ever.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

#: Without types: their stubs do not know what is used here.
server: Any = None
cygrpc: Any = None
with suppress(ImportError):
    from grpc import _server
    from grpc._cython import cygrpc as _cygrpc  # type: ignore[attr-defined]

    server, cygrpc = _server, _cygrpc

_PARAMETERS = {
    "_process_event_and_continue": "state event",
    "_request_call": "state",
    "_request_registered_call": "state method",
    "_stop_serving": "state",
}
_NAMES = ("_CANCELLED", "_CLOSED", "_Context", "_OPEN", "_REQUEST_CALL_TAG", "_Server", "_ServerStage")
_CONTEXT = "rpc_event state request_deserializer"
_OPERATIONS = (
    "CompletionType",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
)


def unknown() -> str:
    """Return what is not as it is needed, by its name; empty: nothing.

    Examples
    --------
    >>> unknown()
    ''
    """
    for name in _NAMES:
        if not hasattr(server, name):
            return f"grpc._server.{name}"
    for name, parameters in _PARAMETERS.items():
        if _parameters(getattr(server, name, None)) != parameters:
            return f"grpc._server.{name}"
    if _parameters(server._Context) != _CONTEXT:
        return "grpc._server._Context"
    for name in _OPERATIONS:
        if not hasattr(cygrpc, name):
            return f"cygrpc.{name}"
    return ""


def _parameters(of: object) -> str:
    return " ".join(inspect.signature(of).parameters) if callable(of) else ""
