"""A real ``leeway up`` in a directory of its own, as an operator runs it: processes, ports and files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc, service_pb2
from engine.client import LeewayClient, decide_request
from engine.records import Decision, JoinAccounting, Outcome
from streaming.config import Config, load_config
from streaming.embedded import EmbeddedLog
from streaming.insight import tail
from streaming.topics import DECISIONS, OUTCOMES
from streaming.up import joiners, run_file

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "streaming.cli"]
#: How long anything may take before a test gives up; generous, for a busy machine.
PATIENCE_S = 60.0

OFFERS: Mapping[str, Any] = {
    "context": {
        "basket": {"type": "number"},
        "country": {"type": "text", "buckets": 8},
        "taste": {"type": "vector", "size": 3},
    },
    "actions": {"features": {"discount": {"type": "number"}}, "max": 50},
    "reward": {"window": "1s", "grace": "200ms", "aggregation": "first"},
    "policy": {"publish_interval": "200ms"},
    # Retraining makes the registry ready, which takes seconds of processor time at each start.
    "retraining": {"enabled": False},
}
CONTEXT: Mapping[str, Any] = {"basket": 0.4, "country": "NL", "taste": [0.1, 0.2, 0.3]}
ACTIONS = ("none", "small", "large")


def settings(points: Mapping[str, Any] | None = None, **serving: Any) -> dict[str, Any]:
    """Return a configuration on free ports that drains quickly; ``serving`` overrides its section."""
    return {
        "version": 1,
        "data_dir": "data",
        "decision_points": dict(points or {"offers": OFFERS}),
        "serving": {"port": 0, "drain": "100ms", **serving},
        "metrics": {"serving_port": 0, "pipeline_port": 0},
    }


def offer(**fields: Any) -> service_pb2.DecideRequest:
    """Return a good request of ``OFFERS``, or one with other fields."""
    request = decide_request("offers", CONTEXT, ACTIONS)
    for name, value in fields.items():
        request.ClearField(name)  # type: ignore[arg-type]
        request.MergeFrom(service_pb2.DecideRequest(**{name: value}))
    return request


def eventually(look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Return what ``look`` gives as soon as it is true; fail when patience ends."""
    end = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > end:
            pytest.fail(f"waited {patience_s:g} s in vain: {what}")
        time.sleep(0.05)
    return found


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def leeway(
    *arguments: str | Path, env: Mapping[str, str] | None = None, patience_s: float = 4 * PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )


def _state(pid: int) -> tuple[str, int] | None:
    """Return state and parent of a process; ``None`` where there is no such one."""
    try:
        # The name, in brackets, may hold anything: what counts stands behind the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    state = _state(pid)
    return state is not None and state[0] not in "ZX"


def descendants(pid: int) -> set[int]:
    """Return the children of a process, their children, and so on."""
    parents = {int(p.name): _state(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found: set[int] = set()
    front = {pid}
    while front:
        front = {child for child, state in parents.items() if state is not None and state[1] in front} - found
        found |= front
    return found


def kill_all(mark: str) -> None:
    """Kill every process that has ``mark`` in its command line with -9, and wait until all are gone."""
    frozen: set[int] = set()
    # Stopped first, so that none of them starts another one, or notices what happens.
    while front := marked(mark) - frozen:
        for pid in front:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        frozen |= front
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(alive, frozen)), f"the end of {sorted(frozen)}")


