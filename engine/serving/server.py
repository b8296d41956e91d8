"""The gRPC server: services, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import concurrent.futures
import logging
import time

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
        self._health = health.HealthServicer(experimental_non_blocking=True)
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

    def stop(self, *, wait: bool = True) -> None:
        """Drain: not ready, a pause for balancers to notice, no new requests, those under way end.

        ``wait=False`` leaves the pause out.
        """
        self._admin.draining = True
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        if wait:
            time.sleep(self._config.drain / 1_000.0)
        self._server.stop(self._config.drain_grace / 1_000.0).wait()
        self._health.enter_graceful_shutdown()
