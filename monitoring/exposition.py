"""The HTTP endpoint that Prometheus scrapes."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from engine.errors import ConfigError


class MetricsServer:
    """A running endpoint; ``close`` ends it."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server, self._thread = server, thread

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening and free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> MetricsServer:
    """Serve a registry at ``http://host:port/metrics`` from a thread; port 0 takes any free one.

    Raises ``ConfigError`` where the address cannot be taken. The client library would show for each counter the time
    at which it was made, as a series of its own; that is turned off for the process.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"metrics endpoint: cannot listen on {host}:{port} ({error}); choose another port (0: any free one)"
        ) from error
    return MetricsServer(server, thread)
