"""Several serving processes on one port: a supervisor that starts them, starts again what falls, and shows them as one.

Who connects is given to one of them by the system (SO_REUSEPORT), and stays with it. See ``docs/processes.md``.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPException
from pathlib import Path

from prometheus_client import CollectorRegistry

from engine.errors import ConfigError
from monitoring.exposition import serve_metrics
from monitoring.merged_metrics import CrewMetrics, MergedCollector
from streaming.config import Config
from streaming.processes import scrape
from streaming.up import (
    Command,
    Supervisor,
    announce,
    hold_lifeline,
    hold_role,
    run_file,
    serving_role,
    whereabouts,
    withdraw,
)

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
#: How often it is looked which processes serve.
_LOOK_S = 0.1


class Crew:
    """The serving processes of a configuration, and the ports that they share.

    Parameters
    ----------
    config
        The configuration; ``config.serving.processes`` says how many.
    config_path
        Handed to each process.
    verbose
        Hand ``--verbose`` on.

    Attributes
    ----------
    ports : dict of str to int
        ``port``, and of ``admin_port``, ``health_port`` and ``http_port`` those that are configured.
    metrics_port : int
        Where all of them are shown as one.
    """

    def __init__(self, config: Config, config_path: Path, *, verbose: bool = False) -> None:
        self._config = config
        self._path = config_path
        self._verbose = verbose
        self._numbers = range(1, config.serving.processes + 1)
        self._ended = threading.Event()
        self.ports: dict[str, int] = {}
        self.metrics_port = 0

    def run(self, ready: Callable[[], None]) -> int:
        """Supervise until a signal, and return the exit status; ``ready`` is told when all of them serve.

        Raises ``ConfigError`` where an address cannot be had, or a process of an earlier crew goes on.
        """
        registry = CollectorRegistry()
        metrics = CrewMetrics(registry)
        metrics.processes.set(len(self._numbers))
        metrics.ready.set_function(lambda: len(self._serving()))
        registry.register(MergedCollector(self._expositions))
        self._outwait()
        with ExitStack() as stack:
            for name, host, port in _addresses(self._config):
                self.ports[name] = stack.enter_context(_reserved(name, host, port))
            shown = stack.enter_context(
                closing(serve_metrics(registry, self._config.metrics.host, self._config.metrics.serving_port))
            )
            self.metrics_port = shown.port
            supervisor = Supervisor(
                self._path,
                [self._command(number) for number in self._numbers],
                verbose=self._verbose,
                together=True,
                on_fall=lambda _: metrics.restarts.inc(),
            )
            muster = threading.Thread(target=self._muster, args=(ready,), name="muster", daemon=True)
            try:
                return supervisor.run(muster.start)
            finally:
                self._ended.set()
                muster.join()

    def _command(self, number: int) -> Command:
        """Return what starts a process: it has the ports that are reserved, and metrics of its own for this machine."""
        names = {"port": "PORT", "admin_port": "ADMIN_PORT", "health_port": "HEALTH_PORT", "http_port": "HTTP__PORT"}
        own = {f"LEEWAY_SERVING__{names[name]}": str(port) for name, port in self.ports.items()}
        own |= {"LEEWAY_METRICS__HOST": _LOOPBACK, "LEEWAY_METRICS__SERVING_PORT": "0"}
        return Command(f"serve {number}", ("serve", "--process", str(number)), own)

    def _outwait(self) -> None:
        """Wait for processes of an earlier crew, which drain when they have lost it; forget where they were."""
        directory = run_file(self._config, "serve").parent
        for path in sorted(directory.glob("serve-*")):
            if path.suffix == ".lock" and re.fullmatch(r"serve-\d+", path.stem):
                os.close(hold_role(self._config, path.stem))
                run_file(self._config, path.stem).unlink(missing_ok=True)

    def _serving(self) -> dict[int, tuple[int, int]]:
        """Return pid and port of metrics of each process that serves."""
        found = {}
        for number in self._numbers:
            facts = whereabouts(self._config, serving_role(number))
            if facts is not None:
                found[number] = (int(str(facts["pid"])), int(str(facts["metrics_port"])))
        return found

    def _muster(self, ready: Callable[[], None]) -> None:
        while not self._ended.wait(_LOOK_S):
            if len(self._serving()) == len(self._numbers):
                ready()
                return

    def _expositions(self) -> dict[tuple[int, int], str]:
        texts = {}
        for number, (pid, port) in self._serving().items():
            try:
                texts[number, pid] = scrape(_LOOPBACK, port)
            except (OSError, HTTPException, ValueError) as error:
                logger.warning("the metrics of serving process %d do not answer: %s", number, error)
        return texts


def _addresses(config: Config) -> Iterator[tuple[str, str, int]]:
    """Return name, host and port of what all processes listen on."""
    said = config.serving
    yield "port", said.host, said.port
    if said.admin_port is not None:
        yield "admin_port", said.admin_host or said.host, said.admin_port
    if said.health_port is not None:
        yield "health_port", said.host, said.health_port
    if said.http is not None:
        yield "http_port", said.http.host, said.http.port


@contextmanager
def _reserved(name: str, host: str, port: int) -> Iterator[int]:
    """Keep a port for those who share it, and yield its number; it gets no connection, for it does not listen.

    Raises ``ConfigError`` where somebody else listens there, also somebody who would share.
    """
    try:
        kept = _shared_socket(host.removeprefix("[").removesuffix("]"), port)
    except OSError as error:
        raise ConfigError(
            f"serving.{name.replace('http_', 'http.')}: cannot listen on {host}:{port} ({error}); is another "
            "Leeway running? Choose a free port"
        ) from error
    with kept:
        yield int(kept.getsockname()[1])


def _shared_socket(host: str, port: int) -> socket.socket:
    """Return a socket that shares its port; raises ``OSError`` where somebody has it already."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(address)
        found = alone.getsockname()
    shared = socket.socket(family, kind, protocol)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(found)
    except OSError:
        shared.close()
        raise
    return shared


def run_crew(config: Config, config_path: Path, *, verbose: bool) -> int:
    """Be ``leeway serve`` with several processes; return the exit status."""
    hold_lifeline()
    hold_role(config, "serve")
    crew = Crew(config, config_path, verbose=verbose)
    said = config.serving

    def ready() -> None:
        ports = crew.ports
        facts = {"http_port": ports["http_port"]} if "http_port" in ports else {}
        announce(
            config,
            "serve",
            host=said.host,
            port=ports["port"],
            admin=f"{said.admin_host or said.host}:{ports.get('admin_port', ports['port'])}",
            health_port=ports.get("health_port", ports["port"]),
            metrics_port=crew.metrics_port,
            processes=said.processes,
            **facts,
        )
        logger.info(
            "%d processes serve on %s:%d, metrics on :%d/metrics",
            said.processes, said.host, ports["port"], crew.metrics_port,
        )  # fmt: skip

    status = crew.run(ready)
    withdraw(config, "serve")
    return status
