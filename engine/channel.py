"""How a client reaches a server: in plain text or by TLS, with or without a token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from engine.errors import ConfigError
from engine.loopback import is_loopback

if TYPE_CHECKING:  # grpc-stubs alone give them parameters
    _Interceptor = grpc.UnaryUnaryClientInterceptor[Any, Any]
    _StreamInterceptor = grpc.StreamStreamClientInterceptor[Any, Any]
    _AsyncInterceptor = grpc.aio.UnaryUnaryClientInterceptor[Any, Any]
else:
    _Interceptor = grpc.UnaryUnaryClientInterceptor
    _StreamInterceptor = grpc.StreamStreamClientInterceptor
    _AsyncInterceptor = grpc.aio.UnaryUnaryClientInterceptor

logger = logging.getLogger(__name__)


@dataclass
class _Details(grpc.ClientCallDetails):
    """Details of a call, with the token among its metadata."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Bearer(_Interceptor, _StreamInterceptor):
    """Sends a token with each call."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Any], grpc.CallFuture[Any]],
        client_call_details: grpc.ClientCallDetails,
        request: Any,
    ) -> grpc.CallFuture[Any]:
        """Add the token and go on."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Any], Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        """Add the token and go on."""
        return continuation(self._with_token(client_call_details), request_iterator)

    def _with_token(self, said: grpc.ClientCallDetails) -> _Details:
        return _Details(
            said.method,
            said.timeout,
            (*(said.metadata or ()), *self._metadata),
            said.credentials,
            said.wait_for_ready,
            said.compression,
        )


class _AsyncBearer(_AsyncInterceptor):
    """Sends a token with each call of an asyncio channel."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Add the token and go on."""
        said = client_call_details
        metadata = grpc.aio.Metadata(*(said.metadata or ()), *self._metadata)
        details = grpc.aio.ClientCallDetails(said.method, said.timeout, metadata, said.credentials, said.wait_for_ready)
        return await continuation(details, request)


def open_channel(
    target: str,
    options: Sequence[tuple[str, Any]] = (),
    *,
    credentials: grpc.ChannelCredentials | None = None,
    token: str | None = None,
) -> grpc.Channel:
    """Return a channel to a server.

    Parameters
    ----------
    target
        ``host:port``.
    options
        Of gRPC.
    credentials
        For TLS, as ``tls_credentials`` makes them; ``None``: plain text.
    token
        Sent with each call. In plain text whoever is on the way reads it: that is warned of, unless the server is on
        this machine.
    """
    if credentials is None:
        _warn_of_plain_text(target, token)
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, credentials, options)
    return channel if token is None else grpc.intercept_channel(channel, _Bearer(token))


def open_async_channel(
    target: str,
    options: Sequence[tuple[str, Any]] = (),
    *,
    credentials: grpc.ChannelCredentials | None = None,
    token: str | None = None,
) -> grpc.aio.Channel:
    """Return a channel for asyncio; see :func:`open_channel`."""
    interceptors: Any = [] if token is None else [_AsyncBearer(token)]
    if credentials is None:
        _warn_of_plain_text(target, token)
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def _warn_of_plain_text(target: str, token: str | None) -> None:
    hosts = target.partition(":")[2].split(",") if target.startswith(("ipv4:", "ipv6:")) else [target]
    if token is not None and not all(is_loopback(host.rpartition(":")[0]) for host in hosts):
        logger.warning("the token for %s travels in plain text; use TLS", target)


def tls_credentials(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Return what a channel needs for TLS, and with a certificate and its key for mutual TLS.

    Parameters
    ----------
    ca
        Who signed the server's certificate, in PEM form; ``None``: those whom gRPC trusts.
    certificate, key
        The client's, in PEM form; both or none.

    Raises
    ------
    ConfigError
        A file cannot be read, or one of the pair is missing.
    """
    if (certificate is None) != (key is None):
        raise ConfigError("a client's certificate and its key go together; give both or none")
    return grpc.ssl_channel_credentials(_content(ca), _content(key), _content(certificate))


def _content(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
