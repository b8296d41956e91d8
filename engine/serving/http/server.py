"""The HTTP server: uvicorn on a thread and an event loop of its own."""

from __future__ import annotations

import logging
import math
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from engine.config import HttpConfig
from engine.errors import ConfigError
from engine.serving.http.app import HttpFace

logger = logging.getLogger(__name__)

_BACKLOG = 2_048


class HttpServer:
    """Listens while it is started.

    Parameters
    ----------
    config
        Where.
    face
        What answers.
    grace_s
        How long the end waits for requests under way.
    shared
        Whether other processes listen on the same port.
    """

    def __init__(self, config: HttpConfig, face: HttpFace, grace_s: float, *, shared: bool = False) -> None:
        self._config = config
        self._shared = shared
        self._face = face
        self._server = web_server(face.app(), grace_s)
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> int:
        """Listen and return the port; raises ``ConfigError`` where the address cannot be had."""
        address = (self._config.host, self._config.port)
        try:
            self._listener = listen(*address, shared=self._shared)
        except OSError as error:
            raise ConfigError(
                f"serving.http.host/port: cannot listen on {address[0]}:{address[1]} ({error}); choose a free port"
            ) from error
        port = int(self._listener.getsockname()[1])
        self._thread.start()
        return port

    def _run(self) -> None:
        assert self._listener is not None
        try:
            self._server.run(sockets=[self._listener])
        except BaseException:
            logger.exception("the HTTP server has ended; gRPC goes on")

    def drain(self) -> None:
        """Say that no more requests should come."""
        self._face.draining = True

    def stop(self) -> None:
        """Take no more requests, let those under way end, and close."""
        self._server.should_exit = True
        self._thread.join()


def web_server(app: ASGIApp, grace_s: float, *, most: int | None = None) -> uvicorn.Server:
    """Return the server of an application, which says nothing of itself and believes no proxy.

    Parameters
    ----------
    app
        What answers.
    grace_s
        How long the end waits for requests under way.
    most
        More connections at a time are answered with 503; ``None``: any number is taken.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            limit_concurrency=most,
            timeout_graceful_shutdown=max(math.ceil(grace_s), 1),
        )
    )


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens, alone or beside those of other processes; raises ``OSError``."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    # With its protocol named: asyncio turns off Nagle's algorithm for such alone, and an answer, which is sent in two
    # parts, would wait for the other side's delayed acknowledgement, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
