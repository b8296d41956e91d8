"""The gRPC server: services, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc, service_pb2
from engine.config import ServingConfig
from engine.serving.access_watcher import AccessWatcher
from engine.serving.admin import AdminServicer
from engine.serving.audit import AuditLog
from engine.serving.call_pool import CallPool
from engine.serving.endpoints import listen, warn_of_open_doors
from engine.serving.forms import add_to_server
from engine.serving.guard import Guard
from engine.serving.lean.server import LeanServer
from engine.serving.load import Load
from engine.serving.malformed import Registration
from engine.serving.polled.inside import unknown
from engine.serving.rates import ClientRates
from engine.serving.seams import Observer
from engine.serving.servicer import LATER, LeewayServicer
from engine.serving.tls import ServerCertificate
from engine.serving.turns import Turns

logger = logging.getLogger(__name__)

LEEWAY = service_pb2.DESCRIPTOR.services_by_name["Leeway"]
LEEWAY_ADMIN = admin_pb2.DESCRIPTOR.services_by_name["LeewayAdmin"]
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
SERVICE = LEEWAY.full_name
ADMIN = LEEWAY_ADMIN.full_name
#: Threads for who is not answered from the decision's threads.
_FEW = 2
#: Calls that wait to be told that there is no room for them. Beyond it grpcio refuses by itself, without a hint.
_REFUSALS = 10_000
#: Between two looks at the file of those who may call.
_LOOK_S = 1.0


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


def _few(name: str) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(_FEW, thread_name_prefix=name)


class Server:
    """A gRPC server with standard health, on one port, or with a port of its own for the admin service and for health.

    The health service knows ``""`` (alive), ``leeway.v1.Leeway`` (ready) and ``leeway.v1.Leeway/<decision point>``. It
    is open to everybody; the others ask the guard.

    Parameters
    ----------
    config
        Addresses, threads, limits, who may call.
    servicer, admin
        What answers.
    points
        Names of the decision points, each of which has a readiness of its own.
    observer
        Is told of calls that the guard refuses.
    clock
        Milliseconds since 1970.

    Attributes
    ----------
    access : callable or None
        Gives who may call now; ``None``: anybody.
    rates : ClientRates or None
        How much each client may ask for; ``None``: no limit.
    port, admin_port, health_port : int
        Where they listen once they are started; 0: nowhere of their own.

    Raises
    ------
    ConfigError
        A file of ``serving.tls`` or ``serving.access_file`` cannot be used.
    """

    def __init__(
        self,
        config: ServingConfig,
        servicer: LeewayServicer,
        admin: AdminServicer,
        points: list[str],
        observer: Observer,
        clock: Callable[[], int],
    ) -> None:
        lacking = unknown() if config.front == "grpcio" else ""
        if lacking:
            logger.warning(
                "serving.front: grpcio %s has no %s as it is needed; its own threads answer, as with front threads",
                grpc.__version__,
                lacking,
            )
            config = config.model_copy(update={"front": "threads"})
            servicer.load = Load(config)
        self._config = config
        self._admin = admin
        self._servicer = servicer
        self._health = _Health()
        self._names = [SERVICE, *(f"{SERVICE}/{point}" for point in points)]
        # One for each port: what has changed since the last handshake is counted for each of them.
        self._certificates = [None if config.tls is None else ServerCertificate(config.tls) for _ in range(2)]
        self._watcher = None if config.access_file is None else AccessWatcher(config.access_file, _LOOK_S)
        self.access = None if self._watcher is None else self._watcher.current
        rate = config.overload.rate
        self.rates = None if rate is None else ClientRates(rate, observer)
        self._guard = Guard(self.access, observer, AuditLog(config.audit_log), clock, self.rates)
        pool = self._open(config, servicer, observer)
        self._others: dict[str, grpc.Server] = {}
        guarded = self._guard.front(servicer, LEEWAY, limited=True)
        add_to_server(pool.front(guarded, LEEWAY), cast(grpc.Server, Registration(self._server, observer)))
        administered = self._server
        if config.admin_port is not None:
            administered = self._others["admin"] = self._new_server(_few("admin"))
        admin_pb2_grpc.add_LeewayAdminServicer_to_server(
            self._guard.front(admin, LEEWAY_ADMIN, audited=True),
            cast(grpc.Server, Registration(administered, observer)),
        )
        if config.health_port is not None:
            self._others["health"] = self._new_server(_few("health"))
        for server in (self._server, *self._others.values()):
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if config.reflection:
            self._reflect(self._server, SERVICE, *([ADMIN] if administered is self._server else []))
            if administered is not self._server:
                self._reflect(administered, ADMIN)
        self.port = self.admin_port = self.health_port = 0

    def _open(self, config: ServingConfig, servicer: LeewayServicer, observer: Observer) -> CallPool:
        """Make the server of the decisions, and return where its calls wait."""
        self._server: grpc.Server
        most_calls = config.max_concurrent + config.streams + _REFUSALS
        if config.front == "threads":
            pool = CallPool(config, servicer.load, observer)
            self._server = self._new_server(pool.lane(), most_calls)
            return pool
        # Not for strangers: what is refused must not cost a decision.
        prepare = servicer.prepare if self.access is None and self.rates is None else None
        others = concurrent.futures.ThreadPoolExecutor(config.workers, thread_name_prefix="others")
        turns = Turns()
        if config.front == "grpcio":
            from engine.serving.polled.server import PolledServer  # of a grpcio that is known alone

            self._server = PolledServer(others, turns, self._options(), most_calls)
            return CallPool(config, servicer.load, observer, turns, LATER, prepare=prepare, polled=True)
        # It has what is asked of a server here.
        lean = LeanServer(others, turns, config.max_message_bytes, config.keepalive / 1_000.0)
        self._server = cast(grpc.Server, lean)
        return CallPool(config, servicer.load, observer, turns, LATER, prepare=prepare)

    def _new_server(self, threads: concurrent.futures.ThreadPoolExecutor, most_calls: int | None = None) -> grpc.Server:
        return grpc.server(threads, maximum_concurrent_rpcs=most_calls, options=self._options())

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self._config.max_message_bytes),
            ("grpc.so_reuseport", int(self._config.processes > 1)),
            # Who vanishes without a word would hold the place of its stream for ever.
            ("grpc.keepalive_time_ms", self._config.keepalive),
            ("grpc.keepalive_timeout_ms", self._config.keepalive),
            ("grpc.http2.ping_timeout_ms", self._config.keepalive),
        ]

    def _reflect(self, server: grpc.Server, *names: str) -> None:
        servicer = reflection.ReflectionServicer((*names, health.SERVICE_NAME, reflection.SERVICE_NAME))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self._guard.front(servicer, _REFLECTION), server)

    def start(self) -> int:
        """Listen, become ready, and return the port; raises ``ConfigError`` where an address cannot be had."""
        config = self._config
        warn_of_open_doors(config)
        mine, of_admin = (None if one is None else one.credentials() for one in self._certificates)
        self.port = listen(self._server, config.host, config.port, mine, "host/port")
        if config.admin_port is not None:
            host = config.admin_host or config.host
            self.admin_port = listen(self._others["admin"], host, config.admin_port, of_admin, "admin_host/admin_port")
        if config.health_port is not None:
            self.health_port = listen(self._others["health"], config.host, config.health_port, None, "health_port")
        if self._watcher is not None:
            self._watcher.start()
        for server in (self._server, *self._others.values()):
            server.start()
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
        grace_s = self._config.drain_grace / 1_000.0
        ended = [server.stop(grace_s) for server in (self._server, *self._others.values())]
        self._health.release()
        for end in ended:
            end.wait()
        if self._watcher is not None:
            self._watcher.stop()
