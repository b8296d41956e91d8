"""The gRPC server: services, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc, service_pb2, service_pb2_grpc
from engine.config import ServingConfig
from engine.errors import ConfigError
from engine.serving.admin import AdminServicer
from engine.serving.servicer import LeewayServicer

logger = logging.getLogger(__name__)

SERVICE = service_pb2.DESCRIPTOR.services_by_name["Leeway"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["LeewayAdmin"].full_name


class _Health(health.HealthServicer):
    """Standard health whose watchers are let go: a call that never ends would hold every drain to its last second."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=True)
        self._watchers: set[Callable[..., Any]] = set()

    def Watch(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext, send_response_callback: Callable[..., Any] | None = None
    ) -> Any:
        """Send the status of a service now and whenever it changes."""
        if send_response_callback is not None:
            self._watchers.add(send_response_callback)
            context.add_callback(lambda: self._watchers.discard(send_response_callback))
        return super().Watch(request, context, send_response_callback)

    def release(self) -> None:
        """End the calls of all who watch."""
        for send in tuple(self._watchers):
            send(None)


class Server:
    """A gRPC server with standard health.

    The health service knows ``""`` (alive), ``leeway.v1.Leeway`` (ready) and ``leeway.v1.Leeway/<decision point>``.

    Parameters
    ----------
    config
        Address, threads, limits.
    servicer, admin
        What answers.
    points
        Names of the decision points, each of which has a readiness of its own.
    """

    def __init__(
        self, config: ServingConfig, servicer: LeewayServicer, admin: AdminServicer, points: list[str]
    ) -> None:
        self._config = config
        self._admin = admin
        self._servicer = servicer
        self._health = _Health()
        self._names = [SERVICE, *(f"{SERVICE}/{point}" for point in points)]
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(config.workers, thread_name_prefix="decide"),
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )
        service_pb2_grpc.add_LeewayServicer_to_server(servicer, self._server)
        admin_pb2_grpc.add_LeewayAdminServicer_to_server(admin, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if config.reflection:
            names = (SERVICE, ADMIN, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.port = 0

    def start(self) -> int:
        """Listen, become ready, and return the port; raises ``ConfigError`` where the address cannot be had."""
        address = f"{self._config.host}:{self._config.port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(
                f"serving.host/port: cannot listen on {address} ({error}); "
                "is another Leeway running? Choose a free port"
            ) from error
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self.port

    def stop(self, hurry: threading.Event) -> None:
        """Drain: not ready, a pause for balancers to notice, no new requests, those under way end.

        ``hurry`` leaves the pause out, or cuts it short when it is set meanwhile.
        """
        self._admin.draining = True
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        hurry.wait(self._config.drain / 1_000.0)
        self._servicer.end_streams()
        ended = self._server.stop(self._config.drain_grace / 1_000.0)
        self._health.release()
        ended.wait()
