"""What the server listens on: addresses, in the clear or not, and a loud word where that is dangerous."""

from __future__ import annotations

import logging

import grpc

from engine.config import ServingConfig
from engine.errors import ConfigError
from engine.loopback import is_loopback

logger = logging.getLogger(__name__)


def listen(server: grpc.Server, host: str, port: int, credentials: grpc.ServerCredentials | None, setting: str) -> int:
    """Let a server listen, and return the port; raises ``ConfigError`` naming ``setting`` where it cannot."""
    address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"serving.{setting}: cannot listen on {address} ({error}); is another Leeway running? Choose a free port"
        ) from error


def warn_of_open_doors(config: ServingConfig) -> None:
    """Say loudly what anybody on the network could do."""
    hosts = [config.host] if config.admin_host is None else [config.host, config.admin_host]
    beyond = ", ".join(host for host in hosts if not is_loopback(host))
    if not beyond:
        return
    if config.tls is None:
        logger.warning(
            "PLAIN TEXT beyond this machine: gRPC listens on %s without TLS, and whoever is on the way reads and "
            "changes requests, answers%s; set serving.tls, or let serving.host be 127.0.0.1",
            beyond,
            "" if config.access_file is None else " AND TOKENS",
        )
    if config.access_file is None and (config.tls is None or config.tls.client_ca is None):
        logger.warning(
            "OPEN TO ANYBODY: whoever reaches %s may decide, report and read; set serving.access_file, or "
            "serving.tls.client_ca",
            beyond,
        )