def marked(mark: str) -> set[int]:
    """Return the processes that have ``mark`` in their command line."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
    return found


class Service:
    """``leeway up`` with a configuration of its own.

    Parameters
    ----------
    directory
        Where configuration, data and messages go.
    settings
        The configuration.
    roles
        Those of ``up --only``; none: all.
    messages
        File for what it says; default: beside the configuration.
    options
        Other options of ``up``.
    environment
        Variables for its processes; ``config`` is that of the file.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        *roles: str,
        messages: Path | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] = {},
    ) -> None:
        self.path = directory / "leeway.yaml"
        self.path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
        self.config: Config = load_config(self.path, {})
        self._options = options
        self._environment = environment
        self._messages = messages or directory / "server.log"
        self._roles = roles
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None, "the service was not started"
        return self._process

    def launch(self) -> None:
        """Start without waiting."""
        only = [word for role in self._roles for word in ("--only", role)]
        with self._messages.open("ab") as sink:
            self._process = subprocess.Popen(
                [*COMMAND, "up", "--config", str(self.path), *only, *self._options],
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )

    def start(self) -> None:
        """Start and wait until every role has announced itself."""
        self.launch()
        for role in self._roles or ("serve", "work"):
            eventually(partial(self._started, role), f"{role} to start")

    def _started(self, role: str) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the service ended with {self.process.returncode}: {self.messages()}")
        return self.facts(role) is not None

    def stop(self) -> int:
        """End it as an operator does, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End all of its processes with -9; each was started with the path of the configuration."""
        kill_all(str(self.path))
        if self._process is not None:
            self._process.wait()

    def messages(self) -> str:
        """Return everything that its processes have said."""
        return self._messages.read_text()

    def facts(self, role: str) -> dict[str, Any] | None:
        """Return what a role of this very run has announced; ``None`` before it has."""
        try:
            facts: dict[str, Any] = json.loads(run_file(self.config, role).read_text())
        except FileNotFoundError:
            return None
        return facts if facts["pid"] in descendants(self.process.pid) else None

    def pid(self, role: str) -> int:
        """Return the process of a role."""
        return int(self._fact(role, "pid"))

    def members(self) -> list[str]:
        """Return the members of the join that have processes of their own."""
        return joiners(self.config)

    def _fact(self, role: str, name: str) -> Any:
        facts = self.facts(role)
        assert facts is not None, f"{role} does not run: {self.messages()}"
        return facts[name]

    @property
    def target(self) -> str:
        """``host:port`` of the gRPC server."""
        return f"127.0.0.1:{self._fact('serve', 'port')}"

    def client(self, *, timeout_s: float = 10.0, retry_s: float = 0.0) -> LeewayClient:
        """Return a client; it does not retry unless asked to."""
        return LeewayClient(self.target, timeout_s=timeout_s, retry_s=retry_s)

    def exposition(self, role: str) -> str:
        """Return what Prometheus would get from a role."""
        url = f"http://127.0.0.1:{self._fact(role, 'metrics_port')}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def metric(self, role: str, name: str, /, **labels: str) -> float:
        """Return one sample of a role's metrics."""
        for family in text_string_to_metric_families(self.exposition(role)):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        pytest.fail(f"{role} has no metric {name}{labels}")

    def status(self, point: str = "offers") -> admin_pb2.DecisionPointStatus:
        """Return what the admin service says of a decision point."""
        with grpc.insecure_channel(self.target) as channel:
            reply = admin_pb2_grpc.LeewayAdminStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=PATIENCE_S)
        return next(entry for entry in reply.decision_points if entry.decision_point == point)

    def settled(self, point: str = "offers") -> JoinAccounting:
        """Wait until every decision in the log has its feedback, and return the book."""
        made = sum(decision.decision_point == point for decision in self.decisions())

        def look() -> JoinAccounting | None:
            book = self.status(point).accounting
            return book if book.pending == 0 and book.decisions >= made else None

        book = eventually(look, f"every window of {made} decisions to close")
        assert book is not None
        return book

    def decisions(self) -> list[Decision]:
        """Return every decision in the log."""
        return [Decision.FromString(value) for value in self._values(DECISIONS)]

    def outcomes(self) -> list[Outcome]:
        """Return every outcome in the log."""
        return [Outcome.FromString(value) for value in self._values(OUTCOMES)]

    def _values(self, topic: str) -> list[bytes]:
        log = EmbeddedLog(self.config.log_dir)  # the file of that topic alone: another one may be damaged
        try:
            return tail(log, topic, 2**40)
        finally:
            log.close()


@contextlib.contextmanager
def running(directory: Path, settings: Mapping[str, Any], *roles: str) -> Iterator[Service]:
    """Run a service for a block; nothing of it is left afterwards, however the block ends."""
    service = Service(directory, settings, *roles)
    try:
        service.start()
        yield service
    finally:
        service.kill()
