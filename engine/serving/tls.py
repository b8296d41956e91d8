"""The server's certificate, read again when its files change: what was renewed is used without a restart."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc

from engine.config import TLSConfig
from engine.errors import ConfigError
from engine.serving.changed_file import Mark, mark

logger = logging.getLogger(__name__)


class ServerCertificate:
    """Gives gRPC the certificate for each new connection to one port.

    Parameters
    ----------
    config
        Where the files are.

    Raises
    ------
    ConfigError
        They cannot be used at the start. Later, files that cannot be used leave the ones before them in force, and
        that is said once: they may be half-way through a renewal.
    """

    def __init__(self, config: TLSConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._seen = self._marks()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with; with a CA of the clients, nobody connects without a certificate."""
        # To return None for "no change" is documented, and not in grpc-stubs.
        changed = cast(Callable[[], grpc.ServerCertificateConfiguration], self._changed)
        return grpc.dynamic_ssl_server_credentials(
            self._first, changed, require_client_authentication=self._config.client_ca is not None
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new certificate if there is one; asked at each handshake."""
        with self._lock:
            now = self._marks()
            if now == self._seen:
                return None
            try:
                read = self._read()
            except ConfigError as error:
                logger.error("%s; the certificate before it is still in use", error)
                self._seen = now
                return None
            if self._marks() != now:
                return None  # it is being written; the next handshake sees the rest
            self._seen = now
            logger.info("serving.tls: %s was read again", self._config.certificate)
            return read

    def _paths(self) -> dict[str, Path]:
        paths = {"certificate": self._config.certificate, "key": self._config.key}
        return paths if self._config.client_ca is None else {**paths, "client_ca": self._config.client_ca}

    def _marks(self) -> list[Mark | None]:
        return [mark(path) for path in self._paths().values()]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        content: dict[str, bytes] = {}
        for name, path in self._paths().items():
            try:
                content[name] = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"serving.tls.{name}: {path} cannot be read ({error.strerror})") from error
        if self._config.key.stat().st_mode & 0o004:
            logger.warning("serving.tls.key: anybody on this machine may read %s; chmod o-r", self._config.key)
        self._check(content.get("client_ca"))
        return grpc.ssl_server_certificate_configuration(
            [(content["key"], content["certificate"])], content.get("client_ca")
        )

    def _check(self, client_ca: bytes | None) -> None:
        """Raise ``ConfigError`` for what gRPC would take, and then fail every handshake with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._config.certificate, self._config.key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigError(
                f"serving.tls: {self._config.certificate} and {self._config.key} are no certificate and its key in "
                f"PEM form ({error}); give a pair that belongs together"
            ) from error
        if client_ca is not None:
            try:
                context.load_verify_locations(cadata=client_ca.decode())
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError(
                    f"serving.tls.client_ca: {self._config.client_ca} holds no certificates in PEM form ({error})"
                ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, in a file that the service alone may read")
